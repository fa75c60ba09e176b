"""Overlay pages: enable, move, disable, contents, the ledger, and pages on top of each other."""

from __future__ import annotations

from typing import Any

import pytest

from hvkernel_x86 import tlfs as x86

PAGES = (
    (x86.HV_REGISTER_SIMP, "simp", True),
    (x86.HV_REGISTER_SIEFP, "siefp", True),
    (x86.HV_X64_MSR_VP_ASSIST_PAGE, "vp assist", True),
    (x86.HV_REGISTER_REFERENCE_TSC, "reference tsc", False),
)


@pytest.mark.parametrize(("n", "via", "writable"), PAGES)
def test_enable_covers_move_takes_along_disable_gives_back(rig: Any, n: int, via: str, writable: bool) -> None:
    rig.put(0x80_0000, b"first")
    rig.put(0x81_0000, b"second")
    rig.write(n, 0x80_0001)
    assert rig.get(0x80_0000, 5) != b"first"
    if writable:
        rig.put(0x80_0000, b"state")
    seen = rig.get(0x80_0000, 16)
    rig.write(n, 0x81_0001)
    assert (rig.get(0x80_0000, 5), rig.get(0x81_0000, 16)) == (b"first", seen)
    rig.write(n, 0x81_0000)
    assert rig.get(0x81_0000, 6) == b"second"
    rig.write(n, 0x80_0001)
    if writable:
        assert rig.get(0x80_0000, 5) == b"state", "the page's contents live on in the hypervisor"


@pytest.mark.parametrize(("n", "via", "writable"), PAGES)
def test_the_ledger_follows(rig: Any, n: int, via: str, writable: bool) -> None:
    ledger = rig.machine.ledger
    rig.write(n, 0x80_0001)
    (entry,) = [e for e in ledger.entries() if e.via == via]
    assert (entry.gpa, entry.pages, entry.cpu) == (0x80_0000, 1, 0)
    rig.write(n, 0x81_0001)
    (entry,) = [e for e in ledger.entries() if e.via == via]
    assert entry.gpa == 0x81_0000
    rig.write(n, 0x81_0000)
    assert [e for e in ledger.entries() if e.via == via] == []


@pytest.mark.parametrize(("n", "via", "writable"), PAGES)
def test_a_page_beyond_memory_is_seen_nowhere_and_noted(rig: Any, n: int, via: str, writable: bool) -> None:
    rig.write(n, 0x80_0001)
    rig.write(n, 1 << 45 | 1)
    assert rig.read(n) == 1 << 45 | 1
    assert [o.name for o in rig.machine.memory.overlays.all()] == ["hypercall page"]
    assert len(rig.findings("tolerated")) == 1


@pytest.mark.parametrize(("n", "via", "writable"), PAGES)
def test_reserved_bits_are_preserved(rig: Any, n: int, via: str, writable: bool) -> None:
    rig.write(n, 0x80_0FFE)
    assert rig.read(n) == 0x80_0FFE
    assert len(rig.machine.memory.overlays.all()) == 1


def test_two_overlays_on_one_page_is_a_finding_and_loses_nothing(rig: Any) -> None:
    rig.put(0x80_0000, b"guest")
    rig.write(x86.HV_REGISTER_SIMP, 0x80_0001)
    rig.put(0x80_0000, b"simp ")
    rig.write(x86.HV_REGISTER_SIEFP, 0x80_0001)
    assert rig.get(0x80_0000, 5) == bytes(5), "the one established last is seen"
    assert rig.findings("undefined") == ["SIEF page of VP 0 placed on SIM page of VP 0 at GPA 0x800000"]
    rig.write(x86.HV_REGISTER_SIMP, 0)
    assert rig.get(0x80_0000, 5) == bytes(5)
    rig.write(x86.HV_REGISTER_SIEFP, 0)
    assert rig.get(0x80_0000, 5) == b"guest"
    rig.write(x86.HV_REGISTER_SIMP, 0x81_0001)
    assert rig.get(0x81_0000, 5) == b"simp "


def test_a_page_over_a_hole_of_the_memory_map_is_noted(make_x86: Any) -> None:
    rig = make_x86(memory=2 << 30)
    rig.enable()
    rig.write(x86.HV_REGISTER_SIMP, 0xF000_0001)
    assert rig.findings("tolerated") == ["SIM page of VP 0 placed at GPA 0xf0000000, where there is no RAM"]
    rig.put(0xF000_0000, b"works")
    assert rig.get(0xF000_0000, 5) == b"works"


def test_each_vp_has_pages_of_its_own(rig: Any) -> None:
    rig.write(x86.HV_X64_MSR_VP_ASSIST_PAGE, 0x80_0001, 0)
    rig.write(x86.HV_X64_MSR_VP_ASSIST_PAGE, 0x81_0001, 3)
    rig.put(0x80_0000, b"zero")
    assert rig.host.registers.assist_pages[0].read(0, 4) == b"zero"
    assert rig.host.registers.assist_pages[3].read(0, 4) == bytes(4)
    (late,) = [e for e in rig.machine.ledger.entries() if e.gpa == 0x81_0000]
    assert (late.key, late.cpu) == (3, 3)
