"""completion.h, wait.h, workqueue.h, interrupt.h, sched.h, kthread.h, spinlock.h, mutex.h.

Structs here are plain data, as in a C header: make them with their constructor (``Completion()`` is
DECLARE_COMPLETION), hand them to the functions of ``kernel.sched``, ``kernel.workqueue``, ``kernel.softirq`` and
``kernel.locking``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from .time import TimerList

MAX_SCHEDULE_TIMEOUT = (1 << 63) - 1
"""Wait without a limit. Source: include/linux/sched.h."""


class WaitQueueHead:
    """struct wait_queue_head: tasks waiting for a condition."""

    __slots__ = ("tasks",)

    def __init__(self) -> None:
        self.tasks: deque[Any] = deque()


class Completion:
    """struct completion."""

    __slots__ = ("done", "wait")

    def __init__(self) -> None:
        self.done = 0
        """How many waiters may pass; ``UINT_MAX`` after complete_all()."""
        self.wait: deque[Any] = deque()


class Work:
    """struct work_struct. ``func`` gets the work; ``data`` stands for container_of()."""

    __slots__ = ("data", "func", "pending", "pool", "running", "seq", "wq")

    def __init__(self, func: Callable[[Work], object], data: Any = None) -> None:
        self.func = func
        self.data = data
        self.pending = False
        """WORK_STRUCT_PENDING: queued (or its delay is running) and not started."""
        self.running: Any = None
        """The worker that runs it now."""
        self.pool: Any = None
        self.seq = 0
        self.wq: Any = None


class DelayedWork(Work):
    """struct delayed_work."""

    __slots__ = ("cpu", "timer")

    def __init__(self, func: Callable[[Work], object], data: Any = None) -> None:
        super().__init__(func, data)
        self.timer: TimerList | None = None
        self.cpu: int | None = None


class Workqueue:
    """struct workqueue_struct: opaque to its users, made by ``kernel.workqueue.alloc_workqueue``."""

    __slots__ = ("destroyed", "inflight", "max_active", "name", "next_seq", "pwqs", "unbound", "waiters")

    def __init__(self, name: str, unbound: bool, max_active: int) -> None:
        self.name = name
        self.unbound = unbound
        self.max_active = max_active
        self.pwqs: dict[int, Any] = {}
        self.inflight: dict[int, Work] = {}
        """Sequence number to work that is queued or runs, oldest first."""
        self.next_seq = 0
        self.waiters: list[Any] = []
        self.destroyed = False


class WorkqueueApi(Protocol):
    """``kernel.workqueue``."""

    @property
    def system_wq(self) -> Workqueue: ...
    @property
    def system_highpri_wq(self) -> Workqueue: ...
    @property
    def system_long_wq(self) -> Workqueue: ...
    @property
    def system_unbound_wq(self) -> Workqueue: ...

    def alloc_workqueue(
        self, name: str, *, unbound: bool = False, max_active: int = 0, highpri: bool = False
    ) -> Workqueue:
        """alloc_workqueue(); ``max_active`` 0 is the default of 256. ``unbound`` with ``max_active`` 1 keeps order."""
        ...

    def alloc_ordered_workqueue(self, name: str) -> Workqueue: ...
    def create_workqueue(self, name: str) -> Workqueue: ...
    def create_singlethread_workqueue(self, name: str) -> Workqueue: ...
    def destroy_workqueue(self, wq: Workqueue) -> None: ...

    def queue_work(self, wq: Workqueue, work: Work) -> bool:
        """Queue on the local CPU; False when it was pending already."""
        ...

    def queue_work_on(self, cpu: int, wq: Workqueue, work: Work) -> bool: ...
    def schedule_work(self, work: Work) -> bool: ...
    def schedule_work_on(self, cpu: int, work: Work) -> bool: ...

    def schedule_on_each_cpu(self, func: Callable[[Work], object]) -> int:
        """Run ``func`` in a worker of every online CPU and wait for all of them."""
        ...

    def queue_delayed_work(self, wq: Workqueue, work: DelayedWork, delay: int) -> bool:
        """:param delay: jiffies."""
        ...

    def queue_delayed_work_on(self, cpu: int, wq: Workqueue, work: DelayedWork, delay: int) -> bool: ...
    def schedule_delayed_work(self, work: DelayedWork, delay: int) -> bool: ...
    def mod_delayed_work(self, wq: Workqueue, work: DelayedWork, delay: int) -> bool: ...

    def flush_work(self, work: Work) -> bool:
        """Wait until the last queued run of ``work`` has ended; False when it was idle."""
        ...

    def flush_workqueue(self, wq: Workqueue) -> None:
        """Wait for all work queued before this call."""
        ...

    def drain_workqueue(self, wq: Workqueue) -> None:
        """Wait until the queue is empty, whatever its works queue meanwhile."""
        ...

    def cancel_work_sync(self, work: Work) -> bool: ...
    def cancel_delayed_work(self, work: DelayedWork) -> bool: ...
    def cancel_delayed_work_sync(self, work: DelayedWork) -> bool: ...


class Kthread(Protocol):
    """A kernel thread (struct task_struct as far as its starter may know)."""

    @property
    def name(self) -> str: ...


class Sched(Protocol):
    """``kernel.sched``: completions, wait queues, sleeping, kernel threads, preempt_count."""

    def init_completion(self) -> Completion: ...
    def reinit_completion(self, x: Completion) -> None: ...
    def complete(self, x: Completion) -> None: ...
    def complete_all(self, x: Completion) -> None: ...
    def completion_done(self, x: Completion) -> bool: ...
    def try_wait_for_completion(self, x: Completion) -> bool: ...
    def wait_for_completion(self, x: Completion) -> None: ...

    def wait_for_completion_timeout(self, x: Completion, timeout: int) -> int:
        """:param timeout: jiffies. 0 on timeout, else the jiffies left (at least 1)."""
        ...

    def init_waitqueue_head(self) -> WaitQueueHead: ...
    def wake_up(self, wq: WaitQueueHead) -> None: ...
    def wake_up_all(self, wq: WaitQueueHead) -> None: ...
    def wait_event(self, wq: WaitQueueHead, condition: Callable[[], bool]) -> None: ...

    def wait_event_timeout(self, wq: WaitQueueHead, condition: Callable[[], bool], timeout: int) -> int:
        """:param timeout: jiffies. 0 when it passed and the condition is still false, else the jiffies left."""
        ...

    def schedule(self) -> None:
        """Let others of this CPU run."""
        ...

    def cond_resched(self) -> None: ...
    def schedule_timeout(self, timeout: int) -> int: ...
    def msleep(self, msecs: int) -> None: ...
    def usleep_range(self, low: int, high: int) -> None: ...
    def udelay(self, usecs: int) -> None: ...
    def mdelay(self, msecs: int) -> None: ...

    def kthread_run(self, func: Callable[..., Any], *args: Any, name: str, cpu: int | None = None) -> Kthread: ...
    def kthread_stop(self, thread: Kthread) -> None: ...
    def kthread_should_stop(self) -> bool: ...

    def might_sleep(self) -> None:
        """A finding ("BUG: sleeping function called from invalid context") when the caller must not sleep."""
        ...

    def preempt_disable(self) -> None: ...
    def preempt_enable(self) -> None: ...
    def preempt_count(self) -> int: ...
    def in_interrupt(self) -> bool: ...
    def in_hardirq(self) -> bool: ...
    def in_atomic(self) -> bool: ...


class Tasklet:
    """struct tasklet_struct. ``func`` gets ``data``; a trace calls it ``name``."""

    __slots__ = ("count", "data", "func", "name", "running", "scheduled")

    def __init__(self, func: Callable[[Any], None], data: Any = None, name: str = "tasklet") -> None:
        self.func = func
        self.data = data
        self.name = name
        self.scheduled = False
        self.running = False
        self.count = 0
        """Disabled while not zero."""


class Softirq(Protocol):
    """``kernel.softirq``: softirqs and tasklets."""

    def tasklet_schedule(self, t: Tasklet) -> None: ...
    def tasklet_disable(self, t: Tasklet) -> None: ...
    def tasklet_enable(self, t: Tasklet) -> None: ...
    def tasklet_kill(self, t: Tasklet) -> None: ...
    def local_bh_disable(self) -> None: ...
    def local_bh_enable(self) -> None: ...


class Spinlock(Protocol):
    """spinlock_t. ``with lock:`` is spin_lock/spin_unlock; ``with lock.irqsave():`` the irqsave pair."""

    @property
    def name(self) -> str: ...
    def __enter__(self) -> object: ...
    def __exit__(self, *exc: object) -> None: ...
    def lock(self) -> None: ...
    def unlock(self) -> None: ...
    def trylock(self) -> bool: ...
    def locked(self) -> bool: ...
    def irqsave(self) -> AbstractContextManager[object]: ...
    def bh(self) -> AbstractContextManager[object]: ...


class Mutex(Protocol):
    """struct mutex. ``with mutex:`` is mutex_lock/mutex_unlock."""

    @property
    def name(self) -> str: ...
    def __enter__(self) -> object: ...
    def __exit__(self, *exc: object) -> None: ...
    def lock(self) -> None: ...
    def unlock(self) -> None: ...
    def trylock(self) -> bool: ...
    def locked(self) -> bool: ...


class Locking(Protocol):
    """``kernel.locking``. A lock's name is its lockdep class: locks of one name are checked as one."""

    def spin_lock_init(self, name: str) -> Spinlock: ...
    def mutex_init(self, name: str) -> Mutex: ...
    def rcu_read_lock(self) -> None: ...
    def rcu_read_unlock(self) -> None: ...
    def synchronize_rcu(self) -> None: ...


__all__ = [
    "MAX_SCHEDULE_TIMEOUT",
    "Completion",
    "DelayedWork",
    "Kthread",
    "Locking",
    "Mutex",
    "Sched",
    "Softirq",
    "Spinlock",
    "Tasklet",
    "WaitQueueHead",
    "Work",
    "Workqueue",
    "WorkqueueApi",
]
