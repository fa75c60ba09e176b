"""What the firmware leaves for the kernel: plain numbers and bytes, set by the host before the guest starts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FirmwareTables:
    """The hand-over from firmware to kernel. Only integers and bytes: no object of the host reaches the guest.

    The tables themselves lie in guest memory; this says where.
    """

    memory_map: tuple[tuple[int, int, int], ...] = ()
    """(start, size, type) in bytes, ascending; type as in E820 (1 RAM, 2 reserved, 3 ACPI data, 4 ACPI NVS).
    Source: arch/x86/include/uapi/asm/bootparam.h and include/asm/e820/types.h."""
    rsdp: int = 0
    """Address of the ACPI root pointer, 0 if there is none."""
    smbios: int = 0
    """Address of the SMBIOS entry point, 0 if there is none."""
    efi: bool = False
    """True if the kernel is started by UEFI."""
    framebuffer: tuple[int, int] = (0, 0)
    """(base, size) in bytes of the firmware's framebuffer, (0, 0) if there is none."""
    command_line: bytes = b""
    """The kernel command line, without a terminating zero."""
    counter_hz: int = 0
    """Frequency of the processors' own counter in Hz, where firmware tells it (CNTFRQ_EL0 on arm64); 0 if unknown."""
