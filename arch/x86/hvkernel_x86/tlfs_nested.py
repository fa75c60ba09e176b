"""Nested virtualisation on x86: enlightened VMCS and VMCB, partition assist page."""

from __future__ import annotations

from typing import Annotated, Final

from hvkernel.abi.wire import Bits, Wire, u16, u32, u64, wire
from hvkernel_x86.tlfs_structs import HvEnlightenmentsControl

ABI_ARCH: Final = "x86_64"
"""The architecture that ``hvkernel abi`` shows this module for."""

HV_VMX_ENLIGHTENED_CLEAN_FIELD_NONE: Final = 0
"""Clean fields: nothing is clean. (arch/x86/include/asm/hyperv-tlfs.h:581 @6.1.192)"""
HV_VMX_ENLIGHTENED_CLEAN_FIELD_IO_BITMAP: Final = 1 << 0
"""Clean fields: the group IO_BITMAP is unchanged. (arch/x86/include/asm/hyperv-tlfs.h:582 @6.1.192)"""
HV_VMX_ENLIGHTENED_CLEAN_FIELD_MSR_BITMAP: Final = 1 << 1
"""Clean fields: the group MSR_BITMAP is unchanged. (arch/x86/include/asm/hyperv-tlfs.h:583 @6.1.192)"""
HV_VMX_ENLIGHTENED_CLEAN_FIELD_CONTROL_GRP2: Final = 1 << 2
"""Clean fields: the group CONTROL_GRP2 is unchanged. (arch/x86/include/asm/hyperv-tlfs.h:584 @6.1.192)"""
HV_VMX_ENLIGHTENED_CLEAN_FIELD_CONTROL_GRP1: Final = 1 << 3
"""Clean fields: the group CONTROL_GRP1 is unchanged. (arch/x86/include/asm/hyperv-tlfs.h:585 @6.1.192)"""
HV_VMX_ENLIGHTENED_CLEAN_FIELD_CONTROL_PROC: Final = 1 << 4
"""Clean fields: the group CONTROL_PROC is unchanged. (arch/x86/include/asm/hyperv-tlfs.h:586 @6.1.192)"""
HV_VMX_ENLIGHTENED_CLEAN_FIELD_CONTROL_EVENT: Final = 1 << 5
"""Clean fields: the group CONTROL_EVENT is unchanged. (arch/x86/include/asm/hyperv-tlfs.h:587 @6.1.192)"""
HV_VMX_ENLIGHTENED_CLEAN_FIELD_CONTROL_ENTRY: Final = 1 << 6
"""Clean fields: the group CONTROL_ENTRY is unchanged. (arch/x86/include/asm/hyperv-tlfs.h:588 @6.1.192)"""
HV_VMX_ENLIGHTENED_CLEAN_FIELD_CONTROL_EXCPN: Final = 1 << 7
"""Clean fields: the group CONTROL_EXCPN is unchanged. (arch/x86/include/asm/hyperv-tlfs.h:589 @6.1.192)"""
HV_VMX_ENLIGHTENED_CLEAN_FIELD_CRDR: Final = 1 << 8
"""Clean fields: the group CRDR is unchanged. (arch/x86/include/asm/hyperv-tlfs.h:590 @6.1.192)"""
HV_VMX_ENLIGHTENED_CLEAN_FIELD_CONTROL_XLAT: Final = 1 << 9
"""Clean fields: the group CONTROL_XLAT is unchanged. (arch/x86/include/asm/hyperv-tlfs.h:591 @6.1.192)"""
HV_VMX_ENLIGHTENED_CLEAN_FIELD_GUEST_BASIC: Final = 1 << 10
"""Clean fields: the group GUEST_BASIC is unchanged. (arch/x86/include/asm/hyperv-tlfs.h:592 @6.1.192)"""
HV_VMX_ENLIGHTENED_CLEAN_FIELD_GUEST_GRP1: Final = 1 << 11
"""Clean fields: the group GUEST_GRP1 is unchanged. (arch/x86/include/asm/hyperv-tlfs.h:593 @6.1.192)"""
HV_VMX_ENLIGHTENED_CLEAN_FIELD_GUEST_GRP2: Final = 1 << 12
"""Clean fields: the group GUEST_GRP2 is unchanged. (arch/x86/include/asm/hyperv-tlfs.h:594 @6.1.192)"""
HV_VMX_ENLIGHTENED_CLEAN_FIELD_HOST_POINTER: Final = 1 << 13
"""Clean fields: the group HOST_POINTER is unchanged. (arch/x86/include/asm/hyperv-tlfs.h:595 @6.1.192)"""
HV_VMX_ENLIGHTENED_CLEAN_FIELD_HOST_GRP1: Final = 1 << 14
"""Clean fields: the group HOST_GRP1 is unchanged. (arch/x86/include/asm/hyperv-tlfs.h:596 @6.1.192)"""
HV_VMX_ENLIGHTENED_CLEAN_FIELD_ENLIGHTENMENTSCONTROL: Final = 1 << 15
"""Clean fields: the group ENLIGHTENMENTSCONTROL is unchanged. (arch/x86/include/asm/hyperv-tlfs.h:597 @6.1.192)"""
HV_VMX_ENLIGHTENED_CLEAN_FIELD_ALL: Final = 0xFFFF
"""Clean fields: everything is clean. (arch/x86/include/asm/hyperv-tlfs.h:599 @6.1.192)"""
HV_VMCB_NESTED_ENLIGHTENMENTS: Final = 31
"""Clean bit of the VMCB that covers the enlightenments. (arch/x86/include/asm/hyperv-tlfs.h:621 @6.1.192)"""


@wire(size=4, source="arch/x86/include/asm/hyperv-tlfs.h:623 @6.1.192", packed=False)
class HvPartitionAssistPg(Wire):
    """The partition assist page of nested virtualisation."""

    __kernel__ = "hv_partition_assist_pg"

    tlb_lock_count: u32


@wire(size=4, source="arch/x86/include/asm/hyperv-tlfs.h:384 @6.1.192")
class HvEnlightenedVmcsHvEnlightenmentsControl(Wire):
    """Synthetic controls of a nested Intel guest."""

    nested_flush_hypercall: Annotated[int, Bits(u32, 1)]
    msr_bitmap: Annotated[int, Bits(u32, 1)]
    reserved: Annotated[int, Bits(u32, 30)]


@wire(size=1024, source="arch/x86/include/asm/hyperv-tlfs.h:384 @6.1.192")
class HvEnlightenedVmcs(Wire):
    """The enlightened VMCS (HV_VMX_ENLIGHTENED_VMCS), version 1."""

    __kernel__ = "hv_enlightened_vmcs"

    revision_id: u32
    abort: u32
    host_es_selector: u16
    host_cs_selector: u16
    host_ss_selector: u16
    host_ds_selector: u16
    host_fs_selector: u16
    host_gs_selector: u16
    host_tr_selector: u16
    padding16_1: u16
    host_ia32_pat: u64
    host_ia32_efer: u64
    host_cr0: u64
    host_cr3: u64
    host_cr4: u64
    host_ia32_sysenter_esp: u64
    host_ia32_sysenter_eip: u64
    host_rip: u64
    host_ia32_sysenter_cs: u32
    pin_based_vm_exec_control: u32
    vm_exit_controls: u32
    secondary_vm_exec_control: u32
    io_bitmap_a: u64
    io_bitmap_b: u64
    msr_bitmap: u64
    guest_es_selector: u16
    guest_cs_selector: u16
    guest_ss_selector: u16
    guest_ds_selector: u16
    guest_fs_selector: u16
    guest_gs_selector: u16
    guest_ldtr_selector: u16
    guest_tr_selector: u16
    guest_es_limit: u32
    guest_cs_limit: u32
    guest_ss_limit: u32
    guest_ds_limit: u32
    guest_fs_limit: u32
    guest_gs_limit: u32
    guest_ldtr_limit: u32
    guest_tr_limit: u32
    guest_gdtr_limit: u32
    guest_idtr_limit: u32
    guest_es_ar_bytes: u32
    guest_cs_ar_bytes: u32
    guest_ss_ar_bytes: u32
    guest_ds_ar_bytes: u32
    guest_fs_ar_bytes: u32
    guest_gs_ar_bytes: u32
    guest_ldtr_ar_bytes: u32
    guest_tr_ar_bytes: u32
    guest_es_base: u64
    guest_cs_base: u64
    guest_ss_base: u64
    guest_ds_base: u64
    guest_fs_base: u64
    guest_gs_base: u64
    guest_ldtr_base: u64
    guest_tr_base: u64
    guest_gdtr_base: u64
    guest_idtr_base: u64
    padding64_1: Annotated[tuple[int, ...], u64, 3]
    vm_exit_msr_store_addr: u64
    vm_exit_msr_load_addr: u64
    vm_entry_msr_load_addr: u64
    cr3_target_value0: u64
    cr3_target_value1: u64
    cr3_target_value2: u64
    cr3_target_value3: u64
    page_fault_error_code_mask: u32
    page_fault_error_code_match: u32
    cr3_target_count: u32
    vm_exit_msr_store_count: u32
    vm_exit_msr_load_count: u32
    vm_entry_msr_load_count: u32
    tsc_offset: u64
    virtual_apic_page_addr: u64
    vmcs_link_pointer: u64
    guest_ia32_debugctl: u64
    guest_ia32_pat: u64
    guest_ia32_efer: u64
    guest_pdptr0: u64
    guest_pdptr1: u64
    guest_pdptr2: u64
    guest_pdptr3: u64
    guest_pending_dbg_exceptions: u64
    guest_sysenter_esp: u64
    guest_sysenter_eip: u64
    guest_activity_state: u32
    guest_sysenter_cs: u32
    cr0_guest_host_mask: u64
    cr4_guest_host_mask: u64
    cr0_read_shadow: u64
    cr4_read_shadow: u64
    guest_cr0: u64
    guest_cr3: u64
    guest_cr4: u64
    guest_dr7: u64
    host_fs_base: u64
    host_gs_base: u64
    host_tr_base: u64
    host_gdtr_base: u64
    host_idtr_base: u64
    host_rsp: u64
    ept_pointer: u64
    virtual_processor_id: u16
    padding16_2: Annotated[tuple[int, ...], u16, 3]
    padding64_2: Annotated[tuple[int, ...], u64, 5]
    guest_physical_address: u64
    vm_instruction_error: u32
    vm_exit_reason: u32
    vm_exit_intr_info: u32
    vm_exit_intr_error_code: u32
    idt_vectoring_info_field: u32
    idt_vectoring_error_code: u32
    vm_exit_instruction_len: u32
    vmx_instruction_info: u32
    exit_qualification: u64
    exit_io_instruction_ecx: u64
    exit_io_instruction_esi: u64
    exit_io_instruction_edi: u64
    exit_io_instruction_eip: u64
    guest_linear_address: u64
    guest_rsp: u64
    guest_rflags: u64
    guest_interruptibility_info: u32
    cpu_based_vm_exec_control: u32
    exception_bitmap: u32
    vm_entry_controls: u32
    vm_entry_intr_info_field: u32
    vm_entry_exception_error_code: u32
    vm_entry_instruction_len: u32
    tpr_threshold: u32
    guest_rip: u64
    hv_clean_fields: u32
    padding32_1: u32
    hv_synthetic_controls: u32
    hv_enlightenments_control: HvEnlightenedVmcsHvEnlightenmentsControl
    hv_vp_id: u32
    padding32_2: u32
    hv_vm_id: u64
    partition_assist_page: u64
    padding64_4: Annotated[tuple[int, ...], u64, 4]
    guest_bndcfgs: u64
    guest_ia32_perf_global_ctrl: u64
    guest_ia32_s_cet: u64
    guest_ssp: u64
    guest_ia32_int_ssp_table_addr: u64
    guest_ia32_lbr_ctl: u64
    padding64_5: Annotated[tuple[int, ...], u64, 2]
    xss_exit_bitmap: u64
    encls_exiting_bitmap: u64
    host_ia32_perf_global_ctrl: u64
    tsc_multiplier: u64
    host_ia32_s_cet: u64
    host_ssp: u64
    host_ia32_int_ssp_table_addr: u64
    padding64_6: u64


@wire(size=32, source="arch/x86/include/asm/hyperv-tlfs.h:605 @6.1.192")
class HvVmcbEnlightenments(Wire):
    """What Hyper-V puts in the 32 software-reserved bytes of an AMD VMCB."""

    __kernel__ = "hv_vmcb_enlightenments"

    hv_enlightenments_control: HvEnlightenmentsControl
    hv_vp_id: u32
    hv_vm_id: u64
    partition_assist_page: u64
    reserved: u64
