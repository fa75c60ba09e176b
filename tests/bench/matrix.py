"""Print what matrix runs cost. Run it alone: ``python tests/bench/matrix.py [cells|default|store|dask|memory] ...``.

``cells [N]``: N cells with the default device set, each under its own seed, on one process and on two.
``default [N]``: the first N cells of the default spec, on all cores.
``store [N]``: how fast one coordinator takes N results: rows into SQLite, and cells through worker processes that do
nothing. ``dask [N]``: the same through a Dask cluster of two processes. ``memory [N]``: the resident memory of the
workers over N cells of the default spec.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from contextlib import ExitStack
from itertools import islice
from multiprocessing.connection import wait
from pathlib import Path
from statistics import median
from typing import Final

from hvkernel.config.matrix import MatrixSpec, default_spec
from hvkernel.matrix.cover import cells_of
from hvkernel.matrix.model import Cell, CellResult
from hvkernel.matrix.runner import Progress, cores, run
from hvkernel.matrix.store import Store, row_of
from hvkernel.matrix.worker import Cells, Factory, Station, cell_runner

BUDGET: Final = 60.0
"""Cells a second on two processes."""
PLAIN: Final = (("arch", "x86"), ("cpus", "4"), ("memory", "1G"))


def plain_cells(count: int) -> list[Cell]:
    """The default VM under ``count`` seeds."""
    return [Cell(number, PLAIN, number) for number in range(count)]


def wide_cells(count: int) -> list[Cell]:
    """Cells with as many axes as the default spec has; nobody can run them."""
    return [
        Cell(number, tuple((f"axis{n}", str(number % (n + 2))) for n in range(25)), number) for number in range(count)
    ]


def plain_spec() -> MatrixSpec:
    """A spec whose axes are those of :data:`PLAIN`, one value each."""
    return MatrixSpec.model_validate({"axes": {axis: [value] for axis, value in PLAIN}})


def idle_cells() -> type[Cells]:
    """Cells that do nothing, of a module that workers find on their path: what is left is the coordinator's cost."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "data" / "matrix"))
    from fake_cells import FakeCells

    return FakeCells


def cpu_seconds() -> float:
    """CPU time of this process and of the workers that it has buried."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def measure(cells: list[Cell], spec: MatrixSpec, jobs: int, factory: Factory = cell_runner) -> tuple[float, float]:
    """Cells a second of wall clock, without loading; and the least CPU time of a cell, ms."""
    first: list[Progress] = []
    before = cpu_seconds()
    with tempfile.TemporaryDirectory() as directory, Store(Path(directory, "store"), spec) as store:

        def note(progress: Progress) -> None:
            if not first and progress.done >= 2 * jobs:
                first.append(progress)

        last = run(spec, cells, store, factory=factory, jobs=jobs, progress=note)
        costs = [result.cpu_ms for result in store.results()]
        for result in store.failures():
            print(f"  cell {result.cell.number}: {result.problems[0].text}")
        print(f"  {last.done} cells, {last.failed} failed, {last.seconds:.1f} s with loading")
        begin = first[0]
        whole = (cpu_seconds() - before) * 1e3 / last.done
        own = f"least {min(costs):.2f} ms, median {median(costs):.2f} ms; " if factory is cell_runner else ""
        print(f"  CPU time of a cell: {own}{whole:.2f} ms with loading and the coordinator")
        return (last.done - begin.done) / max(1e-9, last.seconds - begin.seconds), min(costs)


def bench_cells(count: int) -> None:
    """One process against two."""
    spec, cells = plain_spec(), plain_cells(count)
    one, _ = measure(cells, spec, 1)
    print(f"one process:   {one:7.1f} cells/s")
    two, cost = measure(cells, spec, 2)
    print(f"two processes: {two:7.1f} cells/s (budget {BUDGET:g})")
    print(f"two against one: {two / one:.2f}; by the least CPU time two cores would make {2000 / cost:.1f} cells/s")


def bench_default(count: int) -> None:
    """The default spec."""
    spec = default_spec()
    cells = list(cells_of(spec))[:count]
    rate, _ = measure(cells, spec, cores())
    print(f"default spec, {cores()} processes: {rate:.1f} cells/s")


def bench_store(count: int) -> None:
    """The coordinator alone."""
    cells = wide_cells(count)
    began = time.perf_counter()
    rows = [row_of(CellResult(cell, "pass", "up", "invariants", (), (), 10**8, 10**4, 20.0)) for cell in cells]
    print(f"row_of(), a worker's work:  {count / (time.perf_counter() - began):9.0f} rows/s")
    for batch in (1, 16, 256):
        with tempfile.TemporaryDirectory() as directory, Store(Path(directory, "store"), plain_spec()) as store:
            began = time.perf_counter()
            for at in range(0, count, batch):
                store.add_rows(rows[at : at + batch])
            rate = count / (time.perf_counter() - began)
            size = os.path.getsize(Path(directory, "store")) + os.path.getsize(Path(directory, "store-wal"))
            print(f"add_rows(), {batch:3} at a time:  {rate:9.0f} rows/s, {size / count:.0f} bytes a row")
    for jobs in (1, 2):
        rate, _ = measure(cells, plain_spec(), jobs, idle_cells())
        print(f"through {jobs} process(es):      {rate:9.0f} cells/s")


def bench_dask(count: int) -> None:
    """A coordinator and a scheduler with nothing to do but to hand on."""
    from distributed import LocalCluster

    from hvkernel.matrix.distributed import run_on

    spec, cells, factory = plain_spec(), wide_cells(count), idle_cells()
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as cluster,
        tempfile.TemporaryDirectory() as directory,
        Store(Path(directory, "store"), spec) as store,
    ):
        began = time.process_time()
        last = run_on(cluster.scheduler_address, spec, cells, store, factory=factory)
        cpu = time.process_time() - began
        print(f"through a Dask cluster: {last.rate:9.0f} cells/s; {cpu / count * 1e6:.0f} us of CPU a cell here")


def bench_memory(count: int) -> None:
    """Resident memory of the workers on all cores, over cells of the default spec under as many seeds as it takes."""
    spec = default_spec().model_copy(update={"least": count})
    todo = islice(cells_of(spec), count)
    marks = {1, 10, 100, *(count * tenth // 10 for tenth in range(1, 11))}
    done = failed = 0
    began = time.perf_counter()
    with ExitStack() as stack:
        stations = [stack.enter_context(Station(cell_runner, spec.to_json())) for _ in range(cores())]
        most = [0.0] * len(stations)
        while True:
            for station in stations:
                station.give(islice(todo, max(0, 8 - len(station.pending))))
            if not any(station.pending for station in stations):
                break
            wait([station.link for station in stations], timeout=1.0)
            for row in [row for station in stations for row in station.collect()]:
                done += 1
                failed += row.status != "pass"
                if done in marks:
                    now = [resident(station.process.pid) for station in stations]
                    most = [max(pair) for pair in zip(most, now, strict=True)]
                    sizes = " ".join(f"{size:6.1f}" for size in now)
                    print(f"after {done:7} cells, {time.perf_counter() - began:7.0f} s: {sizes} MB", flush=True)
        replaced = sum(station.replaced for station in stations)
    print(f"{failed} failed, {replaced} workers replaced, at most {max(most):.1f} MB at these moments")


def resident(pid: int) -> float:
    """MB of memory that a process has in use."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / (1 << 20)


def main() -> int:
    """Run the parts that are named, by default ``cells`` and ``store``."""
    parts = {
        "cells": (bench_cells, 300),
        "default": (bench_default, 1000),
        "store": (bench_store, 20_000),
        "dask": (bench_dask, 20_000),
        "memory": (bench_memory, 1000),
    }
    words = sys.argv[1:] or ["cells", "store"]
    while words:
        part, count = parts[words.pop(0)]
        if words and words[0].isdecimal():
            count = int(words.pop(0))
        part(count)
    return 0


if __name__ == "__main__":
    sys.exit(main())
