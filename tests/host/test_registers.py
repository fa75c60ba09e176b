"""Synthetic registers: which exist, which are granted, what they hold, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hvkernel.machine import GeneralProtectionFault
from hvkernel_x86 import tlfs as x86

GUEST_ID = 0x8100_0006_01C0_0000


def gp(rig: Any, fn: Callable[[Any], object]) -> GeneralProtectionFault:
    """Run guest code that must take a #GP."""

    def body(vp: Any) -> GeneralProtectionFault | None:
        try:
            fn(vp)
        except GeneralProtectionFault as fault:
            return fault
        return None

    fault: GeneralProtectionFault | None = rig.run(body)
    assert fault is not None, "no #GP"
    return fault


READ_ONLY = (
    x86.HV_REGISTER_VP_INDEX, x86.HV_REGISTER_TIME_REF_COUNT, x86.HV_X64_MSR_TSC_FREQUENCY,
    x86.HV_X64_MSR_APIC_FREQUENCY, x86.HV_REGISTER_SVERSION, x86.HV_X64_MSR_VP_RUNTIME, x86.HV_X64_MSR_GUEST_IDLE,
)  # fmt: skip
KEPT = (
    (x86.HV_X64_MSR_GUEST_OS_ID, GUEST_ID),
    (x86.HV_REGISTER_CRASH_P0, 0x1234),
    (x86.HV_REGISTER_CRASH_P4, (1 << 64) - 1),
    (x86.HV_X64_MSR_REENLIGHTENMENT_CONTROL, 0x3_0001_00EE),
    (x86.HV_X64_MSR_TSC_EMULATION_CONTROL, 1),
    (x86.HV_REGISTER_SINT0, 0x1_0000),
    (x86.HV_REGISTER_SINT15, 0x2_00F3),
    (x86.HV_REGISTER_SCONTROL, 0xFFFE),
    (x86.HV_REGISTER_STIMER0_CONFIG + 6, 0x2_0008),
    (x86.HV_REGISTER_STIMER0_COUNT + 6, 77),
    (x86.HV_X64_MSR_TPR, 0x20),
)


@pytest.mark.parametrize("n", READ_ONLY)
def test_a_read_only_register_can_be_read_and_not_written(rig: Any, n: int) -> None:
    rig.read(n)
    gp(rig, lambda vp: vp.wrmsr(n, 0))
    assert any("INVALID_PARAMETER" in text for text in rig.findings("refused"))


@pytest.mark.parametrize(("n", "value"), KEPT)
def test_a_register_keeps_what_was_written(rig: Any, n: int, value: int) -> None:
    rig.write(n, value)
    assert rig.read(n) == value


def test_registers_have_their_reset_values(rig: Any) -> None:
    assert [rig.read(x86.HV_REGISTER_SINT0 + n) for n in range(16)] == [0x1_0000] * 16
    zeros = (x86.HV_REGISTER_SIMP, x86.HV_REGISTER_SIEFP, x86.HV_REGISTER_SCONTROL, x86.HV_X64_MSR_VP_ASSIST_PAGE)
    assert [rig.read(n) for n in zeros] == [0, 0, 0, 0]
    assert [rig.read(x86.HV_REGISTER_STIMER0_CONFIG + n) for n in range(8)] == [0] * 8
    assert rig.read(x86.HV_REGISTER_SVERSION) == 1
    assert rig.read(x86.HV_REGISTER_EOM) == 0
    assert rig.read(x86.HV_REGISTER_REFERENCE_TSC) == 0


@pytest.mark.parametrize("n", [0x4000_0004, 0x4000_00A0, 0x4000_00B8, 0x4000_0109, 0x4000_01FF])
def test_a_register_that_does_not_exist_is_a_gp(rig: Any, n: int) -> None:
    assert gp(rig, lambda vp: vp.rdmsr(n)).register == n
    assert gp(rig, lambda vp: vp.wrmsr(n, 1)).register == n


# Each privilege bit of the low word, the profile that lacks it, and a register behind it.
@pytest.mark.parametrize(
    ("profile", "n"),
    [
        ("azure-gen2", x86.HV_X64_MSR_RESET),  # bit 7 is in no log
        ("azure-gen2", x86.HV_X64_MSR_TSC_INVARIANT_CONTROL),  # bit 15
        ("ws2008r2", x86.HV_REGISTER_REFERENCE_TSC),  # bit 9
        ("ws2008r2", x86.HV_X64_MSR_GUEST_IDLE),  # bit 10
        ("ws2008r2", x86.HV_X64_MSR_TSC_FREQUENCY),  # bit 11
        ("ws2012r2", x86.HV_X64_MSR_REENLIGHTENMENT_CONTROL),  # bit 13
        ("ws2012", x86.HV_REGISTER_CRASH_CTL),  # EDX bit 10
    ],
)
def test_an_unannounced_register_is_a_gp(make_x86: Any, profile: str, n: int) -> None:
    rig = make_x86(profile)
    assert gp(rig, lambda vp: vp.rdmsr(n)).register == n
    gp(rig, lambda vp: vp.wrmsr(n, 0))
    assert sum("ACCESS_DENIED" in text for text in rig.findings("refused")) == 2


def test_an_announced_register_of_the_same_kind_is_not(make_x86: Any) -> None:
    rig = make_x86("ws2022")
    rig.write(x86.HV_X64_MSR_TSC_INVARIANT_CONTROL, 1)
    assert rig.run(lambda vp: vp.cpuid(0x8000_0007))[3] >> 8 & 1 == 1
    gp(rig, lambda vp: vp.wrmsr(x86.HV_X64_MSR_TSC_INVARIANT_CONTROL, 2))


def test_the_invariant_tsc_is_hidden_until_the_guest_asks(make_x86: Any) -> None:
    assert make_x86("ws2022").run(lambda vp: vp.cpuid(0x8000_0007)) == (0, 0, 0, 0)


def test_a_vp_reads_its_own_index_whatever_its_apic_id(rig: Any) -> None:
    assert [rig.read(x86.HV_REGISTER_VP_INDEX, vp) for vp in range(4)] == [0, 1, 2, 3]
    assert [rig.run(lambda vp: vp.cpuid(1), vp)[1] >> 24 for vp in range(4)] == [0, 2, 4, 6]


def test_per_vp_registers_are_per_vp_and_partition_wide_ones_are_not(rig: Any) -> None:
    rig.write(x86.HV_REGISTER_SINT3, 0x55, 1)
    assert rig.read(x86.HV_REGISTER_SINT3, 0) == 0x1_0000
    assert rig.read(x86.HV_REGISTER_SINT3, 1) == 0x55
    rig.write(x86.HV_REGISTER_CRASH_P1, 9, 1)
    assert rig.read(x86.HV_REGISTER_CRASH_P1, 3) == 9


@pytest.mark.parametrize("vector", [0, 1, 15])
def test_an_unmasked_sint_needs_a_valid_vector(rig: Any, vector: int) -> None:
    gp(rig, lambda vp: vp.wrmsr(x86.HV_REGISTER_SINT2, vector))
    assert rig.read(x86.HV_REGISTER_SINT2) == 0x1_0000, "a refused write changes nothing"
    rig.write(x86.HV_REGISTER_SINT2, vector | 1 << 16)


def test_frequencies_are_the_profiles(rig: Any) -> None:
    assert rig.read(x86.HV_X64_MSR_TSC_FREQUENCY) == 2_793_438_000
    assert rig.read(x86.HV_X64_MSR_APIC_FREQUENCY) // 250 == 0xC3500, "LAPIC Timer Frequency of log 01 at HZ=250"


# the hypercall page


def test_the_hypercall_page_needs_an_identity(make_x86: Any) -> None:
    rig = make_x86()
    rig.write(x86.HV_X64_MSR_HYPERCALL, 0x60_0001)
    assert rig.read(x86.HV_X64_MSR_HYPERCALL) == 0x60_0000, "the enable bit stays zero"
    rig.write(x86.HV_X64_MSR_GUEST_OS_ID, GUEST_ID)
    rig.write(x86.HV_X64_MSR_HYPERCALL, 0x60_0001)
    assert rig.read(x86.HV_X64_MSR_HYPERCALL) == 0x60_0001


@pytest.mark.parametrize(("profile", "code"), [("azure-gen2", "0f01c1c3"), ("ws2022", "0f01d9c3")])
def test_the_page_holds_the_vendors_instruction_and_a_return(make_x86: Any, profile: str, code: str) -> None:
    rig = make_x86(profile)
    rig.enable()
    assert rig.get(0x60_0000, 4).hex() == code


def test_the_page_covers_what_was_there_and_gives_it_back(make_x86: Any) -> None:
    rig = make_x86()
    rig.put(0x60_0000, b"mine")
    rig.enable()
    assert rig.get(0x60_0000, 3) == rig.opcode != b"min"
    rig.write(x86.HV_X64_MSR_HYPERCALL, 0x61_0001)
    assert rig.get(0x60_0000, 4) == b"mine"
    assert rig.get(0x61_0000, 3) == rig.opcode
    rig.write(x86.HV_X64_MSR_HYPERCALL, 0x61_0000)
    assert rig.get(0x61_0000, 3) == bytes(3)


def test_a_write_to_the_hypercall_page_faults_and_changes_nothing(rig: Any) -> None:
    before = rig.get(0x60_0000, 4096)
    with pytest.raises(GeneralProtectionFault, match="read-only overlay 'hypercall page'"):
        rig.put(0x60_0000, b"\x90")
    assert rig.get(0x60_0000, 4096) == before


def test_clearing_the_identity_disables_the_page(rig: Any) -> None:
    rig.put(0x60_0000 + 0x1000, b"x")
    rig.write(x86.HV_X64_MSR_GUEST_OS_ID, 0)
    assert rig.read(x86.HV_X64_MSR_HYPERCALL) == 0x60_0000
    assert rig.get(0x60_0000, 3) == bytes(3)


def test_the_page_cannot_be_moved_beyond_memory(rig: Any) -> None:
    gp(rig, lambda vp: vp.wrmsr(x86.HV_X64_MSR_HYPERCALL, 1 << 45 | 1))
    assert not rig.read(x86.HV_X64_MSR_HYPERCALL) & 1


def test_a_locked_page_is_immutable(rig: Any) -> None:
    rig.write(x86.HV_X64_MSR_HYPERCALL, 0x60_0003)
    gp(rig, lambda vp: vp.wrmsr(x86.HV_X64_MSR_HYPERCALL, 0x61_0001))
    assert rig.read(x86.HV_X64_MSR_HYPERCALL) == 0x60_0003


# crash


def test_a_crash_is_recorded_with_its_parameters_and_message(rig: Any) -> None:
    assert rig.read(x86.HV_REGISTER_CRASH_CTL) == 0xC000_0000_0000_0000
    text = b"Kernel panic - not syncing: test"
    rig.put(0x70_0000, text)
    for n, value in enumerate((0, 0, 0, 0x70_0000, len(text))):
        rig.write(x86.HV_REGISTER_CRASH_P0 + n, value)
    rig.write(x86.HV_REGISTER_CRASH_CTL, 1 << 63 | 1 << 62, 2)
    (report,) = rig.host.registers.crashes
    assert (report.message, report.vp, report.parameters) == (text, 2, (0, 0, 0, 0x70_0000, len(text)))
    assert len(rig.findings("guest-crash")) == 1


@pytest.mark.parametrize(("gpa", "size"), [(0x70_0000, 4097), (1 << 50, 16)])
def test_a_crash_message_that_cannot_be_read_is_left_out(rig: Any, gpa: int, size: int) -> None:
    rig.write(x86.HV_REGISTER_CRASH_P3, gpa)
    rig.write(x86.HV_REGISTER_CRASH_P4, size)
    rig.write(x86.HV_REGISTER_CRASH_CTL, 1 << 63 | 1 << 62)
    assert rig.host.registers.crashes[0].message == b""
    assert len(rig.findings("tolerated")) == 1


def test_a_crash_control_without_the_notify_bit_reports_nothing(rig: Any) -> None:
    rig.write(x86.HV_REGISTER_CRASH_CTL, 1 << 62)
    assert rig.host.registers.crashes == []


def test_old_hosts_take_no_message(make_x86: Any) -> None:
    assert make_x86("ws2012r2").read(x86.HV_REGISTER_CRASH_CTL) == 1 << 63


def test_reset_puts_everything_back(rig: Any) -> None:
    rig.enable_synic()
    rig.write(x86.HV_X64_MSR_VP_ASSIST_PAGE, 0x90_0001)
    rig.host.reset()
    assert rig.machine.memory.overlays.all() == ()
    assert rig.machine.ledger.entries() == ()
    assert rig.read(x86.HV_REGISTER_SINT2) == 0x1_0000
    assert rig.read(x86.HV_X64_MSR_GUEST_OS_ID) == 0
