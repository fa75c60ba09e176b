"""One live guest of a cell: everything that is done with it, within the cell's budget of virtual time and steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from hvkernel.api.guest.arch import ArchBug
from hvkernel.machine import Fault

if TYPE_CHECKING:
    from hvkernel.boot.session import Session
    from hvkernel.linux.cpu import Cpu
    from hvkernel.machine import Machine, Task

__all__ = ["SECOND", "GuestEnded", "GuestRun", "OverBudget", "Stuck", "steps_of"]

T = TypeVar("T")

SECOND: Final = 10_000_000
"""Units of virtual time in a second."""


def steps_of(machine: Machine) -> int:
    """Return the steps that a machine's scheduler has made: preemption points passed, and tasks that got a processor.

    The second, because a thread that sleeps a microsecond again and again passes no preemption point.
    """
    return machine.stats.steps + machine.stats.switches


class OverBudget(Exception):
    """The cell took more virtual time, or more steps, than it may."""


class Stuck(Exception):
    """Something waits, and nothing is left that could end its wait."""


class GuestEnded(Exception):
    """The guest ended, or what was done in it did: a panic, an oops."""


class GuestRun:
    """A guest, from its first instruction to its end.

    :param session: composed and not yet booted.
    :param limit: virtual time that the cell may take, 100 ns units.
    :param steps: scheduler steps that it may take.
    """

    def __init__(self, session: Session, limit: int, steps: int) -> None:
        self.session = session
        self._limit = limit
        self._steps = steps
        self._tasks: list[Task] = []

    def boot(self) -> str:
        """Boot; returns ``up``, ``panic`` or ``hung``.

        :raises OverBudget: it took too long.
        """
        kernel = self.session.kernel
        kernel.start()
        if self._run(lambda: kernel.outcome is not None) == "idle":
            # Nothing can run: the kernel puts it in words.
            kernel.run(0)
        assert kernel.outcome is not None
        return kernel.outcome.state

    def spawn(self, fn: Callable[..., Any], *args: Any, name: str, cpu: Cpu | None = None) -> Task:
        """Begin a kernel thread that :meth:`wait` waits for."""
        task = self.session.kernel.spawn(fn, *args, name=name, cpu=cpu)
        self._tasks.append(task)
        return task

    def wait(self, doing: str) -> None:
        """Run until the threads of :meth:`spawn` are done.

        :param doing: what they are doing, for the error.
        :raises OverBudget: they took too long.
        :raises Stuck: they never will be.
        :raises GuestEnded: the guest has ended.
        """
        tasks, self._tasks = self._tasks, []
        self._until(lambda: all(task.done for task in tasks), doing)

    def call(self, fn: Callable[..., T], *args: Any) -> T:
        """Run ``fn`` as a kernel thread until it is done, and return its value.

        An exception of ``fn`` is raised here; a fault of the guest is an oops in it. Raises as :meth:`wait`.
        """
        values: list[T] = []
        errors: list[Exception] = []

        def work() -> None:
            try:
                values.append(fn(*args))
            except (Fault, ArchBug):
                raise
            except Exception as error:
                errors.append(error)

        name = getattr(fn, "__name__", "call")
        task = self.session.kernel.spawn(work, name=f"cell {name}")
        self._until(lambda: task.done, name)
        if errors:
            raise errors[0]
        if not values:
            raise GuestEnded(f"{name} died of an oops")
        return values[0]

    def settle(self, until: int = 0) -> None:
        """Let a second of virtual time pass, or as much as it takes until ``until``, so that what was begun ends.

        :raises OverBudget: what was begun takes too many steps.
        """
        machine = self.session.machine
        end = max(machine.clock.now + SECOND, until)
        self._run(lambda: False, end - machine.clock.now)

    def pass_time(self, units: int, until: Callable[[], bool] | None = None) -> bool:
        """Let so much virtual time pass, even if nothing happens in it.

        :param units: 100 ns units.
        :param until: ends it early when it holds.
        :returns: whether ``until`` holds.
        :raises OverBudget: that is more than the cell may take.
        """
        clock = self.session.machine.clock
        end = clock.at(clock.now + units, lambda: None)
        try:
            how = self._run(until or (lambda: False), units)
        finally:
            end.cancel()
        return how == "until" or (until is not None and until())

    def _until(self, done: Callable[[], bool], doing: str) -> None:
        kernel = self.session.kernel

        def over() -> bool:
            return done() or kernel.outcome is None or kernel.outcome.state != "up"

        how = self._run(over)
        if kernel.outcome is not None and kernel.outcome.state != "up":
            raise GuestEnded(f"{doing}: {kernel.outcome.state}: {kernel.outcome.reason}")
        if how == "idle":
            machine = self.session.machine
            waiting = [task.name for task in machine.tasks if task.side == "guest" and task.name != "swapper/0"]
            raise Stuck(f"{doing}: nothing can run; tasks of the guest: {', '.join(waiting) or 'none'}")

    def _run(self, until: Callable[[], bool], units: int | None = None) -> str:
        machine = self.session.machine
        left = self._limit - machine.clock.now
        stats, most = machine.stats, self._steps
        steps = most - steps_of(machine)
        if left <= 0 or steps <= 0:
            self._over(steps)

        def over() -> bool:
            return stats.steps + stats.switches >= most or until()  # not steps_of(): asked thousands of times

        how = machine.run(over, left if units is None else min(left, units), steps)
        if how != "idle" and steps_of(machine) >= most:
            self._over(0)
        if how == "limit" and machine.clock.now >= self._limit:
            self._over(1)
        return how

    def _over(self, steps: int) -> None:
        if steps <= 0:
            raise OverBudget(f"took more than {self._steps} steps of the scheduler")
        raise OverBudget(f"took more than {self._limit / SECOND:g} s of virtual time")
