"""Traces of what no correct guest or host does: every sink goes on, and the file stays readable."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from hvkernel.abi.vmbus import VmbusChannelMessageType as Type
from hvkernel.api.guest.tracing import trace_event
from hvkernel.machine.tracing import Where
from hvkernel.trace.formats import FORMATS, Format
from hvkernel.trace.recorder import Recorder
from hvkernel.trace.sink import Ending, TraceInfo

EVENT = trace_event("hyperv", "noise", "u32 x; char g[16]", "x {x:x} {g:pUl}", "")


def data(random: Random) -> bytes:
    """Bytes that begin as a message or a packet may, and end anywhere."""
    head = struct.pack(
        "<HHHHQ",
        random.choice((1, 6, 7, 9, 11, random.getrandbits(16))),
        random.choice((0, 2, random.getrandbits(16))),
        random.choice((0, 3, random.getrandbits(16))),
        random.choice((0, 1)),
        random.choice((0, 1, 2, random.getrandbits(64))),
    )
    number = struct.pack("<II", random.choice((*map(int, Type), random.getrandbits(32))), random.getrandbits(32))
    whole = random.choice((head, number, b"")) + random.randbytes(random.choice((0, 4, 200, 300)))
    return whole[: random.choice((0, 3, 7, 11, 15, len(whole), len(whole)))]


def noise(recorder: Recorder, seed: int, events: int = 2000) -> None:
    random = Random(seed)
    t = 0
    for _ in range(events):
        t += random.choice((0, 1, 1000))
        relid = random.choice((0, 1, 5, 2047, random.getrandbits(32)))
        to_host = random.random() < 0.5
        what = random.randrange(6)
        if what == 0:
            recorder.message(t, random.randrange(4), to_host, data(random))
        elif what == 1:
            recorder.packet(t, random.randrange(4), relid, to_host, data(random))
        elif what == 2:
            recorder.taken(t, relid, to_host, random.choice((0, 8, 32, 1 << 31, -(1 << 31))))
        elif what == 3:
            recorder.begin(t, random.choice((None, 0, 1)), "task", random.choice(("", "x" * 100, "\x1b[2J", "\ud800")))
        elif what == 4:
            recorder.end(t, random.choice((None, 0, 1)), "task")
        else:
            where = Where(t, t * 100, 0, 0, 1, "noise", 0, 0)
            recorder.tracepoint(where, EVENT, (random.getrandbits(32), random.randbytes(16)))
    recorder.close(Ending(1, {0: 0}))


@pytest.mark.parametrize("one", FORMATS, ids=lambda one: one.name)
@pytest.mark.parametrize("seed", range(10))
def test_no_sink_falls_over(one: Format, seed: int, tmp_path: Path) -> None:
    file = tmp_path / f"noise{one.suffixes[0]}"
    noise(Recorder.open([file], TraceInfo()), seed)
    assert file.stat().st_size > 1000


def test_the_trace_processor_reads_it_all_the_same(tmp_path: Path, ask: Callable[..., Any]) -> None:
    file = tmp_path / "noise.pftrace"
    noise(Recorder.open([file], TraceInfo()), 4)
    problems, slices = ask(
        file,
        "select name, value from stats where value > 0 and severity in ('error', 'data_loss')",
        "select count(*), min(case when category = 'request' then 0 else dur end) from slice",
    )
    assert problems == [], json.dumps(problems)
    assert slices[0][0] > 1000
    assert slices[0][1] >= 0
