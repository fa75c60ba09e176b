"""The x86 guest's own code, on a processor that records what it is asked."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hvkernel.api.guest.mshyperv import U64_MAX
from hvkernel_x86 import tlfs
from hvkernel_x86.guest import make_guest
from hvkernel_x86.guest.hv_init import sysvec_hyperv_reenlightenment, version_code
from hvkernel_x86.guest.hypercall import hv_do_fast_hypercall8, hv_do_fast_hypercall16, hv_do_hypercall
from hvkernel_x86.guest.mmu import fill_gva_list
from hvkernel_x86.guest.nested import (
    hyperv_fill_flush_guest_mapping_list,
    hyperv_flush_guest_mapping,
    hyperv_flush_guest_mapping_range,
)
from hvkernel_x86.guest.state import X86State

VMCALL = b"\x0f\x01\xc1"


def rows(name: str) -> Any:
    path = Path(__file__).parents[1] / "data" / "functions" / f"{name}.json"
    return json.loads(path.read_text("utf-8"))["rows"]


class Processor:
    """Records hypercalls, answers all of them with one status."""

    def __init__(self, status: int = 0) -> None:
        self.status = status
        self.calls: list[tuple[bytes, tuple[int, ...]]] = []

    def hypercall(self, opcode: bytes, regs: tuple[int, ...]) -> tuple[int, ...]:
        self.calls.append((opcode, regs))
        return (self.status, *regs[1:]) if len(regs) == 3 else (self.status >> 32, self.status & 0xFFFF_FFFF)


def state(bits: int, processor: Processor, page: bytes = VMCALL + b"\xc3" + b"\xcc" * 12) -> X86State:
    a = X86State(bits)
    kernel: Any = SimpleNamespace(
        cpus=SimpleNamespace(this_cpu=lambda: SimpleNamespace(vp=processor)),
        mm=SimpleNamespace(memory=SimpleNamespace(read=lambda gpa, n: page[:n])),
        tracing=SimpleNamespace(enabled=False),
    )
    a.attach(kernel)
    a.hv_hypercall_pg = SimpleNamespace(gpa=0x7000)  # type: ignore[assignment]  # only its address is used
    return a


def test_hv_do_hypercall_and_fast() -> None:
    for row in rows("hv_do_hypercall_and_fast"):
        given, wanted = row["in"], row["out"]
        processor = Processor()
        a = state(64, processor)
        if given["fn"] == "hv_do_fast_hypercall8":
            assert hv_do_fast_hypercall8(a, given["code"], given["a"]) == wanted["status"]
        else:
            assert hv_do_hypercall(a, given["code"], given["a"] or None, given["b"] or None) == wanted["status"]
        ((opcode, (rcx, rdx, r8)),) = processor.calls
        assert opcode == VMCALL
        assert (f"{rcx:#x}", f"{rdx:#x}") == (wanted["rcx_control"], wanted["rdx"]), row
        assert f"{r8:#x}" == wanted.get("r8", "0x0"), row


def test_32_bit_passes_each_value_as_a_pair_high_word_first() -> None:
    processor = Processor(status=0x5_0000_0000)
    a = state(32, processor)
    assert hv_do_fast_hypercall16(a, 0x0B, 0x1122_3344_5566_7788, 0x99AA_BBCC_DDEE_FF00) == 0x5_0000_0000
    assert processor.calls == [
        (VMCALL, (0, 0x1000B, 0x1122_3344, 0x5566_7788, 0x99AA_BBCC, 0xDDEE_FF00)),
    ]


def test_the_bytes_of_the_hypercall_page_are_what_is_executed() -> None:
    vmmcall = b"\x0f\x01\xd9"
    processor = Processor()
    hv_do_hypercall(state(64, processor, vmmcall + b"\xc3" * 13), 0x5C, 0x1000, None)
    hv_do_hypercall(state(64, processor, b"\xf3\x0f\x1e\xfa" + vmmcall + b"\xc3" * 9), 0x5C, 0x1000, None)
    hv_do_hypercall(state(64, processor, bytes(16)), 0x5C, 0x1000, None)
    assert [opcode for opcode, _ in processor.calls] == [vmmcall, vmmcall, b"\0\0\0"]


def test_without_a_page_there_is_no_call() -> None:
    processor = Processor()
    a = state(64, processor)
    a.hv_hypercall_pg = None
    assert hv_do_hypercall(a, 0x5C, 0x1000, None) == U64_MAX
    assert processor.calls == []


def test_fill_gva_list() -> None:
    for row in rows("fill_gva_list"):
        found = fill_gva_list(int(row["in"]["start"], 16), int(row["in"]["end"], 16))
        assert [f"{gva:#x}" for gva in found] == row["out"]["gva_list"], row
        assert len(found) == row["out"]["n"]


def test_hyperv_fill_flush_guest_mapping_list() -> None:
    for row in rows("hyperv_fill_flush_guest_mapping_list"):
        found = hyperv_fill_flush_guest_mapping_list(row["in"]["start_gfn"], row["in"]["pages"])
        wanted = row["out"]
        if isinstance(found, int):
            assert found == wanted["ret"] == -28, row
            continue
        assert len(found) == wanted["ret"], row
        head = wanted["gpa_list_head"]
        assert [f"{gpa:#x}" for gpa in found[: len(head)]] == head, row
        assert f"{found[-1]:#x}" == wanted["gpa_list_last"]


def nested(status: int) -> tuple[X86State, Processor, list[tuple[int, bytes]]]:
    """A 64-bit guest with an input page at 0x3000, its processor, and what is written for the host to read."""
    processor = Processor(status)
    a = state(64, processor)
    written: list[tuple[int, bytes]] = []
    kernel: Any = a.kernel
    kernel.mm.memory.write = lambda gpa, data: written.append((gpa, data))
    kernel.irq = SimpleNamespace(local_irq_save=lambda: 0, local_irq_restore=lambda flags: None)
    kernel.cpus.smp_processor_id = lambda: 0
    common = SimpleNamespace(hyperv_pcpu_input_arg=lambda cpu: 0x3000)
    kernel.symbol = lambda proto: common
    return a, processor, written


def test_a_nested_guests_mappings_are_dropped_with_one_hypercall() -> None:
    a, processor, written = nested(0)
    assert hyperv_flush_guest_mapping(a, 0x1234_5000) == 0
    assert written == [(0x3000, struct.pack("<QQ", 0x1234_5000, 0))]
    ((_, regs),) = processor.calls
    assert (regs[0] & 0xFFFF, regs[1]) == (0xAF, 0x3000)
    a, processor, _ = nested(2)
    assert hyperv_flush_guest_mapping(a, 0x1234_5000) == -524


def test_part_of_a_nested_guests_mappings_is_dropped_by_a_list() -> None:
    a, processor, written = nested(2 << 32)  # two reps done
    assert hyperv_flush_guest_mapping_range(a, 0x9000, lambda: [0x5000, 0x8003]) == 0
    assert written == [(0x3000, struct.pack("<QQQQ", 0x9000, 0, 0x5000, 0x8003))]
    ((_, regs),) = processor.calls
    assert (regs[0] & 0xFFFF, regs[0] >> 32 & 0xFFF, regs[1]) == (0xB0, 2, 0x3000)
    assert hyperv_flush_guest_mapping_range(nested(5)[0], 0x9000, lambda: [0x5000]) == 5
    a, processor, _ = nested(0)
    assert hyperv_flush_guest_mapping_range(a, 0x9000, lambda: -28) == -524
    assert processor.calls == []


def test_without_a_hypercall_page_no_nested_mapping_can_be_dropped() -> None:
    a, processor, _ = nested(0)
    a.hv_hypercall_pg = None
    assert hyperv_flush_guest_mapping(a, 0) == -524
    assert hyperv_flush_guest_mapping_range(a, 0, lambda: [0]) == -524
    assert processor.calls == []


@pytest.mark.parametrize(
    ("version", "code"), [("6.1.192", 0x601C0), ("6.1", 0x60100), ("5.15.300-cloud", 0x50FFF), ("6.12.4+deb", 0x60C04)]
)
def test_version_code(version: str, code: int) -> None:
    assert version_code(version) == code


def test_word_sizes() -> None:
    with pytest.raises(ValueError, match="x86 guest of 16 bits; it has 32 or 64"):
        make_guest(16)
    assert make_guest(32).regs.HV_REGISTER_SINT0 + 2 == tlfs.HV_REGISTER_SINT2


def test_interrupts_after_a_migration_share_one_look() -> None:
    queued: list[Any] = []
    a = X86State(64)
    kernel: Any = SimpleNamespace(
        workqueue=SimpleNamespace(schedule_delayed_work=lambda work, delay: queued.append((work, delay))),
        timers=SimpleNamespace(HZ=250),
    )
    a.attach(kernel)
    apic: Any = SimpleNamespace(eoi=lambda: None)
    a.apic = apic
    for _ in range(2):
        sysvec_hyperv_reenlightenment(a)
    (first, delay), (second, _) = queued
    assert first is second, "the kernel's work is one static object: it is queued once while it waits"
    assert delay == 25


@pytest.mark.parametrize(
    ("bits", "address", "text"),
    [
        (64, 0x48, "BUG: kernel NULL pointer dereference, address: 0000000000000048"),
        (64, 0x1000, "BUG: unable to handle page fault for address: 0000000000001000"),
        (32, 0xFFF, "BUG: kernel NULL pointer dereference, address: 00000fff"),
    ],
)
def test_what_is_printed_of_a_page_fault(bits: int, address: int, text: str) -> None:
    assert make_guest(bits).page_fault_text(address, 4096) == text
