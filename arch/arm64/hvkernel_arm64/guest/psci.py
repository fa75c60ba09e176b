"""``drivers/firmware/psci``: starting processors through the firmware interface, whose conduit is HVC."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hvkernel_arm64.guest.state import Arm64State

PSCI_VERSION: Final = 0x8400_0000
PSCI_MIGRATE_INFO_TYPE: Final = 0x8400_0006
PSCI_FEATURES: Final = 0x8400_000A
PSCI_CPU_ON: Final = 0xC400_0003
SMCCC_VERSION: Final = 0x8000_0000
MASK64: Final = (1 << 64) - 1
FADT_ARM_BOOT_FLAGS: Final = 129
"""Offset of the Arm boot flags in the FADT: bit 0 PSCI, bit 1 by HVC (include/acpi/actbl.h)."""
ENTRY: Final = 0
"""Entry address of a started processor. *unspecified*: the machine runs the kernel's function itself."""
ERRORS: Final = ((MASK64 - 1, -22), (MASK64 - 3, -16), (MASK64, -95))
"""INVALID_PARAMETERS, ALREADY_ON, NOT_SUPPORTED as errno (drivers/firmware/psci/psci.c:psci_to_linux_errno)."""


def psci_acpi_init(a: Arm64State) -> None:
    """Find the conduit and say which version there is."""
    kernel = a.kernel
    pr_info = kernel.printk.pr_info
    fadt = kernel.acpi.get_table("FACP") if kernel.acpi.available else None
    flags = int.from_bytes((fadt or b"")[FADT_ARM_BOOT_FLAGS : FADT_ARM_BOOT_FLAGS + 2], "little")
    if not flags & 1:
        pr_info("psci: is not implemented in ACPI.")
        return
    pr_info("psci: probing for conduit method from ACPI.")
    a.psci_conduit = True
    version = a.hvc(PSCI_VERSION)[0]
    pr_info(f"psci: PSCIv{version >> 16 & 0xFFFF}.{version & 0xFFFF} detected in firmware.")
    pr_info("psci: Using standard PSCI v0.2 function IDs")
    if a.hvc(PSCI_MIGRATE_INFO_TYPE)[0] == MASK64:
        pr_info("psci: MIGRATE_INFO_TYPE not supported.")
    smccc = a.hvc(SMCCC_VERSION)[0] if a.hvc(PSCI_FEATURES, SMCCC_VERSION)[0] == 0 else 0x1_0000
    pr_info(f"psci: SMC Calling Convention v{smccc >> 16 & 0x7FFF}.{smccc & 0xFFFF}")


def cpu_psci_cpu_boot(a: Arm64State, mpidr: int) -> int:
    """Start a processor; 0 or a negative errno."""
    status = a.hvc(PSCI_CPU_ON, mpidr, ENTRY, 0)[0]
    return dict(ERRORS).get(status, 0)
