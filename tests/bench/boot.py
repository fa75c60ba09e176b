"""Print what one in-process boot costs, by phase. Run it alone: ``python tests/bench/boot.py [BOOTS [CONFIG]]``.

Times are CPU time, so that other programs on the machine count less; the least of many boots counts least of them.
The yardstick, a plain loop of a million steps, tells how fast the interpreter is on this machine at this moment.
"""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any
from unittest.mock import patch

from hvkernel.boot.plugins import Plugins, load
from hvkernel.boot.request import BootRequest, read_request
from hvkernel.boot.session import Session, compose
from hvkernel.host.vmbus import worker
from hvkernel.host.vmbus.channel import ServerChannel
from hvkernel.host.vmbus.packets import parse_packet

PHASES = ("compose", "boot", "report", "close")
BUDGET_MS = 20.0


def yardstick() -> float:
    """Milliseconds of CPU for a million steps of an empty loop."""
    began = process_time()
    for _ in range(1_000_000):
        pass
    return (process_time() - began) * 1e3


def session_of(request: BootRequest, plugins: Plugins) -> Session:
    """A composed session; :raises SystemExit: the VM cannot run this kernel."""
    session = compose(request, plugins)
    if not isinstance(session, Session):
        raise SystemExit(f"{session.report.outcome}: {session.report.reason}")
    return session


def phases(request: BootRequest, plugins: Plugins) -> list[float]:
    """Milliseconds of CPU of each of :data:`PHASES` of one boot."""
    at = [process_time()]
    session = session_of(request, plugins)
    at.append(process_time())
    session.boot()
    at.append(process_time())
    session.report()
    at.append(process_time())
    session.close()
    at.append(process_time())
    return [(b - a) * 1e3 for a, b in pairwise(at)]


def counts(request: BootRequest, plugins: Plugins) -> str:
    """What one boot does: traps, hypercalls, packets in both directions, scheduler switches."""
    seen: Counter[str] = Counter()

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            seen[name] += 1
            return function(*args)

        return call

    with (
        patch.object(worker, "parse_packet", counted("in", parse_packet)),
        patch.object(ServerChannel, "_send", counted("out", ServerChannel._send)),
        session_of(request, plugins) as session,
    ):
        session.boot()
        stats = session.machine.stats
        return (
            f"{stats.traps} traps, of them {stats.hypercall} hypercalls; {seen['in']} packets to the host, "
            f"{seen['out']} to the guest; {stats.interrupts} interrupts, {stats.switches} task switches"
        )


def main() -> int:
    boots = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    request = read_request(config=Path(sys.argv[2]) if len(sys.argv) > 2 else None)
    plugins = load()
    began = process_time()
    phases(request, plugins)
    first = (process_time() - began) * 1e3
    gc.collect()
    gc.freeze()
    sticks, rows = [], []
    for _ in range(boots):
        sticks.append(yardstick())
        rows.append(phases(request, plugins))
    print(counts(request, plugins))
    print(f"{'phase':10} {'least':>8} {'median':>8}  (ms of CPU, {boots} boots after a first one of {first:.0f} ms)")
    for name, values in zip(PHASES, zip(*rows, strict=True), strict=True):
        print(f"{name:10} {min(values):8.2f} {median(values):8.2f}")
    whole = [sum(row) for row in rows]
    print(f"{'whole':10} {min(whole):8.2f} {median(whole):8.2f}  budget {BUDGET_MS:.0f}")
    print(f"{'yardstick':10} {min(sticks):8.2f} {median(sticks):8.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
