"""The two ends of a ring as Python objects: they check, keep buffers alive and call the kernels.

No end may be used by two threads at once, and one ring has one writer and one reader; the two may be in different
threads or processes. Wrong input raises ValueError (TypeError for what is no buffer) that names the argument, its
value and the limit, before anything is written.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["RingEnd", "RingReader", "RingWriter", "init_ring", "pack", "unpack"]

PAGE: Final = 4096
MAX_PACKET: Final = 0xFFFF << 3
VM_PKT_DATA_INBAND: Final = 6
_INDICES: Final = struct.Struct("<II")
_U64: Final = struct.Struct("<Q")
_U32: Final = struct.Struct("<I")
_NOTHING: Final[Any] = object()
"""The owner of what is not held: no caller can pass it, so the comparison with it is the only check of a batch."""


def _check_size(nbytes: int) -> int:
    """Bytes of ring data in a buffer of *nbytes*."""
    if nbytes < 2 * PAGE:
        raise ValueError(f"buffer: {nbytes} bytes is below {2 * PAGE} (a control page and at least one page of data)")
    if nbytes % PAGE:
        raise ValueError(f"buffer: {nbytes} bytes is not a multiple of {PAGE}")
    if nbytes - PAGE > 1 << 31:
        raise ValueError(f"buffer: {nbytes - PAGE} bytes of data exceed {1 << 31}")
    return nbytes - PAGE


def _check_attach(view: memoryview) -> int:
    """Bytes of ring data, if size and indices make sense."""
    dsize = _check_size(view.nbytes)
    for name, index in zip(("write_index", "read_index"), _INDICES.unpack_from(view), strict=True):
        if index >= dsize:
            raise ValueError(f"{name}: {index} is not below the {dsize} bytes of data")
        if index & 7:
            raise ValueError(f"{name}: {index} is not a multiple of 8")
    return dsize


def _writable_view(name: str, buffer: Any) -> memoryview:
    view = memoryview(buffer)
    if view.readonly:
        raise ValueError(f"{name}: read-only, a writable buffer is needed")
    if not view.c_contiguous:
        raise ValueError(f"{name}: not contiguous")
    return view.cast("B")


def init_ring(buffer: Any) -> None:
    """Make an empty ring: control page zero, feature bit 0 (pending_send_sz is honoured) set.

    :param buffer: writable, a control page and data; see :mod:`hvkernel.ring`.
    :raises ValueError: too small, not a multiple of 4096, or read-only.
    """
    view = _writable_view("buffer", buffer)
    _check_size(view.nbytes)
    view[:PAGE] = bytes(PAGE)
    _U32.pack_into(view, 64, 1)


def pack(payloads: Sequence[bytes | bytearray | memoryview]) -> tuple[bytearray, NDArray[np.uint32]]:
    """Payloads as ``write_batch`` wants them: back to back at 8-aligned starts, and their lengths in bytes."""
    import numpy as np

    source = bytearray()
    for payload in payloads:
        source += payload
        source += bytes(-len(payload) & 7)
    return source, np.array([len(payload) for payload in payloads], dtype=np.uint32)


def unpack(target: Any, lengths: Sequence[int] | NDArray[np.uint32], count: int) -> list[bytes]:
    """The payloads that ``read_batch`` left in *target*, padding included."""
    view = memoryview(target).cast("B")
    out: list[bytes] = []
    at = 0
    for length in lengths[:count]:
        size = int(length)
        out.append(bytes(view[at : at + size]))
        at += size
    return out


class _Held:
    """One caller's buffer: the object, an export that pins its memory, its address and size."""

    __slots__ = ("address", "items", "nbytes", "owner", "pin")

    def __init__(self) -> None:
        self.owner: Any = _NOTHING
        self.pin: Any = None
        self.address = self.nbytes = self.items = 0

    def take(self, name: str, owner: Any, itemsize: int, writable: bool) -> None:
        import numpy as np

        view = memoryview(owner)
        if writable and view.readonly:
            raise ValueError(f"{name}: read-only, a writable buffer is needed")
        if not view.c_contiguous:
            raise ValueError(f"{name}: not contiguous")
        if itemsize > 1 and view.itemsize != itemsize:
            raise ValueError(f"{name}: items of {view.itemsize} bytes, {itemsize} are needed")
        pin = np.frombuffer(owner, dtype=np.uint8) if view.nbytes else None
        address = 0 if pin is None else int(pin.ctypes.data)
        if itemsize > 1 and address % itemsize:
            raise ValueError(f"{name}: address {address:#x} is not aligned to {itemsize} bytes")
        self.owner = _NOTHING if pin is None else owner  # an empty buffer is not pinned: look again next time
        self.pin, self.address, self.nbytes, self.items = pin, address, view.nbytes, view.nbytes // itemsize

    def drop(self) -> None:
        self.owner = _NOTHING
        self.pin = None
        self.address = self.nbytes = self.items = 0


class RingEnd:
    """What both ends share. Make one with ``RingWriter.attach`` or ``RingReader.attach``; usable as a context manager.

    The attached buffer and the buffers of the last batch stay exported (a bytearray cannot be resized, an mmap not
    closed) until :meth:`close`.
    """

    __slots__ = ("_base", "_control", "_entry", "_held", "_kernels", "_lens", "_private", "_state", "_tids", "dsize")

    def __init__(self, buffer: Any, entry: str) -> None:
        view = _writable_view("buffer", buffer)
        try:
            self.dsize = _check_attach(view)
        except ValueError:
            view.release()
            raise
        import numpy as np

        from hvkernel.ring import kernels

        self._kernels = kernels
        self._control: memoryview | None = view
        pin = np.frombuffer(view, dtype=np.uint8)
        self._base = int(pin.ctypes.data)
        if self._base % 8:
            raise ValueError(f"buffer: address {self._base:#x} is not a multiple of 8")
        self._private: NDArray[np.int64] = np.zeros(kernels.ST_WORDS, dtype=np.int64)
        self._state = int(self._private.ctypes.data)
        self._put(kernels.ST_BASE, self._base)
        self._put(kernels.ST_DSIZE, self.dsize)
        self._entry: Callable[..., int] = kernels.entry_point(getattr(kernels, entry))
        self._held = _Held()
        self._lens = _Held()
        self._tids = _Held()

    def _put(self, offset: int, value: int) -> None:
        self._private[offset >> 3] = value

    def _get(self, offset: int) -> int:
        return int(self._private[offset >> 3])

    def _tell(self) -> None:
        """Tell the kernels where the held buffers are."""
        kernels = self._kernels
        self._put(kernels.ST_BYTES, self._held.address)
        self._put(kernels.ST_CAPACITY, self._held.nbytes)
        self._put(kernels.ST_LENGTHS, self._lens.address)
        self._put(kernels.ST_TRANS_IDS, self._tids.address)

    def _open(self) -> memoryview:
        if self._control is None:
            raise ValueError("ring: this end is closed")
        return self._control

    @property
    def indices(self) -> tuple[int, int]:
        """(write_index, read_index) as they stand in the control page."""
        write_index, read_index = _INDICES.unpack_from(self._open())
        return write_index, read_index

    @property
    def bytes_to_read(self) -> int:
        """Bytes between the read and the write index, descriptors and trailers included."""
        write_index, read_index = self.indices
        return write_index - read_index if write_index >= read_index else self.dsize - read_index + write_index

    @property
    def bytes_to_write(self) -> int:
        """Free bytes; a packet fits if it is *smaller*."""
        return self.dsize - self.bytes_to_read

    @property
    def signals(self) -> int:
        """How often this end had to signal its peer: compare before and after a batch."""
        return self._get(self._kernels.ST_SIGNALS)

    def close(self) -> None:
        """Let go of all buffers. Closing twice is allowed; any other use afterwards raises ValueError."""
        for held in (self._held, self._lens, self._tids):
            held.drop()
        if self._control is not None:
            self._control.release()
        self._control = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _corrupt(self, code: int) -> ValueError:
        name, position = ("write_index", 0) if code == self._kernels.E_WRITE_INDEX else ("read_index", 1)
        return ValueError(
            f"{name}: {_INDICES.unpack_from(self._open())[position]} in the control page is no multiple of 8 "
            f"below the {self.dsize} bytes of data"
        )


class RingWriter(RingEnd):
    """The writing end."""

    __slots__ = ()

    @classmethod
    def attach(cls, buffer: Any) -> RingWriter:
        """Write to the ring in *buffer* from its current write index on.

        :raises ValueError: buffer too small, not a multiple of 4096, read-only, or an index outside the ring.
        """
        return cls(buffer, "write_batch")

    @property
    def out_full_total(self) -> int:
        """How often the ring was full."""
        return self._get(self._kernels.ST_FULL_TOTAL)

    @property
    def out_full_first(self) -> int:
        """How often it *became* full: counted again only after a packet went in."""
        return self._get(self._kernels.ST_FULL_FIRST)

    def write_batch(
        self, src: Any, lens: Any, n: int, tid0: int, *, kind: int = VM_PKT_DATA_INBAND, flags: int = 0
    ) -> int:
        """Write up to *n* packets; return how many fitted.

        :param src: payloads back to back, each starting at a multiple of 8 bytes.
        :param lens: their lengths in bytes, 32 bit unsigned items.
        :param tid0: transaction id of the first packet; the others count up.
        :param kind: descriptor type (u16). :param flags: descriptor flags (u16), 1 asks for a completion.
        :raises ValueError: what is wrong, and the limit; nothing was written.
        """
        lengths = self._lens
        if src is not self._held.owner or lens is not lengths.owner:
            self._hold(src, lens)
        if not 0 <= n <= lengths.items:
            raise ValueError(f"n: {n} is not in 0..{lengths.items}, the items of lens")
        if tid0 >> 63:
            if tid0 < 0 or tid0 >> 64:
                raise ValueError(f"tid0: {tid0} does not fit 64 bits")
            tid0 -= 1 << 64
        if kind >> 16:
            raise ValueError(f"kind: {kind} does not fit 16 bits")
        if flags:
            if flags >> 16:
                raise ValueError(f"flags: {flags} does not fit 16 bits")
            kind |= flags << 48
            if flags > 0x7FFF:
                kind -= 1 << 64
        done = self._entry(self._state, n, tid0, kind)
        if done < 0:
            raise self._error(done)
        return done

    def _hold(self, src: Any, lens: Any) -> None:
        self._open()
        try:
            if src is not self._held.owner:
                self._held.take("src", src, 1, writable=False)
            if lens is not self._lens.owner:
                self._lens.take("lens", lens, 4, writable=False)
        finally:  # what was taken before an error has let go of the memory that the kernels know
            self._tell()

    def _error(self, code: int) -> ValueError:
        kernels = self._kernels
        index, kind = divmod(-code, 8)
        if kind in (-kernels.E_WRITE_INDEX, -kernels.E_READ_INDEX):
            return self._corrupt(-kind)
        length = _U32.unpack_from(memoryview(self._lens.owner).cast("B"), 4 * index)[0]
        if kind == -kernels.E_SRC_TOO_SMALL:
            return ValueError(f"lens[{index}]: {length} bytes reach behind the end of src ({self._held.nbytes} bytes)")
        limit = min(MAX_PACKET - 16, self.dsize - 32)
        return ValueError(f"lens[{index}]: {length} exceeds {limit}, the largest payload of this ring")

    def set_pending_send_sz(self, size: int) -> int:
        """Tell the reader how many bytes this end waits for (0: none); return the free bytes after that."""
        if not 0 <= size < 1 << 32:
            raise ValueError(f"size: {size} does not fit 32 bits")
        self._open()
        self._kernels.set_pending_send_sz(self._base, size)
        return self.bytes_to_write


class RingReader(RingEnd):
    """The reading end."""

    __slots__ = ()

    @classmethod
    def attach(cls, buffer: Any, *, max_packet: int | None = None) -> RingReader:
        """Read the ring in *buffer* from its current read index on.

        :param max_packet: bytes of the largest packet, descriptor included; a descriptor that claims more is cut to
            this. Default: the size of the data, at most 524,280 (its length field is a u16 in units of 8).
        :raises ValueError: buffer too small, not a multiple of 4096, read-only, an index outside the ring, or a
            max_packet out of range.
        """
        end = cls(buffer, "read_batch")
        limit = min(end.dsize, MAX_PACKET)
        if max_packet is None:
            max_packet = limit
        elif not 16 <= max_packet <= limit:
            end.close()
            raise ValueError(f"max_packet: {max_packet} is not in 16..{limit}")
        end._put(end._kernels.ST_MAX_PKT, max_packet)
        end._put(end._kernels.ST_PRIV, end.indices[1])
        return end

    def read_batch(self, dst: Any, lens: Any, tids: Any, maxn: int) -> int:
        """Read up to *maxn* packets; return how many came. 0 means that the ring is empty.

        :param dst: receives the payloads back to back; lengths are multiples of 8, as padding travels with the payload.
        :param lens: receives their lengths in bytes, 32 bit items. :param tids: receives the transaction ids, 64 bit
            items.
        :raises ValueError: what is wrong, and the limit. A *dst* too small for the first packet leaves it in the ring.
        """
        lengths, trans_ids = self._lens, self._tids
        if dst is not self._held.owner or lens is not lengths.owner or tids is not trans_ids.owner:
            self._hold(dst, lens, tids)
        if not 0 <= maxn <= lengths.items or maxn > trans_ids.items:
            limit = min(lengths.items, trans_ids.items)
            raise ValueError(f"maxn: {maxn} is not in 0..{limit}, the items of lens and tids")
        done = self._entry(self._state, maxn)
        if done < 0:
            if done == self._kernels.E_DST_TOO_SMALL:
                at = PAGE + self._get(self._kernels.ST_PRIV)
                claimed = (_U64.unpack_from(self._open(), at)[0] >> 32 & 0xFFFF) << 3
                raise ValueError(
                    f"dst: {self._held.nbytes} bytes cannot hold the next packet ({claimed} bytes with descriptor)"
                )
            raise self._corrupt(done)
        return done

    def _hold(self, dst: Any, lens: Any, tids: Any) -> None:
        self._open()
        try:
            if dst is not self._held.owner:
                self._held.take("dst", dst, 1, writable=True)
            if lens is not self._lens.owner:
                self._lens.take("lens", lens, 4, writable=True)
            if tids is not self._tids.owner:
                self._tids.take("tids", tids, 8, writable=True)
        finally:  # what was taken before an error has let go of the memory that the kernels know
            self._tell()

    def begin_read(self) -> None:
        """Ask the writer not to signal (interrupt_mask 1)."""
        self._open()
        self._kernels.set_interrupt_mask(self._base, 1)

    def end_read(self) -> int:
        """Ask for signals again (interrupt_mask 0); return the bytes that came in meanwhile."""
        self._open()
        self._kernels.set_interrupt_mask(self._base, 0)
        return self.bytes_to_read
