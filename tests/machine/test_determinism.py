"""One seed, one trace: across processes, hash seeds and neighbours."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from hvkernel.machine import HvPfn, Machine, VpTopology

POLICIES = ["fifo", "random:1", "random:99"]


class Scenario:
    """A busy little machine: tasks, interrupts, timers, sharing and random choices; everything goes to `trace`."""

    def __init__(self, policy: str, seed: int = 3) -> None:
        self.trace: list[str] = []
        self.machine = Machine([(0, 1 << 20)], [VpTopology(n, 3 * n + 1) for n in range(4)], seed=seed, policy=policy)
        self.machine.set_trap_handler(self)
        self.machine.set_secondary_entry(self.secondary)
        self.channels = {"storvsc", "netvsc", "kvp", "vss"}
        self.machine.spawn(self.boot, name="boot", irqs=False)

    def note(self, text: str) -> None:
        task = self.machine.current
        self.trace.append(f"{self.machine.clock.now} {task.name if task else '-'} {text}")

    # the host
    def cpuid(self, vp: int, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        return leaf, vp, 0, 0

    def rdmsr(self, vp: int, n: int) -> int:
        return self.machine.clock.now

    def wrmsr(self, vp: int, n: int, v: int) -> None:
        rng = self.machine.rng("host")
        self.machine.clock.after(rng.randrange(300), lambda: self.machine.vps[n].raise_irq(v))
        self.machine.ledger.share(HvPfn(rng.randrange(200)), 1, "gpadl", (v, len(self.trace)), 0, vp)

    def hypercall(self, vp: int, opcode: bytes, regs: tuple[int, ...]) -> tuple[int, ...]:
        self.machine.spawn(self.host_work, regs[0], name=f"host{regs[0]}", side="host")
        return regs

    def mmio_read(self, vp: int, gpa: int, size: int) -> int:
        return 0

    def mmio_write(self, vp: int, gpa: int, size: int, v: int) -> None:
        return None

    io_in = mmio_read
    io_out = mmio_write

    def host_work(self, n: int) -> None:
        for _ in range(3):
            self.note("works")
            self.machine.preempt()
        self.machine.vps[n % 4].raise_irq(100 + n)

    # the guest
    def boot(self) -> None:
        vp = self.machine.boot_vp
        vp.set_entry(lambda vector: self.note(f"irq {vector} on 0"))
        vp.irq_enabled = True
        for other in self.machine.vps[1:]:
            other.start()
        for n, name in enumerate(sorted(self.channels)):
            self.machine.spawn(self.driver, n, name=name, vp=self.machine.vps[n % 4])
        self.driver(7)

    def secondary(self, vp: object) -> None:
        me = self.machine.current_vp
        assert me is not None
        me.set_entry(lambda vector: self.note(f"irq {vector} on {me.vp_index}"))
        me.irq_enabled = True
        self.note("is up")

    def driver(self, n: int) -> None:
        vp = self.machine.current_vp
        assert vp is not None
        for turn in range(6):
            self.note(f"turn {turn} {vp.cpuid(turn)}")
            vp.wrmsr((n + turn) % 4, 10 * n + turn)
            vp.hypercall(b"", (n + turn,))
            self.machine.delay(self.machine.rng("guest").randrange(40))
            self.machine.block(self.machine.clock.now + 25 * (n + 1))

    def finish(self) -> str:
        while self.machine.run() != "idle":
            pass
        return self.close()

    def close(self) -> str:
        self.trace.append(f"{self.machine.close()} {self.machine.stats.as_dict()}")
        self.trace.extend(str(entry) for entry in self.machine.ledger.entries())
        return "\n".join(self.trace)

    def in_pieces(self, steps: int) -> Iterator[None]:
        while self.machine.run(steps=steps) != "idle":
            yield


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_seed_gives_the_same_trace_in_processes_with_other_hash_seeds(policy: str) -> None:
    texts = []
    for hash_seed in ("0", "12345"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        command = [sys.executable, __file__, policy]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        texts.append(done.stdout)
    assert texts[0] == texts[1] == Scenario(policy).finish() + "\n"
    assert len(texts[0].splitlines()) > 200


def test_policy_and_seed_both_matter() -> None:
    texts = [Scenario(policy, seed).finish() for policy in POLICIES for seed in (1, 2)]
    assert len({*texts}) == 6


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("steps", [1, 7])
def test_interleaved_machines_do_not_disturb_each_other(policy: str, steps: int) -> None:
    """Each is stopped in the middle of tasks, interrupts and delays while the other runs."""
    alone = [Scenario(policy, seed) for seed in (1, 2)]
    for scenario in alone:
        for _ in scenario.in_pieces(steps):
            pass
    together = [Scenario(policy, seed) for seed in (1, 2)]
    pieces = [scenario.in_pieces(steps) for scenario in together]
    turns = 0
    while pieces:
        for piece in list(pieces):
            turns += 1
            if next(piece, 0) == 0:
                pieces.remove(piece)
    assert turns > 30
    assert [scenario.close() for scenario in together] == [scenario.close() for scenario in alone]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("steps", [1, 3, 50])
def test_cutting_a_run_into_pieces_changes_nothing(policy: str, steps: int) -> None:
    whole, cut = Scenario(policy), Scenario(policy)
    for _ in cut.in_pieces(steps):
        pass
    assert cut.close() == whole.finish()


@pytest.mark.parametrize("policy", POLICIES)
def test_cutting_a_run_by_time_changes_nothing(policy: str) -> None:
    whole, cut = Scenario(policy), Scenario(policy)
    while cut.machine.run(limit=37) != "idle":
        pass
    assert cut.close() == whole.finish()


def test_one_machine_can_run_inside_a_task_of_another() -> None:
    want = Scenario("random:4").finish()
    with Machine([(0, 4096)], [VpTopology(0, 0)]) as outer:
        assert outer.call(lambda: Scenario("random:4").finish()) == want


if __name__ == "__main__":
    print(Scenario(sys.argv[1]).finish())
