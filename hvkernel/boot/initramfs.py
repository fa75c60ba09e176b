"""Images of an initramfs: cpio archives one after the other, each plain or compressed.

As init/initramfs.c (unpack_to_rootfs) reads them: an early archive with microcode may stand before the others, zero
bytes between archives are skipped, and bytes that are neither an archive nor one of lib/decompress.c's methods end it.
Only names are kept, and a segment is unpacked in small pieces, so that an image of any size takes little memory.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import IO, Final, Protocol

from hvkernel.boot.cpio import ArchiveError, Stream, archive_names

__all__ = ["MAX_ENTRIES", "MAX_UNPACKED", "METHODS", "Image", "is_image", "read_image"]

METHODS: Final = MappingProxyType(
    {
        b"\x1f\x8b": "gzip",
        b"\x1f\x9e": "gzip",
        b"BZ": "bzip2",
        b"\x5d\x00": "lzma",
        b"\xfd7": "xz",
        b"\x89L": "lzo",
        b"\x02\x21": "lz4",
        b"\x28\xb5": "zstd",
    }
)
"""First two bytes to the kernel's name of the method (lib/decompress.c). ``RD_`` and the name is what configures it."""
MAX_UNPACKED: Final = 4 << 30
"""Most bytes that the segments of an image may come to, unpacked. *unspecified*: real ones are below 1 GiB."""
MAX_ENTRIES: Final = 1 << 20
"""Most entries of an image. *unspecified*: real ones have some thousands."""

_PIECE: Final = 1 << 16
_LZ4_BLOCK: Final = 8 << 20
"""Unpacked bytes of a block of lz4's legacy format (lib/decompress_unlz4.c)."""
_LZ4_BOUND: Final = _LZ4_BLOCK + _LZ4_BLOCK // 255 + 16
_LZ4_MAGIC: Final = b"\x02\x21\x4c\x18"
_LZ4_FRAME: Final = b"\x04\x22\x4d\x18"
_LZMA_MEMORY: Final = 256 << 20
_ZSTD_WINDOW_LOG: Final = 27
"""Largest window, 128 MiB, which is lib/decompress_unzstd.c's, too."""


@dataclass(frozen=True, slots=True)
class Image:
    """What an image holds.

    :ivar names: names of all entries, in order, without a leading ``/`` or ``./``.
    :ivar methods: methods by which segments are compressed, each once, in order.
    """

    names: tuple[str, ...]
    methods: tuple[str, ...]


class _DamageError(Exception):
    """Compressed data that cannot be unpacked."""


class _Unpacker(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = ...) -> bytes: ...


class _Gzip:
    """zlib's decompressor with the manners of the others."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int = 0) -> bytes:
        out = self._inner.decompress(self._inner.unconsumed_tail + data, max_length)
        self.needs_input = not self._inner.unconsumed_tail and len(out) < max_length
        return out


def is_image(start: bytes) -> bool:
    """Whether a file that starts so is an image, not a text: a cpio magic number or that of a compression."""
    return start.startswith((b"0707", _LZ4_FRAME)) or start[:2] in METHODS


def read_image(path: Path) -> Image:
    """Read the names in an image.

    :raises ArchiveError: it is cut off or damaged, has something that the kernel does not read, or unpacks to more than
        :data:`MAX_UNPACKED` bytes or :data:`MAX_ENTRIES` entries.
    :raises OSError: the file cannot be read.
    """
    names: list[str] = []
    methods: dict[str, None] = {}
    with path.open("rb") as file:
        for name in _names(Stream(_pieces(file)), methods):
            names.append(name.decode("utf-8", "replace").removeprefix(".").lstrip("/"))
            if len(names) > MAX_ENTRIES:
                raise ArchiveError(f"has more than {MAX_ENTRIES} entries")
    return Image(tuple(names), tuple(methods))


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    return iter(partial(file.read, _PIECE), b"")


def _names(raw: Stream, methods: dict[str, None]) -> Iterator[bytes]:
    left = MAX_UNPACKED
    while True:
        raw.skip_zeros()
        magic = raw.peek(6)
        if not magic:
            return
        start = raw.position
        if magic.startswith(b"0"):
            if start % 4:
                raise ArchiveError(
                    f"byte {start}: an archive that does not begin at a multiple of 4, so the kernel misses it"
                )
            yield from archive_names(raw)
            continue
        method = METHODS.get(magic[:2])
        if method is None:
            raise ArchiveError(f"byte {start}: {_refusal(magic)}")
        methods[method] = None
        plain = Stream(_bounded(_unpacked(raw, method), left))
        try:
            yield from _plain_names(plain)
        except ArchiveError as error:
            raise ArchiveError(f"{method} segment at byte {start}, unpacked: {error}") from None
        except _DamageError as error:
            raise ArchiveError(f"{method} segment at byte {start} is damaged or cut off: {error}") from None
        left -= plain.position


def _plain_names(plain: Stream) -> Iterator[bytes]:
    while True:
        plain.skip_zeros()
        if not plain.peek(1):
            return
        yield from archive_names(plain)


def _refusal(magic: bytes) -> str:
    if magic.startswith(_LZ4_FRAME):
        return "an lz4 frame, which the kernel does not read: make it with lz4 -l"
    return f"{magic!r} is neither a cpio archive nor a compression that the kernel knows"


def _bounded(chunks: Iterator[bytes], limit: int) -> Iterator[bytes]:
    total = 0
    for chunk in chunks:
        total += len(chunk)
        if total > limit:
            raise ArchiveError(f"more than {MAX_UNPACKED} bytes")
        yield chunk


def _unpacked(raw: Stream, method: str) -> Iterator[bytes]:
    """The bytes of one compressed segment; what follows it is left in the stream."""
    if method == "lz4":
        return _lz4(raw)
    if method == "lzo":
        raise ArchiveError(
            f"byte {raw.position}: compressed by lzo, which is not read here: give a listing of the image"
        )
    return _stepwise(raw, *_unpacker(method))


def _stepwise(raw: Stream, unpacker: _Unpacker, failure: type[Exception]) -> Iterator[bytes]:
    while not unpacker.eof:
        data = b""
        if unpacker.needs_input:
            data = raw.take_some()
            if not data:
                raise _DamageError("it ends too early")
        try:
            out = unpacker.decompress(data, _PIECE)
        except failure as error:
            raise _DamageError(str(error)) from None
        if out:
            yield out
    raw.put_back(unpacker.unused_data)


def _unpacker(method: str) -> tuple[_Unpacker, type[Exception]]:
    """A decompressor, and what it raises for damaged data."""
    match method:
        case "gzip":
            return _Gzip(), zlib.error
        case "bzip2":
            import bz2

            return bz2.BZ2Decompressor(), OSError
        case "zstd":
            return _zstd()
        case _:
            import lzma

            form = lzma.FORMAT_XZ if method == "xz" else lzma.FORMAT_ALONE
            return lzma.LZMADecompressor(form, memlimit=_LZMA_MEMORY), lzma.LZMAError


def _zstd() -> tuple[_Unpacker, type[Exception]]:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}), zstd.ZstdError


def _lz4(raw: Stream) -> Iterator[bytes]:
    """lz4's legacy format: blocks, each after its size, to a size of 0 or the end of the file."""
    from lz4 import block

    magic = raw.take(4)
    if magic != _LZ4_MAGIC:
        raise _DamageError(f"{magic!r} where {_LZ4_MAGIC!r} must be")
    while True:
        head = raw.peek(4)
        if head == _LZ4_MAGIC:
            raw.take(4)
            continue
        size = int.from_bytes(head, "little")
        if len(head) < 4 or size == 0:
            return
        if size > _LZ4_BOUND:
            raise _DamageError(f"a block of {size} bytes, where {_LZ4_BOUND} are the most")
        raw.take(4)
        packed = raw.take(size)
        if len(packed) < size:
            raise _DamageError("it ends too early")
        try:
            yield block.decompress(packed, uncompressed_size=_LZ4_BLOCK)
        except block.LZ4BlockError as error:
            raise _DamageError(str(error)) from None
