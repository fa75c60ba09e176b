"""clocksource.h, sched_clock.h: registered counters, the current one, and the scheduler's clock.

The clocksource watchdog is not run; only what it decides at boot is: an unstable clocksource drops to rating 0 before
the first selection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hvkernel.api.guest.errno import EBUSY, EINVAL
from hvkernel.api.guest.time import (
    CLOCK_SOURCE_IS_CONTINUOUS,
    CLOCK_SOURCE_MUST_VERIFY,
    CLOCK_SOURCE_UNSTABLE,
    CLOCK_SOURCE_VALID_FOR_HRES,
    CLOCK_SOURCE_WATCHDOG,
    NSEC_PER_SEC,
    Clocksource,
)
from hvkernel.linux import timekeeping
from hvkernel.linux.printk import Printk

CLOCK_TICK_RATE: Final = 1193182
"""PIT_TICK_RATE, the rate refined-jiffies assumes where the arch registers it. Source: include/linux/timex.h."""


class Clocksources:
    """``kernel.clocksource``."""

    def __init__(self, printk: Printk, hz: int, monotonic_ns: Callable[[], int], jiffies: Callable[[], int]) -> None:
        self._pr = printk.prefixed("clocksource: ")
        self._printk = printk
        self._hz = hz
        self._monotonic_ns = monotonic_ns
        self._jiffies = jiffies
        self._sched_clock: Callable[[], int] | None = None
        self._sched_clock_rate = 0
        self._finished_booting = False
        self._stable = True
        self._gtod_offset = 0
        self.list: list[Clocksource] = []
        """By rating, highest first; equal ratings newest last."""
        self.curr: Clocksource | None = None
        self.oneshot = False
        """True once a CPU's tick runs in one-shot mode: only high-resolution clocksources may be chosen then."""

    # registration ----------------------------------------------------------------------------------------------

    def clocksource_register_hz(self, cs: Clocksource, hz: int) -> int:
        """Compute, print, enqueue and select. -EINVAL for a rate of 0 or one that does not fit 32 bits."""
        return self._register(cs, 1, hz)

    def clocksource_register_khz(self, cs: Clocksource, khz: int) -> int:
        """The same in kHz."""
        return self._register(cs, 1000, khz)

    def __clocksource_register(self, cs: Clocksource) -> int:
        return self._register(cs, 1, 0)

    def register_jiffies(self) -> None:
        """core_initcall init_jiffies_clocksource. Source: kernel/time/jiffies.c."""
        cs = Clocksource("jiffies", 1, self._jiffies, 0xFFFFFFFF, 0)
        cs.mult = timekeeping.jiffies_mult(self._hz)
        cs.shift = timekeeping.jiffies_shift(self._hz)
        self.__clocksource_register(cs)

    def register_refined_jiffies(self, cycles_per_second: int = CLOCK_TICK_RATE) -> int:
        """x86's setup_arch registers it; others do not. Source: kernel/time/jiffies.c:register_refined_jiffies."""
        cs = Clocksource("refined-jiffies", 2, self._jiffies, 0xFFFFFFFF, 0)
        cs.mult = timekeeping.refined_jiffies_mult(cycles_per_second, self._hz)
        cs.shift = timekeeping.jiffies_shift(self._hz)
        return self.__clocksource_register(cs)

    def _register(self, cs: Clocksource, scale: int, freq: int) -> int:
        if freq:
            if not 0 < freq < 1 << 32:
                return -EINVAL
            cs.mult, cs.shift = timekeeping.freq_scale(cs.mask, scale, freq)
        maxadj = timekeeping.clocksource_max_adjustment(cs.mult)
        cs.max_idle_ns, cs.max_cycles = timekeeping.clocks_calc_max_nsecs(cs.mult, cs.shift, maxadj, cs.mask)
        self._pr.pr_info(
            f"{cs.name}: mask: {cs.mask:#x} max_cycles: {cs.max_cycles:#x}, max_idle_ns: {cs.max_idle_ns} ns"
        )
        self._enqueue(cs)
        if cs.flags & CLOCK_SOURCE_MUST_VERIFY:
            cs.flags &= ~CLOCK_SOURCE_WATCHDOG
        elif cs.flags & CLOCK_SOURCE_IS_CONTINUOUS:
            cs.flags |= CLOCK_SOURCE_VALID_FOR_HRES
        self._select()
        return 0

    def _enqueue(self, cs: Clocksource) -> None:
        at = next((i for i, other in enumerate(self.list) if other.rating < cs.rating), len(self.list))
        self.list.insert(at, cs)

    def clocksource_change_rating(self, cs: Clocksource, rating: int) -> None:
        """Move ``cs`` to another rating and select again."""
        self.list.remove(cs)
        cs.rating = rating
        self._enqueue(cs)
        self._select()

    def clocksource_unregister(self, cs: Clocksource) -> int:
        """Take it out, switching to the next best; -EBUSY when it is current and there is no other."""
        if cs not in self.list:
            return 0
        if cs is self.curr:
            best = self._best(skip=cs)
            if best is None:
                return -EBUSY
            self._switch(best)
        self.list.remove(cs)
        return 0

    def clocksource_mark_unstable(self, cs: Clocksource) -> None:
        """Let it sink to rating 0: at the first selection before that is made, else at once.

        Source: clocksource.c:clocksource_mark_unstable, __clocksource_watchdog_kthread.
        """
        if cs.flags & CLOCK_SOURCE_UNSTABLE:
            return
        cs.flags &= ~(CLOCK_SOURCE_VALID_FOR_HRES | CLOCK_SOURCE_WATCHDOG)
        cs.flags |= CLOCK_SOURCE_UNSTABLE
        if cs in self.list and self._finished_booting:
            self.clocksource_change_rating(cs, 0)

    # selection -------------------------------------------------------------------------------------------------

    def clocksource_done_booting(self) -> int:
        """fs_initcall: from here on the best clocksource is used. Source: clocksource.c:clocksource_done_booting."""
        self.curr = next((cs for cs in self.list if cs.name == "jiffies"), None)
        self._finished_booting = True
        for cs in tuple(self.list):
            if cs.flags & CLOCK_SOURCE_UNSTABLE and cs.rating:
                self.list.remove(cs)
                cs.rating = 0
                self._enqueue(cs)
        self._select()
        return 0

    def _best(self, skip: Clocksource | None = None) -> Clocksource | None:
        if not self._finished_booting:
            return None
        for cs in self.list:
            if cs is not skip and (not self.oneshot or cs.flags & CLOCK_SOURCE_VALID_FOR_HRES):
                return cs
        return None

    def _select(self) -> None:
        best = self._best()
        if best is not None and best is not self.curr:
            self._switch(best)

    def _switch(self, cs: Clocksource) -> None:
        self._pr.pr_info(f"Switched to clocksource {cs.name}")
        self.curr = cs

    # sched_clock -----------------------------------------------------------------------------------------------

    def set_sched_clock(self, read_ns: Callable[[], int]) -> None:
        """paravirt_set_sched_clock()."""
        self._sched_clock = read_ns

    def sched_clock_register(self, read: Callable[[], int], bits: int, rate: int) -> None:
        """The generic sched_clock of architectures without one of their own; a slower counter changes nothing.

        :param bits: width of the counter. :param rate: Hz.

        Source: kernel/time/sched_clock.c:sched_clock_register.
        """
        if self._sched_clock_rate > rate:
            return
        mult, shift = timekeeping.clocks_calc_mult_shift(rate, NSEC_PER_SEC, 3600)
        mask = (1 << bits) - 1
        wrap, _ = timekeeping.clocks_calc_max_nsecs(mult, shift, 0, mask)
        epoch_ns = self.sched_clock()
        epoch = read()
        self._sched_clock_rate = rate
        self._sched_clock = lambda: epoch_ns + (((read() - epoch) & mask) * mult >> shift)
        r, unit = rate, " "
        if rate >= 4_000_000:
            r, unit = (rate + 500_000) // 1_000_000, "M"
        elif rate >= 4000:
            r, unit = (rate + 500) // 1000, "k"
        self._printk.pr_info(
            f"sched_clock: {bits} bits at {r}{unit}Hz, resolution {mult >> shift}ns, wraps every {wrap}ns"
        )

    def sched_clock(self) -> int:
        """Nanoseconds; 0 until there is a clock (the kernel's jiffies-based one does not move that early)."""
        read = self._sched_clock
        return 0 if read is None else read()

    @property
    def sched_clock_source(self) -> Callable[[], int] | None:
        """What :meth:`sched_clock` reads; ``None`` until there is a clock."""
        return self._sched_clock

    def clear_sched_clock_stable(self) -> None:
        """The clock must not be trusted: "Marking stable" is never printed. Source: kernel/sched/clock.c."""
        self._stable = False

    def sched_clock_init(self) -> None:
        """start_kernel's sched_clock_init(): tie sched_clock to the monotonic time."""
        self._gtod_offset = self.sched_clock() - self._monotonic_ns()

    def sched_clock_init_late(self) -> int:
        """late_initcall of kernels whose sched_clock may be unstable: those that do not use the generic one.

        Source: kernel/sched/clock.c:sched_clock_init_late (HAVE_UNSTABLE_SCHED_CLOCK).
        """
        if self._stable and not self._sched_clock_rate and self._sched_clock is not None:
            gtod, raw = self._monotonic_ns(), self.sched_clock()
            offset = gtod + self._gtod_offset - raw
            self._printk.pr_info(f"sched_clock: Marking stable ({gtod}, {self._gtod_offset})->({raw}, {offset})")
        return 0
