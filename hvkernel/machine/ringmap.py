"""Real contiguous mappings of guest pages, for code that works on addresses.

A ring's data is mapped twice in a row, so that a packet that wraps is contiguous. A raw view kept after unmapping
would be a SIGSEGV or, worse, a write to whatever is mapped there next; hence unmapping leaves a guard mapping without
access in the place, and is refused while a view lives.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from collections.abc import Sequence
from typing import Any, Final

from hvkernel.machine.addresses import HV_HYP_PAGE_SHIFT, HV_HYP_PAGE_SIZE, HvPfn
from hvkernel.machine.faults import MachineError

_PROT_NONE: Final = 0
_MAP_FIXED: Final = 0x10
_MAP_NORESERVE: Final = 0x4000
_MAP_FAILED: Final = (1 << (8 * ctypes.sizeof(ctypes.c_void_p))) - 1


class Libc:
    """mmap and munmap of the C library, with types."""

    __slots__ = ("_mmap", "_munmap")

    def __init__(self) -> None:
        if mmap.PAGESIZE != HV_HYP_PAGE_SIZE:
            raise MachineError(
                f"a ring mapping needs pages of {HV_HYP_PAGE_SIZE} bytes, this computer has {mmap.PAGESIZE}"
            )
        library = ctypes.CDLL(None, use_errno=True)
        self._mmap: Any = library.mmap
        self._mmap.restype = ctypes.c_void_p
        self._mmap.argtypes = (
            ctypes.c_void_p,
            ctypes.c_size_t,
            ctypes.c_int,
            ctypes.c_int,
            ctypes.c_int,
            ctypes.c_longlong,
        )
        self._munmap: Any = library.munmap
        self._munmap.restype = ctypes.c_int
        self._munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)

    def reserve(self, address: int | None, size: int) -> int:
        """Map `size` bytes without access, at `address` (replacing what is there) or anywhere."""
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE | (_MAP_FIXED if address is not None else 0)
        return self._check(self._mmap(address, size, _PROT_NONE, flags, -1, 0))

    def place(self, address: int, size: int, fd: int, offset: int) -> int:
        """Map `size` bytes of `fd` from `offset` on at `address`, for reading and writing."""
        rights = mmap.PROT_READ | mmap.PROT_WRITE
        return self._check(self._mmap(address, size, rights, mmap.MAP_SHARED | _MAP_FIXED, fd, offset))

    def release(self, address: int, size: int) -> None:
        """Unmap for good."""
        if self._munmap(address, size):
            raise self._error()

    def _check(self, address: int | None) -> int:
        if address is None or address == _MAP_FAILED:
            raise self._error()
        return address

    @staticmethod
    def _error() -> OSError:
        number = ctypes.get_errno()
        return OSError(number, os.strerror(number))


class RingMapping:
    """Guest pages at consecutive addresses of this process. Made by :meth:`Memory.map_ring`."""

    __slots__ = ("_array", "_libc", "_ref", "address", "size")

    def __init__(self, libc: Libc, fd: int, hvpfns: Sequence[HvPfn]) -> None:
        if not hvpfns:
            raise ValueError("hvpfns: empty; a mapping needs at least one page")
        self._libc = libc
        self.size: Final = len(hvpfns) << HV_HYP_PAGE_SHIFT
        """Length in bytes: control once, data twice."""
        self.address: Final = libc.reserve(None, self.size)
        """Where it starts in this process. Only valid while :attr:`mapped`; hold a :meth:`view` while using it."""
        at = self.address
        run = 0
        while run < len(hvpfns):
            end = run + 1
            while end < len(hvpfns) and hvpfns[end] == hvpfns[end - 1] + 1:
                end += 1
            size = (end - run) << HV_HYP_PAGE_SHIFT
            libc.place(at, size, fd, hvpfns[run] << HV_HYP_PAGE_SHIFT)
            at += size
            run = end
        array: Any = (ctypes.c_ubyte * self.size).from_address(self.address)
        self._array: Any = array
        self._ref: weakref.ref[Any] = weakref.ref(array)

    @property
    def mapped(self) -> bool:
        """False after :meth:`unmap`."""
        return self._array is not None

    def view(self) -> memoryview:
        """A writable memoryview (bytes) of the whole mapping. While it, or anything made from it, lives, unmapping
        is refused."""
        if self._array is None:
            raise MachineError("the ring mapping was unmapped")
        return memoryview(self._array).cast("B")

    def unmap(self) -> None:
        """Replace the mapping by a guard without access, which stays until the machine is closed.

        :raises MachineError: it was unmapped before.
        :raises BufferError: a view of it lives; nothing was changed.
        """
        if self._array is None:
            raise MachineError("the ring mapping was unmapped before")
        if self._in_use():
            raise BufferError(f"ring mapping of {self.size:#x} bytes: a view of it is still alive")
        self._libc.reserve(self.address, self.size)

    def _in_use(self) -> bool:
        """Let go of the array; if somebody else still has it, take it back and say True."""
        self._array = None
        self._array = self._ref()
        return self._array is not None

    def _discard(self) -> bool:
        """Unmap for good, guard or mapping. False if a view lives: then it stays mapped."""
        if self._array is not None and self._in_use():
            return False
        self._libc.release(self.address, self.size)
        return True
