"""Virtual time: one counter of 100 ns units per machine, and the timers that are armed on it.

Time moves only when something charges for it (traps, task switches, preemption points), when code asks for a
delay, or when nothing can run: then it jumps to the next timer. The wall clock is never read.

What a step costs is *unspecified*: no document states the cost of a trap, and it differs per processor. The
numbers below are near what a current server needs for the real thing, so that the time stamps of a boot log advance
by plausible amounts; nothing may depend on them.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Final

UNITS_PER_SECOND: Final = 10_000_000
"""100 ns units in a second: the unit of the hypervisor's reference time. Source: TLFS, "Partition Reference Time"."""

COST_CPUID: Final = 20
"""2 us: an intercepted CPUID. *unspecified*, see the module."""
COST_RDMSR: Final = 10
"""1 us. *unspecified*, see the module."""
COST_WRMSR: Final = 10
"""1 us. *unspecified*, see the module."""
COST_HYPERCALL: Final = 15
"""1.5 us. *unspecified*, see the module."""
COST_MMIO: Final = 30
"""3 us: needs instruction emulation. *unspecified*, see the module."""
COST_IO: Final = 20
"""2 us. *unspecified*, see the module."""
COST_SWITCH: Final = 10
"""1 us for a task switch. *unspecified*, see the module."""
COST_INTERRUPT: Final = 5
"""0.5 us for entering an interrupt. *unspecified*, see the module."""
COST_STEP: Final = 1
"""100 ns between two preemption points: code that spins reaches its deadline. *unspecified*, see the module."""

NEVER: Final = 1 << 63
"""Later than any time that a machine reaches (29,000 years)."""


class Timer:
    """One armed callback. Made by :meth:`Clock.at`; inert once it has fired or was cancelled."""

    __slots__ = ("_clock", "fn", "pending", "sequence", "when")

    def __init__(self, clock: Clock, when: int, sequence: int, fn: Callable[[], object]) -> None:
        self._clock = clock
        self.when = when
        """Absolute time in 100 ns units."""
        self.sequence = sequence
        self.fn = fn
        self.pending = True
        """True until the timer fires or is cancelled."""

    def cancel(self) -> bool:
        """Disarm. Returns True if the timer was still pending."""
        if not self.pending:
            return False
        self.pending = False
        self._clock._cancelled()
        return True

    def __lt__(self, other: Timer) -> bool:
        return (self.when, self.sequence) < (other.when, other.sequence)

    def __repr__(self) -> str:
        return f"<Timer at {self.when}{'' if self.pending else ', inert'}>"


class Clock:
    """Virtual time of one machine.

    Timers fire in the order of (time, order of arming), one at a time, in the scheduler: never inside the
    code of a task. A callback may arm and cancel timers, wake tasks and raise interrupts; it may not block.
    """

    __slots__ = ("_alarm", "_dead", "_deadline", "_heap", "_next", "_sequence", "now")

    def __init__(self) -> None:
        self.now: int = 0
        """The time in 100 ns units since the machine was made. Read only for others; use :meth:`charge`."""
        self._heap: list[Timer] = []
        self._sequence = 0
        self._dead = 0
        self._next = NEVER
        """When the earliest pending timer is due, NEVER without one."""
        self._deadline = NEVER
        self._alarm = NEVER
        """min(_next, _deadline): the one comparison that a preemption point makes."""

    def at(self, when: int, fn: Callable[[], object]) -> Timer:
        """Call `fn` once when the time is `when` (absolute, 100 ns units); at once if that is past."""
        timer = Timer(self, when, self._sequence, fn)
        self._sequence += 1
        heappush(self._heap, timer)
        if when < self._next:
            self._next = when
            if when < self._alarm:
                self._alarm = when
        return timer

    def after(self, units: int, fn: Callable[[], object]) -> Timer:
        """Call `fn` once, `units` of 100 ns from now."""
        return self.at(self.now + units, fn)

    def charge(self, units: int) -> None:
        """Let `units` of 100 ns pass for the code that runs. Errors: ValueError if negative."""
        if units < 0:
            raise ValueError(f"units: {units} is negative; time does not run backwards")
        self.now += units

    @property
    def pending(self) -> int:
        """How many timers are armed."""
        return len(self._heap) - self._dead

    @property
    def next_due(self) -> int | None:
        """When the earliest timer is due, or None."""
        return None if self._next == NEVER else self._next

    def _cancelled(self) -> None:
        self._dead += 1
        if self._dead > 64 and self._dead * 2 > len(self._heap):
            self._heap = [timer for timer in self._heap if timer.pending]
            heapify(self._heap)
            self._dead = 0
        self._settle()

    def _settle(self) -> None:
        """Drop inert timers from the top and work out when the next one is due."""
        heap = self._heap
        while heap and not heap[0].pending:
            heappop(heap)
            self._dead -= 1
        self._next = heap[0].when if heap else NEVER
        self._alarm = min(self._next, self._deadline)

    def _set_deadline(self, deadline: int) -> None:
        self._deadline = deadline
        self._alarm = min(self._next, deadline)

    def _fire_one(self) -> bool:
        """Fire the earliest timer if it is due. Returns False if none is."""
        if self._next > self.now:
            return False
        timer = heappop(self._heap)
        timer.pending = False
        self._settle()
        timer.fn()
        return True

    def _drop_all(self) -> None:
        for timer in self._heap:
            timer.pending = False
        self._heap = []
        self._dead = 0
        self._settle()
