from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvkernel.api.host import Packet
from hvkernel.host.vmbus.packets import BadPacket, build_packet, build_transfer_pages, parse_packet


class NoMemory:
    def read(self, gpa: int, size: int) -> bytes:
        raise AssertionError

    def write(self, gpa: int, data: Any) -> None:
        raise AssertionError

    def view(self, gpa: int, size: int, *, writable: bool = True) -> Any:
        raise AssertionError


def parse(raw: bytes) -> Packet:
    return parse_packet(raw, NoMemory())


@given(st.sampled_from([6, 11]), st.binary(max_size=300), st.integers(0, 2**64 - 1), st.integers(0, 1))
def test_inband_round_trip(kind: int, payload: bytes, tid: int, flags: int) -> None:
    packet = parse(build_packet(kind, payload, tid, flags))
    assert packet == Packet(kind, flags, tid, payload + bytes(-len(payload) % 8))
    assert packet.completion_requested is bool(flags)


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)), max_size=40), st.binary(max_size=64))
def test_transfer_pages_round_trip(ranges: list[tuple[int, int]], payload: bytes) -> None:
    packet = parse(build_transfer_pages(0xCAFE, ranges, payload, 9, 1))
    assert packet.transfer_pageset == 0xCAFE
    assert packet.transfer_ranges == tuple(ranges)
    assert packet.payload == payload + bytes(-len(payload) % 8)


@given(st.lists(st.tuples(st.integers(1, 20000), st.integers(0, 4095)), min_size=1, max_size=32), st.data())
def test_gpa_direct_round_trip(raw_guest: Any, shapes: list[tuple[int, int]], data: st.DataObject) -> None:
    ranges = []
    for count, offset in shapes:
        pages = (count + offset + 4095) // 4096
        ranges.append((count, offset, tuple(data.draw(st.integers(0, 2**52 - 1)) for _ in range(pages))))
    packet = parse(raw_guest.gpa_direct(ranges, b"cdb", 7))
    assert packet.buffer is not None
    assert packet.buffer.ranges == tuple(ranges)
    assert packet.buffer.byte_count == sum(count for count, _ in shapes)
    assert sum(size for _, size in packet.buffer.pieces()) == packet.buffer.byte_count
    assert packet.payload == b"cdb" + bytes(5)


@pytest.mark.parametrize(
    ("packet", "why"),
    [
        (struct.pack("<HHHHQ", 6, 2, 2, 2, 0), "packet flags 0x2: only bit 0 (completion requested) is defined"),
        (struct.pack("<HHHHQ", 4, 2, 2, 0, 0), "packet type 0x4 is not one that a guest sends"),
        (
            struct.pack("<HHHHQ", 9, 2, 2, 0, 0),
            "GPA-direct packet: data offset 16 leaves no room for its 24-byte header",
        ),
        (struct.pack("<HHHHQII", 9, 3, 3, 0, 0, 0, 0), "GPA-direct packet without a range"),
        (
            struct.pack("<HHHHQIIII", 9, 4, 4, 0, 0, 0, 1, 1, 0),
            "GPA-direct packet: range 0 of 1: 0x1 bytes need 1 page numbers, 0 follow",
        ),
        (
            struct.pack("<HHHHQIIII", 9, 4, 4, 0, 0, 0, 2, 1, 0),
            "GPA-direct packet: range 0 of 2: 0x1 bytes need 1 page numbers, 0 follow",
        ),
        (
            struct.pack("<HHHHQ", 7, 2, 2, 0, 0),
            "transfer-page packet: data offset 16 leaves no room for its 24-byte header",
        ),
        (
            struct.pack("<HHHHQHBBI", 7, 3, 3, 0, 0, 0, 0, 0, 1),
            "transfer-page packet: 1 ranges do not fit before the data at 24",
        ),
    ],
)
def test_packets_that_no_guest_writes(packet: bytes, why: str) -> None:
    with pytest.raises(BadPacket) as error:
        parse(packet)
    assert str(error.value) == why


@given(st.binary(max_size=200), st.integers(0, 15), st.integers(2, 40), st.integers(0, 3))
def test_any_descriptor_at_all(tail: bytes, kind: int, offset8: int, flags: int) -> None:
    raw = struct.pack("<HHHHQ", kind, offset8, offset8, flags, 0) + tail
    raw = raw[: len(raw) & ~7].ljust(offset8 * 8, b"\0")
    try:
        parse(raw)
    except BadPacket:
        return


def test_gpa_direct_reaches_guest_memory_and_the_ledger(raw: Any) -> None:
    guest = raw()
    guest.connect()
    ring = guest.open(1)
    echo = guest.echoes[0]
    held: list[Any] = []
    echo.on = lambda channel, packet: held.append((channel, packet))
    memory = guest.machine.memory.guest
    memory.write(0x300FF0, b"0123456789abcdef")
    ring.write(raw.gpa_direct([(20, 0xFF0, (0x300, 0x302))], b"command", 0x55))
    guest.signal(0x2001)
    channel, packet = held[0]
    assert packet.buffer.read(0, 16) == b"0123456789abcdef"
    packet.buffer.write(14, b"ZYXWVU")
    assert memory.read(0x300FFE, 2) == b"ZY"
    assert memory.read(0x302000, 4) == b"XWVU"
    assert [s for s in guest.shared() if s[2] == "gpa-range"] == [(0x300, 1, "gpa-range"), (0x302, 1, "gpa-range")]
    channel.complete(0x55, b"done")
    assert [s for s in guest.shared() if s[2] == "gpa-range"] == []
    assert ring.read_all() == [raw.inband(b"done", 0x55, kind=11)]


def test_in_flight_ranges_end_with_the_close(raw: Any) -> None:
    guest = raw()
    guest.connect()
    ring = guest.open(1)
    guest.echoes[0].on = lambda channel, packet: None
    ring.write(raw.gpa_direct([(4096, 0, (0x300,))], b"", 1))
    ring.write(raw.gpa_direct([(4096, 0, (0x301,))], b"", 1))
    ring.write(raw.gpa_direct([(4096, 0, (0x302,))], b"", 2, flags=0))
    guest.signal(0x2001)
    assert [s[0] for s in guest.shared() if s[2] == "gpa-range"] == [0x301]
    assert guest.findings() == ["tolerated: vmbus: relid 1 (echo0): transaction id 0x1 is in flight twice"]
    guest.post(struct.pack("<III", 7, 0, 1))
    assert [s for s in guest.shared() if s[2] == "gpa-range"] == []


def test_a_device_that_follows_the_guest_outside_memory(raw: Any) -> None:
    guest = raw()
    guest.connect()
    ring = guest.open(1)
    echo = guest.echoes[0]
    echo.on = lambda channel, packet: packet.buffer.write(0, b"x")
    ring.write(raw.gpa_direct([(8, 0, (0x9999999,))], b"", 1))
    guest.signal(0x2001)
    (finding,) = guest.findings()
    assert finding.startswith("refused: vmbus: ")
    assert "0x9999999" in finding
    echo.on = None
    ring.write(raw.inband(b"still alive", 2, 1))
    guest.signal(0x2001)
    assert len(ring.read_all()) == 1
