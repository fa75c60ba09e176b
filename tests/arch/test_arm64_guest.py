"""The arm64 guest's own code, on a processor that records what it is asked."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hvkernel.api.guest.arch import ArchBug
from hvkernel_arm64.guest import make_guest
from hvkernel_arm64.guest.arch_timer import counter_width
from hvkernel_arm64.guest.hv_core import (
    hv_do_fast_hypercall8,
    hv_do_hypercall,
    hv_get_vpreg_128,
    hv_set_vpreg,
)
from hvkernel_arm64.guest.state import Arm64State

HVC_0 = b"\x02\x00\x00\xd4"


class Processor:
    """Records hypercalls, answers x0 with a status and x6, x7 with two values."""

    def __init__(self, status: int = 0) -> None:
        self.status = status
        self.calls: list[tuple[bytes, tuple[int, ...]]] = []

    def hypercall(self, opcode: bytes, regs: tuple[int, ...]) -> tuple[int, ...]:
        self.calls.append((opcode, regs))
        return (self.status, *regs[1:6], 0x1111, 0x2222)


def state(processor: Processor) -> Arm64State:
    a = Arm64State()
    kernel: Any = SimpleNamespace(cpus=SimpleNamespace(this_cpu=lambda: SimpleNamespace(vp=processor)))
    a.attach(kernel)
    return a


def test_arm64_hypercall_abi() -> None:
    path = Path(__file__).parents[1] / "data" / "functions" / "arm64_hypercall_abi.json"
    table = {row["in"]["fn"]: row["out"] for row in json.loads(path.read_text("utf-8"))["rows"]}
    processor = Processor()
    a = state(processor)
    hv_do_hypercall(a, 0x5C, 0x1000, None)
    hv_set_vpreg(a, 0x9_0002, 0x1234)
    (_, call), (_, write) = processor.calls
    assert [opcode for opcode, _ in processor.calls] == [HVC_0, HVC_0]
    named = {"control": 0x5C, "input GPA or 0": 0x1000, "output GPA or 0": 0, "reg": 0x9_0002, "value": 0x1234}
    for regs, wanted in ((call, table["hv_do_hypercall"]), (write, table["hv_set_vpreg"])):
        for name, text in wanted.items():
            if name.startswith("x"):
                value = named[text] if text in named else int(text, 0)
                assert regs[int(name[1:])] == value, (name, text)


def test_a_register_is_read_from_x6_and_x7() -> None:
    processor = Processor()
    assert hv_get_vpreg_128(state(processor), 0x200) == (0x1111, 0x2222)
    ((_, regs),) = processor.calls
    assert regs[:5] == (0x4600_0001, 0x1_0001_0050, (1 << 64) - 1, 0xFFFF_FFFE, 0x200)


def test_fast_hypercalls_carry_their_input_in_x2() -> None:
    processor = Processor(status=3)
    assert hv_do_fast_hypercall8(state(processor), 0x5D, 0x10005) == 3
    assert processor.calls[0][1][:3] == (0x4600_0001, 0x1005D, 0x10005)


def test_a_refused_register_is_a_bug() -> None:
    a = state(Processor(status=6))
    with pytest.raises(ArchBug, match=r"arch/arm64/hyperv/hv_core.c:80! \(register 0xa0013 = 0x1: "):
        hv_set_vpreg(a, 0xA0013, 1)
    with pytest.raises(ArchBug, match=r"arch/arm64/hyperv/hv_core.c:114! .*HV_STATUS 6"):
        hv_get_vpreg_128(a, 0xA0013)


def test_word_and_page_sizes() -> None:
    with pytest.raises(ValueError, match="arm64 guest of 32 bits; it has 64"):
        make_guest(32)
    config: Any = SimpleNamespace(y=lambda name: name == "ARM64_16K_PAGES")
    assert make_guest(64).page_shift(config) == 14


def test_the_counter_is_as_wide_as_40_years_need() -> None:
    assert counter_width(25_000_000) == 56
    assert counter_width(1_000_000_000) == 61


def test_what_is_printed_of_a_page_fault() -> None:
    guest = make_guest(64)
    null = "Unable to handle kernel NULL pointer dereference at virtual address 000000000000ffff"
    assert guest.page_fault_text(0xFFFF, 65536) == null
    assert (
        guest.page_fault_text(0xFFFF, 4096)
        == "Unable to handle kernel paging request at virtual address 000000000000ffff"
    )
