"""The bench command's manners; what it measures is never asserted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


def bench(*arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    code = "from hvkernel.cli import main; main()"
    env = os.environ | ({} if path is None else {"PATH": path})
    return subprocess.run([sys.executable, "-c", code, "bench", *arguments], capture_output=True, text=True, env=env)


def test_boots_are_timed_without_the_ring() -> None:
    done = bench("--no-ring", "--boots", "1", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert sorted(document) == ["boots_per_second", "ring", "schema", "times"]
    assert (document["schema"], document["ring"]) == (1, [])
    assert all(row["least_ms"] > 0 for row in document["times"])


def test_without_a_compiler_it_says_so_before_it_measures(tmp_path: Path) -> None:
    done = bench(path=str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "hvkernel: gcc: not found; the C reference of the ring needs it (Debian package gcc); "
        "--no-ring leaves the ring out"
    ]
