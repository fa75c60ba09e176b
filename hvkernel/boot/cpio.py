"""cpio archives of the kind that the kernel unpacks: ``newc``, with and without checksums, any number in a row.

Source of the format: Documentation/driver-api/early-userspace/buffer-format.rst; of what is accepted: init/initramfs.c.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

__all__ = ["ArchiveError", "Stream", "archive_names"]

HEADER_SIZE: Final = 110
"""Bytes of a header: the magic number and 13 fields of 8 hexadecimal digits."""
MAX_NAME: Final = 4096
"""PATH_MAX: the kernel skips an entry with a longer name."""
_MAGICS: Final = (b"070701", b"070702")
_OLD: Final = b"070707"
_SIZE, _NAME_SIZE = 6, 11
_END: Final = b"TRAILER!!!"


class ArchiveError(ValueError):
    """Bytes that are no archive. The text ends a sentence that begins with the name of the file."""


class Stream:
    """Bytes that come in pieces, read in order.

    :param chunks: the pieces, none of them empty.
    :ivar position: bytes read so far.
    """

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._held = b""
        self._at = 0
        self.position = 0

    def peek(self, size: int) -> bytes:
        """Return the next ``size`` bytes, or fewer at the end, and stay before them."""
        missing = self._at + size - len(self._held)
        if missing > 0:
            parts = [self._held[self._at :]]
            while missing > 0:
                chunk = next(self._chunks, b"")
                if not chunk:
                    break
                parts.append(chunk)
                missing -= len(chunk)
            self._held, self._at = b"".join(parts), 0
        return self._held[self._at : self._at + size]

    def take(self, size: int) -> bytes:
        """Return the next ``size`` bytes, or fewer at the end."""
        taken = self.peek(size)
        self._at += len(taken)
        self.position += len(taken)
        return taken

    def take_some(self) -> bytes:
        """Return some bytes, as many as are at hand; none at the end."""
        self.peek(1)
        return self.take(len(self._held) - self._at)

    def put_back(self, data: bytes) -> None:
        """Take back bytes that were read last."""
        self._held, self._at = data + self._held[self._at :], 0
        self.position -= len(data)

    def skip(self, size: int) -> int:
        """Go over ``size`` bytes, and return how many there were."""
        left = size
        while left > 0:
            gone = len(self.take(min(left, len(self._held) - self._at or 1)))
            if not gone:
                break
            left -= gone
        return size - left

    def skip_zeros(self) -> None:
        """Go over zero bytes, which may stand between archives."""
        while self.peek(1) == b"\0":
            some = self.take_some()
            self.put_back(some.lstrip(b"\0"))


def archive_names(stream: Stream) -> Iterator[bytes]:
    """Yield the names in one archive, to its trailer.

    :raises ArchiveError: it is cut off, or something in it is no header.
    """
    while True:
        start = stream.position
        header = stream.take(HEADER_SIZE)
        if header[:6] not in _MAGICS:
            if header[:6] == _OLD:
                raise ArchiveError(f"byte {start}: cpio's old format, which the kernel refuses: use -H newc")
            raise ArchiveError(f"byte {start}: {_what(header)} where a cpio header must be")
        if len(header) < HEADER_SIZE:
            raise ArchiveError(f"byte {start}: ends within a cpio header")
        fields = [header[at : at + 8] for at in range(6, HEADER_SIZE, 8)]
        size, name_size = (_number(fields[which], start) for which in (_SIZE, _NAME_SIZE))
        padded = size + -size % 4
        if not 0 < name_size <= MAX_NAME:
            stream.skip(name_size + -(HEADER_SIZE + name_size) % 4 + padded)
            continue
        name = stream.take(name_size)
        if len(name) < name_size:
            raise ArchiveError(f"byte {start}: ends within a name")
        name = name.split(b"\0", 1)[0]
        stream.skip(-(HEADER_SIZE + name_size) % 4)
        if name == _END:
            return
        if stream.skip(padded) < size:
            raise ArchiveError(f"byte {start}: ends within {name.decode('utf-8', 'replace')[:60]!r}")
        yield name


def _number(digits: bytes, start: int) -> int:
    try:
        return int.from_bytes(bytes.fromhex(digits.decode("ascii")), "big")
    except ValueError:
        raise ArchiveError(f"byte {start}: {digits!r} in a cpio header, where 8 hexadecimal digits must be") from None


def _what(data: bytes) -> str:
    return f"{data[:6]!r}" if data else "the end"
