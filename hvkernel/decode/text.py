"""Finds the bytes in a hex dump, whoever printed it: xxd, hexdump -C, od, Wireshark, the kernel, or plain digits."""

from __future__ import annotations

import re
from itertools import islice
from typing import Final, NamedTuple

__all__ = ["Dump", "is_text", "read_dump"]

MAX_BYTES: Final = 64 << 20
"""Bytes that a dump may stand for: a repeated line ("*") could stand for any number."""

_LONGEST_ROW: Final = 2048
"""Characters of a line with an offset: xxd prints at most 256 bytes in one."""
_CANDIDATES: Final = 4
"""Numbers of a line that are tried as its offset: a log may put a time or an address in front."""

_OFFSET: Final = re.compile(r"(?:^|(?<=[\s\]:|]))(?:0[xX])?([0-9a-fA-F]{4,16})(:?)(?=\s|$)")
_TOKEN: Final = re.compile(r"([ \t]*)([0-9a-fA-F]+)(?=[ \t|]|$)")
_LOOSE: Final = re.compile(
    r"0[xX]([0-9a-fA-F]+)|\\x([0-9a-fA-F]{2})|([0-9a-fA-F]+)|[\s,;{}\[\]()'\"]+|u?l?l?(?=[,;\s}])"
)
_TEXT: Final = frozenset(b"\t\n\r\f" + bytes(range(32, 127)))


class Dump(NamedTuple):
    """The bytes of one dump."""

    data: bytes
    problems: tuple[str, ...]


def is_text(data: bytes) -> bool:
    """Whether the input can be a hex dump: printable ASCII and line ends (a column of text may be anything)."""
    head = data[:4096]
    if not head or b"\0" in head:
        return False
    return sum(byte in _TEXT for byte in head) >= len(head) * 0.97


def read_dump(text: str) -> list[Dump]:
    """Return the dumps in a text, one for each time that the offsets begin at 0; empty when it is no dump."""
    lines = text.splitlines()
    rows = [(number, _row(line)) for number, line in enumerate(lines, 1) if line.strip()]
    with_offset = [row for _, row in rows if row is not None]
    if with_offset and with_offset[0][0] == 0 and with_offset[0][1]:
        return _with_offsets(rows)
    return _plain(text)


def _row(line: str) -> tuple[int, bytes] | None:
    """Return offset and bytes of a line: the last thing that can be an offset and is followed by bytes."""
    if line.strip() == "*":
        return -1, b""
    best = None
    if len(line) > _LONGEST_ROW:
        return None
    for match in islice(_OFFSET.finditer(line), _CANDIDATES):
        colon = bool(match[2])
        found = _bytes(line[match.end() :], colon, len(match[1]))
        if found is None:
            continue
        if colon:
            return int(match[1], 16), found  # of "module: 00000010: 01 02" the number before the last colon wins
        if best is None:
            best = int(match[1], 16), found
    return best


def _bytes(rest: str, colon: bool, digits: int) -> bytes | None:
    """Return the bytes behind an offset, None when what follows is no column of hex."""
    found = bytearray()
    at = 0
    words = None
    while match := _TOKEN.match(rest, at):
        gap, token = len(match[1].expandtabs(1)), match[2]
        if found and gap >= 2 and not (gap == 2 and len(found) == 8 and len(token) == 2):
            break
        if len(token) not in (2, 4, 8, 16) or (words is not None and len(token) > words):
            break
        if words is None:
            words = len(token)
        piece = bytes.fromhex(token)
        # hexdump and od print 16-bit words of the machine, which has the low byte first; they print no colon.
        found += piece if colon or words == 2 else piece[::-1]
        at = match.end()
    if not found:
        return b"" if not rest.strip() else None
    if words != 2 and not colon and digits < 6:
        return None
    return bytes(found)


def _with_offsets(rows: list[tuple[int, tuple[int, bytes] | None]]) -> list[Dump]:
    dumps: list[Dump] = []
    data = bytearray()
    problems: list[str] = []
    last = b""
    repeat = False
    for number, row in rows:
        if row is None:
            if len(problems) < 20:
                problems.append(f"line {number} is no line of a hex dump")
            continue
        offset, found = row
        if offset == -1:
            repeat = True
            continue
        if repeat and last:
            gap = max(min(offset, MAX_BYTES) - len(data), 0)
            data += (last * (gap // len(last) + 1))[:gap]
        repeat = False
        if offset == 0 and data and found:
            dumps.append(Dump(bytes(data), tuple(problems)))
            data, problems = bytearray(), []
        elif offset != len(data) and len(problems) < 20:
            problems.append(f"line {number} has offset {offset:#x}, {len(data):#x} bytes came before it")
        data += found
        last = found or last
    dumps.append(Dump(bytes(data), tuple(problems)))
    return dumps


def _plain(text: str) -> list[Dump]:
    """Digits without offsets: pairs, words in byte order, ``0x..`` lists, ``\\x..`` strings."""
    found: list[str] = []
    at = 0
    while at < len(text):
        match = _LOOSE.match(text, at)
        if match is None or match.end() == at:
            return []
        digits = match[1] or match[2] or match[3]
        if digits:
            if match[1] and len(digits) % 2:
                digits = "0" + digits
            found.append(digits)
        at = match.end()
    joined = "".join(found)
    if not joined or len(joined) % 2:
        return []
    return [Dump(bytes.fromhex(joined), ())]
