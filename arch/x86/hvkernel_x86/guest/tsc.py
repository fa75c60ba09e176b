"""``arch/x86/kernel/tsc.c`` as far as its lines and clocksources go.

RDTSC is modelled as a read of the TSC register: the same number, at the price of a trap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hvkernel.api.guest.time import CLOCK_SOURCE_IS_CONTINUOUS, CLOCK_SOURCE_MUST_VERIFY, Clocksource

if TYPE_CHECKING:
    from hvkernel_x86.guest.state import X86State

MSR_IA32_TSC: Final = 0x10
MASK64: Final = (1 << 64) - 1
CALIBRATION_US: Final = 10_000
"""How long the TSC is counted when nothing tells its frequency. *unspecified*: the kernel uses the PIT."""


def rdtsc(a: X86State) -> int:
    """Read the time stamp counter of the running processor."""
    return a.rdmsr(MSR_IA32_TSC)


def calibrate(a: X86State) -> int:
    """Measure the TSC against a delay; return kHz."""
    start = rdtsc(a)
    a.kernel.sched.udelay(CALIBRATION_US)
    khz = (rdtsc(a) - start) * 1000 // CALIBRATION_US
    a.kernel.printk.pr_info("tsc: Fast TSC calibration using PIT")
    return khz


def tsc_early_init(a: X86State) -> None:
    """Learn the frequency from the hypervisor, or measure it, and print it."""
    a.tsc_khz = a.calibrate_tsc() if a.calibrate_tsc is not None else calibrate(a)
    a.kernel.printk.pr_info(f"tsc: Detected {a.tsc_khz // 1000}.{a.tsc_khz % 1000:03d} MHz processor")
    if not a.pv_sched_clock:
        khz = a.tsc_khz
        a.kernel.clocksource.set_sched_clock(lambda: rdtsc(a) * 1_000_000 // khz)


def mark_tsc_unstable(a: X86State, reason: str) -> None:
    """Say once that the TSC is not to be trusted, and let its clocksources sink."""
    if a.tsc_unstable:
        return
    a.tsc_unstable = True
    a.kernel.printk.pr_info(f"tsc: Marking TSC unstable due to {reason}")
    for cs in (a.clocksource_tsc_early, a.clocksource_tsc):
        if cs is not None:
            a.kernel.clocksource.clocksource_mark_unstable(cs)


def tsc_init(a: X86State) -> None:
    """Register the early TSC clocksource, unless the TSC is unstable."""
    if a.tsc_unstable:
        return
    flags = CLOCK_SOURCE_IS_CONTINUOUS | (0 if a.tsc_reliable else CLOCK_SOURCE_MUST_VERIFY)
    a.clocksource_tsc_early = Clocksource("tsc-early", 299, lambda: rdtsc(a), MASK64, flags)
    a.kernel.clocksource.clocksource_register_khz(a.clocksource_tsc_early, a.tsc_khz)


def init_tsc_clocksource(a: X86State) -> int:
    """device_initcall: the real TSC clocksource replaces the early one; 0.

    Without a known frequency the kernel first refines its measurement in the background; the model's is exact.
    """
    if a.tsc_khz and not a.tsc_unstable:
        flags = CLOCK_SOURCE_IS_CONTINUOUS | (0 if a.tsc_reliable else CLOCK_SOURCE_MUST_VERIFY)
        a.clocksource_tsc = Clocksource("tsc", 300, lambda: rdtsc(a), MASK64, flags)
        a.kernel.clocksource.clocksource_register_khz(a.clocksource_tsc, a.tsc_khz)
    if a.clocksource_tsc_early is not None:
        a.kernel.clocksource.clocksource_unregister(a.clocksource_tsc_early)
        a.clocksource_tsc_early = None
    return 0
