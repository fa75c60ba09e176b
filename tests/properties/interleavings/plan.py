"""What one seed does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, Final

US: Final = 10
"""Units of 100 ns in a microsecond."""

GUESTS: Final = (
    ("debian12-6.1.192-cloud-amd64", ("azure-gen2", "ws2022", "ws2016", "ws2025")),
    ("debian12-6.1.192-cloud-arm64", ("azure-arm64",)),
    ("azurelinux3-64k-aarch64", ("azure-arm64",)),
    ("alpine-virt.x86", ("ws2022/gen1", "ws2016/gen1")),
)
"""Configurations and the hosts that they are booted on."""

GAPS: Final = (0, 3 * US, 30 * US, 300 * US, 3_000 * US)
"""Longest time from one operation to the next; which of them is drawn for each."""

OPERATIONS: Final[tuple[tuple[str, int], ...]] = (
    ("traffic", 10),
    ("lend", 3),
    ("reopen", 4),
    ("unbind", 2),
    ("bind", 3),
    ("modify", 6),
    ("offline", 4),
    ("online", 4),
    ("offer", 3),
    ("rescind", 4),
    ("reoffer", 3),
    ("subchannels", 3),
)
"""Names (methods of :class:`interleavings.operations.Operations`) and how often they are drawn."""

CLASHES: Final = (
    ("reopen", "rescind"),
    ("rescind", "reopen"),
    ("reopen", "modify"),
    ("modify", "rescind"),
    ("subchannels", "reopen"),
    ("unbind", "rescind"),
    ("reoffer", "unbind"),
    ("traffic", "reopen"),
)
"""Operations of which the second shall come into the middle of the first."""

ENDINGS: Final[tuple[tuple[str, int], ...]] = (("rescind", 6), ("unbind", 3), ("kexec", 2), ("panic", 1))
"""How a run ends: the devices go, the driver goes, the guest goes."""


@dataclass(frozen=True, slots=True)
class Step:
    """One operation."""

    at: int
    """When it begins, 100 ns units after the first moment."""
    name: str
    numbers: tuple[int, int, int]
    """What it is done to; each operation takes them modulo what there is."""

    def __str__(self) -> str:
        return f"{self.at / US:10.1f} us  {self.name:12} {' '.join(str(number) for number in self.numbers)}"


@dataclass(frozen=True, slots=True)
class Plan:
    """One run."""

    seed: int
    config: str
    vm: Mapping[str, Any]
    looms: tuple[Mapping[str, Any], ...]
    """Parameters of the looms that there can be; the first operations offer them."""
    steps: tuple[Step, ...]
    ending: str
    starving: bool
    """From the first operation on, the policy of :mod:`interleavings.policy` instead of ``random:SEED``."""

    def __str__(self) -> str:
        lines = [
            f"seed {self.seed}: {self.config} on {dict(self.vm)}",
            *(f"loom{number}: {dict(parameters)}" for number, parameters in enumerate(self.looms)),
            *map(str, self.steps),
            f"ending: {self.ending}{', starving' if self.starving else ''}",
        ]
        return "\n".join(lines)


def make_plan(seed: int) -> Plan:
    """Draw the run that ``seed`` stands for."""
    rng = Random(f"interleavings/{seed}")
    config, hosts = rng.choice(GUESTS)
    host, _, generation = rng.choice(hosts).partition("/gen")
    cpus = rng.choice((2, 3, 4, 6))
    vm: dict[str, Any] = {
        "host": host,
        "generation": int(generation or 2),
        "cpus": cpus,
        "memory": "256M",
        "devices": ["ide" if generation else "scsi"],
        "seed": seed,
        "policy": f"random:{seed}",
    }
    if cpus % 2 == 0 and rng.random() < 0.4:
        vm["numa"] = [{"cpus": cpus // 2, "memory": "128M"}] * 2
    looms = tuple(_loom(rng) for _ in range(rng.choice((1, 2, 2, 3))))
    steps = [Step(0, "offer", (number, 0, 0)) for number in range(len(looms))]
    at = 0
    for _ in range(rng.randint(5, 12)):
        at += int(rng.random() * rng.choice(GAPS))
        (name,) = rng.choices([name for name, _ in OPERATIONS], [often for _, often in OPERATIONS])
        number = rng.randrange(len(looms))
        steps.append(Step(at, name, (number, rng.randrange(64), rng.randrange(64))))
        if rng.random() < 0.3:
            # Something else of the same device, at about the same time.
            for other in rng.choice(CLASHES):
                at += int(rng.random() * 30 * US)
                steps.append(Step(at, other, (number, rng.randrange(64), rng.randrange(64))))
    (ending,) = rng.choices([name for name, _ in ENDINGS], [often for _, often in ENDINGS])
    return Plan(seed, config, vm, looms, tuple(steps), ending, rng.random() < 0.5)


def _loom(rng: Random) -> dict[str, Any]:
    given: dict[str, Any] = {"subchannels": rng.choice((0, 1, 3, 5))}
    if rng.random() < 0.3:
        given.update(monitored=True, monitor_latency=rng.choice((1, 100, 5000)))
    if rng.random() < 0.3:
        given["answer_latency"] = rng.choice((10, 1000, 20_000))
    if rng.random() < 0.3:
        given["chatter"] = rng.choice((30, 300, 3000))
    if rng.random() < 0.1:
        given["refused_opens"] = rng.randint(1, 3)
    return given
