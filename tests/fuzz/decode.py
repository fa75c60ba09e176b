"""Throw a million random and mutated inputs at ``hvkernel decode``: ``python tests/fuzz/decode.py [COUNT [SEED]]``.

Every input is made from the seed and its number alone, so a failure is made again with ``--only NUMBER``. An input may
be refused, or be explained with problems; no exception may come out, and what comes out must be bounded and inert.
"""

from __future__ import annotations

import io
import json
import sys
from collections import Counter
from collections.abc import Sequence
from multiprocessing import Pool
from random import Random
from time import perf_counter
from typing import NamedTuple

import hvkernel_storvsc.wire as storvsc
from hvkernel.abi.guids import HV_NIC_GUID, HV_SCSI_GUID
from hvkernel.abi.meaning import Dictionary, dictionary
from hvkernel.boot.request import read_request
from hvkernel.boot.session import Session, compose
from hvkernel.decode.node import Unrecognised
from hvkernel.decode.recognise import KINDS, explain
from hvkernel.decode.render import to_json, to_text
from hvkernel.trace.pcapng import PcapngWriter
from hvkernel.trace.sink import NullTracer

LIMIT = 20
"""Records that are explained."""
MOST_LINES = 60_000
SPECIAL = (b"\0", b"\xff", b"\xff\xff\xff\xff", b"\0\0\0\x80", b"\x7f", b"\1\0", b"\x08\0\0\0", b"\x0a\x0d\x0d\x0a")


class Corpus(NamedTuple):
    """Good inputs to start from, by what they are."""

    inputs: tuple[bytes, ...]
    words: Dictionary


class _Told(NullTracer):
    def __init__(self) -> None:
        self.events: list[tuple[int, bool, bytes]] = []

    def message(self, t: int, vp: int, to_host: bool, data: bytes) -> None:
        self.events.append((0, to_host, data))

    def packet(self, t: int, vp: int, relid: int, to_host: bool, data: bytes) -> None:
        self.events.append((relid, to_host, data))


def make_corpus() -> Corpus:
    """Boot once and keep a bit of everything that decode reads."""
    composed = compose(read_request())
    assert isinstance(composed, Session)
    told = _Told()
    with composed as session:
        session.machine.tracer = told
        session.boot()
    events = told.events
    inputs = [data for _, _, data in events[:60]]
    messages = [data for relid, _, data in events if not relid]
    packets = [data for relid, _, data in events if relid]
    inputs += [b"".join(messages[:8]), b"".join(data.ljust(240, b"\0") for data in messages[:5]), b"".join(packets[:9])]
    for start in range(0, 60, 6):
        out = io.BytesIO()
        writer = PcapngWriter(out, "fuzz")
        for relid, to_host, data in events[start : start + 6]:
            if relid:
                writer.packet(start, 0, relid, to_host, data)
            else:
                writer.message(start, 0, to_host, data)
        inputs.append(out.getvalue())
    ring = bytearray(8192)
    at = 0
    for data in packets[:20]:
        ring[4096 + at : 4096 + at + len(data) + 8] = data + (at << 32).to_bytes(8, "little")
        at += len(data) + 8
    for read in (0, len(packets[0]) + 8):
        ring[0:8] = at.to_bytes(4, "little") + read.to_bytes(4, "little")
        ring[64] = 1
        inputs.append(bytes(ring))
    page = bytearray(4096)
    for sint, data in enumerate(messages[:16]):
        page[sint * 256 : sint * 256 + 16 + len(data)] = bytes((1, 0, 0, 0, len(data))) + bytes(11) + data
    inputs += [bytes(page), bytes(page[:256])]
    for data in (messages[0], packets[0]):
        inputs.append(data.hex(" ").encode())
        inputs.append(
            "\n".join(f"{n:08x}: {data[n : n + 16].hex(' ')}  ...." for n in range(0, len(data), 16)).encode()
        )
    return Corpus(tuple(inputs), dictionary([storvsc]))


def make_input(corpus: Corpus, seed: int, number: int) -> tuple[bytes, str | None]:
    """Return input ``number`` and the kind to take it for."""
    chance = Random(f"{seed}/{number}")
    kind = None if chance.random() < 0.7 else chance.choice(KINDS)
    if chance.random() < 0.15:
        return chance.randbytes(chance.choice((0, 1, 7, 8, 16, 24, 240, 256, 4096, 8192, chance.randrange(600)))), kind
    data = bytearray(chance.choice(corpus.inputs))
    for _ in range(chance.choice((0, 1, 1, 2, 4, 16))):
        at = chance.randrange(min(len(data), chance.choice((16, 64, 1 << 20))) or 1)
        what = chance.randrange(6)
        if what == 0 and data:
            data[at] ^= 1 << chance.randrange(8)
        elif what == 1 and data:
            data[at] = chance.randrange(256)
        elif what == 2:
            piece = chance.choice(SPECIAL)
            data[at : at + len(piece)] = piece
        elif what == 3:
            del data[chance.randrange(len(data) + 1) :]
        elif what == 4:
            other = chance.choice(corpus.inputs)
            start = chance.randrange(len(other))
            data[at : at + chance.choice((0, 8, 64))] = other[start : start + chance.randrange(65)]
        else:
            del data[at : at + chance.randrange(1, 17)]
    return bytes(data), kind


def try_one(corpus: Corpus, seed: int, number: int) -> str:
    """Explain one input and print it both ways; returns what it was. An exception that comes out is a fault."""
    data, kind = make_input(corpus, seed, number)
    device = (None, HV_SCSI_GUID, HV_NIC_GUID)[number % 3]
    try:
        found = explain(data, corpus.words, kind=kind, limit=LIMIT, device=device)
    except Unrecognised:
        return "refused"
    lines = 0
    for line in to_text(found):
        lines += 1
        assert line.isprintable(), line
    assert lines < MOST_LINES, lines
    if number % 8 == 0:
        json.dumps(to_json(found, "-"))
    faults = any(one.all_problems() for one in found)
    return f"{found[0].kind} {'with problems' if faults else 'clean'}"


def _share(work: tuple[int, int, int]) -> Counter[str]:
    seed, first, last = work
    corpus = make_corpus()
    counts: Counter[str] = Counter()
    for number in range(first, last):
        try:
            counts[try_one(corpus, seed, number)] += 1
        except Exception as error:
            counts[f"FAILED: {type(error).__name__} in input {number}, see --only"] += 1
    return counts


def main(arguments: Sequence[str]) -> None:
    """Run the campaign on two processes and print what the inputs were."""
    if arguments[:1] == ["--only"]:
        print(try_one(make_corpus(), int(arguments[2]) if len(arguments) > 2 else 0, int(arguments[1])))
        return
    count = int(arguments[0]) if arguments else 1_000_000
    seed = int(arguments[1]) if len(arguments) > 1 else 0
    began = perf_counter()
    step = max(count // 40, 1)
    shares = [(seed, first, min(first + step, count)) for first in range(0, count, step)]
    with Pool(2) as pool:
        total = sum(pool.imap_unordered(_share, shares), Counter[str]())
    for name, number in total.most_common():
        print(f"{number:9,} {name}")
    failed = sum(number for name, number in total.items() if name.startswith("FAILED"))
    print(f"{total.total():9,} inputs of seed {seed}, {failed} exceptions, {perf_counter() - began:.0f} s")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
