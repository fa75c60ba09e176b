"""Synthetic registers: who may read and write which, and what it does.

Every register is announced by a privilege flag or a feature bit (TLFS, "Partition Privilege Flags"). One that is not
announced, does not exist, is read only, or refuses its value comes back as an HV_STATUS; the architecture makes #GP of
it (MSRs) or fails the hypercall (HvSetVpRegisters).
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple

from hvkernel.abi.tlfs_features import HV_CRASH_CTL_CRASH_NOTIFY, HV_CRASH_CTL_CRASH_NOTIFY_MSG, HV_HYP_PAGE_SIZE
from hvkernel.abi.tlfs_synic import HV_SYNIC_SINT_COUNT, HV_SYNIC_STIMER_COUNT
from hvkernel.api.host.arch import ArchFeatures, SyntheticRegister
from hvkernel.host.status import HvStatus
from hvkernel.machine.faults import PageFault

if TYPE_CHECKING:
    from hvkernel.host.partition import Host

__all__ = ["CrashReport", "Registers"]

R = SyntheticRegister
Read = Callable[[int], int]
"""``read(vp) -> value``."""
Write = Callable[[int, int], bool]
"""``write(vp, value) -> accepted``."""

_MASK64: Final = 0xFFFF_FFFF_FFFF_FFFF
_LOCKED: Final = 1 << 1
_TSC_PRIVILEGE: Final = 15
_PAIR: Final = Struct("<QQ")

# Bits of HV_PARTITION_PRIVILEGE_MASK (TLFS, "Partition Privilege Flags"), low word.
_PRIVILEGE: Final = (
    (R.VP_RUNTIME, 0),
    (R.TIME_REF_COUNT, 1),
    (R.SCONTROL, 2), (R.SVERSION, 2), (R.SIEFP, 2), (R.SIMP, 2), (R.EOM, 2),
    (R.EOI, 4), (R.ICR, 4), (R.TPR, 4), (R.VP_ASSIST_PAGE, 4),
    (R.GUEST_OS_ID, 5), (R.HYPERCALL, 5),
    (R.VP_INDEX, 6),
    (R.RESET, 7),
    (R.REFERENCE_TSC, 9),
    (R.GUEST_IDLE, 10),
    (R.TSC_FREQUENCY, 11), (R.APIC_FREQUENCY, 11),
    (R.REENLIGHTENMENT_CONTROL, 13), (R.TSC_EMULATION_CONTROL, 13), (R.TSC_EMULATION_STATUS, 13),
    (R.TSC_INVARIANT_CONTROL, _TSC_PRIVILEGE),
)  # fmt: skip
_SINT_PRIVILEGE: Final = 2
_STIMER_PRIVILEGE: Final = 3
_CRASH: Final = (R.CRASH_P0, R.CRASH_P1, R.CRASH_P2, R.CRASH_P3, R.CRASH_P4, R.CRASH_CTL)
_SIZE: Final = 128


class CrashReport(NamedTuple):
    """What the guest told the host when it crashed."""

    parameters: tuple[int, int, int, int, int]
    """P0 to P4."""
    message: bytes
    """The panic message, empty when the guest sent none."""
    vp: int
    time: int
    """Reference time in 100 ns units."""


class Registers:
    """All synthetic registers of a partition."""

    __slots__ = (
        "_assist",
        "_host",
        "_read",
        "_write",
        "assist_pages",
        "crash_parameters",
        "crashes",
        "emulation_control",
        "emulation_status",
        "guest_os_id",
        "hypercall",
        "hypercall_page",
        "reenlightenment",
        "tsc_invariant",
    )

    def __init__(self, host: Host, features: ArchFeatures) -> None:
        self._host = host
        self.guest_os_id = 0
        self.hypercall = 0
        # "Attempts to write to the hypercall page will result in a protection (#GP) exception" (TLFS, Establishing the
        # Hypercall Interface). What a write to the reference TSC page does is *unspecified*: a page fault.
        self.hypercall_page = host.overlays.new("hypercall page", "hypercall page", 0, readonly=True, general=True)
        self._assist = dict.fromkeys(host.vp_indices, 0)
        self.assist_pages = {
            vp: host.overlays.new(f"VP assist page of VP {vp}", "vp assist", vp) for vp in self._assist
        }
        self.crash_parameters = [0, 0, 0, 0, 0]
        self.crashes: list[CrashReport] = []
        self.reenlightenment = 0
        self.emulation_control = 0
        self.emulation_status = 0
        self.tsc_invariant = 0
        if host.arch.needs_hypercall_page:
            self.hypercall_page.write(0, host.arch.hypercall_page())
        self._read: list[Read | None] = [None] * _SIZE
        self._write: list[Write | None] = [None] * _SIZE
        self._fill(features)

    # access

    def try_read(self, vp: int, register: SyntheticRegister | None) -> tuple[int, int]:
        """Return ``(HV_STATUS, value)``."""
        if register is None:
            return HvStatus.INVALID_PARAMETER, 0
        read = self._read[register]
        if read is None:
            refused = HvStatus.INVALID_PARAMETER if self._write[register] else HvStatus.ACCESS_DENIED
            self._host.record("refused", f"VP {vp} read {register.name}: {refused.name}")
            return refused, 0
        return HvStatus.SUCCESS, read(vp)

    def try_write(self, vp: int, register: SyntheticRegister | None, value: int) -> int:
        """Write and return the HV_STATUS."""
        if register is None:
            return HvStatus.INVALID_PARAMETER
        write = self._write[register]
        if write is None:
            refused = HvStatus.INVALID_PARAMETER if self._read[register] else HvStatus.ACCESS_DENIED
        elif write(vp, value):
            return HvStatus.SUCCESS
        else:
            refused = HvStatus.INVALID_PARAMETER
        self._host.record("refused", f"VP {vp} wrote {value:#x} to {register.name}: {refused.name}")
        return refused

    # the table

    def _fill(self, features: ArchFeatures) -> None:
        host = self._host
        granted = host.words.privileges_low
        synic, timers = host.synic, host.timers
        allowed = {register: bool(granted >> bit & 1) for register, bit in _PRIVILEGE}
        allowed[R.TSC_FREQUENCY] &= features.frequency_registers
        allowed[R.APIC_FREQUENCY] &= features.frequency_registers
        allowed[R.GUEST_IDLE] &= features.guest_idle
        allowed.update(dict.fromkeys(_CRASH, features.crash_registers))
        always = (R.HYPERVISOR_VERSION, R.PRIVILEGES_AND_FEATURES, R.FEATURES, R.IMPLEMENTATION_LIMITS)
        allowed.update(dict.fromkeys((*always, R.HARDWARE_FEATURES), True))

        def put(register: int, read: Read | None, write: Write | None = None) -> None:
            if allowed.get(SyntheticRegister(register), False):
                self._read[register], self._write[register] = read, write

        put(R.GUEST_OS_ID, lambda vp: self.guest_os_id, self._write_guest_os_id)
        put(R.HYPERCALL, lambda vp: self.hypercall, self._write_hypercall)
        put(R.VP_INDEX, lambda vp: vp)
        put(R.RESET, lambda vp: 0, self._write_reset)
        put(R.VP_RUNTIME, lambda vp: timers.now)
        put(R.TIME_REF_COUNT, timers.read_time_ref_count)
        put(R.REFERENCE_TSC, timers.read_reference_tsc, timers.write_reference_tsc)
        put(R.TSC_FREQUENCY, lambda vp: host.processor.counter_hz)
        put(R.APIC_FREQUENCY, lambda vp: host.processor.apic_hz)
        put(R.EOI, None, lambda vp, value: host.arch.write_apic(vp, R.EOI, value))
        for register in (R.ICR, R.TPR):
            put(register, self._apic_read(register), self._apic_write(register))
        put(R.VP_ASSIST_PAGE, lambda vp: self._assist[vp], self._write_assist)
        put(R.SCONTROL, synic.read_scontrol, synic.write_scontrol)
        put(R.SVERSION, synic.read_sversion)
        put(R.SIEFP, synic.read_siefp, synic.write_siefp)
        put(R.SIMP, synic.read_simp, synic.write_simp)
        put(R.EOM, lambda vp: 0, synic.write_eom)
        put(R.GUEST_IDLE, lambda vp: 0)
        for number in range(5):
            put(R.CRASH_P0 + number, self._crash_read(number), self._crash_write(number))
        put(R.CRASH_CTL, lambda vp: host.crash_control, self._write_crash_ctl)
        put(R.REENLIGHTENMENT_CONTROL, lambda vp: self.reenlightenment, self._write_reenlightenment)
        put(R.TSC_EMULATION_CONTROL, lambda vp: self.emulation_control, self._write_emulation_control)
        put(R.TSC_EMULATION_STATUS, lambda vp: self.emulation_status, self._write_emulation_status)
        put(R.TSC_INVARIANT_CONTROL, lambda vp: self.tsc_invariant, self._write_tsc_invariant)
        if granted >> _SINT_PRIVILEGE & 1:
            for sint in range(HV_SYNIC_SINT_COUNT):
                self._read[R.SINT0 + sint] = self._sint_read(sint)
                self._write[R.SINT0 + sint] = self._sint_write(sint)
        if granted >> _STIMER_PRIVILEGE & 1:
            for index in range(HV_SYNIC_STIMER_COUNT):
                self._stimer(index)
        for register in always:
            self._read[register] = None  # 128 bits wide: only :meth:`wide` reads them

    def _apic_read(self, register: SyntheticRegister) -> Read:
        return lambda vp: self._host.arch.read_apic(vp, register)

    def _apic_write(self, register: SyntheticRegister) -> Write:
        return lambda vp, value: self._host.arch.write_apic(vp, register, value)

    def _crash_read(self, number: int) -> Read:
        return lambda vp: self.crash_parameters[number]

    def _crash_write(self, number: int) -> Write:
        def write(vp: int, value: int) -> bool:
            self.crash_parameters[number] = value
            return True

        return write

    def _sint_read(self, sint: int) -> Read:
        return lambda vp: self._host.synic.read_sint(vp, sint)

    def _sint_write(self, sint: int) -> Write:
        return lambda vp, value: self._host.synic.write_sint(vp, sint, value)

    def _stimer(self, index: int) -> None:
        timers = self._host.timers
        config, count = R.STIMER0_CONFIG + 2 * index, R.STIMER0_COUNT + 2 * index
        self._read[config] = lambda vp: timers.read_config(vp, index)
        self._write[config] = lambda vp, value: timers.write_config(vp, index, value)
        self._read[count] = lambda vp: timers.read_count(vp, index)
        self._write[count] = lambda vp, value: timers.write_count(vp, index, value)

    def wide(self, register: SyntheticRegister | None) -> tuple[int, int] | None:
        """Return the two 64-bit halves of a 128-bit register, ``None`` when it is not one."""
        words, build = self._host.words, self._host.build
        if register is R.HYPERVISOR_VERSION:
            a, b, c, d = build
        elif register is R.PRIVILEGES_AND_FEATURES:
            a, b, c, d = words.privileges_low, words.privileges_high, words.features_c, words.features_d
        elif register is R.FEATURES:
            a, b, c, d = words.recommendations, words.spin_retries, 0, 0
        elif register is R.IMPLEMENTATION_LIMITS:
            a, b, c, d = words.max_vps, words.max_lps, 0, 0
        elif register is R.HARDWARE_FEATURES:
            a, b, c, d = words.hardware, 0, 0, 0
        else:
            return None
        return a | b << 32, c | d << 32

    # what writes do

    def _write_guest_os_id(self, vp: int, value: int) -> bool:
        self.guest_os_id = value
        if not value and self.hypercall & 1:
            # "If the Guest OS identity is cleared to zero after the hypercall page has been enabled, it will
            # become disabled" (TLFS, Establishing the Hypercall Interface).
            self.hypercall &= ~1
            self.hypercall_page.sync(False, 0, vp)
        return True

    def _write_hypercall(self, vp: int, value: int) -> bool:
        if self.hypercall & _LOCKED:
            return False
        if not self.guest_os_id:
            value &= ~1
        if not self.hypercall_page.sync(bool(value & 1), value >> 12, vp):
            # Moving the page beyond the GPA space is #GP; what was enabled before is gone with it.
            self.hypercall &= ~1
            return False
        self.hypercall = value
        return True

    def _write_reset(self, vp: int, value: int) -> bool:
        if value & 1:
            self._host.power("reset")
        return True

    def _write_assist(self, vp: int, value: int) -> bool:
        if not self.assist_pages[vp].sync(bool(value & 1), value >> 12, vp):
            self._host.record("tolerated", f"VP_ASSIST_PAGE of VP {vp} = {value:#x} is beyond the GPA space")
        self._assist[vp] = value
        return True

    def _write_crash_ctl(self, vp: int, value: int) -> bool:
        if not value & HV_CRASH_CTL_CRASH_NOTIFY:
            return True
        host = self._host
        p0, p1, p2, p3, p4 = self.crash_parameters
        message = b""
        if value & HV_CRASH_CTL_CRASH_NOTIFY_MSG:
            gpa, size = p3, p4
            if not host.crash_control & HV_CRASH_CTL_CRASH_NOTIFY_MSG or size > HV_HYP_PAGE_SIZE:
                host.record("tolerated", f"crash message of {size} bytes at GPA {gpa:#x} ignored")
            else:
                try:
                    message = host.machine.memory.host.read(gpa, size)
                except PageFault as fault:
                    host.record("tolerated", f"crash message cannot be read: {fault}")
        self.crashes.append(CrashReport((p0, p1, p2, p3, p4), message, vp, host.timers.now))
        host.record("guest-crash", f"VP {vp} reported a crash: " + ", ".join(f"{p:#x}" for p in self.crash_parameters))
        return True

    def _write_reenlightenment(self, vp: int, value: int) -> bool:
        self.reenlightenment = value
        return True

    def _write_emulation_control(self, vp: int, value: int) -> bool:
        self.emulation_control = value & 1
        return True

    def _write_emulation_status(self, vp: int, value: int) -> bool:
        # The guest can only end the emulation (TLFS, Reenlightenment); it never starts here: no live migration.
        self.emulation_status &= value
        return True

    def _write_tsc_invariant(self, vp: int, value: int) -> bool:
        if value & ~1:
            return False
        self.tsc_invariant = value
        return True

    @property
    def hypercalls_enabled(self) -> bool:
        """Whether the guest may make hypercalls."""
        if not self.guest_os_id:
            return False
        return not self._host.arch.needs_hypercall_page or bool(self.hypercall & 1)

    def reset(self) -> None:
        """Put every register into its state at partition creation."""
        self.guest_os_id = self.hypercall = 0
        self.hypercall_page.sync(False, 0, 0)
        for vp, page in self.assist_pages.items():
            page.sync(False, 0, vp)
            page.clear()
            self._assist[vp] = 0
        self.crash_parameters = [0, 0, 0, 0, 0]
        self.reenlightenment = self.emulation_control = self.emulation_status = self.tsc_invariant = 0
