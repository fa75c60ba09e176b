"""``drivers/clocksource/arm_arch_timer.c`` as far as a guest of Hyper-V uses it: virtual counter and virtual timer.

Hyper-V offers no reference TSC page to arm64 kernels of this release (HYPERV_TIMER is x86 only), so this is the only
clock. The timer's interrupt comes from the GTDT, the counter's frequency from the firmware (CNTFRQ_EL0).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from hvkernel.api.guest.smp import CpuhpState
from hvkernel.api.guest.time import CLOCK_EVT_FEAT_ONESHOT, ClockEventDevice, Clocksource
from hvkernel_arm64.guest.state import DEFAULT_COUNTER_HZ, UNITS_PER_SECOND

if TYPE_CHECKING:
    from hvkernel_arm64.guest.state import Arm64State

GTDT_VIRTUAL_TIMER: Final = 64
"""Offset of the EL1 virtual timer's interrupt in the GTDT (include/acpi/actbl2.h:acpi_table_gtdt)."""
DEFAULT_VIRTUAL_PPI: Final = 27
MIN_ROLLOVER_SECS: Final = 40 * 365 * 24 * 3600
"""The counter is as wide as 40 years need, 56 bits at least (arch_counter_get_width)."""
MIN_DELTA: Final = 0xF


def counter_width(rate: int) -> int:
    """Return the bits of the counter at ``rate`` Hz."""
    return min(max((MIN_ROLLOVER_SECS * rate - 1).bit_length(), 56), 64)


def arch_timer_init(a: Arm64State) -> None:
    """Register the per-CPU timers, then counter and scheduler clock (time_init)."""
    kernel = a.kernel
    a.arch_timer_rate = kernel.counter_hz or DEFAULT_COUNTER_HZ
    gtdt = kernel.acpi.get_table("GTDT") if kernel.acpi.available else None
    a.arch_timer_ppi = DEFAULT_VIRTUAL_PPI
    if gtdt is not None and len(gtdt) >= GTDT_VIRTUAL_TIMER + 4:
        a.arch_timer_ppi = struct.unpack_from("<I", gtdt, GTDT_VIRTUAL_TIMER)[0]
    rate = a.arch_timer_rate
    a.arch_timer_evt = kernel.percpu.alloc_percpu(lambda cpu: _clock_event(a, cpu))
    irq = kernel.irq.irq_create_mapping(a.arch_timer_ppi, percpu=True)
    kernel.irq.request_percpu_irq(irq, lambda n, dev: arch_timer_handler_virt(a), "arch_timer")
    kernel.cpuhp.cpuhp_setup_state(
        CpuhpState.CPUHP_AP_ARM_ARCH_TIMER_STARTING,
        "clockevents/arm/arch_timer:starting",
        lambda cpu: arch_timer_starting_cpu(a, cpu, irq),
        lambda cpu: arch_timer_dying_cpu(a, irq),
    )
    kernel.printk.pr_info(
        f"arch_timer: cp15 timer(s) running at {rate // 1_000_000}.{rate // 10_000 % 100:02d}MHz (virt)."
    )
    bits = counter_width(rate)
    kernel.clocksource.clocksource_register_hz(Clocksource("arch_sys_counter", 400, a.cntvct, (1 << bits) - 1), rate)
    kernel.clocksource.sched_clock_register(a.cntvct, bits, rate)


def _clock_event(a: Arm64State, cpu: int) -> ClockEventDevice:
    def set_next_event(delta: int) -> int:
        units = -(-delta * UNITS_PER_SECOND // a.arch_timer_rate)
        a.vp.set_local_timer(a.kernel.counter_time() + units, a.arch_timer_ppi)
        return 0

    def shutdown() -> int:
        a.vp.set_local_timer(None, a.arch_timer_ppi)
        return 0

    return ClockEventDevice("arch_sys_timer", 450, CLOCK_EVT_FEAT_ONESHOT, cpu, set_next_event, shutdown, lambda: 0)


def arch_timer_starting_cpu(a: Arm64State, cpu: int, irq: int) -> int:
    """Start callback, on the CPU: register its clock event and let its interrupt in; 0."""
    assert a.arch_timer_evt is not None
    a.kernel.timers.clockevents_config_and_register(
        a.arch_timer_evt[cpu], a.arch_timer_rate, MIN_DELTA, (1 << counter_width(a.arch_timer_rate) - 1) - 1
    )
    a.kernel.irq.enable_percpu_irq(irq)
    return 0


def arch_timer_dying_cpu(a: Arm64State, irq: int) -> int:
    """Stop callback; 0."""
    a.kernel.irq.disable_percpu_irq(irq)
    return 0


def arch_timer_handler_virt(a: Arm64State) -> None:
    """Interrupt of the virtual timer."""
    assert a.arch_timer_evt is not None
    device = a.kernel.percpu.this_cpu_ptr(a.arch_timer_evt)
    if device.event_handler is not None:
        device.event_handler(device)
