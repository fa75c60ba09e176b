"""interrupt.h: softirqs and tasklets. Source: kernel/softirq.c."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from hvkernel.api.guest.sched import Tasklet
from hvkernel.linux.preempt import INTERRUPT_MASK, SOFTIRQ_DISABLE_OFFSET, SOFTIRQ_OFFSET
from hvkernel.linux.smp import RELAX
from hvkernel.machine import Fault

if TYPE_CHECKING:
    from hvkernel.linux.cpu import Cpu
    from hvkernel.linux.kernel import Kernel

HI_SOFTIRQ: Final = 0
TIMER_SOFTIRQ: Final = 1
NET_TX_SOFTIRQ: Final = 2
NET_RX_SOFTIRQ: Final = 3
BLOCK_SOFTIRQ: Final = 4
TASKLET_SOFTIRQ: Final = 6
"""Source: include/linux/interrupt.h."""

MAX_SOFTIRQ_RESTART: Final = 10
"""Source: kernel/softirq.c."""


class Softirq:
    """``kernel.softirq``."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._machine = kernel.machine
        self._actions: list[Callable[[Cpu], None] | None] = [None] * 10
        self._actions[TASKLET_SOFTIRQ] = self._tasklet_action
        self._tasklet_bit = 1 << TASKLET_SOFTIRQ
        self._parked: list[Tasklet] = []
        """Scheduled but disabled. The kernel polls them in ksoftirqd; here tasklet_enable() brings them back, on its
        CPU."""

    def open_softirq(self, nr: int, action: Callable[[Cpu], None]) -> None:
        """``action(cpu)`` runs when softirq ``nr`` was raised."""
        self._actions[nr] = action

    def raise_softirq(self, nr: int) -> None:
        """Run it at the end of this interrupt, or in ksoftirqd when there is none."""
        cpu = self._kernel.cpus.this_cpu()
        cpu.softirq_pending |= 1 << nr
        if not cpu.preempt_count & INTERRUPT_MASK:
            self._wakeup_softirqd(cpu)

    def invoke(self, cpu: Cpu) -> None:
        """__do_softirq(): with interrupts on, until nothing is pending or it went round too often."""
        vp = cpu.vp
        enabled = vp.irq_enabled
        cpu.preempt_count += SOFTIRQ_OFFSET
        actions = self._actions
        rounds = MAX_SOFTIRQ_RESTART
        while cpu.softirq_pending and rounds:
            rounds -= 1
            pending = cpu.softirq_pending
            cpu.softirq_pending = 0
            vp.irq_enabled = True
            nr = 0
            while pending:
                if pending & 1:
                    action = actions[nr]
                    if action is not None:
                        before = cpu.preempt_count
                        try:
                            action(cpu)
                        except Fault as fault:
                            self._kernel.reboot.oops(fault)
                        if cpu.preempt_count != before:
                            self._kernel.finding(
                                "preempt-imbalance",
                                f"WARNING: softirq {nr} returned with preempt_count {cpu.preempt_count:08x}, "
                                f"was {before:08x}",
                            )
                            cpu.preempt_count = before
                pending >>= 1
                nr += 1
            vp.irq_enabled = False
        cpu.preempt_count -= SOFTIRQ_OFFSET
        vp.irq_enabled = enabled
        if cpu.softirq_pending:
            self._wakeup_softirqd(cpu)

    def _wakeup_softirqd(self, cpu: Cpu) -> None:
        task = cpu.ksoftirqd
        if task is None:
            cpu.ksoftirqd = self._kernel.spawn(self._run_ksoftirqd, cpu, name=f"ksoftirqd/{cpu.cpu}", cpu=cpu)
        else:
            self._machine.wake(task)

    def _run_ksoftirqd(self, cpu: Cpu) -> None:
        while True:
            vp = cpu.vp
            vp.irq_enabled = False
            if cpu.softirq_pending:
                self.invoke(cpu)
                vp.irq_enabled = True
                self._machine.yield_now()
            else:
                vp.irq_enabled = True
                self._machine.block()

    # bottom halves ---------------------------------------------------------------------------------------------

    def local_bh_disable(self) -> None:
        self._kernel.cpus.this_cpu().preempt_count += SOFTIRQ_DISABLE_OFFSET

    def local_bh_enable(self) -> None:
        """Pending softirqs run at the last enable."""
        cpu = self._kernel.cpus.this_cpu()
        cpu.preempt_count -= SOFTIRQ_DISABLE_OFFSET
        if cpu.softirq_pending and not cpu.preempt_count & INTERRUPT_MASK:
            self.invoke(cpu)

    # tasklets --------------------------------------------------------------------------------------------------

    def tasklet_schedule(self, t: Tasklet) -> None:
        """Run it once on this CPU, soon; nothing when it is scheduled already."""
        if t.scheduled:
            return
        t.scheduled = True
        vp = self._machine.current_vp
        cpu: Cpu = vp.guest if vp is not None else self._kernel.cpus.this_cpu()
        cpu.tasklets.append(t)
        cpu.softirq_pending |= self._tasklet_bit
        if not cpu.preempt_count & INTERRUPT_MASK:
            self._wakeup_softirqd(cpu)

    def _tasklet_action(self, cpu: Cpu) -> None:
        queue = cpu.tasklets
        for _ in range(len(queue)):
            t = queue.popleft()
            if t.count:
                self._parked.append(t)
                continue
            if t.running:
                queue.append(t)
                cpu.softirq_pending |= self._tasklet_bit
                continue
            t.scheduled = False
            t.running = True
            tracer = self._machine.tracer
            if tracer is not None:
                tracer.begin(self._machine.clock.now, cpu.vp.vp_index, "tasklet", t.name)
            try:
                t.func(t.data)
            except Exception as error:
                self._kernel.survive(error)
            finally:
                t.running = False
                if tracer is not None:
                    tracer.end(self._machine.clock.now, cpu.vp.vp_index, "tasklet")

    def tasklet_disable(self, t: Tasklet) -> None:
        """Keep it from running, and wait until it does not."""
        t.count += 1
        while t.running:
            self._machine.delay(RELAX)

    def tasklet_enable(self, t: Tasklet) -> None:
        if t.count == 0:
            self._kernel.finding("tasklet", "BUG: tasklet_enable() of a tasklet that is enabled")
            return
        t.count -= 1
        if not t.count and t in self._parked:
            self._parked.remove(t)
            t.scheduled = False
            self.tasklet_schedule(t)

    def tasklet_kill(self, t: Tasklet) -> None:
        """Wait until it is neither scheduled nor running; for ever when it is disabled, as in the kernel."""
        self._kernel.sched.might_sleep()
        while t.scheduled or t.running:
            self._kernel.sched.usleep_range(1, 1)
