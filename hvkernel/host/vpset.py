"""Sets of virtual processors as hypercalls take them: 64-bit masks and sparse banks (TLFS, "HV_VP_SET")."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hvkernel.abi.tlfs_hypercall import HvGenericSetFormat

__all__ = ["mask_members", "set_members"]


def mask_members(mask: int, base: int = 0) -> Iterator[int]:
    """Yield ``base`` plus the number of each bit set in ``mask``, ascending."""
    while mask:
        low = mask & -mask
        yield base + low.bit_length() - 1
        mask ^= low


def set_members(format: int, valid_banks: int, banks: Iterable[int], everyone: Iterable[int]) -> list[int] | None:
    """Return the VP indices of a set, ascending.

    :param banks: the contents of the banks whose bit is set in ``valid_banks``, in order.
    :param everyone: all VPs of the partition, for the format "all".
    :returns: ``None`` when the format is unknown or the number of banks does not fit ``valid_banks``.
    """
    if format == HvGenericSetFormat.HV_GENERIC_SET_ALL:
        return list(everyone)
    contents = list(banks)
    if format != HvGenericSetFormat.HV_GENERIC_SET_SPARSE_4K or len(contents) != valid_banks.bit_count():
        return None
    members: list[int] = []
    for bank, content in zip(mask_members(valid_banks), contents, strict=True):
        members += mask_members(content, bank * 64)
    return members
