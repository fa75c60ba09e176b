"""workqueue.h: bound and unbound workqueues with concurrency management, delayed work, flushing.

A pool of workers per CPU and one unbound pool. As in the kernel, a bound pool runs one worker at a time and lets
another start when that one blocks; the unbound pool runs as many as there is work, up to each queue's ``max_active``.
A work item is never run by two workers at once. Source: kernel/workqueue.c.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from hvkernel.api.guest.sched import DelayedWork, Work, Workqueue
from hvkernel.api.guest.time import TimerList

if TYPE_CHECKING:
    from hvkernel.linux.cpu import Cpu
    from hvkernel.linux.kernel import Kernel

WQ_DFL_ACTIVE: Final = 256
"""Source: include/linux/workqueue.h (WQ_MAX_ACTIVE / 2)."""
WQ_MAX_ACTIVE: Final = 512


class Worker:
    """One kworker."""

    __slots__ = ("blocked", "current", "pool", "scheduled", "task")

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.task: Any = None
        self.current: Work | None = None
        self.scheduled: deque[Work] = deque()
        self.blocked = False

    def sleeping(self) -> None:
        """wq_worker_sleeping(): this worker blocks inside a work function; another may take over."""
        if self.current is not None and not self.blocked:
            self.blocked = True
            pool = self.pool
            if pool.bound:
                pool.running -= 1
                if pool.worklist and not pool.running:
                    pool.wake_worker()

    def awake(self) -> None:
        """wq_worker_running()."""
        if self.blocked:
            self.blocked = False
            if self.pool.bound:
                self.pool.running += 1


class Pool:
    """struct worker_pool."""

    __slots__ = ("bound", "cpu", "idle", "label", "owner", "running", "workers", "worklist")

    def __init__(self, owner: WorkqueueApi, cpu: Cpu | None, label: str) -> None:
        self.owner = owner
        self.cpu = cpu
        self.bound = cpu is not None
        self.label = label
        self.worklist: deque[Work] = deque()
        self.idle: list[Worker] = []
        self.running = 0
        """Workers that run or are about to (bound pools)."""
        self.workers = 0

    def wake_worker(self) -> None:
        """Make an idle worker ready, or a new one."""
        if self.bound:
            self.running += 1
        if self.idle:
            self.owner.machine.wake(self.idle.pop().task)
            return
        worker = Worker(self)
        name = f"kworker/{self.label}:{self.workers}"
        self.workers += 1
        worker.task = self.owner.kernel.spawn(self.owner.worker_thread, worker, name=name, cpu=self.cpu)
        worker.task.locals["worker"] = worker


class PoolWorkqueue:
    """struct pool_workqueue: how one queue uses one pool."""

    __slots__ = ("inactive", "nr_active", "pool")

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.nr_active = 0
        self.inactive: deque[Work] = deque()


class WorkqueueApi:
    """``kernel.workqueue``."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.machine = kernel.machine
        self._pools: dict[tuple[int, bool], Pool] = {}
        self._unbound = Pool(self, None, "u8")
        self.system_wq = self.alloc_workqueue("events")
        self.system_highpri_wq = self.alloc_workqueue("events_highpri", highpri=True)
        self.system_long_wq = self.alloc_workqueue("events_long")
        self.system_unbound_wq = self.alloc_workqueue("events_unbound", unbound=True, max_active=WQ_MAX_ACTIVE)

    # queues ----------------------------------------------------------------------------------------------------

    def alloc_workqueue(
        self, name: str, *, unbound: bool = False, max_active: int = 0, highpri: bool = False
    ) -> Workqueue:
        """:param max_active: 0 is the default of 256. High priority is only a name here: there are no priorities.

        :raises ValueError: when ``max_active`` is not 0 to 512.
        """
        del highpri
        if not 0 <= max_active <= WQ_MAX_ACTIVE:
            raise ValueError(f"workqueue {name}: max_active {max_active} is not between 0 and {WQ_MAX_ACTIVE}")
        return Workqueue(name, unbound, max_active or WQ_DFL_ACTIVE)

    def alloc_ordered_workqueue(self, name: str) -> Workqueue:
        """One item at a time, in the order of queueing."""
        return self.alloc_workqueue(name, unbound=True, max_active=1)

    def create_workqueue(self, name: str) -> Workqueue:
        """alloc_workqueue(name, WQ_MEM_RECLAIM, 1): per CPU one at a time."""
        return self.alloc_workqueue(name, max_active=1)

    def create_singlethread_workqueue(self, name: str) -> Workqueue:
        return self.alloc_ordered_workqueue(name)

    def destroy_workqueue(self, wq: Workqueue) -> None:
        """Run what is queued, then refuse more."""
        self.drain_workqueue(wq)
        wq.destroyed = True

    def drain_workqueue(self, wq: Workqueue) -> None:
        """Run what is queued until nothing is; ten rounds are a finding."""
        rounds = 0
        while wq.inflight:
            self.flush_workqueue(wq)
            rounds += 1
            if rounds == 10:
                self.kernel.finding(
                    "workqueue", f"workqueue {wq.name}: drain_workqueue() isn't complete after 10 tries"
                )

    # queueing --------------------------------------------------------------------------------------------------

    def queue_work(self, wq: Workqueue, work: Work) -> bool:
        """Queue on this CPU; False when it is pending already."""
        if work.pending:
            return False
        work.pending = True
        self._queue(wq, work, None)
        return True

    def queue_work_on(self, cpu: int, wq: Workqueue, work: Work) -> bool:
        """Queue on ``cpu``; on this one when that is offline."""
        if work.pending:
            return False
        work.pending = True
        self._queue(wq, work, cpu)
        return True

    def schedule_work(self, work: Work) -> bool:
        return self.queue_work(self.system_wq, work)

    def schedule_work_on(self, cpu: int, work: Work) -> bool:
        return self.queue_work_on(cpu, self.system_wq, work)

    def schedule_on_each_cpu(self, func: Callable[[Work], object]) -> int:
        """Run ``func`` on every online CPU's worker and wait."""
        works = []
        for cpu in list(self.kernel.cpus.for_each_online_cpu()):
            work = Work(func)
            works.append(work)
            self.schedule_work_on(cpu, work)
        for work in works:
            self.flush_work(work)
        return 0

    def _pool(self, wq: Workqueue, cpu: int | None) -> Pool:
        if wq.unbound:
            return self._unbound
        cpus = self.kernel.cpus
        number = cpus.smp_processor_id() if cpu is None or not cpus.cpu_online(cpu) else cpu
        pool = self._pools.get((number, False))
        if pool is None:
            pool = self._pools[number, False] = Pool(self, cpus.cpu(number), str(number))
        return pool

    def _queue(self, wq: Workqueue, work: Work, cpu: int | None) -> None:
        if wq.destroyed:
            work.pending = False
            self.kernel.finding("workqueue", f"WARNING: work queued on destroyed workqueue {wq.name}")
            return
        pool = self._pool(wq, cpu)
        worker = work.running
        if worker is not None and work.pool is not pool and work.wq is wq:
            pool = work.pool
        work.pool = pool
        work.wq = wq
        wq.next_seq += 1
        work.seq = wq.next_seq
        wq.inflight[work.seq] = work
        key = -1 if not pool.bound else pool.cpu.cpu  # type: ignore[union-attr] # bound
        pwq = wq.pwqs.get(key)
        if pwq is None:
            pwq = wq.pwqs[key] = PoolWorkqueue(pool)
        if pwq.nr_active < wq.max_active:
            pwq.nr_active += 1
            self._insert(pool, work)
        else:
            pwq.inactive.append(work)

    def _insert(self, pool: Pool, work: Work) -> None:
        pool.worklist.append(work)
        if not pool.bound or not pool.running:
            pool.wake_worker()

    def worker_thread(self, worker: Worker) -> None:
        """What a kworker runs."""
        pool = worker.pool
        worklist = pool.worklist
        machine = self.machine
        while True:
            while worklist:
                work = worklist.popleft()
                if work.running is not None:
                    work.running.scheduled.append(work)
                    continue
                self._process(worker, work)
                while worker.scheduled:
                    self._process(worker, worker.scheduled.popleft())
            if pool.bound:
                pool.running -= 1
            pool.idle.append(worker)
            machine.block()
            while worker in pool.idle:
                machine.block()

    def _process(self, worker: Worker, work: Work) -> None:
        wq: Workqueue = work.wq
        pool = worker.pool
        seq = work.seq
        work.pending = False
        work.running = worker
        worker.current = work
        cpu = self.kernel.cpus.this_cpu()
        try:
            work.func(work)
        except Exception as error:
            self.kernel.survive(error)
        finally:
            work.running = None
            worker.current = None
            if cpu.preempt_count:
                self.kernel.finding(
                    "preempt-imbalance",
                    f"BUG: workqueue leaked atomic: {worker.task.name}/{cpu.preempt_count:#010x}, "
                    f"last function: {work.func!r}",
                )
                cpu.preempt_count = 0
            self._finish(wq, pool, seq)

    def _finish(self, wq: Workqueue, pool: Pool, seq: int) -> None:
        """The run or the queueing with number ``seq`` is over: start the next, tell who flushes."""
        wq.inflight.pop(seq, None)
        pwq = wq.pwqs[-1 if not pool.bound else pool.cpu.cpu]  # type: ignore[union-attr] # bound
        pwq.nr_active -= 1
        if pwq.inactive and pwq.nr_active < wq.max_active:
            pwq.nr_active += 1
            self._insert(pool, pwq.inactive.popleft())
        if wq.waiters:
            waiters, wq.waiters = wq.waiters, []
            for task in waiters:
                self.machine.wake(task)

    # delayed work ----------------------------------------------------------------------------------------------

    def queue_delayed_work(self, wq: Workqueue, work: DelayedWork, delay: int) -> bool:
        """:param delay: jiffies."""
        return self._queue_delayed(wq, work, delay, None)

    def queue_delayed_work_on(self, cpu: int, wq: Workqueue, work: DelayedWork, delay: int) -> bool:
        return self._queue_delayed(wq, work, delay, cpu)

    def schedule_delayed_work(self, work: DelayedWork, delay: int) -> bool:
        return self._queue_delayed(self.system_wq, work, delay, None)

    def _queue_delayed(self, wq: Workqueue, work: DelayedWork, delay: int, cpu: int | None) -> bool:
        if work.pending:
            return False
        work.pending = True
        if not delay:
            self._queue(wq, work, cpu)
            return True
        work.wq = wq
        work.cpu = cpu
        if work.timer is None:
            work.timer = TimerList(self._delayed_work_timer_fn, work)
        timers = self.kernel.timers
        if cpu is None or not self.kernel.cpus.cpu_online(cpu):
            timers.mod_timer(work.timer, timers.jiffies + delay)
        else:
            work.timer.expires = timers.jiffies + delay
            timers.add_timer_on(work.timer, cpu)
        return True

    def _delayed_work_timer_fn(self, timer: TimerList) -> None:
        work: DelayedWork = timer.data
        self._queue(work.wq, work, work.cpu)

    def mod_delayed_work(self, wq: Workqueue, work: DelayedWork, delay: int) -> bool:
        """Queue it for ``delay`` jiffies from now, whatever it was waiting for; True when it was pending."""
        was = self._grab(work)
        self._queue_delayed(wq, work, delay, None)
        return was

    # flushing and cancelling -----------------------------------------------------------------------------------

    def flush_work(self, work: Work) -> bool:
        """Wait for the last queueing of ``work``; False when it is idle."""
        self.kernel.sched.might_sleep()
        wq: Workqueue | None = work.wq
        seq = work.seq
        if wq is None or seq not in wq.inflight:
            return False
        if work.running is not None and work.running.task is self.machine.current:
            self.kernel.finding("deadlock", f"WARNING: work {work.func!r} flushes itself")
            return False
        self._wait(wq, lambda: seq not in wq.inflight)
        return True

    def flush_workqueue(self, wq: Workqueue) -> None:
        """Wait for all that was queued before."""
        self.kernel.sched.might_sleep()
        last = wq.next_seq
        self._wait(wq, lambda: not wq.inflight or next(iter(wq.inflight)) > last)

    def _wait(self, wq: Workqueue, over: Callable[[], bool]) -> None:
        while not over():
            wq.waiters.append(self.machine.current)
            self.kernel.sched.schedule_blocked()

    def _grab(self, work: Work) -> bool:
        """Take a pending work off its queue or its timer; False when it is not pending."""
        if not work.pending:
            return False
        if isinstance(work, DelayedWork) and work.timer is not None and self.kernel.timers.del_timer(work.timer):
            work.pending = False
            return True
        wq: Workqueue = work.wq
        pool: Pool = work.pool
        pwq = wq.pwqs[-1 if not pool.bound else pool.cpu.cpu]  # type: ignore[union-attr] # bound
        if work in pwq.inactive:
            pwq.inactive.remove(work)
            del wq.inflight[work.seq]
            work.pending = False
            self._wake_waiters(wq)
            return True
        if work in pool.worklist:
            pool.worklist.remove(work)
        elif work.running is not None and work in work.running.scheduled:
            work.running.scheduled.remove(work)
        else:
            return False
        work.pending = False
        self._finish(wq, pool, work.seq)
        return True

    def _wake_waiters(self, wq: Workqueue) -> None:
        waiters, wq.waiters = wq.waiters, []
        for task in waiters:
            self.machine.wake(task)

    def cancel_work_sync(self, work: Work) -> bool:
        """Take it off the queue and wait until it does not run; True when it was pending."""
        was = self._grab(work)
        wq: Workqueue | None = work.wq
        if wq is not None and work.running is not None and work.running.task is not self.machine.current:
            self.kernel.sched.might_sleep()
            self._wait(wq, lambda: work.running is None)
        return was

    def cancel_delayed_work(self, work: DelayedWork) -> bool:
        """Take it off; a run that has begun goes on."""
        return self._grab(work)

    def cancel_delayed_work_sync(self, work: DelayedWork) -> bool:
        return self.cancel_work_sync(work)
