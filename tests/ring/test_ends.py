"""The stand-alone ring against a plain Python model, with hostile peers, wrong arguments and two processes."""

from __future__ import annotations

import hashlib
import mmap
import os
import random
import struct
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvkernel.abi.ring import HvRingBuffer, VmbusPacketType
from hvkernel.ring import RingReader, RingWriter, ends, init_ring, pack, unpack

PAGE = 4096


def make(pages: int = 1) -> bytearray:
    buffer = bytearray(PAGE * (1 + pages))
    init_ring(buffer)
    return buffer


def read_all(reader: RingReader, room: int = 1 << 16, count: int = 64) -> list[tuple[int, bytes]]:
    dst, lens, tids = bytearray(room), np.zeros(count, np.uint32), np.zeros(count, np.uint64)
    got = reader.read_batch(dst, lens, tids, count)
    return list(zip([int(tid) for tid in tids[:got]], unpack(dst, lens, got), strict=True))


payloads = st.lists(st.binary(max_size=700), max_size=8)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), payloads, st.integers(0, 2**64 - 1)),
        st.tuples(st.just("read"), st.integers(0, 8)),
        st.tuples(st.just("pending"), st.integers(0, 8200)),
        st.tuples(st.just("mask"), st.booleans()),
    ),
    max_size=40,
)


@given(script=steps, pages=st.integers(1, 2), kind=st.integers(0, 0xFFFF), flags=st.integers(0, 0xFFFF))
@settings(max_examples=150)
def test_every_operation_agrees_with_the_model(
    model_ring: Any, script: list[tuple[Any, ...]], pages: int, kind: int, flags: int
) -> None:
    buffer = make(pages)
    model = model_ring(PAGE * pages)
    with RingWriter.attach(buffer) as writer, RingReader.attach(buffer) as reader:
        for step in script:
            if step[0] == "write":
                src, lens = pack(step[1])
                done = writer.write_batch(src, lens, len(step[1]), step[2], kind=kind, flags=flags)
                assert done == model.write(step[1], step[2], kind, flags)
            elif step[0] == "read":
                assert read_all(reader, count=step[1]) == model.read(step[1])
            elif step[0] == "pending":
                model.pending_send_sz = step[1]
                assert writer.set_pending_send_sz(step[1]) == model.dsize - model.used()
            else:
                model.interrupt_mask = int(step[1])
                if step[1]:
                    reader.begin_read()
                else:
                    assert reader.end_read() == model.used()
            assert buffer == model.image()
            assert writer.signals == model.out_signals
            assert reader.signals == model.in_signals
            assert (writer.out_full_total, writer.out_full_first) == (model.out_full_total, model.out_full_first)
            assert reader.bytes_to_read == model.used()


def test_a_ring_is_never_filled_completely() -> None:
    buffer = make()
    with RingWriter.attach(buffer) as writer:
        src, lens = pack([bytes(PAGE - 24 - 8), b""])
        assert writer.write_batch(src, lens, 1, 0) == 1
        assert writer.bytes_to_write == 8
        src, lens = pack([bytes(PAGE - 24)])
        with pytest.raises(ValueError, match=r"lens\[0\]: 4072 exceeds 4064, the largest payload of this ring"):
            writer.write_batch(src, lens, 1, 0)


def test_ends_may_come_and_go() -> None:
    buffer = make()
    src, lens = pack([b"a" * 8, b"b" * 16])
    with RingWriter.attach(buffer) as writer:
        assert writer.write_batch(src, lens, 2, 5) == 2
    with RingReader.attach(buffer) as reader:
        assert read_all(reader, count=1) == [(5, b"a" * 8)]
    with RingReader.attach(buffer) as reader:
        assert read_all(reader) == [(6, b"b" * 16)]
        assert read_all(reader) == []


@pytest.mark.parametrize("kind", ["bytearray", "mmap", "array", "memoryview"])
def test_any_writable_buffer_will_do(kind: str) -> None:
    makers: dict[str, Callable[[], Any]] = {
        "bytearray": lambda: bytearray(3 * PAGE),
        "mmap": lambda: mmap.mmap(-1, 3 * PAGE),
        "array": lambda: np.zeros(3 * PAGE // 8, np.uint64),
        "memoryview": lambda: memoryview(bytearray(3 * PAGE)),
    }
    buffer = makers[kind]()
    init_ring(buffer)
    with RingWriter.attach(buffer) as writer, RingReader.attach(buffer) as reader:
        src, lens = pack([b"12345678"] * 10)
        assert writer.write_batch(src, lens, 10, 0) == 10
        assert read_all(reader) == [(i, b"12345678") for i in range(10)]


# wrong input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (0, "buffer: 0 bytes is below 8192 (a control page and at least one page of data)"),
        (PAGE, "buffer: 4096 bytes is below 8192 (a control page and at least one page of data)"),
        (2 * PAGE + 8, "buffer: 8200 bytes is not a multiple of 4096"),
    ],
)
def test_a_buffer_of_the_wrong_size_is_refused(size: int, message: str) -> None:
    for attach in (RingWriter.attach, RingReader.attach, init_ring):
        with pytest.raises(ValueError) as caught:
            attach(bytearray(size))
        assert str(caught.value) == message


def test_a_read_only_buffer_is_refused() -> None:
    for attach in (RingWriter.attach, RingReader.attach, init_ring):
        with pytest.raises(ValueError, match="buffer: read-only, a writable buffer is needed"):
            attach(bytes(2 * PAGE))


def test_a_buffer_with_gaps_or_at_an_odd_address_is_refused() -> None:
    for attach in (RingWriter.attach, RingReader.attach, init_ring):
        with pytest.raises(ValueError, match="buffer: not contiguous"):
            attach(memoryview(bytearray(4 * PAGE))[::2])
    for end in (RingWriter, RingReader):
        with pytest.raises(ValueError, match=r"buffer: address 0x[0-9a-f]+ is not a multiple of 8"):
            end.attach(memoryview(bytearray(2 * PAGE + 1))[1:])


def test_a_mapping_cannot_be_closed_under_an_end() -> None:
    memory = mmap.mmap(-1, 2 * PAGE)
    init_ring(memory)
    for attach in (RingWriter.attach, RingReader.attach):
        with attach(memory), pytest.raises(BufferError):
            memory.close()
    memory.close()


def test_what_is_no_buffer_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        RingWriter.attach(7)


@pytest.mark.parametrize(
    ("write", "read", "message"),
    [
        (4096, 0, "write_index: 4096 is not below the 4096 bytes of data"),
        (0, 2**32 - 8, "read_index: 4294967288 is not below the 4096 bytes of data"),
        (12, 0, "write_index: 12 is not a multiple of 8"),
    ],
)
def test_indices_outside_the_ring_are_refused(write: int, read: int, message: str) -> None:
    buffer = make()
    struct.pack_into("<II", buffer, 0, write, read)
    for attach in (RingWriter.attach, RingReader.attach):
        with pytest.raises(ValueError) as caught:
            attach(buffer)
        assert str(caught.value) == message
    buffer.append(0)  # a refused attach keeps no export


def test_write_batch_names_the_wrong_argument() -> None:
    with RingWriter.attach(make()) as writer:
        src, lens = pack([b"x" * 16] * 2)
        u32 = np.array([16, 17], np.uint32)
        cases: list[tuple[tuple[Any, ...], dict[str, int], str]] = [
            ((src, lens, 3, 0), {}, "n: 3 is not in 0..2, the items of lens"),
            ((src, lens, -1, 0), {}, "n: -1 is not in 0..2, the items of lens"),
            ((src, lens, 1, -1), {}, "tid0: -1 does not fit 64 bits"),
            ((src, lens, 1, 1 << 64), {}, "tid0: 18446744073709551616 does not fit 64 bits"),
            ((src, lens, 1, 0), {"kind": 65536}, "kind: 65536 does not fit 16 bits"),
            ((src, lens, 1, 0), {"flags": -1}, "flags: -1 does not fit 16 bits"),
            ((src, u32, 2, 0), {}, "lens[1]: 17 bytes reach behind the end of src (32 bytes)"),
            ((src, np.array([5], np.uint64), 1, 0), {}, "lens: items of 8 bytes, 4 are needed"),
            (
                (src, np.array([2**32 - 1], np.uint32), 1, 0),
                {},
                "lens[0]: 4294967295 exceeds 4064, the largest payload",
            ),
        ]
        for arguments, options, message in cases:
            with pytest.raises(ValueError) as caught:
                writer.write_batch(*arguments, **options)
            assert str(caught.value).startswith(message)
        assert writer.indices == (0, 0)


def test_read_batch_names_the_wrong_argument() -> None:
    buffer = make()
    with RingWriter.attach(buffer) as writer, RingReader.attach(buffer) as reader:
        src, lens = pack([b"x" * 100])
        assert writer.write_batch(src, lens, 1, 0) == 1
        dst, out, tids = bytearray(200), np.zeros(2, np.uint32), np.zeros(1, np.uint64)
        cases: list[tuple[tuple[Any, ...], str]] = [
            ((bytes(200), out, tids, 1), "dst: read-only, a writable buffer is needed"),
            ((dst, out, tids, 2), "maxn: 2 is not in 0..1, the items of lens and tids"),
            ((dst, out, tids, -1), "maxn: -1 is not in 0..1, the items of lens and tids"),
            ((dst, out, np.zeros(1, np.uint32), 1), "tids: items of 4 bytes, 8 are needed"),
            ((bytearray(96), out, tids, 1), "dst: 96 bytes cannot hold the next packet (120 bytes with descriptor)"),
        ]
        for arguments, message in cases:
            with pytest.raises(ValueError) as caught:
                reader.read_batch(*arguments)
            assert str(caught.value) == message
        assert read_all(reader) == [(0, b"x" * 100 + bytes(4))]


def test_a_refused_buffer_leaves_the_others_in_use() -> None:
    """The new src was taken, the new lens refused: the next batch must not look where the old src was."""
    buffer = make()
    with RingWriter.attach(buffer) as writer, RingReader.attach(buffer) as reader:
        old, lens = pack([b"o" * 16])
        assert writer.write_batch(old, lens, 1, 0) == 1
        new, _ = pack([b"n" * 16])
        with pytest.raises(ValueError, match="lens: items of 8 bytes, 4 are needed"):
            writer.write_batch(new, np.zeros(1, np.uint64), 1, 0)
        assert writer.write_batch(new, lens, 1, 1) == 1
        assert read_all(reader) == [(0, b"o" * 16), (1, b"n" * 16)]


def test_max_packet_has_limits() -> None:
    for size in (15, PAGE + 1):
        with pytest.raises(ValueError, match=rf"max_packet: {size} is not in 16\.\.4096"):
            RingReader.attach(make(), max_packet=size)


def test_a_closed_end_refuses_work_and_frees_the_buffer() -> None:
    buffer = make()
    src, lens = pack([b"x"])
    writer = RingWriter.attach(buffer)
    with pytest.raises(BufferError):
        buffer.append(0)
    writer.write_batch(src, lens, 1, 0)
    writer.close()
    writer.close()
    buffer.append(0)
    with pytest.raises(ValueError, match="ring: this end is closed"):
        writer.write_batch(src, lens, 1, 0)
    with pytest.raises(ValueError, match="ring: this end is closed"):
        _ = writer.indices


# hostile peer --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("field", "position"), [("write_index", 0), ("read_index", 4)])
@pytest.mark.parametrize("value", [4096, 2**31, 2**32 - 1])
def test_an_index_that_leaves_the_ring_is_an_error_not_a_crash(field: str, position: int, value: int) -> None:
    buffer = make()
    with RingWriter.attach(buffer) as writer, RingReader.attach(buffer) as reader:
        struct.pack_into("<I", buffer, position, value)
        src, lens = pack([b"x"])
        with pytest.raises(ValueError, match=rf"{field}: {value} in the control page"):
            writer.write_batch(src, lens, 1, 0)
        if field == "write_index":
            with pytest.raises(ValueError, match=rf"write_index: {value} in the control page"):
                read_all(reader)


@given(
    seed=st.integers(0, 2**32 - 1),
    write=st.integers(0, PAGE - 1),
    read=st.integers(0, PAGE // 8 - 1),
    pending=st.integers(0, 2**32 - 1),
    limit=st.integers(16, PAGE),
)
@settings(max_examples=200)
def test_garbage_is_clamped_like_hv_pkt_iter_first(seed: int, write: int, read: int, pending: int, limit: int) -> None:
    rng = random.Random(seed)
    words = (rng.choice([2, 3, rng.randrange(80), rng.randrange(1 << 16)]) for _ in range(PAGE // 2))
    noise = struct.pack(f"<{PAGE // 2}H", *words)
    buffer = make()
    buffer[PAGE:] = noise
    struct.pack_into("<II", buffer, 0, 0, read * 8)
    with RingReader.attach(buffer, max_packet=limit) as reader:
        struct.pack_into("<I", buffer, 0, write)
        struct.pack_into("<I", buffer, 12, pending)
        got = read_all(reader, room=1 << 20, count=64)
        expected: list[tuple[int, bytes]] = []
        priv = read * 8
        doubled = noise + noise
        while len(expected) < 64:
            avail = (write - priv) % PAGE
            if avail < 16:
                break
            avail = min(avail, limit)
            _kind, offset8, len8, _flags, tid = struct.unpack_from("<HHHHQ", doubled, priv)
            length = len8 * 8 if 16 <= len8 * 8 <= avail else avail // 8 * 8
            offset = offset8 * 8 if 16 <= offset8 * 8 <= length else 16
            expected.append((tid, doubled[priv + offset : priv + length]))
            priv = (priv + length + 8) % PAGE
        assert got == expected
        assert reader.indices == (write, priv)


# processes and laziness ----------------------------------------------------------------------------------------

CHILD = """
import hashlib, mmap, sys, time
import numpy as np
from hvkernel.ring import RingReader, unpack
fd, size, total = map(int, sys.argv[1:])
digest = hashlib.sha256()
with mmap.mmap(fd, size) as memory, RingReader.attach(memory) as reader:
    dst, lens, tids = bytearray(1 << 16), np.zeros(64, np.uint32), np.zeros(64, np.uint64)
    seen = 0
    while seen < total:
        n = reader.read_batch(dst, lens, tids, 64)
        if not n:
            time.sleep(0)
        for tid, payload in zip(tids[:n], unpack(dst, lens, n)):
            assert int(tid) == seen, (int(tid), seen)
            digest.update(payload)
            seen += 1
    dst = None
print(digest.hexdigest())
"""


def test_two_processes_share_a_ring() -> None:
    total, size = 20_000, PAGE * 5
    fd = os.memfd_create("ring")
    try:
        os.ftruncate(fd, size)
        digest = hashlib.sha256()
        with mmap.mmap(fd, size) as memory:
            init_ring(memory)
            command = [sys.executable, "-c", CHILD, str(fd), str(size), str(total)]
            child = subprocess.Popen(command, pass_fds=[fd], stdout=subprocess.PIPE, text=True)
            try:
                with RingWriter.attach(memory) as writer:
                    sent = 0
                    while sent < total:
                        batch = [
                            (sent + i).to_bytes(8, "little") * (1 + (sent + i) * 7 % 90)
                            for i in range(min(32, total - sent))
                        ]
                        src, lens = pack(batch)
                        done = writer.write_batch(src, lens, len(batch), sent)
                        for payload in batch[:done]:
                            digest.update(payload)
                        sent += done
                        if not done:
                            assert child.poll() is None, "the reading process died"
                            os.sched_yield()
                    out, _ = child.communicate(timeout=60)
            finally:
                child.kill()
                child.wait()
        assert child.returncode == 0
        assert out.strip() == digest.hexdigest()
    finally:
        os.close(fd)


def test_numba_is_imported_by_attach_only() -> None:
    code = (
        "import sys, hvkernel.ring as r; assert not {'numba', 'llvmlite', 'numpy'} & set(sys.modules);"
        "b = bytearray(8192); r.init_ring(b); assert 'numba' not in sys.modules;"
        "r.RingWriter.attach(b); assert 'numba' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# directed ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", range(1, 48))
def test_padding_is_zero_wherever_a_packet_wraps(model_ring: Any, length: int) -> None:
    for start in range(PAGE - 72, PAGE, 8):
        buffer = make()
        buffer[PAGE:] = b"\xaa" * PAGE
        struct.pack_into("<II", buffer, 0, start, start)
        model = model_ring(PAGE)
        model.data[:] = buffer[PAGE:]
        model.write_index = model.read_index = start
        payload = bytes(range(1, length + 1))
        with RingWriter.attach(buffer) as writer, RingReader.attach(buffer) as reader:
            src, lens = pack([payload])
            assert writer.write_batch(src, lens, 1, 9) == model.write([payload], 9) == 1
            assert buffer == model.image()
            assert read_all(reader) == model.read(1)


@pytest.mark.parametrize("first", [*range(0, 280, 7), 380, 508, 1020, 1496, 2044])
def test_every_length_arrives_whole(model_ring: Any, first: int) -> None:
    """Payloads are moved in overlapping pieces: none may be cut, doubled or reach beyond its place."""
    pages = 2 if first < 280 else 8
    buffer, model = make(pages), model_ring(pages * PAGE)
    batch = [bytes(i % 255 + 1 for i in range(length, 2 * length)) for length in range(first, first + 7)]
    src, lens = pack(batch)
    count = int(lens.size)
    exact = memoryview(src)[: len(src) - (-len(batch[-1]) & 7)]
    with RingWriter.attach(buffer) as writer, RingReader.attach(buffer) as reader:
        for tid in range(0, 20 * count, count):
            assert writer.write_batch(exact, lens, count, tid) == model.write(batch, tid) == count
            assert buffer == model.image()
            room = sum((len(payload) + 7) & ~7 for payload in batch)
            dst, out, tids = bytearray(room + 64), np.zeros(count, np.uint32), np.zeros(count, np.uint64)
            assert reader.read_batch(memoryview(dst)[:room], out, tids, count) == count
            got = [(int(tid), payload) for tid, payload in zip(tids, unpack(dst, out, count), strict=True)]
            assert got == model.read(count)
            assert dst[room:] == bytes(64)


@pytest.mark.parametrize(
    ("pending", "signals"), [(0, 0), (39, 0), (40, 1), (100, 1), (159, 1), (160, 0), (4096, 0), (2**32 - 1, 0)]
)
def test_the_reader_signals_on_the_step_from_too_little_to_enough_room(pending: int, signals: int) -> None:
    buffer = make()
    with RingWriter.attach(buffer) as writer, RingReader.attach(buffer) as reader:
        src, lens = pack([bytes(96), bytes(PAGE - 120 - 40 - 24)])
        assert writer.write_batch(src, lens, 2, 0) == 2
        assert writer.set_pending_send_sz(pending) == 40
        assert len(read_all(reader, count=1)) == 1
        assert reader.signals == signals
    with (
        RingWriter.attach(buffer) as writer,
        pytest.raises(ValueError, match="size: 4294967296 does not fit 32 bits"),
    ):
        writer.set_pending_send_sz(2**32)


def test_offsets_are_those_of_the_abi() -> None:
    """hvkernel.ring stands alone, so it has the few numbers itself."""
    from hvkernel.ring import kernels

    names = ("write_index", "read_index", "interrupt_mask", "pending_send_sz", "feature_bits")
    own = (
        kernels.WRITE_INDEX,
        kernels.READ_INDEX,
        kernels.INTERRUPT_MASK,
        kernels.PENDING_SEND_SZ,
        kernels.FEATURE_BITS,
    )
    assert own == tuple(HvRingBuffer.offset_of(name) for name in names)
    assert kernels.DATA == HvRingBuffer.SIZE
    assert int(VmbusPacketType.VM_PKT_DATA_INBAND) == int(ends.VM_PKT_DATA_INBAND)
