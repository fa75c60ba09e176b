"""SMBIOS entry points and structure header, as far as a guest reads them at boot.

The guest's DMI line comes from the strings behind a structure of type 0 to 2. Strings follow a structure as
zero-terminated bytes, the list ends with an empty one.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated

from hvkernel.abi.wire import Wire, tail, u8, u16, u32, u64, wire


class SmbiosType(IntEnum):
    """Structure types that the guest's DMI scan looks at.

    Source: include/linux/dmi.h:dmi_entry_type @6.1.192; SMBIOS 3.1, 7
    """

    DMI_ENTRY_BIOS = 0
    DMI_ENTRY_SYSTEM = 1
    DMI_ENTRY_BASEBOARD = 2
    DMI_ENTRY_CHASSIS = 3
    DMI_ENTRY_END_OF_TABLE = 127


@wire(size=31, source="SMBIOS 3.1, 5.2.1; drivers/firmware/dmi_scan.c:dmi_present @6.1.192")
class SmbiosEntryPoint(Wire):
    """32-bit entry point, found on a 16-byte boundary between 0xF0000 and 0xFFFFF (Generation 1)."""

    anchor: Annotated[bytes, 4]
    """``_SM_``"""
    checksum: u8
    """Over all 31 bytes."""
    length: u8
    major_version: u8
    minor_version: u8
    maximum_structure_size: u16
    entry_point_revision: u8
    formatted_area: Annotated[bytes, 5]
    intermediate_anchor: Annotated[bytes, 5]
    """``_DMI_``"""
    intermediate_checksum: u8
    """Over the 15 bytes from intermediate_anchor on."""
    structure_table_length: u16
    structure_table_address: u32
    number_of_structures: u16
    bcd_revision: u8


@wire(size=24, source="SMBIOS 3.1, 5.2.2; drivers/firmware/dmi_scan.c:dmi_smbios3_present @6.1.192")
class Smbios3EntryPoint(Wire):
    """64-bit entry point, found through the EFI configuration table (Generation 2, arm64)."""

    anchor: Annotated[bytes, 5]
    """``_SM3_``"""
    checksum: u8
    """Over all 24 bytes."""
    length: u8
    major_version: u8
    minor_version: u8
    docrev: u8
    entry_point_revision: u8
    reserved: u8
    structure_table_maximum_size: u32
    structure_table_address: u64


@wire(size=4, source="include/linux/dmi.h:81 @6.1.192")
class DmiHeader(Wire):
    """In front of every structure."""

    __kernel__ = "dmi_header"

    type: u8
    length: u8
    """Without the strings."""
    handle: u16
    data = tail(u8)
