"""Write hvkernel/matrix/data/default.json: the covering array of the default spec.

Run it when tests/matrix/test_cover.py says that the array is of other axes or constraints.
"""

from __future__ import annotations

import time
from pathlib import Path

from hvkernel.boot.plugins import load
from hvkernel.config.matrix import default_spec
from hvkernel.matrix.axes import axes_of, plugin_axes
from hvkernel.matrix.cover import array_key, array_text, covering_array
from hvkernel.matrix.legal import legal


def main() -> None:
    """Make the array and write it beside the spec."""
    spec, plugins = default_spec(), load()
    order = tuple(spec.varied)
    began = time.perf_counter()
    found = legal(spec, axes_of(spec, plugin_axes(plugins)), plugins)
    known = time.perf_counter()
    rows = covering_array(found, order)
    made = time.perf_counter()
    file = Path(__file__).parent.parent / "hvkernel" / "matrix" / "data" / "default.json"
    file.write_text(array_text(array_key(found, order, 2), order, rows), "utf-8")
    print(f"{len(order)} axes, {found.count:.3g} cells known in {known - began:.2f} s")
    print(f"{len(rows)} rows made in {made - known:.2f} s")


if __name__ == "__main__":
    main()
