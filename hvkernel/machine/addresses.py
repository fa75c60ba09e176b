"""Addresses and page numbers of guest physical memory, as types that do not mix.

The guest allocates in pages of its own ``PAGE_SIZE`` (4, 16 or 64 KiB) and shares with the hypervisor in
pages of 4 KiB. A number of the one kind used as the other is a bug that a test at 4 KiB never sees, so the
two are distinct for the type checker: :data:`HvPfn` and :data:`Pfn`. Byte addresses are :data:`Gpa`.
"""

from __future__ import annotations

from typing import Final, NewType

from hvkernel.abi.tlfs_features import HV_HYP_PAGE_SHIFT, HV_HYP_PAGE_SIZE

__all__ = [
    "HV_HYP_PAGE_SHIFT",
    "HV_HYP_PAGE_SIZE",
    "OFFSET_IN_HVPAGE",
    "Gpa",
    "HvPfn",
    "Pfn",
    "gpa_of",
    "hvpfn_of",
    "hvpfns_of",
]

OFFSET_IN_HVPAGE: Final = HV_HYP_PAGE_SIZE - 1
"""The offset bits inside a hypervisor page: what HV_HYP_PAGE_MASK takes away."""

HvPfn = NewType("HvPfn", int)
"""A 4 KiB page number: what the hypervisor counts in."""
Pfn = NewType("Pfn", int)
"""A page number in units of the guest's PAGE_SIZE."""
Gpa = NewType("Gpa", int)
"""A guest physical address in bytes."""


def hvpfn_of(gpa: int) -> HvPfn:
    """The 4 KiB page that holds byte address `gpa`."""
    return HvPfn(gpa >> HV_HYP_PAGE_SHIFT)


def gpa_of(hvpfn: HvPfn) -> Gpa:
    """The first byte of 4 KiB page `hvpfn`."""
    return Gpa(hvpfn << HV_HYP_PAGE_SHIFT)


def hvpfns_of(pfn: Pfn, page_size: int, count: int = 1) -> list[HvPfn]:
    """The 4 KiB pages of `count` guest pages of `page_size` bytes from guest page `pfn` on, ascending."""
    ratio = page_size >> HV_HYP_PAGE_SHIFT
    if ratio < 1 or page_size != ratio << HV_HYP_PAGE_SHIFT:
        raise ValueError(f"page_size: {page_size} is not a positive multiple of {HV_HYP_PAGE_SIZE}")
    return [HvPfn(n) for n in range(pfn * ratio, (pfn + count) * ratio)]
