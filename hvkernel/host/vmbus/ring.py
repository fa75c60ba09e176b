"""The host's ends of a channel's two rings, on the host's view of the guest's pages.

This is the host's own implementation, written from the ring's rules (include/linux/hyperv.h: struct hv_ring_buffer;
OpenVMM vm/devices/vmbus/vmbus_ring) and sharing no code with the guest's: a misunderstanding on one side shows.

A ring is one 4 KiB control page and whole 4 KiB data pages. Offsets below are bytes; indices are byte offsets into the
data and multiples of 8. The host owns one index of each ring and keeps its own copy, because the guest can write both.
"""

from __future__ import annotations

import struct
from typing import Final, Protocol

__all__ = ["CONTROL_BYTES", "IncomingRing", "OutgoingRing", "RingCorrupt", "RingMemory"]

CONTROL_BYTES: Final = 4096
"""Bytes of the control page that precedes the data; always one hypervisor page, whatever the guest's page size."""

_WRITE_INDEX: Final = 0
_READ_INDEX: Final = 4
_INTERRUPT_MASK: Final = 8
_PENDING_SEND_SZ: Final = 12
_FEATURE_BITS: Final = 64
_FEATURE_PENDING_SEND_SZ: Final = 1
_FOOTER_BYTES: Final = 8
_MIN_PACKET: Final = 16
_U16x4: Final = struct.Struct("<HHHH")
_U64: Final = struct.Struct("<Q")


class RingMemory(Protocol):
    """The ring's pages in order, seen as one run of bytes (a ``machine.Vmap``)."""

    def read(self, offset: int, size: int, /) -> bytes: ...

    def write(self, offset: int, data: bytes, /) -> None: ...

    def word32(self, offset: int, /) -> RingWord: ...


class RingWord(Protocol):
    """A 32-bit word of the control page."""

    def load(self) -> int: ...

    def store(self, value: int, /) -> None: ...


class RingCorrupt(Exception):
    """The guest left the ring in a state that no correct guest makes; the host stops using it."""


class _Ring:
    __slots__ = ("_feature_bits", "_interrupt_mask", "_map", "_pending_send_sz", "_read_word", "_write_word", "size")

    def __init__(self, memory: RingMemory, pages: int) -> None:
        """:param pages: 4 KiB pages of the ring, control page included; at least 2."""
        if pages < 2:
            raise RingCorrupt(f"a ring of {pages} pages has no data; it needs at least 2")
        self._map = memory
        self._write_word = memory.word32(_WRITE_INDEX)
        self._read_word = memory.word32(_READ_INDEX)
        self._interrupt_mask = memory.word32(_INTERRUPT_MASK)
        self._pending_send_sz = memory.word32(_PENDING_SEND_SZ)
        self._feature_bits = memory.word32(_FEATURE_BITS)
        self.size = (pages - 1) * 4096

    def _read_index(self) -> int:
        value = self._read_word.load()
        if value >= self.size or value & 7:
            raise self._bad_index("read_index", value)
        return value

    def _write_index(self) -> int:
        value = self._write_word.load()
        if value >= self.size or value & 7:
            raise self._bad_index("write_index", value)
        return value

    def _bad_index(self, name: str, value: int) -> RingCorrupt:
        return RingCorrupt(f"{name} = {value:#x} is not a multiple of 8 below the ring's {self.size:#x} bytes")

    def _free(self, write: int, read: int) -> int:
        # A full ring would look empty, so 8 bytes stay unused.
        return (read - write if read > write else self.size - (write - read)) - 8


class IncomingRing(_Ring):
    """The ring that the guest writes and the host reads."""

    __slots__ = ("_committed", "_write", "position")

    def __init__(self, memory: RingMemory, pages: int) -> None:
        """Take the ring over and mask its signals until :meth:`unmask`.

        :raises RingCorrupt: an index is out of range.
        """
        super().__init__(memory, pages)
        self.position = self._committed = self._read_index()
        """Where the host reads next. Read only."""
        self._write = self._write_index()
        self.mask()

    @property
    def write_index(self) -> int:
        """The guest's index as it stands in the ring now, unchecked."""
        return self._write_word.load()

    def mask(self) -> None:
        """Tell the guest that the host is looking anyway."""
        self._interrupt_mask.store(1)

    def unmask(self) -> bool:
        """Ask for signals again; true when packets came in between and must be read first."""
        self._interrupt_mask.store(0)
        self._write = write = self._write_index()
        return write != self.position

    def read(self) -> bytes | None:
        """Return the next packet, descriptor and padding included, without its 8-byte trailer; ``None`` when empty.

        The guest gets the room back with :meth:`commit`.

        :raises RingCorrupt: an index or the packet's length does not fit.
        """
        start, write, size = self.position, self._write, self.size
        if start == write:
            self._write = write = self._write_index()
            if start == write:
                return None
        available = write - start if write > start else size - start + write
        if available < _MIN_PACKET + _FOOTER_BYTES:
            raise RingCorrupt(f"{available} bytes at {start:#x} are less than the smallest packet and its trailer")
        # What is checked here is what the packet's reader gets: its first bytes are read once only.
        head = self._map.read(CONTROL_BYTES + start, 8)
        _, offset8, len8, _ = _U16x4.unpack(head)
        length = len8 * 8
        if offset8 < 2 or len8 < offset8 or length + _FOOTER_BYTES > available:
            raise RingCorrupt(
                f"packet at {start:#x}: offset8 {offset8}, len8 {len8}; the data offset must be 2 to len8 and "
                f"{length} + 8 bytes must fit the {available} available"
            )
        end = start + length
        rest = self._map.read(CONTROL_BYTES + start + 8, length - 8) if end <= size else self._copy_out(start + 8, end)
        end += _FOOTER_BYTES
        self.position = end - size if end >= size else end
        return head + rest

    def _copy_out(self, start: int, end: int) -> bytes:
        size = self.size
        return self._map.read(CONTROL_BYTES + start, size - start) + self._map.read(CONTROL_BYTES, end - size)

    def commit(self) -> bool:
        """Give the room of the packets read so far back; true when a guest that waits for it must be signalled."""
        before, read = self._committed, self.position
        if before == read:
            return False
        seen = self._read_word.load()
        if seen != before:
            raise RingCorrupt(f"read_index is the host's: it left {before:#x} and finds {seen:#x}")
        self._read_word.store(read)
        self._committed = read
        # Some guests write the ring's size less one; the low bits carry no meaning (OpenVMM: commit_read).
        pending = self._pending_send_sz.load() & ~7
        if not pending:
            return False
        write = self._write_index()
        return self._free(write, before) < pending <= self._free(write, read)

    @property
    def guest_uses_pending_send_sz(self) -> bool:
        """Whether the guest says that it waits for room with pending_send_sz."""
        return bool(self._feature_bits.load() & _FEATURE_PENDING_SEND_SZ)


class OutgoingRing(_Ring):
    """The ring that the host writes and the guest reads."""

    __slots__ = ("_pending", "_read", "_write_at")

    def __init__(self, memory: RingMemory, pages: int, *, flow_control: bool) -> None:
        """Take the ring over.

        :param flow_control: announce pending_send_sz (hosts since WS2012; include/linux/hyperv.h).
        :raises RingCorrupt: an index is out of range.
        """
        super().__init__(memory, pages)
        self._write_at = self._write_index()
        self._read = self._read_index()
        self._pending = 0
        self._feature_bits.store(_FEATURE_PENDING_SEND_SZ if flow_control else 0)
        self._pending_send_sz.store(0)

    def fits(self, packet_bytes: int) -> bool:
        """Whether a packet of that size (descriptor and padding included) fits the empty ring."""
        return packet_bytes + _FOOTER_BYTES <= self.size - 8

    def write(self, packet: bytes) -> bool | None:
        """Append one packet (a multiple of 8 bytes) and publish it.

        :returns: true when the guest must be signalled (the ring was empty and the guest wants signals), false when
            not, ``None`` when there is no room yet.
        :raises RingCorrupt: an index is out of range.
        """
        length = len(packet)
        total = length + _FOOTER_BYTES
        at = self._write_at
        if self._free(at, self._read) < total:
            self._read = self._read_index()
            if self._free(at, self._read) < total:
                return None
        ring, size = self._map, self.size
        seen = self._write_word.load()
        if seen != at:
            raise RingCorrupt(f"write_index is the host's: it left {at:#x} and finds {seen:#x}")
        data = packet + _U64.pack(at << 32)
        first = size - at
        if total <= first:
            ring.write(CONTROL_BYTES + at, data)
        else:
            ring.write(CONTROL_BYTES + at, data[:first])
            ring.write(CONTROL_BYTES, data[first:])
        end = at + total
        self._write_at = end = end - size if end >= size else end
        self._write_word.store(end)
        if self._interrupt_mask.load():
            return False
        return self._read_index() == at

    def wait_for(self, packet_bytes: int) -> bool:
        """Ask the guest to signal once a packet of that size fits; true when it fits already."""
        self._pending = packet_bytes + _FOOTER_BYTES
        self._pending_send_sz.store(self._pending)
        self._read = self._read_index()
        return self._free(self._write_at, self._read) >= self._pending

    def stop_waiting(self) -> None:
        """Take the request of :meth:`wait_for` back."""
        if self._pending:
            self._pending = 0
            self._pending_send_sz.store(0)
