"""Completions, wait queues, sleeping, threads; the same invariants under many schedules."""

from __future__ import annotations

from typing import Any

import pytest

from hvkernel.api.guest.sched import Completion, WaitQueueHead

SEEDS = range(50)


def spawn_all(guest: Any, body: Any) -> Any:
    """Run ``body`` as a guest task on CPU 0."""
    return guest.call(body)


def test_a_completion_lets_one_pass_each_time(guest: Any) -> None:
    k = guest.kernel
    x = Completion()
    passed: Any = []

    def waiter(n: Any) -> None:
        k.sched.wait_for_completion(x)
        passed.append(n)

    def body() -> None:
        for n in range(3):
            k.sched.kthread_run(waiter, n, name=f"w{n}")
        k.sched.msleep(1)
        k.sched.complete(x)
        k.sched.msleep(1)
        assert passed == [0]
        k.sched.complete_all(x)
        k.sched.msleep(1)
        assert passed == [0, 1, 2]
        assert k.sched.try_wait_for_completion(x)
        k.sched.wait_for_completion(x)
        k.sched.reinit_completion(x)
        assert not k.sched.completion_done(x)
        assert not k.sched.try_wait_for_completion(x)

    spawn_all(guest, body)


def test_a_completion_before_the_wait_is_kept(guest: Any) -> None:
    k = guest.kernel
    x = Completion()

    def body() -> Any:
        k.sched.complete(x)
        k.sched.wait_for_completion(x)
        return k.sched.wait_for_completion_timeout(x, 5)

    assert spawn_all(guest, body) == 0


def test_a_timeout_takes_its_time_and_leaves_no_waiter(guest: Any) -> None:
    k = guest.kernel
    x = Completion()

    def body() -> None:
        start = k.timers.jiffies
        assert k.sched.wait_for_completion_timeout(x, 10) == 0
        assert 10 <= k.timers.jiffies - start <= 11
        assert not x.wait
        assert not [t for t in k.cpus.cpus[0].timers if t[2].base is not None]

    spawn_all(guest, body)


def test_what_is_left_of_the_timeout_is_returned(guest: Any) -> None:
    k = guest.kernel
    x = Completion()

    def body() -> None:
        k.sched.kthread_run(lambda: (k.sched.msleep(40), k.sched.complete(x)), name="late")
        left = k.sched.wait_for_completion_timeout(x, 100)
        assert 85 <= left <= 90

    spawn_all(guest, body)


def test_wait_event_looks_at_its_condition(guest: Any) -> None:
    k = guest.kernel
    wq = WaitQueueHead()
    box: Any = []

    def poke() -> None:
        for n in range(3):
            k.sched.msleep(4)
            box.append(n)
            k.sched.wake_up(wq)

    def body() -> None:
        k.sched.kthread_run(poke, name="poke", cpu=1)
        k.sched.wait_event(wq, lambda: len(box) == 3)
        assert k.sched.wait_event_timeout(wq, lambda: len(box) == 4, 3) == 0
        assert k.sched.wait_event_timeout(wq, lambda: True, 3) == 3

    spawn_all(guest, body)


def test_schedule_timeout_can_be_cut_short(guest: Any) -> None:
    k = guest.kernel

    def body() -> None:
        me = guest.machine.current
        k.sched.kthread_run(lambda: (k.sched.msleep(20), k.sched.wake_up_process(me)), name="waker")
        left = k.sched.schedule_timeout(1000)
        assert 985 < left < 1000
        assert k.sched.schedule_timeout(3) == 0
        assert k.sched.schedule_timeout(-1) == 0

    spawn_all(guest, body)
    assert "schedule_timeout: wrong timeout value -1" in guest.lines


@pytest.mark.parametrize("msecs", [1, 4, 20, 999])
def test_msleep_is_never_short_and_at_most_two_ticks_long(guest: Any, msecs: Any) -> None:
    k = guest.kernel

    def body() -> Any:
        start = guest.machine.clock.now
        k.sched.msleep(msecs)
        return (guest.machine.clock.now - start) / 10_000

    assert msecs <= spawn_all(guest, body) <= msecs + 8.2


def test_udelay_keeps_the_cpu(guest: Any) -> None:
    k = guest.kernel
    ran: Any = []

    def body() -> None:
        k.sched.kthread_run(lambda: ran.append(1), name="other")
        start = guest.machine.clock.now
        k.sched.udelay(50)
        assert guest.machine.clock.now - start >= 500
        assert ran == []
        k.sched.schedule()
        assert ran == [1]

    spawn_all(guest, body)


def test_usleep_range_refuses_an_empty_range(guest: Any) -> None:
    with pytest.raises(ValueError, match=r"usleep_range\(5, 4\)"):
        guest.call(guest.kernel.sched.usleep_range, 5, 4)


def test_threads_stop_when_told(guest: Any) -> None:
    k = guest.kernel
    rounds: Any = []

    def thread() -> None:
        while not k.sched.kthread_should_stop():
            rounds.append(1)
            k.sched.msleep(4)

    def body() -> Any:
        t = k.sched.kthread_run(thread, name="t")
        k.sched.msleep(20)
        k.sched.kthread_stop(t)
        return t.done

    assert spawn_all(guest, body)
    assert rounds


def test_sleeping_with_a_spinlock_held_is_the_kernel_s_bug(guest: Any) -> None:
    k = guest.kernel

    def body() -> None:
        with k.locking.spin_lock_init("l"):
            k.sched.msleep(1)

    spawn_all(guest, body)
    assert guest.findings[:2] == ["sleep-in-atomic", "scheduling-while-atomic"]
    assert "BUG: sleeping function called from invalid context" in guest.lines
    assert "in_atomic(): 1, irqs_disabled(): 0, non_block: 0, name: test" in guest.lines
    assert any("msleep" in frame for frame in guest.machine.findings[0].where)


def test_might_sleep_with_interrupts_off_is_found_once_per_place(guest: Any) -> None:
    k = guest.kernel

    def body() -> None:
        for _ in range(3):
            flags = k.irq.local_irq_save()
            k.sched.might_sleep()
            k.irq.local_irq_restore(flags)

    spawn_all(guest, body)
    assert guest.findings == ["sleep-in-atomic"]


def test_preempt_enable_without_disable_is_found(guest: Any) -> None:
    guest.call(guest.kernel.sched.preempt_enable)
    assert guest.findings == ["preempt-imbalance"]
    assert guest.kernel.cpus.cpus[0].preempt_count == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_no_wakeup_is_lost_under_any_schedule(make_guest: Any, seed: Any) -> None:
    """Producers and consumers over a completion and a wait queue: as many pass as were let."""
    guest = make_guest(3, policy=f"random:{seed}", ram=8 << 20)
    k = guest.kernel
    x, wq = Completion(), WaitQueueHead()
    items: Any = []
    taken: Any = []
    finished: Any = []

    def consumer(n: Any) -> None:
        for _ in range(5):
            k.sched.wait_for_completion(x)
            taken.append(n)
        finished.append(n)

    def queue_reader() -> None:
        for n in range(10):
            k.sched.wait_event(wq, lambda n=n: len(items) > n)
        finished.append("reader")

    def producer(count: Any) -> None:
        for n in range(count):
            k.sched.complete(x)
            items.append(n)
            k.sched.wake_up(wq)
            if n % 3 == 0:
                k.sched.udelay(1)

    def body() -> None:
        k.sched.kthread_run(queue_reader, name="reader", cpu=0)
        for n in range(3):
            k.sched.kthread_run(consumer, n, name=f"c{n}", cpu=n)
        k.sched.kthread_run(producer, 8, name="p1", cpu=1)
        k.sched.kthread_run(producer, 7, name="p2", cpu=2)
        start = k.timers.jiffies
        while len(finished) < 4 and k.timers.jiffies - start < 1000:
            k.sched.msleep(1)

    guest.call(body)
    assert len(taken) == 15
    assert sorted(map(str, finished)) == ["0", "1", "2", "reader"]
    assert x.done == 0
    assert guest.findings == []


@pytest.mark.parametrize("seed", SEEDS)
def test_a_timeout_and_a_completion_that_race_never_both_win(make_guest: Any, seed: Any) -> None:
    guest = make_guest(2, policy=f"random:{seed}", ram=8 << 20)
    k = guest.kernel
    results: Any = []

    def body() -> None:
        for n in range(6):
            x = Completion()

            def late(x: Any = x, n: Any = n) -> None:
                k.sched.usleep_range(7000 + n * 500, 7000 + n * 500)
                k.sched.complete(x)

            thread = k.sched.kthread_run(late, name=f"late{n}", cpu=1)
            left = k.sched.wait_for_completion_timeout(x, 2)
            k.sched.kthread_stop(thread)
            results.append((left, x.done))

    guest.call(body)
    assert all((left > 0) == (done == 0) for left, done in results)
    assert guest.findings == []
