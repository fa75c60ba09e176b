"""What ``hvkernel boot --json`` prints, as models that read it back."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["BootReport", "Device", "Finding", "HostInfo", "KernelInfo", "LogLine", "Outcome", "Shared", "VmbusInfo"]

Outcome = Literal["up", "panic", "hung", "unsupported"]
"""How a boot ended (docs/design.rst: what ``up`` means)."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class KernelInfo(_Model):
    """The kernel that the ``.config`` describes."""

    release: str
    arch: str
    bits: Literal[32, 64]
    page_size: int
    """Guest ``PAGE_SIZE`` in bytes."""
    hz: int
    """``CONFIG_HZ``."""


class HostInfo(_Model):
    """The machine that it was booted on."""

    profile: str
    generation: Literal[1, 2]
    build: str
    """Version words as the guest prints them, ``major.minor.build.service-…``; empty for an unsupported VM."""


class VmbusInfo(_Model):
    """The bus, once the guest is connected."""

    version: str | None
    """Negotiated protocol version, ``"5.3"``; ``None`` while unconnected."""


class LogLine(_Model):
    """One line of the guest's log."""

    t: float
    """Seconds of virtual time since the kernel started."""
    level: Annotated[int, Field(ge=0, le=7)]
    """Kernel log level, 0 (emergency) to 7 (debug)."""
    text: str


class Device(_Model):
    """One device that the host offered."""

    device_class: Annotated[str, Field(serialization_alias="class", validation_alias="class")]
    class_guid: str
    instance_guid: str
    relid: int
    driver: str | None
    """Its name under ``/sys/bus/vmbus/drivers``."""
    module: str | None
    built: Literal["y", "m", "n"] | None
    """How the ``.config`` builds the class's driver; ``None`` where no plugin has one."""
    state: Literal["bound", "unclaimed", "failed", "rescinded", "not-modelled"]
    protocol: str | None
    """Version that the driver and the device agreed on."""
    reason: str | None
    """Why it is not bound."""


class Shared(_Model):
    """Guest memory that the host can reach at the end of the boot."""

    gpa: int
    pages: int
    """4 KiB pages."""
    via: str
    since: float
    """Seconds of virtual time."""
    cpu: int | None
    """VP whose register shares it; ``None`` for what belongs to the partition."""


class Finding(_Model):
    """Something that should not have happened, or that the host tolerated, refused or would have throttled."""

    kind: str
    side: str
    text: str
    t: float
    where: str


class BootReport(_Model):
    """The whole of one boot."""

    schema_version: Annotated[Literal[1], Field(serialization_alias="schema", validation_alias="schema")] = 1
    outcome: Outcome
    reason: str | None
    seed: int
    kernel: KernelInfo
    host: HostInfo
    vmbus: VmbusInfo
    dmesg: tuple[LogLine, ...]
    devices: tuple[Device, ...]
    sharing: tuple[Shared, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()
    """What the reader should know of the build: a stand-in release, a driver that is ``n``, a plugin that failed."""

    def to_json(self) -> str:
        """Return the document that ``--json`` prints: keys in the order above, two spaces, one newline at the end."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"

    @property
    def exit_status(self) -> int:
        """0 when the guest is up, 1 otherwise."""
        return 0 if self.outcome == "up" else 1
