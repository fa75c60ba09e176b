"""Random programs on random machines: whatever tasks do to each other, nothing that could run is ever left behind."""

from __future__ import annotations

from functools import partial
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvkernel.machine import Machine, Task, VirtualProcessor, VpTopology


class Program:
    """Tasks that draw what they do next; `random` decides everything, so a seed is a program."""

    def __init__(self, seed: int, policy: str) -> None:
        self.random = Random(seed)
        self.machine = Machine([(0, 4096)], [VpTopology(n, n) for n in range(3)], policy=policy)
        self.machine.set_secondary_entry(self.secondary)
        self.tasks: list[Task] = []
        self.taken = 0
        for vp in self.machine.vps:
            vp.set_entry(self.entry)
        self.machine.vps[1].started = True
        for n in range(4):
            self.new(n)

    def new(self, depth: int) -> None:
        side = self.random.choice(("guest", "guest", "guest", "host"))
        vp = self.random.choice(self.machine.vps) if side == "guest" else None
        name = f"t{len(self.tasks)}"
        if side == "guest":
            self.tasks.append(self.machine.spawn(self.body, depth, name=name, vp=vp, irqs=self.random.random() < 0.8))
        else:
            self.tasks.append(self.machine.spawn(self.body, depth, name=name, side="host"))

    def secondary(self, vp: VirtualProcessor) -> None:
        vp.irq_enabled = True
        self.machine.preempt()

    def entry(self, vector: int) -> None:
        machine = self.machine
        vp = machine.current_vp
        assert vp is not None
        assert not vp.irq_enabled
        assert 0 < vp.irq_depth < 50
        self.taken += 1
        if self.random.random() < 0.3:
            machine.wake(self.random.choice(self.tasks))
        if self.random.random() < 0.2:
            machine.delay(self.random.randrange(20))
        if self.random.random() < 0.2 and vp.irq_depth < 4:
            vp.irq_enabled = True
        machine.preempt()

    def body(self, depth: int) -> None:
        machine, random = self.machine, self.random
        me = machine.current
        assert me is not None
        try:
            for _ in range(random.randrange(25)):
                self.check()
                what = random.randrange(13)
                target = random.choice(self.tasks)
                vp = random.choice(machine.vps)
                if what <= 2:
                    machine.preempt()
                elif what == 3:
                    machine.delay(random.randrange(60))
                elif what == 4:
                    machine.block(machine.clock.now + random.randrange(-5, 200))
                elif what == 5 and random.random() < 0.5:
                    machine.block()
                elif what == 6:
                    machine.wake(target)
                elif what == 7:
                    vp.raise_irq(random.randrange(4))
                elif what == 8:
                    machine.clock.after(random.randrange(100), partial(vp.raise_irq, 9))
                elif what == 9 and me.vp is not None:
                    me.vp.irq_enabled = not me.vp.irq_enabled
                elif what == 10 and depth < 5 and len(self.tasks) < 25:
                    self.new(depth + 1)
                elif what == 11 and target is not me and random.random() < 0.3:
                    target.kill()
                elif what == 12 and random.random() < 0.2:
                    if vp.started and vp is not machine.boot_vp:
                        vp.stop()
                    elif not vp.started:
                        vp.start()
                else:
                    machine.yield_now()
                assert machine.current is me
                assert machine.current_vp is me.vp
        finally:
            machine.preempt()

    def check(self) -> None:
        machine = self.machine
        lanes = [vp._lane for vp in machine.vps] + [machine._host_lane]
        for lane in lanes:
            assert lane.queued == (lane in machine._ready)
            assert all(task.state == "ready" and task.lane is lane for task in lane.queue)
            if lane.running is not None:
                assert lane.running not in lane.queue
                assert lane.running.state in ("running", "delayed")
        assert len({id(lane) for lane in machine._ready}) == len(machine._ready)

    def check_idle(self) -> None:
        """Nothing is left that could run."""
        self.check()
        machine = self.machine
        assert not machine._ready
        assert machine.clock.pending == 0
        for vp in machine.vps:
            assert vp.irq_depth == 0
            if vp.started:
                assert not vp._lane.queue
                assert vp._lane.running is None
                assert not (vp.irq_enabled and vp.pending_irqs)
        assert not machine._host_lane.queue
        for task in machine.tasks:
            assert task.state == "blocked" or (task.vp is not None and not task.vp.started), task


@settings(max_examples=300)
@given(
    seed=st.integers(0, 2**32),
    policy=st.sampled_from(["fifo", "random:1", "random:2"]),
    steps=st.none() | st.integers(1, 40),
)
def test_nothing_that_can_run_is_left_behind(seed: int, policy: str, steps: int | None) -> None:
    program = Program(seed, policy)
    machine = program.machine
    for _ in range(20_000):
        if machine.run(steps=steps) == "idle":
            break
    else:
        pytest.fail("does not come to rest")
    program.check_idle()
    blocked = [task.name for task in machine.tasks]
    assert machine.close() == tuple(blocked)
    assert not machine.tasks


def test_the_programs_do_something() -> None:
    """Guards the test above: over some seeds every kind of event must happen."""
    taken = interrupts = switches = killed = stopped = 0
    for seed in range(40):
        program = Program(seed, "random:3")
        program.machine.run()
        taken += program.taken
        interrupts += program.machine.stats.interrupts
        switches += program.machine.stats.switches
        killed += sum(task._dying for task in program.tasks)
        stopped += not program.machine.vps[1].started
        program.machine.close()
    assert taken == interrupts
    assert min(taken, switches, killed, stopped) > 0
    assert switches > 500
