"""Print what ``hvkernel check`` costs as a process, and where that goes. Run it alone: ``python tests/bench/check.py``.

CPU time of whole processes, the least of several: other programs on the machine count less. The first column is an
interpreter that imports nothing of ours.
"""

from __future__ import annotations

import cProfile
import gzip
import pstats
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from hvkernel.check.run import CheckRequest, check

CONFIG = Path(__file__).parents[1] / "data" / "configs" / "debian12-6.1.192-amd64.config.gz"
"""10,644 lines."""
BUDGET = 0.5
RUNS = 7


def spent(*command: str) -> float:
    """Seconds of CPU that a command takes, the least of :data:`RUNS`."""
    least = float("inf")
    for _ in range(RUNS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        least = min(least, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    return least


def main() -> None:
    """Measure, then profile one check in this process."""
    with tempfile.TemporaryDirectory() as directory:
        config = Path(directory) / "config"
        config.write_bytes(gzip.decompress(CONFIG.read_bytes()))
        program = (str(Path(sys.executable).with_name("hvkernel")), "check", str(config))
        for what, command in (
            ("python -c pass", (sys.executable, "-c", "pass")),
            ("hvkernel --version", (program[0], "--version")),
            ("check", program),
            ("check --to-release 7.1", (*program, "--to-release", "7.1")),
            ("check --target all", (*program, "--target", "all")),
        ):
            print(f"{spent(*command):6.3f} s CPU  {what}")
        print(f"budget: {BUDGET} s for check of {config.read_text().count(chr(10))} lines")
        profile = cProfile.Profile()
        profile.runcall(check, CheckRequest(config))
        pstats.Stats(profile).sort_stats("tottime").print_stats(12)


if __name__ == "__main__":
    main()
