"""Reads pcapng files: the packets with their interface, time and direction, whatever wrote them.

Format: draft-ietf-opsawg-pcapng. Both byte orders; Enhanced, Simple and (obsolete) Packet Blocks; other blocks are
passed over. A damaged file gives what stands before the damage, and the damage as a text.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

__all__ = ["MAGIC", "Capture", "CapturedPacket", "Interface", "read_pcapng"]

MAGIC: Final = bytes.fromhex("0a0d0d0a")
"""First bytes of every pcapng file: the type of a Section Header Block."""

_MOST_PROBLEMS: Final = 1000
_SECTION: Final = 0x0A0D0D0A
_INTERFACE: Final = 1
_OLD_PACKET: Final = 2
_SIMPLE: Final = 3
_ENHANCED: Final = 6


class Interface(NamedTuple):
    """One interface of a section."""

    linktype: int
    name: str
    description: str
    ticks: int
    """Units of the timestamps in a second."""
    snaplen: int


class CapturedPacket(NamedTuple):
    """One packet as it was captured."""

    offset: int
    """Where its data begin in the file."""
    interface: Interface
    timestamp: int
    """In the interface's units."""
    original: int
    """Bytes that the packet had; more than ``data`` when it was cut."""
    data: bytes


class Capture(NamedTuple):
    """What a file holds, as far as it could be read."""

    comments: tuple[str, ...]
    """Of the sections."""
    interfaces: tuple[Interface, ...]
    packets: tuple[CapturedPacket, ...]
    """The first ones, as many as were asked for."""
    total: int
    """Packets in the file."""
    problems: tuple[tuple[int, str], ...]
    """Offset in the file, and what is wrong there."""


class _Reader:
    def __init__(self, data: bytes, most: int) -> None:
        self.data = data
        self.most = most
        self.count = 0
        self.order = "<"
        self.first = 0
        self.comments: list[str] = []
        self.interfaces: list[Interface] = []
        self.packets: list[CapturedPacket] = []
        self.problems: list[tuple[int, str]] = []

    def problem(self, found: tuple[int, str]) -> None:
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(found)

    def run(self) -> None:
        at, size = 0, len(self.data)
        while at < size:
            if size - at < 12:
                self.problem((at, f"{size - at} bytes are no block: one has at least 12"))
                return
            if self.data[at : at + 4] == MAGIC:
                self.order = "<" if self.data[at + 8 : at + 12] == b"\x4d\x3c\x2b\x1a" else ">"
                if self.data[at + 8 : at + 12] not in (b"\x4d\x3c\x2b\x1a", b"\x1a\x2b\x3c\x4d"):
                    self.problem((at + 8, "byte-order magic of the section is not 1a2b3c4d"))
                    return
                self.first = len(self.interfaces)
            kind, length = struct.unpack_from(self.order + "II", self.data, at)
            if length < 12 or length & 3 or length > size - at:
                self.problem((at + 4, f"block length {length}: not a multiple of 4 from 12 to {size - at}"))
                return
            again = struct.unpack_from(self.order + "I", self.data, at + length - 4)[0]
            if again != length:
                self.problem((at + length - 4, f"block length {length} is {again} at its end"))
            self._block(kind, at + 8, at + length - 4)
            at += length

    def _block(self, kind: int, at: int, end: int) -> None:
        need = {_SECTION: 16, _INTERFACE: 8, _OLD_PACKET: 20, _SIMPLE: 4, _ENHANCED: 20}.get(kind, 0)
        if end - at < need:
            self.problem((at, f"block of type {kind:#x} has {end - at} bytes, needs {need}"))
        elif kind == _SECTION:
            self.comments += [_text(v) for code, v in self._options(at + 16, end) if code == 1]
        elif kind == _INTERFACE:
            self._interface(at, end)
        elif kind == _ENHANCED:
            number, high, low, kept, original = struct.unpack_from(self.order + "IIIII", self.data, at)
            self._packet(number, high << 32 | low, kept, original, at + 20, end)
        elif kind == _OLD_PACKET:
            number, _, high, low, kept, original = struct.unpack_from(self.order + "HHIIII", self.data, at)
            self._packet(number, high << 32 | low, kept, original, at + 20, end)
        elif kind == _SIMPLE:
            original = struct.unpack_from(self.order + "I", self.data, at)[0]
            self._packet(0, 0, min(original, end - at - 4), original, at + 4, end)

    def _interface(self, at: int, end: int) -> None:
        linktype, _, snaplen = struct.unpack_from(self.order + "HHI", self.data, at)
        found = dict(self._options(at + 8, end))
        ticks = 10**6
        if found.get(9):
            resolution = found[9][0]
            exponent = min(resolution & 0x7F, 63)
            ticks = 2**exponent if resolution & 0x80 else 10**exponent
        self.interfaces.append(Interface(linktype, _text(found.get(2, b"")), _text(found.get(3, b"")), ticks, snaplen))

    def _packet(self, number: int, timestamp: int, kept: int, original: int, at: int, end: int) -> None:
        if self.first + number >= len(self.interfaces):
            self.problem((at, f"packet of interface {number}, which the section has not described"))
            return
        if kept > end - at:
            self.problem((at, f"packet of {kept} captured bytes in a block that has {end - at}"))
            kept = end - at
        self.count += 1
        if len(self.packets) >= self.most:
            return
        interface = self.interfaces[self.first + number]
        self.packets.append(CapturedPacket(at, interface, timestamp, original, self.data[at : at + kept]))

    def _options(self, at: int, end: int) -> list[tuple[int, bytes]]:
        found = []
        while end - at >= 4:
            code, length = struct.unpack_from(self.order + "HH", self.data, at)
            if code == 0:
                break
            if length > end - at - 4:
                self.problem((at, f"option {code} of {length} bytes in a block that has {end - at - 4} left"))
                break
            found.append((code, self.data[at + 4 : at + 4 + length]))
            at += 4 + length + (-length & 3)
        return found


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def read_pcapng(data: bytes, most: int = 1 << 62) -> Capture:
    """Take a file apart; never raises.

    :param most: packets that are kept.
    """
    reader = _Reader(data, most)
    reader.run()
    return Capture(
        tuple(reader.comments), tuple(reader.interfaces), tuple(reader.packets), reader.count, tuple(reader.problems)
    )
