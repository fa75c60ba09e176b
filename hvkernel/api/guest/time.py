"""timer.h, jiffies.h, clocksource.h, clockchips.h, sched_clock.h."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

CLOCK_SOURCE_IS_CONTINUOUS = 0x01
CLOCK_SOURCE_MUST_VERIFY = 0x02
CLOCK_SOURCE_WATCHDOG = 0x10
CLOCK_SOURCE_VALID_FOR_HRES = 0x20
CLOCK_SOURCE_UNSTABLE = 0x40
CLOCK_SOURCE_SUSPEND_NONSTOP = 0x80
CLOCK_SOURCE_RESELECT = 0x100

CLOCK_EVT_FEAT_PERIODIC = 0x01
CLOCK_EVT_FEAT_ONESHOT = 0x02
CLOCK_EVT_FEAT_C3STOP = 0x08
CLOCK_EVT_FEAT_DUMMY = 0x10
CLOCK_EVT_FEAT_PERCPU = 0x40

NSEC_PER_SEC = 1_000_000_000


class TimerList:
    """struct timer_list. ``func`` gets the timer; ``data`` stands for container_of()."""

    __slots__ = ("base", "data", "expires", "func", "seq")

    def __init__(self, func: Callable[[TimerList], None], data: Any = None) -> None:
        self.func = func
        self.data = data
        self.expires = 0
        """Jiffies."""
        self.base: Any = None
        """The per-CPU base it is pending on, or None."""
        self.seq = 0


class Clocksource:
    """struct clocksource: a free-running counter."""

    __slots__ = ("flags", "mask", "max_cycles", "max_idle_ns", "mult", "name", "rating", "read", "shift")

    def __init__(
        self, name: str, rating: int, read: Callable[[], int], mask: int, flags: int = CLOCK_SOURCE_IS_CONTINUOUS
    ) -> None:
        self.name = name
        self.rating = rating
        self.read = read
        self.mask = mask
        self.flags = flags
        self.mult = 0
        self.shift = 0
        self.max_cycles = 0
        self.max_idle_ns = 0


class ClockEventDevice:
    """struct clock_event_device: a timer of one CPU that can be told when to interrupt next.

    ``set_next_event(delta_ticks)`` programs it (0 or a negative errno); the driver's interrupt handler calls
    ``event_handler(device)``, which the core fills in.
    """

    __slots__ = (
        "cpu", "event_handler", "features", "max_delta_ticks", "min_delta_ticks", "mult", "name", "rating",
        "set_next_event", "set_state_oneshot", "set_state_shutdown", "shift", "state",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        rating: int,
        features: int,
        cpu: int,
        set_next_event: Callable[[int], int],
        set_state_shutdown: Callable[[], int] | None = None,
        set_state_oneshot: Callable[[], int] | None = None,
    ) -> None:
        self.name = name
        self.rating = rating
        self.features = features
        self.cpu = cpu
        self.set_next_event = set_next_event
        self.set_state_shutdown = set_state_shutdown
        self.set_state_oneshot = set_state_oneshot
        self.event_handler: Callable[[ClockEventDevice], None] | None = None
        self.mult = 0
        self.shift = 0
        self.min_delta_ticks = 0
        self.max_delta_ticks = 0
        self.state = "detached"
        """``detached``, ``shutdown`` or ``oneshot``."""


class Timers(Protocol):
    """``kernel.timers``: jiffies, timer lists, clock events."""

    @property
    def jiffies(self) -> int: ...
    @property
    def HZ(self) -> int: ...
    def msecs_to_jiffies(self, msecs: int) -> int: ...
    def usecs_to_jiffies(self, usecs: int) -> int: ...
    def mod_timer(self, timer: TimerList, expires: int) -> int: ...
    def add_timer(self, timer: TimerList) -> None: ...
    def add_timer_on(self, timer: TimerList, cpu: int) -> None: ...
    def del_timer(self, timer: TimerList) -> bool: ...
    def del_timer_sync(self, timer: TimerList) -> bool: ...
    def timer_pending(self, timer: TimerList) -> bool: ...

    def clockevents_config_and_register(self, dev: ClockEventDevice, freq: int, min_delta: int, max_delta: int) -> None:
        """:param freq: Hz; min and max in ticks."""
        ...

    def clockevents_unbind_device(self, dev: ClockEventDevice, cpu: int) -> int: ...


class Clocksources(Protocol):
    """``kernel.clocksource``."""

    def clocksource_register_hz(self, cs: Clocksource, hz: int) -> int:
        """Compute mult and shift, print the "clocksource: …" line, enqueue, select."""
        ...

    def clocksource_register_khz(self, cs: Clocksource, khz: int) -> int: ...
    def register_refined_jiffies(self) -> int:
        """Register the jiffies counter at the PIT's rate, where the arch does that."""
        ...

    def clocksource_unregister(self, cs: Clocksource) -> int: ...

    def clocksource_mark_unstable(self, cs: Clocksource) -> None: ...

    def set_sched_clock(self, read_ns: Callable[[], int]) -> None:
        """Let sched_clock() be ``read_ns()`` (paravirt_set_sched_clock, sched_clock_register)."""
        ...

    def sched_clock_register(self, read: Callable[[], int], bits: int, rate: int) -> None:
        """The generic sched_clock: a counter of ``bits`` bits at ``rate`` Hz. Prints its line."""
        ...

    def sched_clock(self) -> int:
        """Nanoseconds since boot, as printk and the scheduler use them."""
        ...


__all__ = [
    "CLOCK_EVT_FEAT_C3STOP",
    "CLOCK_EVT_FEAT_DUMMY",
    "CLOCK_EVT_FEAT_ONESHOT",
    "CLOCK_EVT_FEAT_PERCPU",
    "CLOCK_EVT_FEAT_PERIODIC",
    "CLOCK_SOURCE_IS_CONTINUOUS",
    "CLOCK_SOURCE_MUST_VERIFY",
    "CLOCK_SOURCE_RESELECT",
    "CLOCK_SOURCE_SUSPEND_NONSTOP",
    "CLOCK_SOURCE_UNSTABLE",
    "CLOCK_SOURCE_VALID_FOR_HRES",
    "CLOCK_SOURCE_WATCHDOG",
    "NSEC_PER_SEC",
    "ClockEventDevice",
    "Clocksource",
    "Clocksources",
    "TimerList",
    "Timers",
]
