"""Shared pieces of the machine's tests: a small machine, and a host that answers every trap."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hvkernel.machine import GeneralProtectionFault, Machine, VpTopology

MIB = 1 << 20


class EchoHost:
    """A trap handler that records what it is asked; tests put functions into `on`."""

    def __init__(self) -> None:
        self.log: list[tuple[Any, ...]] = []
        self.registers: dict[int, int] = {}
        self.on: dict[str, Callable[..., Any]] = {}

    def _note(self, name: str, *args: Any) -> Any:
        self.log.append((name, *args))
        fn = self.on.get(name)
        return fn(*args) if fn else None

    def cpuid(self, vp: int, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        self._note("cpuid", vp, leaf, subleaf)
        return leaf, subleaf, vp, 0

    def rdmsr(self, vp: int, n: int) -> int:
        self._note("rdmsr", vp, n)
        if n not in self.registers:
            raise GeneralProtectionFault(n)
        return self.registers[n]

    def wrmsr(self, vp: int, n: int, v: int) -> None:
        self.registers[n] = v
        self._note("wrmsr", vp, n, v)

    def hypercall(self, vp: int, opcode: bytes, regs: tuple[int, ...]) -> tuple[int, ...]:
        self._note("hypercall", vp, opcode, regs)
        return tuple(n + 1 for n in regs)

    def mmio_read(self, vp: int, gpa: int, size: int) -> int:
        self._note("mmio_read", vp, gpa, size)
        return gpa & 0xFF

    def mmio_write(self, vp: int, gpa: int, size: int, v: int) -> None:
        self._note("mmio_write", vp, gpa, size, v)

    def io_in(self, vp: int, port: int, size: int) -> int:
        self._note("io_in", vp, port, size)
        return port

    def io_out(self, vp: int, port: int, size: int, v: int) -> None:
        self._note("io_out", vp, port, size, v)


Make = Callable[..., Machine]


@pytest.fixture
def make() -> Iterator[Make]:
    """A function that makes machines and an end that closes them: ``make(vps=2, ram=..., policy=...)``.

    VP index, hardware id and position in the list are three different numbers.
    """
    made: list[Machine] = []

    def build(vps: int = 2, ram: Any = ((0, MIB),), started: bool = True, **kwargs: Any) -> Machine:
        machine = Machine(ram=ram, vps=[VpTopology(n, 0x10 + 2 * n, n % 2) for n in range(vps)], **kwargs)
        machine.set_trap_handler(EchoHost())
        for vp in machine.vps if started else ():
            vp.started = True
        made.append(machine)
        return machine

    yield build
    for machine in made:
        machine.close()


@pytest.fixture
def host() -> EchoHost:
    """A trap handler to hand to a machine."""
    return EchoHost()
