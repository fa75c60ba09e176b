"""``arch/x86/hyperv/nested.c``: a guest that is a hypervisor itself asks Hyper-V to drop its guests' mappings."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from hvkernel.abi.tlfs import (
    HV_MAX_FLUSH_PAGES,
    HV_MAX_FLUSH_REP_COUNT,
    HVCALL_FLUSH_GUEST_PHYSICAL_ADDRESS_LIST,
    HVCALL_FLUSH_GUEST_PHYSICAL_ADDRESS_SPACE,
)
from hvkernel.api.guest.errno import ENOSPC, ENOTSUPP
from hvkernel.api.guest.mshyperv import hv_result, hv_result_success
from hvkernel_x86.guest.hypercall import hv_do_hypercall, rep_hypercall
from hvkernel_x86.guest.trace import HYPERV_NESTED_FLUSH_GUEST_MAPPING, HYPERV_NESTED_FLUSH_GUEST_MAPPING_RANGE

if TYPE_CHECKING:
    from hvkernel_x86.guest.state import X86State


def hyperv_fill_flush_guest_mapping_list(start_gfn: int, pages: int) -> list[int] | int:
    """Describe a range of guest page frames, 2,048 to an entry; -ENOSPC when 510 entries are not enough."""
    entries: list[int] = []
    cur = start_gfn
    while True:
        if len(entries) >= HV_MAX_FLUSH_REP_COUNT:
            return -ENOSPC
        # pages is unsigned: 0 would be a range of 2048 here, and no caller passes it
        additional = min(pages, HV_MAX_FLUSH_PAGES) - 1
        entries.append(cur << 12 & 0xFFFF_FFFF_FFFF_FFFF | additional & 0x7FF)
        pages -= additional + 1
        cur += additional + 1
        if pages <= 0:
            return entries


def hyperv_flush_guest_mapping(a: X86State, address_space: int) -> int:
    """Drop all mappings of a nested guest's address space; 0 or -ENOTSUPP."""
    ret = _flush_guest_mapping(a, address_space)
    if a.kernel.tracing.enabled:
        a.kernel.tracing.event(HYPERV_NESTED_FLUSH_GUEST_MAPPING, address_space, ret)
    return ret


def _flush_guest_mapping(a: X86State, address_space: int) -> int:
    page = _page(a)
    if page is None:
        return -ENOTSUPP
    irq = a.kernel.irq
    flags = irq.local_irq_save()
    a.kernel.mm.memory.write(page, struct.pack("<QQ", address_space, 0))
    status = hv_do_hypercall(a, HVCALL_FLUSH_GUEST_PHYSICAL_ADDRESS_SPACE, page, None)
    irq.local_irq_restore(flags)
    return 0 if hv_result_success(status) else -ENOTSUPP


def hyperv_flush_guest_mapping_range(a: X86State, address_space: int, fill: Callable[[], list[int] | int]) -> int:
    """Drop part of the mappings; 0, -ENOTSUPP, or the HV_STATUS of the hypercall.

    :param fill: returns the entries, or a negative errno for "too many, drop them all instead".
    """
    ret = _flush_guest_mapping_range(a, address_space, fill)
    if a.kernel.tracing.enabled:
        a.kernel.tracing.event(HYPERV_NESTED_FLUSH_GUEST_MAPPING_RANGE, address_space, ret)
    return ret


def _flush_guest_mapping_range(a: X86State, address_space: int, fill: Callable[[], list[int] | int]) -> int:
    page = _page(a)
    if page is None:
        return -ENOTSUPP
    entries = fill()
    if isinstance(entries, int):
        return -ENOTSUPP
    irq = a.kernel.irq
    flags = irq.local_irq_save()
    a.kernel.mm.memory.write(page, struct.pack(f"<QQ{len(entries)}Q", address_space, 0, *entries))
    status = rep_hypercall(a, HVCALL_FLUSH_GUEST_PHYSICAL_ADDRESS_LIST, len(entries), 0, page)
    irq.local_irq_restore(flags)
    return hv_result(status)


def _page(a: X86State) -> int | None:
    if a.hv_hypercall_pg is None:
        return None
    return a.hv_common.hyperv_pcpu_input_arg(a.kernel.cpus.smp_processor_id())
