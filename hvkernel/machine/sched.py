"""Tasks, lanes and scheduling policies.

A *task* is a thread of the model on its own greenlet: a kernel thread of the guest or a worker of the host. A *lane*
is what runs at most one task at a time: each virtual processor is one, all host tasks share one. The machine's
scheduler picks a lane, and the lane a task, through a single seam: :meth:`Policy.choose`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Any, Final, Protocol

from greenlet import getcurrent, greenlet

from hvkernel.machine.accessor import Side
from hvkernel.machine.faults import MachineError, TaskExit

if TYPE_CHECKING:
    from hvkernel.machine.scheduler import Scheduler
    from hvkernel.machine.vp import VirtualProcessor

READY: Final = "ready"
RUNNING: Final = "running"
BLOCKED: Final = "blocked"
DELAYED: Final = "delayed"
DONE: Final = "done"


class Policy(Protocol):
    """Decides what runs next. The only source of choice in a machine."""

    name: str
    """As the user writes it: "fifo", "random:7"."""
    sticky: bool
    """True if :meth:`choose` always answers 0, so that a preemption point need not ask."""

    def choose(self, ready: Sequence[object]) -> int:
        """The index of what runs next.

        :param ready: at least one candidate: lanes, or tasks of one lane. Whoever runs now comes first, then whoever
            waits longest. The objects are opaque.
        """
        ...


class Fifo:
    """Whoever runs goes on until it blocks; then whoever waits longest."""

    __slots__ = ("name", "sticky")

    def __init__(self) -> None:
        self.name = "fifo"
        self.sticky = True

    def choose(self, ready: Sequence[object]) -> int:
        return 0


class Shuffled:
    """Any candidate with equal probability, at every preemption point. The same seed gives the same choices."""

    __slots__ = ("_random", "name", "sticky")

    def __init__(self, seed: int) -> None:
        self.name = f"random:{seed}"
        self.sticky = False
        self._random = Random(f"policy/{seed}")

    def choose(self, ready: Sequence[object]) -> int:
        return int(self._random.random() * len(ready))


def make_policy(text: str) -> Policy:
    """The policy that `text` names: "fifo" or "random:SEED" with an integer SEED.

    :raises ValueError: anything else.
    """
    if text == "fifo":
        return Fifo()
    kind, _, seed = text.partition(":")
    if kind == "random":
        try:
            return Shuffled(int(seed))
        except ValueError:
            pass
    raise ValueError(f"policy: {text!r} is not a policy; there are 'fifo' and 'random:SEED' with an integer SEED")


class Task:
    """One thread of the model. Made by :meth:`Machine.spawn`.

    `locals` is a dictionary for the owner's use (the guest keeps its task_struct fields there); the machine never
    looks at it.
    """

    __slots__ = (
        "_dying",
        "_fn",
        "_greenlet",
        "_irqs",
        "_killing",
        "_machine",
        "_refused",
        "_token",
        "error",
        "lane",
        "locals",
        "name",
        "number",
        "result",
        "side",
        "state",
    )

    def __init__(
        self, machine: Scheduler, number: int, name: str, side: Side, lane: Lane, fn: Callable[[], Any], irqs: bool
    ) -> None:
        self._machine = machine
        self._fn = fn
        self._irqs = irqs
        self._token = False
        self._dying = False
        self._killing = False
        self._refused = 0
        self._greenlet: Any = greenlet(self._main, machine._hub or getcurrent())
        self.number = number
        """Counts up in order of creation, from 1; idle contexts are 0."""
        self.name = name
        self.side: Side = side
        self.lane = lane
        self.state = READY
        """"ready", "running", "blocked", "delayed" or "done"."""
        self.locals: dict[str, Any] = {}
        self.result: Any = None
        """What the function returned, once done."""
        self.error: BaseException | None = None
        """What the function raised, if it did."""

    @property
    def vp(self) -> VirtualProcessor | None:
        """The virtual processor that runs it; None for host tasks."""
        return self.lane.vp

    @property
    def done(self) -> bool:
        """True once the function returned, raised or was ended."""
        return self.state is DONE

    def kill(self) -> None:
        """End the task: TaskExit is raised where it stands, its ``finally`` blocks run. Not for the current task.

        :raises MachineError: the task is the current one, is ending another, or will not end.
        """
        self._machine._kill(self)

    def _main(self) -> None:
        machine = self._machine
        try:
            machine._enter(self)
            self.result = self._fn()
        except TaskExit:
            pass
        except BaseException as error:
            self.error = error
        self._greenlet.parent = machine._leave(self)

    def __repr__(self) -> str:
        return f"<Task {self.number} {self.name!r} on {self.lane.name}, {self.state}>"


class Lane:
    """What runs one task at a time: a virtual processor, or the host."""

    __slots__ = ("idle", "name", "queue", "queued", "running", "vp")

    def __init__(self, name: str, vp: VirtualProcessor | None) -> None:
        self.name = name
        self.vp = vp
        self.running: Task | None = None
        """The task on this lane, also while another lane runs."""
        self.queue: deque[Task] = deque()
        """Tasks that are ready, in the order they became so."""
        self.queued = False
        """True while the machine's list of ready lanes holds it."""
        self.idle: Task | None = None
        """The context in which interrupts run when no task does."""

    def __repr__(self) -> str:
        return f"<Lane {self.name}>"


def check_choice(index: int, ready: Sequence[object], policy: Policy) -> int:
    """`index` if it is a place in `ready`. :raises MachineError: it is not."""
    if not 0 <= index < len(ready):
        raise MachineError(f"policy {policy.name!r} chose {index} of {len(ready)} candidates")
    return index
