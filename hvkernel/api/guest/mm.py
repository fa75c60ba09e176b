"""include/linux/gfp.h, mm.h, vmalloc.h: guest pages and the mappings made of them.

Structs here are plain data, as in a C header; :class:`Mm` is what works on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol


class Page:
    """``2 ** order`` guest pages in one piece. Made by :meth:`Mm.alloc_pages`; compare by identity."""

    __slots__ = ("caller", "freed", "gpa", "highmem", "order", "pfn", "size")

    def __init__(self, pfn: int, gpa: int, order: int, size: int, highmem: bool, caller: str) -> None:
        self.pfn = pfn
        """Page frame number in guest pages (``PAGE_SIZE`` of this kernel, not 4 KiB)."""
        self.gpa = gpa
        """Guest physical byte address of the first byte."""
        self.order = order
        self.size = size
        """Bytes."""
        self.highmem = highmem
        """True when a 32-bit kernel has no permanent mapping of it (page_address() is NULL)."""
        self.caller = caller
        """Where it was allocated; shown by the leak report."""
        self.freed = False

    def __repr__(self) -> str:
        return f"Page(pfn={self.pfn:#x}, gpa={self.gpa:#x}, order={self.order}{', freed' if self.freed else ''})"


class Accessor(Protocol):
    """The guest's door to its physical memory: byte addresses, little-endian integers (contract of ``machine``)."""

    def read(self, gpa: int, n: int, /) -> bytes:
        """Copy ``n`` bytes out."""
        ...

    def write(self, gpa: int, data: bytes | bytearray | memoryview, /) -> None:
        """Copy ``data`` in."""
        ...

    def load8(self, gpa: int, /) -> int: ...
    def load16(self, gpa: int, /) -> int: ...
    def load32(self, gpa: int, /) -> int: ...
    def load64(self, gpa: int, /) -> int: ...
    def store8(self, gpa: int, v: int, /) -> None: ...
    def store16(self, gpa: int, v: int, /) -> None: ...
    def store32(self, gpa: int, v: int, /) -> None: ...
    def store64(self, gpa: int, v: int, /) -> None: ...

    def zero(self, gpa: int, n: int, /) -> None:
        """Clear ``n`` bytes."""
        ...

    def sync_set_bit(self, gpa: int, bit: int, /) -> None:
        """Atomically set bit ``bit`` counted from ``gpa``."""
        ...

    def sync_clear_bit(self, gpa: int, bit: int, /) -> None:
        """Atomically clear bit ``bit`` counted from ``gpa``."""
        ...

    def sync_test_bit(self, gpa: int, bit: int, /) -> bool:
        """Whether bit ``bit`` counted from ``gpa`` is set."""
        ...

    def sync_test_and_set_bit(self, gpa: int, bit: int, /) -> bool:
        """Atomically set bit ``bit`` counted from ``gpa``; the old value."""
        ...

    def sync_test_and_clear_bit(self, gpa: int, bit: int, /) -> bool:
        """Atomically clear bit ``bit`` counted from ``gpa``; the old value."""
        ...

    def xchg32(self, gpa: int, v: int, /) -> int:
        """Atomically store ``v``; the old value."""
        ...

    def cmpxchg32(self, gpa: int, old: int, new: int, /) -> int:
        """Atomically store ``new`` if the value is ``old``; the value found."""
        ...

    def view(self, gpa: int, n: int, /) -> AbstractContextManager[memoryview]:
        """A memoryview of ``n`` bytes that lives for one ``with`` block."""
        ...


class Vmap(Accessor, Protocol):
    """Pages mapped in a row: the accessors of :class:`Accessor` with byte offsets into the mapping."""

    def unmap(self) -> None:
        """Give the mapping back; a use after this raises."""
        ...


class Mm(Protocol):
    """``kernel.mm``: the page allocator and the mappings."""

    PAGE_SHIFT: int
    PAGE_SIZE: int

    @property
    def memory(self) -> Accessor:
        """The guest's accessor to all of its physical memory."""
        ...

    def alloc_pages(
        self, order: int = 0, *, zero: bool = False, lowmem: bool = False, node: int | None = None, atomic: bool = False
    ) -> Page | None:
        """``2 ** order`` pages in one piece, or None when there are none (or a test makes this one fail).

        :param lowmem: must be permanently mapped (GFP_KERNEL on 32-bit); False takes highmem first, as GFP_HIGHUSER.
        :param atomic: GFP_ATOMIC; False may sleep, so it is a finding in atomic context.
        """
        ...

    def alloc_page(self, *, zero: bool = False, lowmem: bool = True) -> Page | None:
        """One page, mapped."""
        ...

    def get_zeroed_page(self, *, atomic: bool = False) -> Page | None:
        """One zeroed page, mapped."""
        ...

    def memblock_alloc(self, size: int, name: str) -> int:
        """Zeroed memory that lives as long as the kernel, before there is a page allocator: its address."""
        ...

    def free_pages(self, page: Page) -> None:
        """Give an allocation back. Twice is a finding, and changes nothing."""
        ...

    def vmap(self, pages: Sequence[Page]) -> Vmap:
        """Map allocations in a row (in full, at ``PAGE_SIZE``)."""
        ...

    def vmap_hvpfns(self, hvpfns: Sequence[int]) -> Vmap:
        """Map 4 KiB pages, by their Hyper-V page numbers, in a row (``vmap_pfn``)."""
        ...

    def page_to_hvpfn(self, page: Page) -> int:
        """The 4 KiB page number of the first byte of ``page``."""
        ...


__all__ = ["Accessor", "Mm", "Page", "Vmap"]
