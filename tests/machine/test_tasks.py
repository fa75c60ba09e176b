"""Tasks and lanes: blocking, waking, delays, limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvkernel.machine import (
    LimitReached,
    Machine,
    MachineError,
    MachineStuck,
    VpTopology,
)

Make = Callable[..., Machine]
POLICIES = ["fifo", "random:0", "random:5"]


# -- running -------------------------------------------------------------------------


def test_call_returns_the_value_and_passes_arguments(make: Make) -> None:
    machine = make()
    assert machine.call(divmod, 17, 5) == (3, 2)
    assert machine.current is None
    assert machine.current_vp is None
    assert machine.call(lambda: machine.current_vp) is machine.boot_vp
    assert machine.call(lambda: machine.current_vp, vp=machine.vps[1]) is machine.vps[1]
    assert machine.call(lambda: machine.current_vp, side="host") is None


def test_a_task_knows_itself(make: Make) -> None:
    machine = make()

    def body() -> None:
        task = machine.current
        assert task is not None
        task.locals["comm"] = "kworker"
        assert (task.name, task.side, task.state, task.vp) == ("body", "guest", "running", machine.boot_vp)
        assert task in machine.tasks

    machine.call(body)
    assert machine.tasks == ()


def test_fifo_runs_a_lane_until_it_blocks_then_who_waits_longest(make: Make) -> None:
    machine = make(vps=3)
    out: list[str] = []

    def body(name: str) -> None:
        for n in range(3):
            out.append(f"{name}{n}")
            machine.preempt()
            machine.yield_now()

    for vp, names in zip(machine.vps, ("ad", "b", "c"), strict=True):
        for name in names:
            machine.spawn(body, name, name=name, vp=vp)
    machine.spawn(body, "H", name="H", side="host")
    assert machine.run() == "idle"
    assert out == ["a0", "b0", "c0", "H0", "d0", "b1", "c1", "H1", "a1", "b2", "c2", "H2", "d1", "a2", "d2"]


@pytest.mark.parametrize("policy", POLICIES)
def test_every_task_runs_and_no_lane_runs_two_at_once(make: Make, policy: str) -> None:
    machine = make(vps=3, policy=policy)
    on_lane: dict[str, str] = {}
    finished: list[str] = []

    def body(name: str) -> None:
        task = machine.current
        assert task is not None
        for n in range(20):
            lane = task.lane.name
            assert on_lane.setdefault(lane, name) == name, "two tasks on one lane"
            machine.preempt()
            if n % 3 == 0:
                machine.delay(n)
            assert on_lane[lane] == name
            if n % 5 == 0:
                del on_lane[lane]
                machine.block(machine.clock.now + 7 * n)
                on_lane[lane] = name
            if n % 7 == 0:
                del on_lane[lane]
                machine.yield_now()
                on_lane[lane] = name
        del on_lane[lane]
        finished.append(name)

    names = [f"t{n}" for n in range(9)]
    for n, name in enumerate(names):
        machine.spawn(body, name, name=name, vp=machine.vps[n % 3])
    for name in ("h0", "h1"):
        machine.spawn(body, name, name=name, side="host")
    assert machine.run() == "idle"
    assert sorted(finished) == sorted([*names, "h0", "h1"])


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32), counts=st.lists(st.integers(1, 4), min_size=2, max_size=4))
def test_random_policy_starves_nobody_and_repeats_itself(seed: int, counts: list[int]) -> None:
    def trace() -> list[int]:
        out: list[int] = []
        vps = [VpTopology(n, n) for n in range(len(counts))]
        with Machine([(0, 4096)], vps, policy=f"random:{seed}") as machine:
            for vp in machine.vps:
                vp.started = True

            def body(number: int) -> None:
                for _ in range(10):
                    out.append(number)
                    machine.preempt()

            number = 0
            for vp, count in zip(machine.vps, counts, strict=True):
                for _ in range(count):
                    machine.spawn(body, number, name=str(number), vp=vp)
                    number += 1
            assert machine.run() == "idle"
        return out

    first = trace()
    assert sorted(first) == sorted(n for n in range(sum(counts)) for _ in range(10))
    assert trace() == first


def test_random_policy_interleaves_lanes_at_preemption_points(make: Make) -> None:
    def trace(policy: str) -> str:
        machine = make(vps=2, policy=policy)
        out: list[str] = []

        def body(name: str) -> None:
            for _ in range(30):
                out.append(name)
                machine.preempt()

        machine.spawn(body, "a", name="a", vp=machine.vps[0])
        machine.spawn(body, "b", name="b", vp=machine.vps[1])
        machine.run()
        return "".join(out)

    assert trace("fifo") == "a" * 30 + "b" * 30
    traces = [trace(f"random:{n}") for n in range(4)]
    assert len({*traces}) == 4
    assert all(text.count("ab") > 5 for text in traces)


# -- block and wake -----------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
def test_wake_ends_a_block(make: Make, policy: str) -> None:
    machine = make(policy=policy)
    out: list[str] = []

    def waiter() -> None:
        assert machine.block() is True
        out.append("woken")

    task = machine.spawn(waiter, name="waiter", vp=machine.vps[1])
    assert machine.run() == "idle"
    assert (task.state, out) == ("blocked", [])
    assert machine.call(machine.wake, task) is True
    assert machine.run() == "idle"
    assert (task.state, out) == ("done", ["woken"])


def test_a_wake_before_the_block_is_not_lost(make: Make) -> None:
    machine = make()

    def waiter() -> str:
        task = machine.current
        assert task is not None
        assert machine.wake(task) is False
        machine.block()
        return "went on"

    assert machine.call(waiter) == "went on"


def test_a_deadline_ends_a_block_and_a_wake_in_time_disarms_it(make: Make) -> None:
    machine = make()

    def waiter() -> list[bool]:
        task = machine.current
        assert task is not None
        out = [machine.block(machine.clock.now + 50)]
        machine.clock.after(20, lambda: machine.wake(task))
        out.append(machine.block(machine.clock.now + 5000))
        out.append(machine.block(machine.clock.now))
        return out

    assert machine.call(waiter) == [False, True, False]
    assert machine.clock.pending == 0
    assert machine.clock.now < 1000


def test_a_deadline_that_passes_after_the_wake_leaves_no_trace(make: Make) -> None:
    """The task is woken, but another runs past its deadline before it gets its turn: its next block must hold."""
    machine = make(vps=1)
    out: list[object] = []

    def waiter() -> None:
        out.append(machine.block(machine.clock.now + 100))
        out.append(machine.block(machine.clock.now + 100_000))

    task = machine.spawn(waiter, name="waiter")

    def other() -> None:
        machine.wake(task)
        while machine.clock.now < 1000:
            machine.preempt()

    machine.spawn(other, name="other")
    assert machine.run() == "idle"
    assert out == [True, False]
    assert machine.clock.now > 100_000


def test_where_blocking_is_forbidden(make: Make, host: object) -> None:
    machine = make()
    with pytest.raises(MachineError, match=r"^block\(\) outside a task$"):
        machine.block()
    handler = machine._handler
    handler.on["wrmsr"] = lambda vp, n, v: machine.block()  # type: ignore[union-attr]

    def trap() -> None:
        machine.boot_vp.wrmsr(1, 2)

    with pytest.raises(MachineError, match=r"^block\(\) inside a trap handler, on task 'trap'") as caught:
        machine.call(trap)
    assert caught.value.__notes__ == ["in task 'trap' on vp0"]
    errors: list[str] = []

    def entry(vector: int) -> None:
        for call in (machine.block, machine.yield_now):
            try:
                call()
            except MachineError as error:
                errors.append(str(error))

    machine.boot_vp.set_entry(entry)

    def interrupted() -> None:
        machine.boot_vp.raise_irq(1)
        machine.preempt()

    machine.call(interrupted)
    assert errors == [
        "block() in interrupt context on vp0, on top of task 'interrupted'",
        "yield in interrupt context on vp0, on top of task 'interrupted'",
    ]


# -- delay -----------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
def test_delay_lets_other_lanes_run_but_not_its_own(make: Make, policy: str) -> None:
    machine = make(policy=policy)
    out: list[str] = []

    def spin() -> None:
        while "other" not in out:
            machine.delay(1)
        out.append("saw it")

    machine.spawn(spin, name="spin", vp=machine.vps[0])
    machine.spawn(lambda: out.append("same lane"), name="same", vp=machine.vps[0])

    def other() -> None:
        machine.delay(500)
        out.append("other")

    machine.spawn(other, name="other", vp=machine.vps[1])
    assert machine.run() == "idle"
    out.remove("same lane") if out[0] == "same lane" else out.pop()
    assert out == ["other", "saw it"]


def test_delay_takes_its_time_and_timers_fire_meanwhile(make: Make) -> None:
    machine = make()
    fired: list[int] = []
    for when in (100, 900, 5000):
        machine.clock.at(when, lambda: fired.append(machine.clock.now))

    def body() -> int:
        start = machine.clock.now
        machine.delay(1000)
        return machine.clock.now - start

    assert machine.call(body) == 1000
    assert fired == [100, 900]


def test_delay_outside_a_task_or_in_a_handler_only_charges(make: Make) -> None:
    machine = make()
    machine.delay(30)
    assert machine.clock.now == 30


# -- limits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
def test_a_guest_that_spins_is_returned_as_limit_and_can_be_run_on(make: Make, policy: str) -> None:
    machine = make(policy=policy)
    turns = [0]

    def spin() -> None:
        while True:
            turns[0] += 1
            machine.preempt()

    def relax() -> None:
        while True:
            turns[0] += 1
            machine.delay(0)

    for n, body in enumerate((spin, relax, spin)):
        machine.spawn(body, name=f"spin{n}", vp=machine.vps[n % 2])
    assert machine.run(steps=1000) == "limit"
    assert 900 < turns[0] <= 1001
    assert machine.run(steps=500) == "limit"
    assert 1350 < turns[0] <= 1502
    before = machine.clock.now
    assert machine.run(limit=777) == "limit"
    assert before + 777 <= machine.clock.now < before + 777 + 50
    assert sorted(machine.close()) == ["spin0", "spin1", "spin2"]


def test_a_lone_delay_loop_meets_the_step_limit(make: Make) -> None:
    machine = make(vps=1)

    def relax() -> None:
        while True:
            machine.delay(1)

    machine.spawn(relax, name="relax")
    assert machine.run(steps=1000) == "limit"
    assert machine.clock.now >= 900


def test_limit_of_time_stops_at_the_time_before_a_later_timer(make: Make) -> None:
    machine = make()
    machine.clock.at(10_000, lambda: None)
    assert machine.run(limit=100) == "limit"
    assert machine.clock.now == 100
    assert machine.run(limit=0) == "limit"
    assert machine.run() == "idle"
    assert machine.clock.now == 10_000
    assert machine.run(limit=100) == "idle"


def test_until_ends_the_run_where_the_scheduler_gets_its_turn(make: Make) -> None:
    machine = make()
    count = [0]

    def body() -> None:
        while True:
            count[0] += 1
            machine.block(machine.clock.now + 10)

    machine.spawn(body, name="body")
    assert machine.run(until=lambda: count[0] == 5) == "until"
    assert count == [5]
    assert machine.run(until=lambda: True) == "until"
    assert count == [5]


def test_call_says_why_it_cannot_finish(make: Make) -> None:
    machine = make()
    machine.spawn(machine.block, name="khubd")
    with pytest.raises(MachineStuck, match=r"^task 'block' is blocked and nothing can run; also waiting: 'khubd'$"):
        machine.call(machine.block)
    with pytest.raises(LimitReached, match=r"^task 'nap' was not done within its limit \(it was blocked\)$"):
        machine.call(machine.block, 10**9, name="nap", limit=1000)
    assert [task.name for task in machine.tasks] == ["khubd"]


# -- exceptions --------------------------------------------------------------------------------------


def test_an_exception_reaches_the_caller_with_the_tasks_name(make: Make) -> None:
    machine = make()

    def body() -> None:
        machine.preempt()
        raise KeyError("x")

    task = machine.spawn(body, name="worker", vp=machine.vps[1])
    survivor = machine.spawn(lambda: "ok", name="survivor")
    with pytest.raises(KeyError) as caught:
        machine.run()
    assert caught.value.__notes__ == ["in task 'worker' on vp1"]
    assert task.done
    assert task.error is caught.value
    assert machine.run() == "idle"
    assert survivor.result == "ok"


def test_keyboard_interrupt_is_not_swallowed(make: Make) -> None:
    machine = make()

    def body() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        machine.call(body)


# -- mistakes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["", "lifo", "random", "random:", "random:x", "fifo:1", "random:1.5"])
def test_an_unknown_policy_is_refused(policy: str) -> None:
    with pytest.raises(ValueError) as caught:
        Machine([(0, 4096)], [VpTopology(0, 0)], policy=policy)
    want = f"policy: {policy!r} is not a policy; there are 'fifo' and 'random:SEED' with an integer SEED"
    assert str(caught.value) == want


def test_spawn_checks_where(make: Make) -> None:
    machine, other = make(), make()
    with pytest.raises(ValueError, match=r"^vp: host task 'x' cannot run on a virtual processor$"):
        machine.spawn(int, name="x", side="host", vp=machine.vps[0])
    with pytest.raises(ValueError, match="belongs to another machine"):
        machine.spawn(int, name="x", vp=other.vps[0])


def test_a_policy_that_chooses_nonsense_is_stopped(make: Make) -> None:
    class Wild:
        name = "wild"
        sticky = False

        def choose(self, ready: Sequence[object]) -> int:
            return len(ready)

    machine = make()
    machine.policy, machine._sticky = Wild(), False
    machine.spawn(int, name="a", vp=machine.vps[0])
    machine.spawn(int, name="b", vp=machine.vps[1])
    with pytest.raises(MachineError, match=r"^policy 'wild' chose 2 of 2 candidates$"):
        machine.run()


def test_random_streams_depend_on_seed_and_name_only(make: Make) -> None:
    first, second, third = make(seed=1), make(seed=1, policy="random:9"), make(seed=2)
    assert first.rng("disk") is first.rng("disk")
    net = [first.rng("net").random() for _ in range(3)]
    assert [second.rng("net").random() for _ in range(3)] == net
    assert [second.rng("disk").random() for _ in range(3)] != net
    assert [third.rng("net").random() for _ in range(3)] != net
