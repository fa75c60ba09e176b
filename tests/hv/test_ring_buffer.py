"""hv/ring_buffer.py against the kernel's own functions, a plain model, and the jitted ring; with jit off and on."""

from __future__ import annotations

import importlib.util
import json
import random
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hvkernel.api.guest import errno
from hvkernel.api.guest.hyperv import VMBUS_RQST_ERROR, VmbusChannel, VmbusOffer
from hvkernel.api.guest.sched import Tasklet
from hvkernel.hv import ring_buffer as rb
from hvkernel.machine.addresses import HvPfn
from hvkernel.machine.faults import MachineError, PageFault
from hvkernel.machine.memory import Memory
from hvkernel.ring import RingReader, RingWriter

DATA = Path(__file__).parents[1] / "data" / "ring"
PAGE_SIZES = (4096, 16384, 65536)
OUT, IN = 0x10000, 0x800000


def table(name: str) -> Any:
    return json.loads((DATA / name).read_text())


class Lock:
    """A lock that only remembers whether it is held: what the ring asks of kernel.locking."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.held = False
        self.taken = 0

    def lock(self) -> None:
        assert not self.held, f"{self.name} taken twice"
        self.held = True
        self.taken += 1

    def unlock(self) -> None:
        assert self.held
        self.held = False

    def trylock(self) -> bool:
        if self.held:
            return False
        self.lock()
        return True

    def locked(self) -> bool:
        return self.held

    def __enter__(self) -> object:
        self.lock()
        return self

    def __exit__(self, *exc: object) -> None:
        self.unlock()

    def irqsave(self) -> AbstractContextManager[object]:
        return self

    bh = irqsave


class Locks:
    def spin_lock_init(self, name: str) -> Lock:
        return Lock(name)

    def mutex_init(self, name: str) -> Lock:
        return Lock(name)


class Side:
    """One guest memory with one channel's two rings, and what happened on it."""

    def __init__(self, jit: bool, page_size: int = 4096, pages: int = 2, max_pkt_size: int = 4096) -> None:
        self.memory = Memory([(0, 0x1000000)])
        self.events: list[str] = []
        self.on_preempt: Callable[[], None] | None = None
        self.ring = rb.RingBuffer(
            self.memory, page_size, preempt=self._preempt, vmbus_setevent=self._setevent, locking=Locks(), jit=jit
        )
        offer = VmbusOffer(b"", b"", 0, 0, b"", 0, 1, 0, False, True, 1)
        self.channel = VmbusChannel(
            offer, Lock("sched_lock"), Tasklet(lambda _: None), rb.HvRingBufferInfo(), rb.HvRingBufferInfo()
        )
        self.page_size, self.pages = page_size, pages
        self.ring.hv_ringbuffer_pre_init(self.channel)
        assert self.ring.hv_ringbuffer_init(self.channel.outbound, OUT, pages, 0) == 0
        assert self.ring.hv_ringbuffer_init(self.channel.inbound, IN, pages, max_pkt_size) == 0

    def _preempt(self) -> None:
        self.events.append("preempt")
        if self.on_preempt is not None:
            self.on_preempt()

    def _setevent(self, channel: Any) -> None:
        assert channel is self.channel
        self.events.append("setevent")

    def image(self, base: int) -> bytes:
        """The ring as the host sees it: 4 KiB of control page, then the data."""
        data = self.memory.host.read(base + self.page_size, self.page_size * (self.pages - 1))
        return self.memory.host.read(base, 4096) + data

    def control(self, base: int, offset: int, value: int) -> None:
        self.memory.host.store32(base + offset, value)

    def put(self, raw: bytes) -> None:
        """What a host does: bytes at the inbound write index, trailer, new index. For rings of one data page."""
        host = self.memory.host
        size = self.page_size * (self.pages - 1)
        at = host.load32(IN)
        for byte in raw + struct.pack("<II", 0, at):
            host.store8(IN + self.page_size + at, byte)
            at = (at + 1) % size
        host.store32(IN, at)

    def close(self) -> None:
        self.memory.close()


def packet(payload: bytes, tid: int = 0, kind: int = 6, flags: int = 0) -> bytes:
    body = payload + bytes(-len(payload) % 8)
    return struct.pack("<HHHHQ", kind, 2, 2 + len(body) // 8, flags, tid) + body


@pytest.fixture(scope="session")
def model_ring() -> Any:
    """The plain model that tests/ring compares with."""
    spec = importlib.util.spec_from_file_location("ring_model", Path(__file__).parents[1] / "ring" / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ModelRing


@pytest.fixture(params=[False, True], ids=["accessors", "jit"])
def jit(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@contextmanager
def opened(*arguments: Any, **options: Any) -> Iterator[Side]:
    side = Side(*arguments, **options)
    try:
        yield side
    finally:
        side.ring.hv_ringbuffer_cleanup(side.channel.outbound)
        side.ring.hv_ringbuffer_cleanup(side.channel.inbound)
        side.close()


@pytest.fixture
def side(jit: bool) -> Iterator[Side]:
    with opened(jit) as made:
        yield made


# the kernel's own functions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_VMBUS_RING_SIZE(page_size: int) -> None:
    rows = table("VMBUS_RING_SIZE.json")["by_page_size"][str(page_size)]
    assert len(rows) == 22
    for row in rows:
        size = row["in"]["payload_sz"]
        assert rb.VMBUS_RING_SIZE(size, page_size) == row["out"]["ring_size"], size
        header = 0 if size >= 8 * page_size else page_size
        assert header == row["out"]["header_adj"]


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_ring_init(page_size: int, jit: bool) -> None:
    memory = Memory([(0, 1 << 26)])
    ring = rb.RingBuffer(
        memory, page_size, preempt=lambda: None, vmbus_setevent=lambda _: None, locking=Locks(), jit=jit
    )
    for row in table("ring_init.json")["by_page_size"][str(page_size)]:
        info = rb.HvRingBufferInfo()
        info.ring_buffer_mutex = Lock("ring_buffer_mutex")
        memory.guest.write(0x10000, b"\xff" * 68)
        assert ring.hv_ringbuffer_init(info, 0x10000, row["in"]["page_cnt"], 4096) == 0
        reciprocal = info.ring_size_div10_reciprocal
        assert {
            "ring_size": info.ring_size,
            "ring_datasize": info.ring_datasize,
            "div10_m": reciprocal.m,
            "div10_sh1": reciprocal.sh1,
            "div10_sh2": reciprocal.sh2,
            "feature_bits": memory.guest.load32(0x10000 + 64),
        } == row["out"]
        assert (memory.guest.load32(0x10000), memory.guest.load32(0x10004)) == (0, 0)
        assert memory.guest.load32(0x10008) == 0xFFFFFFFF, "init leaves interrupt_mask alone"
        assert info.pkt_buffer_size == 4096
        assert info.ring_buffer is not None
        last = info.ring_buffer.size - 1
        info.ring_buffer.store8(last, 0x5A)
        assert memory.guest.load8(0x10000 + info.ring_size - 1) == 0x5A, "data is mapped twice"
        ring.hv_ringbuffer_cleanup(info)
        assert info.ring_buffer is None
        assert info.pkt_buffer_size == 0
    memory.close()


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_ring_avail(page_size: int) -> None:
    memory = Memory([(0, 0x20000)])
    info = rb.HvRingBufferInfo()
    info.map(memory.guest.vmap([HvPfn(1)]))
    info.ring_buffer_mutex = Lock("ring_buffer_mutex")
    ring = rb.RingBuffer(memory, page_size, preempt=lambda: None, vmbus_setevent=lambda _: None, locking=Locks())
    rows = table("ring_avail.json")["by_page_size"][str(page_size)]
    assert len(rows) == 470
    for size, write, read, to_read, to_write, percent, debug_read, debug_write in rows:
        memory.guest.store32(0x1000, write)
        memory.guest.store32(0x1004, read)
        info.ring_size, info.ring_datasize = size, size - page_size
        info.ring_size_div10_reciprocal = rb.reciprocal_value(size // 10)
        assert rb.hv_get_bytes_to_read(info) == to_read
        assert rb.hv_get_bytes_to_write(info) == to_write
        assert rb.hv_get_avail_to_write_percent(info) == percent
        debug = ring.hv_ringbuffer_get_debuginfo(info)
        assert isinstance(debug, rb.HvRingBufferDebugInfo)
        assert (debug.bytes_avail_toread, debug.bytes_avail_towrite) == (debug_read, debug_write)
        assert (debug.current_write_index, debug.current_read_index) == (write, read)
    memory.close()


def test_ring_iter() -> None:
    memory = Memory([(0, 0x20000)])
    info = rb.HvRingBufferInfo()
    info.map(memory.guest.vmap([HvPfn(1)]))
    rows = table("ring_iter.json")["rows"]
    assert rows
    for row in rows:
        given_, out = row["in"], row["out"]
        info.ring_datasize, info.priv_read_index = given_["ring_datasize"], given_["priv_read_index"]
        memory.guest.store32(0x1000, given_["write_index"])
        assert rb.hv_pkt_iter_avail(info) == out["hv_pkt_iter_avail"]
        assert rb.hv_pkt_iter_bytes_read(info, given_["start_read_index"]) == out["hv_pkt_iter_bytes_read"]
    memory.close()


# writing -------------------------------------------------------------------------------------------------------


def test_a_packet_is_descriptor_payload_and_trailer(side: Side) -> None:
    assert side.ring.hv_ringbuffer_write(side.channel, [packet(b"abcdefgh", flags=0), b"12345678"], 77) == (0, 77)
    raw = packet(b"abcdefgh", tid=77) + b"12345678" + bytes(8)
    assert side.memory.host.read(OUT + 4096, len(raw)) == raw
    assert side.memory.host.load32(OUT) == 40
    assert side.ring.hv_ringbuffer_write(side.channel, [packet(b"")], 2**64 - 3) == (0, 2**64 - 3)
    assert side.memory.host.load64(OUT + 4096 + 40 + 16) == 40 << 32, "the trailer points at the packet's own start"


def test_the_host_is_signalled_when_the_ring_was_empty_and_not_masked(side: Side) -> None:
    write = side.ring.hv_ringbuffer_write
    assert write(side.channel, [packet(b"")], 0)[0] == 0
    assert side.events == ["preempt", "setevent"]
    assert side.channel.intr_out_empty == 1
    side.events.clear()
    assert write(side.channel, [packet(b"")], 0)[0] == 0
    assert side.events == ["preempt"]
    side.control(OUT, 4, side.memory.host.load32(OUT))
    side.control(OUT, 8, 1)
    assert write(side.channel, [packet(b"")], 0)[0] == 0
    assert side.channel.intr_out_empty == 1
    assert side.channel.out_full_total == 0


def test_a_host_that_empties_the_ring_before_the_decision_gets_no_signal_twice(side: Side) -> None:
    write = side.ring.hv_ringbuffer_write
    assert write(side.channel, [packet(b"")], 0)[0] == 0
    side.on_preempt = lambda: side.control(OUT, 4, 24)
    assert write(side.channel, [packet(b"")], 0)[0] == 0
    assert side.channel.intr_out_empty == 2, "the host read up to the old write index meanwhile"


def test_a_full_ring_is_counted_like_the_kernel_counts(side: Side) -> None:
    write = side.ring.hv_ringbuffer_write
    channel = side.channel
    assert write(channel, [packet(bytes(4096 - 24 - 24 - 8))], 0)[0] == 0
    before = side.image(OUT)
    assert write(channel, [packet(b"12345678")], 0) == (-errno.EAGAIN, 0), "exactly filling is refused"
    assert write(channel, [packet(b"12345678")], 0) == (-errno.EAGAIN, 0)
    assert (channel.out_full_total, channel.out_full_first, channel.out_full_flag) == (2, 1, True)
    assert side.image(OUT) == before
    assert write(channel, [packet(b"")], 0)[0] == 0
    assert channel.out_full_flag is False
    assert write(channel, [packet(b"")], 0)[0] == -errno.EAGAIN
    assert (channel.out_full_total, channel.out_full_first) == (3, 2)
    assert channel.outbound.ring_lock is not None
    assert not channel.outbound.ring_lock.locked()
    assert not side.ring.hv_ringbuffer_spinlock_busy(channel)


def test_the_requestor_is_asked_after_the_copy(side: Side) -> None:
    channel = side.channel
    seen: list[int] = []

    def next_id(_: Any, requestid: int) -> int:
        assert side.memory.host.read(OUT + 4096 + 16, 8) == b"payload!"
        assert side.ring.hv_ringbuffer_spinlock_busy(channel)
        seen.append(requestid)
        return 5

    channel.next_request_id_callback = next_id
    assert side.ring.hv_ringbuffer_write(channel, [packet(b"payload!", flags=1)], 99) == (0, 5)
    assert side.memory.host.load64(OUT + 4096 + 8) == 5
    assert side.ring.hv_ringbuffer_write(channel, [packet(b"", flags=0)], 98) == (0, 98)
    assert side.ring.hv_ringbuffer_write(channel, [packet(b"", flags=3)], 97) == (0, 97), (
        "flags are compared, not tested"
    )
    assert seen == [99]
    channel.next_request_id_callback = lambda *_: VMBUS_RQST_ERROR
    index = side.memory.host.load32(OUT)
    assert side.ring.hv_ringbuffer_write(channel, [packet(b"", flags=1)], 96) == (-errno.EAGAIN, 0)
    assert side.memory.host.load32(OUT) == index
    assert channel.out_full_total == 0


def test_a_rescinded_channel_takes_nothing_and_gives_ids_back(side: Side) -> None:
    channel = side.channel
    channel.next_request_id_callback = lambda *_: 12
    returned: list[int] = []

    def give_back(_: Any, rqst_id: int) -> int:
        returned.append(rqst_id)
        return 0

    channel.request_addr_callback = give_back

    def rescind() -> None:
        channel.rescind = True

    side.on_preempt = rescind
    assert side.ring.hv_ringbuffer_write(channel, [packet(b"", flags=1)], 1) == (-errno.ENODEV, 12)
    assert returned == [12]
    index = side.memory.host.load32(OUT)
    assert side.ring.hv_ringbuffer_write(channel, [packet(b"")], 1) == (-errno.ENODEV, 0)
    assert side.memory.host.load32(OUT) == index


# reading -------------------------------------------------------------------------------------------------------


def test_packets_come_out_and_space_goes_back_at_the_end(side: Side) -> None:
    for i in range(3):
        side.put(packet(b"payload%d" % i, tid=i, flags=1, kind=11))
    got = []
    for desc in side.ring.foreach_vmbus_pkt(side.channel):
        got.append((desc.type, desc.trans_id, desc.flags, bytes(rb.hv_pkt_data(desc)), rb.hv_pkt_datalen(desc)))
        assert side.memory.host.load32(IN + 4) == 0
        assert rb.hv_pkt_len(desc) == 24
    assert got == [(11, i, 1, b"payload%d" % i, 8) for i in range(3)]
    assert side.memory.host.load32(IN + 4) == 96
    assert list(side.ring.foreach_vmbus_pkt(side.channel)) == []


def test_leaving_the_loop_publishes_nothing(side: Side) -> None:
    side.put(packet(b""))
    side.put(packet(b""))
    for _ in side.ring.foreach_vmbus_pkt(side.channel):
        break
    assert side.memory.host.load32(IN + 4) == 0
    assert side.channel.inbound.priv_read_index == 0


def test_hv_ringbuffer_read(side: Side) -> None:
    read = side.ring.hv_ringbuffer_read
    assert read(side.channel, 0, raw=False) == (-errno.EINVAL, b"", 0, 0)
    assert read(side.channel, 10, raw=False) == (0, b"", 0, 0)
    side.put(packet(b"0123456789", tid=4))
    assert read(side.channel, 15, raw=False) == (-errno.ENOBUFS, b"", 16, 4)
    assert side.memory.host.load32(IN + 4) == 0
    assert read(side.channel, 16, raw=False) == (0, b"0123456789" + bytes(6), 16, 4)
    side.put(packet(b"", tid=5))
    assert read(side.channel, 16, raw=False) == (0, b"", 0, 5), (
        "an empty payload looks like an empty ring but for its id"
    )
    side.put(packet(b"x", tid=6))
    raw = packet(b"x", tid=6)
    assert read(side.channel, 100, raw=True) == (0, raw, 24, 6)
    assert side.memory.host.load32(IN + 4) == side.memory.host.load32(IN)


@pytest.mark.parametrize(
    ("offset8", "len8", "limit", "expected_offset8", "expected_len8"),
    [
        (2, 4, 4096, 2, 4),
        (2, 1, 4096, 2, 5),
        (2, 0, 4096, 2, 5),
        (2, 6, 4096, 2, 5),
        (2, 0xFFFF, 4096, 2, 5),
        (1, 4, 4096, 2, 4),
        (0, 4, 4096, 2, 4),
        (5, 4, 4096, 2, 4),
        (4, 4, 4096, 4, 4),
        (2, 5, 32, 2, 4),
    ],
)
def test_a_descriptor_is_clamped(
    jit: bool, offset8: int, len8: int, limit: int, expected_offset8: int, expected_len8: int
) -> None:
    with opened(jit, max_pkt_size=limit) as side:
        side.put(struct.pack("<HHHHQ", 6, offset8, len8, 0, 9) + bytes(range(16)))
        desc = side.ring.hv_pkt_iter_first(side.channel)
        assert desc is not None
        assert (desc.offset8, desc.len8) == (expected_offset8, expected_len8)
        assert struct.unpack_from("<HH", desc.raw, 2) == (expected_offset8, expected_len8), "also in the copy"
        assert len(desc.raw) == expected_len8 * 8


class Meddling:
    """A mapping behind which the host acts right after the descriptor was looked at, and before it is copied."""

    def __init__(self, mapping: Any, act: Callable[[], None]) -> None:
        self._mapping, self._act = mapping, act

    def load64(self, offset: int) -> int:
        value: int = self._mapping.load64(offset)
        self._act()
        return value

    def __getattr__(self, name: str) -> Any:
        return getattr(self._mapping, name)


@pytest.mark.parametrize(("offset8", "len8"), [(2, 0xFFFF), (0xFFFF, 2), (0, 0), (3, 5)])
def test_what_was_checked_counts_when_the_host_changes_the_packet(side: Side, offset8: int, len8: int) -> None:
    side.put(packet(b"01234567", tid=4))
    side.put(packet(b"second", tid=5))
    rbi = side.channel.inbound
    mapping: Any = rbi.ring_buffer

    def meddle() -> None:
        side.memory.host.write(IN + 4096, struct.pack("<HHHHQ", 7, offset8, len8, 1, 99))

    rbi.ring_buffer = cast(Any, Meddling(mapping, meddle))
    desc = side.ring.hv_pkt_iter_first(side.channel)
    rbi.ring_buffer = mapping
    assert desc is not None
    assert (desc.offset8, desc.len8) == (2, 3), "as checked"
    assert (desc.type, desc.flags, desc.trans_id) == (7, 1, 99), "as copied: nobody checks these"
    assert struct.unpack_from("<HH", desc.raw, 2) == (2, 3)
    assert rb.hv_pkt_data(desc) == b"01234567"
    following = side.ring.hv_pkt_iter_next(side.channel, desc)
    assert following is not None
    assert following.trans_id == 5


def test_a_packet_is_a_copy(side: Side) -> None:
    """What the host does to the ring while a driver works on a packet does not reach the driver."""
    for tid in range(3):
        side.put(packet(b"content!", tid=tid))
    seen = []
    for desc in side.ring.foreach_vmbus_pkt(side.channel):
        side.memory.host.write(IN + 4096, bytes([0xFF]) * 16 + b"forgery!" + bytes(8))
        seen.append((desc.trans_id, bytes(rb.hv_pkt_data(desc))))
    assert seen == [(tid, b"content!") for tid in range(3)]


def test_less_than_a_descriptor_is_no_packet(side: Side) -> None:
    side.control(IN, 0, 15)
    assert side.ring.hv_pkt_iter_first(side.channel) is None


@pytest.mark.parametrize(
    ("free_before", "pending", "signal"),
    [(0, 0, False), (40, 100, True), (40, 40, True), (40, 39, False), (40, 160, False), (40, 159, True)],
)
def test_the_host_is_signalled_when_it_waits_and_this_made_room(
    side: Side, free_before: int, pending: int, signal: bool
) -> None:
    side.put(packet(bytes(96), tid=1))
    fill = 4096 - 120 - free_before - 24
    if free_before:
        side.put(packet(bytes(fill), tid=2))
        assert rb.hv_get_bytes_to_write(side.channel.inbound) == free_before
    side.control(IN, 12, pending)
    side.events.clear()
    desc = side.ring.hv_pkt_iter_first(side.channel)
    assert desc is not None
    side.ring._hv_pkt_iter_next(side.channel, desc)
    side.ring.hv_pkt_iter_close(side.channel)
    assert side.memory.host.load32(IN + 4) == 120
    assert side.channel.intr_in_full == int(signal)
    assert ("setevent" in side.events) is signal


def test_a_host_without_flow_control_is_never_signalled(side: Side) -> None:
    side.put(packet(bytes(96)))
    side.put(packet(bytes(4096 - 120 - 40 - 24)))
    side.control(IN, 12, 100)
    side.control(IN, 64, 0)
    assert side.ring.hv_ringbuffer_read(side.channel, 200, raw=False)[2] == 96
    assert side.channel.intr_in_full == 0


def test_pending_set_between_release_and_check_is_seen(side: Side) -> None:
    side.put(packet(bytes(96)))
    side.put(packet(bytes(4096 - 120 - 40 - 24)))

    def host_waits() -> None:
        if side.memory.host.load32(IN + 4):
            side.control(IN, 12, 100)

    side.on_preempt = host_waits
    assert side.ring.hv_ringbuffer_read(side.channel, 200, raw=False)[2] == 96
    assert side.channel.intr_in_full == 1


def test_begin_and_end_read(side: Side) -> None:
    side.ring.hv_begin_read(side.channel.inbound)
    assert side.memory.host.load32(IN + 8) == 1
    side.put(packet(b""))
    assert side.ring.hv_end_read(side.channel.inbound) == 24
    assert side.memory.host.load32(IN + 8) == 0


# life ----------------------------------------------------------------------------------------------------------


def test_use_after_cleanup_is_an_error(jit: bool) -> None:
    side = Side(jit)
    mapping = side.channel.inbound.ring_buffer
    assert mapping is not None
    side.ring.hv_ringbuffer_cleanup(side.channel.inbound)
    with pytest.raises(MachineError, match="after vunmap"):
        mapping.load32(0)
    with pytest.raises(PageFault, match=r"guest read of gpa 0x4: hv_ring_buffer_info.ring_buffer is NULL"):
        rb.hv_get_bytes_to_read(side.channel.inbound)
    with pytest.raises(PageFault, match=r"guest write to gpa 0x8: "):
        side.ring.hv_begin_read(side.channel.inbound)
    assert side.ring.hv_ringbuffer_get_debuginfo(side.channel.inbound) == -errno.EINVAL
    side.ring.hv_ringbuffer_cleanup(side.channel.outbound)
    side.close()


def test_wrong_arguments_are_named() -> None:
    memory = Memory([(0, 0x20000)])
    options: dict[str, Any] = {"preempt": lambda: None, "vmbus_setevent": lambda _: None, "locking": Locks()}
    for size in (0, 4097, -4096):
        with pytest.raises(ValueError, match=rf"page_size: {size} is not a positive multiple of 4096"):
            rb.RingBuffer(memory, size, **options)
    ring = rb.RingBuffer(memory, 16384, **options)
    with pytest.raises(ValueError, match="gpa 0x1000 is not a multiple of PAGE_SIZE 16384"):
        ring.hv_ringbuffer_init(rb.HvRingBufferInfo(), 0x1000, 2, 0)
    with pytest.raises(ValueError, match="page_cnt 1 is below 2"):
        ring.hv_ringbuffer_init(rb.HvRingBufferInfo(), 0x4000, 1, 0)
    memory.close()


# properties ----------------------------------------------------------------------------------------------------

operations = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.binary(max_size=900), st.integers(0, 2**64 - 4)),
        st.tuples(st.just("drain"), st.integers(1, 6)),
        st.tuples(st.just("put"), st.binary(max_size=900), st.integers(0, 2**64 - 1)),
        st.tuples(st.just("read")),
        st.tuples(st.just("mask"), st.booleans()),
        st.tuples(st.just("pending"), st.integers(0, 4200)),
    ),
    max_size=40,
)


def play(side: Side, model_out: Any, model_in: Any, script: list[tuple[Any, ...]]) -> None:
    """Run a script on the ring and on two models; images, counters and signals agree after every step."""
    channel = side.channel
    for step in script:
        if step[0] == "write":
            status, _ = side.ring.hv_ringbuffer_write(channel, [packet(step[1])], step[2])
            assert (status == 0) == (model_out.write([step[1]], step[2]) == 1)
        elif step[0] == "drain":
            model_out.read(step[1])
            side.control(OUT, 4, model_out.read_index)
        elif step[0] == "put":
            if model_in.fits(step[1]):
                side.put(packet(step[1], step[2]))
                model_in.write([step[1]], step[2])
        elif step[0] == "read":
            got = [(desc.trans_id, bytes(rb.hv_pkt_data(desc))) for desc in side.ring.foreach_vmbus_pkt(channel)]
            assert got == model_in.read(1000)
        elif step[0] == "mask":
            model_out.interrupt_mask = int(step[1])
            side.control(OUT, 8, int(step[1]))
        else:
            model_in.pending_send_sz = step[1]
            side.control(IN, 12, step[1])
        assert side.image(OUT) == model_out.image()
        assert side.image(IN) == model_in.image()
        assert channel.intr_out_empty == model_out.out_signals
        assert channel.intr_in_full == model_in.in_signals
        assert (channel.out_full_total, channel.out_full_first) == (model_out.out_full_total, model_out.out_full_first)


@given(script=operations)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@pytest.mark.parametrize("use_jit", [False, True])
def test_every_operation_agrees_with_the_model(model_ring: Any, use_jit: bool, script: list[tuple[Any, ...]]) -> None:
    with opened(use_jit) as side:
        play(side, model_ring(4096), model_ring(4096), script)


@pytest.mark.parametrize("page_size", [16384, 65536])
def test_a_long_random_run_on_large_pages(model_ring: Any, jit: bool, page_size: int) -> None:
    rng = random.Random(page_size)
    with opened(jit, page_size=page_size) as side:
        script: list[tuple[Any, ...]] = []
        for _ in range(150):
            kind = rng.choice(["write", "write", "drain", "read"])
            if kind == "write":
                script.append((kind, rng.randbytes(rng.randrange(page_size // 6)), rng.randrange(2**63)))
            else:
                script.append((kind, 3))
        play(side, model_ring(page_size), model_ring(page_size), script)


def test_jit_and_accessors_leave_the_same_trace() -> None:
    rng = random.Random(5)
    script = [(rng.randrange(3), rng.randbytes(rng.randrange(700))) for _ in range(300)]
    traces = []
    for use_jit in (False, True):
        with opened(use_jit) as side:
            trace: list[Any] = []
            for kind, data in script:
                if kind == 0:
                    trace.append(side.ring.hv_ringbuffer_write(side.channel, [packet(data), b""], len(data)))
                elif kind == 1:
                    side.control(OUT, 4, side.memory.host.load32(OUT))
                else:
                    if rb.hv_get_bytes_to_write(side.channel.inbound) > len(data) + 32:
                        side.put(packet(data, 3))
                    trace.append(side.ring.hv_ringbuffer_read(side.channel, 1000, raw=True))
                trace.append((side.image(OUT), side.image(IN)))
            traces.append((trace, side.events, side.channel.intr_out_empty, side.channel.out_full_total))
    assert traces[0] == traces[1]


# with the stand-alone ring -------------------------------------------------------------------------------------


def test_interoperates_with_the_standalone_ring_both_ways(jit: bool) -> None:
    """The guest writes and the jitted reader reads, and the other way round: bytes, counters and signals agree."""
    rng = random.Random(11)
    with opened(jit, pages=3, max_pkt_size=8192) as side:
        with (
            side.memory.host.view(OUT, 3 * 4096) as out_view,
            side.memory.host.view(IN, 3 * 4096) as in_view,
            RingReader.attach(out_view) as reader,
            RingWriter.attach(in_view) as writer,
        ):
            dst, lens, tids = bytearray(1 << 16), np.zeros(64, np.uint32), np.zeros(64, np.uint64)
            sent: list[tuple[int, bytes]] = []
            seen: list[tuple[int, bytes]] = []
            expected_in: list[tuple[int, bytes]] = []
            got_in: list[tuple[int, bytes]] = []
            for tid in range(600):
                data = rng.randbytes(8 * rng.randrange(120))
                if side.ring.hv_ringbuffer_write(side.channel, [packet(data)], tid)[0] == 0:
                    sent.append((tid, data))
                if rng.random() < 0.3:
                    count = reader.read_batch(dst, lens, tids, 64)
                    at = 0
                    for i in range(count):
                        seen.append((int(tids[i]), bytes(dst[at : at + int(lens[i])])))
                        at += int(lens[i])
                src, sizes = bytearray(data), np.array([len(data)], np.uint32)
                if writer.write_batch(src, sizes, 1, tid):
                    expected_in.append((tid, data))
                if rng.random() < 0.08:
                    got_in += [
                        (desc.trans_id, bytes(rb.hv_pkt_data(desc)))
                        for desc in side.ring.foreach_vmbus_pkt(side.channel)
                    ]
            assert side.channel.out_full_total > 0
            assert writer.out_full_total > 0
            assert reader.indices == (side.memory.host.load32(OUT), side.memory.host.load32(OUT + 4))
        assert seen == sent[: len(seen)]
        assert len(seen) > 300
        assert got_in == expected_in[: len(got_in)]
        assert len(got_in) > 200


def test_the_standalone_writer_makes_the_guests_ring_byte_for_byte(jit: bool) -> None:
    rng = random.Random(3)
    with opened(jit) as side:
        image = bytearray(8192)
        image[64] = 1
        with RingWriter.attach(image) as writer:
            for tid in range(400):
                data = rng.randbytes(rng.randrange(400))
                status, _ = side.ring.hv_ringbuffer_write(side.channel, [packet(data)], tid)
                done = writer.write_batch(bytearray(data), np.array([len(data)], np.uint32), 1, tid)
                assert (status == 0) == (done == 1)
                if rng.random() < 0.25:
                    read_index = side.memory.host.load32(OUT)
                    side.control(OUT, 4, read_index)
                    struct.pack_into("<I", image, 4, read_index)
                assert side.image(OUT) == image
            assert writer.signals == side.channel.intr_out_empty > 0
            assert writer.out_full_total == side.channel.out_full_total > 0
            assert writer.out_full_first == side.channel.out_full_first > 0
