"""Run interleavings by the thousand: ``python tests/properties/fuzz.py [--seeds N] [--from SEED] [--seed SEED]``."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "data/plugins"))


def main() -> int:
    """Run; 1 when a seed failed."""
    from interleavings import make_plan, run_plan
    from loom_guest import load_with_loom

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20_000, help="how many")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first one")
    parser.add_argument("--seed", type=int, help="only this one, told in full")
    given = parser.parse_args()
    first, count = (given.first, given.seeds) if given.seed is None else (given.seed, 1)
    failed = 0
    known: Counter[str] = Counter()
    began = time.process_time()
    with tempfile.TemporaryDirectory() as path:
        plugins = load_with_loom(Path(path))
        for number in range(count):
            result = run_plan(make_plan(first + number), plugins)
            known.update(set(result.known))
            if result.wrong:
                failed += 1
                print(f"FAILED seed {result.plan.seed}\n{result}", flush=True)
            elif given.seed is not None:
                print(f"{result.plan}\nok, digest {result.digest}")
            if (number + 1) % 100 == 0 or number + 1 == count:
                spent = time.process_time() - began
                print(
                    f"{number + 1}/{count} seeds, {failed} failed, "
                    f"{sum(known.values())} in known waits, {spent / (number + 1) * 1000:.0f} ms each",
                    flush=True,
                )
    for name, times in known.items():
        print(f"known: {name}: {times}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
