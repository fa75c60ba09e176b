"""What ``include/asm-generic/mshyperv.h`` gives to every architecture: the feature record and the hypercall helpers.

All of it is free of state: the record is a value, the helpers are arithmetic on control words and VP sets. The part of
that header that has storage (``hv_vp_index`` and the per-CPU pages) is :class:`hvkernel.api.guest.hyperv.HvCommon`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from hvkernel.abi.tlfs_features import HV_LINUX_VENDOR_ID
from hvkernel.abi.tlfs_hypercall import (
    HV_HYPERCALL_FAST_BIT,
    HV_HYPERCALL_REP_COMP_MASK,
    HV_HYPERCALL_REP_COMP_OFFSET,
    HV_HYPERCALL_REP_START_MASK,
    HV_HYPERCALL_REP_START_OFFSET,
    HV_HYPERCALL_RESULT_MASK,
    HV_HYPERCALL_VARHEAD_OFFSET,
    VP_INVAL,
)

__all__ = [
    "HV_HYPERCALL_FAST_BIT",
    "U64_MAX",
    "VP_INVAL",
    "MsHypervInfo",
    "SparseVpSet",
    "cpumask_to_vpset",
    "host_build_line",
    "hv_do_rep_hypercall",
    "hv_generate_guest_id",
    "hv_repcomp",
    "hv_result",
    "hv_result_success",
]

U64_MAX: Final = 0xFFFF_FFFF_FFFF_FFFF
"""Largest 64-bit value; what a hypercall returns on x86 when there is no hypercall page."""

BANK: Final = 64


@dataclass(slots=True)
class MsHypervInfo:
    """``struct ms_hyperv_info``: what the guest learnt about the hypervisor in early boot; all zero without one."""

    features: int = 0
    """Partition privileges, low word (CPUID 0x40000003 EAX or HvRegisterPrivilegesAndFeaturesInfo)."""
    priv_high: int = 0
    """Partition privileges, high word."""
    misc_features: int = 0
    """Features that are not privileges."""
    hints: int = 0
    """Enlightenments that the hypervisor recommends."""
    nested_features: int = 0
    max_vp_index: int = 0
    max_lp_index: int = 0
    isolation_config_a: int = 0
    isolation_config_b: int = 0
    shared_gpa_boundary: int = 0
    """Zero without isolation, so it may always be or-ed into an address."""


def hv_result(status: int) -> int:
    """Return the HV_STATUS of a hypercall's 64-bit result."""
    return status & HV_HYPERCALL_RESULT_MASK


def hv_result_success(status: int) -> bool:
    """Say whether a hypercall's 64-bit result means success."""
    return status & HV_HYPERCALL_RESULT_MASK == 0


def hv_repcomp(status: int) -> int:
    """Return the reps completed, bits 43:32 of a hypercall's result."""
    return (status & HV_HYPERCALL_REP_COMP_MASK) >> HV_HYPERCALL_REP_COMP_OFFSET


def hv_do_rep_hypercall(
    hv_do_hypercall: Callable[[int, int | None, int | None], int],
    code: int,
    rep_count: int,
    varhead_size: int,
    input_gpa: int | None,
    output_gpa: int | None = None,
) -> int:
    """Repeat a rep hypercall until all its elements are done or it fails.

    :param hv_do_hypercall: the architecture's primitive.
    :param varhead_size: variable header, in 8-byte units.
    :return: the last 64-bit result. With ``rep_count`` 0 exactly one call is made.

    The start index of the next call is the *absolute* number of reps completed
    (include/asm-generic/mshyperv.h:hv_do_rep_hypercall).
    """
    control = code | varhead_size << HV_HYPERCALL_VARHEAD_OFFSET | rep_count << HV_HYPERCALL_REP_COMP_OFFSET
    while True:
        status = hv_do_hypercall(control, input_gpa, output_gpa)
        if status & HV_HYPERCALL_RESULT_MASK:
            return status
        done = hv_repcomp(status)
        if done >= rep_count:
            return status
        control = control & ~HV_HYPERCALL_REP_START_MASK | done << HV_HYPERCALL_REP_START_OFFSET


def hv_generate_guest_id(kernel_version: int) -> int:
    """Return the guest OS id for a ``LINUX_VERSION_CODE``: open-source bit, Linux, version in bits 47:16."""
    return (HV_LINUX_VENDOR_ID << 48 | kernel_version << 16) & U64_MAX


def host_build_line(words: tuple[int, int, int, int]) -> str:
    """Format the host's version words as the kernel prints them."""
    build, version, pack, service = words
    return f"Hyper-V: Host Build {version >> 16}.{version & 0xFFFF}.{build}.{service & 0xFFFFFF}-{pack}-{service >> 24}"


@dataclass(slots=True)
class SparseVpSet:
    """The sparse 4K form of ``struct hv_vpset`` as the guest builds it."""

    nr_bank: int
    """What ``cpumask_to_vpset`` returned: banks used, 0 or -1 when the set cannot be expressed."""
    valid_bank_mask: int
    """One bit per bank that follows; dense from bank 0. Meaningless unless ``nr_bank`` is positive."""
    bank_contents: list[int]
    """Every bank that was written, up to ``hv_max_vp_index / 64``, counted or not."""


def cpumask_to_vpset(
    cpus: Iterable[int], hv_vp_index: Sequence[int], hv_max_vp_index: int, exclude: int | None = None
) -> SparseVpSet:
    """Translate CPU numbers into a sparse VP set.

    :param exclude: the calling CPU, for ``cpumask_to_vpset_noself``.

    Empty banks below the highest used one are sent too; an empty mask is one bank of zero. A CPU without a VP index
    gives -1, more than 64 banks give 0 (include/asm-generic/mshyperv.h:__cpumask_to_vpset).
    """
    if hv_max_vp_index // BANK >= BANK:
        return SparseVpSet(0, 0, [])
    banks = [0] * (hv_max_vp_index // BANK + 1)
    nr_bank = 1
    for cpu in cpus:
        if cpu == exclude:
            continue
        vcpu = hv_vp_index[cpu]
        if vcpu == VP_INVAL:
            return SparseVpSet(-1, 0, banks)
        bank = vcpu // BANK
        banks[bank] |= 1 << vcpu % BANK
        nr_bank = max(nr_bank, bank + 1)
    return SparseVpSet(nr_bank, (1 << nr_bank) - 1, banks)
