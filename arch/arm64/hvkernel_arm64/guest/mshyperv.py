"""``arch/arm64/hyperv/mshyperv.c``: finding Hyper-V by the FADT, early, and reading what it says of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hvkernel.api.guest.mshyperv import host_build_line, hv_generate_guest_id
from hvkernel.api.guest.smp import CpuhpState
from hvkernel_arm64 import tlfs
from hvkernel_arm64.guest import hv_core

if TYPE_CHECKING:
    from hvkernel_arm64.guest.state import Arm64State

FADT_HYPERVISOR_ID: Final = 268
"""Offset of the hypervisor vendor identity in the FADT (include/acpi/actbl.h:acpi_table_fadt)."""
MASK32: Final = 0xFFFF_FFFF


def version_code(version: str) -> int:
    """Return LINUX_VERSION_CODE of a release name such as ``6.1.192-cloud``; a sublevel above 255 counts as 255."""
    parts = [int("".join(c for c in part if c.isdigit()) or 0) for part in version.split("-")[0].split(".")]
    major, minor, sub = [*parts, 0, 0][:3]
    return major << 16 | minor << 8 | min(sub, 255)


def hv_get_hypervisor_version(a: Arm64State) -> tuple[int, int, int, int]:
    """Return the four version words."""
    low, high = hv_core.hv_get_vpreg_128(a, tlfs.HV_REGISTER_HYPERVISOR_VERSION)
    return low & MASK32, low >> 32, high & MASK32, high >> 32


def hyperv_init(a: Arm64State) -> int:
    """early_initcall: nothing without ACPI or away from Hyper-V; else identify, print the feature words, go on.

    :return: 0, or a negative errno.
    """
    kernel = a.kernel
    if not kernel.acpi.available:
        return 0
    fadt = kernel.acpi.get_table("FACP") or b""
    if fadt[FADT_HYPERVISOR_ID : FADT_HYPERVISOR_ID + 8] != b"MsHyperV":
        return 0
    hv_core.hv_set_vpreg(a, tlfs.HV_REGISTER_GUEST_OSID, hv_generate_guest_id(version_code(kernel.release.version)))
    info = a.ms_hyperv
    low, high = hv_core.hv_get_vpreg_128(a, tlfs.HV_REGISTER_FEATURES)
    info.features, info.priv_high, info.misc_features = low & MASK32, low >> 32, high & MASK32
    info.hints = hv_core.hv_get_vpreg_128(a, tlfs.HV_REGISTER_ENLIGHTENMENTS)[0] & MASK32
    kernel.printk.pr_info(
        f"Hyper-V: privilege flags low 0x{info.features:x}, high 0x{info.priv_high:x}, "
        f"hints 0x{info.hints:x}, misc 0x{info.misc_features:x}"
    )
    if not kernel.release.has("hv_common_prints_build"):
        kernel.printk.pr_info(host_build_line(hv_get_hypervisor_version(a)))
    common = a.hv_common
    ret = common.hv_common_init()
    if ret:
        return ret
    ret = kernel.cpuhp.cpuhp_setup_state(
        CpuhpState.CPUHP_AP_ONLINE_DYN, "arm64/hyperv_init:online", common.hv_common_cpu_init, common.hv_common_cpu_die
    )
    if ret < 0:
        common.hv_common_free()
        return ret
    a.hyperv_initialized = True
    return 0
