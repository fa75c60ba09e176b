"""Sizes as people write them."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import Final

__all__ = ["format_size", "parse_size"]

_SIZE: Final = re.compile(r"([0-9]+)\s*(?:([KMGT])(?:i?B)?|B)?\Z", re.IGNORECASE)
_SHIFT: Final = MappingProxyType({"": 0, "K": 10, "M": 20, "G": 30, "T": 40})


def parse_size(text: str | int) -> int:
    """Return the bytes of ``1G``, ``512MiB``, ``4096`` (binary units, case ignored).

    :raises ValueError: ``text`` is not a size.
    """
    if isinstance(text, int) and not isinstance(text, bool):
        return text
    if not isinstance(text, str):
        raise ValueError("a size is a number with an optional K, M, G or T, as 512M")
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError("a size is a number with an optional K, M, G or T, as 512M")
    return int(match[1]) << _SHIFT[(match[2] or "").upper()]


def format_size(size: int) -> str:
    """Return ``size`` bytes in the largest binary unit that divides it."""
    for unit in ("T", "G", "M", "K"):
        if size and size % (1 << _SHIFT[unit]) == 0:
            return f"{size >> _SHIFT[unit]}{unit}"
    return str(size)
