"""X86DOC"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Final

from hvkernel.abi.tlfs_device import HvDeviceInterruptDescriptor, HvDeviceInterruptTarget, HvIoapicRte
from hvkernel.abi.wire import Bits, Union, Wire, overlay, u8, u16, u32, u64, union, wire

HYPERV_CPUID_VENDOR_AND_MAX_FUNCTIONS: Final = 0x4000_0000
"""HYPERV_CPUID_VENDOR_AND_MAX_FUNCTIONS. (arch/x86/include/asm/hyperv-tlfs.h:18 @6.1.192)"""
HYPERV_CPUID_INTERFACE: Final = 0x4000_0001
"""HYPERV_CPUID_INTERFACE. (arch/x86/include/asm/hyperv-tlfs.h:19 @6.1.192)"""
HYPERV_CPUID_VERSION: Final = 0x4000_0002
"""HYPERV_CPUID_VERSION. (arch/x86/include/asm/hyperv-tlfs.h:20 @6.1.192)"""
HYPERV_CPUID_FEATURES: Final = 0x4000_0003
"""HYPERV_CPUID_FEATURES. (arch/x86/include/asm/hyperv-tlfs.h:21 @6.1.192)"""
HYPERV_CPUID_ENLIGHTMENT_INFO: Final = 0x4000_0004
"""HYPERV_CPUID_ENLIGHTMENT_INFO. (arch/x86/include/asm/hyperv-tlfs.h:22 @6.1.192)"""
HYPERV_CPUID_IMPLEMENT_LIMITS: Final = 0x4000_0005
"""HYPERV_CPUID_IMPLEMENT_LIMITS. (arch/x86/include/asm/hyperv-tlfs.h:23 @6.1.192)"""
HYPERV_CPUID_CPU_MANAGEMENT_FEATURES: Final = 0x4000_0007
"""HYPERV_CPUID_CPU_MANAGEMENT_FEATURES. (arch/x86/include/asm/hyperv-tlfs.h:24 @6.1.192)"""
HYPERV_CPUID_NESTED_FEATURES: Final = 0x4000_000A
"""HYPERV_CPUID_NESTED_FEATURES. (arch/x86/include/asm/hyperv-tlfs.h:25 @6.1.192)"""
HYPERV_CPUID_ISOLATION_CONFIG: Final = 0x4000_000C
"""HYPERV_CPUID_ISOLATION_CONFIG. (arch/x86/include/asm/hyperv-tlfs.h:26 @6.1.192)"""
HYPERV_CPUID_VIRT_STACK_INTERFACE: Final = 0x4000_0081
"""HYPERV_CPUID_VIRT_STACK_INTERFACE. (arch/x86/include/asm/hyperv-tlfs.h:28 @6.1.192)"""
HYPERV_VS_INTERFACE_EAX_SIGNATURE: Final = 0x3123_5356
"""HYPERV_VS_INTERFACE_EAX_SIGNATURE. (arch/x86/include/asm/hyperv-tlfs.h:29 @6.1.192)"""
HYPERV_CPUID_VIRT_STACK_PROPERTIES: Final = 0x4000_0082
"""HYPERV_CPUID_VIRT_STACK_PROPERTIES. (arch/x86/include/asm/hyperv-tlfs.h:31 @6.1.192)"""
HYPERV_VS_PROPERTIES_EAX_EXTENDED_IOAPIC_RTE: Final = 1 << 2
"""HYPERV_VS_PROPERTIES_EAX_EXTENDED_IOAPIC_RTE. (arch/x86/include/asm/hyperv-tlfs.h:33 @6.1.192)"""
HYPERV_HYPERVISOR_PRESENT_BIT: Final = 0x8000_0000
"""HYPERV_HYPERVISOR_PRESENT_BIT. (arch/x86/include/asm/hyperv-tlfs.h:35 @6.1.192)"""
HYPERV_CPUID_MIN: Final = 0x4000_0005
"""HYPERV_CPUID_MIN. (arch/x86/include/asm/hyperv-tlfs.h:36 @6.1.192)"""
HYPERV_CPUID_MAX: Final = 0x4000_FFFF
"""HYPERV_CPUID_MAX. (arch/x86/include/asm/hyperv-tlfs.h:37 @6.1.192)"""
HV_X64_MWAIT_AVAILABLE: Final = 1 << 0
"""HV_X64_MWAIT_AVAILABLE. (arch/x86/include/asm/hyperv-tlfs.h:44 @6.1.192)"""
HV_X64_GUEST_DEBUGGING_AVAILABLE: Final = 1 << 1
"""HV_X64_GUEST_DEBUGGING_AVAILABLE. (arch/x86/include/asm/hyperv-tlfs.h:46 @6.1.192)"""
HV_X64_PERF_MONITOR_AVAILABLE: Final = 1 << 2
"""HV_X64_PERF_MONITOR_AVAILABLE. (arch/x86/include/asm/hyperv-tlfs.h:48 @6.1.192)"""
HV_X64_CPU_DYNAMIC_PARTITIONING_AVAILABLE: Final = 1 << 3
"""HV_X64_CPU_DYNAMIC_PARTITIONING_AVAILABLE. (arch/x86/include/asm/hyperv-tlfs.h:50 @6.1.192)"""
HV_X64_HYPERCALL_XMM_INPUT_AVAILABLE: Final = 1 << 4
"""HV_X64_HYPERCALL_XMM_INPUT_AVAILABLE. (arch/x86/include/asm/hyperv-tlfs.h:55 @6.1.192)"""
HV_X64_GUEST_IDLE_STATE_AVAILABLE: Final = 1 << 5
"""HV_X64_GUEST_IDLE_STATE_AVAILABLE. (arch/x86/include/asm/hyperv-tlfs.h:57 @6.1.192)"""
HV_FEATURE_FREQUENCY_MSRS_AVAILABLE: Final = 1 << 8
"""HV_FEATURE_FREQUENCY_MSRS_AVAILABLE. (arch/x86/include/asm/hyperv-tlfs.h:59 @6.1.192)"""
HV_FEATURE_GUEST_CRASH_MSR_AVAILABLE: Final = 1 << 10
"""HV_FEATURE_GUEST_CRASH_MSR_AVAILABLE. (arch/x86/include/asm/hyperv-tlfs.h:61 @6.1.192)"""
HV_FEATURE_DEBUG_MSRS_AVAILABLE: Final = 1 << 11
"""HV_FEATURE_DEBUG_MSRS_AVAILABLE. (arch/x86/include/asm/hyperv-tlfs.h:63 @6.1.192)"""
HV_X64_HYPERCALL_XMM_OUTPUT_AVAILABLE: Final = 1 << 15
"""HV_X64_HYPERCALL_XMM_OUTPUT_AVAILABLE. (arch/x86/include/asm/hyperv-tlfs.h:68 @6.1.192)"""
HV_STIMER_DIRECT_MODE_AVAILABLE: Final = 1 << 19
"""HV_STIMER_DIRECT_MODE_AVAILABLE. (arch/x86/include/asm/hyperv-tlfs.h:70 @6.1.192)"""
HV_X64_AS_SWITCH_RECOMMENDED: Final = 1 << 0
"""HV_X64_AS_SWITCH_RECOMMENDED. (arch/x86/include/asm/hyperv-tlfs.h:81 @6.1.192)"""
HV_X64_LOCAL_TLB_FLUSH_RECOMMENDED: Final = 1 << 1
"""HV_X64_LOCAL_TLB_FLUSH_RECOMMENDED. (arch/x86/include/asm/hyperv-tlfs.h:84 @6.1.192)"""
HV_X64_REMOTE_TLB_FLUSH_RECOMMENDED: Final = 1 << 2
"""HV_X64_REMOTE_TLB_FLUSH_RECOMMENDED. (arch/x86/include/asm/hyperv-tlfs.h:89 @6.1.192)"""
HV_X64_APIC_ACCESS_RECOMMENDED: Final = 1 << 3
"""HV_X64_APIC_ACCESS_RECOMMENDED. (arch/x86/include/asm/hyperv-tlfs.h:94 @6.1.192)"""
HV_X64_SYSTEM_RESET_RECOMMENDED: Final = 1 << 4
"""HV_X64_SYSTEM_RESET_RECOMMENDED. (arch/x86/include/asm/hyperv-tlfs.h:96 @6.1.192)"""
HV_X64_RELAXED_TIMING_RECOMMENDED: Final = 1 << 5
"""HV_X64_RELAXED_TIMING_RECOMMENDED. (arch/x86/include/asm/hyperv-tlfs.h:102 @6.1.192)"""
HV_DEPRECATING_AEOI_RECOMMENDED: Final = 1 << 9
"""HV_DEPRECATING_AEOI_RECOMMENDED. (arch/x86/include/asm/hyperv-tlfs.h:107 @6.1.192)"""
HV_X64_CLUSTER_IPI_RECOMMENDED: Final = 1 << 10
"""HV_X64_CLUSTER_IPI_RECOMMENDED. (arch/x86/include/asm/hyperv-tlfs.h:112 @6.1.192)"""
HV_X64_EX_PROCESSOR_MASKS_RECOMMENDED: Final = 1 << 11
"""HV_X64_EX_PROCESSOR_MASKS_RECOMMENDED. (arch/x86/include/asm/hyperv-tlfs.h:115 @6.1.192)"""
HV_X64_ENLIGHTENED_VMCS_RECOMMENDED: Final = 1 << 14
"""HV_X64_ENLIGHTENED_VMCS_RECOMMENDED. (arch/x86/include/asm/hyperv-tlfs.h:118 @6.1.192)"""
HV_X64_START_LOGICAL_PROCESSOR: Final = 1 << 0
"""HV_X64_START_LOGICAL_PROCESSOR. (arch/x86/include/asm/hyperv-tlfs.h:124 @6.1.192)"""
HV_X64_CREATE_ROOT_VIRTUAL_PROCESSOR: Final = 1 << 1
"""HV_X64_CREATE_ROOT_VIRTUAL_PROCESSOR. (arch/x86/include/asm/hyperv-tlfs.h:125 @6.1.192)"""
HV_X64_PERFORMANCE_COUNTER_SYNC: Final = 1 << 2
"""HV_X64_PERFORMANCE_COUNTER_SYNC. (arch/x86/include/asm/hyperv-tlfs.h:126 @6.1.192)"""
HV_X64_RESERVED_IDENTITY_BIT: Final = 1 << 31
"""HV_X64_RESERVED_IDENTITY_BIT. (arch/x86/include/asm/hyperv-tlfs.h:127 @6.1.192)"""
HV_X64_NO_NONARCH_CORESHARING: Final = 1 << 18
"""HV_X64_NO_NONARCH_CORESHARING. (arch/x86/include/asm/hyperv-tlfs.h:134 @6.1.192)"""
HV_X64_NESTED_DIRECT_FLUSH: Final = 1 << 17
"""HV_X64_NESTED_DIRECT_FLUSH. (arch/x86/include/asm/hyperv-tlfs.h:137 @6.1.192)"""
HV_X64_NESTED_GUEST_MAPPING_FLUSH: Final = 1 << 18
"""HV_X64_NESTED_GUEST_MAPPING_FLUSH. (arch/x86/include/asm/hyperv-tlfs.h:138 @6.1.192)"""
HV_X64_NESTED_MSR_BITMAP: Final = 1 << 19
"""HV_X64_NESTED_MSR_BITMAP. (arch/x86/include/asm/hyperv-tlfs.h:139 @6.1.192)"""
HV_X64_NESTED_EVMCS1_PERF_GLOBAL_CTRL: Final = 1 << 0
"""HV_X64_NESTED_EVMCS1_PERF_GLOBAL_CTRL. (arch/x86/include/asm/hyperv-tlfs.h:142 @6.1.192)"""
HV_X64_NESTED_ENLIGHTENED_TLB: Final = 1 << 22
"""HV_X64_NESTED_ENLIGHTENED_TLB. (arch/x86/include/asm/hyperv-tlfs.h:151 @6.1.192)"""
HV_PARAVISOR_PRESENT: Final = 1 << 0
"""HV_PARAVISOR_PRESENT. (arch/x86/include/asm/hyperv-tlfs.h:154 @6.1.192)"""
HV_ISOLATION_TYPE: Final = 0xF
"""HV_ISOLATION_TYPE. (arch/x86/include/asm/hyperv-tlfs.h:157 @6.1.192)"""
HV_SHARED_GPA_BOUNDARY_ACTIVE: Final = 1 << 5
"""HV_SHARED_GPA_BOUNDARY_ACTIVE. (arch/x86/include/asm/hyperv-tlfs.h:158 @6.1.192)"""
HV_SHARED_GPA_BOUNDARY_BITS: Final = 0xFC0
"""HV_SHARED_GPA_BOUNDARY_BITS. (arch/x86/include/asm/hyperv-tlfs.h:159 @6.1.192)"""
HV_X64_MSR_GUEST_OS_ID: Final = 0x4000_0000
"""HV_X64_MSR_GUEST_OS_ID. (arch/x86/include/asm/hyperv-tlfs.h:170 @6.1.192)"""
HV_X64_MSR_HYPERCALL: Final = 0x4000_0001
"""HV_X64_MSR_HYPERCALL. (arch/x86/include/asm/hyperv-tlfs.h:173 @6.1.192)"""
HV_REGISTER_VP_INDEX: Final = 0x4000_0002
"""HV_REGISTER_VP_INDEX. (arch/x86/include/asm/hyperv-tlfs.h:176 @6.1.192)"""
HV_X64_MSR_RESET: Final = 0x4000_0003
"""HV_X64_MSR_RESET. (arch/x86/include/asm/hyperv-tlfs.h:179 @6.1.192)"""
HV_X64_MSR_VP_RUNTIME: Final = 0x4000_0010
"""HV_X64_MSR_VP_RUNTIME. (arch/x86/include/asm/hyperv-tlfs.h:182 @6.1.192)"""
HV_REGISTER_TIME_REF_COUNT: Final = 0x4000_0020
"""HV_REGISTER_TIME_REF_COUNT. (arch/x86/include/asm/hyperv-tlfs.h:185 @6.1.192)"""
HV_REGISTER_REFERENCE_TSC: Final = 0x4000_0021
"""HV_REGISTER_REFERENCE_TSC. (arch/x86/include/asm/hyperv-tlfs.h:188 @6.1.192)"""
HV_X64_MSR_TSC_FREQUENCY: Final = 0x4000_0022
"""HV_X64_MSR_TSC_FREQUENCY. (arch/x86/include/asm/hyperv-tlfs.h:191 @6.1.192)"""
HV_X64_MSR_APIC_FREQUENCY: Final = 0x4000_0023
"""HV_X64_MSR_APIC_FREQUENCY. (arch/x86/include/asm/hyperv-tlfs.h:194 @6.1.192)"""
HV_X64_MSR_EOI: Final = 0x4000_0070
"""HV_X64_MSR_EOI. (arch/x86/include/asm/hyperv-tlfs.h:197 @6.1.192)"""
HV_X64_MSR_ICR: Final = 0x4000_0071
"""HV_X64_MSR_ICR. (arch/x86/include/asm/hyperv-tlfs.h:198 @6.1.192)"""
HV_X64_MSR_TPR: Final = 0x4000_0072
"""HV_X64_MSR_TPR. (arch/x86/include/asm/hyperv-tlfs.h:199 @6.1.192)"""
HV_X64_MSR_VP_ASSIST_PAGE: Final = 0x4000_0073
"""HV_X64_MSR_VP_ASSIST_PAGE. (arch/x86/include/asm/hyperv-tlfs.h:200 @6.1.192)"""
HV_REGISTER_SCONTROL: Final = 0x4000_0080
"""HV_REGISTER_SCONTROL. (arch/x86/include/asm/hyperv-tlfs.h:203 @6.1.192)"""
HV_REGISTER_SVERSION: Final = 0x4000_0081
"""HV_REGISTER_SVERSION. (arch/x86/include/asm/hyperv-tlfs.h:204 @6.1.192)"""
HV_REGISTER_SIEFP: Final = 0x4000_0082
"""HV_REGISTER_SIEFP. (arch/x86/include/asm/hyperv-tlfs.h:205 @6.1.192)"""
HV_REGISTER_SIMP: Final = 0x4000_0083
"""HV_REGISTER_SIMP. (arch/x86/include/asm/hyperv-tlfs.h:206 @6.1.192)"""
HV_REGISTER_EOM: Final = 0x4000_0084
"""HV_REGISTER_EOM. (arch/x86/include/asm/hyperv-tlfs.h:207 @6.1.192)"""
HV_REGISTER_SINT0: Final = 0x4000_0090
"""HV_REGISTER_SINT0. (arch/x86/include/asm/hyperv-tlfs.h:208 @6.1.192)"""
HV_REGISTER_SINT1: Final = 0x4000_0091
"""HV_REGISTER_SINT1. (arch/x86/include/asm/hyperv-tlfs.h:209 @6.1.192)"""
HV_REGISTER_SINT2: Final = 0x4000_0092
"""HV_REGISTER_SINT2. (arch/x86/include/asm/hyperv-tlfs.h:210 @6.1.192)"""
HV_REGISTER_SINT3: Final = 0x4000_0093
"""HV_REGISTER_SINT3. (arch/x86/include/asm/hyperv-tlfs.h:211 @6.1.192)"""
HV_REGISTER_SINT4: Final = 0x4000_0094
"""HV_REGISTER_SINT4. (arch/x86/include/asm/hyperv-tlfs.h:212 @6.1.192)"""
HV_REGISTER_SINT5: Final = 0x4000_0095
"""HV_REGISTER_SINT5. (arch/x86/include/asm/hyperv-tlfs.h:213 @6.1.192)"""
HV_REGISTER_SINT6: Final = 0x4000_0096
"""HV_REGISTER_SINT6. (arch/x86/include/asm/hyperv-tlfs.h:214 @6.1.192)"""
HV_REGISTER_SINT7: Final = 0x4000_0097
"""HV_REGISTER_SINT7. (arch/x86/include/asm/hyperv-tlfs.h:215 @6.1.192)"""
HV_REGISTER_SINT8: Final = 0x4000_0098
"""HV_REGISTER_SINT8. (arch/x86/include/asm/hyperv-tlfs.h:216 @6.1.192)"""
HV_REGISTER_SINT9: Final = 0x4000_0099
"""HV_REGISTER_SINT9. (arch/x86/include/asm/hyperv-tlfs.h:217 @6.1.192)"""
HV_REGISTER_SINT10: Final = 0x4000_009A
"""HV_REGISTER_SINT10. (arch/x86/include/asm/hyperv-tlfs.h:218 @6.1.192)"""
HV_REGISTER_SINT11: Final = 0x4000_009B
"""HV_REGISTER_SINT11. (arch/x86/include/asm/hyperv-tlfs.h:219 @6.1.192)"""
HV_REGISTER_SINT12: Final = 0x4000_009C
"""HV_REGISTER_SINT12. (arch/x86/include/asm/hyperv-tlfs.h:220 @6.1.192)"""
HV_REGISTER_SINT13: Final = 0x4000_009D
"""HV_REGISTER_SINT13. (arch/x86/include/asm/hyperv-tlfs.h:221 @6.1.192)"""
HV_REGISTER_SINT14: Final = 0x4000_009E
"""HV_REGISTER_SINT14. (arch/x86/include/asm/hyperv-tlfs.h:222 @6.1.192)"""
HV_REGISTER_SINT15: Final = 0x4000_009F
"""HV_REGISTER_SINT15. (arch/x86/include/asm/hyperv-tlfs.h:223 @6.1.192)"""
HV_REGISTER_STIMER0_CONFIG: Final = 0x4000_00B0
"""HV_REGISTER_STIMER0_CONFIG. (arch/x86/include/asm/hyperv-tlfs.h:228 @6.1.192)"""
HV_REGISTER_STIMER0_COUNT: Final = 0x4000_00B1
"""HV_REGISTER_STIMER0_COUNT. (arch/x86/include/asm/hyperv-tlfs.h:229 @6.1.192)"""
HV_REGISTER_STIMER1_CONFIG: Final = 0x4000_00B2
"""HV_REGISTER_STIMER1_CONFIG. (arch/x86/include/asm/hyperv-tlfs.h:230 @6.1.192)"""
HV_REGISTER_STIMER1_COUNT: Final = 0x4000_00B3
"""HV_REGISTER_STIMER1_COUNT. (arch/x86/include/asm/hyperv-tlfs.h:231 @6.1.192)"""
HV_REGISTER_STIMER2_CONFIG: Final = 0x4000_00B4
"""HV_REGISTER_STIMER2_CONFIG. (arch/x86/include/asm/hyperv-tlfs.h:232 @6.1.192)"""
HV_REGISTER_STIMER2_COUNT: Final = 0x4000_00B5
"""HV_REGISTER_STIMER2_COUNT. (arch/x86/include/asm/hyperv-tlfs.h:233 @6.1.192)"""
HV_REGISTER_STIMER3_CONFIG: Final = 0x4000_00B6
"""HV_REGISTER_STIMER3_CONFIG. (arch/x86/include/asm/hyperv-tlfs.h:234 @6.1.192)"""
HV_REGISTER_STIMER3_COUNT: Final = 0x4000_00B7
"""HV_REGISTER_STIMER3_COUNT. (arch/x86/include/asm/hyperv-tlfs.h:235 @6.1.192)"""
HV_X64_MSR_GUEST_IDLE: Final = 0x4000_00F0
"""HV_X64_MSR_GUEST_IDLE. (arch/x86/include/asm/hyperv-tlfs.h:238 @6.1.192)"""
HV_REGISTER_CRASH_P0: Final = 0x4000_0100
"""HV_REGISTER_CRASH_P0. (arch/x86/include/asm/hyperv-tlfs.h:241 @6.1.192)"""
HV_REGISTER_CRASH_P1: Final = 0x4000_0101
"""HV_REGISTER_CRASH_P1. (arch/x86/include/asm/hyperv-tlfs.h:242 @6.1.192)"""
HV_REGISTER_CRASH_P2: Final = 0x4000_0102
"""HV_REGISTER_CRASH_P2. (arch/x86/include/asm/hyperv-tlfs.h:243 @6.1.192)"""
HV_REGISTER_CRASH_P3: Final = 0x4000_0103
"""HV_REGISTER_CRASH_P3. (arch/x86/include/asm/hyperv-tlfs.h:244 @6.1.192)"""
HV_REGISTER_CRASH_P4: Final = 0x4000_0104
"""HV_REGISTER_CRASH_P4. (arch/x86/include/asm/hyperv-tlfs.h:245 @6.1.192)"""
HV_REGISTER_CRASH_CTL: Final = 0x4000_0105
"""HV_REGISTER_CRASH_CTL. (arch/x86/include/asm/hyperv-tlfs.h:246 @6.1.192)"""
HV_X64_MSR_REENLIGHTENMENT_CONTROL: Final = 0x4000_0106
"""HV_X64_MSR_REENLIGHTENMENT_CONTROL. (arch/x86/include/asm/hyperv-tlfs.h:249 @6.1.192)"""
HV_X64_MSR_TSC_EMULATION_CONTROL: Final = 0x4000_0107
"""HV_X64_MSR_TSC_EMULATION_CONTROL. (arch/x86/include/asm/hyperv-tlfs.h:250 @6.1.192)"""
HV_X64_MSR_TSC_EMULATION_STATUS: Final = 0x4000_0108
"""HV_X64_MSR_TSC_EMULATION_STATUS. (arch/x86/include/asm/hyperv-tlfs.h:251 @6.1.192)"""
HV_X64_MSR_TSC_INVARIANT_CONTROL: Final = 0x4000_0118
"""HV_X64_MSR_TSC_INVARIANT_CONTROL. (arch/x86/include/asm/hyperv-tlfs.h:254 @6.1.192)"""
HV_X64_MSR_STIMER0_COUNT: Final = 0x4000_00B1
"""HV_X64_MSR_STIMER0_COUNT. (arch/x86/include/asm/hyperv-tlfs.h:257 @6.1.192)"""
HV_X64_MSR_STIMER0_CONFIG: Final = 0x4000_00B0
"""HV_X64_MSR_STIMER0_CONFIG. (arch/x86/include/asm/hyperv-tlfs.h:258 @6.1.192)"""
HV_X64_MSR_STIMER1_COUNT: Final = 0x4000_00B3
"""HV_X64_MSR_STIMER1_COUNT. (arch/x86/include/asm/hyperv-tlfs.h:259 @6.1.192)"""
HV_X64_MSR_STIMER1_CONFIG: Final = 0x4000_00B2
"""HV_X64_MSR_STIMER1_CONFIG. (arch/x86/include/asm/hyperv-tlfs.h:260 @6.1.192)"""
HV_X64_MSR_STIMER2_COUNT: Final = 0x4000_00B5
"""HV_X64_MSR_STIMER2_COUNT. (arch/x86/include/asm/hyperv-tlfs.h:261 @6.1.192)"""
HV_X64_MSR_STIMER2_CONFIG: Final = 0x4000_00B4
"""HV_X64_MSR_STIMER2_CONFIG. (arch/x86/include/asm/hyperv-tlfs.h:262 @6.1.192)"""
HV_X64_MSR_STIMER3_COUNT: Final = 0x4000_00B7
"""HV_X64_MSR_STIMER3_COUNT. (arch/x86/include/asm/hyperv-tlfs.h:263 @6.1.192)"""
HV_X64_MSR_STIMER3_CONFIG: Final = 0x4000_00B6
"""HV_X64_MSR_STIMER3_CONFIG. (arch/x86/include/asm/hyperv-tlfs.h:264 @6.1.192)"""
HV_X64_MSR_SCONTROL: Final = 0x4000_0080
"""HV_X64_MSR_SCONTROL. (arch/x86/include/asm/hyperv-tlfs.h:265 @6.1.192)"""
HV_X64_MSR_SVERSION: Final = 0x4000_0081
"""HV_X64_MSR_SVERSION. (arch/x86/include/asm/hyperv-tlfs.h:266 @6.1.192)"""
HV_X64_MSR_SIMP: Final = 0x4000_0083
"""HV_X64_MSR_SIMP. (arch/x86/include/asm/hyperv-tlfs.h:267 @6.1.192)"""
HV_X64_MSR_SIEFP: Final = 0x4000_0082
"""HV_X64_MSR_SIEFP. (arch/x86/include/asm/hyperv-tlfs.h:268 @6.1.192)"""
HV_X64_MSR_VP_INDEX: Final = 0x4000_0002
"""HV_X64_MSR_VP_INDEX. (arch/x86/include/asm/hyperv-tlfs.h:269 @6.1.192)"""
HV_X64_MSR_EOM: Final = 0x4000_0084
"""HV_X64_MSR_EOM. (arch/x86/include/asm/hyperv-tlfs.h:270 @6.1.192)"""
HV_X64_MSR_SINT0: Final = 0x4000_0090
"""HV_X64_MSR_SINT0. (arch/x86/include/asm/hyperv-tlfs.h:271 @6.1.192)"""
HV_X64_MSR_SINT15: Final = 0x4000_009F
"""HV_X64_MSR_SINT15. (arch/x86/include/asm/hyperv-tlfs.h:272 @6.1.192)"""
HV_X64_MSR_CRASH_P0: Final = 0x4000_0100
"""HV_X64_MSR_CRASH_P0. (arch/x86/include/asm/hyperv-tlfs.h:273 @6.1.192)"""
HV_X64_MSR_CRASH_P1: Final = 0x4000_0101
"""HV_X64_MSR_CRASH_P1. (arch/x86/include/asm/hyperv-tlfs.h:274 @6.1.192)"""
HV_X64_MSR_CRASH_P2: Final = 0x4000_0102
"""HV_X64_MSR_CRASH_P2. (arch/x86/include/asm/hyperv-tlfs.h:275 @6.1.192)"""
HV_X64_MSR_CRASH_P3: Final = 0x4000_0103
"""HV_X64_MSR_CRASH_P3. (arch/x86/include/asm/hyperv-tlfs.h:276 @6.1.192)"""
HV_X64_MSR_CRASH_P4: Final = 0x4000_0104
"""HV_X64_MSR_CRASH_P4. (arch/x86/include/asm/hyperv-tlfs.h:277 @6.1.192)"""
HV_X64_MSR_CRASH_CTL: Final = 0x4000_0105
"""HV_X64_MSR_CRASH_CTL. (arch/x86/include/asm/hyperv-tlfs.h:278 @6.1.192)"""
HV_X64_MSR_TIME_REF_COUNT: Final = 0x4000_0020
"""HV_X64_MSR_TIME_REF_COUNT. (arch/x86/include/asm/hyperv-tlfs.h:279 @6.1.192)"""
HV_X64_MSR_REFERENCE_TSC: Final = 0x4000_0021
"""HV_X64_MSR_REFERENCE_TSC. (arch/x86/include/asm/hyperv-tlfs.h:280 @6.1.192)"""
HV_MAX_MODIFY_GPA_REP_COUNT: Final = 0x1FE
"""HV_MAX_MODIFY_GPA_REP_COUNT. (arch/x86/include/asm/hyperv-tlfs.h:290 @6.1.192)"""
HV_X64_MSR_HYPERCALL_ENABLE: Final = 0x1
"""HV_X64_MSR_HYPERCALL_ENABLE. (arch/x86/include/asm/hyperv-tlfs.h:338 @6.1.192)"""
HV_X64_MSR_HYPERCALL_PAGE_ADDRESS_SHIFT: Final = 0xC
"""HV_X64_MSR_HYPERCALL_PAGE_ADDRESS_SHIFT. (arch/x86/include/asm/hyperv-tlfs.h:339 @6.1.192)"""
HV_X64_MSR_HYPERCALL_PAGE_ADDRESS_MASK: Final = 0xFFFF_FFFF_FFFF_F000
"""HV_X64_MSR_HYPERCALL_PAGE_ADDRESS_MASK. (arch/x86/include/asm/hyperv-tlfs.h:340 @6.1.192)"""
HV_X64_MSR_CRASH_PARAMS: Final = 5
"""HV_X64_MSR_CRASH_PARAMS. (arch/x86/include/asm/hyperv-tlfs.h:343 @6.1.192)"""
HV_IPI_LOW_VECTOR: Final = 0x10
"""HV_IPI_LOW_VECTOR. (arch/x86/include/asm/hyperv-tlfs.h:346 @6.1.192)"""
HV_IPI_HIGH_VECTOR: Final = 0xFF
"""HV_IPI_HIGH_VECTOR. (arch/x86/include/asm/hyperv-tlfs.h:347 @6.1.192)"""
HV_X64_MSR_VP_ASSIST_PAGE_ENABLE: Final = 0x1
"""HV_X64_MSR_VP_ASSIST_PAGE_ENABLE. (arch/x86/include/asm/hyperv-tlfs.h:349 @6.1.192)"""
HV_X64_MSR_VP_ASSIST_PAGE_ADDRESS_SHIFT: Final = 0xC
"""HV_X64_MSR_VP_ASSIST_PAGE_ADDRESS_SHIFT. (arch/x86/include/asm/hyperv-tlfs.h:350 @6.1.192)"""
HV_X64_MSR_VP_ASSIST_PAGE_ADDRESS_MASK: Final = 0xFFFF_FFFF_FFFF_F000
"""HV_X64_MSR_VP_ASSIST_PAGE_ADDRESS_MASK. (arch/x86/include/asm/hyperv-tlfs.h:351 @6.1.192)"""
HV_X64_ENLIGHTENED_VMCS_VERSION: Final = 0xFF
"""HV_X64_ENLIGHTENED_VMCS_VERSION. (arch/x86/include/asm/hyperv-tlfs.h:355 @6.1.192)"""
HV_X64_MSR_TSC_REFERENCE_ENABLE: Final = 0x1
"""HV_X64_MSR_TSC_REFERENCE_ENABLE. (arch/x86/include/asm/hyperv-tlfs.h:357 @6.1.192)"""
HV_X64_MSR_TSC_REFERENCE_ADDRESS_SHIFT: Final = 0xC
"""HV_X64_MSR_TSC_REFERENCE_ADDRESS_SHIFT. (arch/x86/include/asm/hyperv-tlfs.h:358 @6.1.192)"""
HV_HYPERCALL_MAX_XMM_REGISTERS: Final = 6
"""HV_HYPERCALL_MAX_XMM_REGISTERS. (arch/x86/include/asm/hyperv-tlfs.h:361 @6.1.192)"""


GHCB_USAGE_HYPERV_CALL: Final = 1
"""GHCB_USAGE_HYPERV_CALL. (arch/x86/hyperv/ivm.c:21 @6.1.192)"""
HV_TLB_FLUSH_UNIT: Final = 0x0100_0000
"""HV_TLB_FLUSH_UNIT. (arch/x86/hyperv/mmu.c:18 @6.1.192)"""
HV_DEPOSIT_MAX: Final = 0x1FF
"""HV_DEPOSIT_MAX. (arch/x86/hyperv/hv_proc.c:21 @6.1.192)"""


class HvIsolationType(IntEnum):
    """``hv_isolation_type``.

    Source: arch/x86/include/asm/hyperv-tlfs.h:161 @6.1.192
    """

    HV_ISOLATION_TYPE_NONE = 0
    HV_ISOLATION_TYPE_VBS = 1
    HV_ISOLATION_TYPE_SNP = 2


class HvInterruptType(IntEnum):
    """``hv_interrupt_type``.

    Source: arch/x86/include/asm/hyperv-tlfs.h:627 @6.1.192
    """

    HV_X64_INTERRUPT_TYPE_FIXED = 0
    HV_X64_INTERRUPT_TYPE_LOWESTPRIORITY = 1
    HV_X64_INTERRUPT_TYPE_SMI = 2
    HV_X64_INTERRUPT_TYPE_REMOTEREAD = 3
    HV_X64_INTERRUPT_TYPE_NMI = 4
    HV_X64_INTERRUPT_TYPE_INIT = 5
    HV_X64_INTERRUPT_TYPE_SIPI = 6
    HV_X64_INTERRUPT_TYPE_EXTINT = 7
    HV_X64_INTERRUPT_TYPE_LOCALINT0 = 8
    HV_X64_INTERRUPT_TYPE_LOCALINT1 = 9
    HV_X64_INTERRUPT_TYPE_MAXIMUM = 0xA


class HvMemHostVisibility(IntEnum):
    """``hv_mem_host_visibility``.

    Source: arch/x86/include/asm/hyperv-tlfs.h:283 @6.1.192
    """

    VMBUS_PAGE_NOT_VISIBLE = 0
    VMBUS_PAGE_VISIBLE_READ_ONLY = 1
    VMBUS_PAGE_VISIBLE_READ_WRITE = 3


@wire(size=4096, source="arch/x86/include/asm/hyperv-tlfs.h:291 @6.1.192")
class HvGpaRangeForVisibility(Wire):
    """``hv_gpa_range_for_visibility``."""

    __kernel__ = "hv_gpa_range_for_visibility"

    partition_id: u64
    host_visibility: Annotated[int, Bits(u32, 2)]
    reserved0: Annotated[int, Bits(u32, 30)]
    reserved1: u32
    gpa_page_list: Annotated[tuple[int, ...], u64, 510]


@union(size=8, source="arch/x86/include/asm/hyperv-tlfs.h:302 @6.1.192", align=8)
class HvX64MsrHypercallContents(Union):
    """``hv_x64_msr_hypercall_contents``."""

    __kernel__ = "hv_x64_msr_hypercall_contents"

    as_uint64: u64
    enable: Annotated[int, Bits(u64, 1)]
    reserved: Annotated[int, Bits(u64, 11)]
    guest_physical_address: Annotated[int, Bits(u64, 52)]


@union(size=8, source="arch/x86/include/asm/hyperv-tlfs.h:311 @6.1.192", align=8)
class HvVpAssistMsrContents(Union):
    """``hv_vp_assist_msr_contents``."""

    __kernel__ = "hv_vp_assist_msr_contents"

    as_uint64: u64
    enable: Annotated[int, Bits(u64, 1)]
    reserved: Annotated[int, Bits(u64, 11)]
    pfn: Annotated[int, Bits(u64, 52)]


@wire(size=8, source="arch/x86/include/asm/hyperv-tlfs.h:320 @6.1.192")
class HvReenlightenmentControl(Wire):
    """``hv_reenlightenment_control``."""

    __kernel__ = "hv_reenlightenment_control"

    vector: Annotated[int, Bits(u64, 8)]
    reserved1: Annotated[int, Bits(u64, 8)]
    enabled: Annotated[int, Bits(u64, 1)]
    reserved2: Annotated[int, Bits(u64, 15)]
    target_vp: Annotated[int, Bits(u64, 32)]


@wire(size=8, source="arch/x86/include/asm/hyperv-tlfs.h:328 @6.1.192")
class HvTscEmulationControl(Wire):
    """``hv_tsc_emulation_control``."""

    __kernel__ = "hv_tsc_emulation_control"

    enabled: Annotated[int, Bits(u64, 1)]
    reserved: Annotated[int, Bits(u64, 63)]


@wire(size=8, source="arch/x86/include/asm/hyperv-tlfs.h:333 @6.1.192")
class HvTscEmulationStatus(Wire):
    """``hv_tsc_emulation_status``."""

    __kernel__ = "hv_tsc_emulation_status"

    inprogress: Annotated[int, Bits(u64, 1)]
    reserved: Annotated[int, Bits(u64, 63)]


@wire(size=4, source="arch/x86/include/asm/hyperv-tlfs.h:363 @6.1.192")
class HvNestedEnlightenmentsControlFeatures(Wire):
    """``hv_nested_enlightenments_control.features``."""

    directhypercall: Annotated[int, Bits(u32, 1)]
    reserved: Annotated[int, Bits(u32, 31)]


@wire(size=4, source="arch/x86/include/asm/hyperv-tlfs.h:363 @6.1.192")
class HvNestedEnlightenmentsControlHypercallControls(Wire):
    """``hv_nested_enlightenments_control.hypercallControls``."""

    reserved: u32


@wire(size=8, source="arch/x86/include/asm/hyperv-tlfs.h:363 @6.1.192")
class HvNestedEnlightenmentsControl(Wire):
    """``hv_nested_enlightenments_control``."""

    __kernel__ = "hv_nested_enlightenments_control"

    features: HvNestedEnlightenmentsControlFeatures
    hypercallControls: HvNestedEnlightenmentsControlHypercallControls


@wire(size=56, source="arch/x86/include/asm/hyperv-tlfs.h:374 @6.1.192")
class HvVpAssistPage(Wire):
    """``hv_vp_assist_page``."""

    __kernel__ = "hv_vp_assist_page"

    apic_assist: u32
    reserved1: u32
    vtl_control: Annotated[tuple[int, ...], u64, 3]
    nested_control: HvNestedEnlightenmentsControl
    enlighten_vmentry: u8
    reserved2: Annotated[bytes, 7]
    current_nested_vmcs: u64


@wire(size=4, source="arch/x86/include/asm/hyperv-tlfs.h:606 @6.1.192")
class HvEnlightenmentsControl(Wire):
    """``hv_enlightenments_control``."""

    __kernel__ = "hv_enlightenments_control"

    nested_flush_hypercall: Annotated[int, Bits(u32, 1)]
    msr_bitmap: Annotated[int, Bits(u32, 1)]
    enlightened_npt_tlb: Annotated[int, Bits(u32, 1)]
    reserved: Annotated[int, Bits(u32, 29)]


@union(size=4, source="arch/x86/include/asm/hyperv-tlfs.h:641 @6.1.192")
class HvMsiAddressRegister(Union):
    """``hv_msi_address_register``."""

    __kernel__ = "hv_msi_address_register"

    as_uint32: u32
    reserved1: Annotated[int, Bits(u32, 2)]
    destination_mode: Annotated[int, Bits(u32, 1)]
    redirection_hint: Annotated[int, Bits(u32, 1)]
    reserved2: Annotated[int, Bits(u32, 8)]
    destination_id: Annotated[int, Bits(u32, 8)]
    msi_base: Annotated[int, Bits(u32, 12)]


@union(size=4, source="arch/x86/include/asm/hyperv-tlfs.h:653 @6.1.192")
class HvMsiDataRegister(Union):
    """``hv_msi_data_register``."""

    __kernel__ = "hv_msi_data_register"

    as_uint32: u32
    vector: Annotated[int, Bits(u32, 8)]
    delivery_mode: Annotated[int, Bits(u32, 3)]
    reserved1: Annotated[int, Bits(u32, 3)]
    level_assert: Annotated[int, Bits(u32, 1)]
    trigger_mode: Annotated[int, Bits(u32, 1)]
    reserved2: Annotated[int, Bits(u32, 16)]


@union(size=8, source="arch/x86/include/asm/hyperv-tlfs.h:666 @6.1.192", align=8)
class HvMsiEntry(Union):
    """``hv_msi_entry``."""

    __kernel__ = "hv_msi_entry"

    as_uint64: u64
    address: HvMsiAddressRegister
    data: HvMsiDataRegister = overlay(4)


@wire(size=16, source="include/asm-generic/hyperv-tlfs.h:583 @6.1.192")
class HvInterruptEntry(Wire):
    """``hv_interrupt_entry``."""

    __kernel__ = "hv_interrupt_entry"

    source: u32
    reserved1: u32
    msi_entry: HvMsiEntry
    ioapic_rte: HvIoapicRte = overlay(8)


@wire(size=64, source="include/asm-generic/hyperv-tlfs.h:607 @6.1.192")
class HvRetargetDeviceInterrupt(Wire):
    """``hv_retarget_device_interrupt``."""

    __kernel__ = "hv_retarget_device_interrupt"

    partition_id: u64
    device_id: u64
    int_entry: HvInterruptEntry
    reserved2: u64
    int_target: HvDeviceInterruptTarget


@wire(size=80, source="include/asm-generic/hyperv-tlfs.h:756 @6.1.192")
class HvInputMapDeviceInterrupt(Wire):
    """``hv_input_map_device_interrupt``."""

    __kernel__ = "hv_input_map_device_interrupt"

    partition_id: u64
    device_id: u64
    flags: u64
    logical_interrupt_entry: HvInterruptEntry
    interrupt_descriptor: HvDeviceInterruptDescriptor


@wire(size=16, source="include/asm-generic/hyperv-tlfs.h:764 @6.1.192")
class HvOutputMapDeviceInterrupt(Wire):
    """``hv_output_map_device_interrupt``."""

    __kernel__ = "hv_output_map_device_interrupt"

    interrupt_entry: HvInterruptEntry


@wire(size=32, source="include/asm-generic/hyperv-tlfs.h:768 @6.1.192")
class HvInputUnmapDeviceInterrupt(Wire):
    """``hv_input_unmap_device_interrupt``."""

    __kernel__ = "hv_input_unmap_device_interrupt"

    partition_id: u64
    device_id: u64
    interrupt_entry: HvInterruptEntry


@union(size=8, source="arch/x86/hyperv/ivm.c:23 @6.1.192")
class HvGhcbHypercallHypercallinput(Union):
    """``hv_ghcb.hypercall.hypercallinput``."""

    callcode: Annotated[int, Bits(u32, 16)]
    isfast: Annotated[int, Bits(u32, 1)]
    reserved1: Annotated[int, Bits(u32, 14)]
    isnested: Annotated[int, Bits(u32, 1)]
    countofelements: Annotated[int, Bits(u32, 12)] = overlay(4)
    reserved2: Annotated[int, Bits(u32, 4)]
    repstartindex: Annotated[int, Bits(u32, 12)]
    reserved3: Annotated[int, Bits(u32, 4)]
    asuint64: u64


@union(size=8, source="arch/x86/hyperv/ivm.c:23 @6.1.192")
class HvGhcbHypercallHypercalloutput(Union):
    """``hv_ghcb.hypercall.hypercalloutput``."""

    callstatus: u16
    reserved1: u16 = overlay(2)
    elementsprocessed: Annotated[int, Bits(u32, 12)] = overlay(4)
    reserved2: Annotated[int, Bits(u32, 20)]
    asunit64: u64


@wire(size=4096, source="arch/x86/hyperv/ivm.c:23 @6.1.192")
class HvGhcbHypercall(Wire):
    """``hv_ghcb.hypercall``."""

    hypercalldata: Annotated[tuple[int, ...], u64, 509]
    outputgpa: u64
    hypercallinput: HvGhcbHypercallHypercallinput
    reserved2: u64
    hypercalloutput: HvGhcbHypercallHypercalloutput = overlay(4080)


@union(size=4096, source="arch/x86/hyperv/ivm.c:23 @6.1.192", align=4096)
class HvGhcb(Union):
    """``hv_ghcb``."""

    __kernel__ = "hv_ghcb"

    ghcb: Annotated[bytes, 4096]
    hypercall: HvGhcbHypercall
