"""The hypervisor's x86 half: CPUID, MSRs, the hypercall page, the local APIC, the firmware tables of processors.

Register conventions of ``VirtualProcessor.hypercall(opcode, regs)`` (TLFS, "Hypercall Register Conventions"):

========  ==============================================  ==================================================
caller    ``regs``                                        returned
========  ==============================================  ==================================================
64-bit    ``(rcx, rdx, r8)``, for extended fast calls     ``(rax, rdx, r8[, xmm0 ... xmm5])``: the result in
          followed by ``xmm0`` to ``xmm5`` as 128-bit     the first place, the others as they were unless a
          integers: 3 or 9 values                         fast call returned output in them
32-bit    ``(edx, eax, ebx, ecx, edi, esi)``, optionally  ``(edx, eax)``
          followed by the six XMM registers: 6 or 12
========  ==============================================  ==================================================

The number of values tells the caller's mode, as EFER.LMA and CS.L do on a processor. RCX, which the hypervisor
advances while a rep call goes on, is not returned. The opcode must be the one of the hypercall page (VMCALL for Intel,
VMMCALL for AMD); any other, or a call before the page was enabled, is #UD.
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct, pack
from types import MappingProxyType
from typing import Final

from hvkernel.abi import acpi
from hvkernel.api.host import ArchFeatures, FeatureWords, FirmwareShape, Partition
from hvkernel.api.host import SyntheticRegister as R
from hvkernel_x86 import tlfs
from hvkernel_x86.host_lapic import APIC_BASE, EOI, SELF_IPI, TPR, Lapics

__all__ = ["HostX86"]

VMCALL: Final = b"\x0f\x01\xc1"
VMMCALL: Final = b"\x0f\x01\xd9"
_RET: Final = b"\xc3"

MSR_TSC: Final = 0x10
MSR_APIC_BASE: Final = 0x1B
MSR_TSC_DEADLINE: Final = 0x6E0
MSR_X2APIC: Final = 0x800
MSR_X2APIC_END: Final = 0x840
_X2APIC_ICR: Final = 0x830
_WRITE_ONLY: Final = (0x80B, 0x83F)
"""EOI and SELF IPI as x2APIC registers (SDM, "x2APIC Register Address Space")."""

_HYPERVISOR_MSRS: Final = range(0x4000_0000, 0x4000_0200)
_XMM: Final = 0xFFFF_FFFF_FFFF_FFFF_FFFF_FFFF_FFFF_FFFF
_NO_XMM: Final = bytes(96)
_PAIR: Final = Struct("<QQ")
_MASK32: Final = 0xFFFF_FFFF
_MASK64: Final = 0xFFFF_FFFF_FFFF_FFFF

_POLLING: Final = 1 << 17
"""SintPollingModeAvailable, EDX bit 17 (TLFS, leaf 0x40000003)."""

_MSRS: Final = MappingProxyType(
    {
        tlfs.HV_X64_MSR_GUEST_OS_ID: R.GUEST_OS_ID,
        tlfs.HV_X64_MSR_HYPERCALL: R.HYPERCALL,
        tlfs.HV_REGISTER_VP_INDEX: R.VP_INDEX,
        tlfs.HV_X64_MSR_RESET: R.RESET,
        tlfs.HV_X64_MSR_VP_RUNTIME: R.VP_RUNTIME,
        tlfs.HV_REGISTER_TIME_REF_COUNT: R.TIME_REF_COUNT,
        tlfs.HV_REGISTER_REFERENCE_TSC: R.REFERENCE_TSC,
        tlfs.HV_X64_MSR_TSC_FREQUENCY: R.TSC_FREQUENCY,
        tlfs.HV_X64_MSR_APIC_FREQUENCY: R.APIC_FREQUENCY,
        tlfs.HV_X64_MSR_EOI: R.EOI,
        tlfs.HV_X64_MSR_ICR: R.ICR,
        tlfs.HV_X64_MSR_TPR: R.TPR,
        tlfs.HV_X64_MSR_VP_ASSIST_PAGE: R.VP_ASSIST_PAGE,
        tlfs.HV_REGISTER_SCONTROL: R.SCONTROL,
        tlfs.HV_REGISTER_SVERSION: R.SVERSION,
        tlfs.HV_REGISTER_SIEFP: R.SIEFP,
        tlfs.HV_REGISTER_SIMP: R.SIMP,
        tlfs.HV_REGISTER_EOM: R.EOM,
        tlfs.HV_X64_MSR_GUEST_IDLE: R.GUEST_IDLE,
        tlfs.HV_REGISTER_CRASH_P0: R.CRASH_P0,
        tlfs.HV_REGISTER_CRASH_P1: R.CRASH_P1,
        tlfs.HV_REGISTER_CRASH_P2: R.CRASH_P2,
        tlfs.HV_REGISTER_CRASH_P3: R.CRASH_P3,
        tlfs.HV_REGISTER_CRASH_P4: R.CRASH_P4,
        tlfs.HV_REGISTER_CRASH_CTL: R.CRASH_CTL,
        tlfs.HV_X64_MSR_REENLIGHTENMENT_CONTROL: R.REENLIGHTENMENT_CONTROL,
        tlfs.HV_X64_MSR_TSC_EMULATION_CONTROL: R.TSC_EMULATION_CONTROL,
        tlfs.HV_X64_MSR_TSC_EMULATION_STATUS: R.TSC_EMULATION_STATUS,
        tlfs.HV_X64_MSR_TSC_INVARIANT_CONTROL: R.TSC_INVARIANT_CONTROL,
    }
)


def _registers() -> Mapping[int, R]:
    table = dict(_MSRS)
    table.update({tlfs.HV_REGISTER_SINT0 + n: R(R.SINT0 + n) for n in range(16)})
    table.update({tlfs.HV_REGISTER_STIMER0_CONFIG + n: R(R.STIMER0_CONFIG + n) for n in range(8)})
    return MappingProxyType(table)


_VENDORS: Final = MappingProxyType({"GenuineIntel": VMCALL, "AuthenticAMD": VMMCALL})

# CPUID leaf 1: family, model, stepping of a server processor of each vendor, and what both have.
_SIGNATURE: Final = MappingProxyType({"GenuineIntel": 0x0005_0657, "AuthenticAMD": 0x00A0_0F11})
_ECX1: Final = 1 << 0 | 1 << 1 | 1 << 9 | 1 << 12 | 1 << 13 | 1 << 19 | 1 << 20 | 1 << 22 | 1 << 23 | 1 << 25 | 1 << 30
_ECX1_X2APIC: Final = 1 << 21
_ECX1_DEADLINE: Final = 1 << 24
_ECX1_HYPERVISOR: Final = 1 << 31
_EDX1: Final = 0x178B_FBFF
"""FPU to FXSR, SSE, SSE2, HTT: the usual set of a 64-bit processor (with PAE, TSC, MSR, APIC, SEP)."""
_EDX80000001: Final = 1 << 11 | 1 << 20 | 1 << 26 | 1 << 27 | 1 << 29
"""SYSCALL, NX, 1 GiB pages, RDTSCP, long mode."""


def _words(text: str) -> tuple[int, int, int]:
    raw = text.encode("ascii").ljust(12, b"\0")
    return int.from_bytes(raw[:4], "little"), int.from_bytes(raw[4:8], "little"), int.from_bytes(raw[8:], "little")


class HostX86:
    """Implements :class:`hvkernel.api.host.ArchHost`."""

    needs_hypercall_page = True
    unknown_calls: frozenset[int] = frozenset()
    interrupt_entry_size = 16
    register_calls_need_privilege = True
    early_registers: frozenset[R] = frozenset()
    vmbus_interrupts: tuple[int, ...] = ()

    def __init__(self) -> None:
        self.registers = _registers()
        self.partition: Partition
        self.lapics: Lapics
        self._opcode = VMCALL
        self._leaves: dict[int, tuple[int, int, int, int]] = {}
        self._vendor = "GenuineIntel"

    def attach(self, partition: Partition) -> None:
        """Take the partition and work out what CPUID says."""
        self.partition = partition
        self.lapics = Lapics(partition, partition.boot_vp)
        self._leaves = self._cpuid_leaves()

    def features(self, words: FeatureWords) -> ArchFeatures:
        """Decode EDX of leaf 0x40000003."""
        d = words.features_d
        return ArchFeatures(
            frequency_registers=bool(d & tlfs.HV_FEATURE_FREQUENCY_MSRS_AVAILABLE),
            crash_registers=bool(d & tlfs.HV_FEATURE_GUEST_CRASH_MSR_AVAILABLE),
            direct_stimer=bool(d & tlfs.HV_STIMER_DIRECT_MODE_AVAILABLE),
            guest_idle=bool(d & tlfs.HV_X64_GUEST_IDLE_STATE_AVAILABLE),
            sint_polling=bool(d & _POLLING),
            fast_input_extended=bool(d & tlfs.HV_X64_HYPERCALL_XMM_INPUT_AVAILABLE),
            fast_output=bool(d & tlfs.HV_X64_HYPERCALL_XMM_OUTPUT_AVAILABLE),
        )

    def prepare(self, vendor: str) -> None:
        """Choose the hypercall instruction for the processor's vendor."""
        self._vendor = vendor
        self._opcode = _VENDORS[vendor]

    def hypercall_page(self) -> bytes:
        """The instruction and a near return; the rest is filled with INT3.

        *unspecified*: real pages go on with the VTL calls, which no guest here makes.
        """
        return (self._opcode + _RET).ljust(4096, b"\xcc")

    def interrupt(self, vp: int, vector: int, auto_eoi: bool) -> None:
        """Deliver an interrupt of the SynIC or a timer.

        With AutoEOI the guest sends no end of interrupt; there is no in-service state here that could tell.
        """
        self.partition.interrupt(vp, vector)

    # CPUID

    def _cpuid_leaves(self) -> dict[int, tuple[int, int, int, int]]:
        p, w = self.partition, self.partition.words
        b, c, d = _words(self._vendor)
        ecx = _ECX1 | _ECX1_HYPERVISOR | _ECX1_DEADLINE | (_ECX1_X2APIC if self.lapics.x2apic_available else 0)
        hb, hc, hd = _words("Microsoft Hv")
        brand = f"{'Intel(R) Xeon(R)' if self._vendor == 'GenuineIntel' else 'AMD EPYC'} Processor".ljust(48, "\0")
        leaves = {
            0: (0xD, b, d, c),
            1: (_SIGNATURE[self._vendor], len(p.vp_indices) << 16 & 0xFF_0000, ecx, _EDX1),
            7: (0, 1 << 0 | 1 << 3 | 1 << 8 | 1 << 9, 0, 0),
            0x8000_0000: (0x8000_0008, 0, 0, 0),
            0x8000_0001: (_SIGNATURE[self._vendor], 0, 1, _EDX80000001),
            0x8000_0008: (0x3030 if self._vendor == "AuthenticAMD" else 0x302E, 0, 0, 0),
            0x4000_0000: (w.max_leaf, hb, hc, hd),
            0x4000_0001: (int.from_bytes(b"Hv#1", "little"), 0, 0, 0),
            0x4000_0002: p.build,
            0x4000_0003: (w.privileges_low, w.privileges_high, w.features_c, w.features_d),
            0x4000_0004: (w.recommendations, w.spin_retries, 0, 0),
            0x4000_0005: (w.max_vps, w.max_lps, 0, 0),
            0x4000_0006: (w.hardware, 0, 0, 0),
            0x4000_000A: (w.nested, w.nested_b, 0, 0),
        }
        for n in range(3):
            part = brand[16 * n : 16 * n + 16].encode("ascii")
            quads = [int.from_bytes(part[4 * i : 4 * i + 4], "little") for i in range(4)]
            leaves[0x8000_0002 + n] = (quads[0], quads[1], quads[2], quads[3])
        return {leaf: words for leaf, words in leaves.items() if not w.max_leaf < leaf < 0x8000_0000}

    def cpuid(self, vp: int, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        """Answer CPUID; a leaf that does not exist reads as zeros.

        The processor's own leaves are those of a plain server processor (*unspecified*); the hypervisor's are the
        profile's words.
        """
        if leaf == 1:
            a, b, c, d = self._leaves[1]
            return a, b | (self.partition.hw_id(vp) & 0xFF) << 24, c, d
        if leaf == 0x8000_0007:
            return 0, 0, 0, 1 << 8 if self.partition.tsc_invariant else 0
        if leaf == 7 and subleaf:
            return 0, 0, 0, 0
        return self._leaves.get(leaf, (0, 0, 0, 0))

    # MSRs

    def rdmsr(self, vp: int, n: int) -> int:
        """Read an MSR: synthetic, TSC, local APIC; anything else is #GP."""
        if n in _HYPERVISOR_MSRS:
            status, value = self.partition.try_read(vp, self.registers.get(n))
            if status:
                self.partition.general_protection(n, "not readable")
            return value
        if n == MSR_TSC:
            return self.partition.counter
        if n == MSR_APIC_BASE:
            return self.lapics.states[vp].base
        if n == MSR_TSC_DEADLINE:
            return self.lapics.states[vp].deadline
        if MSR_X2APIC <= n < MSR_X2APIC_END and n not in _WRITE_ONLY and self.lapics.states[vp].x2apic:
            if n == _X2APIC_ICR:
                return self.lapics.states[vp].icr
            return self.lapics.read(vp, (n - MSR_X2APIC) * 16)
        self.partition.record("refused", f"VP {vp} read MSR {n:#x}, which does not exist")
        self.partition.general_protection(n, "no such register")

    def wrmsr(self, vp: int, n: int, v: int) -> None:
        """Write an MSR."""
        if n in _HYPERVISOR_MSRS:
            if self.partition.try_write(vp, self.registers.get(n), v & _MASK64):
                self.partition.general_protection(n, f"{v:#x} refused")
            return
        if n == MSR_TSC_DEADLINE:
            self.lapics.write_deadline(vp, v & _MASK64)
            return
        if n == MSR_APIC_BASE:
            accepted = self.lapics.write_base(vp, v)
        elif MSR_X2APIC <= n < MSR_X2APIC_END and self.lapics.states[vp].x2apic:
            accepted = self._write_x2apic(vp, n, v)
        else:
            accepted = False
        if not accepted:
            self.partition.record("refused", f"VP {vp} wrote {v:#x} to MSR {n:#x}")
            self.partition.general_protection(n, f"{v:#x} refused")

    def _write_x2apic(self, vp: int, n: int, v: int) -> bool:
        offset = (n - MSR_X2APIC) * 16
        if n == _X2APIC_ICR:
            self.lapics.command(vp, v)
            return True
        if offset == SELF_IPI:
            self.lapics.interrupt(vp, v & 0xFF, "sent itself an IPI")
            return True
        return not (offset == EOI and v) and self.lapics.write(vp, offset, v)

    def read_apic(self, vp: int, register: R) -> int:
        """ICR and TPR through their synthetic MSRs."""
        return self.lapics.states[vp].icr if register is R.ICR else self.lapics.read(vp, TPR)

    def write_apic(self, vp: int, register: R, value: int) -> bool:
        """EOI, ICR and TPR through their synthetic MSRs; reserved bits must be zero."""
        if register is R.ICR:
            self.lapics.command(vp, value)
            return True
        if register is R.TPR:
            return not value >> 8 and self.lapics.write(vp, TPR, value)
        return not value >> 32 and self.lapics.write(vp, EOI, value)

    # hypercalls

    def hypercall(self, vp: int, opcode: bytes, regs: tuple[int, ...]) -> tuple[int, ...]:
        """Answer VMCALL or VMMCALL; the module says what ``regs`` are.

        :raises ValueError: ``regs`` has another length than 3, 9, 6 or 12.
        """
        partition = self.partition
        if opcode[:3] != self._opcode or not partition.hypercalls_enabled:
            why = "wrong instruction" if opcode[:3] != self._opcode else "the hypercall page is not enabled"
            partition.record("refused", f"VP {vp}: hypercall by {opcode[:3].hex(' ')}: {why}")
            partition.undefined_opcode(opcode[:3])
        count = len(regs)
        if count in (3, 9):
            control, first, second = regs[0], regs[1], regs[2]
        elif count in (6, 12):
            edx, eax, ebx, ecx, edi, esi = (r & _MASK32 for r in regs[:6])
            control, first, second = edx << 32 | eax, ebx << 32 | ecx, edi << 32 | esi
        else:
            raise ValueError(f"regs has {count} values; a hypercall has 3 or 9 (64-bit), 6 or 12 (32-bit)")
        if control >> 16 & 1:
            block = _PAIR.pack(first & _MASK64, second & _MASK64)
            if count in (3, 6):
                block += _NO_XMM
            else:
                block += b"".join((x & _XMM).to_bytes(16, "little") for x in regs[count - 6 :])
            result, output, at = partition.execute(vp, control, 0, 0, block)
        else:
            result, output, at = partition.execute(vp, control, first & _MASK64, second & _MASK64, None)
            block = b""
        if count in (6, 12):
            # "This is only supported on x64 platforms" (XMM Fast Hypercall Output): the registers stay as they are.
            return result >> 32, result & _MASK32
        if not output:
            return (result, *regs[1:])
        block = block[:at] + output + block[at + len(output) :]
        rdx, r8 = int.from_bytes(block[:8], "little"), int.from_bytes(block[8:16], "little")
        rest = (int.from_bytes(block[n : n + 16], "little") for n in range(16, len(block), 16))
        return (result, rdx, r8, *rest)

    # memory and port access

    def mmio_read(self, vp: int, gpa: int, size: int) -> int:
        """The local APIC's page in xAPIC mode; elsewhere all bits are set, as on a bus where nobody answers."""
        if gpa & ~0xFFF == APIC_BASE and not self.lapics.states[vp].x2apic:
            return self.lapics.read(vp, gpa & 0xFF0)
        return (1 << 8 * size) - 1

    def mmio_write(self, vp: int, gpa: int, size: int, v: int) -> None:
        """The local APIC's page in xAPIC mode; elsewhere nothing happens."""
        if gpa & ~0xFFF == APIC_BASE and not self.lapics.states[vp].x2apic:
            self.lapics.write(vp, gpa & 0xFF0, v)

    def io_in(self, vp: int, port: int, size: int) -> int:
        """The ACPI PM timer; elsewhere all bits are set."""
        if port == _PM_TIMER:
            return self.partition.now * _PM_TIMER_HZ // 10_000_000 & _MASK32
        return (1 << 8 * size) - 1

    def io_out(self, vp: int, port: int, size: int, v: int) -> None:
        """Sleep state S5 through PM1a control and the reset register; elsewhere nothing happens."""
        if port == _PM1A_CONTROL and v >> 13 & 1:
            self.partition.power("off")
        elif port == _RESET_PORT and v & 4:
            self.partition.power("reset")

    # firmware

    def madt(self, shape: FirmwareShape) -> bytes:
        """Local APICs, I/O APIC, interrupt source override for the SCI, NMI on LINT1: as every log has it.

        Generation 1 has the 8254's interrupt overridden too, and one NMI entry for all processors.
        """
        body = pack("<II", APIC_BASE, acpi.ACPI_MADT_PCAT_COMPAT if shape.generation == 1 else 0)
        uid = 0
        for uid, (hw_id, _) in enumerate(shape.processors, 1):
            body += self._processor(uid, hw_id, acpi.ACPI_MADT_ENABLED)
        next_id = max(hw_id for hw_id, _ in shape.processors) + 1
        for extra in range(min(shape.extra_processors, 0xFF - next_id)):
            body += self._processor(uid + 1 + extra, next_id + extra, 0)
        kind = acpi.AcpiMadtType
        head = acpi.AcpiSubtableHeader
        ioapic, override, nmi = acpi.AcpiMadtIoApic, acpi.AcpiMadtInterruptOverride, acpi.AcpiMadtLocalApicNmi
        legacy = shape.generation == 1
        io_id = 0 if legacy else len(shape.processors) & 0xFF
        body += ioapic(head(kind.ACPI_MADT_TYPE_IO_APIC, ioapic.SIZE), io_id, 0, _IOAPIC_BASE, 0).pack()
        source = head(kind.ACPI_MADT_TYPE_INTERRUPT_OVERRIDE, override.SIZE)
        if legacy:
            body += override(source, 0, 0, 2, 0).pack()
        body += override(source, 0, _SCI, _SCI, 0x000D).pack()
        return body + nmi(head(kind.ACPI_MADT_TYPE_LOCAL_APIC_NMI, nmi.SIZE), 0xFF if legacy else 1, 0, 1).pack()

    @staticmethod
    def _processor(uid: int, hw_id: int, flags: int) -> bytes:
        head, kind = acpi.AcpiSubtableHeader, acpi.AcpiMadtType
        if hw_id < 0xFF and uid < 0x100:
            size = acpi.AcpiMadtLocalApic.SIZE
            return acpi.AcpiMadtLocalApic(head(kind.ACPI_MADT_TYPE_LOCAL_APIC, size), uid, hw_id, flags).pack()
        size = acpi.AcpiMadtLocalX2apic.SIZE
        return acpi.AcpiMadtLocalX2apic(head(kind.ACPI_MADT_TYPE_LOCAL_X2APIC, size), 0, hw_id, flags, uid).pack()

    @property
    def srat_revision(self) -> int:
        """``SRAT ... (v02``."""
        return 2

    def srat_processor(self, hw_id: int, uid: int, node: int) -> bytes:
        """A local APIC affinity entry, the x2APIC one where the id needs it."""
        head, kind, on = acpi.AcpiSubtableHeader, acpi.AcpiSratType, acpi.ACPI_SRAT_CPU_ENABLED
        if hw_id < 0xFF:
            xapic = acpi.AcpiSratCpuAffinity
            first = head(kind.ACPI_SRAT_TYPE_CPU_AFFINITY, xapic.SIZE)
            return xapic(first, node & 0xFF, hw_id, on, 0, (node >> 8).to_bytes(3, "little"), 0).pack()
        x2apic = acpi.AcpiSratX2apicCpuAffinity
        first = head(kind.ACPI_SRAT_TYPE_X2APIC_CPU_AFFINITY, x2apic.SIZE)
        return x2apic(first, 0, node, hw_id, on, 0, 0).pack()

    def fadt_fields(self, generation: int) -> Mapping[str, int]:
        """Fixed hardware that the logs show: SCI 9, PM timer at port 0x408, S5 and reset."""
        return {
            "sci_interrupt": _SCI,
            "pm1a_event_block": 0x400,
            "pm1_event_length": 4,
            "pm1a_control_block": _PM1A_CONTROL,
            "pm1_control_length": 2,
            "pm_timer_block": _PM_TIMER,
            "pm_timer_length": 4,
            "gpe0_block": 0x40C,
            "gpe0_block_length": 4,
            "c2_latency": 0xFFFF,
            "c3_latency": 0xFFFF,
            "boot_flags": acpi.ACPI_FADT_LEGACY_DEVICES | acpi.ACPI_FADT_8042 if generation == 1 else 0,
            "flags": acpi.ACPI_FADT_WBINVD | acpi.ACPI_FADT_POWER_BUTTON | acpi.ACPI_FADT_32BIT_TIMER,
        }

    def extra_tables(self) -> Mapping[bytes, tuple[int, bytes]]:
        """WAET: the PM timer reads correctly the first time, the RTC needs no acknowledgement."""
        return {b"WAET": (1, pack("<I", 3))}


_SCI: Final = 9
_IOAPIC_BASE: Final = 0xFEC0_0000
_PM1A_CONTROL: Final = 0x404
_PM_TIMER: Final = 0x408
_PM_TIMER_HZ: Final = 3_579_545
_RESET_PORT: Final = 0xCF9
