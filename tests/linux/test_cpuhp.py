"""CPU numbering and the hotplug state machine."""

from __future__ import annotations

from typing import Any

import pytest

from hvkernel.api.guest.sched import Work
from hvkernel.api.guest.smp import CpuhpState as S
from hvkernel.api.guest.time import TimerList


def test_cpu_number_hardware_id_and_vp_index_are_three_numbers(make_guest: Any) -> None:
    guest = make_guest(4)
    numbers = [(c.cpu, c.hw_id, c.vp.vp_index) for c in guest.kernel.cpus.cpus]
    assert numbers == [(0, 16, 3), (1, 18, 2), (2, 20, 1), (3, 22, 0)]
    for cpu in range(4):
        assert guest.call(guest.kernel.cpus.smp_processor_id, cpu=cpu) == cpu


def test_numbers_follow_the_madt_with_the_boot_cpu_first(make_guest: Any) -> None:
    guest = make_guest(3, up=False)
    cpus = guest.kernel.cpus
    cpus.setup([(20, True), (16, True), (99, False), (18, True), (18, True), (77, True)], {20: 1, 77: 1}, 64)
    assert [(c.cpu, c.hw_id, c.node, c.exists) for c in cpus.cpus] == [
        (0, 16, 0, True),
        (1, 20, 1, True),
        (2, 18, 0, True),
        (3, 77, 1, False),
        (4, 99, 0, False),
    ]
    assert cpus.num_present_cpus() == 4
    assert cpus.num_possible_cpus() == 5
    assert list(cpus.cpumask_of_node(1)) == []
    for number in (0, 1, 2):
        cpus.set_cpu_online(cpus.cpu(number), True)
    assert [list(cpus.cpumask_of_node(node)) for node in (0, 1)] == [[0, 2], [1]]
    cpus.set_cpu_online(cpus.cpu(2), False)
    assert list(cpus.cpumask_of_node(0)) == [0]
    assert cpus.nr_node_ids() == 2
    with pytest.raises(OSError, match="in the MADT but not in the machine"):
        cpus.cpu(3).vp  # noqa: B018
    with pytest.raises(ValueError, match="CPU 5 is not possible"):
        cpus.cpu(5)


def test_nr_cpus_limits_what_is_numbered(make_guest: Any) -> None:
    guest = make_guest(3, up=False)
    guest.kernel.cpus.setup([(16, True), (18, True), (20, True), (30, False)], {}, 2)
    assert guest.kernel.cpus.nr_cpu_ids == 2


def test_outside_guest_code_there_is_no_current_cpu(guest: Any) -> None:
    with pytest.raises(RuntimeError, match="outside guest code"):
        guest.kernel.cpus.smp_processor_id()


def test_callbacks_run_on_their_cpu_in_the_hotplug_thread(make_guest: Any) -> None:
    guest = make_guest(3)
    k = guest.kernel
    log: Any = []

    def startup(cpu: Any) -> Any:
        k.sched.might_sleep()
        log.append((cpu, k.cpus.smp_processor_id(), guest.machine.current.name))
        return 0

    assert (
        guest.call(k.cpuhp.cpuhp_setup_state, S.CPUHP_AP_ONLINE_DYN, "a:online", startup, None) == S.CPUHP_AP_ONLINE_DYN
    )
    assert log == [(0, 0, "cpuhp/0"), (1, 1, "cpuhp/1"), (2, 2, "cpuhp/2")]
    assert guest.findings == []


def test_dynamic_states_are_given_in_turn_and_a_taken_one_is_busy(guest: Any) -> None:
    k = guest.kernel

    def body() -> None:
        first = k.cpuhp.cpuhp_setup_state(S.CPUHP_AP_ONLINE_DYN, "a", None, None)
        second = k.cpuhp.cpuhp_setup_state(S.CPUHP_AP_ONLINE_DYN, "b", None, None)
        assert second == first + 1
        assert k.cpuhp.cpuhp_setup_state(S.CPUHP_AP_HYPERV_TIMER_STARTING, "t", None, None) == 0
        assert k.cpuhp.cpuhp_setup_state(S.CPUHP_AP_HYPERV_TIMER_STARTING, "t", None, None) == -16
        k.cpuhp.cpuhp_remove_state(first)
        assert k.cpuhp.cpuhp_setup_state(S.CPUHP_AP_ONLINE_DYN, "c", None, None) == first
        assert [name for _, name in k.cpuhp.steps()] == ["t", "c", "b"]

    guest.call(body)


def test_a_startup_that_fails_rolls_the_others_back(make_guest: Any) -> None:
    guest = make_guest(3)
    k = guest.kernel
    log: Any = []

    def body() -> None:
        ret = k.cpuhp.cpuhp_setup_state(
            S.CPUHP_AP_ONLINE_DYN,
            "x",
            lambda cpu: log.append(("up", cpu)) or (-12 if cpu == 2 else 0),
            lambda cpu: log.append(("down", cpu)) or 0,
        )
        assert ret == -12
        assert k.cpuhp.steps() == []

    guest.call(body)
    assert log == [("up", 0), ("up", 1), ("up", 2), ("down", 0), ("down", 1)]


def test_bringing_a_cpu_up_runs_every_section_in_order(make_guest: Any) -> None:
    guest = make_guest(2, up=False)
    k = guest.kernel
    log: Any = []

    def step(name: Any) -> Any:
        def startup(cpu: Any) -> Any:
            vp = guest.machine.current_vp
            log.append(
                (name, cpu, k.cpus.smp_processor_id(), vp.irq_enabled, cpu in [c.cpu for c in k.cpus.cpus if c.online])
            )
            return 0

        return startup

    k.cpus.setup([(16, True), (18, True)], {}, 64)
    k.mm.mm_init()
    guest.machine.set_secondary_entry(k.cpus.secondary_entry)

    def body() -> None:
        k.irq.attach(k.cpus.cpus[0])
        k.cpuhp.boot_cpu_hotplug_init()
        k.irq.install_ipis()
        k.scheduling = True
        for state, name in (
            (S.CPUHP_AP_ONLINE_DYN, "online"),
            (S.CPUHP_AP_HYPERV_TIMER_STARTING, "starting"),
            (S.CPUHP_X2APIC_PREPARE, "prepare"),
        ):
            k.cpuhp.cpuhp_setup_state(state, name, step(name), None, nocalls=True)
        assert k.cpuhp.cpu_up(1) == 0
        assert k.cpuhp.cpu_up(1) == 0

    guest.machine.call(k.guard, body)
    assert log == [
        ("prepare", 1, 0, True, False),
        ("starting", 1, 1, False, False),
        ("online", 1, 1, True, True),
    ]
    assert k.cpus.cpus[1].state == S.CPUHP_ONLINE


def test_a_processor_that_does_not_start_is_given_up(make_guest: Any) -> None:
    guest = make_guest(2, up=False)
    k = guest.kernel
    undone: Any = []
    k.cpus.setup([(16, True), (18, True), (77, True)], {}, 64)
    k.mm.mm_init()

    def body() -> None:
        k.irq.attach(k.cpus.cpus[0])
        k.cpuhp.boot_cpu_hotplug_init()
        k.cpuhp.cpuhp_setup_state(
            S.CPUHP_X2APIC_PREPARE, "p", lambda cpu: 0, lambda cpu: undone.append(cpu) or 0, nocalls=True
        )
        guest.machine.current_vp.irq_enabled = True
        guest.arch.cpu_up = lambda cpu: 0
        assert k.cpuhp.cpu_up(2) == -5
        del guest.arch.cpu_up
        assert k.cpuhp.cpu_up(2) == -5

    guest.machine.call(k.guard, body)
    assert undone == [2, 2]
    assert [line for line in guest.lines if "CPU2" in line] == [
        "CPU2: failed to come online",
        "CPU2: failed to boot: -5",
    ]
    assert k.cpus.num_online_cpus() == 1


def test_a_cpu_goes_down_through_its_teardowns(make_guest: Any) -> None:
    guest = make_guest(3)
    k = guest.kernel
    log: Any = []

    def body() -> None:
        for state, name in (
            (S.CPUHP_AP_ONLINE_DYN, "online"),
            (S.CPUHP_AP_HYPERV_TIMER_STARTING, "timer"),
            (S.CPUHP_X2APIC_PREPARE, "dead"),
        ):
            k.cpuhp.cpuhp_setup_state(
                state,
                name,
                None,
                lambda cpu, name=name: log.append((name, cpu, k.cpus.smp_processor_id())) or 0,
                nocalls=True,
            )
        assert k.cpuhp.cpu_down(0) == -16
        assert k.cpuhp.cpu_down(2) == 0
        assert k.cpuhp.cpu_down(2) == -22

    guest.call(body)
    assert log == [("online", 2, 2), ("timer", 2, 2), ("dead", 2, 0)]
    assert k.cpus.num_online_cpus() == 2
    assert not guest.machine.vps[0].started


def test_a_cpu_that_was_down_comes_up_again_and_its_timers_did_not_wait_for_it(make_guest: Any) -> None:
    guest = make_guest(2)
    k = guest.kernel
    fired: Any = []
    ups: Any = []

    def body() -> None:
        k.cpuhp.cpuhp_setup_state(S.CPUHP_AP_ONLINE_DYN, "x", lambda cpu: ups.append(cpu) or 0, None, nocalls=True)
        timer = TimerList(lambda t: fired.append(k.cpus.smp_processor_id()))
        timer.expires = k.timers.jiffies + 5
        k.timers.add_timer_on(timer, 1)
        assert k.cpuhp.cpu_down(1) == 0
        k.sched.msleep(40)
        assert fired == [0]
        assert k.cpuhp.cpu_up(1) == 0
        assert ups == [1]
        k.cpus.smp_call_function_single(1, lambda: fired.append("call"))
        k.workqueue.schedule_work_on(1, Work(lambda w: fired.append(k.cpus.smp_processor_id())))
        k.sched.msleep(8)

    guest.call(body)
    assert fired == [0, "call", 1]
    assert guest.findings == []


def test_per_cpu_variables(make_guest: Any) -> None:
    guest = make_guest(3)
    k = guest.kernel
    var = k.percpu.alloc_percpu(lambda cpu: cpu * 10)

    def body() -> None:
        assert k.percpu.this_cpu_ptr(var) == 20
        k.percpu.this_cpu_write(var, 7)

    guest.call(body, cpu=2)
    assert [var[cpu] for cpu in range(len(var))] == [0, 10, 7]


def test_a_teardown_that_refuses_keeps_the_cpu(make_guest: Any) -> None:
    guest = make_guest(2)
    k = guest.kernel
    log: Any = []

    def body() -> None:
        k.cpuhp.cpuhp_setup_state(S.CPUHP_AP_ONLINE_DYN, "low", None, lambda cpu: -16)
        k.cpuhp.cpuhp_setup_state(
            S.CPUHP_AP_ONLINE_DYN,
            "high",
            lambda cpu: log.append("up") or 0,
            lambda cpu: log.append("down") or 0,
            nocalls=True,
        )
        assert k.cpuhp.cpu_down(1) == -16

    guest.call(body)
    assert log == ["down", "up"]
    assert k.cpus.cpu_online(1)


def test_the_states_are_in_the_kernel_s_order() -> None:
    names = [s.name for s in S]
    order = [
        "CPUHP_X2APIC_PREPARE",
        "CPUHP_TIMERS_PREPARE",
        "CPUHP_BRINGUP_CPU",
        "CPUHP_AP_IRQ_GIC_STARTING",
        "CPUHP_AP_ARM_ARCH_TIMER_STARTING",
        "CPUHP_AP_HYPERV_TIMER_STARTING",
        "CPUHP_AP_ONLINE",
        "CPUHP_AP_ONLINE_DYN",
        "CPUHP_ONLINE",
    ]
    assert [names.index(n) for n in order] == sorted(names.index(n) for n in order)
    assert [int(s) for s in S] == sorted(int(s) for s in S)


def test_a_cpu_waits_for_who_reads_the_set_of_cpus_and_they_for_it(make_guest: Any) -> None:
    guest = make_guest(3)
    k = guest.kernel
    order: list[str] = []

    def reader() -> None:
        k.cpuhp.cpus_read_lock()
        order.append(f"reads {k.cpus.num_online_cpus()}")
        k.sched.msleep(5)
        order.append(f"still {k.cpus.num_online_cpus()}")
        k.cpuhp.cpus_read_unlock()

    def writer() -> None:
        order.append("down")
        assert k.cpuhp.cpu_down(2) == 0
        order.append("is down")

    def late() -> None:
        k.sched.msleep(1)
        k.cpuhp.cpus_read_lock()
        order.append(f"late {k.cpus.num_online_cpus()}")
        k.cpuhp.cpus_read_unlock()

    for fn in (reader, writer, late):
        k.spawn(fn, name=fn.__name__, cpu=k.cpus.cpu(0))
    guest.machine.run(limit=1_000_000)
    assert order[:3] == ["reads 3", "down", "still 3"]
    assert sorted(order[3:]) == ["is down", "late 2"]
