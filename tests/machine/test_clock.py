"""Virtual time: what fires, when, and in what order."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvkernel.machine import Clock, Machine, Timer, VpTopology

Make = Callable[..., Machine]


@given(
    plan=st.lists(
        st.tuples(st.integers(0, 30), st.none() | st.integers(0, 200), st.none() | st.integers(0, 20)), max_size=150
    )
)
def test_timers_fire_in_order_of_time_then_of_arming(plan: list[tuple[int, int | None, int | None]]) -> None:
    """Each plan row arms a timer, perhaps cancels an earlier one, and the timer perhaps arms another."""
    machine = Machine([(0, 4096)], [VpTopology(0, 0)])
    clock = machine.clock
    fired: list[tuple[int, int]] = []
    armed: list[tuple[int, int]] = []
    timers: list[Timer] = []
    cancelled: list[int] = []

    def arm(when: int, again: int | None) -> None:
        number = len(timers)

        def fire() -> None:
            fired.append((clock.now, number))
            if again is not None:
                arm(clock.now + again, None)

        timers.append(clock.at(when, fire))
        armed.append((when, number))

    for when, cancel, again in plan:
        arm(when, again)
        if cancel is not None and cancel < len(timers):
            if timers[cancel].cancel():
                cancelled.append(cancel)
            assert not timers[cancel].pending
    assert clock.pending == len(plan) - len(cancelled)
    assert machine.run() == "idle"
    assert fired == sorted(pair for pair in armed if pair[1] not in cancelled)
    assert clock.pending == 0
    assert clock.next_due is None
    assert not any(timer.cancel() for timer in timers)
    machine.close()


def test_a_timer_in_the_past_fires_at_once_and_time_stands(make: Make) -> None:
    machine = make()
    machine.clock.charge(50)
    fired: list[int] = []
    machine.clock.at(10, lambda: fired.append(machine.clock.now))
    machine.clock.after(0, lambda: fired.append(machine.clock.now))
    assert machine.clock.next_due == 10
    assert machine.run() == "idle"
    assert fired == [50, 50]


def test_many_cancelled_timers_are_forgotten() -> None:
    clock = Clock()
    keep = clock.at(10**6, lambda: None)
    for n in range(10_000):
        clock.at(n, lambda: None).cancel()
    assert clock.pending == 1
    assert len(clock._heap) < 200
    assert clock.next_due == keep.when


def test_time_does_not_run_backwards(make: Make) -> None:
    with pytest.raises(ValueError, match=r"^units: -1 is negative; time does not run backwards$"):
        Clock().charge(-1)
    with pytest.raises(ValueError, match=r"^units: -5 is negative"):
        make().call(make().delay, -5)


def test_timers_fire_at_preemption_points_of_a_task_that_never_blocks(make: Make) -> None:
    machine = make(vps=1)
    fired: list[tuple[int, object]] = []
    machine.clock.at(100, lambda: fired.append((machine.clock.now, machine.current)))

    def spin() -> int:
        while not fired:
            machine.preempt()
        return machine.clock.now

    assert machine.call(spin) >= 100
    assert fired == [(100, None)]


def test_an_exception_in_a_timer_reaches_the_caller_of_run_not_the_task(make: Make) -> None:
    machine = make(vps=1)
    machine.clock.at(100, lambda: 1 // 0)

    def spin() -> str:
        while machine.clock.now < 200:
            machine.preempt()
        return "unharmed"

    task = machine.spawn(spin, name="spin")
    with pytest.raises(ZeroDivisionError):
        machine.run()
    assert machine.run() == "idle"
    assert task.result == "unharmed"


def test_the_clock_jumps_when_nothing_can_run(make: Make) -> None:
    machine = make()
    seen: list[int] = []

    def sleeper(until: int) -> None:
        assert machine.block(until) is False
        seen.append(until)
        assert until <= machine.clock.now < until + 100

    for n, when in enumerate((7_000_000, 3_000_000, 5_000_000)):
        machine.spawn(sleeper, when, name=f"s{n}")
    assert machine.run() == "idle"
    assert seen == [3_000_000, 5_000_000, 7_000_000]
