"""``hvkernel bench``: what a boot and the ring cost on this machine. The one command that reads the clock."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from hvkernel.ring.bench import Row

PROCESS_RUNS = 7


@dataclass(frozen=True, slots=True)
class Times:
    """Repeated measurements of one thing, in milliseconds of wall clock."""

    what: str
    runs: int
    least_ms: float
    median_ms: float
    most_ms: float

    @classmethod
    def of(cls, what: str, seconds: list[float]) -> Times:
        """Summarise measurements in seconds."""
        return cls(what, len(seconds), min(seconds) * 1e3, median(seconds) * 1e3, max(seconds) * 1e3)


def _clock(call: Callable[[], object]) -> float:
    began = perf_counter()
    call()
    return perf_counter() - began


def _process(*arguments: str) -> None:
    command = [sys.executable, "-c", "from hvkernel.cli import main; main()", *arguments]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)


@click.command("bench")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@click.option("--boots", default=50, show_default=True, type=click.IntRange(1), help="In-process boots to time.")
@click.option("--ring/--no-ring", default=True, help="Measure the ring, too (needs gcc for what it is compared with).")
@click.pass_context
def command(ctx: click.Context, as_json: bool, boots: int, ring: bool) -> None:
    """Measure boots (as a process and in one) and, side by side, the ring, the same protocol in C, and memcpy.

    Ends with 1 if the ring misses one of its floors.
    """
    reference = None
    if ring:
        from hvkernel.ring.reference import NoCompilerError, build

        try:
            reference = build()
        except NoCompilerError as error:
            raise click.UsageError(f"{error}; --no-ring leaves the ring out") from None
    from hvkernel.boot.plugins import load
    from hvkernel.boot.request import read_request
    from hvkernel.boot.session import boot, configure

    request, plugins = read_request(), load()
    boot(request, plugins)
    # What is loaded by now stays: looking through it again and again for garbage is no part of a boot.
    gc.collect()
    gc.freeze()
    try:
        began = perf_counter()
        whole = [_clock(lambda: boot(request, plugins)) for _ in range(boots)]
        per_second = boots / (perf_counter() - began)
    finally:
        gc.unfreeze()
    times = [
        Times.of("hvkernel --version, process", [_clock(lambda: _process("--version")) for _ in range(PROCESS_RUNS)]),
        Times.of("hvkernel boot, process", [_clock(lambda: _process("boot")) for _ in range(PROCESS_RUNS)]),
        Times.of("boot in-process: 4 CPUs, azure-gen2", whole),
        Times.of("  of it: .config and Kconfig", [_clock(lambda: configure(request, plugins)) for _ in range(boots)]),
    ]
    rows: list[Row] = []
    if reference is not None:
        from hvkernel.ring.bench import measure

        rows = list(measure(reference))
    if as_json:
        document = {
            "schema": 1,
            "times": [asdict(row) for row in times],
            "boots_per_second": per_second,
            "ring": [row.as_dict() for row in rows],
        }
        click.echo(json.dumps(document, indent=2))
        ctx.exit(int(any(not row.ok for row in rows)))
    click.echo(f"{'what':38} {'runs':>5} {'least':>10} {'median':>10} {'most':>10}")
    for row in times:
        click.echo(f"{row.what:38} {row.runs:5} {row.least_ms:7.1f} ms {row.median_ms:7.1f} ms {row.most_ms:7.1f} ms")
    click.echo(f"boots per second, one process: {per_second:.1f}")
    if rows:
        from hvkernel.ring.bench import table

        click.echo(f"\n{table(rows)}")
    ctx.exit(int(any(not row.ok for row in rows)))
