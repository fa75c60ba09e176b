"""Cells that do what an axis named ``do`` says, for tests of those who run them. A worker finds this on its path."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hvkernel.matrix.model import Cell, CellResult, Problem


@dataclass(frozen=True)
class FakeSpec:
    """A spec of any keys."""

    data: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(self.data)


class FakeCells:
    """Runs such cells. ``load`` in the spec may make it fail to load."""

    def __init__(self, spec: str) -> None:
        self.spec: dict[str, Any] = json.loads(spec)
        self.heap: list[bytes] = []
        load = self.spec.get("load")
        if load == "raise":
            raise RuntimeError("no such plugin")
        if load == "die":
            print("no more memory", file=sys.stderr)
            os._exit(3)
        if "loaded" in self.spec:
            with Path(self.spec["loaded"]).open("a") as file:
                file.write(f"{os.getpid()}\n")

    def run(self, cell: Cell) -> CellResult:
        """Do it, then return a result that depends on the cell alone."""
        what = cell.by_axis.get("do", "pass")
        print("cell", cell.number, "does", what)
        if "ran" in self.spec:
            with Path(self.spec["ran"]).open("a") as file:
                file.write(f"{cell.number}\n")
        time.sleep(self.spec.get("sleep", 0.0))
        match what:
            case "raise":
                raise ZeroDivisionError("in the model")
            case "sys.exit":
                sys.exit("a driver that thinks it is a program")
            case "exit":
                print("good bye", file=sys.stderr, flush=True)
                os._exit(0)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "segv":
                ctypes.string_at(0)
            case "hang":
                while True:
                    time.sleep(0.01)
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "kill once":
                mark = Path(self.spec["mark"])
                if not mark.exists():
                    mark.touch()
                    os.kill(os.getpid(), signal.SIGKILL)
            case "grow":
                self.heap.append(os.urandom(30 << 20))
            case "eat":
                while True:
                    self.heap.append(bytes(1 << 24))
            case "chatter":
                sys.stderr.write("x" * 100_000)
        if what == "fail":
            problem = Problem("ledger", f"page {cell.number * 7919 % 1000} is still shared")
            return CellResult(cell, "fail", "up", "invariants", (problem,), (f"line of cell {cell.number}",), 5, 6, 1.0)
        return CellResult(
            cell,
            "pass",
            "up",
            "invariants",
            virtual=cell.number * 31,
            steps=cell.seed,
            cpu_ms=time.process_time() * 1e3,
        )
