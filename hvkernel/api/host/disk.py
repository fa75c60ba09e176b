"""Disk images: what a storage device reads and writes, and what the command line checks before it boots.

An image is a raw file, or memory for the blank disk of a VM that was given none. Reads and writes go straight to it,
so what the guest wrote is in the file when the machine is closed.
"""

from __future__ import annotations

import os
import random
import stat
import struct
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

__all__ = ["SECTOR_SIZE", "DiskError", "DiskImage", "StorageUnit"]

SECTOR_SIZE: Final = 512
"""Bytes of a logical block; the size of an image is a multiple of it."""

BLANK_SIZE: Final = 64 << 20
"""Bytes of the disk of a VM that was given none."""

_LINUX_FILESYSTEM: Final = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")
_ALIGNMENT: Final = 2048
_MOST_VIEWS: Final = 1024
_ENTRIES: Final = 128
_ENTRY_SECTORS: Final = _ENTRIES * 128 // SECTOR_SIZE


class DiskError(ValueError):
    """An image that cannot be used: ``str()`` is one line naming the file and what is wrong with it."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name}: {problem}")
        self.name = name
        self.problem = problem


class DiskImage:
    """An open image. Make one with :meth:`open` or :meth:`blank`; all offsets and sizes are bytes."""

    __slots__ = ("_fd", "in_memory", "name", "read_only", "size")

    def __init__(self, name: str, fd: int, size: int, read_only: bool) -> None:
        self.name = name
        """The path as given, or ``blank``."""
        self._fd = fd
        self.size = size
        self.read_only = read_only
        self.in_memory = False
        """Whether it is gone once it is closed: made by :meth:`blank`."""

    @classmethod
    def open(cls, path: str | Path, *, read_only: bool = False) -> DiskImage:
        """Open a raw image.

        :raises DiskError: it is missing, no file or block device, not readable (or writable), empty, or not a
            multiple of 512 bytes.
        """
        name = str(path)
        try:
            fd = os.open(path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC)
        except OSError as error:
            raise DiskError(name, error.strerror or "cannot be opened") from None
        except ValueError as error:
            raise DiskError(name, str(error)) from None
        try:
            mode = os.fstat(fd).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
                raise DiskError(name, "not a file or block device")
            size = os.lseek(fd, 0, os.SEEK_END)
            if size == 0 or size % SECTOR_SIZE:
                raise DiskError(name, f"{size} bytes is not a positive multiple of {SECTOR_SIZE}")
        except BaseException:
            os.close(fd)
            raise
        return cls(name, fd, size, read_only)

    @classmethod
    def blank(cls, rng: random.Random, size: int = BLANK_SIZE) -> DiskImage:
        """A disk in memory: GPT with one empty partition for a Linux file system.

        :param rng: where its GUIDs come from.
        :raises DiskError: *size* is not a multiple of 512, or below the 2 MiB that the tables and the alignment need.
        """
        if size % SECTOR_SIZE or size < 2 << 20:
            raise DiskError("blank disk", f"{size} bytes is not a multiple of {SECTOR_SIZE} from {2 << 20} on")
        fd = os.memfd_create("hvkernel-disk", os.MFD_CLOEXEC)
        os.ftruncate(fd, size)
        image = cls("blank", fd, size, False)
        image.in_memory = True
        for offset, data in _gpt(size // SECTOR_SIZE, rng):
            image.pwrite(data, offset)
        return image

    def same_file(self, other: DiskImage) -> bool:
        """Whether both are one file, by whatever path."""
        return os.path.sameopenfile(self._open_fd(), other._open_fd())

    def _open_fd(self) -> int:
        if self._fd < 0:
            raise DiskError(self.name, "used after close")
        return self._fd

    def _check(self, offset: int, length: int) -> int:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise DiskError(self.name, f"bytes {offset} to {offset + length} are outside its {self.size}")
        return self._open_fd()

    def pread(self, length: int, offset: int) -> bytes:
        """Read *length* bytes. :raises OSError: the file cannot be read there."""
        fd = self._check(offset, length)
        data = os.pread(fd, length, offset)
        while len(data) < length:
            more = os.pread(fd, length - len(data), offset + len(data))
            if not more:
                raise OSError(5, f"{self.name}: the file became shorter than {offset + length} bytes")
            data += more
        return data

    def readv(self, targets: Sequence[memoryview], offset: int) -> None:
        """Fill the targets one after the other from *offset* on. Errors as for :meth:`pread`."""
        total = sum(len(view) for view in targets)
        fd = self._check(offset, total)
        views = list(targets)
        while views:
            got = os.preadv(fd, views[:_MOST_VIEWS], offset)
            if not got:
                raise OSError(5, f"{self.name}: the file became shorter than {offset + total} bytes")
            offset += got
            views = _rest(views, got)

    def writev(self, sources: Sequence[memoryview], offset: int) -> None:
        """Write the sources one after the other from *offset* on. Errors as for :meth:`pwrite`."""
        if self.read_only:
            raise DiskError(self.name, "read-only")
        fd = self._check(offset, sum(len(view) for view in sources))
        views = list(sources)
        while views:
            done = os.pwritev(fd, views[:_MOST_VIEWS], offset)
            offset += done
            views = _rest(views, done)

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        """Write *data*. :raises OSError: the file cannot be written there. :raises DiskError: read-only."""
        if self.read_only:
            raise DiskError(self.name, "read-only")
        fd = self._check(offset, len(data))
        view = memoryview(data)
        done = 0
        while done < len(view):
            done += os.pwrite(fd, view[done:], offset + done)

    def flush(self) -> None:
        """Make the writes durable."""
        os.fsync(self._open_fd())

    def close(self) -> None:
        """Close the file; closing twice is allowed."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class StorageUnit:
    """A logical unit behind a storage controller: what the device parameter ``units`` is a sequence of."""

    kind: Literal["disk", "dvd"] = "disk"
    image: DiskImage | None = None
    """The medium; a disk has one, a DVD drive may be empty."""
    lun: int = 0
    target: int = 0
    path: int = 0
    write_cache: bool = True
    serial: str = ""
    """Serial number of VPD page 80; without one the page does not exist, as on the hosts seen."""


def _rest(views: list[memoryview], done: int) -> list[memoryview]:
    """What is left after *done* bytes."""
    at = 0
    while at < len(views) and done >= len(views[at]):
        done -= len(views[at])
        at += 1
    left = views[at:]
    if done:
        left[0] = left[0][done:]
    return left


def _guid(rng: random.Random) -> bytes:
    return uuid.UUID(int=rng.getrandbits(128), version=4).bytes_le


def _gpt(sectors: int, rng: random.Random) -> list[tuple[int, bytes]]:
    """(offset, bytes) of a protective MBR, both headers and both entry arrays (UEFI specification 2.10, section 5)."""
    disk = _guid(rng)
    last_usable = sectors - _ENTRY_SECTORS - 2
    name = "root".encode("utf-16-le").ljust(72, b"\0")
    end = (last_usable + 1) // _ALIGNMENT * _ALIGNMENT - 1
    entry = (
        struct.pack("<16s16sQQQ", _LINUX_FILESYSTEM.bytes_le, _guid(rng), _ALIGNMENT, max(end, _ALIGNMENT), 0) + name
    )
    entries = entry.ljust(_ENTRIES * 128, b"\0")

    def header(current: int, backup: int, entries_at: int) -> bytes:
        fields = (0x10000, 92, 0, 0, current, backup, _ENTRY_SECTORS + 2, last_usable, disk, entries_at, _ENTRIES, 128)
        layout = "<8sIIIIQQQQ16sQIII"
        body = struct.pack(layout, b"EFI PART", *fields, zlib.crc32(entries))
        crc = zlib.crc32(body)
        return (body[:16] + struct.pack("<I", crc) + body[20:]).ljust(SECTOR_SIZE, b"\0")

    protective = struct.pack("<BBHBBHII", 0, 0, 2, 0xEE, 0xFF, 0xFFFF, 1, min(sectors - 1, 0xFFFFFFFF))
    mbr = bytes(446) + protective + bytes(48) + b"\x55\xaa"
    last = sectors - 1
    return [
        (0, mbr),
        (SECTOR_SIZE, header(1, last, 2)),
        (2 * SECTOR_SIZE, entries),
        ((last - _ENTRY_SECTORS) * SECTOR_SIZE, entries),
        (last * SECTOR_SIZE, header(last, 1, last - _ENTRY_SECTORS)),
    ]
