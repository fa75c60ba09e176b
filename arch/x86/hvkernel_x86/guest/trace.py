"""``arch/x86/include/asm/trace/hyperv.h``: the tracepoints of arch/x86/hyperv."""

from __future__ import annotations

from typing import Final

from hvkernel.api.guest.tracing import TraceEvent, trace_event

__all__ = ["HYPERV_TRACE"]

TRACE_SYSTEM: Final = "hyperv"

HYPERV_TRACE: Final[tuple[TraceEvent, ...]] = tuple(
    trace_event(TRACE_SYSTEM, name, fields, line, source)
    for name, fields, line, source in (
        (
            "hyperv_mmu_flush_tlb_multi",
            "unsigned int ncpus; struct mm_struct * mm; unsigned long addr; unsigned long end",
            "ncpus {ncpus:d} mm {mm:p} addr {addr:lx}, end {end:lx}",
            "arch/x86/hyperv/mmu.c:hyperv_flush_tlb_multi",
        ),
        (
            "hyperv_nested_flush_guest_mapping",
            "u64 as; int ret",
            "address space {as:llx} ret {ret:d}",
            "arch/x86/hyperv/nested.c:hyperv_flush_guest_mapping",
        ),
        (
            "hyperv_nested_flush_guest_mapping_range",
            "u64 as; int ret",
            "address space {as:llx} ret {ret:d}",
            "arch/x86/hyperv/nested.c:hyperv_flush_guest_mapping_range",
        ),
        (
            "hyperv_send_ipi_mask",
            "unsigned int ncpus; int vector",
            "ncpus {ncpus:d} vector {vector:x}",
            "arch/x86/hyperv/hv_apic.c:__send_ipi_mask",
        ),
        (
            "hyperv_send_ipi_one",
            "int cpu; int vector",
            "cpu {cpu:d} vector {vector:x}",
            "arch/x86/hyperv/hv_apic.c:__send_ipi_one",
        ),
    )
)
"""One row per tracepoint, in the header's order; the last column says where 6.1 passes it."""

(
    HYPERV_MMU_FLUSH_TLB_MULTI,
    HYPERV_NESTED_FLUSH_GUEST_MAPPING,
    HYPERV_NESTED_FLUSH_GUEST_MAPPING_RANGE,
    HYPERV_SEND_IPI_MASK,
    HYPERV_SEND_IPI_ONE,
) = HYPERV_TRACE
