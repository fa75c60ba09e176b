"""The bulk copies of a guest's ring through numba, for ``hv/ring_buffer.py`` with ``jit=True``.

The ring is mapped contiguously (control page, data, data again), so one memcpy moves any packet, wrapped or not.
Importing this module imports numba.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from hvkernel.ring import kernels

if TYPE_CHECKING:
    from hvkernel.machine.addresses import HvPfn
    from hvkernel.machine.memory import Memory
    from hvkernel.machine.ringmap import RingMapping

PAGE: Final = 4096

__all__ = ["MappedRing", "bulk_ring"]


class MappedRing:
    """Copies in and out of one contiguous mapping, through a staging buffer whose address is looked up once.

    :param mapping: what ``Memory.map_ring`` returned.
    :param data_offset: bytes of the control page.
    """

    __slots__ = ("_copy", "_data", "_limit", "_mapping", "_pin", "_stage", "_stage_address", "_stage_view")

    def __init__(self, mapping: RingMapping, data_offset: int) -> None:
        self._mapping = mapping
        self._pin: Any = np.frombuffer(mapping.view(), dtype=np.uint8)
        self._data = int(self._pin.ctypes.data) + data_offset
        self._limit = self._pin.nbytes - data_offset
        self._copy = kernels.entry_point(kernels.copy)
        self._grow(4096)

    def _grow(self, size: int) -> None:
        self._stage: Any = np.zeros(size, dtype=np.uint8)
        self._stage_address = int(self._stage.ctypes.data)
        self._stage_view = memoryview(self._stage.data)

    def _check(self, offset: int, length: int) -> None:
        if self._pin is None:
            raise ValueError("ring mapping: used after close")
        if offset < 0 or length < 0 or offset + length > self._limit:
            raise ValueError(f"ring mapping: {length} bytes at {offset} exceed the {self._limit} bytes mapped")

    def put(self, offset: int, parts: Sequence[bytes | bytearray | memoryview]) -> int:
        """Copy the parts, back to back, to *offset* of the ring data; return how many bytes that was."""
        total = 0
        for part in parts:
            total += len(part)
        self._check(offset, total)
        if total > len(self._stage_view):
            self._grow(2 * total)
        at = 0
        for part in parts:
            end = at + len(part)
            self._stage_view[at:end] = part
            at = end
        self._copy(self._data + offset, self._stage_address, total)
        return total

    def get(self, offset: int, length: int) -> bytes:
        """Copy *length* bytes at *offset* of the ring data out of the ring."""
        self._check(offset, length)
        if length > len(self._stage_view):
            self._grow(2 * length)
        self._copy(self._stage_address, self._data + offset, length)
        return bytes(self._stage_view[:length])

    def close(self) -> None:
        """Give the mapping back; closing twice is allowed."""
        if self._pin is not None:
            self._pin = None
            self._mapping.unmap()


def bulk_ring(memory: Memory, control: Sequence[HvPfn], data: Sequence[HvPfn]) -> MappedRing:
    """Map the 4 KiB pages of *control* once and those of *data* twice in a row, and copy through that mapping."""
    return MappedRing(memory.map_ring(control, data), len(control) * PAGE)
