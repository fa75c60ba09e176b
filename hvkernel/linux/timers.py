"""timer.h, jiffies.h, clockchips.h: jiffies, timer lists, clock event devices.

The kernel is modelled as tickless: jiffies follow from the time, and a CPU's timer interrupts only when a timer of
that CPU is due. A CPU without a registered clock event device uses its processor's own timer.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final

from hvkernel.api.guest.arch import IpiKind
from hvkernel.api.guest.errno import EBUSY, EINVAL
from hvkernel.api.guest.sched import MAX_SCHEDULE_TIMEOUT
from hvkernel.api.guest.time import CLOCK_EVT_FEAT_ONESHOT, NSEC_PER_SEC, ClockEventDevice, TimerList
from hvkernel.linux.smp import RELAX
from hvkernel.linux.softirq import TIMER_SOFTIRQ
from hvkernel.linux.timekeeping import clocks_calc_mult_shift
from hvkernel.machine import UNITS_PER_SECOND

if TYPE_CHECKING:
    from hvkernel.linux.cpu import Cpu
    from hvkernel.linux.kernel import Kernel

BOOT_TIMER_VECTOR: Final = 1 << 20
"""Vector of a processor's own timer until its driver has registered a clock event device. Outside the range of real
vectors and INTIDs, so that it collides with none: a device of this model, like the PIT in a kernel's first second."""


class Timers:
    """``kernel.timers``."""

    def __init__(self, kernel: Kernel, hz: int) -> None:
        """:raises ValueError: when CONFIG_HZ is not 1 to 10000."""
        if not 1 <= hz <= 10_000:
            raise ValueError(f"CONFIG_HZ={hz} is not between 1 and 10000")
        self._kernel = kernel
        self._machine = kernel.machine
        self._clock = kernel.machine.clock
        self._hz = hz
        self._base = self._clock.now
        self.INITIAL_JIFFIES: Final = (1 << 32) - 300 * hz
        """Five minutes before 32 bits wrap. Source: include/linux/jiffies.h."""
        self._sequence = 0
        self._running: dict[int, TimerList] = {}
        """CPU to the timer whose function runs there."""
        self._devices: list[ClockEventDevice] = []
        kernel.softirq.open_softirq(TIMER_SOFTIRQ, self._run_timers)
        kernel.irq.sysvec_install(BOOT_TIMER_VECTOR, self._boot_timer, "boot timer")

    # jiffies ---------------------------------------------------------------------------------------------------

    @property
    def HZ(self) -> int:
        return self._hz

    @property
    def jiffies(self) -> int:
        """Ticks since boot, from INITIAL_JIFFIES."""
        return self.INITIAL_JIFFIES + (self._clock.now - self._base) * self._hz // UNITS_PER_SECOND

    def monotonic_ns(self) -> int:
        """ktime_get(): nanoseconds since this kernel started."""
        return (self._clock.now - self._base) * (NSEC_PER_SEC // UNITS_PER_SECOND)

    def _when(self, jiffies: int) -> int:
        """The time, in 100 ns units, at which ``jiffies`` begins."""
        ticks = jiffies - self.INITIAL_JIFFIES
        return self._base + -(-ticks * UNITS_PER_SECOND // self._hz)

    def msecs_to_jiffies(self, msecs: int) -> int:
        """Rounded up; a negative number is "forever". Source: kernel/time/time.c:__msecs_to_jiffies."""
        if msecs < 0:
            return MAX_SCHEDULE_TIMEOUT
        return -(-msecs * self._hz // 1000)

    def usecs_to_jiffies(self, usecs: int) -> int:
        return -(-usecs * self._hz // 1_000_000)

    # timers ----------------------------------------------------------------------------------------------------

    def mod_timer(self, timer: TimerList, expires: int) -> int:
        """(Re)arm on this CPU for ``expires`` jiffies; 1 when it was pending."""
        return self._mod(timer, expires, self._kernel.cpus.this_cpu())

    def add_timer(self, timer: TimerList) -> None:
        """Arm for ``timer.expires``. A pending timer is a BUG."""
        self.add_timer_on(timer, self._kernel.cpus.smp_processor_id())

    def add_timer_on(self, timer: TimerList, cpu: int) -> None:
        """Arm on another CPU."""
        if timer.base is not None:
            self._kernel.finding("timer", f"BUG: add_timer() of a pending timer ({timer.func!r})")
        self._mod(timer, timer.expires, self._kernel.cpus.cpu(cpu))

    def _mod(self, timer: TimerList, expires: int, cpu: Cpu) -> int:
        was = timer.base is not None
        timer.expires = expires
        timer.base = cpu
        self._sequence += 1
        timer.seq = self._sequence
        heap = cpu.timers
        first = not heap or expires < heap[0][0]
        heappush(heap, (expires, timer.seq, timer))
        if first:
            if cpu is self._kernel.cpus.this_cpu():
                self._program(cpu)
            else:
                self._kernel.arch.send_ipi([cpu.cpu], IpiKind.RESCHEDULE)
        return int(was)

    def migrate(self, cpu: Cpu) -> None:
        """timers_dead_cpu(): what was armed on ``cpu`` goes to this CPU."""
        pending, cpu.timers[:] = [entry for entry in cpu.timers if entry[2].seq == entry[1]], []
        for expires, _, timer in sorted(pending, key=lambda entry: entry[:2]):
            self._mod(timer, expires, self._kernel.cpus.this_cpu())

    def del_timer(self, timer: TimerList) -> bool:
        """Disarm; True when it was pending. Its interrupt, if programmed, comes and finds nothing."""
        was = timer.base is not None
        timer.base = None
        timer.seq = 0
        return was

    def del_timer_sync(self, timer: TimerList) -> bool:
        """The same, and wait until its function has returned on other CPUs."""
        cpu = self._kernel.cpus.this_cpu()
        if self._running.get(cpu.cpu) is timer:
            self._kernel.finding("timer", "BUG: del_timer_sync() from the timer's own function")
            return self.del_timer(timer)
        was = self.del_timer(timer)
        while any(running is timer for running in self._running.values()):
            self._machine.delay(RELAX)
        return was

    def timer_pending(self, timer: TimerList) -> bool:
        return timer.base is not None

    def _run_timers(self, cpu: Cpu) -> None:
        """TIMER_SOFTIRQ: everything that is due, in the order of expiry."""
        heap = cpu.timers
        clock = self._clock
        while heap:
            expires, seq, timer = heap[0]
            if timer.seq != seq:
                heappop(heap)
                continue
            if self._when(expires) > clock.now:
                break
            heappop(heap)
            timer.base = None
            timer.seq = 0
            self._running[cpu.cpu] = timer
            before = cpu.preempt_count
            try:
                timer.func(timer)
            except Exception as error:
                self._kernel.survive(error)
            finally:
                del self._running[cpu.cpu]
            if cpu.preempt_count != before:
                self._kernel.finding(
                    "preempt-imbalance",
                    f"WARNING: timer {timer.func!r} preempt leak: {before:08x} -> {cpu.preempt_count:08x}",
                )
                cpu.preempt_count = before
        self._program(cpu)

    # clock events ----------------------------------------------------------------------------------------------

    def clockevents_config_and_register(self, dev: ClockEventDevice, freq: int, min_delta: int, max_delta: int) -> None:
        """Compute its factors and use it on its CPU if its rating is higher than the present one's.

        :param freq: Hz. :param min_delta: ticks. :param max_delta: ticks.
        :raises ValueError: for a device without one-shot mode or a frequency of 0.

        Source: kernel/time/clockevents.c, tick-common.c:tick_check_new_device.
        """
        if not dev.features & CLOCK_EVT_FEAT_ONESHOT:
            raise ValueError(f"clockevent {dev.name}: only devices with CLOCK_EVT_FEAT_ONESHOT are modelled")
        if freq <= 0:
            raise ValueError(f"clockevent {dev.name}: frequency {freq} Hz")
        dev.min_delta_ticks, dev.max_delta_ticks = min_delta, max_delta
        sec = max(1, min(max_delta // freq, 600 if max_delta > 0xFFFFFFFF else max_delta // freq))
        dev.mult, dev.shift = clocks_calc_mult_shift(NSEC_PER_SEC, freq, sec)
        dev.event_handler = self.tick_handle
        dev.state = "detached"
        self._devices.append(dev)
        cpu = self._kernel.cpus.cpu(dev.cpu)
        if cpu.tick is None or dev.rating > cpu.tick.rating:
            self._use(cpu, dev)

    def _use(self, cpu: Cpu, dev: ClockEventDevice | None) -> None:
        old = cpu.tick
        if old is None:
            cpu.vp.set_local_timer(None, BOOT_TIMER_VECTOR)
        elif old.set_state_shutdown is not None:
            old.set_state_shutdown()
            old.state = "shutdown"
        cpu.tick = dev
        if dev is not None:
            dev.state = "oneshot"
            if dev.set_state_oneshot is not None:
                dev.set_state_oneshot()
        self._program(cpu)

    def clockevents_unbind_device(self, dev: ClockEventDevice, cpu: int) -> int:
        """Stop using ``dev`` on ``cpu`` for the next best; 0, -EINVAL when it is not registered, -EBUSY for another
        CPU, -ENXIO for one that is offline.

        It is done on that CPU, whose registers it is about. Source: kernel/time/clockevents.c:clockevents_unbind.
        """
        if dev not in self._devices:
            return -EINVAL
        if dev.cpu != cpu:
            return -EBUSY
        return self._kernel.cpus.smp_call_function_single(cpu, self._unbind, dev, cpu)

    def _unbind(self, dev: ClockEventDevice, cpu: int) -> None:
        self._devices.remove(dev)
        this = self._kernel.cpus.cpu(cpu)
        if this.tick is dev:
            others = [d for d in self._devices if d.cpu == cpu]
            self._use(this, max(others, key=lambda d: d.rating, default=None))
        elif dev.set_state_shutdown is not None:
            dev.set_state_shutdown()
        dev.state = "detached"

    def _program(self, cpu: Cpu) -> None:
        """Let the CPU's timer interrupt at its earliest timer. Runs on that CPU."""
        heap = cpu.timers
        while heap and heap[0][2].seq != heap[0][1]:
            heappop(heap)
        dev = cpu.tick
        if not heap:
            return
        when = self._when(heap[0][0])
        if dev is None:
            cpu.vp.set_local_timer(max(when, self._clock.now + 1), BOOT_TIMER_VECTOR)
            return
        delta_ns = max(0, when - self._clock.now) * (NSEC_PER_SEC // UNITS_PER_SECOND)
        ticks = -(-delta_ns * dev.mult >> dev.shift)
        ticks = min(max(ticks, dev.min_delta_ticks), dev.max_delta_ticks)
        if dev.set_next_event(ticks):
            dev.set_next_event(max(ticks, dev.min_delta_ticks * 2))

    def tick_handle(self, dev: ClockEventDevice) -> None:
        """event_handler of every device: run the timers after this interrupt."""
        self._kernel.softirq.raise_softirq(TIMER_SOFTIRQ)

    def _boot_timer(self) -> None:
        self._kernel.softirq.raise_softirq(TIMER_SOFTIRQ)

    def scheduler_ipi(self) -> None:
        """The reschedule vector: another CPU armed a timer here."""
        self._program(self._kernel.cpus.this_cpu())
