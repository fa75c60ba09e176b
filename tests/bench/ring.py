"""Measure the ring against the C reference and memcpy: ``python tests/bench/ring.py [--markdown [RUNS] | --readme]``.

Run it alone. It prints what ``hvkernel bench`` prints of the ring and ends with 1 if a floor is missed. With
``--markdown`` it prints the table of the README: the ranges of three (or RUNS) runs one after the other, and the load
of the machine before and after; ``--readme`` puts that table into the README.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hvkernel.ring.bench import markdown, measure, table
from hvkernel.ring.reference import NoCompilerError, build

README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- python tests/bench/ring.py --readme: begin -->\n", "<!-- end -->\n"


def into_readme(text: str) -> None:
    """Put *text* between the marks of the README."""
    before, rest = README.read_text("utf-8").split(BEGIN)
    _, after = rest.split(END, 1)
    README.write_text(f"{before}{BEGIN}{text}\n{END}{after}", "utf-8")


def main() -> int:
    try:
        reference = build()
    except NoCompilerError as error:
        print(error, file=sys.stderr)
        return 2
    if sys.argv[1:2] in (["--markdown"], ["--readme"]):
        before = os.getloadavg()[0]
        count = int(sys.argv[2]) if len(sys.argv) > 2 else 3
        runs = [list(measure(reference)) for _ in range(count)]
        load = f"Load of the machine in the minute before: {before:.1f}, in the last one: {os.getloadavg()[0]:.1f}."
        text = f"{markdown(runs)}\n\n{load}"
        print(text)
        if sys.argv[1] == "--readme":
            into_readme(text)
        return int(not all(row.ok for rows in runs for row in rows))
    rows = list(measure(reference))
    print(table(rows))
    return int(not all(row.ok for row in rows))


if __name__ == "__main__":
    sys.exit(main())
