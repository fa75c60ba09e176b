"""``drivers/clocksource/hyperv_timer.c``: the reference time as a clocksource, synthetic timer 0 as a clock event.

Built where HYPERV_TIMER is; other architectures use their own counter and timer. The reference TSC page is preferred,
the TIME_REF_COUNT register is the fallback. Synthetic timer 0 interrupts directly where the hypervisor can do that;
otherwise it sends a message to the VMBus SINT, and so can only start once the VMBus does.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from hvkernel.abi.tlfs import (
    HV_ACCESS_TSC_INVARIANT,
    HV_CLOCK_HZ,
    HV_HYP_PAGE_SHIFT,
    HV_MAX_MAX_DELTA_TICKS,
    HV_MIN_DELTA_TICKS,
    HV_MSR_REFERENCE_TSC_AVAILABLE,
    HV_MSR_SYNTIMER_AVAILABLE,
    HV_MSR_TIME_REF_COUNT_AVAILABLE,
)
from hvkernel.api.guest.errno import EINVAL
from hvkernel.api.guest.hyperv import HvCommon
from hvkernel.api.guest.mshyperv import U64_MAX
from hvkernel.api.guest.smp import CpuhpState, PerCpu
from hvkernel.api.guest.time import CLOCK_EVT_FEAT_ONESHOT, NSEC_PER_SEC, ClockEventDevice, Clocksource

if TYPE_CHECKING:
    from hvkernel.hv.hyperv_vmbus import GuestKernel

__all__ = ["HvTimerObject", "hv_read_tsc_page"]

TSC_PAGE: Final = struct.Struct("<IIQq")
"""``struct ms_hyperv_tsc_page``: sequence, reserved, scale, offset."""
LOW_BITS: Final = (1 << HV_HYP_PAGE_SHIFT) - 1
MASK64: Final = (1 << 64) - 1
NS_PER_TICK: Final = NSEC_PER_SEC // HV_CLOCK_HZ

STIMER_ENABLE: Final = 1 << 0
STIMER_AUTO_ENABLE: Final = 1 << 3
STIMER_VECTOR_SHIFT: Final = 4
STIMER_DIRECT_MODE: Final = 1 << 12
STIMER_SINTX_SHIFT: Final = 16
"""Fields of ``union hv_stimer_config`` (include/asm-generic/hyperv-tlfs.h)."""


def hv_read_tsc_page(page: bytes, tsc: int) -> int:
    """Compute the reference time from the page and a counter value; U64_MAX when the page says it is not to be used.

    :param page: the first 24 bytes of the reference TSC page.
    :return: 100 ns units, modulo 2^64.
    """
    sequence, _, scale, offset = TSC_PAGE.unpack_from(page)
    if not sequence:
        return U64_MAX
    scaled: int = tsc * scale >> 64
    return (scaled + int(offset)) & MASK64


class HvTimerObject:
    """All variables and functions of hyperv_timer.c for one guest; implements :class:`~hvkernel.api.guest.HvTimer`."""

    def __init__(self, kernel: GuestKernel) -> None:
        self.kernel = kernel
        self.arch = kernel.arch
        self.memory = kernel.mm.memory
        self.hv_clock_event: PerCpu[ClockEventDevice] | None = None
        self.hv_sched_clock_offset = 0
        self.direct_mode_enabled = False
        self.stimer0_irq = -1
        self.stimer0_message_sint = 0
        self.tsc_pg = 0
        """Address of the page that the reference TSC page overlays; in the kernel it is part of the image."""

    @property
    def hv_common(self) -> HvCommon:
        """drivers/hv/hv_common.c."""
        return self.kernel.symbol(HvCommon)

    # clock events ----------------------------------------------------------------------------------------------

    def hv_stimer0_isr(self) -> None:
        """Expiration of this CPU's synthetic timer 0, by interrupt or by message."""
        if self.hv_clock_event is None:
            return
        ce = self.kernel.percpu.this_cpu_ptr(self.hv_clock_event)
        if ce.event_handler is not None:
            ce.event_handler(ce)

    def _set_next_event(self, delta: int) -> int:
        tick = self.hv_common.hv_read_reference_counter() + delta
        self.arch.hv_set_register(self.arch.regs.HV_REGISTER_STIMER0_COUNT, tick & MASK64)
        return 0

    def _shutdown(self) -> int:
        self.arch.hv_set_register(self.arch.regs.HV_REGISTER_STIMER0_COUNT, 0)
        self.arch.hv_set_register(self.arch.regs.HV_REGISTER_STIMER0_CONFIG, 0)
        if self.direct_mode_enabled and self.stimer0_irq >= 0:
            self.kernel.irq.disable_percpu_irq(self.stimer0_irq)
        return 0

    def _set_oneshot(self) -> int:
        config = STIMER_ENABLE | STIMER_AUTO_ENABLE
        if self.direct_mode_enabled:
            config |= STIMER_DIRECT_MODE | self.arch.stimer0_vector << STIMER_VECTOR_SHIFT
            if self.stimer0_irq >= 0:
                self.kernel.irq.enable_percpu_irq(self.stimer0_irq)
        else:
            config |= self.stimer0_message_sint << STIMER_SINTX_SHIFT
        self.arch.hv_set_register(self.arch.regs.HV_REGISTER_STIMER0_CONFIG, config)
        return 0

    def hv_stimer_init(self, cpu: int) -> int:
        """Register this CPU's clock event; 0."""
        if self.hv_clock_event is None:
            return 0
        ce = self.hv_clock_event[cpu]
        self.kernel.timers.clockevents_config_and_register(ce, HV_CLOCK_HZ, HV_MIN_DELTA_TICKS, HV_MAX_MAX_DELTA_TICKS)
        return 0

    def hv_stimer_cleanup(self, cpu: int) -> int:
        """Stop a CPU's timer. In message mode the device is unbound, so that another timer takes over; 0."""
        if self.hv_clock_event is None:
            return 0
        ce = self.hv_clock_event[cpu]
        if self.direct_mode_enabled:
            self._shutdown()
        else:
            self.kernel.timers.clockevents_unbind_device(ce, cpu)
        return 0

    def hv_stimer_alloc(self, have_percpu_irqs: bool) -> int:
        """Prepare the clock events of all CPUs; -EINVAL when there are no synthetic timers.

        In direct mode they start now, on each CPU as it comes up; else :meth:`hv_stimer_legacy_init` starts them.
        """
        ms_hyperv = self.arch.ms_hyperv
        if not ms_hyperv.features & HV_MSR_SYNTIMER_AVAILABLE:
            return -EINVAL
        self.hv_clock_event = self.kernel.percpu.alloc_percpu(
            lambda cpu: ClockEventDevice(
                "Hyper-V clockevent",
                1000,
                CLOCK_EVT_FEAT_ONESHOT,
                cpu,
                self._set_next_event,
                self._shutdown,
                self._set_oneshot,
            )
        )
        self.direct_mode_enabled = bool(ms_hyperv.misc_features & self.arch.regs.HV_STIMER_DIRECT_MODE_AVAILABLE)
        if not self.direct_mode_enabled:
            return 0
        if have_percpu_irqs:
            ret = self._setup_stimer0_irq()
            if ret:
                self.hv_clock_event = None
                return ret
        else:
            self.arch.hv_setup_stimer0_handler(self.hv_stimer0_isr)
        ret = self.kernel.cpuhp.cpuhp_setup_state(
            CpuhpState.CPUHP_AP_HYPERV_TIMER_STARTING,
            "clockevents/hyperv/stimer:starting",
            self.hv_stimer_init,
            self.hv_stimer_cleanup,
        )
        if ret < 0:
            self._remove_stimer0_irq()
            self.hv_clock_event = None
        return ret

    def _setup_stimer0_irq(self) -> int:
        irq = self.kernel.irq
        number = irq.irq_create_mapping(self.arch.stimer0_vector, percpu=True)
        if number < 0:
            self.kernel.printk.pr_err(f"Can't register Hyper-V stimer0 GSI. Error {number}")
            return number
        self.stimer0_irq = number
        evt = self.kernel.percpu.alloc_percpu(lambda cpu: 0)
        ret = irq.request_percpu_irq(number, lambda n, dev: self.hv_stimer0_isr(), "Hyper-V stimer0", evt)
        if ret:
            self.kernel.printk.pr_err(f"Can't request Hyper-V stimer0 IRQ {number}. Error {ret}")
            irq.irq_dispose_mapping(number)
            self.stimer0_irq = -1
        return ret

    def _remove_stimer0_irq(self) -> None:
        if self.stimer0_irq == -1:
            self.arch.hv_remove_stimer0_handler()
            return
        self.kernel.irq.free_percpu_irq(self.stimer0_irq)
        self.kernel.irq.irq_dispose_mapping(self.stimer0_irq)
        self.stimer0_irq = -1

    def hv_stimer_legacy_init(self, cpu: int, sint: int) -> None:
        """Start a CPU's timer in message mode; nothing in direct mode."""
        if self.direct_mode_enabled:
            return
        self.stimer0_message_sint = sint
        self.hv_stimer_init(cpu)

    def hv_stimer_legacy_cleanup(self, cpu: int) -> None:
        """Stop a CPU's timer in message mode; nothing in direct mode."""
        if not self.direct_mode_enabled:
            self.hv_stimer_cleanup(cpu)

    def hv_stimer_global_cleanup(self) -> None:
        """Stop all timers (kexec and module exit)."""
        for cpu in self.kernel.cpus.for_each_present_cpu():
            self.hv_stimer_legacy_cleanup(cpu)
        if self.hv_clock_event is None:
            return
        if self.direct_mode_enabled:
            self.kernel.cpuhp.cpuhp_remove_state(CpuhpState.CPUHP_AP_HYPERV_TIMER_STARTING)
            self._remove_stimer0_irq()
            self.stimer0_irq = -1
        self.hv_clock_event = None

    # clocksources ----------------------------------------------------------------------------------------------

    def _read_tsc(self) -> int:
        tick = hv_read_tsc_page(self.memory.read(self.tsc_pg, TSC_PAGE.size), self.arch.hv_get_raw_timer())
        return tick if tick != U64_MAX else self._read_msr()

    def _read_msr(self) -> int:
        return self.arch.hv_get_register(self.arch.regs.HV_REGISTER_TIME_REF_COUNT)

    def _start_clock(self, name: str, rating: int, read: Callable[[], int]) -> None:
        self.hv_common.set_hv_read_reference_counter(read)
        self.kernel.clocksource.clocksource_register_hz(Clocksource(name, rating, read, MASK64), HV_CLOCK_HZ)
        offset = self.hv_sched_clock_offset = read()
        self.arch.hv_setup_sched_clock(lambda: (read() - offset) * NS_PER_TICK)

    def hv_init_clocksource(self) -> None:
        """Register the best clocksource that the hypervisor grants, and make it the scheduler's clock.

        With an invariant TSC the rating drops from 500 to 250, so that the TSC itself wins.
        """
        features = self.arch.ms_hyperv.features
        regs = self.arch.regs
        rating = 250 if features & HV_ACCESS_TSC_INVARIANT else 500
        if features & HV_MSR_REFERENCE_TSC_AVAILABLE:
            self.tsc_pg = self.kernel.mm.memblock_alloc(self.kernel.mm.PAGE_SIZE, "tsc_pg")
            # Reserved bits of the register keep their value.
            value = self.arch.hv_get_register(regs.HV_REGISTER_REFERENCE_TSC) & LOW_BITS
            self.arch.hv_set_register(regs.HV_REGISTER_REFERENCE_TSC, value | 1 | self.tsc_pg)
            self._start_clock("hyperv_clocksource_tsc_page", rating, self._read_tsc)
        elif features & HV_MSR_TIME_REF_COUNT_AVAILABLE:
            self._start_clock("hyperv_clocksource_msr", 500, self._read_msr)
