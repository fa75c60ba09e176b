"""The hypercall interface: every check of the input, every call, the right HV_STATUS."""

from __future__ import annotations

from collections.abc import Sequence
from struct import pack, unpack
from typing import Any

import pytest

from hvkernel.host import HvStatus
from hvkernel.machine import UndefinedOpcode

FLUSH, FLUSH_LIST, SPIN, IPI = 0x02, 0x03, 0x08, 0x0B
FLUSH_EX, FLUSH_LIST_EX, IPI_EX = 0x13, 0x14, 0x15
PARTITION_ID, GET, SET, POST, SIGNAL, RETARGET, START = 0x46, 0x50, 0x51, 0x5C, 0x5D, 0x7E, 0x99
QUERY, HEAT = 0x8001, 0x8003
SELF = (1 << 64) - 1
INPUT, OUTPUT = 0x70_0000, 0x70_1000
FAST = 1 << 16


def var(words: int) -> int:
    return words << 17


def reps(count: int, start: int = 0) -> int:
    return count << 32 | start << 48


def flush(mask: int = 1, flags: int = 0) -> bytes:
    return pack("<QQQ", 0, flags, mask)


def message(connection: int = 1, kind: int = 1, size: int = 8, payload: bytes = b"") -> bytes:
    return pack("<IIII", connection, 0, kind, size) + payload.ljust(240, b"\0")


# the control word


@pytest.mark.parametrize("code", [0x0001, 0x00FF, 0x8002, 0xFFFF])
def test_an_unknown_code(rig: Any, code: int) -> None:
    assert rig.hypercall(code) == HvStatus.INVALID_HYPERCALL_CODE


@pytest.mark.parametrize("bit", [*range(27, 32), *range(44, 48), *range(60, 64)])
def test_a_reserved_bit(rig: Any, bit: int) -> None:
    assert rig.hypercall(FLUSH | 1 << bit, flush()) == HvStatus.INVALID_HYPERCALL_INPUT


@pytest.mark.parametrize(
    "control",
    [
        FLUSH | reps(1),
        FLUSH | reps(0, 1),
        FLUSH | var(1),
        FLUSH_LIST,
        FLUSH_LIST | reps(2, 2),
        FLUSH_LIST | reps(2, 3),
        FLUSH_LIST | reps(1) | var(1),
        SIGNAL | FAST | reps(1),
    ],
)
def test_reps_and_variable_headers_where_they_do_not_belong(rig: Any, control: int) -> None:
    assert rig.regs(control, INPUT, OUTPUT)[0] == HvStatus.INVALID_HYPERCALL_INPUT


@pytest.mark.parametrize("offset", [1, 2, 4, 7])
def test_a_misaligned_parameter(rig: Any, offset: int) -> None:
    assert rig.regs(FLUSH, INPUT + offset, 0)[0] == HvStatus.INVALID_ALIGNMENT
    assert rig.regs(QUERY, 0, OUTPUT + offset)[0] == HvStatus.INVALID_ALIGNMENT


def test_an_input_may_end_at_a_page_and_not_cross_it(rig: Any) -> None:
    assert rig.regs(FLUSH, INPUT + 4096 - 24, 0)[0] == 0
    assert rig.regs(FLUSH, INPUT + 4096 - 16, 0)[0] == HvStatus.INVALID_ALIGNMENT
    rig.put(INPUT, flush())
    assert rig.regs(FLUSH_LIST | reps(509), INPUT, 0)[0] == 509 << 32, "24 + 509 * 8 bytes are a page"
    assert rig.regs(FLUSH_LIST | reps(510), INPUT, 0)[0] == HvStatus.INVALID_ALIGNMENT


def test_an_input_beyond_memory_and_in_a_hole(make_x86: Any) -> None:
    rig = make_x86(memory=2 << 30)
    rig.enable()
    assert rig.regs(FLUSH, 1 << 46, 0)[0] == HvStatus.INVALID_ALIGNMENT
    assert rig.regs(FLUSH, 0xF000_0000, 0)[0] == HvStatus.INVALID_ALIGNMENT
    assert rig.regs(QUERY, 0, 0xF000_0000)[0] == HvStatus.INVALID_ALIGNMENT
    beyond, *holes = rig.findings("refused")
    assert "beyond the GPA space" in beyond
    assert all("memory intercept" in hole for hole in holes)


def test_unused_pointers_are_ignored(rig: Any) -> None:
    rig.put(INPUT, flush())
    assert rig.regs(FLUSH, INPUT, 0xDEAD_BEEF_1)[0] == 0
    assert rig.regs(QUERY, 0xDEAD_BEEF_1, OUTPUT)[0] == 0


def test_a_parameter_on_an_overlay_page_is_a_finding(rig: Any) -> None:
    rig.enable_synic()
    rig.put(0x80_0800, flush())
    assert rig.regs(FLUSH, 0x80_0800, 0)[0] == 0
    assert rig.findings("undefined") == ["hypercall input at GPA 0x800800 lies on the SIM page of VP 0"]


def test_output_on_a_read_only_overlay_is_refused(rig: Any) -> None:
    before = rig.get(0x60_0000, 16)
    assert rig.regs(QUERY, 0, 0x60_0000)[0] == HvStatus.INVALID_ALIGNMENT
    assert rig.get(0x60_0000, 16) == before


def test_input_and_output_may_not_overlap(rig: Any) -> None:
    rig.put(INPUT, pack("<QIB3s", SELF, 0, 0, b"") + pack("<II", 0, 0))
    assert rig.regs(GET | reps(1), INPUT, INPUT + 16)[0] == HvStatus.INVALID_ALIGNMENT


# instruction and form


def test_the_wrong_instruction_and_a_disabled_page_are_ud(make_x86: Any) -> None:
    rig = make_x86()

    def invoke(opcode: bytes) -> None:
        rig.run(lambda vp: vp.hypercall(opcode, (SPIN | FAST, 1, 0)))

    with pytest.raises(UndefinedOpcode):
        invoke(b"\x0f\x01\xc1")
    rig.enable()
    invoke(b"\x0f\x01\xc1")
    with pytest.raises(UndefinedOpcode):
        invoke(b"\x0f\x01\xd9")


@pytest.mark.parametrize("code", [POST, PARTITION_ID, QUERY, RETARGET])
def test_calls_without_a_fast_form(make_x86: Any, code: int) -> None:
    rig = make_x86()
    rig.enable()
    status = rig.fast(code)
    assert status == (HvStatus.ACCESS_DENIED if code == PARTITION_ID else HvStatus.INVALID_HYPERCALL_INPUT)


def test_extended_fast_input_reaches_into_the_xmm_registers(rig: Any) -> None:
    # HvCallFlushVirtualAddressSpace: 24 bytes, the mask is the low half of XMM0.
    assert rig.fast(FLUSH, 0, 0, 1, 0, 0, 0, 0, 0) == 0
    assert rig.fast(FLUSH, 0, 1 << 9, 1, 0, 0, 0, 0, 0) == HvStatus.INVALID_PARAMETER
    assert rig.fast(FLUSH_LIST | reps(11), 0, 0, 1, 0, 0, 0, 0, 0) == 11 << 32, "24 + 11 * 8 = 112 bytes"
    assert rig.fast(FLUSH_LIST | reps(12), 0, 0, 1, 0, 0, 0, 0, 0) == HvStatus.INVALID_HYPERCALL_INPUT


def test_extended_fast_input_that_is_not_announced_is_ud(make_x86: Any) -> None:
    rig = make_x86("ws2008r2")
    rig.enable()
    assert rig.fast(SPIN, 1) == 0
    with pytest.raises(UndefinedOpcode):
        rig.fast(FLUSH, 0, 0, 1, 0, 0, 0, 0, 0)


def test_fast_output_follows_the_input(rig: Any) -> None:
    # Header of 16 bytes and one name of 4: two pairs of registers; the value comes in XMM1.
    header = unpack("<QQ", pack("<QIB3s", SELF, 0xFFFF_FFFE, 0, b""))
    name = 0x4000_0022
    out = rig.regs(GET | FAST | reps(1), *header, name, 0, 0, 0, 0, 0)
    assert out == (1 << 32, *header, name, 2_793_438_000, 0, 0, 0, 0)


def test_a_32_bit_caller_uses_pairs_of_registers(rig: Any) -> None:
    rig.put(INPUT, flush())
    assert rig.regs(0, FLUSH, 0, INPUT, 0, 0) == (0, 0)
    assert rig.regs(1, FLUSH_LIST, 0, INPUT, 0, 0) == (1, 0)
    assert rig.regs(0, SPIN | FAST, 0, 7, 0, 0) == (0, 0)
    assert rig.regs(0, SIGNAL | FAST, 0, 0x99, 0, 0) == (0, HvStatus.INVALID_CONNECTION_ID)
    rig.put(OUTPUT, b"\xff" * 8)
    assert rig.regs(0, QUERY, 0, 0, 0, OUTPUT) == (0, 0)
    assert rig.get(OUTPUT, 8) == bytes(8)


def test_a_wrong_number_of_registers_is_the_callers_mistake(rig: Any) -> None:
    with pytest.raises(ValueError, match="regs has 4 values"):
        rig.regs(1, 2, 3, 4)


# repetitions


def test_a_rep_call_returns_the_total_completed_and_may_start_anywhere(rig: Any) -> None:
    rig.put(INPUT, flush())
    assert rig.regs(FLUSH_LIST | reps(10), INPUT, 0)[0] == 10 << 32
    assert rig.regs(FLUSH_LIST | reps(10, 4), INPUT, 0)[0] == 10 << 32


def test_a_host_that_returns_early_is_continued(rig: Any) -> None:
    rig.host.hypercalls.rep_limit = 3
    rig.put(INPUT, flush())
    done, rounds = 0, 0
    while done < 10:
        result = rig.regs(FLUSH_LIST | reps(10, done), INPUT, 0)[0]
        assert result & 0xFFFF == 0
        assert result >> 32 > done
        done, rounds = result >> 32, rounds + 1
    assert (done, rounds) == (10, 4)


def test_an_error_in_the_middle_reports_the_reps_before_it(rig: Any) -> None:
    names = (0x4000_0002, 0x4000_0081, 0x4000_0004, 0x4000_0080)
    rig.put(OUTPUT, b"\xee" * 64)
    result = rig.hypercall(GET | reps(4), pack("<QIB3s4I", SELF, 1, 0, b"", *names))
    assert result == HvStatus.INVALID_PARAMETER | 2 << 32
    assert rig.get(OUTPUT, 64) == pack("<QQQQ", 1, 0, 1, 0) + b"\xee" * 32


def test_output_of_later_reps_lands_behind_that_of_earlier_ones(rig: Any) -> None:
    rig.put(OUTPUT, b"\xee" * 32)
    data = pack("<QIB3s2I", SELF, 2, 0, b"", 0x4000_0081, 0x4000_0002)
    assert rig.hypercall(GET | reps(2, 1), data) == 2 << 32
    assert rig.get(OUTPUT, 32) == b"\xee" * 16 + pack("<QQ", 2, 0)


# flush


@pytest.mark.parametrize("flags", [0, 1, 2, 4, 8, 15])
def test_flush_accepts_the_defined_flags(rig: Any, flags: int) -> None:
    assert rig.hypercall(FLUSH, flush(0b1111, flags)) == 0


def test_flush_refuses_other_flags(rig: Any) -> None:
    assert rig.hypercall(FLUSH, flush(1, 16)) == HvStatus.INVALID_PARAMETER
    assert rig.hypercall(FLUSH_LIST | reps(2), flush(1, 16)) == HvStatus.INVALID_PARAMETER


def test_flush_of_an_absent_vp_is_tolerated(rig: Any) -> None:
    assert rig.hypercall(FLUSH, flush(1 << 40)) == 0
    assert rig.findings("tolerated") == ["VP 0: flush of VPs that do not exist: [40]"]
    assert rig.hypercall(FLUSH, flush(1 << 40, 1)) == 0
    assert len(rig.findings("tolerated")) == 1, "for all processors the mask is ignored"


def ex(banks: int, contents: Sequence[int], form: int = 0) -> bytes:
    return pack("<QQ", form, banks) + b"".join(pack("<Q", c) for c in contents)


@pytest.mark.parametrize(
    ("words", "vpset", "status"),
    [
        (1, ex(1, [0b11]), 0),
        (2, ex(0b101, [1, 0]), 0),
        (0, ex(0, [], 1), 0),
        (0, ex(0, []), 0),
        (1, ex(0b11, [1]), HvStatus.INVALID_PARAMETER),
        (2, ex(1, [1, 1]), HvStatus.INVALID_PARAMETER),
        (1, ex(1, [1], 2), HvStatus.INVALID_PARAMETER),
    ],
)
def test_sparse_sets(rig: Any, words: int, vpset: bytes, status: int) -> None:
    assert rig.hypercall(FLUSH_EX | var(words), pack("<QQ", 0, 0) + vpset) == status
    rep = rig.hypercall(FLUSH_LIST_EX | var(words) | reps(3), pack("<QQ", 0, 0) + vpset + bytes(24))
    assert rep == (status or 3 << 32)


def test_nested_flushes_need_nested_features(make_x86: Any) -> None:
    for name, status in (("azure-gen2", HvStatus.OPERATION_DENIED), ("ws2022", 0)):
        rig = make_x86(name)
        rig.enable()
        assert rig.hypercall(0xAF, pack("<QQ", 0x1000, 0)) == status
        assert rig.hypercall(0xB0 | reps(2), pack("<QQQQ", 0x1000, 0, 0, 0)) == (status or 2 << 32)
        assert rig.hypercall(0xAF, pack("<QQ", 0x1000, 1)) == HvStatus.INVALID_PARAMETER


# processors


def vectors(rig: Any) -> list[tuple[int, int]]:
    return sorted((vp, vector) for vp, vector, _ in rig.interrupts)


def start_all(rig: Any) -> None:
    for vp in range(1, 4):
        rig.run(lambda p: None, vp)


def settle(rig: Any) -> None:
    for vp in range(4):
        rig.run(lambda p: rig.machine.delay(10), vp)


def test_an_ipi_reaches_exactly_its_targets(rig: Any) -> None:
    start_all(rig)
    assert rig.fast(IPI, 0xFB, 0b1010) == 0
    settle(rig)
    assert vectors(rig) == [(1, 0xFB), (3, 0xFB)]


@pytest.mark.parametrize("vector", [0, 0x0F, 0x100])
def test_an_ipi_needs_a_fixed_vector(rig: Any, vector: int) -> None:
    assert rig.fast(IPI, vector, 1) == HvStatus.INVALID_PARAMETER


def test_an_ipi_to_an_absent_vp_or_another_vtl_interrupts_nobody(rig: Any) -> None:
    assert rig.fast(IPI, 0xFB, 0b10001) == HvStatus.INVALID_PARAMETER
    assert rig.fast(IPI, 0xFB | 1 << 32, 1) == HvStatus.INVALID_PARAMETER
    settle(rig)
    assert rig.interrupts == []


def test_the_sparse_ipi(rig: Any) -> None:
    start_all(rig)
    assert rig.hypercall(IPI_EX | var(1), pack("<II", 0xFC, 0) + ex(1, [0b100])) == 0
    assert rig.hypercall(IPI_EX, pack("<II", 0xFD, 0) + ex(0, [], 1)) == 0
    settle(rig)
    assert vectors(rig) == [(0, 0xFD), (1, 0xFD), (2, 0xFC), (2, 0xFD), (3, 0xFD)]
    assert rig.hypercall(IPI_EX | var(1), pack("<II", 0xFC, 0) + ex(0b10, [1])) == HvStatus.INVALID_PARAMETER


def start(vp: int, partition: int = SELF, vtl: int = 0) -> bytes:
    return pack("<QIB3s", partition, vp, vtl, b"") + bytes(224)


def test_start_vp_by_hypercall(rig: Any) -> None:
    assert not rig.machine.vps[2].started
    assert rig.hypercall(START, start(2)) == 0
    assert rig.machine.vps[2].started
    assert rig.hypercall(START, start(2)) == HvStatus.INVALID_VP_STATE
    assert rig.hypercall(START, start(9)) == HvStatus.INVALID_VP_INDEX
    assert rig.hypercall(START, start(3, 5)) == HvStatus.INVALID_PARTITION_ID
    assert rig.hypercall(START, start(3, vtl=1)) == HvStatus.INVALID_VTL_STATE


def test_calls_behind_a_privilege_that_no_profile_grants(rig: Any) -> None:
    for code in (PARTITION_ID, 0x48 | reps(1), 0x4E, 0x69, 0x76, 0x7C, 0xDB | reps(1)):
        assert rig.hypercall(code) == HvStatus.ACCESS_DENIED, hex(code)


@pytest.mark.parametrize("profile", ["ws2008r2", "ws2016"])
def test_extended_calls_need_their_privilege(make_x86: Any, profile: str) -> None:
    rig = make_x86(profile)
    rig.enable()
    assert rig.hypercall(QUERY) == HvStatus.ACCESS_DENIED


def test_extended_capabilities_and_the_heat_hint_they_announce(rig: Any) -> None:
    assert rig.hypercall(QUERY) == 0
    assert rig.get(OUTPUT, 8) == bytes(8)
    hint = pack("<QQ", 2, 0x1000)
    assert rig.hypercall(HEAT | reps(1), hint) == HvStatus.ACCESS_DENIED
    rig.host.extended_capabilities = 1 << 8
    assert rig.hypercall(HEAT | reps(1), hint) == 1 << 32
    assert rig.hypercall(HEAT | reps(1), pack("<QQ", 1, 0x1000)) == HvStatus.INVALID_PARAMETER


# registers by hypercall


def test_registers_by_hypercall_name_a_vp(rig: Any) -> None:
    element = pack("<IIQQQ", 0x4000_0093, 0, 0, 0x77, 0)
    assert rig.hypercall(SET | reps(1), pack("<QIB3s", SELF, 1, 0, b"") + element) == 1 << 32
    assert (rig.read(0x4000_0093, 1), rig.read(0x4000_0093, 0)) == (0x77, 0x1_0000)


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (pack("<QIB3s", 3, 0, 0, b""), HvStatus.INVALID_PARTITION_ID),
        (pack("<QIB3s", SELF, 4, 0, b""), HvStatus.INVALID_VP_INDEX),
        (pack("<QIB3s", SELF, 0, 1, b""), HvStatus.INVALID_PARAMETER),
        (pack("<QIB3s", SELF, 0, 0, b"\1"), HvStatus.INVALID_PARAMETER),
    ],
)
def test_registers_by_hypercall_check_their_header(rig: Any, header: bytes, status: int) -> None:
    assert rig.hypercall(GET | reps(1), header + pack("<II", 0x4000_0002, 0)) == status
    assert rig.hypercall(SET | reps(1), header + bytes(32)) == status


def test_registers_by_hypercall_need_their_privilege(make_x86: Any) -> None:
    rig = make_x86("ws2022")  # 0x388030 has no AccessVpRegisters
    rig.enable()
    data = pack("<QIB3s", SELF, 0, 0, b"") + pack("<II", 0x4000_0002, 0)
    assert rig.hypercall(GET | reps(1), data) == HvStatus.ACCESS_DENIED


# messages and events


def test_post_message_reaches_its_port(rig: Any) -> None:
    seen: list[tuple[int, int, bytes]] = []

    def port(vp: int, kind: int, payload: bytes) -> int:
        seen.append((vp, kind, payload))
        return HvStatus.SUCCESS

    rig.host.ports.connect_message(1, port)
    assert rig.hypercall(POST, message(payload=b"12345678rest")) == 0
    assert rig.hypercall(POST, message(size=240, payload=b"z" * 240), vp=2) == 0
    assert rig.hypercall(POST, message(size=0)) == 0
    assert seen == [(0, 1, b"12345678"), (2, 1, b"z" * 240), (0, 1, b"")]


def test_the_ports_status_is_the_callers(rig: Any) -> None:
    rig.host.ports.connect_message(1, lambda vp, kind, payload: HvStatus.INSUFFICIENT_BUFFERS)
    assert rig.hypercall(POST, message()) == HvStatus.INSUFFICIENT_BUFFERS


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (message(connection=4), HvStatus.INVALID_CONNECTION_ID),
        (message(connection=2), HvStatus.INVALID_PORT_ID),
        (message(kind=0), HvStatus.INVALID_PARAMETER),
        (message(kind=1 << 31), HvStatus.INVALID_PARAMETER),
        (message(size=241), HvStatus.INVALID_PARAMETER),
    ],
)
def test_post_message_checks(rig: Any, data: bytes, status: int) -> None:
    rig.host.ports.connect_message(1, lambda vp, kind, payload: HvStatus.SUCCESS)
    rig.host.ports.connect_event(2, lambda flag: None)
    assert rig.hypercall(POST, data) == status


def test_signal_event_in_both_forms(rig: Any) -> None:
    flags: list[int] = []
    rig.host.ports.connect_event(0x10002, flags.append)
    assert rig.fast(SIGNAL, 0x10002 | 5 << 32) == 0
    assert rig.hypercall(SIGNAL, pack("<IHH", 0x10002, 7, 0)) == 0
    assert rig.fast(SIGNAL, 0x10002 | 2048 << 32) == HvStatus.INVALID_PARAMETER
    assert rig.fast(SIGNAL, 0x10003) == HvStatus.INVALID_CONNECTION_ID
    rig.host.ports.disconnect(0x10002)
    assert rig.fast(SIGNAL, 0x10002) == HvStatus.INVALID_CONNECTION_ID
    assert flags == [5, 7]


def test_retarget_reaches_the_device_it_names(rig: Any) -> None:
    seen: list[bytes] = []

    def device(vp: int, data: bytes) -> int:
        seen.append(data)
        return HvStatus.SUCCESS

    rig.host.devices[0x1234] = device
    fixed = pack("<QQII8sQIIQ", SELF, 0x1234, 1, 0, b"", 0, 0x30, 2, 0)
    assert rig.hypercall(RETARGET | var(2), fixed + pack("<QQ", 1, 0b10)) == 0
    assert seen == [fixed + pack("<QQ", 1, 0b10)]
    assert rig.hypercall(RETARGET, pack("<QQ", SELF, 1) + fixed[16:]) == HvStatus.INVALID_DEVICE_ID
    assert rig.hypercall(RETARGET, pack("<Q", 1) + fixed[8:]) == HvStatus.INVALID_PARTITION_ID


def test_calls_are_counted(rig: Any) -> None:
    rig.fast(SPIN, 1)
    rig.fast(SPIN, 2)
    rig.hypercall(0xFFFF)
    assert rig.host.hypercalls.counts[SPIN] == 2
    assert rig.host.hypercalls.counts[0xFFFF] == 1
