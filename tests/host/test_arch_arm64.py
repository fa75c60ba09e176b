"""The hypervisor's arm64 half: SMCCC, PSCI, registers by hypercall, the older convention."""

from __future__ import annotations

from struct import pack, unpack
from typing import Any

import pytest

from hvkernel.host import HvStatus
from hvkernel.machine import UndefinedOpcode
from hvkernel_arm64 import tlfs
from hvkernel_arm64.host import HVC_0, HVC_1, HostArm64

HYPERCALL = 0x4600_0001
SELF, VP_SELF = (1 << 64) - 1, 0xFFFF_FFFE
GET, SET = 0x1_0001_0050, 0x1_0001_0051
GUEST_ID = 0x8100_0006_01C0_0000
NOT_SUPPORTED = (1 << 64) - 1


def test_features_are_words_of_a_register(make_arm64: Any) -> None:
    arm = make_arm64()
    status, low, high = arm.get_register(tlfs.HV_REGISTER_FEATURES)
    assert status == 0, "readable before the guest identified itself"
    assert (low & 0xFFFF_FFFF, low >> 32, high & 0xFFFF_FFFF) == (0x2E7F, 0x3A8030, 0x31E1)
    assert arm.get_register(tlfs.HV_REGISTER_ENLIGHTENMENTS)[1] & 0xFFFF_FFFF == 0xE
    _, low, high = arm.get_register(tlfs.HV_REGISTER_HYPERVISOR_VERSION)
    assert (low >> 48, low >> 32 & 0xFFFF, low & 0xFFFF_FFFF) == (10, 0, 22477)
    assert (high >> 32 & 0xFF_FFFF, high & 0xFFFF_FFFF) == (1061, 1)


def test_the_kernels_own_register_calls(make_arm64: Any) -> None:
    # hv_set_vpreg and hv_get_vpreg_128 (arch/arm64/hyperv/hv_core.c) put name, padding and value into x4 to x7.
    arm = make_arm64()
    x = arm.call(HYPERCALL, SET, SELF, VP_SELF, tlfs.HV_REGISTER_GUEST_OSID, 0, GUEST_ID, 0)
    assert x[0] == 1 << 32
    x = arm.call(HYPERCALL, GET, SELF, VP_SELF, tlfs.HV_REGISTER_GUEST_OSID)
    assert (x[0], x[6], x[7]) == (1 << 32, GUEST_ID, 0)
    assert x[1:6] == (GET, SELF, VP_SELF, tlfs.HV_REGISTER_GUEST_OSID, 0), "the input registers stay"


def test_other_registers_and_calls_wait_for_the_identity(make_arm64: Any) -> None:
    arm = make_arm64()
    assert arm.get_register(tlfs.HV_REGISTER_VP_INDEX)[0] == HvStatus.ACCESS_DENIED
    assert arm.set_register(tlfs.HV_REGISTER_SIMP, 1) == HvStatus.ACCESS_DENIED
    assert arm.call(HYPERCALL, 0x5D | 1 << 16, 1)[0] == HvStatus.ACCESS_DENIED
    assert arm.get_register(tlfs.HV_REGISTER_CRASH_CTL)[0] == 0
    assert arm.set_register(tlfs.HV_REGISTER_GUEST_OSID, GUEST_ID) == 0
    assert arm.get_register(tlfs.HV_REGISTER_VP_INDEX) == (0, 0, 0)


def test_registers_hold_their_values(arm: Any) -> None:
    for n, value in (
        (tlfs.HV_REGISTER_SIMP, 0x80_0001),
        (tlfs.HV_REGISTER_SIEFP, 0x81_0001),
        (tlfs.HV_REGISTER_SINT0 + 2, 18),
        (tlfs.HV_REGISTER_SCONTROL, 1),
        (tlfs.HV_REGISTER_CRASH_P0 + 3, 77),
        (tlfs.HV_REGISTER_STIMER0_CONFIG, 8),
        (tlfs.HV_REGISTER_STIMER0_COUNT, 0),
        (tlfs.HV_REGISTER_REFERENCE_TSC, 0x82_0001),
    ):
        assert arm.set_register(n, value) == 0, hex(n)
        assert arm.get_register(n) == (0, value, 0), hex(n)


@pytest.mark.parametrize("n", [0, 0x0009_0001, 0x000A_0015, 0x000B_0008, 0x4000_0000])
def test_a_register_that_does_not_exist_fails_the_hypercall(arm: Any, n: int) -> None:
    assert arm.get_register(n)[0] == HvStatus.INVALID_PARAMETER
    assert arm.set_register(n, 0) == HvStatus.INVALID_PARAMETER


def test_read_only_registers(arm: Any) -> None:
    # TLFS, Partition Reference Counter Register: "return HV_STATUS_INVALID_PARAMETER".
    assert arm.set_register(tlfs.HV_REGISTER_TIME_REF_COUNT, 1) == HvStatus.INVALID_PARAMETER
    assert arm.set_register(tlfs.HV_REGISTER_VP_INDEX, 1) == HvStatus.INVALID_PARAMETER
    first, second = (arm.get_register(tlfs.HV_REGISTER_TIME_REF_COUNT)[1] for _ in range(2))
    assert first < second
    # TLFS, Virtual Processor Run Time Register: HvRegisterVpRuntime.
    status, spent, _ = arm.get_register(0x0009_0000)
    assert (status, spent > 0) == (0, True)
    assert arm.set_register(0x0009_0000, 1) == HvStatus.INVALID_PARAMETER


def test_a_value_of_more_than_64_bits_is_refused(arm: Any) -> None:
    x = arm.call(HYPERCALL, SET, SELF, VP_SELF, tlfs.HV_REGISTER_SCONTROL, 0, 1, 1)
    assert x[0] == HvStatus.INVALID_PARAMETER


def test_the_memory_form(arm: Any) -> None:
    names = (tlfs.HV_REGISTER_VP_INDEX, tlfs.HV_REGISTER_GUEST_OSID)
    arm.put(0x70_0000, pack("<QIB3s2I", SELF, VP_SELF, 0, b"", *names))
    x = arm.call(HYPERCALL, 0x50 | 2 << 32, 0x70_0000, 0x70_1000, vp=3)
    assert x[0] == 2 << 32
    assert unpack("<4Q", arm.get(0x70_1000, 32)) == (3, 0, GUEST_ID, 0)


def test_three_names_fill_more_registers(arm: Any) -> None:
    # Header 16 bytes and three names: two pairs; three values of 16 bytes from x6 on.
    names = pack("<4I", tlfs.HV_REGISTER_VP_INDEX, tlfs.HV_REGISTER_GUEST_OSID, tlfs.HV_REGISTER_SCONTROL, 0)
    x = arm.call(HYPERCALL, 0x50 | 1 << 16 | 3 << 32, SELF, VP_SELF, *unpack("<2Q", names), *(0,) * 12, vp=2)
    assert x[0] == 3 << 32
    assert x[6:12] == (2, 0, GUEST_ID, 0, 0, 0)


def test_more_than_the_registers_hold_is_refused(arm: Any) -> None:
    x = arm.call(HYPERCALL, 0x50 | 1 << 16 | 7 << 32, SELF, VP_SELF, *(0,) * 14)
    assert x[0] == HvStatus.INVALID_HYPERCALL_INPUT


def test_the_older_convention(arm: Any) -> None:
    x = arm.call(0x08 | 1 << 16, 5, 0, 0, opcode=HVC_1)
    assert x[0] == 0
    header = unpack("<2Q", pack("<QIB3s", SELF, VP_SELF, 0, b""))
    x = arm.call(GET, *header, tlfs.HV_REGISTER_GUEST_OSID, *(0,) * 14, opcode=HVC_1)
    assert x[0] == 1 << 32
    assert x[15:17] == (GUEST_ID, 0), "its output comes in the last pair of registers"


@pytest.mark.parametrize("code", [0x0003, 0x0014, 0x00AF, 0x00B0])
def test_calls_of_the_other_architecture_do_not_exist(arm: Any, code: int) -> None:
    assert arm.call(HYPERCALL, code, 0x70_0000, 0)[0] == HvStatus.INVALID_HYPERCALL_CODE


def test_messages_and_events(arm: Any) -> None:
    flags: list[int] = []
    arm.host.ports.connect_event(7, flags.append)
    assert arm.call(HYPERCALL, 0x5D | 1 << 16, 7 | 3 << 32)[0] == 0
    assert flags == [3]
    arm.host.ports.connect_message(1, lambda vp, kind, payload: HvStatus.SUCCESS)
    arm.put(0x70_0000, pack("<IIII", 1, 0, 1, 4) + b"text".ljust(240, b"\0"))
    assert arm.call(HYPERCALL, 0x5C, 0x70_0000)[0] == 0


def test_the_bus_interrupt_is_a_ppi(arm: Any) -> None:
    arm.set_register(tlfs.HV_REGISTER_SIEFP, 0x81_0001)
    arm.set_register(tlfs.HV_REGISTER_SINT0 + 2, arm.host.arch.vmbus_interrupts[0])
    arm.set_register(tlfs.HV_REGISTER_SCONTROL, 1)
    assert arm.host.synic.signal_event(0, 2, 1)
    arm.idle(arm.machine.clock.now + 100)
    assert [(vp, vector) for vp, vector, _ in arm.interrupts] == [(0, 18)]


# SMCCC and PSCI


@pytest.mark.parametrize(
    ("function", "answer"),
    [
        (0x8000_0000, 0x1_0002),
        (0x8400_0000, 0x1_0000),
        (0x8400_0006, NOT_SUPPORTED),
        (0x8000_0001, NOT_SUPPORTED),
        (0x8600_FF02, NOT_SUPPORTED),
        (0x4600_0002, NOT_SUPPORTED),
    ],
)
def test_standard_calls(arm: Any, function: int, answer: int) -> None:
    x = arm.call(function)
    assert (x[0], len(x)) == (answer, 8)


def test_the_vendor_identity(arm: Any) -> None:
    assert arm.call(0x8600_FF01)[:4] == (0x4D32_BA58, 0xCD24_4764, 0x8EEF_6C75, 0x1659_7024)


def test_psci_starts_a_processor_by_its_mpidr(arm: Any) -> None:
    assert arm.call(0xC400_0004, 0x200, 0)[0] == 1, "off"
    assert arm.call(0xC400_0003, 0x200, 0x8_0000, 0)[0] == 0
    assert arm.machine.vps[2].started
    assert arm.call(0xC400_0004, 0x200, 0)[0] == 0, "on"
    assert arm.call(0xC400_0003, 0x200, 0x8_0000, 0)[0] == (1 << 64) - 4
    assert arm.call(0xC400_0003, 0x999, 0x8_0000, 0)[0] == (1 << 64) - 2
    assert arm.call(0xC400_0004, 0x999, 0)[0] == (1 << 64) - 2
    assert arm.call(0xC400_0004, 0, 0)[0] == 0, "the boot processor"


def test_psci_stops_the_caller(arm: Any) -> None:
    arm.call(0xC400_0003, 0x100, 0x8_0000, 0)
    arm.machine.spawn(
        lambda: arm.machine.vps[1].hypercall(HVC_0, (0x8400_0002, 0, 0, 0)), name="off", vp=arm.machine.vps[1]
    )
    arm.idle(arm.machine.clock.now + 1000)
    assert not arm.machine.vps[1].started
    assert arm.call(0xC400_0004, 0x100, 0)[0] == 1
    assert arm.call(0xC400_0003, 0x100, 0x8_0000, 0)[0] == 0


@pytest.mark.parametrize(("function", "kind"), [(0x8400_0008, "off"), (0x8400_0009, "reset")])
def test_psci_power(arm: Any, function: int, kind: str) -> None:
    arm.call(function)
    assert [event for _, event in arm.host.power_events] == [kind]


def test_psci_features(arm: Any) -> None:
    assert arm.call(0x8400_000A, 0xC400_0003)[0] == 0
    assert arm.call(0x8400_000A, 0x8400_0007)[0] == NOT_SUPPORTED


# what is not there


@pytest.mark.parametrize("opcode", [b"\x03\x00\x00\xd4", b"\x42\x00\x00\xd4", b"\x0f\x01\xc1"])
def test_other_instructions_are_undefined(arm: Any, opcode: bytes) -> None:
    with pytest.raises(UndefinedOpcode):
        arm.call(HYPERCALL, 8, opcode=opcode)


def test_there_are_no_msrs_and_no_cpuid(arm: Any) -> None:
    for code in (lambda vp: vp.rdmsr(0x10), lambda vp: vp.wrmsr(0x10, 0), lambda vp: vp.cpuid(1)):
        with pytest.raises(UndefinedOpcode):
            arm.run(code)


def test_a_wrong_number_of_registers_is_the_callers_mistake(arm: Any) -> None:
    with pytest.raises(ValueError, match="regs has 3 values"):
        arm.run(lambda vp: vp.hypercall(HVC_0, (HYPERCALL, 8, 0)))
    with pytest.raises(ValueError, match="regs has 19 values"):
        arm.run(lambda vp: vp.hypercall(HVC_0, (0,) * 19))


def test_feature_bits_are_group_c(arm: Any) -> None:
    features = HostArm64().features(arm.profile.cpuid)
    assert (features.crash_registers, features.direct_stimer) == (True, True)
    assert (features.fast_input_extended, features.fast_output, features.frequency_registers) == (True, True, False)


def test_a_crash_is_reported_by_register(arm: Any) -> None:
    for n in range(5):
        arm.set_register(tlfs.HV_REGISTER_CRASH_P0 + n, n + 1)
    arm.set_register(tlfs.HV_REGISTER_CRASH_CTL, 1 << 63)
    assert arm.host.registers.crashes[0].parameters == (1, 2, 3, 4, 5)
