"""Overlay pages: what is specific beyond the state machine of test_memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hvkernel.machine import HvPfn, MachineError, Memory, OverlayError, PageFault

PAGE = 4096


@pytest.fixture
def memory() -> Iterator[Memory]:
    memory = Memory([(0, 8 * PAGE), (16 * PAGE, PAGE)])
    yield memory
    memory.close()


def test_a_guest_write_to_a_read_only_overlay_faults_with_its_name(memory: Memory) -> None:
    code = b"\x0f\x01\xc1\xc3" + bytes(PAGE - 4)
    overlay = memory.overlays.establish(HvPfn(5), code, readonly=True, name="hypercall page")
    assert memory.guest.read(5 * PAGE, 4) == b"\x0f\x01\xc1\xc3"
    with pytest.raises(PageFault) as caught:
        memory.guest.store8(5 * PAGE + 7, 0)
    assert (caught.value.gpa, caught.value.write) == (5 * PAGE + 7, True)
    assert str(caught.value) == "guest write to gpa 0x5007: read-only overlay 'hypercall page'"
    memory.host.store8(5 * PAGE + 7, 9)
    overlay.write(8, b"\x0a")
    assert memory.guest.read(5 * PAGE + 7, 2) == b"\x09\x0a"
    overlay.revoke()
    memory.guest.store8(5 * PAGE + 7, 1)


def test_every_alias_sees_the_swap(memory: Memory) -> None:
    memory.guest.write(2 * PAGE, b"below")
    vmap = memory.guest.vmap([HvPfn(2), HvPfn(2)])
    overlay = memory.overlays.establish(HvPfn(2), b"above".ljust(PAGE, b"\0"), readonly=False, name="simp")
    assert vmap.read(PAGE, 5) == memory.host.read(2 * PAGE, 5) == b"above"
    vmap.write(0, b"ABOVE")
    overlay.move(HvPfn(3))
    assert vmap.read(PAGE, 5) == b"below"
    assert memory.guest.read(3 * PAGE, 5) == b"ABOVE"
    assert overlay.revoke()[:5] == b"ABOVE"
    assert not any(memory.guest.read(3 * PAGE, PAGE))


def test_an_overlay_backs_a_hole_while_it_is_there(memory: Memory) -> None:
    overlay = memory.overlays.establish(HvPfn(10), bytes(PAGE), readonly=False, name="siefp")
    assert memory.is_ram(HvPfn(10))
    memory.guest.store32(10 * PAGE, 5)
    overlay.revoke()
    assert not memory.is_ram(HvPfn(10))
    with pytest.raises(PageFault):
        memory.guest.load32(10 * PAGE)


def test_words(memory: Memory) -> None:
    overlay = memory.overlays.establish(HvPfn(1), bytes(PAGE), readonly=True, name="tsc")
    overlay.store32(0, 1)
    overlay.store64(8, 1 << 63)
    assert (overlay.load32(0), overlay.load64(8)) == (1, 1 << 63)
    assert overlay.gpa == PAGE
    with pytest.raises(ValueError, match=r"^overlay 'tsc', offset 0x8: -1 is not an unsigned integer of 64 bits$"):
        overlay.store64(8, -1)
    for offset, n in ((PAGE, 1), (PAGE - 3, 4), (-1, 1)):
        with pytest.raises(ValueError, match="outside its 4096 bytes"):
            overlay.read(offset, n)


def test_mistakes(memory: Memory) -> None:
    with pytest.raises(OverlayError, match=r"^overlay 'x': contents of 10 bytes, 4096 are needed$"):
        memory.overlays.establish(HvPfn(1), bytes(10), readonly=True, name="x")
    with pytest.raises(OverlayError, match=r"^overlay 'x': page 0x11 is outside the address space, which ends"):
        memory.overlays.establish(HvPfn(17), bytes(PAGE), readonly=True, name="x")
    overlay = memory.overlays.establish(HvPfn(1), bytes(PAGE), readonly=True, name="x")
    overlay.revoke()
    for use in (overlay.revoke, lambda: overlay.move(HvPfn(2)), lambda: overlay.read(0, 1), lambda: overlay.gpa):
        with pytest.raises(MachineError, match=r"^overlay 'x' was revoked"):
            use()
    assert repr(overlay) == "<Overlay 'x' revoked, read-only>"
