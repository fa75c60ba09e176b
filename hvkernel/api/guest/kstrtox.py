"""kstrtox.h: numbers in texts that user space writes."""

from __future__ import annotations

import re
from typing import Final

NUMBER: Final = re.compile(rb"(?P<sign>[+-]?)(?:0[xX](?P<hex>[0-9a-fA-F]+)|(?P<oct>0[0-7]*)|(?P<dec>[1-9][0-9]*))\n?")
BASES: Final = (("hex", 16), ("oct", 8), ("dec", 10))


def kstrtox(buf: bytes, bits: int, signed: bool) -> int | None:
    """Return the number in a text up to its NUL, as kstrtoint(), kstrtoull() and their like with base 0 read it.

    Decimal, hexadecimal after ``0x``, octal after ``0``; one newline may follow. ``None`` for what is no such number.
    :raises OverflowError: it does not fit ``bits``. Source: lib/kstrtox.c.
    """
    found = NUMBER.fullmatch(buf.partition(b"\0")[0])
    if found is None or (found["sign"] == b"-" and not signed):
        return None
    value = next(int(found[kind], base) for kind, base in BASES if found[kind] is not None)
    value = -value if found["sign"] == b"-" else value
    least, most = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    if not least <= value <= most:
        raise OverflowError(value)
    return value


__all__ = ["kstrtox"]
