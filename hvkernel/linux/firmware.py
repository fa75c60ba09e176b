"""dmi.h, efi.h: what the firmware left, beside ACPI."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hvkernel.machine import Accessor, FirmwareTables


class Dmi:
    """The strings of SMBIOS that the kernel prints. Empty where a table has none."""

    __slots__ = ("bios_date", "bios_version", "board_name", "product_name", "sys_vendor")

    def __init__(self) -> None:
        self.sys_vendor = ""
        self.product_name = ""
        self.board_name = ""
        self.bios_version = ""
        self.bios_date = ""

    def line(self) -> str:
        """``vendor product/board, BIOS version date``. Source: drivers/firmware/dmi_scan.c:dmi_format_ids."""
        text = f"{self.sys_vendor} {self.product_name}".strip()
        if self.board_name:
            text += f"/{self.board_name}"
        return f"{text}, BIOS {self.bios_version} {self.bios_date}"


class Firmware:
    """``kernel.firmware``."""

    def __init__(self, tables: FirmwareTables) -> None:
        self.tables = tables
        self.efi = tables.efi
        self.dmi: Dmi | None = None

    def dmi_setup(self, memory: Accessor) -> Dmi | None:
        """Read the SMBIOS tables; None when there are none or they are damaged (the kernel goes on without).

        Source: drivers/firmware/dmi_scan.c:dmi_smbios3_present, dmi_present, dmi_table.
        """
        at = self.tables.smbios
        if not at:
            return None
        head = memory.read(at, 32)
        if head[:5] == b"_SM3_":
            length = head[6]
            if not 24 <= length <= 32 or sum(head[:length]) & 0xFF:
                return None
            size = int.from_bytes(head[12:16], "little")
            base = int.from_bytes(head[16:24], "little")
        elif head[:4] == b"_SM_":
            if head[16:21] != b"_DMI_" or sum(head[16:31]) & 0xFF:
                return None
            size = int.from_bytes(head[22:24], "little")
            base = int.from_bytes(head[24:28], "little")
        else:
            return None
        if not 0 < size <= 1 << 20:
            return None
        self.dmi = self._decode(memory.read(base, size))
        return self.dmi

    @staticmethod
    def _decode(data: bytes) -> Dmi:
        dmi = Dmi()
        at = 0
        while at + 4 <= len(data):
            kind, length = data[at], data[at + 1]
            if length < 4 or at + length > len(data):
                break
            end = data.find(b"\0\0", at + length)
            if end < 0:
                break
            strings = data[at + length : end].split(b"\0")
            body = data[at : at + length]

            def string(offset: int, body: bytes = body, strings: list[bytes] = strings) -> str:
                index = body[offset] if offset < len(body) else 0
                return strings[index - 1].decode("latin-1").strip() if 0 < index <= len(strings) else ""

            if kind == 0:
                dmi.bios_version, dmi.bios_date = string(5), string(8)
            elif kind == 1:
                dmi.sys_vendor, dmi.product_name = string(4), string(5)
            elif kind == 2:
                dmi.board_name = string(5)
            elif kind == 127:
                break
            at = end + 2
        return dmi
