"""Virtual processors: traps, interrupts, start and stop, local timers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hvkernel.machine import (
    GeneralProtectionFault,
    Machine,
    MachineError,
    UndefinedOpcode,
    VirtualProcessor,
    VpTopology,
)

Make = Callable[..., Machine]
POLICIES = ["fifo", "random:0", "random:8"]


def serve(machine: Machine, host: Any) -> Any:
    machine.set_trap_handler(host)
    return host


# -- traps ----------------------------------------------------------------------------


def test_each_trap_reaches_the_host_with_the_vp_index(make: Make, host: Any) -> None:
    machine = make()
    serve(machine, host)
    vp = machine.vps[1]

    def body() -> None:
        assert vp.cpuid(0x40000000) == (0x40000000, 0, 1, 0)
        assert vp.cpuid(7, 1) == (7, 1, 1, 0)
        vp.wrmsr(0x40000000, 5)
        assert vp.rdmsr(0x40000000) == 5
        assert vp.hypercall(b"\x0f\x01\xc1", (1, 2, 3)) == (2, 3, 4)
        assert vp.mmio_read(0xFEE00020, 4) == 0x20
        vp.mmio_write(0xFEE00020, 4, 1)
        assert vp.io_in(0xCF8, 4) == 0xCF8
        vp.io_out(0xCF8, 4, 9)

    machine.call(body, vp=vp)
    assert host.log == [
        ("cpuid", 1, 0x40000000, 0),
        ("cpuid", 1, 7, 1),
        ("wrmsr", 1, 0x40000000, 5),
        ("rdmsr", 1, 0x40000000),
        ("hypercall", 1, b"\x0f\x01\xc1", (1, 2, 3)),
        ("mmio_read", 1, 0xFEE00020, 4),
        ("mmio_write", 1, 0xFEE00020, 4, 1),
        ("io_in", 1, 0xCF8, 4),
        ("io_out", 1, 0xCF8, 4, 9),
    ]
    stats = machine.stats.as_dict()
    assert (stats["cpuid"], stats["mmio"], stats["io"], machine.stats.traps) == (2, 2, 2, 9)
    assert list(stats) == sorted(stats)


def test_a_trap_takes_time_and_is_a_preemption_point(make: Make, host: Any) -> None:
    machine = make()
    serve(machine, host)

    def body() -> tuple[int, int]:
        now, steps = machine.clock.now, machine.stats.steps
        machine.boot_vp.cpuid(1)
        return machine.clock.now - now, machine.stats.steps - steps

    passed, steps = machine.call(body)
    assert passed > 5
    assert steps == 1


def test_a_fault_of_the_handler_lands_in_the_guest_and_leaves_nothing_behind(make: Make, host: Any) -> None:
    machine = make()
    serve(machine, host)

    def undefined(*args: Any) -> None:
        raise UndefinedOpcode(args[1])

    host.on["hypercall"] = undefined

    def body() -> list[str]:
        out = []
        try:
            machine.boot_vp.rdmsr(0x123)
        except GeneralProtectionFault as fault:
            out.append(f"{fault} {fault.register:#x}")
        try:
            machine.boot_vp.hypercall(b"\x0f\x0b", ())
        except UndefinedOpcode as fault:
            out.append(str(fault))
        machine.block(machine.clock.now + 10)
        return out

    assert machine.call(body) == [
        "general protection fault on register 0x123 0x123",
        "undefined opcode 0f 0b",
    ]


def test_traps_belong_to_the_processor_that_runs(make: Make, host: Any) -> None:
    machine = make()
    serve(machine, host)
    with pytest.raises(MachineError, match=r"^trap on vp1 by task 'x', which runs on vp0"):
        machine.call(lambda: machine.vps[1].cpuid(0), name="x")
    with pytest.raises(MachineError, match=r"^trap on vp0 by task 'x', which runs on host"):
        machine.call(lambda: machine.vps[0].cpuid(0), name="x", side="host")
    assert machine.vps[1].cpuid(3) == (3, 0, 1, 0), "outside tasks any processor answers, as to a debugger"


def test_a_trap_needs_a_handler() -> None:
    message = r"^trap on vp0: the machine has no trap handler$"
    with Machine([(0, 4096)], [VpTopology(0, 0)]) as machine, pytest.raises(MachineError, match=message):
        machine.vps[0].cpuid(0)


# -- interrupts ------------------------------------------------------------------------


def test_an_interrupt_raised_in_a_trap_is_taken_when_it_is_over(make: Make, host: Any) -> None:
    machine = make()
    serve(machine, host)
    vp = machine.boot_vp
    out: list[object] = []

    def wrmsr(n: int, register: int, v: int) -> None:
        vp.raise_irq(v)
        out.append("handler ends")

    host.on["wrmsr"] = wrmsr

    def body() -> None:
        vp.set_entry(lambda vector: out.append((vector, vp.irq_enabled, vp.irq_depth)))
        vp.wrmsr(1, 0xF3)
        out.append("next instruction")

    machine.call(body)
    assert out == ["handler ends", (0xF3, False, 1), "next instruction"]
    assert vp.irq_enabled
    assert vp.irq_depth == 0


def test_pending_interrupts_merge_and_wait_for_the_flag(make: Make) -> None:
    machine = make()
    vp = machine.boot_vp
    out: list[int] = []
    vp.set_entry(out.append)

    def body() -> None:
        vp.irq_enabled = False
        assert vp.raise_irq(5)
        assert vp.raise_irq(3)
        assert not vp.raise_irq(5)
        assert vp.clear_irq(3)
        assert not vp.clear_irq(3)
        vp.raise_irq(4)
        machine.preempt()
        machine.delay(100)
        assert out == []
        assert vp.pending_irqs == (5, 4)
        vp.irq_enabled = True
        assert out == []
        machine.preempt()
        assert out == [5, 4]

    machine.call(body)
    with pytest.raises(ValueError, match=r"^vector: -1 is negative$"):
        vp.raise_irq(-1)


def test_the_interrupt_controllers_order_can_be_set(make: Make) -> None:
    machine = make()
    vp = machine.boot_vp
    out: list[int] = []
    vp.set_entry(out.append)

    def body() -> None:
        for vector in (0x30, 0xF3, 0x80):
            vp.raise_irq(vector)
        machine.preempt()

    machine.call(body)
    machine.set_irq_order(lambda vector: -vector)
    machine.call(body)
    assert out == [0x30, 0xF3, 0x80, 0xF3, 0x80, 0x30]


def test_interrupts_nest_only_if_the_entry_enables_them(make: Make) -> None:
    machine = make()
    vp = machine.boot_vp
    out: list[str] = []

    def entry(vector: int) -> None:
        out.append(f"enter {vector} at {vp.irq_depth}")
        if vector == 1:
            vp.raise_irq(2)
            machine.preempt()
            out.append("still alone")
            vp.irq_enabled = True
            machine.preempt()
        out.append(f"leave {vector}")

    vp.set_entry(entry)

    def body() -> None:
        vp.raise_irq(1)
        machine.preempt()

    machine.call(body)
    assert out == ["enter 1 at 1", "still alone", "enter 2 at 2", "leave 2", "leave 1"]


@pytest.mark.parametrize("policy", POLICIES)
def test_an_idle_processor_takes_interrupts_in_its_idle_context(make: Make, policy: str) -> None:
    machine = make(policy=policy)
    vp = machine.vps[1]
    out: list[object] = []

    def entry(vector: int) -> None:
        task = machine.current
        assert task is not None
        out.append((vector, task.name, machine.current_vp is vp))

    vp.set_entry(entry)
    vp.irq_enabled = True
    machine.clock.after(100, lambda: vp.raise_irq(7))
    machine.clock.after(200, lambda: (vp.raise_irq(8), vp.raise_irq(9)))
    assert machine.run() == "idle"
    assert out == [(7, "idle/1", True), (8, "idle/1", True), (9, "idle/1", True)]
    assert machine.tasks == ()


def test_at_reset_an_idle_processor_takes_none(make: Make) -> None:
    machine = make()
    vp = machine.vps[1]
    out: list[int] = []
    vp.set_entry(out.append)
    vp.raise_irq(1)
    assert machine.run() == "idle"
    assert out == []
    vp.irq_enabled = True
    assert machine.run() == "idle"
    assert out == [1]


def test_a_task_that_blocks_with_interrupts_off_gets_them_back_off(make: Make) -> None:
    """Meanwhile the processor is idle, and idle accepts interrupts."""
    machine = make()
    vp = machine.boot_vp
    out: list[str] = []

    def body() -> None:
        task = machine.current
        assert task is not None

        def entry(vector: int) -> None:
            out.append(f"irq in {machine.current.name if machine.current else None}")
            machine.wake(task)

        vp.set_entry(entry)
        vp.irq_enabled = False
        machine.clock.after(10, lambda: vp.raise_irq(1))
        machine.block()
        assert not vp.irq_enabled
        out.append("back")
        vp.irq_enabled = True

    machine.call(body)
    assert out == ["irq in idle/0", "back"]


def test_new_tasks_start_with_interrupts_on_unless_asked(make: Make) -> None:
    machine = make()
    vp = machine.boot_vp
    assert vp.irq_enabled is False
    assert machine.call(lambda: vp.irq_enabled) is True
    task = machine.spawn(lambda: vp.irq_enabled, name="boot", irqs=False)
    machine.run()
    assert task.result is False


def test_an_interrupt_wakes_a_task_of_its_own_processor(make: Make) -> None:
    machine = make()
    vp = machine.boot_vp
    waiter = machine.spawn(machine.block, name="waiter")
    vp.set_entry(lambda vector: machine.wake(waiter) and None)
    machine.clock.after(1000, lambda: vp.raise_irq(3))
    assert machine.run() == "idle"
    assert waiter.done


def test_a_delay_takes_an_interrupt_that_is_pending_already(make: Make) -> None:
    machine = make(vps=1)
    vp = machine.boot_vp
    at: list[int] = []
    vp.set_entry(lambda vector: at.append(machine.clock.now))

    def body() -> None:
        start = machine.clock.now
        vp.raise_irq(1)
        machine.delay(100)
        assert len(at) == 1
        assert at[0] < start + 50

    machine.call(body)


def test_interrupts_arrive_during_a_delay_and_do_not_lengthen_it(make: Make) -> None:
    machine = make()
    vp = machine.boot_vp
    at: list[int] = []
    vp.set_entry(lambda vector: at.append(machine.clock.now))

    def body() -> int:
        start = machine.clock.now
        for when in (100, 200, 300):
            machine.clock.after(when, lambda: vp.raise_irq(1))
        machine.delay(1000)
        return machine.clock.now - start

    assert machine.call(body) == 1000
    assert len(at) == 3
    assert at[0] < at[1] < at[2] < 400


@pytest.mark.parametrize("policy", POLICIES)
def test_an_exception_in_an_interrupt_leaves_the_processor_usable(make: Make, policy: str) -> None:
    machine = make(policy=policy)
    vp = machine.boot_vp

    def entry(vector: int) -> None:
        raise RuntimeError("handler bug")

    vp.set_entry(entry)
    machine.call(int)
    vp.raise_irq(1)
    with pytest.raises(RuntimeError, match="handler bug"):
        machine.run()
    out: list[int] = []
    vp.set_entry(out.append)
    vp.raise_irq(2)
    assert machine.run() == "idle"
    assert (out, vp.irq_depth) == ([2], 0)


def test_interrupt_code_can_spin_while_other_processors_run(make: Make) -> None:
    machine = make()
    out: list[str] = []

    def entry(vector: int) -> None:
        while "other" not in out:
            machine.delay(1)
        out.append("entry ends")

    machine.vps[0].set_entry(entry)
    machine.vps[0].irq_enabled = True
    machine.vps[0].raise_irq(1)

    def other() -> None:
        machine.delay(50)
        out.append("other")

    machine.spawn(other, name="other", vp=machine.vps[1])
    machine.spawn(lambda: out.append("task"), name="task", vp=machine.vps[0])
    assert machine.run() == "idle"
    assert out.index("entry ends") == out.index("other") + 1
    assert sorted(out) == ["entry ends", "other", "task"]


def test_each_processor_knows_the_task_that_stands_on_it(make: Make) -> None:
    machine = make(vps=3)
    other = machine.spawn(machine.delay, 10**6, name="other", vp=machine.vps[1])
    machine.vps[2].set_entry(lambda vector: seen.append(machine.vps[2].current))
    machine.vps[2].irq_enabled = True
    machine.vps[2].raise_irq(1)
    seen: list[object] = []

    def body() -> None:
        machine.delay(100)
        seen.append([vp.current for vp in machine.vps])

    task = machine.spawn(body, name="body")
    machine.run(limit=1000)
    assert seen == [None, [task, other, None]]


# -- start and stop -------------------------------------------------------------------------


def test_a_processor_that_is_not_started_gets_nothing_until_it_is(make: Make) -> None:
    machine = make(started=False)
    vp = machine.vps[1]
    out: list[object] = []
    vp.set_entry(lambda vector: out.append(vector))
    vp.irq_enabled = True
    vp.raise_irq(4)
    machine.spawn(lambda: out.append("queued"), name="queued", vp=vp)
    assert machine.run() == "idle"
    assert (out, vp.pending_irqs) == ([], (4,))

    def secondary(which: VirtualProcessor) -> None:
        assert which is vp
        out.append(("secondary", vp.irq_enabled))
        machine.preempt()
        vp.irq_enabled = True
        machine.preempt()

    machine.set_secondary_entry(secondary)
    assert machine.call(vp.start) is True
    assert machine.call(vp.start) is False
    assert machine.run() == "idle"
    assert out == [("secondary", False), 4, "queued"]


def test_start_needs_an_entry(make: Make) -> None:
    machine = make(started=False)
    with pytest.raises(MachineError, match=r"^start of vp1: no secondary entry is set$"):
        machine.vps[1].start()
    assert not machine.vps[1].started


def test_stop_from_its_own_code_does_not_return(make: Make) -> None:
    machine = make()
    vp = machine.vps[1]
    out: list[str] = []

    def play_dead() -> None:
        try:
            vp.stop()
            out.append("returned")
        finally:
            out.append("unwound")

    machine.spawn(play_dead, name="dead", vp=vp)
    machine.spawn(lambda: out.append("later"), name="later", vp=vp)
    assert machine.run() == "idle"
    assert (out, vp.started) == (["unwound"], False)
    machine.set_secondary_entry(lambda which: out.append("restarted"))
    vp.start()
    assert machine.run() == "idle"
    assert out == ["unwound", "restarted", "later"]


@pytest.mark.parametrize("policy", POLICIES)
def test_stop_by_another_ends_what_stands_there(make: Make, policy: str) -> None:
    machine = make(policy=policy)
    vp = machine.vps[1]
    out: list[str] = []

    def spin() -> None:
        try:
            while True:
                machine.delay(10)
        finally:
            out.append("ended")

    task = machine.spawn(spin, name="spin", vp=vp)

    def stopper() -> None:
        machine.delay(100)
        vp.raise_irq(1)
        vp.set_local_timer(machine.clock.now + 50, 3)
        vp.stop()
        machine.delay(100)

    machine.call(stopper)
    assert (out, task.state, vp.started, vp.pending_irqs) == (["ended"], "done", False, ())
    assert machine.run() == "idle"


# -- local timers -----------------------------------------------------------------------------


def test_the_local_timer_is_one_shot_and_replaceable(make: Make) -> None:
    machine = make()
    vp = machine.boot_vp
    out: list[tuple[int, int]] = []
    vp.set_entry(lambda vector: out.append((vector, machine.clock.now)))
    vp.irq_enabled = True
    vp.set_local_timer(500, 0x40)
    vp.set_local_timer(300, 0x41)
    assert machine.run() == "idle"
    assert [vector for vector, _ in out] == [0x41]
    assert 300 <= out[0][1] < 350
    vp.set_local_timer(10, 0x42)
    assert machine.run() == "idle"
    assert [vector for vector, _ in out] == [0x41, 0x42]
    vp.set_local_timer(10_000, 0x43)
    vp.set_local_timer(None, 0)
    assert machine.run() == "idle"
    assert machine.clock.now < 1000


# -- topology -----------------------------------------------------------------------------------


def test_vp_index_hw_id_and_order_are_three_things() -> None:
    vps = [VpTopology(2, 0x40, 1), VpTopology(0, 0x11), VpTopology(1, 0x7)]
    with Machine([(0, 4096)], vps) as machine:
        assert [vp.vp_index for vp in machine.vps] == [0, 1, 2]
        assert [vp.hw_id for vp in machine.vps] == [0x11, 7, 0x40]
        assert machine.boot_vp is machine.vps[2]
        assert [vp.started for vp in machine.vps] == [False, False, True]
        assert (machine.vps[2].node, repr(machine.vps[0])) == (1, "<VirtualProcessor 0 hw_id 0x11, not started>")


@pytest.mark.parametrize(
    ("vps", "message"),
    [
        ([], "vps: none; a machine needs at least one virtual processor"),
        ([VpTopology(0, 1), VpTopology(0, 2)], "vps: vp_index 0 is there twice"),
        ([VpTopology(0, 1), VpTopology(2, 2)], "vps: vp_index 2 is outside 0..1; VP indexes have no gaps"),
        ([VpTopology(-1, 1)], "vps: vp_index -1 is outside 0..0; VP indexes have no gaps"),
        ([VpTopology(0, 9), VpTopology(1, 9)], "vps: hw_id 0x9 is there twice, for vp_index 0 and 1"),
        ([VpTopology(0, 1 << 64)], "vps: hw_id 0x10000000000000000 of vp_index 0 does not fit 64 bits"),
        ([VpTopology(0, -1)], "vps: hw_id -0x1 of vp_index 0 does not fit 64 bits"),
        ([VpTopology(0, 1, -2)], "vps: node -2 of vp_index 0 is negative"),
        ([VpTopology(n, n) for n in range(4097)], "vps: 4097 virtual processors, the limit is 4096"),
    ],
)
def test_a_bad_topology_is_refused_by_name_value_and_limit(vps: list[VpTopology], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        Machine([(0, 4096)], vps)
    assert str(caught.value) == message


def test_four_thousand_processors_are_made_quickly() -> None:
    with Machine([(0, 1 << 20)], [VpTopology(n, n) for n in range(4096)]) as machine:
        assert machine.run() == "idle"
