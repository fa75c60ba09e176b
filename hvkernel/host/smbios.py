"""SMBIOS: what the guest prints as ``DMI:`` and what tools identify the machine by.

Strings as in published logs: ``Microsoft Corporation Virtual Machine/Virtual Machine, BIOS ...``.
Source of the layout: DMTF DSP0134 (System Management BIOS reference specification).
"""

from __future__ import annotations

from struct import pack
from typing import Final

from hvkernel.abi.acpi import checksum
from hvkernel.abi.smbios import DmiHeader, Smbios3EntryPoint, SmbiosEntryPoint, SmbiosType

__all__ = ["entry_point_2", "entry_point_3", "structures"]

_MAKER: Final = "Microsoft Corporation"
_PRODUCT: Final = "Virtual Machine"


def _structure(kind: int, handle: int, formatted: bytes, *strings: str) -> bytes:
    text = b"".join(s.encode("ascii") + b"\0" for s in strings) or b"\0"
    return DmiHeader(kind, DmiHeader.SIZE + len(formatted), handle).pack() + formatted + text + b"\0"


def structures(version: str, date: str, maker: str) -> tuple[bytes, int]:
    """Return the structure table (BIOS, system, baseboard, end) and the number of structures."""
    bios = _structure(
        SmbiosType.DMI_ENTRY_BIOS,
        0,
        pack("<BBHBBQHBBBB", 1, 2, 0, 3, 0, 0x08, 0x0C01, 4, 1, 0xFF, 0xFF),
        maker,
        version,
        date,
    )
    system = _structure(
        SmbiosType.DMI_ENTRY_SYSTEM,
        1,
        pack("<BBBB16sBBB", 1, 2, 3, 4, bytes(16), 6, 0, 0),
        _MAKER,
        _PRODUCT,
        "7.0",
        "0",
    )
    board = _structure(SmbiosType.DMI_ENTRY_BASEBOARD, 2, pack("<BBBB", 1, 2, 3, 4), _MAKER, _PRODUCT, "7.0", "0")
    end = _structure(SmbiosType.DMI_ENTRY_END_OF_TABLE, 0xFEFF, b"")
    return bios + system + board + end, 4


def entry_point_3(address: int, size: int) -> bytes:
    """Return the 64-bit entry point ``_SM3_`` (version 3.1, as generation 2 reports)."""
    point = Smbios3EntryPoint(b"_SM3_", 0, Smbios3EntryPoint.SIZE, 3, 1, 0, 1, 0, size, address)
    return point.replace(checksum=checksum(point.pack())).pack()


def entry_point_2(address: int, size: int, count: int) -> bytes:
    """Return the 32-bit entry point ``_SM_`` (version 2.3, as generation 1 reports)."""
    point = SmbiosEntryPoint(
        b"_SM_", 0, SmbiosEntryPoint.SIZE, 2, 3, 128, 0, bytes(5), b"_DMI_", 0, size, address, count, 0x23
    )
    inner = point.pack()[SmbiosEntryPoint.offset_of("intermediate_anchor") :]
    point = point.replace(intermediate_checksum=checksum(inner))
    return point.replace(checksum=checksum(point.pack())).pack()
