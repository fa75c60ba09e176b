"""What a machine has to tell: findings, counters, and whose code a frame is."""

from __future__ import annotations

from dataclasses import dataclass

from hvkernel.machine.accessor import Side


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a sanitizer, the guest or the host noticed. Part of the report, never of the behaviour."""

    kind: str
    """Short class name: "use-after-free", "lock-order", "tolerated"."""
    side: Side
    text: str
    """One or more lines for a person."""
    t: int
    """Virtual time, 100 ns units."""
    where: tuple[str, ...] = ()
    """The guest's call chain, innermost first: "function (file)"."""


class Stats:
    """Counters of one machine, for reports. None of them influences anything."""

    __slots__ = (
        "cpuid",
        "hypercall",
        "interrupts",
        "io",
        "mmio",
        "rdmsr",
        "spawned",
        "steps",
        "switches",
        "timers",
        "wrmsr",
    )

    def __init__(self) -> None:
        self.cpuid = self.rdmsr = self.wrmsr = self.hypercall = self.mmio = self.io = 0
        self.interrupts = self.switches = self.timers = self.spawned = self.steps = 0

    @property
    def traps(self) -> int:
        """Traps of all kinds."""
        return self.cpuid + self.rdmsr + self.wrmsr + self.hypercall + self.mmio + self.io

    def as_dict(self) -> dict[str, int]:
        """Name and value, sorted by name."""
        return {name: getattr(self, name) for name in self.__slots__}


def guest_module(name: str) -> bool:
    """True if module `name` holds guest code: the kernel slice, drivers/hv, a VSC, an architecture's guest side."""
    if name.startswith(("hvkernel.linux", "hvkernel.hv")):
        return True
    return any(part == "vsc" or part.startswith(("vsc_", "guest")) for part in name.split(".")[1:]) and not (
        name.startswith("hvkernel.api.")
    )
