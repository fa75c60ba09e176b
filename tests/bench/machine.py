"""What the machine's primitives cost, in nanoseconds: ``python tests/bench/machine.py``.

Each figure is the least processor time of several repeats, so that other load on the computer hardly counts.
Not a test: it asserts nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from time import process_time
from timeit import repeat

from hvkernel.machine import HvPfn, Machine, VpTopology

PASSES = 20_000


class Host:
    """The cheapest host there can be: the figures are the boundary's own."""

    def cpuid(self, vp: int, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        return 0, 0, 0, 0

    def rdmsr(self, vp: int, n: int) -> int:
        return 0

    def wrmsr(self, vp: int, n: int, v: int) -> None:
        pass

    def hypercall(self, vp: int, opcode: bytes, regs: tuple[int, ...]) -> tuple[int, ...]:
        return regs

    def mmio_read(self, vp: int, gpa: int, size: int) -> int:
        return 0

    def mmio_write(self, vp: int, gpa: int, size: int, v: int) -> None:
        pass

    def io_in(self, vp: int, port: int, size: int) -> int:
        return 0

    def io_out(self, vp: int, port: int, size: int, v: int) -> None:
        pass


def best(fn: Callable[[], object], passes: int = PASSES) -> float:
    """Nanoseconds per call."""
    return min(repeat(fn, number=passes, repeat=5, timer=process_time)) / passes * 1e9


def _machine(policy: str = "fifo") -> Machine:
    machine = Machine(ram=[(0, 64 << 20)], vps=[VpTopology(n, n) for n in range(2)], policy=policy)
    machine.set_trap_handler(Host())
    return machine


def measure() -> list[tuple[str, float]]:
    """(what, nanoseconds) rows."""
    rows: list[tuple[str, float]] = []
    with _machine() as machine:
        guest = machine.memory.guest
        vmap = guest.vmap([HvPfn(n) for n in (8, 3, 4, 5)])
        page, line = bytes(4096), bytes(64)
        for what, fn in (
            ("load32", lambda: guest.load32(0x1000)),
            ("store32", lambda: guest.store32(0x1000, 1)),
            ("load64", lambda: guest.load64(0x1000)),
            ("read 64 bytes", lambda: guest.read(0x1000, 64)),
            ("write 64 bytes", lambda: guest.write(0x1000, line)),
            ("write 4096 bytes over two pages", lambda: guest.write(0x1800, page)),
            ("sync_set_bit", lambda: guest.sync_set_bit(0x1000, 17)),
            ("vmap load32", lambda: vmap.load32(0x1000)),
            ("vmap store32", lambda: vmap.store32(0x1000, 1)),
            ("vmap read 64 bytes", lambda: vmap.read(0x1000, 64)),
            ("vmap write 64 bytes", lambda: vmap.write(0x1000, line)),
            ("vmap write 64 bytes over two pages", lambda: vmap.write(0xFE0, line)),
        ):
            rows.append((what, best(fn)))

        def view() -> None:
            with guest.view(0x1000, 64):
                pass

        rows.append(("view, enter and leave", best(view)))
        vp = machine.vps[0]
        inside: list[tuple[str, float]] = []

        def traps() -> None:
            inside.append(("trap: cpuid", best(lambda: vp.cpuid(1))))
            inside.append(("trap: wrmsr", best(lambda: vp.wrmsr(1, 2))))
            inside.append(("trap: hypercall", best(lambda: vp.hypercall(b"\x0f\x01\xc1", (1, 2, 3)))))
            inside.append(("preemption point", best(machine.preempt)))
            vp.set_entry(lambda vector: None)

            def interrupt() -> None:
                vp.raise_irq(3)
                machine.preempt()

            inside.append(("interrupt, raise and take", best(interrupt)))
            inside.append(("yield: scheduler and back", best(machine.yield_now)))
            machine.spawn(machine.block, 1 << 40, name="other", vp=machine.vps[1])
            machine.vps[1].started = True
            inside.append(("delay: timer, scheduler and back", best(lambda: machine.delay(1))))
            inside.append(("timer, arm and cancel", best(lambda: machine.clock.after(1000, interrupt).cancel())))

        machine.call(traps)
        rows.extend(inside)
        rows.append(("task: spawn, run, end", best(lambda: machine.call(int), 2_000)))
    rows.append(("machine: make and close, 64 MiB", best(lambda: _machine().close(), 200)))
    return rows


if __name__ == "__main__":
    for what, nanoseconds in measure():
        print(f"{what:40s} {nanoseconds:10.0f} ns")
