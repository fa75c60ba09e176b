"""The hypervisor's arm64 half: SMCCC calls, PSCI, synthetic registers by hypercall, the GIC in the firmware tables.

``VirtualProcessor.hypercall(opcode, regs)``: ``opcode`` is the instruction as it lies in memory, ``regs`` are ``x0``
to at least ``x3``, at most ``x17``. Returned are ``x0`` to ``x7``, or as many as were given if that is more.

* ``hvc #0`` (02 00 00 d4), the SMC calling convention: ``x0`` the function identifier. 0x46000001 is a hypercall with
  the control word in ``x1`` and the parameters in ``x2`` (input GPA) and ``x3`` (output GPA), or in ``x2`` to ``x17``
  for a fast call, whose output follows its input from the next even register on. The others are the PSCI and SMCCC
  standard calls.
* ``hvc #1`` (22 00 00 d4), Hyper-V's older convention: ``x0`` the control word, ``x1`` and ``x2`` the parameters.

Source: TLFS, "Hypercall Register Conventions (ARM64)"; arch/arm64/hyperv/hv_core.c; Arm DEN0028 (SMCCC) and DEN0022
(PSCI).
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import pack
from types import MappingProxyType
from typing import Final

from hvkernel.abi import acpi
from hvkernel.api.host import ArchFeatures, FeatureWords, FirmwareShape, Partition
from hvkernel.api.host import SyntheticRegister as R
from hvkernel_arm64 import tlfs

__all__ = ["HostArm64"]

HVC_0: Final = b"\x02\x00\x00\xd4"
HVC_1: Final = b"\x22\x00\x00\xd4"

SMCCC_NOT_SUPPORTED: Final = 0xFFFF_FFFF_FFFF_FFFF
SMCCC_VERSION: Final = 0x8000_0000
SMCCC_ARCH_FEATURES: Final = 0x8000_0001
SMCCC_VENDOR_HYP_UID: Final = 0x8600_FF01
PSCI_VERSION: Final = 0x8400_0000
PSCI_CPU_OFF: Final = 0x8400_0002
PSCI_CPU_ON: Final = 0xC400_0003
PSCI_AFFINITY_INFO: Final = 0xC400_0004
PSCI_MIGRATE_INFO_TYPE: Final = 0x8400_0006
PSCI_SYSTEM_OFF: Final = 0x8400_0008
PSCI_SYSTEM_RESET: Final = 0x8400_0009
PSCI_FEATURES: Final = 0x8400_000A
PSCI_INVALID_PARAMETERS: Final = 0xFFFF_FFFF_FFFF_FFFE
PSCI_ALREADY_ON: Final = 0xFFFF_FFFF_FFFF_FFFC

_UID: Final = (0x4D32_BA58, 0xCD24_4764, 0x8EEF_6C75, 0x1659_7024)
"""Hyper-V's answer to the vendor hypervisor UID call (include/linux/arm-smccc.h from 6.15 on:
ARM_SMCCC_VENDOR_HYP_UID_HYPERV). Linux 6.1 asks the FADT instead."""
_PSCI_1_0: Final = 0x1_0000
"""PSCI 1.0, as published logs have it."""
_SMCCC_1_2: Final = 0x1_0002
"""*unspecified*: a published log of a client host prints 65535.65535; 1.2 is what the register reads need."""

GICD_BASE: Final = 0xFFFF_0000
GICR_BASE: Final = 0xEFFE_E000
"""First redistributor, as published logs have it; each takes two frames of 64 KiB."""
_GICR_SIZE: Final = 0x2_0000
TIMER_PPI: Final = 20
"""Virtual timer of EL1 (GTDT); 19 is the physical one of EL1, 21 of EL2."""
VMBUS_PPI: Final = 18
"""INTID in the VMBus device's _CRS. *unspecified*: PPI 2, as OpenVMM uses it."""

_MASK64: Final = 0xFFFF_FFFF_FFFF_FFFF
_ARGUMENTS: Final = 18

_VP_REGISTERS: Final = MappingProxyType(
    {
        tlfs.HV_REGISTER_HYPERVISOR_VERSION: R.HYPERVISOR_VERSION,
        tlfs.HV_REGISTER_FEATURES: R.PRIVILEGES_AND_FEATURES,
        tlfs.HV_REGISTER_ENLIGHTENMENTS: R.FEATURES,
        0x0202: R.IMPLEMENTATION_LIMITS,
        0x0203: R.HARDWARE_FEATURES,
        tlfs.HV_REGISTER_CRASH_P0: R.CRASH_P0,
        tlfs.HV_REGISTER_CRASH_P1: R.CRASH_P1,
        tlfs.HV_REGISTER_CRASH_P2: R.CRASH_P2,
        tlfs.HV_REGISTER_CRASH_P3: R.CRASH_P3,
        tlfs.HV_REGISTER_CRASH_P4: R.CRASH_P4,
        tlfs.HV_REGISTER_CRASH_CTL: R.CRASH_CTL,
        tlfs.HV_REGISTER_GUEST_OSID: R.GUEST_OS_ID,
        0x0009_0000: R.VP_RUNTIME,
        tlfs.HV_REGISTER_VP_INDEX: R.VP_INDEX,
        tlfs.HV_REGISTER_TIME_REF_COUNT: R.TIME_REF_COUNT,
        0x0009_0013: R.VP_ASSIST_PAGE,
        tlfs.HV_REGISTER_REFERENCE_TSC: R.REFERENCE_TSC,
        tlfs.HV_REGISTER_SCONTROL: R.SCONTROL,
        0x000A_0011: R.SVERSION,
        tlfs.HV_REGISTER_SIEFP: R.SIEFP,
        tlfs.HV_REGISTER_SIMP: R.SIMP,
        tlfs.HV_REGISTER_EOM: R.EOM,
    }
)
"""By the numbers of asm/hyperv-tlfs.h; run time, VP assist page, SVERSION, limits and hardware features by the
TLFS and microsoft/openvmm (hvdef: HvArm64RegisterName)."""


def _registers() -> Mapping[int, R]:
    table = dict(_VP_REGISTERS)
    table.update({tlfs.HV_REGISTER_SINT0 + n: R(R.SINT0 + n) for n in range(16)})
    table.update({tlfs.HV_REGISTER_STIMER0_CONFIG + n: R(R.STIMER0_CONFIG + n) for n in range(8)})
    return MappingProxyType(table)


class HostArm64:
    """Implements :class:`hvkernel.api.host.ArchHost`."""

    needs_hypercall_page = False
    unknown_calls = frozenset({0x0003, 0x0014, 0x00AF, 0x00B0})
    """Calls that the TLFS marks as x64 only: flush of address lists, flush of nested address spaces."""
    interrupt_entry_size = 24
    register_calls_need_privilege = True
    early_registers = frozenset(
        {
            R.GUEST_OS_ID, R.HYPERVISOR_VERSION, R.PRIVILEGES_AND_FEATURES, R.FEATURES, R.IMPLEMENTATION_LIMITS,
            R.HARDWARE_FEATURES, R.TIME_REF_COUNT, R.CRASH_CTL, R.CRASH_P0, R.CRASH_P1, R.CRASH_P2, R.CRASH_P3,
            R.CRASH_P4,
        }
    )  # fmt: skip
    """TLFS, HvCallGetVpRegisters, "Early Register List (ARM64)"."""
    vmbus_interrupts = (VMBUS_PPI,)

    def __init__(self) -> None:
        self.registers = _registers()
        self.partition: Partition

    def attach(self, partition: Partition) -> None:
        """Take the partition."""
        self.partition = partition

    def prepare(self, vendor: str) -> None:
        """Nothing depends on the processor's vendor."""

    def features(self, words: FeatureWords) -> ArchFeatures:
        """Decode feature group C."""
        return ArchFeatures(
            crash_registers=bool(words.features_c & tlfs.HV_FEATURE_GUEST_CRASH_MSR_AVAILABLE),
            direct_stimer=bool(words.features_c & tlfs.HV_STIMER_DIRECT_MODE_AVAILABLE),
            fast_input_extended=True,
            fast_output=True,
        )

    def hypercall_page(self) -> bytes:
        """There is none."""
        return bytes(4096)

    def interrupt(self, vp: int, vector: int, auto_eoi: bool) -> None:
        """Make an interrupt (an INTID) pending in the VP's redistributor."""
        self.partition.interrupt(vp, vector)

    # traps

    def hypercall(self, vp: int, opcode: bytes, regs: tuple[int, ...]) -> tuple[int, ...]:
        """Answer HVC; the module says what ``regs`` are.

        :raises ValueError: fewer than four registers, or more than eighteen.
        """
        if not 4 <= len(regs) <= _ARGUMENTS:
            raise ValueError(f"regs has {len(regs)} values; x0 to x3 at least, x0 to x17 at most")
        if opcode[:4] == HVC_0:
            if regs[0] & 0xFFFF_FFFF == tlfs.HV_FUNC_ID:
                return self._call(vp, regs, 1)
            values = self._standard(vp, regs)
            return (*values, *regs[len(values) :], *(0,) * (8 - max(len(values), len(regs))))
        if opcode[:4] == HVC_1:
            return self._call(vp, regs, 0)
        self.partition.record("refused", f"VP {vp}: {opcode[:4].hex(' ')} is no hypercall instruction")
        self.partition.undefined_opcode(opcode[:4])

    def _call(self, vp: int, regs: tuple[int, ...], base: int) -> tuple[int, ...]:
        x = [r & _MASK64 for r in regs] + [0] * (_ARGUMENTS - len(regs))
        control = x[base]
        first = base + 1
        if control >> 16 & 1:
            room = 16 if base else 17
            block = pack(f"<{room}Q", *x[first : first + room])
            result, output, at = self.partition.execute(vp, control, 0, 0, block)
            if output:
                # The older convention takes its output from the end of the registers (microsoft/openvmm).
                start = first + at // 8 if base else first + 16 - len(output) // 8
                for n in range(0, len(output), 8):
                    x[start + n // 8] = int.from_bytes(output[n : n + 8], "little")
        else:
            result, _, _ = self.partition.execute(vp, control, x[first], x[first + 1], None)
        x[0] = result
        return tuple(x[: max(8, len(regs))])

    def _standard(self, vp: int, regs: tuple[int, ...]) -> tuple[int, ...]:
        function, x1 = regs[0] & 0xFFFF_FFFF, regs[1] & _MASK64
        if function == SMCCC_VENDOR_HYP_UID:
            return _UID
        if function == SMCCC_VERSION:
            return (_SMCCC_1_2,)
        if function == PSCI_VERSION:
            return (_PSCI_1_0,)
        if function == PSCI_FEATURES:
            known = (PSCI_CPU_ON, PSCI_CPU_OFF, PSCI_AFFINITY_INFO, PSCI_SYSTEM_OFF, PSCI_SYSTEM_RESET, SMCCC_VERSION)
            return (0 if x1 & 0xFFFF_FFFF in known else SMCCC_NOT_SUPPORTED,)
        if function == PSCI_CPU_ON:
            return (self._cpu_on(x1),)
        if function == PSCI_AFFINITY_INFO:
            target = self.partition.vp_of(x1)
            return (PSCI_INVALID_PARAMETERS if target is None else 0 if self.partition.runs_vp(target) else 1,)
        if function == PSCI_CPU_OFF:
            self.partition.stop_vp(vp)
            return (0,)
        if function in (PSCI_SYSTEM_OFF, PSCI_SYSTEM_RESET):
            self.partition.power("off" if function == PSCI_SYSTEM_OFF else "reset")
            return (0,)
        return (SMCCC_NOT_SUPPORTED,)

    def _cpu_on(self, mpidr: int) -> int:
        target = self.partition.vp_of(mpidr)
        if target is None:
            return PSCI_INVALID_PARAMETERS
        return 0 if self.partition.start_vp(target) else PSCI_ALREADY_ON

    def cpuid(self, vp: int, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        """There is no CPUID instruction."""
        self.partition.undefined_opcode(b"cpuid")

    def rdmsr(self, vp: int, n: int) -> int:
        """There are no MSRs; synthetic registers are read by hypercall."""
        self.partition.undefined_opcode(b"rdmsr")

    def wrmsr(self, vp: int, n: int, v: int) -> None:
        """There are no MSRs; synthetic registers are written by hypercall."""
        self.partition.undefined_opcode(b"wrmsr")

    def mmio_read(self, vp: int, gpa: int, size: int) -> int:
        """Nobody answers: all bits are set."""
        return (1 << 8 * size) - 1

    def mmio_write(self, vp: int, gpa: int, size: int, v: int) -> None:
        """Nobody answers: nothing happens."""

    def io_in(self, vp: int, port: int, size: int) -> int:
        """There are no ports."""
        return (1 << 8 * size) - 1

    def io_out(self, vp: int, port: int, size: int, v: int) -> None:
        """There are no ports."""

    def read_apic(self, vp: int, register: R) -> int:
        """There is no APIC: the registers are never announced."""
        return 0

    def write_apic(self, vp: int, register: R, value: int) -> bool:
        """There is no APIC: the registers are never announced."""
        return False

    # firmware

    def madt(self, shape: FirmwareShape) -> bytes:
        """A GICC entry with its redistributor for each VP, and the distributor of a GICv3."""
        head, kind = acpi.AcpiSubtableHeader, acpi.AcpiMadtType
        gicc, gicd = acpi.AcpiMadtGenericInterrupt, acpi.AcpiMadtGenericDistributor
        first = head(kind.ACPI_MADT_TYPE_GENERIC_INTERRUPT, gicc.SIZE)
        body = pack("<II", 0, 0)
        for uid, (hw_id, _) in enumerate(shape.processors, 1):
            gicr = GICR_BASE + (uid - 1) * _GICR_SIZE
            fields = (first, 0, uid, uid, acpi.ACPI_MADT_ENABLED, 0, 0, 0, 0, 0, 0, 0, gicr, hw_id, 0, bytes(1), 0)
            body += gicc(*fields).pack()
        first = head(kind.ACPI_MADT_TYPE_GENERIC_DISTRIBUTOR, gicd.SIZE)
        version = acpi.AcpiMadtGicVersion.ACPI_MADT_GIC_VERSION_V3
        return body + gicd(first, 0, 0, GICD_BASE, 0, version, bytes(3)).pack()

    @property
    def srat_revision(self) -> int:
        """``SRAT ... (v03``."""
        return 3

    def srat_processor(self, hw_id: int, uid: int, node: int) -> bytes:
        """A GICC affinity entry."""
        gicc = acpi.AcpiSratGiccAffinity
        first = acpi.AcpiSubtableHeader(acpi.AcpiSratType.ACPI_SRAT_TYPE_GICC_AFFINITY, gicc.SIZE)
        return gicc(first, node, uid, acpi.ACPI_SRAT_GICC_ENABLED, 0).pack()

    def fadt_fields(self, generation: int) -> Mapping[str, int]:
        """Hardware-reduced ACPI, PSCI by HVC."""
        conduit = acpi.ACPI_FADT_PSCI_COMPLIANT | acpi.ACPI_FADT_PSCI_USE_HVC
        return {"flags": acpi.ACPI_FADT_HW_REDUCED, "arm_boot_flags": conduit, "minor_revision": 1}

    def extra_tables(self) -> Mapping[bytes, tuple[int, bytes]]:
        """GTDT: the timers' interrupts, level and active high. Its body follows struct acpi_table_gtdt."""
        none = 0xFFFF_FFFF_FFFF_FFFF
        timers = pack("<IIIIIIII", 29, 0, 19, 0, TIMER_PPI, 0, 21, 0)
        return {b"GTDT": (2, pack("<QI", none, 0) + timers + pack("<QII", none, 0, 0))}
