"""What both `hvkernel.abi.wire` and its code generator are made of; import these from `hvkernel.abi.wire`."""

from __future__ import annotations

from typing import TypeAlias

Buffer: TypeAlias = "bytes | bytearray | memoryview"


class WireError(ValueError):
    """A value or a buffer does not fit the declared layout; the text names struct, field, value, limit and source."""


class Guid(bytes):
    """A GUID as its 16 bytes on the wire (first three groups little-endian), shown in canonical text.

    :param raw: 16 bytes in memory order.
    :raises WireError: when ``raw`` is not 16 bytes long.
    """

    __slots__ = ()

    def __new__(cls, raw: Buffer) -> Guid:
        self = super().__new__(cls, raw)
        if len(self) != 16:
            raise WireError(f"a GUID is 16 bytes, got {len(self)}")
        return self

    @classmethod
    def parse(cls, text: str) -> Guid:
        """Read canonical text, braces and case do not matter.

        :raises WireError: naming the text.
        """
        digits = text.strip().strip("{}").replace("-", "")
        try:
            raw = bytes.fromhex(digits)
        except ValueError:
            raw = b""
        if len(raw) != 16 or len(digits) != 32:
            raise WireError(f"{text!r} is not a GUID; write it as 12345678-9abc-def0-1234-56789abcdef0")
        return cls(raw[3::-1] + raw[5:3:-1] + raw[7:5:-1] + raw[8:])

    def __str__(self) -> str:
        h = bytes.hex
        return f"{h(self[3::-1])}-{h(self[5:3:-1])}-{h(self[7:5:-1])}-{h(self[8:10])}-{h(self[10:])}"

    def __repr__(self) -> str:
        return f"Guid.parse({str(self)!r})"
