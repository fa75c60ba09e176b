"""The local APIC as far as the kernel drives it: ``arch/x86/kernel/apic``.

:class:`Apic` is the kernel's ``struct apic``: entry points that Hyper-V may replace. The native ones use the memory
window in xAPIC mode and the architectural MSRs in x2APIC mode.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from hvkernel.api.guest.time import CLOCK_EVT_FEAT_ONESHOT, CLOCK_EVT_FEAT_PERCPU, ClockEventDevice
from hvkernel_x86.guest.state import X86_FEATURE_X2APIC

if TYPE_CHECKING:
    from hvkernel_x86.guest.state import X86State

APIC_DEFAULT_PHYS_BASE: Final = 0xFEE0_0000
APIC_TASKPRI: Final = 0x80
APIC_EOI: Final = 0xB0
APIC_ICR: Final = 0x300
APIC_ICR2: Final = 0x310
APIC_LVTT: Final = 0x320
APIC_TMICT: Final = 0x380
APIC_TDCR: Final = 0x3E0
APIC_LVT_MASKED: Final = 1 << 16
APIC_TDR_DIV_16: Final = 0x3
APIC_DM_INIT: Final = 0x500
APIC_DM_STARTUP: Final = 0x600
APIC_INT_LEVELTRIG: Final = 0x8000
APIC_INT_ASSERT: Final = 0x4000
XAPIC_IDS: Final = 0xFF
X2APIC_MSR_BASE: Final = 0x800
MSR_IA32_APICBASE: Final = 0x1B
X2APIC_ENABLE: Final = 1 << 10
"""arch/x86/include/asm/apicdef.h."""

RESCHEDULE_VECTOR: Final = 0xFD
CALL_FUNCTION_VECTOR: Final = 0xFC
CALL_FUNCTION_SINGLE_VECTOR: Final = 0xFB
REBOOT_VECTOR: Final = 0xF8
X86_PLATFORM_IPI_VECTOR: Final = 0xF7
HYPERVISOR_CALLBACK_VECTOR: Final = 0xF3
HYPERV_REENLIGHTENMENT_VECTOR: Final = 0xEE
HYPERV_STIMER0_VECTOR: Final = 0xED
LOCAL_TIMER_VECTOR: Final = 0xEC
"""arch/x86/include/asm/irq_vectors.h."""

TRAMPOLINE: Final = 0x98
"""Page number that the start-up IPI names. *unspecified*: the real-mode trampoline is not modelled."""
APIC_DIVISOR: Final = 16
"""The APIC timer counts every 16th bus clock (arch/x86/kernel/apic/apic.c)."""
LAPIC_MAX_DELTA: Final = 0x7FFF_FFFF
LAPIC_MIN_DELTA: Final = 0xF
DEFAULT_APIC_HZ: Final = 200_000_000


def SET_XAPIC_DEST_FIELD(apicid: int) -> int:
    """Put an APIC id into the destination field of ICR's upper half."""
    return apicid << 24 & 0xFFFF_FFFF


class Apic:
    """``struct apic`` of one guest, and the state of its local timers."""

    def __init__(self, a: X86State, x2apic: bool) -> None:
        self.x2apic_mode = x2apic
        self._a = a
        self.read: Callable[[int], int] = self.native_read
        self.write: Callable[[int, int], None] = self.native_write
        self.icr_write: Callable[[int, int], None] = self.native_icr_write
        self.eoi: Callable[[], None] = self.native_eoi
        self.send_IPI: Callable[[int, int], None] = self.native_send_IPI
        self.send_IPI_allbutself: Callable[[int], None] = self.native_send_IPI_allbutself
        self.send_IPI_mask: Callable[[Sequence[int], int], None] = self.native_send_IPI_mask

    def native_read(self, reg: int) -> int:
        """Read an APIC register."""
        if self.x2apic_mode:
            return self._a.rdmsr(X2APIC_MSR_BASE + (reg >> 4))
        return self._a.vp.mmio_read(APIC_DEFAULT_PHYS_BASE + reg, 4)

    def native_write(self, reg: int, value: int) -> None:
        """Write an APIC register."""
        if self.x2apic_mode:
            self._a.wrmsr(X2APIC_MSR_BASE + (reg >> 4), value)
        else:
            self._a.vp.mmio_write(APIC_DEFAULT_PHYS_BASE + reg, 4, value)

    def native_icr_write(self, low: int, apicid: int) -> None:
        """Send an inter-processor interrupt."""
        if self.x2apic_mode:
            self._a.wrmsr(X2APIC_MSR_BASE + (APIC_ICR >> 4), apicid << 32 | low)
        else:
            self.native_write(APIC_ICR2, SET_XAPIC_DEST_FIELD(apicid))
            self.native_write(APIC_ICR, low)

    def native_eoi(self) -> None:
        """End the interrupt that is being handled."""
        self.native_write(APIC_EOI, 0)

    def native_send_IPI(self, cpu: int, vector: int) -> None:
        """Send a vector to one CPU, by APIC id."""
        self.icr_write(vector, self._a.kernel.cpus.cpu(cpu).hw_id)

    def native_send_IPI_allbutself(self, vector: int) -> None:
        """Send a vector to all other online CPUs, one by one: the destination shorthand is not modelled."""
        cpus = self._a.kernel.cpus
        me = cpus.smp_processor_id()
        self.native_send_IPI_mask([cpu for cpu in cpus.for_each_online_cpu() if cpu != me], vector)

    def native_send_IPI_mask(self, cpus: Sequence[int], vector: int) -> None:
        """Send a vector to CPUs one by one, by APIC id."""
        for cpu in cpus:
            self.native_send_IPI(cpu, vector)


def x2apic_supported(a: X86State) -> bool:
    """Say whether the kernel is built for x2APIC and the processor has it."""
    return a.kernel.config.y("X86_X2APIC") and a.boot_cpu_has(X86_FEATURE_X2APIC)


def apic_id_valid(a: X86State, apicid: int) -> bool:
    """Say whether a CPU can be addressed: xAPIC ids are eight bits, and 255 means all. Others are ignored."""
    if apicid < XAPIC_IDS or x2apic_supported(a):
        return True
    a.kernel.printk.pr_warn("ACPI: x2apic entry ignored")
    return False


def generic_apic_probe(a: X86State) -> None:
    """Choose the mode: x2APIC where the processor has it and the kernel is built for it, else xAPIC."""
    a.apic = Apic(a, x2apic_supported(a))
    setup_local_APIC(a)


def setup_local_APIC(a: X86State) -> None:
    """Put the calling CPU's APIC into the chosen mode."""
    if the_apic(a).x2apic_mode:
        base = a.rdmsr(MSR_IA32_APICBASE)
        a.wrmsr(MSR_IA32_APICBASE, base | X2APIC_ENABLE)


def the_apic(a: X86State) -> Apic:
    """Return the guest's ``struct apic``."""
    assert a.apic is not None, "setup_arch() did not run"
    return a.apic


def wakeup_secondary_cpu_via_init(a: X86State, apicid: int) -> int:
    """Start a processor: INIT asserted and taken back, then two start-up IPIs; 0.

    The delays are those of a kernel that trusts its processor: none after INIT, 10 us around the start-up IPIs
    (arch/x86/kernel/smpboot.c:wakeup_secondary_cpu_via_init).
    """
    apic = the_apic(a)
    apic.icr_write(APIC_INT_LEVELTRIG | APIC_INT_ASSERT | APIC_DM_INIT, apicid)
    apic.icr_write(APIC_INT_LEVELTRIG | APIC_DM_INIT, apicid)
    for _ in range(2):
        apic.icr_write(APIC_DM_STARTUP | TRAMPOLINE, apicid)
        a.kernel.sched.udelay(10)
    return 0


# local timer ---------------------------------------------------------------------------------------------------


def setup_APIC_timer(a: X86State, cpu: int) -> None:
    """Register the calling CPU's APIC timer as a clock event of rating 100.

    The frequency is the hypervisor's, from its APIC frequency register; without one the kernel would measure it against
    the PIT, and the model takes 200 MHz (*unspecified*).
    """
    hz = a.kernel.timers.HZ
    period = a.lapic_timer_period or DEFAULT_APIC_HZ // hz
    apic = the_apic(a)

    def set_next_event(delta: int) -> int:
        apic.write(APIC_TMICT, delta)
        return 0

    def shutdown() -> int:
        apic.write(APIC_LVTT, APIC_LVT_MASKED | LOCAL_TIMER_VECTOR)
        apic.write(APIC_TMICT, 0)
        return 0

    def set_oneshot() -> int:
        apic.write(APIC_LVTT, LOCAL_TIMER_VECTOR)
        apic.write(APIC_TDCR, APIC_TDR_DIV_16)
        return 0

    features = CLOCK_EVT_FEAT_ONESHOT | CLOCK_EVT_FEAT_PERCPU
    device = ClockEventDevice("lapic", 100, features, cpu, set_next_event, shutdown, set_oneshot)
    a.lapic_clockevents[cpu] = device
    a.kernel.timers.clockevents_config_and_register(
        device, period * hz // APIC_DIVISOR, LAPIC_MIN_DELTA, LAPIC_MAX_DELTA
    )


def local_apic_timer_interrupt(a: X86State) -> None:
    """Interrupt of the APIC timer."""
    the_apic(a).eoi()
    device = a.lapic_clockevents.get(a.kernel.cpus.smp_processor_id())
    if device is not None and device.event_handler is not None:
        device.event_handler(device)
