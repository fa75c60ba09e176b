"""The end of tasks and of machines."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import repeat
from threading import Thread

import pytest

from hvkernel.machine import (
    Machine,
    MachineError,
    TaskExit,
    VpTopology,
)

Make = Callable[..., Machine]


# -- ending tasks ------------------------------------------------------------------------------------------


def test_kill_unwinds_a_task_wherever_it_stands(make: Make) -> None:
    machine = make(vps=2)
    out: list[str] = []

    def body(name: str, wait: Callable[[], object]) -> None:
        try:
            while True:
                wait()
        finally:
            machine.preempt()
            out.append(name)

    waits: dict[str, Callable[[], object]] = {
        "blocked": machine.block,
        "sleeping": lambda: machine.block(machine.clock.now + 10**6),
        "spinning": machine.preempt,
    }
    tasks = [machine.spawn(body, name, wait, name=name) for name, wait in waits.items()]
    delayed = machine.spawn(body, "delaying", lambda: machine.delay(10**6), name="delaying", vp=machine.vps[1])
    new = machine.spawn(body, "new", machine.block, name="new", vp=machine.vps[1])
    assert machine.run(steps=100) == "limit"
    assert [task.state for task in tasks] == ["blocked", "blocked", "running"]
    for task in (*tasks, delayed, new):
        task.kill()
        assert task.state == "done"
        task.kill()
    assert out == ["blocked", "sleeping", "spinning", "delaying"]
    assert machine.clock.pending == 0
    assert machine.run() == "idle"
    assert machine.call(lambda: "lanes are free", vp=machine.vps[1]) == "lanes are free"


@pytest.mark.parametrize("seed", range(12))
def test_a_task_can_be_killed_between_being_chosen_and_running(make: Make, seed: int) -> None:
    machine = make(vps=3, policy=f"random:{seed}")

    def spin() -> None:
        while True:
            machine.preempt()

    tasks = [machine.spawn(spin, name=str(n), vp=vp) for n, vp in enumerate(machine.vps)]
    for left in (3, 2, 1):
        calls = repeat(False, 50)
        assert machine.run(until=partial(next, calls, True), steps=2000) in ("until", "limit")
        assert len(machine.tasks) == left
        tasks.pop(seed % left).kill()
    assert machine.run() == "idle"


def test_a_task_can_kill_another_but_not_itself(make: Make) -> None:
    machine = make()
    victim = machine.spawn(machine.block, name="victim")

    def killer() -> str:
        victim.kill()
        me = machine.current
        assert me is not None
        assert me.name == "killer"
        with pytest.raises(MachineError, match="cannot kill itself"):
            me.kill()
        machine.preempt()
        return "alive"

    assert machine.call(killer) == "alive"
    assert victim.done


def test_a_task_can_kill_the_one_that_made_it(make: Make) -> None:
    machine = make()

    def parent() -> None:
        me = machine.current
        assert me is not None
        machine.spawn(lambda: me.kill(), name="child")
        machine.block()

    task = machine.spawn(parent, name="parent")
    assert machine.run() == "idle"
    assert task.done


def test_a_dying_task_cannot_kill_its_killer(make: Make) -> None:
    machine = make()
    out: list[str] = []

    def victim() -> None:
        try:
            machine.block()
        finally:
            try:
                killer.kill()
            except MachineError as error:
                out.append(str(error))

    task = machine.spawn(victim, name="victim")
    killer = machine.spawn(task.kill, name="killer")
    assert machine.run() == "idle"
    assert out == ["task 'killer' cannot be ended: it is ending another"]
    assert killer.done
    assert killer.error is None


def test_an_error_while_a_task_is_killed_reaches_the_killer(make: Make) -> None:
    machine = make()

    def body() -> None:
        try:
            machine.block()
        finally:
            raise ValueError("cleanup failed")

    task = machine.spawn(body, name="body")
    machine.run()
    with pytest.raises(ValueError, match="cleanup failed"):
        task.kill()
    assert task.done


def test_a_dying_task_cannot_wait(make: Make) -> None:
    machine = make()
    out: list[str] = []

    def body() -> None:
        try:
            machine.block()
        finally:
            for wait in (machine.block, machine.yield_now, lambda: machine.delay(1)):
                try:
                    wait()
                except TaskExit:
                    out.append("refused")

    task = machine.spawn(body, name="body")
    machine.run()
    task.kill()
    assert out == ["refused"] * 3


def test_a_task_that_will_not_die_is_named_and_given_up(make: Make) -> None:
    machine = make()

    def body() -> None:
        while True:
            with suppress(TaskExit):
                machine.block()

    task = machine.spawn(body, name="zombie")
    machine.run()
    with pytest.raises(MachineError, match=r"^task 'zombie' does not end: it goes on after TaskExit$"):
        task.kill()
    assert machine.close() == ()


def test_a_dying_task_that_spins_ends_too(make: Make) -> None:
    machine = make()

    def body() -> None:
        try:
            machine.block()
        finally:
            while True:
                machine.preempt()

    task = machine.spawn(body, name="spinner")
    machine.run()
    task.kill()
    assert task.done


# -- closing -------------------------------------------------------------------------------------------------


def test_close_ends_tasks_in_order_of_creation_and_names_them() -> None:
    machine = Machine([(0, 4096)], [VpTopology(0, 0), VpTopology(1, 1)])
    machine.vps[1].started = True
    out: list[str] = []

    def body(name: str) -> None:
        try:
            machine.block(None if name != "c" else 10**9)
        finally:
            out.append(name)

    order = "cabd"
    for n, name in enumerate(order):
        machine.spawn(body, name, name=name, vp=machine.vps[n % 2])
    machine.run(limit=1000)
    machine.spawn(body, "never ran", name="never ran")
    fd = machine.memory.fd
    assert machine.close() == ("c", "a", "b", "d", "never ran")
    assert out == list(order)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    assert machine.close() == ()
    calls: list[Callable[[], object]] = [machine.run, lambda: machine.spawn(body, "x", name="x")]
    calls += [lambda: machine.call(int), lambda: machine.memory.guest.load8(0)]
    for call in calls:
        with pytest.raises(MachineError, match="closed"):
            call()


def test_close_collects_errors_and_closes_all_the_same() -> None:
    machine = Machine([(0, 4096)], [VpTopology(0, 0)])

    def body(name: str) -> None:
        try:
            machine.block()
        finally:
            raise ValueError(name)

    for name in "ab":
        machine.spawn(body, name, name=name)
    machine.run()
    with pytest.raises(ExceptionGroup) as caught:
        machine.close()
    assert [str(error) for error in caught.value.exceptions] == ["a", "b"]
    assert machine.memory.closed


def test_close_reports_a_view_that_outlives_it() -> None:
    machine = Machine([(0, 4096)], [VpTopology(0, 0)])
    with machine.memory.guest.view(0, 8):
        machine.close()
        assert [finding.kind for finding in machine.findings] == ["view-outlives-machine"]


def test_a_task_may_neither_run_nor_close_its_machine(make: Make) -> None:
    machine = make()
    for call, message in ((machine.run, r"run\(\) inside run\(\)"), (machine.close, r"close\(\) inside run\(\)")):
        with pytest.raises(MachineError, match=message):
            machine.call(call)


def test_a_machine_belongs_to_its_thread(make: Make) -> None:
    machine = make()
    errors: list[BaseException] = []

    def elsewhere() -> None:
        calls: list[Callable[[], object]] = [machine.run, machine.close, lambda: machine.spawn(int, name="x")]
        for call in calls:
            try:
                call()
            except MachineError as error:
                errors.append(error)

    thread = Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert [str(error) for error in errors] == [
        "a machine belongs to the thread that made it; this is another thread"
    ] * 3
