"""The scheduler: runs the tasks of a machine on its lanes, fires its timers, delivers its interrupts.

It runs in the greenlet of whoever calls :meth:`Scheduler.run`; a task switches to it when it blocks, when a timer
is due, or when the policy wants another lane. Timers fire there too, never on top of a task.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import get_ident
from typing import Any, Final, Literal, NoReturn, TypeVar

from greenlet import getcurrent

from hvkernel.machine.accessor import Side
from hvkernel.machine.clock import COST_STEP, COST_SWITCH, NEVER, Clock
from hvkernel.machine.faults import LimitReached, MachineError, MachineStuck, TaskExit
from hvkernel.machine.report import Stats
from hvkernel.machine.sched import BLOCKED, DELAYED, DONE, READY, RUNNING, Lane, Policy, Task, check_choice, make_policy
from hvkernel.machine.tracing import Tracer
from hvkernel.machine.vp import TrapHandler, VirtualProcessor, VpTopology, check_topology

T = TypeVar("T")
Outcome = Literal["until", "idle", "limit"]

STEP_BUDGET: Final = 5_000_000
"""Preemption points that one :meth:`Scheduler.run` passes before it returns "limit": some ten seconds of a
spinning guest."""

REFUSALS: Final = 1000
"""Preemption points and attempts to wait after which a task that is being ended counts as one that does not end."""


class Scheduler:
    """The executing half of a :class:`~hvkernel.machine.machine.Machine`; not used alone."""

    def __init__(self, vps: Sequence[VpTopology], policy: str) -> None:
        topology = check_topology(vps)
        self.policy: Policy = make_policy(policy)
        """What chooses; see :class:`~hvkernel.machine.sched.Policy`."""
        self.clock = Clock()
        self.stats = Stats()
        self.tracer: Tracer | None = None
        """Who watches this machine, if anybody."""
        self._thread = get_ident()
        self._handler: TrapHandler | None = None
        self._secondary: Callable[[VirtualProcessor], object] | None = None
        self._irq_key: Callable[[int], int] | None = None
        self.irq_name: Callable[[int], str] = "vector {:#x}".format
        """What a trace calls a vector; the guest sets it."""
        self._closing = False
        self._hub: Any = None
        self._reaper: Any = None
        self.current: Task | None = None
        """The task that runs, None in the scheduler, in timer callbacks and outside :meth:`run`. Read only."""
        self.current_vp: VirtualProcessor | None = None
        """The processor whose code runs, None for host tasks and outside tasks. Read only."""
        self._host_depth = 0
        self._sticky = self.policy.sticky
        self._ready: list[Lane] = []
        self._chosen: Lane | None = None
        self._step_limit = NEVER
        self._tasks: dict[int, Task] = {}
        self._count = 0
        self._host_lane = self._new_lane("host", None)
        processors = [VirtualProcessor(self, vp) for vp in topology]
        self.boot_vp: VirtualProcessor = processors[0]
        """The processor that runs from the start."""
        self.vps: tuple[VirtualProcessor, ...] = tuple(sorted(processors, key=lambda vp: vp.vp_index))
        """All processors: ``vps[i].vp_index == i``."""
        self.boot_vp.started = True

    # -- composition -------------------------------------------------------------

    def set_trap_handler(self, handler: TrapHandler) -> None:
        """Set the host's side."""
        self._handler = handler

    def set_secondary_entry(self, fn: Callable[[VirtualProcessor], object] | None) -> None:
        """Set the guest's function that a started processor runs."""
        self._secondary = fn

    def set_irq_order(self, key: Callable[[int], int] | None) -> None:
        """Deliver the pending vector with the smallest ``key(vector)`` first; None: in the order they were raised.

        The interrupt controller's rule: ``lambda v: -v`` for a local APIC.
        """
        self._irq_key = key

    # -- tasks ---------------------------------------------------------------------------

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks that are not done, in order of creation."""
        return tuple(self._tasks.values())

    def spawn(
        self,
        fn: Callable[..., Any],
        *args: Any,
        name: str,
        vp: VirtualProcessor | None = None,
        side: Side = "guest",
        irqs: bool = True,
    ) -> Task:
        """Make a task that runs ``fn(*args)`` and put it last in its lane's queue.

        :param vp: where a guest task runs; None means the processor of the caller, else the boot processor. A task of
            a processor that is not started waits until it is. Host tasks have none.
        :param irqs: whether interrupts are enabled when it begins; as for any kernel thread, they are.
        :raises ValueError: a host task with a vp, or a vp of another machine.
        """
        self._check_usable()
        if side == "host":
            if vp is not None:
                raise ValueError(f"vp: host task {name!r} cannot run on a virtual processor")
            lane = self._host_lane
        else:
            processor = vp or self.current_vp or self.boot_vp
            if processor._machine is not self:
                raise ValueError(f"vp: {processor!r} of task {name!r} belongs to another machine")
            lane = processor._lane
        self._count += 1
        self.stats.spawned += 1
        task = Task(self, self._count, name, side, lane, lambda: fn(*args), irqs)
        self._tasks[task.number] = task
        lane.queue.append(task)
        self._queue_lane(lane)
        return task

    def wake(self, task: Task) -> bool:
        """Make a blocked task ready. Returns True if it was blocked.

        Waking a task that runs or is ready lets its next :meth:`block` return at once, so that a wake-up between
        testing a condition and blocking is never lost.
        """
        if task.state is BLOCKED:
            task.state = READY
            lane = task.lane
            lane.queue.append(task)
            if lane.running is None and not lane.queued:
                self._queue_lane(lane)
            return True
        task._token = True
        return False

    def block(self, deadline: int | None = None) -> bool:
        """Park the current task until :meth:`wake`, or until the time `deadline` (absolute, 100 ns units).

        May return early: test your condition in a loop. Returns False if the deadline ended it.

        :raises MachineError: outside a task, in a trap handler, or in an interrupt.
        """
        task = self.current
        if task is None:
            raise MachineError("block() outside a task")
        if task._dying:
            self._refuse(task)
        if self._host_depth:
            raise MachineError(f"block() inside a trap handler, on task {task.name!r}")
        vp = self.current_vp
        if vp is not None and vp.irq_depth:
            raise MachineError(f"block() in interrupt context on {task.lane.name}, on top of task {task.name!r}")
        if task._token:
            task._token = False
            self.preempt()
            return True
        woken = True
        if deadline is None:
            task.state = BLOCKED
            self._hub.switch()
            if task._dying:
                raise TaskExit
        else:
            if deadline <= self.clock.now:
                self.yield_now()
                return False
            expired: list[bool] = []

            def expire() -> None:
                if task.state is BLOCKED:
                    expired.append(True)
                    self.wake(task)

            timer = self.clock.at(deadline, expire)
            task.state = BLOCKED
            try:
                self._switch_out(task)
            finally:
                timer.cancel()
            woken = not expired
        if vp is not None and vp._pending and vp.irq_enabled:
            vp._deliver()
        return woken

    def yield_now(self) -> None:
        """Go behind the other ready tasks of this lane, and let other lanes run. Not for interrupt context."""
        task = self.current
        if task is None or self._host_depth:
            return
        if task._dying:
            self._refuse(task)
        vp = self.current_vp
        self.stats.steps += 1
        if vp is not None and vp.irq_depth:
            raise MachineError(f"yield in interrupt context on {task.lane.name}, on top of task {task.name!r}")
        task.state = READY
        self._switch_out(task)
        if vp is not None and vp._pending and vp.irq_enabled:
            vp._deliver()

    def delay(self, units: int) -> None:
        """Busy-wait `units` of 100 ns: time passes, other lanes run, interrupts are taken. The lane stays occupied.

        The primitive for udelay() and for cpu_relax() in a loop that waits for another processor. A host task that
        waits should :meth:`block` until a deadline instead, as all host tasks share one lane. Inside a trap handler or
        outside tasks it only lets time pass.
        """
        task = self.current
        clock = self.clock
        if units < 0:
            raise ValueError(f"units: {units} is negative; time does not run backwards")
        if task is None or self._host_depth:
            clock.now += units
            return
        if task._dying:
            self._refuse(task)
        deadline = clock.now + units
        vp = self.current_vp
        self.stats.steps += 1
        if (
            not self._ready
            and clock._alarm > deadline
            and self.stats.steps < self._step_limit
            and (vp is None or not vp._pending)
        ):
            clock.now = deadline
            self.stats.timers += 1
            return
        timer = clock.at(deadline, lambda: self._queue_delayed(task.lane))
        try:
            while True:
                task.state = DELAYED
                self._switch_out(task)
                if vp is not None and vp._pending and vp.irq_enabled:
                    vp._deliver()
                if clock.now >= deadline:
                    break
        finally:
            timer.cancel()

    def preempt(self) -> None:
        """A preemption point: due timers fire, pending interrupts are taken, the policy may let another lane run.

        Does nothing inside a trap handler and outside tasks.
        """
        stats = self.stats
        stats.steps = steps = stats.steps + 1
        task = self.current
        if task is None or self._host_depth:
            return
        if task._dying:
            if task._refused > REFUSALS:
                self._refuse(task)
            task._refused += 1
            return
        clock = self.clock
        clock.now = now = clock.now + COST_STEP
        if now >= clock._alarm or steps >= self._step_limit:
            self._chosen = task.lane
            self._switch_out(task)
        vp = self.current_vp
        if vp is not None and vp._pending and vp.irq_enabled:
            vp._deliver()
        if not self._sticky and self._ready:
            candidates = [task.lane, *self._ready]
            index = check_choice(self.policy.choose(candidates), candidates, self.policy)
            if index:
                self._chosen = candidates[index]
                self._switch_out(task)

    # -- running -----------------------------------------------------------------------

    def run(
        self, until: Callable[[], bool] | None = None, limit: int | None = None, steps: int | None = None
    ) -> Outcome:
        """Run tasks. For the program that drives the model; a task may not call it.

        :param until: asked whenever the scheduler gets its turn; True ends the run.
        :param limit: most virtual time that this call lets pass, 100 ns units.
        :param steps: most preemption points that this call passes (default five million): a guest that spins is
            stopped by it.
        :returns: "until"; "limit" if a limit was reached (what ran can be run on, and cutting a run into pieces changes
            nothing); "idle" if nothing can run and no
            timer is armed.
        :raises: whatever a task raised and did not catch, with a note that names the task.
        """
        self._check_usable()
        if self._hub is not None:
            raise MachineError("run() inside run(): the scheduler of this machine is active")
        clock = self.clock
        for vp in self.vps:
            if vp._pending:
                self._irq_raised(vp)
        self._hub = getcurrent()
        deadline = NEVER if limit is None else clock.now + limit
        self._step_limit = self.stats.steps + (STEP_BUDGET if steps is None else steps)
        clock._set_deadline(deadline)
        try:
            while True:
                if until is not None and until():
                    return "until"
                if clock.now >= clock._alarm:
                    if clock.now >= deadline:
                        return "limit"
                    self.stats.timers += 1
                    clock._fire_one()
                    continue
                if self._ready:
                    if self.stats.steps >= self._step_limit:
                        return "limit"
                    self._run_one()
                elif clock._next == NEVER:
                    return "idle"
                else:
                    clock.now = clock._alarm
        finally:
            clock._set_deadline(NEVER)
            self._hub = None
            self._step_limit = NEVER

    def call(
        self,
        fn: Callable[..., T],
        *args: Any,
        vp: VirtualProcessor | None = None,
        side: Side = "guest",
        name: str | None = None,
        limit: int | None = None,
    ) -> T:
        """Run ``fn(*args)`` as a task until it is done, and return its value. Other tasks run meanwhile.

        :raises MachineStuck: nothing can run and it is not done. It is ended then.
        :raises LimitReached: it did not finish in `limit` units of 100 ns, or in the step budget. It is ended then.
        """
        task = self.spawn(fn, *args, name=name or str(getattr(fn, "__name__", "call")), vp=vp, side=side)
        outcome = self.run(lambda: task.state is DONE, limit)
        if outcome != "until":
            state = task.state
            waiting = ", ".join(repr(other.name) for other in self._tasks.values() if other is not task)
            task.kill()
            if outcome == "limit":
                raise LimitReached(f"task {task.name!r} was not done within its limit (it was {state})")
            raise MachineStuck(f"task {task.name!r} is {state} and nothing can run; also waiting: {waiting or 'none'}")
        value: T = task.result
        return value

    # -- inside ---------------------------------------------------------------------------

    def _check_usable(self) -> None:
        if self._closing:
            raise MachineError("the machine is closed")
        if get_ident() != self._thread:
            raise MachineError("a machine belongs to the thread that made it; this is another thread")

    def _check_trap(self, vp: VirtualProcessor) -> None:
        if self.current is not None:
            task = self.current
            raise MachineError(f"trap on {vp._lane.name} by task {task.name!r}, which runs on {task.lane.name}")

    def _new_lane(self, name: str, vp: VirtualProcessor | None) -> Lane:
        return Lane(name, vp)

    def _queue_lane(self, lane: Lane) -> None:
        """Put a lane on which no task stands among the ready ones, last."""
        if lane.queued or lane.running is not None or (lane.vp is not None and not lane.vp.started):
            return
        lane.queued = True
        self._ready.append(lane)

    def _queue_delayed(self, lane: Lane) -> None:
        """Put a lane whose task is in delay() among the ready ones."""
        running = lane.running
        if not lane.queued and running is not None and running.state is DELAYED:
            lane.queued = True
            self._ready.append(lane)

    def _irq_raised(self, vp: VirtualProcessor) -> None:
        if vp.irq_enabled and vp._pending and vp._entry is not None and vp.started:
            lane = vp._lane
            if lane.running is None:
                self._queue_lane(lane)
            else:
                self._queue_delayed(lane)

    def _start_vp(self, vp: VirtualProcessor) -> bool:
        if vp.started:
            return False
        entry = self._secondary
        if entry is None:
            raise MachineError(f"start of {vp._lane.name}: no secondary entry is set")
        vp.started = True
        vp.irq_enabled = False
        self.spawn(entry, vp, name=f"{vp._lane.name}/start", vp=vp, irqs=False)
        queue = vp._lane.queue
        queue.rotate(1)
        return True

    def _stop_vp(self, vp: VirtualProcessor) -> None:
        running = vp._lane.running
        if running is None:
            return
        current = self.current
        if current is not None and running is current:
            current._dying = True
            raise TaskExit
        self._remove(running)
        if running.error is not None:
            raise running.error

    def _switch_out(self, task: Task) -> None:
        """Leave the current task for the scheduler; returns when the scheduler comes back to it."""
        self._hub.switch()
        if task._dying:
            raise TaskExit

    def _refuse(self, task: Task) -> NoReturn:
        """A task that is being ended wants to wait: no. One that keeps trying is given up."""
        task._refused += 1
        if task._refused > REFUSALS:
            (self._reaper or self._hub).switch()
        raise TaskExit

    def _run_one(self) -> None:
        """Let one ready lane run until it gives the turn back."""
        ready = self._ready
        chosen = self._chosen
        if chosen is not None:
            self._chosen = None
            ready.remove(chosen)
            lane = chosen
        elif self._sticky or len(ready) == 1:
            lane = ready.pop(0)
        else:
            lane = ready.pop(check_choice(self.policy.choose(ready), ready, self.policy))
        lane.queued = False
        vp = lane.vp
        task = lane.running
        if task is None:
            if vp is not None and not vp.started:
                return
            queue = lane.queue
            if queue:
                if self._sticky or len(queue) == 1:
                    task = queue.popleft()
                else:
                    index = check_choice(self.policy.choose(queue), queue, self.policy)
                    task = queue[index]
                    del queue[index]
            elif vp is not None and vp._pending and vp.irq_enabled and vp._entry is not None:
                task = lane.idle or self._new_idle(lane)
            else:
                return
            lane.running = task
            if vp is not None and task is not lane.idle:
                vp.irq_enabled = task._irqs
            self.stats.switches += 1
            self.clock.now += COST_SWITCH
            if self.tracer is not None and task is not lane.idle:
                self.tracer.begin(self.clock.now, None if vp is None else vp.vp_index, "task", task.name)
        task.state = RUNNING
        self.current = task
        self.current_vp = vp
        task._greenlet.switch()
        self.current = None
        self.current_vp = None
        self._turn_over(lane, task)

    def _turn_over(self, lane: Lane, task: Task) -> None:
        state = task.state
        vp = lane.vp
        if state is RUNNING:
            if task is lane.idle and vp is not None and not vp.irq_depth:
                lane.running = None
                self._settle(lane)
                return
            lane.queued = True
            self._ready.insert(0, lane)
            return
        if state is DELAYED:
            if vp is not None:
                self._irq_raised(vp)
            return
        lane.running = None
        if task is lane.idle:
            lane.idle = None
        elif self.tracer is not None:
            self.tracer.end(self.clock.now, None if vp is None else vp.vp_index, "task")
        if vp is not None:
            task._irqs = vp.irq_enabled
        if state is READY:
            lane.queue.append(task)
        self._settle(lane)
        if state is DONE and task.error is not None:
            error = task.error
            error.add_note(f"in task {task.name!r} on {lane.name}")
            raise error

    def _settle(self, lane: Lane) -> None:
        """After a task left a lane: queue it again if it has work; an idle processor accepts interrupts."""
        vp = lane.vp
        if vp is not None:
            vp.irq_enabled = True
            if vp._pending:
                self._irq_raised(vp)
        if lane.queue and not lane.queued:
            self._queue_lane(lane)

    def _new_idle(self, lane: Lane) -> Task:
        vp = lane.vp
        assert vp is not None

        def idle() -> None:
            while True:
                vp._deliver()
                self._switch_out(task)

        task = Task(self, 0, f"idle/{vp.vp_index}", "guest", lane, idle, True)
        lane.idle = task
        return task

    def _enter(self, task: Task) -> None:
        """First thing on a new task's greenlet."""
        if task._dying:
            raise TaskExit
        vp = self.current_vp
        if vp is not None and task is not vp._lane.idle and vp._pending and vp.irq_enabled:
            vp._deliver()

    def _leave(self, task: Task) -> Any:
        """Last thing on a task's greenlet. Returns the greenlet that goes on."""
        task.state = DONE
        self._tasks.pop(task.number, None)
        return self._reaper or self._hub

    def _kill(self, task: Task) -> None:
        self._check_usable()
        if task is self.current:
            raise MachineError(f"task {task.name!r} cannot kill itself")
        if task.state is DONE:
            return
        self._remove(task)
        if task.error is not None:
            raise task.error

    def _remove(self, task: Task) -> None:
        """End a task that is not the current one and take it off its lane."""
        lane = task.lane
        self._end(task)
        if lane.running is task:
            lane.running = None
            if task is lane.idle:
                lane.idle = None
            elif self.tracer is not None:
                self.tracer.end(self.clock.now, None if lane.vp is None else lane.vp.vp_index, "task")
            if lane.queued:
                lane.queued = False
                self._ready.remove(lane)
                if self._chosen is lane:
                    self._chosen = None
            self._settle(lane)
        elif task in lane.queue:
            lane.queue.remove(task)

    def _end(self, task: Task) -> None:
        """Throw TaskExit into a task until it is done."""
        if task._killing:
            raise MachineError(f"task {task.name!r} cannot be ended: it is ending another")
        task._dying = True
        glet = task._greenlet
        current, vp, depth = self.current, self.current_vp, self._host_depth
        reaper = self._reaper
        if current is not None:
            current._killing = True
        for _ in range(3):
            if glet.dead:
                break
            self.current, self.current_vp, self._host_depth = task, task.lane.vp, 0
            self._reaper = getcurrent()
            glet.parent = self._reaper
            if glet:
                glet.throw(TaskExit)
            else:
                glet.switch()
            self._reaper = reaper
            self.current, self.current_vp, self._host_depth = current, vp, depth
        if current is not None:
            current._killing = False
        if not glet.dead:
            self._leave(task)
            raise MachineError(f"task {task.name!r} does not end: it goes on after TaskExit")
        if task.error is not None and self._closing and isinstance(task.error, Exception):
            raise task.error
