"""Print the ring's figures and compare the memcpy ratios with floors. Run it alone: ``python tests/bench/ring.py``.

The floors for 1500 bytes and up are fractions of the memcpy limit; below that the limit is not copying but the
barriers, so that nanoseconds are printed and not judged.
"""

from __future__ import annotations

import sys

from hvkernel.ring.bench import measure

FLOORS = {1500: 0.85, 4096: 0.85, 16384: 0.85}


def main() -> int:
    slow = 0
    print(f"{'payload':>8} {'batch':>6} {'loop':>7} {'ns/packet':>10} {'memcpy ns':>10} {'ratio':>6} {'floor':>6}")
    for row in measure(budget_ms=60, repeats=11):
        floor = FLOORS.get(row.payload)
        missed = floor is not None and row.memcpy_ratio < floor
        slow += missed
        print(
            f"{row.payload:>8} {row.batch:>6} {row.loop:>7} {row.ns_per_packet:>10.2f} {row.memcpy_ns:>10.2f} "
            f"{row.memcpy_ratio:>6.2f} {floor if floor is not None else '':>6} {'TOO SLOW' if missed else ''}"
        )
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
