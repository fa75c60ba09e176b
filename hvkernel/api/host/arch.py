"""The hypervisor's architecture half: what an architecture brings, and what it sees of the partition.

The hypervisor itself knows synthetic registers by what they do (:class:`SyntheticRegister`), hypercalls by call
code, and interrupts by vector. An :class:`ArchHost` turns the traps of its processors into those: register numbers,
the CPUID leaves, the registers of a hypercall, the interrupt controller, and the firmware tables that describe
processors. One ``ArchHost`` belongs to one partition; :meth:`ArchHost.attach` is called once, before the first trap.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NoReturn, Protocol

__all__ = [
    "ArchFeatures",
    "ArchHost",
    "FeatureWords",
    "FirmwareShape",
    "Partition",
    "PendingCall",
    "ProcessorView",
    "SyntheticRegister",
]


class SyntheticRegister(IntEnum):
    """Synthetic registers by meaning. Values are ours; the numbers that a guest uses are the architecture's."""

    GUEST_OS_ID = 0
    HYPERCALL = 1
    VP_INDEX = 2
    RESET = 3
    VP_RUNTIME = 4
    TIME_REF_COUNT = 5
    REFERENCE_TSC = 6
    TSC_FREQUENCY = 7
    APIC_FREQUENCY = 8
    EOI = 9
    ICR = 10
    TPR = 11
    VP_ASSIST_PAGE = 12
    SCONTROL = 13
    SVERSION = 14
    SIEFP = 15
    SIMP = 16
    EOM = 17
    GUEST_IDLE = 18
    CRASH_P0 = 19
    CRASH_P1 = 20
    CRASH_P2 = 21
    CRASH_P3 = 22
    CRASH_P4 = 23
    CRASH_CTL = 24
    REENLIGHTENMENT_CONTROL = 25
    TSC_EMULATION_CONTROL = 26
    TSC_EMULATION_STATUS = 27
    TSC_INVARIANT_CONTROL = 28
    HYPERVISOR_VERSION = 29
    PRIVILEGES_AND_FEATURES = 30
    FEATURES = 31
    IMPLEMENTATION_LIMITS = 32
    HARDWARE_FEATURES = 33
    SINT0 = 64
    SINT1 = 65
    SINT2 = 66
    SINT3 = 67
    SINT4 = 68
    SINT5 = 69
    SINT6 = 70
    SINT7 = 71
    SINT8 = 72
    SINT9 = 73
    SINT10 = 74
    SINT11 = 75
    SINT12 = 76
    SINT13 = 77
    SINT14 = 78
    SINT15 = 79
    STIMER0_CONFIG = 96
    STIMER0_COUNT = 97
    STIMER1_CONFIG = 98
    STIMER1_COUNT = 99
    STIMER2_CONFIG = 100
    STIMER2_COUNT = 101
    STIMER3_CONFIG = 102
    STIMER3_COUNT = 103


class FeatureWords(Protocol):
    """The words that announce what this host grants (TLFS: Feature and Interface Discovery)."""

    @property
    def max_leaf(self) -> int:
        """Highest CPUID leaf of the hypervisor range."""
        ...

    @property
    def privileges_low(self) -> int: ...

    @property
    def privileges_high(self) -> int: ...

    @property
    def features_c(self) -> int: ...

    @property
    def features_d(self) -> int: ...

    @property
    def recommendations(self) -> int: ...

    @property
    def spin_retries(self) -> int: ...

    @property
    def max_vps(self) -> int: ...

    @property
    def max_lps(self) -> int: ...

    @property
    def hardware(self) -> int: ...

    @property
    def nested(self) -> int: ...

    @property
    def nested_b(self) -> int: ...


class ProcessorView(Protocol):
    """What the profile says of the processors."""

    @property
    def vendor(self) -> str: ...

    @property
    def counter_hz(self) -> int:
        """Frequency of the processor's own counter in Hz."""
        ...

    @property
    def apic_hz(self) -> int: ...

    @property
    def x2apic(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class ArchFeatures:
    """Features whose bits differ between architectures, as the hypervisor asks for them."""

    frequency_registers: bool = False
    crash_registers: bool = False
    direct_stimer: bool = False
    guest_idle: bool = False
    sint_polling: bool = False
    fast_input_extended: bool = False
    """Fast hypercalls may carry more than two 64-bit parameters."""
    fast_output: bool = False


@dataclass(frozen=True, slots=True)
class FirmwareShape:
    """What the ACPI tables need to know of the machine, in plain numbers."""

    processors: tuple[tuple[int, int], ...]
    """``(hw_id, node)`` of every VP, ascending, which is the order of the tables."""
    extra_processors: int
    """Disabled entries after them."""
    generation: int
    low_mmio: tuple[int, int]
    """First and last byte of the MMIO window below 4 GiB."""


class PendingCall(Protocol):
    """A call that waits for its time."""

    def cancel(self) -> object:
        """Drop it; nothing happens when it already ran."""
        ...


class Partition(Protocol):
    """What an :class:`ArchHost` sees of the partition it belongs to."""

    @property
    def vp_indices(self) -> Sequence[int]:
        """All VP indices, ascending."""
        ...

    @property
    def boot_vp(self) -> int:
        """VP index of the processor that runs first."""
        ...

    @property
    def now(self) -> int:
        """Reference time of the partition in 100 ns units."""
        ...

    @property
    def words(self) -> FeatureWords: ...

    @property
    def build(self) -> tuple[int, int, int, int]:
        """The version words (CPUID leaf 0x40000002)."""
        ...

    @property
    def processor(self) -> ProcessorView: ...

    @property
    def hypercalls_enabled(self) -> bool:
        """Whether the guest identified itself and, where one is needed, enabled the hypercall page."""
        ...

    @property
    def tsc_invariant(self) -> bool:
        """Whether the guest asked to see the invariant TSC."""
        ...

    def hw_id(self, vp: int) -> int:
        """The number by which the hardware addresses a VP (APIC id, MPIDR)."""
        ...

    def vp_of(self, hw_id: int) -> int | None:
        """The VP with that number, or ``None``."""
        ...

    def try_read(self, vp: int, register: SyntheticRegister | None) -> tuple[int, int]:
        """Return ``(HV_STATUS, value)``; ``None`` is a register that does not exist."""
        ...

    def try_write(self, vp: int, register: SyntheticRegister | None, value: int) -> int:
        """Write a synthetic register and return the HV_STATUS; ``None`` is a register that does not exist."""
        ...

    def execute(
        self, vp: int, control: int, input_gpa: int, output_gpa: int, block: bytes | None
    ) -> tuple[int, bytes, int]:
        """Execute a hypercall.

        :param block: the registers of a fast call as bytes, ``None`` for the memory form.
        :returns: result value, bytes of fast output (empty in the memory form), and where in ``block`` they go.
        """
        ...

    def start_vp(self, vp: int) -> bool:
        """Let a VP run its start-up code. False when it runs already."""
        ...

    def runs_vp(self, vp: int) -> bool:
        """Whether a VP was started and not stopped since."""
        ...

    def stop_vp(self, vp: int) -> None:
        """The VP stops running if it does; it can be started again."""
        ...

    def interrupt(self, vp: int, vector: int) -> None:
        """Make an interrupt pending on a VP."""
        ...

    def end_of_interrupt(self, vp: int) -> None:
        """The VP ended an interrupt: queued messages are looked at again (TLFS: SynIC Messages)."""
        ...

    @property
    def counter(self) -> int:
        """The processors' own counter (TSC, CNTVCT) now."""
        ...

    def at(self, when: int, call: Callable[[], None]) -> PendingCall:
        """Run ``call`` when the reference time is ``when``; at once if that is past."""
        ...

    def power(self, kind: str) -> None:
        """The guest asked for ``"reset"`` or ``"off"``."""
        ...

    def general_protection(self, register: int, why: str) -> NoReturn:
        """Refuse a register access with #GP."""
        ...

    def undefined_opcode(self, opcode: bytes) -> NoReturn:
        """Refuse an instruction."""
        ...

    def record(self, kind: str, text: str) -> None:
        """Add a finding of the host: something that was tolerated, refused, or would have been throttled."""
        ...


class ArchHost(Protocol):
    """The architecture's half of the hypervisor."""

    @property
    def registers(self) -> Mapping[int, SyntheticRegister]:
        """The synthetic registers that exist here, by the number that a guest uses."""
        ...

    @property
    def needs_hypercall_page(self) -> bool:
        """Whether hypercalls go through a page that the guest must enable first."""
        ...

    @property
    def unknown_calls(self) -> frozenset[int]:
        """Call codes that do not exist on this architecture."""
        ...

    @property
    def interrupt_entry_size(self) -> int:
        """Size of hv_interrupt_entry in bytes."""
        ...

    @property
    def register_calls_need_privilege(self) -> bool:
        """Whether HvGetVpRegisters on oneself needs AccessVpRegisters."""
        ...

    @property
    def early_registers(self) -> frozenset[SyntheticRegister]:
        """Registers that may be read and written before the guest identified itself."""
        ...

    def attach(self, partition: Partition) -> None:
        """Take the partition that this half belongs to. Called once, before the first trap."""
        ...

    def prepare(self, vendor: str) -> None:
        """Take the processor's vendor. Called first of all."""
        ...

    def features(self, words: FeatureWords) -> ArchFeatures:
        """Decode the architecture's own feature bits."""
        ...

    def hypercall_page(self) -> bytes:
        """The 4096 bytes of the hypercall page."""
        ...

    def interrupt(self, vp: int, vector: int, auto_eoi: bool) -> None:
        """Deliver an edge-triggered interrupt of the SynIC or a synthetic timer."""
        ...

    # traps

    def cpuid(self, vp: int, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        """Answer CPUID."""
        ...

    def rdmsr(self, vp: int, n: int) -> int:
        """Answer a read of a model specific register."""
        ...

    def wrmsr(self, vp: int, n: int, v: int) -> None:
        """Answer a write of a model specific register."""
        ...

    def hypercall(self, vp: int, opcode: bytes, regs: tuple[int, ...]) -> tuple[int, ...]:
        """Answer the hypercall instruction. Each architecture documents its ``regs``."""
        ...

    def mmio_read(self, vp: int, gpa: int, size: int) -> int:
        """Answer a read outside RAM."""
        ...

    def mmio_write(self, vp: int, gpa: int, size: int, v: int) -> None:
        """Answer a write outside RAM."""
        ...

    def io_in(self, vp: int, port: int, size: int) -> int:
        """Answer a port read."""
        ...

    def io_out(self, vp: int, port: int, size: int, v: int) -> None:
        """Answer a port write."""
        ...

    # synthetic registers that belong to the interrupt controller

    def read_apic(self, vp: int, register: SyntheticRegister) -> int:
        """Read EOI, ICR or TPR."""
        ...

    def write_apic(self, vp: int, register: SyntheticRegister, value: int) -> bool:
        """Write EOI, ICR or TPR; false when the value is refused."""
        ...

    # firmware

    def madt(self, shape: FirmwareShape) -> bytes:
        """Body of the MADT, after the header."""
        ...

    @property
    def srat_revision(self) -> int:
        """Revision of the SRAT, as published logs have it."""
        ...

    def srat_processor(self, hw_id: int, uid: int, node: int) -> bytes:
        """The SRAT entry that ties a processor to a node."""
        ...

    def fadt_fields(self, generation: int) -> Mapping[str, int]:
        """FADT fields that differ from zero, by their kernel names (include/acpi/actbl.h: acpi_table_fadt)."""
        ...

    def extra_tables(self) -> Mapping[bytes, tuple[int, bytes]]:
        """More tables: signature to revision and body."""
        ...

    @property
    def vmbus_interrupts(self) -> tuple[int, ...]:
        """Global interrupt numbers for the extended interrupt descriptor of the VMBus device, empty without one."""
        ...
