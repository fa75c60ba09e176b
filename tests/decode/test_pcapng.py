"""Captures that others wrote: byte orders, older blocks, damage."""

from __future__ import annotations

import struct

import pytest

from hvkernel.decode.pcapng import read_pcapng


def block(order: str, kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) & 3)
    length = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + length + body + length


def section(order: str) -> bytes:
    return block(order, 0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))


def interface(order: str, resolution: int | None = None) -> bytes:
    options = b"" if resolution is None else struct.pack(order + "HHB3xI", 9, 1, resolution, 0)
    return block(order, 1, struct.pack(order + "HHI", 147, 0, 0) + options)


@pytest.mark.parametrize("order", ["<", ">"])
def test_every_kind_of_packet_block_in_both_byte_orders(order: str) -> None:
    data = (
        section(order)
        + interface(order)
        + block(order, 6, struct.pack(order + "IIIII", 0, 1, 2, 5, 9) + b"hello")
        + block(order, 2, struct.pack(order + "HHIIII", 0, 0, 0, 7, 3, 3) + b"old")
        + block(order, 3, struct.pack(order + "I", 2) + b"ok")
        + block(order, 5, bytes(12))
    )
    capture = read_pcapng(data)
    assert capture.problems == ()
    assert [(p.timestamp, p.original, p.data) for p in capture.packets] == [
        (1 << 32 | 2, 9, b"hello"), (7, 3, b"old"), (0, 2, b"ok"),
    ]  # fmt: skip
    assert all(data[p.offset : p.offset + len(p.data)] == p.data for p in capture.packets)


@pytest.mark.parametrize(("resolution", "ticks"), [(None, 10**6), (7, 10**7), (9, 10**9), (0x80 | 10, 1024)])
def test_the_units_of_time(resolution: int | None, ticks: int) -> None:
    assert read_pcapng(section("<") + interface("<", resolution)).interfaces[0].ticks == ticks


def test_interfaces_are_counted_from_each_section_on() -> None:
    packet = block("<", 6, struct.pack("<IIIII", 0, 0, 0, 1, 1) + b"x")
    capture = read_pcapng((section("<") + interface("<", 7) + packet) + (section("<") + interface("<", 9) + packet))
    assert [p.interface.ticks for p in capture.packets] == [10**7, 10**9]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (section("<") + b"\1\0\0", "3 bytes are no block: one has at least 12"),
        (section("<")[:8] + bytes(4) + section("<")[12:], "byte-order magic of the section is not 1a2b3c4d"),
        (section("<") + struct.pack("<III", 6, 13, 13), "block length 13: not a multiple of 4 from 12 to 12"),
        (section("<") + struct.pack("<III", 6, 4096, 0), "block length 4096: not a multiple of 4 from 12 to 12"),
        (section("<") + struct.pack("<III", 9, 12, 16), "block length 12 is 16 at its end"),
        (section("<") + block("<", 6, bytes(8)), "block of type 0x6 has 8 bytes, needs 20"),
        (section("<") + block("<", 6, bytes(20)), "packet of interface 0, which the section has not described"),
        (
            section("<") + interface("<") + block("<", 6, struct.pack("<IIIII", 0, 0, 0, 99, 99) + b"abcd"),
            "packet of 99 captured bytes in a block that has 4",
        ),
        (
            section("<") + block("<", 1, struct.pack("<HHIHH", 147, 0, 0, 2, 99)),
            "option 2 of 99 bytes in a block that has 0 left",
        ),
    ],
)
def test_damage_is_named(data: bytes, text: str) -> None:
    capture = read_pcapng(data)
    assert [found for _, found in capture.problems] == [text]


def test_only_what_was_asked_for_is_kept() -> None:
    packet = block("<", 6, struct.pack("<IIIII", 0, 0, 0, 1, 1) + b"x")
    capture = read_pcapng(section("<") + interface("<") + 50 * packet, 7)
    assert (len(capture.packets), capture.total) == (7, 50)
