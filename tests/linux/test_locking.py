"""Spinlocks, mutexes and the order check."""

from __future__ import annotations

from typing import Any

import pytest

from hvkernel.machine import MachineStuck


def test_a_spinlock_raises_the_preempt_count_and_irqsave_closes_interrupts(guest: Any) -> None:
    k = guest.kernel
    lock = k.locking.spin_lock_init("l")

    def body() -> None:
        with lock:
            assert k.sched.preempt_count() == 1
            assert lock.locked()
            assert not k.irq.irqs_disabled()
        with lock.irqsave():
            assert k.irq.irqs_disabled()
            with k.locking.spin_lock_init("inner").irqsave():
                pass
            assert k.irq.irqs_disabled()
        assert not k.irq.irqs_disabled()
        with lock.bh():
            assert k.sched.in_interrupt()
        assert k.sched.preempt_count() == 0
        assert not lock.locked()

    guest.call(body)
    assert guest.findings == []


@pytest.mark.parametrize("seed", range(50))
def test_a_spinlock_and_a_mutex_exclude_under_any_schedule(make_guest: Any, seed: Any) -> None:
    guest = make_guest(3, policy=f"random:{seed}", ram=8 << 20)
    k = guest.kernel
    spin, mutex = k.locking.spin_lock_init("s"), k.locking.mutex_init("m")
    inside = {"spin": 0, "mutex": 0}
    most = {"spin": 0, "mutex": 0}
    done: Any = []

    def enter(kind: Any) -> None:
        inside[kind] += 1
        most[kind] = max(most[kind], inside[kind])

    def contender(n: Any) -> None:
        for _ in range(4):
            with spin:
                enter("spin")
                k.sched.udelay(1)
                inside["spin"] -= 1
            with mutex:
                enter("mutex")
                k.sched.usleep_range(10, 10)
                inside["mutex"] -= 1
        done.append(n)

    def body() -> None:
        for n in range(3):
            k.sched.kthread_run(contender, n, name=f"c{n}", cpu=n)
        while len(done) < 3:
            k.sched.msleep(1)

    guest.call(body)
    assert most == {"spin": 1, "mutex": 1}
    assert guest.findings == []


def test_taking_a_spinlock_twice_is_a_panic(make_guest: Any) -> None:
    guest = make_guest()
    k = guest.kernel
    lock = k.locking.spin_lock_init("l")

    def body() -> None:
        lock.lock()
        lock.lock()

    guest.machine.spawn(k.guard, body, name="twice", vp=k.cpus.cpus[0].vp)
    guest.machine.run(lambda: k.outcome is not None, 10_000_000)
    assert guest.findings == ["spinlock-recursion"]
    assert k.outcome.state == "panic"
    assert k.outcome.reason == "spinlock recursion: l"


def test_taking_a_mutex_twice_hangs_with_a_message(make_guest: Any) -> None:
    guest = make_guest()
    k = guest.kernel
    mutex = k.locking.mutex_init("m")

    def body() -> None:
        mutex.lock()
        mutex.lock()

    with pytest.raises(MachineStuck):
        guest.call(body)
    assert guest.findings == ["deadlock"]
    assert "INFO: task test blocked on mutex m, which it holds itself" in guest.lines


def test_unlocking_what_is_not_held_is_found(guest: Any) -> None:
    k = guest.kernel
    guest.call(k.locking.spin_lock_init("s").unlock)
    guest.call(k.locking.mutex_init("m").unlock)
    assert guest.findings == ["bad-unlock", "bad-unlock"]


def test_an_inversion_is_found_without_a_deadlock_and_once(guest: Any) -> None:
    k = guest.kernel
    a, b, c = (k.locking.spin_lock_init(name) for name in "abc")

    def nest(*locks: Any) -> None:
        if locks:
            with locks[0]:
                nest(*locks[1:])

    def body() -> None:
        nest(a, b)
        nest(b, c)
        nest(a, c)
        assert guest.findings == []
        nest(c, a)
        nest(c, a)

    guest.call(body)
    assert guest.findings == ["lock-order"]
    text = guest.machine.findings[0].text
    assert "possible circular locking dependency" in text
    assert "takes a while it holds c" in text
    assert "a --> b --> c" in text or "a --> c" in text


def test_locks_of_an_interrupt_are_not_ordered_after_those_of_the_task_below(guest: Any) -> None:
    """The interrupted task may hold anything: that is no order between the two."""
    k = guest.kernel
    task, irq = k.locking.spin_lock_init("task"), k.locking.spin_lock_init("irq")

    def handler() -> None:
        with irq:
            pass

    k.irq.sysvec_install(0x40, handler, "test")

    def body() -> None:
        with task:
            guest.machine.current_vp.raise_irq(0x40)
            guest.machine.preempt()
        with irq.irqsave(), task:
            pass

    guest.call(body)
    assert guest.findings == []


def test_mutexes_are_checked_across_a_sleep(guest: Any) -> None:
    k = guest.kernel
    a, b = k.locking.mutex_init("a"), k.locking.mutex_init("b")

    def body() -> None:
        with a:
            k.sched.msleep(1)
            with b:
                pass
        with b, a:
            pass

    guest.call(body)
    assert guest.findings == ["lock-order"]


def test_a_lock_of_hardirqs_must_not_be_held_with_interrupts_on(guest: Any) -> None:
    k = guest.kernel
    lock = k.locking.spin_lock_init("l")

    def handler() -> None:
        with lock:
            pass

    k.irq.sysvec_install(0x40, handler, "test")

    def body() -> None:
        with lock:
            pass
        guest.machine.current_vp.raise_irq(0x40)
        guest.machine.preempt()

    guest.call(body)
    assert guest.findings == ["inconsistent-lock-state"]


def test_trylock(guest: Any) -> None:
    k = guest.kernel
    spin, mutex = k.locking.spin_lock_init("s"), k.locking.mutex_init("m")

    def body() -> None:
        assert spin.trylock()
        assert not spin.trylock()
        spin.unlock()
        assert mutex.trylock()
        assert not mutex.trylock()
        mutex.unlock()
        assert k.sched.preempt_count() == 0

    guest.call(body)
    assert guest.findings == []


def test_a_grace_period_waits_for_readers(guest: Any) -> None:
    k = guest.kernel
    log: Any = []

    def reader() -> None:
        k.locking.rcu_read_lock()
        k.sched.udelay(300)
        log.append("read")
        k.locking.rcu_read_unlock()

    def body() -> None:
        k.sched.kthread_run(reader, name="reader", cpu=1)
        k.sched.udelay(10)
        k.locking.synchronize_rcu()
        log.append("freed")

    guest.call(body)
    assert log == ["read", "freed"]
