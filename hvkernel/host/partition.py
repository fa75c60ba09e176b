"""The partition: one guest's hypervisor, put together from its parts.

A trap goes to the architecture's half (registers' numbers, CPUID, instructions), which decodes it and asks
:class:`Host` for the rest: the registers, the hypercalls, the SynIC, the timers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NoReturn

from hvkernel.abi.tlfs_features import HV_CRASH_CTL_CRASH_NOTIFY, HV_CRASH_CTL_CRASH_NOTIFY_MSG
from hvkernel.api.host.arch import ArchHost, FeatureWords, ProcessorView, SyntheticRegister
from hvkernel.host.firmware import build_firmware
from hvkernel.host.hypercalls import Hypercalls
from hvkernel.host.overlays import Overlays
from hvkernel.host.ports import Ports
from hvkernel.host.registers import Registers
from hvkernel.host.status import HvStatus
from hvkernel.host.synic import Synic
from hvkernel.host.timers import Timers, counter_at
from hvkernel.machine.faults import GeneralProtectionFault, UndefinedOpcode

if TYPE_CHECKING:
    from hvkernel.config.profile import HostProfile
    from hvkernel.host.acpi import Acpi
    from hvkernel.machine import Machine
    from hvkernel.machine.clock import Timer

__all__ = ["Host"]

_PARTITION_ID: Final = 1
"""Identity of the guest's partition for HvCallGetPartitionId. *unspecified*: any non-reserved number."""

Retarget = Callable[[int, bytes], int]
"""``fn(vp, input) -> HV_STATUS`` of a device whose interrupts are retargeted."""


class Host:
    """The hypervisor of one guest.

    :param machine: its trap handler is set to the architecture's half.
    :param profile: what this release of Hyper-V announces, accepts and offers.
    :param generation: 1 or 2.
    :param arch: the architecture's half, made for this partition alone.
    :param command_line: the kernel command line that the firmware hands over.
    :param node_memory: bytes of RAM of each NUMA node, ascending; ``None`` shares it evenly.
    :raises ValueError: the profile has no such generation, or fewer VPs than the machine.
    """

    def __init__(
        self,
        machine: Machine,
        profile: HostProfile,
        generation: int,
        arch: ArchHost,
        *,
        command_line: bytes = b"",
        node_memory: Sequence[int] | None = None,
    ) -> None:
        if generation not in profile.generations:
            raise ValueError(f"generation = {generation}: host {profile.name} has {profile.generations}")
        if len(machine.vps) > profile.cpuid.max_vps:
            raise ValueError(f"{len(machine.vps)} VPs: host {profile.name} has at most {profile.cpuid.max_vps}")
        self.machine = machine
        self.profile = profile
        self.generation = generation
        self.arch = arch
        self.node_memory = node_memory
        self.words: FeatureWords = profile.cpuid
        self.processor: ProcessorView = profile.cpu
        self.build = profile.build.words
        self.partition_id = _PARTITION_ID
        self.extended_capabilities = profile.cpuid.extended_capabilities
        self.vps = {vp.vp_index: vp for vp in machine.vps}
        """The machine's processors by VP index."""
        self.vp_indices = tuple(sorted(self.vps))
        self._hw_ids = {vp.hw_id: index for index, vp in self.vps.items()}
        self.devices: dict[int, Retarget] = {}
        """Devices whose interrupts a guest may retarget, by the device id of the hypercall."""
        self.power_events: list[tuple[int, str]] = []
        """``(reference time, "reset" | "off")`` of what the guest asked for."""
        self.on_power: list[Callable[[str], None]] = []
        """Called with ``"reset"`` or ``"off"`` after it was noted."""
        arch.prepare(profile.cpu.vendor)
        features = arch.features(self.words)
        crash = HV_CRASH_CTL_CRASH_NOTIFY
        self.crash_control = crash | HV_CRASH_CTL_CRASH_NOTIFY_MSG if profile.crash_message else crash
        """What CRASH_CTL reads as: the capabilities of the crash interface."""
        self.overlays = Overlays(self)
        self.ports = Ports()
        self.synic = Synic(self, polling=features.sint_polling)
        self.timers = Timers(self, direct=features.direct_stimer)
        self.registers = Registers(self, features)
        self.hypercalls = Hypercalls(self, features)
        self.execute = self.hypercalls.execute
        """Executes a hypercall whose registers the architecture has decoded."""
        arch.attach(self)
        machine.set_trap_handler(arch)
        self.acpi: Acpi = build_firmware(self, command_line)

    # findings

    def record(self, kind: str, text: str) -> None:
        """Add a finding of the host's side.

        :param kind: ``refused``, ``tolerated``, ``undefined`` (the TLFS leaves the outcome open), ``throttled``,
            ``guest-crash`` or ``power``.
        """
        self.machine.report(kind, "host", text)

    # the partition, as the architecture's half sees it

    @property
    def boot_vp(self) -> int:
        """VP index of the processor that runs first."""
        return self.machine.boot_vp.vp_index

    @property
    def now(self) -> int:
        """Reference time in 100 ns units."""
        return self.timers.now

    @property
    def identified(self) -> bool:
        """Whether the guest wrote its Guest OS ID."""
        return bool(self.registers.guest_os_id)

    @property
    def hypercalls_enabled(self) -> bool:
        """Whether the guest may make hypercalls."""
        return self.registers.hypercalls_enabled

    @property
    def tsc_invariant(self) -> bool:
        """Whether the guest asked to see the invariant TSC."""
        return bool(self.registers.tsc_invariant)

    def hw_id(self, vp: int) -> int:
        """APIC id or MPIDR of a VP."""
        return self.vps[vp].hw_id

    def vp_of(self, hw_id: int) -> int | None:
        """The VP with that APIC id or MPIDR, or ``None``."""
        return self._hw_ids.get(hw_id)

    def try_read(self, vp: int, register: SyntheticRegister | None) -> tuple[int, int]:
        """Read a synthetic register: ``(HV_STATUS, value)``."""
        return self.registers.try_read(vp, register)

    def try_write(self, vp: int, register: SyntheticRegister | None, value: int) -> int:
        """Write a synthetic register: HV_STATUS."""
        return self.registers.try_write(vp, register, value)

    def start_vp(self, vp: int) -> bool:
        """Let a VP run its start-up code. False when it runs already."""
        return self.vps[vp].start()

    def runs_vp(self, vp: int) -> bool:
        """Whether a VP was started and not stopped since."""
        return self.vps[vp].started

    def stop_vp(self, vp: int) -> None:
        """The VP stops running if it does; it can be started again."""
        if self.vps[vp].started:
            self.vps[vp].stop()

    def interrupt(self, vp: int, vector: int) -> None:
        """Make an interrupt pending on a VP."""
        self.vps[vp].raise_irq(vector)

    def end_of_interrupt(self, vp: int) -> None:
        """Look at the VP's message queues again."""
        self.synic.scan(vp)

    @property
    def counter(self) -> int:
        """The processors' own counter now."""
        return counter_at(self.timers.now, self.processor.counter_hz)

    def at(self, when: int, call: Callable[[], None]) -> Timer:
        """Run ``call`` when the reference time is ``when``."""
        return self.machine.clock.at(self.machine.clock.now - self.timers.now + when, call)

    def power(self, kind: str) -> None:
        """Note that the guest asked to be reset or switched off."""
        self.power_events.append((self.timers.now, kind))
        self.record("power", f"the guest asked for {kind}")
        for call in self.on_power:
            call(kind)

    def retarget(self, vp: int, data: bytes) -> int:
        """Hand HvCallRetargetDeviceInterrupt to the device it names."""
        if int.from_bytes(data[:8], "little") != (1 << 64) - 1:
            return HvStatus.INVALID_PARTITION_ID
        device = self.devices.get(int.from_bytes(data[8:16], "little"))
        return HvStatus.INVALID_DEVICE_ID if device is None else device(vp, data)

    def general_protection(self, register: int, why: str) -> NoReturn:
        """Refuse a register access with #GP."""
        raise GeneralProtectionFault(register, why)

    def undefined_opcode(self, opcode: bytes) -> NoReturn:
        """Refuse an instruction."""
        raise UndefinedOpcode(opcode)

    def reset(self) -> None:
        """Put every register, page and timer into its state at partition creation (a new kernel starts)."""
        self.timers.reset()
        self.synic.reset()
        self.registers.reset()
