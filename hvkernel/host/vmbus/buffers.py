"""Guest memory behind GPA ranges, read and written through the host's door of the machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Protocol

from hvkernel.host.vmbus.ranges import Range

__all__ = ["GpaBuffer", "HostMemory"]


class HostMemory(Protocol):
    """The host's accessor of the machine (``machine.memory.host``)."""

    def read(self, gpa: int, size: int, /) -> bytes: ...

    def write(self, gpa: int, data: bytes | bytearray | memoryview, /) -> None: ...

    def view(self, gpa: int, size: int, /, *, writable: bool = True) -> AbstractContextManager[memoryview]: ...


class GpaBuffer:
    """Implements :class:`hvkernel.api.host.GuestBuffer`."""

    __slots__ = ("_memory", "_pieces", "byte_count", "ranges")

    def __init__(self, memory: HostMemory, ranges: Sequence[Range]) -> None:
        self._memory = memory
        self.ranges: Sequence[Range] = ranges
        self.byte_count: int = ranges[0][0] if len(ranges) == 1 else sum(r[0] for r in ranges)
        self._pieces: list[tuple[int, int]] | None = None

    def _all(self) -> list[tuple[int, int]]:
        if self._pieces is None:
            pieces: list[tuple[int, int]] = []
            end = -1
            for byte_count, byte_offset, pfns in self.ranges:
                left, offset = byte_count, byte_offset
                for pfn in pfns:
                    gpa, size = (pfn << 12) + offset, min(left, 4096 - offset)
                    if gpa == end:
                        pieces[-1] = (pieces[-1][0], pieces[-1][1] + size)
                    else:
                        pieces.append((gpa, size))
                    end = gpa + size
                    left -= size
                    offset = 0
            self._pieces = pieces
        return self._pieces

    def pieces(self) -> Iterator[tuple[int, int]]:
        """Yield ``(gpa, length)`` of each contiguous piece."""
        return iter(self._all())

    def _span(self, offset: int, size: int) -> Iterator[tuple[int, int]]:
        if offset < 0 or size < 0 or offset + size > self.byte_count:
            raise ValueError(f"bytes {offset} to {offset + size} are outside the guest's buffer of {self.byte_count}")
        for gpa, length in self._all():
            if not size:
                return
            if offset >= length:
                offset -= length
                continue
            take = min(length - offset, size)
            yield gpa + offset, take
            size -= take
            offset = 0

    def read(self, offset: int = 0, size: int | None = None) -> bytes:
        """Return ``size`` bytes from ``offset`` (to the end when ``None``)."""
        if size is None:
            size = max(self.byte_count - offset, 0)
        read = self._memory.read
        return b"".join([read(gpa, take) for gpa, take in self._span(offset, size)])

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Put ``data`` at ``offset``."""
        if offset >= 0 and 0 < len(data) <= self.byte_count - offset:
            ranges = self.ranges
            if len(ranges) == 1 and len(ranges[0][2]) == 1:
                self._memory.write((ranges[0][2][0] << 12) + ranges[0][1] + offset, data)
                return
            pieces = self._all()
            if len(pieces) == 1:
                self._memory.write(pieces[0][0] + offset, data)
                return
        view = memoryview(data)
        at = 0
        for gpa, take in self._span(offset, len(view)):
            self._memory.write(gpa, view[at : at + take])
            at += take

    @contextmanager
    def views(self, offset: int, size: int, *, writable: bool) -> Iterator[list[memoryview]]:
        """The pieces of ``size`` bytes from ``offset`` as memoryviews that live for one ``with`` block."""
        view = self._memory.view
        pieces = list(self._span(offset, size))
        if len(pieces) == 1:
            with view(*pieces[0], writable=writable) as one:
                yield [one]
            return
        with ExitStack() as stack:
            yield [stack.enter_context(view(gpa, take, writable=writable)) for gpa, take in pieces]
