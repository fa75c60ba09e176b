"""async.h: functions that run in the unbound workqueue, and waiting for all of them. Source: kernel/async.c."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from hvkernel.api.guest.sched import WaitQueueHead, Work

if TYPE_CHECKING:
    from hvkernel.linux.kernel import Kernel


class Async:
    """``kernel.async_``."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._pending: dict[int, str] = {}
        self._cookie = 0
        self._done = WaitQueueHead()

    @property
    def pending(self) -> tuple[str, ...]:
        """Names of what has not ended, oldest first."""
        return tuple(self._pending.values())

    def async_schedule(self, fn: Callable[[], None], name: str) -> None:
        """Run ``fn`` in an unbound worker."""
        self._cookie += 1
        cookie = self._cookie
        self._pending[cookie] = name

        def run(work: Work) -> None:
            try:
                fn()
            finally:
                del self._pending[cookie]
                self._kernel.sched.wake_up_all(self._done)

        workqueue = self._kernel.workqueue
        workqueue.queue_work(workqueue.system_unbound_wq, Work(run, name))

    def async_synchronize_full(self) -> None:
        """Wait until nothing is pending, the work of a caller that itself runs here excepted."""
        task = self._kernel.machine.current
        worker = task.locals.get("worker") if task is not None else None
        work = worker.current if worker is not None else None
        allowed = 1 if work is not None and work.data in self._pending.values() else 0
        self._kernel.sched.wait_event(self._done, lambda: len(self._pending) <= allowed)
