"""completion.h, wait.h, sched.h, delay.h, kthread.h: waiting, sleeping, kernel threads, preempt_count."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from hvkernel.api.guest.sched import MAX_SCHEDULE_TIMEOUT, Completion, WaitQueueHead
from hvkernel.api.guest.time import TimerList
from hvkernel.linux.preempt import HARDIRQ_MASK, INTERRUPT_MASK, PREEMPT_OFFSET
from hvkernel.machine import Task

if TYPE_CHECKING:
    from hvkernel.linux.cpu import Cpu
    from hvkernel.linux.kernel import Kernel

COMPLETION_ALL: Final = 0xFFFFFFFF
"""UINT_MAX: complete_all() was called. Source: kernel/sched/completion.c."""

UNITS_PER_US: Final = 10


class Sched:
    """``kernel.sched``."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._machine = kernel.machine
        self._reported: dict[str, None] = {}

    # context ---------------------------------------------------------------------------------------------------

    def might_sleep(self) -> None:
        """Source: kernel/sched/core.c:__might_resched; reported once per place, nothing before the system runs."""
        vp = self._machine.current_vp
        if vp is None:
            return
        cpu: Cpu = vp.guest
        if (cpu.preempt_count or not vp.irq_enabled) and self._kernel.scheduling:
            self._invalid_context(cpu, vp.irq_enabled)

    def _invalid_context(self, cpu: Cpu, irqs: bool) -> None:
        chain = self._machine.guest_call_chain()
        place = " < ".join(chain[:8])
        if place in self._reported:
            return
        self._reported[place] = None
        name = self._kernel.current_name()
        self._kernel.printk.pr_err("BUG: sleeping function called from invalid context")
        self._kernel.printk.pr_err(
            f"in_atomic(): {int(cpu.preempt_count != 0)}, irqs_disabled(): {int(not irqs)}, non_block: 0, name: {name}"
        )
        self._kernel.finding(
            "sleep-in-atomic",
            f"BUG: sleeping function called from invalid context: in_atomic(): {int(cpu.preempt_count != 0)}, "
            f"irqs_disabled(): {int(not irqs)}, preempt_count {cpu.preempt_count:08x}, task {name}",
        )

    def preempt_disable(self) -> None:
        self._kernel.cpus.this_cpu().preempt_count += PREEMPT_OFFSET

    def preempt_enable(self) -> None:
        """And a preemption point; a count that would go below 0 is a finding."""
        machine = self._machine
        vp = machine.current_vp
        cpu: Cpu = vp.guest if vp is not None else self._kernel.cpus.this_cpu()
        if not cpu.preempt_count & 0xFF:
            self._kernel.finding("preempt-imbalance", "BUG: preempt_enable() without preempt_disable()")
            return
        cpu.preempt_count -= PREEMPT_OFFSET
        machine.preempt()

    def preempt_count(self) -> int:
        return self._kernel.cpus.this_cpu().preempt_count

    def in_interrupt(self) -> bool:
        return bool(self._kernel.cpus.this_cpu().preempt_count & INTERRUPT_MASK)

    def in_hardirq(self) -> bool:
        return bool(self._kernel.cpus.this_cpu().preempt_count & HARDIRQ_MASK)

    def in_atomic(self) -> bool:
        return self._kernel.cpus.this_cpu().preempt_count != 0

    # blocking --------------------------------------------------------------------------------------------------

    def schedule_blocked(self, deadline: int | None = None) -> None:
        """Give the CPU away until somebody wakes the caller, or until ``deadline``; may return early.

        :param deadline: absolute virtual time, 100 ns units.
        """
        machine = self._machine
        task = machine.current
        vp = machine.current_vp
        if task is None or vp is None:
            raise RuntimeError("a wait outside guest code: call it from a task of the guest")
        cpu: Cpu = vp.guest
        if cpu.preempt_count:
            self._scheduling_while_atomic(cpu, task)
        worker = task.locals.get("worker")
        if worker is None:
            machine.block(deadline)
            return
        worker.sleeping()
        try:
            machine.block(deadline)
        finally:
            worker.awake()

    def _scheduling_while_atomic(self, cpu: Cpu, task: Task) -> None:
        text = f"BUG: scheduling while atomic: {task.name}/{task.number}/{cpu.preempt_count:#010x}"
        self._kernel.printk.pr_err(text)
        self._kernel.finding("scheduling-while-atomic", text)
        if cpu.preempt_count & INTERRUPT_MASK:
            self._kernel.reboot.panic("Attempted to sleep in an interrupt")
        cpu.preempt_count = 0

    def schedule(self) -> None:
        """Go behind the other ready tasks of this CPU."""
        cpu = self._kernel.cpus.this_cpu()
        task = self._machine.current
        if cpu.preempt_count and task is not None:
            self._scheduling_while_atomic(cpu, task)
        self._machine.yield_now()

    def cond_resched(self) -> None:
        self.might_sleep()
        self._machine.yield_now()

    def wake_up_process(self, task: Any) -> None:
        """Make a sleeping task ready."""
        self._machine.wake(task)

    def _timer(self, timeout: int) -> TimerList:
        task = self._machine.current
        timers = self._kernel.timers

        def fire(timer: TimerList) -> None:
            timer.data = True
            if task is not None:
                self._machine.wake(task)

        timer = TimerList(fire, False)
        # One tick more than asked, as schedule_timeout() does: the present tick has begun already.
        timers.mod_timer(timer, timers.jiffies + timeout + 1)
        return timer

    def schedule_timeout(self, timeout: int) -> int:
        """Sleep until woken or for ``timeout`` jiffies; the jiffies left. Source: kernel/time/timer.c."""
        if timeout >= MAX_SCHEDULE_TIMEOUT:
            self.schedule_blocked()
            return timeout
        if timeout < 0:
            self._kernel.printk.pr_err(f"schedule_timeout: wrong timeout value {timeout:x}")
            return 0
        timers = self._kernel.timers
        expire = timers.jiffies + timeout
        timer = self._timer(timeout)
        if not timer.data:
            self.schedule_blocked()
        timers.del_timer_sync(timer)
        return max(0, expire - timers.jiffies)

    def _wait_timeout(self, condition: Callable[[], bool], enqueue: Callable[[], None], timeout: int) -> int:
        """Wait for ``condition``; 0 when ``timeout`` jiffies passed first, else the jiffies left (at least 1)."""
        timers = self._kernel.timers
        expire = timers.jiffies + timeout
        timer = self._timer(timeout)
        while not condition():
            if timer.data:
                return 0
            enqueue()
            self.schedule_blocked()
        timers.del_timer(timer)
        return max(1, expire - timers.jiffies)

    def msleep(self, msecs: int) -> None:
        """At least ``msecs``, to the next tick. Source: kernel/time/timer.c:msleep."""
        self.might_sleep()
        timeout = self._kernel.timers.msecs_to_jiffies(msecs)
        timer = self._timer(timeout)
        while not timer.data:
            self.schedule_blocked()

    def usleep_range(self, low: int, high: int) -> None:
        """Sleep ``low`` to ``high`` microseconds (a high-resolution timer: ``low`` exactly)."""
        if high < low:
            raise ValueError(f"usleep_range({low}, {high}): the range is empty")
        self.might_sleep()
        machine = self._machine
        deadline = machine.clock.now + low * UNITS_PER_US
        while machine.clock.now < deadline:
            self.schedule_blocked(deadline)

    def udelay(self, usecs: int) -> None:
        """Busy-wait."""
        self._machine.delay(usecs * UNITS_PER_US)

    def mdelay(self, msecs: int) -> None:
        self._machine.delay(msecs * 1000 * UNITS_PER_US)

    # completions -----------------------------------------------------------------------------------------------

    def init_completion(self) -> Completion:
        return Completion()

    def reinit_completion(self, x: Completion) -> None:
        x.done = 0

    def complete(self, x: Completion) -> None:
        """Let one waiter pass."""
        if x.done != COMPLETION_ALL:
            x.done += 1
        if x.wait:
            self._machine.wake(x.wait.popleft())

    def complete_all(self, x: Completion) -> None:
        """Let all waiters pass, the future ones too."""
        x.done = COMPLETION_ALL
        while x.wait:
            self._machine.wake(x.wait.popleft())

    def completion_done(self, x: Completion) -> bool:
        return x.done != 0

    def try_wait_for_completion(self, x: Completion) -> bool:
        if not x.done:
            return False
        if x.done != COMPLETION_ALL:
            x.done -= 1
        return True

    def wait_for_completion(self, x: Completion) -> None:
        self.might_sleep()
        wait = x.wait
        while not x.done:
            me = self._machine.current
            wait.append(me)
            self.schedule_blocked()
            if wait and me in wait:
                wait.remove(me)
        if x.done != COMPLETION_ALL:
            x.done -= 1

    def wait_for_completion_timeout(self, x: Completion, timeout: int) -> int:
        """:param timeout: jiffies. 0 on timeout, else the jiffies left (at least 1)."""
        self.might_sleep()
        left = 1
        if not x.done:
            wait = x.wait
            me = self._machine.current

            def enqueue() -> None:
                if me not in wait:
                    wait.append(me)

            left = self._wait_timeout(lambda: x.done != 0, enqueue, timeout)
            if me in wait:
                wait.remove(me)
            if not left:
                return 0
        else:
            left = max(1, timeout)
        if x.done != COMPLETION_ALL:
            x.done -= 1
        return left

    # wait queues -----------------------------------------------------------------------------------------------

    def init_waitqueue_head(self) -> WaitQueueHead:
        return WaitQueueHead()

    def wake_up(self, wq: WaitQueueHead) -> None:
        """Wake all non-exclusive waiters, which is what every waiter here is."""
        self.wake_up_all(wq)

    def wake_up_all(self, wq: WaitQueueHead) -> None:
        tasks = wq.tasks
        for _ in range(len(tasks)):
            self._machine.wake(tasks.popleft())

    def wait_event(self, wq: WaitQueueHead, condition: Callable[[], bool]) -> None:
        self.might_sleep()
        tasks = wq.tasks
        while not condition():
            me = self._machine.current
            tasks.append(me)
            self.schedule_blocked()
            if tasks and me in tasks:
                tasks.remove(me)

    def wait_event_timeout(self, wq: WaitQueueHead, condition: Callable[[], bool], timeout: int) -> int:
        """:param timeout: jiffies. 0 when it passed and the condition is false, else the jiffies left (at least 1)."""
        self.might_sleep()
        if condition():
            return max(1, timeout)
        tasks = wq.tasks
        me = self._machine.current

        def enqueue() -> None:
            if me not in tasks:
                tasks.append(me)

        left = self._wait_timeout(condition, enqueue, timeout)
        if me in tasks:
            tasks.remove(me)
        return left

    # kernel threads --------------------------------------------------------------------------------------------

    def kthread_run(self, func: Callable[..., Any], *args: Any, name: str, cpu: int | None = None) -> Task:
        """Start a thread; without ``cpu`` on the caller's (where the kernel would put it is *unspecified*)."""
        return self._kernel.spawn(func, *args, name=name, cpu=None if cpu is None else self._kernel.cpus.cpu(cpu))

    def kthread_stop(self, thread: Any) -> None:
        """Tell it to stop and wait until it has ended."""
        self.might_sleep()
        thread.locals["should_stop"] = True
        self._machine.wake(thread)
        while not thread.done:
            self._machine.yield_now()
            if not thread.done:
                self.usleep_range(100, 200)

    def kthread_should_stop(self) -> bool:
        task = self._machine.current
        return task is not None and bool(task.locals.get("should_stop"))
