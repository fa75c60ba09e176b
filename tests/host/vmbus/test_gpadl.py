from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvkernel.abi import vmbus as abi
from hvkernel.abi.vmbus import VmbusChannelMessageType as Type

MIB = 1 << 20


def created(raw: Any, relid: int, handle: int, ok: bool = True) -> abi.VmbusChannelGpadlCreated:
    return abi.VmbusChannelGpadlCreated(
        raw.head(Type.CHANNELMSG_GPADL_CREATED), relid, handle, 0 if ok else 0xC000_0001
    )


def torndown(raw: Any, handle: int) -> abi.VmbusChannelGpadlTorndown:
    return abi.VmbusChannelGpadlTorndown(raw.head(Type.CHANNELMSG_GPADL_TORNDOWN), handle)


def teardown(raw: Any, relid: int, handle: int) -> abi.VmbusChannelGpadlTeardown:
    return abi.VmbusChannelGpadlTeardown(raw.head(Type.CHANNELMSG_GPADL_TEARDOWN), relid, handle)


@pytest.mark.parametrize("pages", [1, 25, 26, 27, 53, 54, 55, 82, 83, 1024, 4097])
def test_header_and_bodies_at_their_limits(raw: Any, pages: int) -> None:
    """26 page numbers in the header, 28 in each body; accepted with the last and not before."""
    guest = raw()
    guest.connect()
    before = guest.shared()
    pfns = [0x2000 - 2 * i if pages < 100 else 0x1000 + i for i in range(pages)]
    guest.post_gpadl(1, 7, [(pages * 4096, 0, pfns)])
    assert guest.got() == [created(raw, 1, 7)]
    shared = [s for s in guest.shared() if s not in before]
    assert sum(n for _, n, _ in shared) == pages
    assert {via for _, _, via in shared} == {"gpadl 0x7"}
    assert guest.server.gpadls.total == pages * 4096
    guest.post(teardown(raw, 1, 7))
    assert guest.got() == [torndown(raw, 7)]
    assert guest.shared() == before
    assert guest.server.gpadls.total == 0
    assert guest.findings() == []


def test_several_ranges(raw: Any) -> None:
    guest = raw()
    guest.connect()
    ranges = [(100, 4000, (0x10, 0x20)), (1, 0, (0x30,)), (8192, 0, (0x41, 0x40))]
    guest.post_gpadl(1, 9, ranges)
    assert guest.got() == [created(raw, 1, 9)]
    gpadl = guest.server.gpadls.get(1, 9)
    assert gpadl.ranges == tuple(ranges)
    buffer = gpadl.buffer()
    buffer.write(50, bytes(range(1, 101)))
    read = guest.machine.memory.guest.read
    assert read(0x10FA0 + 50, 46) == bytes(range(1, 47))
    assert read(0x20000, 4) == bytes([47, 48, 49, 50])
    assert read(0x30000, 2) == bytes([51, 0])
    assert read(0x41000, 49) == bytes(range(52, 101))
    assert buffer.read() == bytes(50) + bytes(range(1, 101)) + bytes(8293 - 150)
    assert list(buffer.pieces()) == [(0x10FA0, 96), (0x20000, 4), (0x30000, 1), (0x41000, 4096), (0x40000, 4096)]
    for offset, size in ((-1, 1), (0, 8294), (8293, 1)):
        with pytest.raises(ValueError, match=r"are outside the guest's buffer of 8293$"):
            buffer.read(offset, size)


@pytest.mark.parametrize(
    ("ranges", "why"),
    [
        ([(0, 0, (1,))], "range 0 of 1: byte_count is 0"),
        ([(1, 4096, (1,))], "range 0 of 1: byte_offset 0x1000 is beyond the first page (0xfff)"),
        ([(4097, 0, (1,))], "range 0 of 1: 0x1001 bytes need 2 page numbers, 1 follow"),
        ([(2, 4095, (1,))], "range 0 of 1: 0x2 bytes need 2 page numbers, 1 follow"),
        ([(1, 0, (1 << 52,))], "range 0 of 1: page number 0x10000000000000 is beyond 52 bits"),
        ([(1, 0, (0x8000,))], "page 0x8000 is not memory of this guest"),
        ([(8192, 0, (1, 0x8000))], "page 0x8000 is not memory of this guest"),
        ([(1, 0, (1,)), (1, 0, ())], "range 1 of 2: 0x1 bytes need 1 page numbers, 0 follow"),
    ],
)
def test_ranges_that_are_no_memory(raw: Any, ranges: Any, why: str) -> None:
    guest = raw()
    guest.connect()
    before = guest.shared()
    guest.post_gpadl(1, 7, ranges)
    assert guest.got() == [created(raw, 1, 7, ok=False)]
    assert guest.findings() == [f"refused: vmbus: GPADL 0x7 of relid 1: {why}"]
    assert guest.shared() == before
    guest.post_gpadl(1, 7, [(1, 0, (1,))])
    assert guest.got() == [created(raw, 1, 7)]


@pytest.mark.parametrize(("pages", "says"), [(8191, 0), (8192, 8), (9000, 72008 - 65536), (16000, 128008 - 65536)])
def test_range_buflen_is_16_bits_and_wraps(raw: Any, pages: int, says: int) -> None:
    """8 + 8 * 8191 is 65536, stored as 0. The guest posts all bodies all the same; one finding names the limit."""
    guest = raw()
    guest.connect()
    guest.post_gpadl(1, 7, [(pages * 4096, 0, range(pages))])
    assert guest.got() == [created(raw, 1, 7, ok=False)]
    assert guest.findings() == [
        f"refused: vmbus: GPADL 0x7 of relid 1: {pages} pages take a list of {8 + 8 * pages} bytes, and range_buflen "
        f"has 16 bits: it says {says}, 65535 is the most (8190 pages in one range)"
    ]
    assert len(guest.server.gpadls) == 0
    guest.post_gpadl(1, 7, [(8190 * 4096, 0, range(8190))])
    assert guest.got() == [created(raw, 1, 7)]
    assert guest.findings() == []


def test_several_ranges_wrap_together(raw: Any) -> None:
    guest = raw()
    guest.connect()
    guest.post_gpadl(1, 7, [(5000 * 4096, 0, range(5000)), (4000 * 4096, 0, range(4000))])
    assert guest.got() == [created(raw, 1, 7, ok=False)]
    assert guest.findings() == [
        "refused: vmbus: GPADL 0x7 of relid 1: range 0 of 2: 0x1388000 bytes need 5000 page numbers, 809 follow"
    ]


def test_bodies_of_a_refused_header_are_no_mistake_of_their_own(raw: Any) -> None:
    guest = raw()
    guest.connect()
    guest.post_gpadl(9, 7, [(100 * 4096, 0, range(100))])
    assert guest.got() == [created(raw, 9, 7, ok=False)]
    assert guest.findings() == ["ignored: vmbus: GPADL_HEADER for relid 9, which is not offered"]
    guest.post(raw.head(Type.CHANNELMSG_UNLOAD))
    guest.got()
    guest.connect()
    body = abi.VmbusChannelGpadlBody(raw.head(Type.CHANNELMSG_GPADL_BODY), 0, 7)
    guest.post(body.pack() + bytes(16))
    assert guest.findings() == ["ignored: vmbus: GPADL_BODY for 0x7, which waits for none"]


@given(
    ranges=st.lists(
        st.tuples(st.integers(0, 4095), st.integers(1, 60)).flatmap(
            lambda shape: st.tuples(
                st.just(shape[0]),
                st.integers((shape[1] - 1) * 4096 - shape[0] + 1, shape[1] * 4096 - shape[0]).filter(lambda n: n > 0),
                st.lists(st.integers(0, 0x3FFF), min_size=shape[1], max_size=shape[1]),
            )
        ),
        min_size=1,
        max_size=4,
    ),
    cuts=st.lists(st.integers(0, 26), min_size=1, max_size=40),
    extra=st.integers(0, 7),
)
@settings(max_examples=60)
def test_any_split_of_any_ranges(raw_guest: Any, ranges: Any, cuts: list[int], extra: int) -> None:
    """However the list is cut into messages, half page numbers at their ends included, it is one GPADL."""
    raw = raw_guest
    guest = raw()
    try:
        guest.connect()
        data = b"".join(struct.pack(f"<II{len(pfns)}Q", size, offset, *pfns) for offset, size, pfns in ranges)
        head = abi.VmbusChannelGpadlHeader(raw.head(Type.CHANNELMSG_GPADL_HEADER), 1, 7, len(data), len(ranges))
        body = abi.VmbusChannelGpadlBody(raw.head(Type.CHANNELMSG_GPADL_BODY), 0, 7)
        at = min(cuts[0], 26) * 8
        guest.post(head.pack() + data[:at] + b"\xee" * (extra if at < len(data) else 0))
        turn = 1
        while at < len(data):
            step = 8 * (1 + cuts[turn % len(cuts)])
            turn += 1
            piece = data[at : at + step]
            at += step
            assert guest.got() == [], "not before the last page number"
            guest.post(body.pack() + piece + b"\xee" * (extra if at < len(data) else 0))
        assert guest.got() == [created(raw, 1, 7)]
        assert guest.server.gpadls.get(1, 7).ranges == tuple(
            (size, offset, tuple(pfns)) for offset, size, pfns in ranges
        )
        assert guest.findings() == []
        guest.post(teardown(raw, 1, 7))
        assert guest.got() == [torndown(raw, 7)]
        assert guest.shared() == [(3, 1, "monitor"), (4, 1, "monitor")]
    finally:
        guest.machine.close()
        raw.guests.remove(guest)


def test_a_gpadl_belongs_to_one_channel(raw: Any) -> None:
    guest = raw(slots=2)
    guest.connect()
    handle = guest.lend(1, 0x100, 8)
    guest.post(guest.open_message(2, handle, 4))
    assert guest.got()[0].status == 0xC000_0001
    guest.post(teardown(raw, 2, handle))
    assert guest.got() == []
    assert guest.findings() == [
        f"refused: vmbus: OPENCHANNEL of relid 2 (echo1): ringbuffer_gpadlhandle {handle:#x}, which the channel does "
        "not have",
        f"ignored: vmbus: GPADL_TEARDOWN for {handle:#x}, which relid 2 does not have",
    ]


def test_a_gpadl_that_crosses_a_rescind_is_accepted_and_not_used(raw: Any) -> None:
    """Whole or begun before it: the guest hears that it exists, and the host does not touch the memory."""
    guest = raw()
    guest.connect()
    header = abi.VmbusChannelGpadlHeader(raw.head(Type.CHANNELMSG_GPADL_HEADER), 1, 8, 16 + 8 * 40, 1)
    guest.post(header.pack() + struct.pack("<II26Q", 41 * 4096, 0, *range(26)))
    guest.server.rescind("echo0")
    guest.run()
    guest.got()
    body = abi.VmbusChannelGpadlBody(raw.head(Type.CHANNELMSG_GPADL_BODY), 0, 8)
    guest.post(body.pack() + struct.pack("<15Q", *range(15)))
    guest.post_gpadl(1, 9, [(4096, 0, (5,))])
    assert guest.got() == [created(raw, 1, 8), created(raw, 1, 9)]
    assert guest.shared() == [(3, 1, "monitor"), (4, 1, "monitor")]
    guest.post(teardown(raw, 1, 9))
    assert guest.got() == [torndown(raw, 9)]
    guest.post(abi.VmbusChannelRelidReleased(raw.head(Type.CHANNELMSG_RELID_RELEASED), 1))
    assert (len(guest.server.gpadls), guest.server.gpadls.total) == (0, 0)
    assert guest.findings() == []


def test_buflen_beyond_what_the_ranges_need_is_fine(raw: Any) -> None:
    guest = raw()
    guest.connect()
    guest.post_gpadl_data(1, 7, struct.pack("<IIQQ", 4096, 0, 5, 6), 1)
    assert guest.got() == [created(raw, 1, 7)]
    assert guest.server.gpadls.get(1, 7).pfns == (5,)


def test_a_message_longer_than_its_content(raw: Any) -> None:
    guest = raw()
    guest.connect()
    first = abi.VmbusChannelGpadlHeader(raw.head(Type.CHANNELMSG_GPADL_HEADER), 1, 7, 16, 1)
    guest.post((first.pack() + struct.pack("<IIQ", 4096, 0, 5)).ljust(240, b"\xff"))
    assert guest.got() == [created(raw, 1, 7)]


def test_half_a_page_number_at_the_end_of_a_message_is_not_one(raw: Any) -> None:
    guest = raw()
    guest.connect()
    first = abi.VmbusChannelGpadlHeader(raw.head(Type.CHANNELMSG_GPADL_HEADER), 1, 7, 24, 1)
    body = abi.VmbusChannelGpadlBody(raw.head(Type.CHANNELMSG_GPADL_BODY), 0, 7)
    guest.post(first.pack() + struct.pack("<IIQ", 8192, 0, 5) + b"\xff\xff\xff")
    guest.post(body.pack() + struct.pack("<Q", 6))
    assert guest.got() == [created(raw, 1, 7)]
    buffer = guest.server.gpadls.get(1, 7).buffer()
    assert list(buffer.pieces()) == [(0x5000, 8192)], "neighbours are one piece"


def test_aggregate_limit(raw: Any) -> None:
    """The limit is of the guest, not of a channel, and teardown gives room back."""
    guest = raw(raw.Accepts(gpadl_total_mb=8), slots=2)
    guest.connect()
    guest.post_gpadl(1, 1, [(5 * MIB, 0, range(5 * 256))])
    guest.post_gpadl(2, 2, [(3 * MIB, 0, range(3 * 256))])
    assert guest.got() == [created(raw, 1, 1), created(raw, 2, 2)]
    guest.post_gpadl(2, 3, [(1, 0, (9,))])
    assert guest.got() == [created(raw, 2, 3, ok=False)]
    assert guest.findings() == [
        "refused: vmbus: GPADL 0x3 of relid 2: 0x1 bytes more than the 0x800000 already in GPADLs "
        "exceed this host's limit of 0x800000"
    ]
    guest.post(teardown(raw, 1, 1))
    guest.got()
    guest.post_gpadl(2, 3, [(1, 0, (9,))])
    assert guest.got() == [created(raw, 2, 3)]


@pytest.mark.parametrize("megabytes", [384, 1280])
def test_the_limits_of_the_profiles_to_the_byte(raw: Any, megabytes: int) -> None:
    """All of it in GPADLs of 16 MiB fits, and not one byte more (Documentation/virt/hyperv/vmbus.rst)."""
    guest = raw(raw.Accepts(gpadl_total_mb=megabytes))
    guest.connect()
    gpadls = guest.server.gpadls

    def lend(handle: int, byte_count: int) -> bool:
        pages = byte_count + 4095 >> 12
        head = raw.head(Type.CHANNELMSG_GPADL_HEADER)
        first = abi.VmbusChannelGpadlHeader(head, 1, handle, 8 + 8 * pages, 1)
        ranges = struct.pack(f"<II{pages}Q", byte_count, 0, *range(0x100, 0x100 + pages))
        gpadls.header(first, first.pack() + ranges, 0)
        return gpadls.get(1, handle) is not None

    assert all(lend(handle, 16 * MIB) for handle in range(1, megabytes // 16))
    assert lend(1000, 16 * MIB - 1)
    assert not lend(1001, 2)
    assert lend(1002, 1)
    assert gpadls.total == megabytes * MIB
    assert not lend(1003, 1)


def test_handles(raw: Any) -> None:
    """A handle may not repeat in a channel, nor while it waits for bodies in another one."""
    guest = raw(slots=2)
    guest.connect()
    guest.lend(1, 0x100, 1)
    handle = guest.gpadl
    guest.post_gpadl(1, handle, [(4096, 0, (1,))])
    assert guest.got() == [created(raw, 1, handle, ok=False)]
    guest.post_gpadl(2, handle, [(4096, 0, (1,))])
    assert guest.got() == [created(raw, 2, handle)]
    header = abi.VmbusChannelGpadlHeader(raw.head(Type.CHANNELMSG_GPADL_HEADER), 1, 99, 16 + 8 * 40, 1)
    guest.post(header.pack() + struct.pack("<II26Q", 41 * 4096, 0, *range(26)))
    assert guest.got() == []
    guest.post_gpadl(2, 99, [(4096, 0, (1,))])
    assert guest.got() == [created(raw, 2, 99, ok=False)]
    assert guest.findings() == [
        f"refused: vmbus: GPADL {handle:#x} of relid 1: the channel has a GPADL of that handle",
        "refused: vmbus: GPADL 0x63 of relid 2: a GPADL of that handle is still waiting for its GPADL_BODY",
    ]
    guest.post(teardown(raw, 1, 99))
    assert guest.got() == []
    assert guest.findings()[0].startswith(
        "refused: vmbus: GPADL 0x63 of relid 1 is in state 'assembling', where 'GPADL_TEARDOWN' is not legal"
    )


def test_more_misuse_of_headers_and_bodies(raw: Any) -> None:
    guest = raw()
    guest.connect()
    guest.post_gpadl(9, 7, [(4096, 0, (1,))])
    assert guest.got() == [created(raw, 9, 7, ok=False)]
    guest.post_gpadl_data(1, 7, struct.pack("<IIQ", 4096, 0, 5), 0)
    assert guest.got() == [created(raw, 1, 7, ok=False)]
    header = abi.VmbusChannelGpadlHeader(raw.head(Type.CHANNELMSG_GPADL_HEADER), 1, 8, 16 + 8 * 40, 1)
    guest.post(header.pack() + struct.pack("<II26Q", 41 * 4096, 0, *range(26)))
    body = abi.VmbusChannelGpadlBody(raw.head(Type.CHANNELMSG_GPADL_BODY), 0, 8)
    guest.post(body.pack() + bytes(7))
    assert guest.got() == [created(raw, 1, 8, ok=False)]
    assert guest.findings() == [
        "ignored: vmbus: GPADL_HEADER for relid 9, which is not offered",
        "refused: vmbus: GPADL 0x7 of relid 1: rangecount is 0",
        "refused: vmbus: GPADL 0x8 of relid 1: GPADL_BODY of 23 bytes holds no page number",
    ]
    assert len(guest.server.gpadls) == 0


def test_teardown_twice(raw: Any) -> None:
    guest = raw()
    guest.connect()
    handle = guest.lend(1, 0x100, 3)
    guest.post(teardown(raw, 1, handle))
    guest.post(teardown(raw, 1, handle))
    assert guest.got() == [torndown(raw, handle)]
    assert guest.findings() == [f"ignored: vmbus: GPADL_TEARDOWN for {handle:#x}, which relid 1 does not have"]


def test_teardown_of_an_open_ring_waits_for_the_close(raw: Any) -> None:
    """TORNDOWN means that the host lets go of the pages, so it cannot come while the ring is in use."""
    guest = raw()
    guest.connect()
    ring = guest.open(1)
    guest.post(teardown(raw, 1, guest.gpadl))
    assert guest.got() == []
    assert guest.findings() == [
        f"tolerated: vmbus: GPADL {guest.gpadl:#x} of relid 1 is torn down while its ring is open; "
        "TORNDOWN waits for CLOSECHANNEL"
    ]
    ring.write(raw.inband(b"still works!", 3, 1))
    guest.signal(0x2001)
    assert len(ring.read_all()) == 1
    guest.post(abi.VmbusChannelCloseChannel(raw.head(Type.CHANNELMSG_CLOSECHANNEL), 1))
    assert guest.got() == [torndown(raw, guest.gpadl)]
    assert guest.shared() == [(3, 1, "monitor"), (4, 1, "monitor")]


def test_an_unfinished_gpadl_ends_with_the_connection(raw: Any) -> None:
    guest = raw()
    guest.connect()
    header = abi.VmbusChannelGpadlHeader(raw.head(Type.CHANNELMSG_GPADL_HEADER), 1, 8, 16 + 8 * 40, 1)
    guest.post(header.pack() + struct.pack("<II26Q", 41 * 4096, 0, *range(26)))
    guest.post(raw.head(Type.CHANNELMSG_UNLOAD))
    guest.got()
    guest.connect()
    guest.post(abi.VmbusChannelGpadlBody(raw.head(Type.CHANNELMSG_GPADL_BODY), 0, 8).pack() + bytes(8 * 16))
    assert guest.findings() == ["ignored: vmbus: GPADL_BODY for 0x8, which waits for none"]
