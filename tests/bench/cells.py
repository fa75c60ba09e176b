"""Print how many cells one process runs in a second. Run it alone: ``python tests/bench/cells.py [CELLS [CELL]]``.

A cell is written as for ``hvkernel matrix --cell``; the default ones have the profile's devices and no events. Times
are CPU time. The yardstick, a plain loop of a million steps, tells how fast the interpreter is at this moment.
"""

from __future__ import annotations

import gc
import resource
import sys
from statistics import median
from time import process_time

from hvkernel.config.matrix import MatrixSpec
from hvkernel.matrix.axes import built_in_axes
from hvkernel.matrix.cell import CellRunner
from hvkernel.matrix.model import Cell

CELLS = ("arch=x86,host=azure-gen2/gen2", "arch=x86,host=ws2022/gen2", "arch=arm64,page_size=64K")
AIM = 30.0
"""Cells a second of one process."""


def yardstick() -> float:
    """Milliseconds of CPU for a million steps of an empty loop."""
    began = process_time()
    for _ in range(1_000_000):
        pass
    return (process_time() - began) * 1e3


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    texts = sys.argv[2:] or list(CELLS)
    names = {name: axis.values for name, axis in built_in_axes().items()}
    runner = CellRunner(MatrixSpec(axes=names), sample=0)
    sticks, costs = [], []
    for number in range(-len(texts), count):
        text = texts[number % len(texts)]
        values = dict(part.split("=") for part in text.split(","))
        cell = Cell(number, tuple((name, values[name]) for name in names if name in values), max(number, 0))
        if number == 0:
            gc.collect()
            gc.freeze()
        began = process_time()
        result = runner.run(cell)
        cost = (process_time() - began) * 1e3
        if result.status != "pass":
            raise SystemExit(f"{text}: {result.status}: {result.problems}")
        if number >= 0:
            costs.append(cost)
        if number % 10 == 0:
            sticks.append(yardstick())
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{count} cells of {len(texts)} kinds, {size:.0f} MB at most")
    print(f"{'ms of CPU':10} {'least':>8} {'median':>8} {'mean':>8}")
    print(f"{'cell':10} {min(costs):8.2f} {median(costs):8.2f} {sum(costs) / count:8.2f}")
    print(f"{'yardstick':10} {min(sticks):8.2f} {median(sticks):8.2f}")
    print(f"{1e3 * count / sum(costs):.1f} cells a second; aim {AIM:.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
