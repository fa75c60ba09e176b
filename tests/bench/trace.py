"""Print what watching a boot costs. Run it alone: ``python tests/bench/trace.py [BOOTS]``.

Times are CPU time of one in-process boot (compose, boot, close), the least of many, taken in turns so that a slow
moment of the machine counts for all. "nobody" is a boot without a tracer, "somebody" one whose tracer does nothing.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time

from hvkernel.boot.plugins import Plugins, load
from hvkernel.boot.request import read_request
from hvkernel.boot.session import Session, compose
from hvkernel.trace.formats import FORMATS
from hvkernel.trace.sink import NullTracer


def boot_ms(plugins: Plugins, files: tuple[Path, ...], watched: bool) -> float:
    """Milliseconds of CPU of one boot."""
    gc.collect()
    began = process_time()
    session = compose(read_request(trace=files), plugins)
    assert isinstance(session, Session)
    with session:
        if watched:
            session.machine.tracer = NullTracer()
        session.boot()
    return (process_time() - began) * 1e3


def main(boots: int) -> None:
    """Measure and print."""
    plugins = load()
    with TemporaryDirectory() as directory:
        ways: dict[str, tuple[tuple[Path, ...], bool]] = {"nobody": ((), False), "somebody": ((), True)}
        for one in FORMATS:
            ways[one.name] = ((Path(directory) / f"boot{one.suffixes[0]}",), False)
        ways["all formats"] = (tuple(file for files, _ in ways.values() for file in files), False)
        best = dict.fromkeys(ways, float("inf"))
        for _ in range(boots):
            for name, (files, watched) in ways.items():
                best[name] = min(best[name], boot_ms(plugins, files, watched))
        for name, (files, _) in ways.items():
            size = sum(file.stat().st_size for file in files)
            print(f"{name:12} {best[name]:6.1f} ms" + (f"  {size / 1024:6.0f} KiB" if size else ""))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 30)
