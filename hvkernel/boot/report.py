"""The report of a boot, put together from what both halves say of themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hvkernel.config.report import (
    BootReport,
    Device,
    Finding,
    HostInfo,
    KernelInfo,
    LogLine,
    Outcome,
    Shared,
    VmbusInfo,
)

if TYPE_CHECKING:
    from hvkernel.api.guest import KernelObject
    from hvkernel.boot.plugins import Plugins
    from hvkernel.boot.session import Session
    from hvkernel.config.profile import HostProfile
    from hvkernel.host.vmbus.devices import DeviceStatus
    from hvkernel.kconfig import Build

__all__ = ["build_report", "device_report", "unsupported_report"]

SECOND: Final = 10_000_000
"""Units of virtual time in a second."""


def build_report(session: Session) -> BootReport:
    """Return what a booted session has to say of itself now."""
    kernel, machine, build = session.kernel, session.machine, session.build
    outcome = kernel.outcome
    state: Outcome = "hung"
    reason: str | None = "not booted"
    if outcome is not None:
        reason = outcome.reason or None
        state = outcome.state if outcome.state in ("up", "panic", "hung") else "up"  # type: ignore[assignment] # checked
    version = session.server.bus.version
    return BootReport(
        outcome=state,
        reason=reason,
        seed=machine.seed,
        kernel=kernel_info(build),
        host=HostInfo(
            profile=session.host.profile.name,
            generation=session.host.generation,
            build=session.host.profile.build.text,
        ),
        vmbus=VmbusInfo(version=f"{version >> 16}.{version & 0xFFFF}" if version else None),
        dmesg=tuple(LogLine(t=t / 1e9, level=level, text=text) for t, level, text in kernel.printk.log),
        devices=tuple(device_report(session, status) for status in session.server.status()),
        sharing=tuple(
            Shared(gpa=entry.gpa, pages=entry.pages, via=entry.via, since=entry.since / SECOND, cpu=entry.cpu)
            for entry in machine.ledger.entries()
        ),
        findings=tuple(
            Finding(kind=f.kind, side=f.side, text=f.text, t=f.t / SECOND, where=" < ".join(f.where))
            for f in machine.findings
        ),
        notes=_notes(build, session.plugins),
    )


def unsupported_report(
    seed: int, build: Build, profile: HostProfile, generation: int, plugins: Plugins, reason: str
) -> BootReport:
    """Return the report of a VM that cannot run this kernel; nothing was booted."""
    return BootReport(
        outcome="unsupported",
        reason=reason,
        seed=seed,
        kernel=kernel_info(build),
        host=HostInfo(profile=profile.name, generation=generation, build=profile.build.text),  # type: ignore[arg-type] # as above
        vmbus=VmbusInfo(version=None),
        dmesg=(),
        devices=(),
        sharing=(),
        findings=(),
        notes=_notes(build, plugins),
    )


def _notes(build: Build, plugins: Plugins) -> tuple[str, ...]:
    """Their bytes that are no text (of a file's name) made visible: JSON could not hold them."""
    notes = (*build.notes, *(str(fault) for fault in plugins.faults))
    return tuple(note.encode("utf-8", "backslashreplace").decode() for note in notes)


def kernel_info(build: Build) -> KernelInfo:
    """Return the report's words on the kernel."""
    return KernelInfo(
        release=build.release,
        arch=build.arch,
        bits=64 if build.bits == 64 else 32,
        page_size=build.page_size,
        hz=build.hz,
    )


def device_report(session: Session, status: DeviceStatus) -> Device:
    """Return the report's words on one device, as it stands now."""
    kernel = session.kernel
    obj = _driver_object(session, status)
    bound = None
    bus = kernel.driver.buses.get("vmbus")
    name = str(status.instance_guid)
    guest = next((dev for dev in bus.devices if dev.name == name), None) if bus is not None else None
    if guest is not None and guest.driver is not None:
        bound = guest.driver.name
    built = kernel.built(obj) if obj is not None else None
    if not status.modelled:
        state, reason = "not-modelled", "no plugin models this class of device"
    elif bound is not None:
        state, reason = "bound", None
    elif obj is None:
        state, reason = "unclaimed", "no driver declares this class"
    elif built == "n":
        state, reason = "unclaimed", "; ".join(session.build.explain(obj.config).lines())
    elif guest is None:
        state, reason = "unclaimed", "the guest never saw the offer"
    elif not kernel.module.module_loaded(obj.name) and built == "m":
        state, reason = "unclaimed", f"module {obj.name} was not loaded"
    else:
        state, reason = "failed", "its probe failed"
    return Device.model_validate(
        {
            "class": status.name.rstrip("0123456789"),
            "class_guid": str(status.class_guid),
            "instance_guid": name,
            "relid": status.relid,
            "driver": bound,
            "module": obj.name if obj is not None else None,
            "built": built,
            "state": state,
            "protocol": status.protocol,
            "reason": reason,
        }
    )


def _driver_object(session: Session, status: DeviceStatus) -> KernelObject | None:
    """Return the kernel object that declares the device's class, built or not."""
    alias = f"vmbus:{status.class_guid.hex()}"
    return next((obj for obj in session.kernel.objects if alias in obj.aliases), None)
