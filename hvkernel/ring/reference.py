"""The C reference of the ring (``reference.c`` beside this file), compiled on the spot and called through ctypes.

It does, packet by packet, what drivers/hv/ring_buffer.c of Linux 6.1 does. The benchmark measures against it and the
tests compare bytes with it; nothing else uses it.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

__all__ = ["FLAGS", "NoCompilerError", "Reference", "ReferenceEnd", "build"]

SOURCE: Final = Path(__file__).with_name("reference.c")
FLAGS: Final = ("-O2", "-std=gnu11", "-fPIC", "-shared")
"""How it is compiled: as the kernel, -O2."""

_U32P: Final = ctypes.POINTER(ctypes.c_uint32)
_U64P: Final = ctypes.POINTER(ctypes.c_uint64)


class NoCompilerError(RuntimeError):
    """There is no gcc, or it did not compile the reference."""


class Work(ctypes.Structure):
    """Buffers of the measured loops: ``struct work`` of reference.c."""

    _fields_ = (
        ("source", ctypes.c_void_p),
        ("sizes", ctypes.c_void_p),
        ("target", ctypes.c_void_p),
        ("sizes_out", ctypes.c_void_p),
        ("requests", ctypes.c_void_p),
        ("room", ctypes.c_uint64),
    )


class Counters(ctypes.Structure):
    """What ``struct end`` of reference.c begins with."""

    _fields_ = (("signals", ctypes.c_uint64), ("full_total", ctypes.c_uint64), ("full_first", ctypes.c_uint64))


_SIGNATURES: Final = (
    ("ref_attach", ctypes.c_void_p, (ctypes.c_int, ctypes.c_uint32, ctypes.c_uint32)),
    ("ref_detach", None, (ctypes.c_void_p,)),
    (
        "ref_write",
        ctypes.c_int,
        (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint32),
    ),
    ("ref_receive", ctypes.c_int, (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32, _U32P, _U64P)),
    ("ref_mask", ctypes.c_uint32, (ctypes.c_void_p, ctypes.c_uint32)),
    (
        "ref_read_batch",
        ctypes.c_uint32,
        (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32),
    ),
    (
        "ref_round_trips",
        ctypes.c_uint64,
        (
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.POINTER(Work),
            ctypes.c_uint32,
            ctypes.c_uint64,
            ctypes.c_int,
        ),
    ),
    ("ref_writes", ctypes.c_uint64, (ctypes.c_void_p, ctypes.POINTER(Work), ctypes.c_uint32, ctypes.c_uint64)),
    ("ref_produce", ctypes.c_uint64, (ctypes.c_void_p, ctypes.POINTER(Work), ctypes.c_uint32, ctypes.c_uint64)),
    ("ref_consume", ctypes.c_uint64, (ctypes.c_void_p, ctypes.POINTER(Work), ctypes.c_uint32, ctypes.c_uint64)),
    (
        "ref_memcpy",
        ctypes.c_uint64,
        (ctypes.POINTER(Work), ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint64),
    ),
)


class ReferenceEnd:
    """One end of a ring in a file, driven by the C reference; a context manager.

    :param fd: file with a control page and *dsize* bytes of data, laid out as :func:`hvkernel.ring.init_ring` does.
    :param dsize: bytes of ring data, a multiple of 4096.
    :param max_packet: bytes of the buffer that received packets are copied to (a channel's ``max_pkt_size``).
    """

    __slots__ = ("_address", "_library", "_room")

    def __init__(self, library: Any, fd: int, dsize: int, max_packet: int) -> None:
        self._library = library
        self._room = max_packet
        self._address: int | None = library.ref_attach(fd, dsize, max_packet)
        if self._address is None:
            raise MemoryError(f"reference: cannot map a ring of {dsize} bytes twice")

    @property
    def address(self) -> int:
        """Where its state is, for the loops of :class:`Reference`."""
        if self._address is None:
            raise ValueError("reference: this end is closed")
        return self._address

    @property
    def counters(self) -> tuple[int, int, int]:
        """(signals, out_full_total, out_full_first)."""
        counters = Counters.from_address(self.address)
        return counters.signals, counters.full_total, counters.full_first

    def write(self, payload: bytes, tid: int, kind: int = 6, flags: int = 0) -> bool:
        """vmbus_sendpacket(): False if the ring is full."""
        return bool(self._library.ref_write(self.address, payload, len(payload), tid, kind, flags) == 0)

    def receive(self) -> tuple[int, int, bytes]:
        """vmbus_recvpacket(): (status, trans_id, payload)."""
        size, tid = ctypes.c_uint32(), ctypes.c_uint64()
        buffer = ctypes.create_string_buffer(self._room)
        status = self._library.ref_receive(self.address, buffer, self._room, ctypes.byref(size), ctypes.byref(tid))
        return status, tid.value, buffer.raw[: size.value]

    def read(self, count: int) -> list[tuple[int, bytes]]:
        """foreach_vmbus_pkt, left after *count* packets (at least one): (trans_id, payload) of each."""
        sizes, tids = (ctypes.c_uint32 * count)(), (ctypes.c_uint64 * count)()
        target = ctypes.create_string_buffer(self._room * count)
        got = self._library.ref_read_batch(self.address, target, sizes, tids, count)
        out: list[tuple[int, bytes]] = []
        at = 0
        for size, tid in zip(sizes[:got], tids[:got], strict=True):
            out.append((tid, target.raw[at : at + size]))
            at += size
        return out

    def mask(self, mask: int) -> int:
        """hv_begin_read() and hv_end_read(): set interrupt_mask, return the write index after the barrier."""
        return int(self._library.ref_mask(self.address, mask))

    def close(self) -> None:
        """Unmap; closing twice is allowed."""
        if self._address is not None:
            self._library.ref_detach(self._address)
            self._address = None

    def __enter__(self) -> ReferenceEnd:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Reference:
    """The compiled reference. Make one with :func:`build`."""

    __slots__ = ("library",)

    def __init__(self, library: Any) -> None:
        for name, result, arguments in _SIGNATURES:
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
        self.library = library

    def attach(self, fd: int, dsize: int, max_packet: int) -> ReferenceEnd:
        """An end of the ring in *fd*."""
        return ReferenceEnd(self.library, fd, dsize, max_packet)


def build(flags: Sequence[str] = ()) -> Reference:
    """Compile reference.c with gcc and load it.

    :param flags: more flags for the compiler.
    :raises NoCompilerError: no gcc, or it refused.
    """
    compiler = shutil.which("gcc")
    if compiler is None:
        raise NoCompilerError("gcc: not found; the C reference of the ring needs it (Debian package gcc)")
    with tempfile.TemporaryDirectory(prefix="hvkernel-") as directory:
        library = os.path.join(directory, "reference.so")
        result = subprocess.run(
            [compiler, *FLAGS, *flags, "-o", library, str(SOURCE)], capture_output=True, text=True, check=False
        )
        if result.returncode:
            raise NoCompilerError(f"gcc: did not compile {SOURCE.name}: {result.stderr.strip()}")
        return Reference(ctypes.CDLL(library))
