"""Measure the ring against the C reference and memcpy: ``python tests/bench/ring.py [--markdown [RUNS]]``.

Run it alone. It prints what ``hvkernel bench`` prints of the ring and ends with 1 if a floor is missed. With
``--markdown`` it prints the table of the README: the ranges of three (or RUNS) runs one after the other, and the load
of the machine before and after.
"""

from __future__ import annotations

import os
import sys

from hvkernel.ring.bench import markdown, measure, table
from hvkernel.ring.reference import NoCompilerError, build


def main() -> int:
    try:
        reference = build()
    except NoCompilerError as error:
        print(error, file=sys.stderr)
        return 2
    if sys.argv[1:2] == ["--markdown"]:
        before = os.getloadavg()[0]
        count = int(sys.argv[2]) if len(sys.argv) > 2 else 3
        runs = [list(measure(reference)) for _ in range(count)]
        print(markdown(runs))
        print(f"\n{count} runs, load of the machine (one minute) {before:.1f} before, {os.getloadavg()[0]:.1f} after")
        return int(not all(row.ok for rows in runs for row in rows))
    rows = list(measure(reference))
    print(table(rows))
    return int(not all(row.ok for row in rows))


if __name__ == "__main__":
    sys.exit(main())
