"""cpu.h, cpuhotplug.h: the hotplug state machine. Source: kernel/cpu.c.

States up to CPUHP_BRINGUP_CPU run on the controlling CPU, the STARTING section on the new CPU with interrupts off,
the rest in the CPU's ``cpuhp/N`` thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from hvkernel.api.guest.errno import EBUSY, EINVAL, EIO, ENOSPC
from hvkernel.api.guest.sched import Completion, WaitQueueHead
from hvkernel.api.guest.smp import CpuhpState

if TYPE_CHECKING:
    from hvkernel.linux.cpu import Cpu
    from hvkernel.linux.kernel import Kernel

S = CpuhpState
BRINGUP_TIMEOUT: Final = 10
"""Seconds a CPU may take to come online. Source: arch/x86/kernel/smpboot.c:do_boot_cpu (arm64 waits 5)."""

_DYNAMIC: Final = (
    (S.CPUHP_BP_PREPARE_DYN, S.CPUHP_BP_PREPARE_DYN_END),
    (S.CPUHP_AP_ONLINE_DYN, S.CPUHP_AP_ONLINE_DYN_END),
)


class Step:
    """The callbacks of one state."""

    __slots__ = ("name", "startup", "teardown")

    def __init__(self, name: str, startup: Callable[[int], int] | None, teardown: Callable[[int], int] | None) -> None:
        self.name = name
        self.startup = startup
        self.teardown = teardown


class Request:
    """Something for a ``cpuhp/N`` thread to do."""

    __slots__ = ("done", "fn", "result")

    def __init__(self, fn: Callable[[], int]) -> None:
        self.fn = fn
        self.done = Completion()
        self.result = 0


class HotplugThread:
    """A CPU's ``cpuhp/N``."""

    __slots__ = ("queue", "task")

    def __init__(self) -> None:
        self.queue: list[Request] = []
        self.task: object = None


class Cpuhp:
    """``kernel.cpuhp``."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._steps: dict[int, Step] = {}
        self._online: dict[int, Completion] = {}
        self._mutex = kernel.locking.mutex_init("cpu_add_remove_lock")
        self._readers = 0
        self._writer = False
        self._wait = WaitQueueHead()

    def boot_cpu_hotplug_init(self) -> None:
        """The boot CPU is online from the start."""
        boot = self._kernel.cpus.cpus[0]
        self._kernel.cpus.set_cpu_online(boot, True)
        boot.state = S.CPUHP_ONLINE

    def cpus_read_lock(self) -> None:
        """Keep the set of online CPUs as it is; waits while one comes or goes."""
        self._kernel.sched.wait_event(self._wait, lambda: not self._writer)
        self._readers += 1

    def cpus_read_unlock(self) -> None:
        if not self._readers:
            self._kernel.finding("bad-unlock", "BUG: cpus_read_unlock() without cpus_read_lock()")
            return
        self._readers -= 1
        if not self._readers:
            self._kernel.sched.wake_up_all(self._wait)

    def _cpus_write_lock(self) -> None:
        """New readers wait from here on; those that are in finish first (kernel/locking/percpu-rwsem.c)."""
        self._writer = True
        self._kernel.sched.wait_event(self._wait, lambda: not self._readers)

    def _cpus_write_unlock(self) -> None:
        self._writer = False
        self._kernel.sched.wake_up_all(self._wait)

    # installing ------------------------------------------------------------------------------------------------

    def cpuhp_setup_state(
        self,
        state: CpuhpState | int,
        name: str,
        startup: Callable[[int], int] | None,
        teardown: Callable[[int], int] | None,
        *,
        nocalls: bool = False,
    ) -> int:
        """See :class:`hvkernel.api.guest.smp.Cpuhp`. -EBUSY when the state has callbacks, -ENOSPC without a free
        one."""
        self.cpus_read_lock()
        try:
            return self._setup_state(state, name, startup, teardown, nocalls)
        finally:
            self.cpus_read_unlock()

    def _setup_state(
        self,
        state: CpuhpState | int,
        name: str,
        startup: Callable[[int], int] | None,
        teardown: Callable[[int], int] | None,
        nocalls: bool,
    ) -> int:
        number = int(state)
        dynamic = False
        for first, last in _DYNAMIC:
            if number == first:
                dynamic = True
                free = next((n for n in range(first, last + 1) if n not in self._steps), None)
                if free is None:
                    return -ENOSPC
                number = free
        if number in self._steps:
            return -EBUSY
        if not 0 < number < S.CPUHP_ONLINE:
            return -EINVAL
        self._steps[number] = Step(name, startup, teardown)
        if not nocalls and startup is not None:
            done: list[Cpu] = []
            for cpu in self._kernel.cpus.cpus:
                if cpu.state < number:
                    continue
                ret = self._issue(cpu, number, startup)
                if ret:
                    if teardown is not None:
                        for undo in done:
                            self._issue(undo, number, teardown)
                    del self._steps[number]
                    return ret
                done.append(cpu)
        return number if dynamic else 0

    def cpuhp_remove_state(self, state: CpuhpState | int, *, nocalls: bool = False) -> None:
        """Take callbacks out; ``teardown`` runs on every CPU that has passed the state, unless ``nocalls``."""
        self.cpus_read_lock()
        try:
            self._remove_state(state, nocalls)
        finally:
            self.cpus_read_unlock()

    def _remove_state(self, state: CpuhpState | int, nocalls: bool) -> None:
        step = self._steps.get(int(state))
        if step is None:
            self._kernel.finding("cpuhp", f"WARNING: cpuhp_remove_state({int(state)}): no callbacks installed")
            return
        if not nocalls and step.teardown is not None:
            for cpu in self._kernel.cpus.cpus:
                if cpu.state >= int(state):
                    ret = self._issue(cpu, int(state), step.teardown)
                    if ret:
                        self._kernel.finding("cpuhp", f"BUG: teardown of cpuhp state {step.name} failed with {ret}")
        del self._steps[int(state)]

    def _issue(self, cpu: Cpu, state: int, fn: Callable[[int], int]) -> int:
        """cpuhp_issue_call(): here for the PREPARE section, in the CPU's thread for the others."""
        if state <= S.CPUHP_BRINGUP_CPU:
            return fn(cpu.cpu) or 0
        return self._in_thread(cpu, lambda: fn(cpu.cpu) or 0)

    # the threads -----------------------------------------------------------------------------------------------

    def _in_thread(self, cpu: Cpu, fn: Callable[[], int]) -> int:
        """Run ``fn`` in ``cpuhp/N`` and wait for its result."""
        if not cpu.online:
            return 0
        request = Request(fn)
        thread: HotplugThread | None = cpu.hp_thread
        if thread is None:
            thread = cpu.hp_thread = HotplugThread()
            thread.queue.append(request)
            thread.task = self._kernel.spawn(self._thread_fn, thread, name=f"cpuhp/{cpu.cpu}", cpu=cpu)
        else:
            thread.queue.append(request)
            self._kernel.sched.wake_up_process(thread.task)
        self._kernel.sched.wait_for_completion(request.done)
        return request.result

    def _thread_fn(self, thread: HotplugThread) -> None:
        sched = self._kernel.sched
        while True:
            while thread.queue:
                request = thread.queue.pop(0)
                request.result = request.fn()
                sched.complete(request.done)
            sched.schedule_blocked()

    # up and down -----------------------------------------------------------------------------------------------

    def cpu_up(self, cpu: int) -> int:
        """Bring a present CPU online: 0, or a negative errno with every step undone."""
        this = self._kernel.cpus.cpu(cpu)
        if this.online:
            return 0
        if cpu not in self._kernel.cpus.present:
            self._kernel.printk.pr_err(
                f"can't online cpu {cpu} because it is not configured as may-hotadd at boot time"
            )
            return -EINVAL
        with self._mutex:
            self._cpus_write_lock()
            try:
                return self._up(this)
            finally:
                self._cpus_write_unlock()

    def _up(self, this: Cpu) -> int:
        for state in sorted(self._steps):
            if state >= S.CPUHP_BRINGUP_CPU:
                break
            startup = self._steps[state].startup
            ret = startup(this.cpu) or 0 if startup is not None else 0
            if ret:
                self._undo_prepare(this)
                return ret
            this.state = state
        ret = self._bringup(this)
        if ret:
            self._undo_prepare(this)
            return ret
        ret = self._in_thread(this, lambda: self._online_callbacks(this))
        if ret:
            self._take_down(this)
        return ret

    def _bringup(self, cpu: Cpu) -> int:
        """CPUHP_BRINGUP_CPU: start the processor and wait until it is online."""
        kernel = self._kernel
        done = self._online[cpu.cpu] = Completion()
        ret = kernel.arch.cpu_up(cpu.cpu)
        if ret:
            kernel.printk.pr_err(f"CPU{cpu.cpu}: failed to boot: {ret}")
            return ret
        if not kernel.sched.wait_for_completion_timeout(done, BRINGUP_TIMEOUT * kernel.timers.HZ) or not cpu.online:
            kernel.printk.pr_crit(f"CPU{cpu.cpu}: failed to come online")
            return -EIO
        return 0

    def notify_cpu_starting(self, cpu: Cpu) -> None:
        """The STARTING section, on the new CPU with interrupts off."""
        for state in sorted(self._steps):
            if S.CPUHP_BRINGUP_CPU < state < S.CPUHP_AP_ONLINE:
                startup = self._steps[state].startup
                if startup is not None and startup(cpu.cpu):
                    self._kernel.finding("cpuhp", f"WARNING: STARTING callback {self._steps[state].name} must not fail")
        cpu.state = S.CPUHP_AP_ONLINE

    def cpuhp_online_idle(self, cpu: Cpu) -> None:
        """The new CPU is in its idle loop: tell the controlling one."""
        cpu.state = S.CPUHP_AP_ONLINE_IDLE
        done = self._online.get(cpu.cpu)
        if done is not None:
            self._kernel.sched.complete(done)

    def _online_callbacks(self, cpu: Cpu) -> int:
        for state in sorted(self._steps):
            if state <= S.CPUHP_AP_ONLINE_IDLE:
                continue
            startup = self._steps[state].startup
            ret = startup(cpu.cpu) or 0 if startup is not None else 0
            if ret:
                return ret
            cpu.state = state
        cpu.state = S.CPUHP_ONLINE
        return 0

    def cpu_down(self, cpu: int) -> int:
        """Take a CPU offline: 0, -EINVAL when it is not online, -EBUSY for the last one or the boot CPU.

        Its timers move to the caller's CPU. Its threads stay where they are until it is online again: the kernel would
        move those that are bound to no CPU, and none here is.
        """
        this = self._kernel.cpus.cpu(cpu)
        if not this.online:
            return -EINVAL
        if cpu == 0 or self._kernel.cpus.num_online_cpus() == 1:
            return -EBUSY
        with self._mutex:
            self._cpus_write_lock()
            try:
                return self._take_down(this)
            finally:
                self._cpus_write_unlock()

    def _take_down(self, cpu: Cpu) -> int:
        ret = self._in_thread(cpu, lambda: self._offline_callbacks(cpu))
        if ret:
            # Whoever refused stays up, and so does everything below it: bring the rest back.
            self._in_thread(cpu, lambda: self._online_again(cpu))
            return ret
        for state in sorted(self._steps, reverse=True):
            if S.CPUHP_BRINGUP_CPU < state < S.CPUHP_AP_ONLINE and self._steps[state].teardown is not None:
                self._kernel.cpus.smp_call_function_single(cpu.cpu, self._steps[state].teardown, cpu.cpu)  # type: ignore[arg-type] # a state with a teardown
        self._kernel.cpus.set_cpu_online(cpu, False)
        vp = cpu.vp
        vp.irq_enabled = False
        vp.set_entry(None)
        vp.stop()
        cpu.tick = None
        self._kernel.timers.migrate(cpu)
        self._undo_prepare(cpu)
        return 0

    def _offline_callbacks(self, cpu: Cpu) -> int:
        for state in sorted(self._steps, reverse=True):
            if state <= S.CPUHP_AP_ONLINE_IDLE or state > cpu.state:
                continue
            teardown = self._steps[state].teardown
            ret = teardown(cpu.cpu) or 0 if teardown is not None else 0
            if ret:
                return ret
            cpu.state = state - 1
        cpu.state = S.CPUHP_AP_ONLINE_IDLE
        return 0

    def _online_again(self, cpu: Cpu) -> int:
        for state in sorted(self._steps):
            if state <= cpu.state or state <= S.CPUHP_AP_ONLINE_IDLE:
                continue
            startup = self._steps[state].startup
            if startup is not None:
                startup(cpu.cpu)
        cpu.state = S.CPUHP_ONLINE
        return 0

    def _undo_prepare(self, cpu: Cpu) -> None:
        for state in sorted(self._steps, reverse=True):
            if state < S.CPUHP_BRINGUP_CPU and state <= cpu.state:
                teardown = self._steps[state].teardown
                if teardown is not None:
                    teardown(cpu.cpu)
        cpu.state = S.CPUHP_OFFLINE

    def steps(self) -> list[tuple[int, str]]:
        """(state, name) of what is installed, in order."""
        return [(state, self._steps[state].name) for state in sorted(self._steps)]
