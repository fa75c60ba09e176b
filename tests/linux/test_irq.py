"""Interrupts, softirqs, tasklets, timers, calls between CPUs."""

from __future__ import annotations

from typing import Any

import pytest

from hvkernel.api.guest.sched import Tasklet
from hvkernel.api.guest.time import CLOCK_EVT_FEAT_ONESHOT, ClockEventDevice, TimerList
from hvkernel.linux.preempt import HARDIRQ_OFFSET


def take(guest: Any, vector: Any) -> None:
    """Raise ``vector`` on the calling CPU and take it."""
    guest.machine.current_vp.raise_irq(vector)
    guest.machine.preempt()


def test_a_handler_runs_in_hardirq_context_with_interrupts_off(guest: Any) -> None:
    k = guest.kernel
    seen: Any = []
    k.irq.sysvec_install(
        0x40, lambda: seen.append((k.sched.in_hardirq(), k.sched.preempt_count(), k.irq.irqs_disabled())), "t"
    )

    def body() -> None:
        take(guest, 0x40)
        assert not k.sched.in_interrupt()
        assert not k.irq.irqs_disabled()

    guest.call(body)
    assert seen == [(True, HARDIRQ_OFFSET, True)]
    assert k.irq.counts[0x40, 0] == 1


def test_an_interrupt_waits_while_interrupts_are_off(guest: Any) -> None:
    k = guest.kernel
    seen: Any = []
    k.irq.sysvec_install(0x40, lambda: seen.append(1), "t")

    def body() -> None:
        k.irq.local_irq_disable()
        take(guest, 0x40)
        assert seen == []
        k.irq.local_irq_enable()
        assert seen == [1]

    guest.call(body)


def test_a_vector_without_handler_is_reported_as_the_kernel_does(guest: Any) -> None:
    guest.call(take, guest, 0x77)
    assert "common_interrupt: 0.119 No irq handler for vector" in guest.lines
    assert guest.kernel.irq.spurious == 1


def test_a_handler_that_leaks_a_preempt_count_is_found(guest: Any) -> None:
    k = guest.kernel
    k.irq.sysvec_install(0x40, k.sched.preempt_disable, "leaky")
    guest.call(take, guest, 0x40)
    assert guest.findings == ["preempt-imbalance"]
    assert "vector 64 (leaky)" in guest.machine.findings[0].text


def test_irq_numbers(guest: Any) -> None:
    k = guest.kernel
    seen: Any = []
    irq = k.irq.irq_create_mapping(0x51)
    assert irq == k.irq.irq_create_mapping(0x51) == 16
    assert k.irq.request_irq(irq, lambda n, d: seen.append((n, d)), "dev", "cookie") == 0
    assert k.irq.request_irq(irq, lambda n, d: None, "again") == -16
    assert k.irq.request_percpu_irq(irq, lambda n, d: None, "percpu") == -22
    assert k.irq.request_irq(99, lambda n, d: None, "none") == -22
    guest.call(take, guest, 0x51)
    assert seen == [(16, "cookie")]
    k.irq.free_irq(irq)
    assert not k.irq.installed(0x51)


def test_percpu_irqs_get_their_cpu_s_cookie_and_are_enabled_per_cpu(guest: Any) -> None:
    k = guest.kernel
    seen: Any = []
    var = k.percpu.alloc_percpu(lambda cpu: f"cookie{cpu}")
    irq = k.irq.irq_create_mapping(18, percpu=True)
    assert k.irq.request_percpu_irq(irq, lambda n, d: seen.append(d), "vmbus", var) == 0
    for cpu in (1, 0):
        guest.call(k.irq.enable_percpu_irq, irq, cpu=cpu)
        guest.call(take, guest, 18, cpu=cpu)
    assert seen == ["cookie1", "cookie0"]
    assert guest.arch.enabled == [1, 0]
    guest.call(k.irq.disable_percpu_irq, irq, cpu=1)
    assert guest.arch.enabled == [0]


def test_a_tasklet_runs_once_after_the_interrupt_with_interrupts_on(guest: Any) -> None:
    k = guest.kernel
    log: Any = []
    t = Tasklet(
        lambda data: log.append((data, k.sched.in_hardirq(), k.sched.in_interrupt(), k.irq.irqs_disabled())), "x"
    )

    def handler() -> None:
        k.softirq.tasklet_schedule(t)
        k.softirq.tasklet_schedule(t)
        log.append("irq")

    k.irq.sysvec_install(0x40, handler, "t")
    guest.call(take, guest, 0x40)
    assert log == ["irq", ("x", False, True, False)]


def test_a_tasklet_from_process_context_runs_in_ksoftirqd(guest: Any) -> None:
    k = guest.kernel
    where: Any = []
    t = Tasklet(lambda data: where.append(guest.machine.current.name))

    def body() -> None:
        k.softirq.tasklet_schedule(t)
        assert where == []
        k.sched.msleep(4)

    guest.call(body)
    assert where == ["ksoftirqd/0"]


def test_bottom_halves_wait_for_their_enable(guest: Any) -> None:
    k = guest.kernel
    ran: Any = []
    t = Tasklet(lambda data: ran.append(1))

    def body() -> None:
        k.softirq.local_bh_disable()
        k.softirq.local_bh_disable()
        k.softirq.tasklet_schedule(t)
        k.softirq.local_bh_enable()
        assert ran == []
        k.softirq.local_bh_enable()
        assert ran == [1]

    guest.call(body)


def test_a_disabled_tasklet_waits(guest: Any) -> None:
    k = guest.kernel
    ran: Any = []
    t = Tasklet(lambda data: ran.append(1))

    def body() -> None:
        k.softirq.tasklet_disable(t)
        k.softirq.tasklet_schedule(t)
        k.sched.msleep(8)
        assert ran == []
        k.softirq.tasklet_enable(t)
        k.sched.msleep(4)
        assert ran == [1]
        k.softirq.tasklet_schedule(t)
        k.softirq.tasklet_kill(t)
        assert ran == [1, 1]

    guest.call(body)
    assert guest.findings == []


def test_a_tasklet_that_reschedules_itself_does_not_starve_others(guest: Any) -> None:
    k = guest.kernel
    rounds: Any = []

    def again(data: Any) -> None:
        rounds.append(1)
        if len(rounds) < 50:
            k.softirq.tasklet_schedule(t)

    t = Tasklet(again)
    k.irq.sysvec_install(0x40, lambda: k.softirq.tasklet_schedule(t), "t")

    def body() -> None:
        take(guest, 0x40)
        assert len(rounds) == 10
        k.sched.msleep(4)
        assert len(rounds) == 50

    guest.call(body)


def test_timers_fire_in_order_and_only_when_armed(guest: Any) -> None:
    k = guest.kernel
    fired: Any = []

    def body() -> None:
        now = k.timers.jiffies
        timers = {n: TimerList(lambda t: fired.append((t.data, k.timers.jiffies - now)), n) for n in (5, 2, 9, 7)}
        for n, timer in timers.items():
            assert k.timers.mod_timer(timer, now + n) == 0
        assert k.timers.mod_timer(timers[9], now + 3) == 1
        assert k.timers.del_timer(timers[7])
        assert not k.timers.del_timer(timers[7])
        k.sched.msleep(60)
        assert not k.timers.timer_pending(timers[2])

    guest.call(body)
    assert fired == [(2, 2), (9, 3), (5, 5)]


@pytest.mark.parametrize("seed", range(50))
def test_timers_are_monotone_under_any_schedule(make_guest: Any, seed: Any) -> None:
    guest = make_guest(2, policy=f"random:{seed}", ram=8 << 20)
    k = guest.kernel
    rng = k.random("timers")
    fired: Any = []

    def body() -> None:
        now = k.timers.jiffies

        def arm(cpu: Any) -> None:
            for _ in range(12):
                timer = TimerList(lambda t: fired.append((k.cpus.smp_processor_id(), t.expires, k.timers.jiffies)))
                timer.expires = now + rng.randrange(1, 20)
                k.timers.add_timer_on(timer, rng.randrange(2))

        thread = k.sched.kthread_run(arm, 1, name="arm", cpu=1)
        arm(0)
        k.sched.kthread_stop(thread)
        k.sched.msleep(120)

    guest.call(body)
    assert len(fired) == 24
    assert all(expires <= when <= expires + 1 for _, expires, when in fired)
    assert [f[2] for f in fired] == sorted(f[2] for f in fired)
    assert guest.findings == []


def test_a_better_clock_event_device_takes_over_and_gives_back(guest: Any) -> None:
    k = guest.kernel
    programmed: Any = []
    clock = guest.machine.clock

    def device(name: Any, rating: Any) -> Any:
        def set_next_event(ticks: Any) -> Any:
            programmed.append((name, ticks))
            guest.machine.current_vp.set_local_timer(clock.now + ticks, 0x41)
            return 0

        dev = ClockEventDevice(
            name, rating, CLOCK_EVT_FEAT_ONESHOT, 0, set_next_event, lambda: programmed.append((name, "off")) or 0
        )
        k.irq.sysvec_install(0x41, lambda: k.cpus.cpus[0].tick.event_handler(k.cpus.cpus[0].tick), "timer")
        return dev

    def body() -> None:
        lapic, stimer = device("lapic", 100), device("stimer0", 1000)
        k.timers.clockevents_config_and_register(lapic, 10_000_000, 1, 1 << 40)
        k.timers.clockevents_config_and_register(stimer, 10_000_000, 1, 1 << 40)
        assert programmed == [("lapic", "off")]
        k.sched.msleep(8)
        assert programmed[1][0] == "stimer0"
        assert 80_000 < programmed[1][1] <= 160_000
        assert k.timers.clockevents_unbind_device(stimer, 1) == -16
        assert k.timers.clockevents_unbind_device(stimer, 0) == 0
        assert k.timers.clockevents_unbind_device(stimer, 0) == -22
        k.sched.msleep(8)
        assert programmed[-1][0] == "lapic"

    guest.call(body)


def test_a_device_is_unbound_on_its_own_processor(guest: Any) -> None:
    """kernel/time/clockevents.c: clockevents_unbind() calls that processor, whose registers it is about."""
    k = guest.kernel
    ran: list[int] = []

    def body() -> None:
        def off() -> int:
            ran.append(k.cpus.smp_processor_id())
            return 0

        dev = ClockEventDevice("stimer0", 1000, CLOCK_EVT_FEAT_ONESHOT, 1, lambda ticks: 0, off)
        k.timers.clockevents_config_and_register(dev, 10_000_000, 1, 1 << 40)
        assert k.timers.clockevents_unbind_device(dev, 1) == 0

    guest.call(body)
    assert ran == [1]


def test_jiffies_conversions(guest: Any) -> None:
    t = guest.kernel.timers
    assert t.HZ == 250
    assert [t.msecs_to_jiffies(n) for n in (0, 1, 4, 5, 1000)] == [0, 1, 1, 2, 250]
    assert t.usecs_to_jiffies(4001) == 2
    assert t.msecs_to_jiffies(-1) > 1 << 60
    assert t.jiffies >= (1 << 32) - 300 * 250


@pytest.mark.parametrize("hz", ["0", "20000"])
def test_an_impossible_hz_is_named(make_guest: Any, hz: Any) -> None:
    with pytest.raises(ValueError, match=f"CONFIG_HZ={hz} is not between 1 and 10000"):
        make_guest(config={"HZ": hz})


def test_misuse_of_timers_is_found(guest: Any) -> None:
    k = guest.kernel

    def body() -> None:
        timer = TimerList(lambda t: k.timers.del_timer_sync(t))
        timer.expires = k.timers.jiffies + 1
        k.timers.add_timer(timer)
        k.timers.add_timer(timer)
        k.sched.msleep(20)

    guest.call(body)
    assert guest.findings == ["timer", "timer"]


def test_calls_reach_other_cpus_in_their_interrupt(guest: Any) -> None:
    k = guest.kernel
    seen: Any = []

    def note(tag: Any) -> None:
        seen.append((tag, k.cpus.smp_processor_id(), k.sched.in_hardirq()))

    def body() -> None:
        assert k.cpus.smp_call_function_single(1, note, "single") == 0
        assert k.cpus.smp_call_function_single(0, note, "self") == 0
        assert k.cpus.smp_call_function_single(5, note, "none") == -6
        k.cpus.on_each_cpu(note, "each")

    guest.call(body)
    assert seen[:2] == [("single", 1, True), ("self", 0, False)]
    assert sorted(seen[2:]) == [("each", 0, False), ("each", 1, True)]


@pytest.mark.parametrize("seed", range(20))
def test_calls_all_run_under_any_schedule(make_guest: Any, seed: Any) -> None:
    guest = make_guest(4, policy=f"random:{seed}", ram=8 << 20)
    k = guest.kernel
    seen: Any = []
    done: Any = []

    def caller(cpu: Any) -> None:
        for n in range(4):
            k.cpus.on_each_cpu(lambda n=n: seen.append((cpu, n, k.cpus.smp_processor_id())))
        done.append(cpu)

    def body() -> None:
        for cpu in range(4):
            k.sched.kthread_run(caller, cpu, name=f"c{cpu}", cpu=cpu)
        while len(done) < 4:
            k.sched.msleep(1)

    guest.call(body)
    assert sorted(seen) == [(c, n, t) for c in range(4) for n in range(4) for t in range(4)]
    assert guest.findings == []
