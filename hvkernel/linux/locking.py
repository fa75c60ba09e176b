"""spinlock.h, mutex.h, rcupdate.h, with the part of lockdep that finds an inversion the first time it could happen.

A lock's name is its class: the order of classes is checked, not only the locks that really met. Each inversion is
reported once. Source of the texts: kernel/locking/lockdep.c.
"""

from __future__ import annotations

from collections import deque
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final

from hvkernel.linux.preempt import HARDIRQ_MASK, INTERRUPT_MASK, PREEMPT_OFFSET
from hvkernel.linux.smp import RELAX

if TYPE_CHECKING:
    from hvkernel.linux.cpu import Cpu
    from hvkernel.linux.kernel import Kernel

SPIN_LIMIT: Final = 20_000_000
"""Rounds of spinning after which a lock counts as dead; about 10 s of virtual time, as the soft-lockup watchdog's
2x10 s."""


class LockClass:
    """What is known of all locks of one name."""

    __slots__ = ("after", "hardirq_on", "in_hardirq", "name", "reported")

    def __init__(self, name: str) -> None:
        self.name = name
        self.after: dict[LockClass, str] = {}
        """Classes that were taken while this one was held, and by whom first."""
        self.in_hardirq = False
        self.hardirq_on = False
        self.reported = False


class SpinLock:
    """spinlock_t."""

    __slots__ = ("_cls", "_irqsave", "_kernel", "_machine", "holder", "name")

    def __init__(self, kernel: Kernel, cls: LockClass) -> None:
        self._kernel = kernel
        self._machine = kernel.machine
        self._cls = cls
        self.name = cls.name
        self.holder: Cpu | None = None
        self._irqsave = _IrqSave(self)

    def lock(self) -> None:
        """spin_lock()."""
        machine = self._machine
        machine.preempt()
        vp = machine.current_vp
        if vp is None:
            raise RuntimeError(f"spin_lock({self.name}) outside guest code")
        cpu: Cpu = vp.guest
        cpu.preempt_count += PREEMPT_OFFSET
        if self.holder is not None:
            self._spin(cpu)
        self.holder = cpu
        cls = self._cls
        level = cpu.preempt_count & INTERRUPT_MASK
        held = cpu.held
        if level & HARDIRQ_MASK:
            if not cls.in_hardirq:
                cls.in_hardirq = True
                self._kernel.locking.check_irq_state(cls)
        elif vp.irq_enabled and not cls.hardirq_on:
            cls.hardirq_on = True
            self._kernel.locking.check_irq_state(cls)
        if held:
            before, at = held[-1]
            if at == level and before._cls is not cls and cls not in before._cls.after:
                self._kernel.locking.new_order(before._cls, cls)
        held.append((self, level))

    def _spin(self, cpu: Cpu) -> None:
        if self.holder is cpu:
            self._kernel.finding("spinlock-recursion", f"BUG: spinlock recursion on CPU#{cpu.cpu}, lock {self.name}")
            self._kernel.reboot.panic(f"spinlock recursion: {self.name}")
        rounds = 0
        while self.holder is not None:
            self._machine.delay(RELAX)
            rounds += 1
            if rounds > SPIN_LIMIT:
                self._kernel.reboot.panic(f"spinlock lockup suspected on CPU#{cpu.cpu}, lock {self.name}")

    def trylock(self) -> bool:
        """spin_trylock()."""
        cpu = self._kernel.cpus.this_cpu()
        if self.holder is not None:
            return False
        cpu.preempt_count += PREEMPT_OFFSET
        self.holder = cpu
        cpu.held.append((self, cpu.preempt_count & INTERRUPT_MASK))
        return True

    def unlock(self, *exc: object) -> None:
        """spin_unlock(); ``exc`` is what a ``with`` block hands over."""
        cpu = self.holder
        vp = self._machine.current_vp
        if cpu is None or cpu is not (vp.guest if vp is not None else self._kernel.cpus.this_cpu()):
            self._kernel.finding("bad-unlock", f"BUG: bad unlock balance detected! {self.name} is not held here")
            return
        held = cpu.held
        if held and held[-1][0] is self:
            held.pop()
        else:
            for i in range(len(held) - 1, -1, -1):
                if held[i][0] is self:
                    del held[i]
                    break
        self.holder = None
        cpu.preempt_count -= PREEMPT_OFFSET

    def locked(self) -> bool:
        return self.holder is not None

    __enter__ = lock
    __exit__ = unlock

    def irqsave(self) -> AbstractContextManager[object]:
        """``with lock.irqsave():`` is spin_lock_irqsave() and its counterpart."""
        return self._irqsave

    def bh(self) -> AbstractContextManager[object]:
        """``with lock.bh():`` is spin_lock_bh() and its counterpart."""
        return _Bh(self)


class _IrqSave:
    """What the lock's holder found; whoever still waits for the lock keeps that to himself."""

    __slots__ = ("_flags", "_lock", "_vp")

    def __init__(self, lock: SpinLock) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        lock = self._lock
        vp = lock._machine.current_vp
        if vp is None:
            raise RuntimeError(f"spin_lock_irqsave({lock.name}) outside guest code")
        flags = vp.irq_enabled
        vp.irq_enabled = False
        lock.lock()
        self._vp = vp
        self._flags = flags

    def __exit__(self, *exc: object) -> None:
        vp, flags = self._vp, self._flags
        self._lock.unlock()
        vp.irq_enabled = flags


class _Bh:
    __slots__ = ("_lock",)

    def __init__(self, lock: SpinLock) -> None:
        self._lock = lock

    def __enter__(self) -> SpinLock:
        self._lock._kernel.softirq.local_bh_disable()
        self._lock.lock()
        return self._lock

    def __exit__(self, *exc: object) -> None:
        self._lock.unlock()
        self._lock._kernel.softirq.local_bh_enable()


class MutexLock:
    """struct mutex."""

    __slots__ = ("_check", "_cls", "_kernel", "_machine", "_waiters", "name", "owner")

    def __init__(self, kernel: Kernel, cls: LockClass, check: bool) -> None:
        self._kernel = kernel
        self._machine = kernel.machine
        self._cls = cls
        self._check = check
        self._waiters: deque[Any] = deque()
        self.name = cls.name
        self.owner: Any = None

    def lock(self) -> None:
        """mutex_lock(): sleeps while another task has it."""
        sched = self._kernel.sched
        sched.might_sleep()
        machine = self._machine
        machine.preempt()
        me = machine.current
        if me is None:
            raise RuntimeError(f"mutex_lock({self.name}) outside guest code")
        if self.owner is me:
            self._kernel.finding("deadlock", f"WARNING: possible recursive locking detected: {self.name} by {me.name}")
            self._kernel.reboot.hung_task(f"INFO: task {me.name} blocked on mutex {self.name}, which it holds itself")
        while self.owner is not None:
            self._waiters.append(me)
            sched.schedule_blocked()
            if me in self._waiters:
                self._waiters.remove(me)
        self.owner = me
        if self._check:
            held: list[LockClass] = me.locals.setdefault("mutexes", [])
            if held and held[-1] is not self._cls and self._cls not in held[-1].after:
                self._kernel.locking.new_order(held[-1], self._cls)
            held.append(self._cls)

    def trylock(self) -> bool:
        """mutex_trylock()."""
        if self.owner is not None:
            return False
        self.owner = self._machine.current
        if self._check and self.owner is not None:
            self.owner.locals.setdefault("mutexes", []).append(self._cls)
        return True

    def unlock(self) -> None:
        """mutex_unlock(): only by the task that has it."""
        me = self._machine.current
        if self.owner is None or self.owner is not me:
            who = self.owner.name if self.owner is not None else "nobody"
            self._kernel.finding("bad-unlock", f"BUG: bad unlock balance detected! {self.name} is held by {who}")
            return
        if self._check:
            held = me.locals["mutexes"]
            for i in range(len(held) - 1, -1, -1):
                if held[i] is self._cls:
                    del held[i]
                    break
        self.owner = None
        if self._waiters:
            self._machine.wake(self._waiters.popleft())

    def locked(self) -> bool:
        return self.owner is not None

    def __enter__(self) -> MutexLock:
        self.lock()
        return self

    def __exit__(self, *exc: object) -> None:
        self.unlock()


class Locking:
    """``kernel.locking``."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._classes: dict[str, LockClass] = {}

    def _class(self, name: str) -> LockClass:
        cls = self._classes.get(name)
        if cls is None:
            cls = self._classes[name] = LockClass(name)
        return cls

    def spin_lock_init(self, name: str) -> SpinLock:
        return SpinLock(self._kernel, self._class(name))

    def mutex_init(self, name: str, *, check: bool = True) -> MutexLock:
        """:param check: False leaves it out of the order check (lockdep_set_novalidate_class)."""
        return MutexLock(self._kernel, self._class(name), check)

    def new_order(self, held: LockClass, taken: LockClass) -> None:
        """``taken`` was acquired under ``held`` for the first time: does the opposite order exist?"""
        path = self._path(taken, held)
        held.after[taken] = self._kernel.current_name()
        if path is not None:
            chain = " --> ".join(cls.name for cls in path)
            self._kernel.finding(
                "lock-order",
                "WARNING: possible circular locking dependency detected\n"
                f"{self._kernel.current_name()} takes {taken.name} while it holds {held.name}; "
                f"the existing order is {chain}",
            )

    def _path(self, start: LockClass, goal: LockClass) -> list[LockClass] | None:
        stack = [[start]]
        seen: dict[LockClass, None] = {start: None}
        while stack:
            path = stack.pop()
            for cls in path[-1].after:
                if cls is goal:
                    return [*path, cls]
                if cls not in seen:
                    seen[cls] = None
                    stack.append([*path, cls])
        return None

    def check_irq_state(self, cls: LockClass) -> None:
        """A lock taken in a hardirq must never be held with interrupts on."""
        if cls.in_hardirq and cls.hardirq_on and not cls.reported:
            cls.reported = True
            self._kernel.finding(
                "inconsistent-lock-state",
                "WARNING: inconsistent lock state\n"
                f"{cls.name} is taken in hardirq context and, elsewhere, with interrupts enabled",
            )

    def rcu_read_lock(self) -> None:
        """Readers cannot be preempted (PREEMPT_RCU is not modelled)."""
        self._kernel.cpus.this_cpu().preempt_count += PREEMPT_OFFSET

    def rcu_read_unlock(self) -> None:
        self._kernel.sched.preempt_enable()

    def synchronize_rcu(self) -> None:
        """Wait for a grace period: until every other CPU was seen outside interrupts and preempt-disabled sections."""
        self._kernel.sched.might_sleep()
        me = self._kernel.cpus.this_cpu()
        for cpu in self._kernel.cpus.cpus:
            if cpu is not me:
                while cpu.online and cpu.preempt_count:
                    self._kernel.machine.delay(RELAX)


__all__ = ["LockClass", "Locking", "MutexLock", "SpinLock"]
