from __future__ import annotations


def test_cpus_are_up(guest):
    assert guest.kernel.cpus.num_online_cpus() == 2
    assert guest.findings == []


def test_call_function(guest):
    k = guest.kernel
    seen = []

    def body():
        k.cpus.smp_call_function_single(1, lambda: seen.append(k.cpus.smp_processor_id()))
        k.cpus.on_each_cpu(lambda: seen.append(k.cpus.smp_processor_id()))

    guest.call(body)
    assert seen == [1, 0, 1] or seen == [1, 1, 0]


def test_msleep(guest):
    k = guest.kernel

    def body():
        t = guest.machine.clock.now
        k.sched.msleep(20)
        return guest.machine.clock.now - t

    assert 200_000 <= guest.call(body) <= 300_000


def test_work(guest):
    from hvkernel.api.guest.sched import Work

    k = guest.kernel
    out = []

    def body():
        w = Work(lambda w: out.append((w.data, guest.machine.current.name)), 1)
        k.workqueue.schedule_work(w)
        k.workqueue.queue_work_on(1, k.workqueue.system_wq, Work(lambda w: out.append((2, guest.machine.current.name))))
        k.workqueue.flush_work(w)
        k.workqueue.flush_workqueue(k.workqueue.system_wq)

    guest.call(body)
    assert sorted(out) == [(1, "kworker/0:0"), (2, "kworker/1:0")]
