"""Workqueues: order, concurrency, flushing, cancelling, delays."""

from __future__ import annotations

from typing import Any

import pytest

from hvkernel.api.guest.sched import Completion, DelayedWork, Work


def test_a_pending_work_is_not_queued_twice(guest: Any) -> None:
    k = guest.kernel
    runs: Any = []
    work = Work(lambda w: runs.append(w.data), 7)

    def body() -> None:
        assert k.workqueue.schedule_work(work)
        assert not k.workqueue.schedule_work(work)
        k.workqueue.flush_work(work)
        assert runs == [7]
        assert k.workqueue.schedule_work(work)
        assert k.workqueue.flush_work(work)
        assert not k.workqueue.flush_work(work)

    guest.call(body)
    assert runs == [7, 7]


def test_work_runs_on_the_cpu_it_was_queued_on(guest: Any) -> None:
    k = guest.kernel
    seen: Any = {}

    def body() -> None:
        for cpu in (0, 1):
            k.workqueue.queue_work_on(
                cpu, k.workqueue.system_wq, Work(lambda w: seen.__setitem__(w.data, k.cpus.smp_processor_id()), cpu)
            )
        k.workqueue.flush_workqueue(k.workqueue.system_wq)
        assert k.workqueue.schedule_on_each_cpu(lambda w: seen.__setitem__(("all", k.cpus.smp_processor_id()), 1)) == 0

    guest.call(body)
    assert seen == {0: 0, 1: 1, ("all", 0): 1, ("all", 1): 1}


@pytest.mark.parametrize("seed", range(50))
def test_an_ordered_queue_keeps_its_order_under_any_schedule(make_guest: Any, seed: Any) -> None:
    guest = make_guest(3, policy=f"random:{seed}", ram=8 << 20)
    k = guest.kernel
    queued: Any = []
    ran: Any = []
    inside: Any = []

    def fn(work: Any) -> None:
        inside.append(work.data)
        assert len(inside) == 1
        if work.data[1] % 2:
            k.sched.usleep_range(30, 30)
        ran.append(work.data)
        inside.pop()

    def body() -> None:
        wq = k.workqueue.alloc_ordered_workqueue("ordered")

        def queuer(cpu: Any) -> None:
            for n in range(6):
                work = Work(fn, (cpu, n))
                # Nothing may come between the two lines: queueing is no preemption point.
                queued.append(work.data)
                k.workqueue.queue_work(wq, work)
                k.sched.udelay(1)

        threads = [k.sched.kthread_run(queuer, cpu, name=f"q{cpu}", cpu=cpu) for cpu in range(3)]
        for thread in threads:
            k.sched.kthread_stop(thread)
        k.workqueue.flush_workqueue(wq)
        k.workqueue.destroy_workqueue(wq)

    guest.call(body)
    assert ran == queued
    assert len(ran) == 18
    assert guest.findings == []


def test_a_bound_pool_lets_another_worker_run_when_one_blocks(guest: Any) -> None:
    k = guest.kernel
    x = Completion()
    log: Any = []

    def body() -> None:
        k.workqueue.schedule_work(
            Work(lambda w: (log.append("blocks"), k.sched.wait_for_completion(x), log.append("woken")))
        )
        k.workqueue.schedule_work(Work(lambda w: (log.append("second"), k.sched.complete(x))))
        k.workqueue.flush_workqueue(k.workqueue.system_wq)

    guest.call(body)
    assert log == ["blocks", "second", "woken"]


def test_max_active_limits_a_cpu(guest: Any) -> None:
    k = guest.kernel
    inside: Any = []
    most: Any = []

    def fn(work: Any) -> None:
        inside.append(1)
        most.append(len(inside))
        k.sched.msleep(4)
        inside.pop()

    def body() -> None:
        wq = k.workqueue.alloc_workqueue("two", max_active=2)
        for _ in range(6):
            k.workqueue.queue_work(wq, Work(fn))
        k.workqueue.flush_workqueue(wq)

    guest.call(body)
    assert max(most) == 2
    assert len(most) == 6


def test_an_item_is_never_run_by_two_workers(guest: Any) -> None:
    k = guest.kernel
    inside: Any = []
    most: Any = []
    runs: Any = []

    def fn(work: Any) -> None:
        inside.append(1)
        most.append(len(inside))
        k.sched.msleep(8)
        inside.pop()
        runs.append(k.cpus.smp_processor_id())

    work = Work(fn)

    def body() -> None:
        k.workqueue.schedule_work_on(0, work)
        k.sched.msleep(2)
        assert k.workqueue.schedule_work_on(1, work)
        k.workqueue.flush_work(work)

    guest.call(body)
    assert max(most) == 1
    assert runs == [0, 0]


def test_flushing_waits_for_what_was_queued_before_only(guest: Any) -> None:
    k = guest.kernel
    x = Completion()
    log: Any = []

    def body() -> None:
        wq = k.workqueue.alloc_workqueue("w")
        k.workqueue.queue_work(wq, Work(lambda w: (k.sched.msleep(20), log.append("first"))))
        later = k.sched.kthread_run(
            lambda: (k.sched.msleep(4), k.workqueue.queue_work(wq, Work(lambda w: k.sched.wait_for_completion(x)))),
            name="l",
        )
        k.workqueue.flush_workqueue(wq)
        log.append("flushed")
        k.sched.complete(x)
        k.sched.kthread_stop(later)

    guest.call(body)
    assert log == ["first", "flushed"]


def test_cancelling(guest: Any) -> None:
    k = guest.kernel
    ran: Any = []
    slow = Work(lambda w: (k.sched.msleep(20), ran.append("slow")))
    idle = Work(lambda w: ran.append("idle"))

    def body() -> None:
        wq = k.workqueue.alloc_ordered_workqueue("o")
        k.workqueue.queue_work(wq, slow)
        k.workqueue.queue_work(wq, idle)
        k.sched.msleep(4)
        assert k.workqueue.cancel_work_sync(idle)
        assert not k.workqueue.cancel_work_sync(slow)
        assert ran == ["slow"]
        assert not k.workqueue.cancel_work_sync(slow)
        k.workqueue.flush_workqueue(wq)
        k.workqueue.queue_work(wq, idle)
        k.workqueue.destroy_workqueue(wq)

    guest.call(body)
    assert ran == ["slow", "idle"]
    assert guest.findings == []


def test_delays_are_kept_and_can_be_changed(guest: Any) -> None:
    k = guest.kernel
    ran: Any = []
    work = DelayedWork(lambda w: ran.append(k.timers.jiffies))

    def body() -> None:
        wq = k.workqueue.system_wq
        start = k.timers.jiffies
        assert k.workqueue.queue_delayed_work(wq, work, 10)
        assert not k.workqueue.schedule_delayed_work(work, 1)
        assert k.workqueue.mod_delayed_work(wq, work, 20)
        k.sched.msleep(60)
        assert ran == []
        k.sched.msleep(40)
        assert ran
        assert 20 <= ran[0] - start <= 22
        assert k.workqueue.queue_delayed_work(wq, work, 10)
        assert k.workqueue.cancel_delayed_work_sync(work)
        assert not k.workqueue.cancel_delayed_work(work)
        assert k.workqueue.queue_delayed_work_on(1, wq, work, 0)
        k.workqueue.flush_work(work)

    guest.call(body)
    assert len(ran) == 2


def test_a_delay_on_another_cpu_runs_there(guest: Any) -> None:
    k = guest.kernel
    where: Any = []

    def body() -> None:
        k.workqueue.queue_delayed_work_on(
            1, k.workqueue.system_wq, DelayedWork(lambda w: where.append(k.cpus.smp_processor_id())), 2
        )
        k.sched.msleep(40)

    guest.call(body)
    assert where == [1]


def test_a_work_that_leaks_a_preempt_count_is_found(guest: Any) -> None:
    k = guest.kernel

    def body() -> None:
        work = Work(lambda w: k.sched.preempt_disable())
        k.workqueue.schedule_work(work)
        k.workqueue.flush_work(work)

    guest.call(body)
    assert guest.findings == ["preempt-imbalance"]
    assert "workqueue leaked atomic: kworker/0:0" in guest.machine.findings[0].text


def test_queueing_on_a_destroyed_queue_is_found(guest: Any) -> None:
    k = guest.kernel

    def body() -> None:
        wq = k.workqueue.alloc_workqueue("gone")
        k.workqueue.destroy_workqueue(wq)
        k.workqueue.queue_work(wq, Work(lambda w: None))

    guest.call(body)
    assert guest.findings == ["workqueue"]


def test_limits_of_max_active_are_named(guest: Any) -> None:
    with pytest.raises(ValueError, match="max_active 513 is not between 0 and 512"):
        guest.kernel.workqueue.alloc_workqueue("w", max_active=513)


def test_async_functions_are_waited_for(guest: Any) -> None:
    k = guest.kernel
    ran: Any = []

    def body() -> None:
        for n in range(3):
            k.async_.async_schedule(lambda n=n: (k.sched.msleep(4 * n), ran.append(n)), f"a{n}")
        k.async_.async_synchronize_full()

    guest.call(body)
    assert ran == [0, 1, 2]
    assert k.async_.pending == ()
