"""The C reference: packet by packet the bytes, indices, counters and signals of the jitted ring and of the model."""

from __future__ import annotations

import mmap
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hvkernel.ring import RingReader, RingWriter, init_ring, pack, unpack
from hvkernel.ring import reference as reference_module
from hvkernel.ring.reference import NoCompilerError, Reference, build

PAGE = 4096


@pytest.fixture(scope="module")
def reference(program: Callable[[str, str], str]) -> Reference:
    program("gcc", "gcc")
    return build(("-Wall", "-Wextra", "-Werror"))


@contextmanager
def ring_file(pages: int) -> Iterator[tuple[int, mmap.mmap]]:
    """An empty ring in a memfd: its descriptor and a mapping."""
    fd = os.memfd_create("ring")
    try:
        os.ftruncate(fd, PAGE * (1 + pages))
        with mmap.mmap(fd, 0) as memory:
            init_ring(memory)
            yield fd, memory
    finally:
        os.close(fd)


def take(reader: RingReader, count: int) -> list[tuple[int, bytes]]:
    dst, lens, tids = bytearray(1 << 16), np.zeros(count, np.uint32), np.zeros(count, np.uint64)
    got = reader.read_batch(dst, lens, tids, count)
    return list(zip(map(int, tids[:got]), unpack(dst, lens, got), strict=True))


def operations(rng: random.Random, pages: int) -> Iterator[tuple[str, Any]]:
    for _ in range(400):
        kind = rng.choices(("write", "read", "receive", "mask", "pending"), (10, 3, 3, 1, 1))[0]
        if kind == "write":
            size = rng.choice((0, 1, 7, 8, 64, rng.randrange(300), rng.randrange(PAGE * pages - 32)))
            yield kind, rng.randbytes(size)
        elif kind == "read":
            yield kind, rng.randrange(1, 9)
        elif kind == "mask":
            yield kind, rng.randrange(2)
        else:
            yield kind, rng.randrange(PAGE * pages)


@pytest.mark.parametrize("seed", range(12))
def test_the_reference_agrees_with_the_jitted_ring_and_the_model(
    model_ring: Any, reference: Reference, seed: int
) -> None:
    """Writer and reader of both kinds on both rings, in every pairing: C to C, jit to jit, C to jit, jit to C."""
    rng = random.Random(seed)
    pages = 1 + seed % 3
    dsize = PAGE * pages
    with ExitStack() as stack:
        files = [stack.enter_context(ring_file(pages)) for _ in range(4)]
        images = [memory for _, memory in files]
        c_ends = {n: stack.enter_context(reference.attach(files[n][0], dsize, dsize)) for n in (0, 2, 3)}
        c_reader = stack.enter_context(reference.attach(files[0][0], dsize, dsize))
        writers = {n: stack.enter_context(RingWriter.attach(images[n])) for n in (1, 3)}
        readers = {n: stack.enter_context(RingReader.attach(images[n])) for n in (1, 2)}
        model = model_ring(dsize)
        for tid, (what, value) in enumerate(operations(rng, pages)):
            if what == "write":
                wrote = bool(model.write([value], tid))
                assert c_ends[0].write(value, tid) is wrote
                assert c_ends[2].write(value, tid) is wrote
                for writer in writers.values():
                    assert writer.write_batch(*pack([value]), 1, tid) == wrote
            elif what == "read":
                expected = model.read(value)
                for end in (c_reader, c_ends[3]):
                    assert end.read(value) == expected
                for reader in readers.values():
                    assert take(reader, value) == expected
            elif what == "receive":
                expected = model.read(1)
                for end in (c_reader, c_ends[3]):
                    assert end.receive() == (0, *(expected[0] if expected else (0, b"")))
                for reader in readers.values():
                    assert take(reader, 1) == expected
            elif what == "mask":
                model.interrupt_mask = value
                assert c_reader.mask(value) == model.write_index
                for n in (1, 2):
                    (readers[n].begin_read if value else readers[n].end_read)()
                c_ends[3].mask(value)
            else:  # what a writer waits for: nothing, exactly what is free, or exactly what the next read makes free
                room = dsize - model.used()
                at = model.read_index
                following = 8 * int.from_bytes(model._take(at + 4, 2), "little") + 8 if model.used() else 0
                value = (0, room, room + following, room + following - 8, value)[value % 5]
                model.pending_send_sz = value
                for image in images:
                    image[12:16] = value.to_bytes(4, "little")
            assert [image[:] == model.image() for image in images] == [True] * 4
            out = (model.out_signals, model.out_full_total, model.out_full_first)
            assert (c_ends[0].counters, c_ends[2].counters) == (out, out)
            for writer in writers.values():
                assert (writer.signals, writer.out_full_total, writer.out_full_first) == out
            signals = [c_reader.counters[0], c_ends[3].counters[0], readers[1].signals, readers[2].signals]
            assert signals == [model.in_signals] * 4
        assert model.out_full_total
        assert model.out_signals


def test_the_reference_clamps_what_a_packet_claims(reference: Reference) -> None:
    """A descriptor that lies is cut to what is there, as the jitted reader cuts it."""
    rng = random.Random(7)
    for _ in range(200):
        with ring_file(1) as (fd, memory):
            memory[PAGE:] = b"".join(
                rng.choice((2, 3, rng.randrange(1 << 16))).to_bytes(2, "little") for _ in range(2048)
            )
            start, limit = rng.randrange(512) * 8, rng.randrange(2, 512) * 8
            memory[4:8] = start.to_bytes(4, "little")
            with reference.attach(fd, PAGE, limit) as end, RingReader.attach(memory, max_packet=limit) as reader:
                memory[0:4] = (rng.randrange(512) * 8).to_bytes(4, "little")
                expected = end.read(1)
                memory[4:8] = start.to_bytes(4, "little")
                assert take(reader, 1) == expected


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(NoCompilerError, match=r"gcc: not found; the C reference of the ring needs it"):
        build()


def test_a_compiler_that_refuses_is_quoted(
    program: Callable[[str, str], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program("gcc", "gcc")
    broken = tmp_path / "reference.c"
    broken.write_text("int main(void) { return nothing; }\n")
    monkeypatch.setattr(reference_module, "SOURCE", broken)
    with pytest.raises(NoCompilerError, match=r"gcc: did not compile reference\.c: [^$]*nothing"):
        build()
