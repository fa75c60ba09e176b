"""Guest memory: both doors, page by page, against a plain model."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hvkernel.machine import (
    HvPfn,
    Machine,
    MachineError,
    Memory,
    Overlay,
    OverlayError,
    PageFault,
    Pfn,
    gpa_of,
    hvpfn_of,
    hvpfns_of,
)

PAGE = 4096
RAM = [(0, 4 * PAGE), (6 * PAGE, 3 * PAGE)]
"""Pages 0..3 and 6..8; a hole in between."""
BACKED = (0, 1, 2, 3, 6, 7, 8)
END = 9


@pytest.fixture
def memory() -> Iterator[Memory]:
    memory = Memory(RAM)
    yield memory
    assert memory.close()


# -- addresses ---------------------------------------------------------------------


def test_page_numbers_convert() -> None:
    assert hvpfn_of(0x12FFF) == 0x12
    assert gpa_of(HvPfn(0x12)) == 0x12000
    assert hvpfns_of(Pfn(3), 4096) == [3]
    assert hvpfns_of(Pfn(3), 16384, 2) == list(range(12, 20))
    assert hvpfns_of(Pfn(1), 65536) == list(range(16, 32))


@pytest.mark.parametrize("size", [0, 2048, 5000, -4096])
def test_page_numbers_refuse_a_page_size_that_is_none(size: int) -> None:
    with pytest.raises(ValueError, match=rf"^page_size: {size} is not a positive multiple of 4096$"):
        hvpfns_of(Pfn(0), size)


# -- values -------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 16, 32, 64])
@pytest.mark.parametrize("gpa", [0x100, 0x101, 0xFFF, 0xFFD, 0xFFC, 0xFF9, 0x1000])
def test_integers_are_little_endian_at_any_alignment_and_over_pages(memory: Memory, bits: int, gpa: int) -> None:
    value = 0x8877665544332211 & ((1 << bits) - 1)
    data = value.to_bytes(bits // 8, "little")
    doors: list[Any] = [memory.guest, memory.host, memory.guest.vmap([HvPfn(0), HvPfn(1)])]
    doors.append(memory.host.vmap([HvPfn(0), HvPfn(1)]))
    for writer in doors:
        memory.guest.zero(0, 2 * PAGE)
        getattr(writer, f"store{bits}")(gpa, value)
        for reader in doors:
            assert getattr(reader, f"load{bits}")(gpa) == value
            assert reader.read(gpa, bits // 8) == data
        assert memory.guest.read(0, 2 * PAGE).count(0) == 2 * PAGE - bits // 8


@pytest.mark.parametrize("bits", [8, 16, 32, 64])
@pytest.mark.parametrize("gpa", [0x100, 0xFFF])
def test_a_value_that_does_not_fit_is_refused_and_stored_nowhere(memory: Memory, bits: int, gpa: int) -> None:
    for door, where in ((memory.guest, "gpa"), (memory.guest.vmap([HvPfn(0), HvPfn(1)]), "offset")):
        for bad in (1 << bits, -1, "x"):
            message = rf"^store{bits} at {where} {gpa:#x}: {bad!r} is not an integer of {bits} bits without sign$"
            with pytest.raises(ValueError, match=message):
                getattr(door, f"store{bits}")(gpa, bad)
    assert not any(memory.guest.read(0, 2 * PAGE))


def test_read_modify_write(memory: Memory) -> None:
    for door in (memory.guest, memory.host.vmap([HvPfn(0), HvPfn(2)])):
        door.store32(0x10, 7)
        assert door.xchg32(0x10, 9) == 7
        assert door.cmpxchg32(0x10, 8, 1) == 9
        assert door.load32(0x10) == 9
        assert door.cmpxchg32(0x10, 9, 1) == 9
        assert door.load32(0x10) == 1
        door.sync_set_bit(0x20, 37)
        assert door.read(0x20, 6) == bytes([0, 0, 0, 0, 0x20, 0])
        assert door.sync_test_bit(0x20, 37)
        assert not door.sync_test_and_set_bit(0x20, 0)
        assert door.sync_test_and_set_bit(0x20, 0)
        assert door.sync_test_and_clear_bit(0x20, 37)
        assert not door.sync_test_and_clear_bit(0x20, 37)
        door.sync_clear_bit(0x20, 0)
        assert not any(door.read(0x20, 8))


def test_bits_may_lie_on_the_next_page(memory: Memory) -> None:
    vmap = memory.guest.vmap([HvPfn(2), HvPfn(0)])
    vmap.sync_set_bit(PAGE - 1, 9)
    assert memory.guest.load8(0) == 2
    memory.guest.sync_set_bit(PAGE - 1, 9)
    assert memory.guest.load8(PAGE) == 2
    for call in (vmap.sync_set_bit, memory.guest.sync_set_bit, memory.guest.sync_test_bit):
        with pytest.raises(ValueError, match="negative"):
            call(8, -1)


def test_zero_clears_exactly_its_range() -> None:
    size = 1 << 20
    memory = Memory([(0, size)])
    for start, n in ((5, 10), (100, 200_000), (PAGE, 2 * (1 << 16)), (0, size)):
        memory.guest.write(0, b"\xff" * size)
        memory.guest.zero(start, n)
        data = memory.guest.read(0, size)
        assert data[:start] == b"\xff" * start
        assert not any(data[start : start + n])
        assert data[start + n :] == b"\xff" * (size - start - n)
    memory.close()


# -- faults -----------------------------------------------------------------------------

Access = Callable[[Any, int], object]
READS: list[Access] = [
    lambda door, at: door.read(at, 1),
    lambda door, at: door.load8(at),
    lambda door, at: door.load16(at),
    lambda door, at: door.load32(at),
    lambda door, at: door.load64(at),
    lambda door, at: door.sync_test_bit(at, 3),
]
WRITES: list[Access] = [
    lambda door, at: door.write(at, b"x"),
    lambda door, at: door.store8(at, 1),
    lambda door, at: door.store16(at, 1),
    lambda door, at: door.store32(at, 1),
    lambda door, at: door.store64(at, 1),
    lambda door, at: door.zero(at, 4),
    lambda door, at: door.xchg32(at, 1),
    lambda door, at: door.cmpxchg32(at, 1, 1),
    lambda door, at: door.sync_set_bit(at, 3),
    lambda door, at: door.sync_test_and_clear_bit(at, 3),
    lambda door, at: door.sync_test_and_set_bit(at, 3),
]


@pytest.mark.parametrize("gpa", [4 * PAGE, 5 * PAGE + 8, 9 * PAGE, 1 << 50, -8, -4096, -9 * PAGE])
@pytest.mark.parametrize("side", ["guest", "host"])
def test_what_is_no_ram_faults(memory: Memory, side: str, gpa: int) -> None:
    door = getattr(memory, side)
    for access in READS + WRITES:
        with pytest.raises(PageFault, match="no RAM here") as caught:
            access(door, gpa)
        assert (caught.value.gpa, caught.value.side) == (gpa, side)


def test_protection_binds_the_named_side_only(memory: Memory) -> None:
    at = 2 * PAGE + 16
    cases = [("guest", memory.guest, memory.host), ("host", memory.host, memory.guest)]
    for side, bound, free in cases:
        memory.protect(side, HvPfn(2), 1, read=True, write=False)  # type: ignore[arg-type]
        for access in READS:
            access(bound, at)
        for access in WRITES:
            with pytest.raises(PageFault, match=f"{side} .* gpa 0x2010: protected against writing") as caught:
                access(bound, at)
            assert caught.value.gpa == at
            access(free, at)
        memory.protect(side, HvPfn(2), 1, read=False, write=True)  # type: ignore[arg-type]
        with pytest.raises(PageFault, match="protected against reading"):
            bound.load32(at)
        bound.store32(at, 1)
        memory.protect(side, HvPfn(2), 1, read=True, write=True)  # type: ignore[arg-type]
        for access in READS + WRITES:
            access(bound, at)


def test_what_the_guest_hides_the_host_cannot_touch(memory: Memory) -> None:
    assert memory.is_visible(HvPfn(1))
    memory.set_visibility(HvPfn(1), 2, False)
    assert [memory.is_visible(HvPfn(n)) for n in range(4)] == [True, False, False, True]
    for access in READS + WRITES:
        with pytest.raises(PageFault, match="not visible to the host"):
            access(memory.host, PAGE)
        access(memory.guest, PAGE)
    memory.set_visibility(HvPfn(1), 1, True)
    memory.host.load8(PAGE)
    with pytest.raises(PageFault):
        memory.host.load8(2 * PAGE)


def test_an_access_over_pages_happens_whole_or_not_at_all(memory: Memory) -> None:
    memory.protect("guest", HvPfn(1), 1, read=True, write=False)
    vmap = memory.guest.vmap([HvPfn(2), HvPfn(1), HvPfn(3)])
    for door, at in ((memory.guest, 0xFF0), (vmap, 0xFF0)):
        with pytest.raises(PageFault) as caught:
            door.write(at, b"y" * 64)
        assert caught.value.gpa == PAGE
    assert not any(memory.host.read(0, 4 * PAGE))
    with pytest.raises(PageFault) as caught:
        memory.guest.read(3 * PAGE, 2 * PAGE)
    assert caught.value.gpa == 4 * PAGE
    with pytest.raises(PageFault) as caught:
        memory.guest.read(8 * PAGE, 2 * PAGE)
    assert caught.value.gpa == 9 * PAGE


def test_use_of_freed_memory_is_reported_and_goes_on() -> None:
    said: list[tuple[str, str, str]] = []
    memory = Memory(RAM, lambda kind, side, text: said.append((kind, side, text)))
    memory.set_live(HvPfn(1), 1, False)
    assert not memory.is_live(HvPfn(1))
    memory.guest.store32(0x1004, 5)
    assert memory.host.load32(0x1004) == 5
    assert said == [
        ("use-after-free", "guest", "guest write to freed memory at 0x1004"),
        ("use-after-free", "host", "host read of freed memory at 0x1004"),
    ]
    memory.set_live(HvPfn(1), 1, True)
    memory.guest.store32(0x1004, 6)
    assert len(said) == 2
    memory.close()


@pytest.mark.parametrize("hvpfn", [-1, END])
def test_page_ranges_must_be_in_the_address_space(memory: Memory, hvpfn: int) -> None:
    changes: list[Callable[[], None]] = [
        lambda: memory.protect("guest", HvPfn(hvpfn), 1, read=True, write=True),
        lambda: memory.set_visibility(HvPfn(hvpfn), 1, False),
        lambda: memory.set_live(HvPfn(hvpfn), 1, False),
    ]
    for change in changes:
        with pytest.raises(ValueError, match="outside the address space, which ends before page 0x9"):
            change()
    assert not memory.is_ram(HvPfn(hvpfn))
    assert not memory.is_visible(HvPfn(hvpfn))
    assert not memory.is_live(HvPfn(hvpfn))


def test_lengths(memory: Memory) -> None:
    assert memory.guest.read(0, 0) == b""
    memory.guest.write(0, b"")
    with pytest.raises(ValueError, match="length -1"):
        memory.guest.read(0, -1)


# -- views ---------------------------------------------------------------------------------


def test_a_view_is_the_memory_while_it_lives(memory: Memory) -> None:
    with memory.guest.view(0xFFC, 8) as window:
        window[:] = b"abcdefgh"
    assert memory.host.read(0xFFC, 8) == b"abcdefgh"
    with pytest.raises(ValueError, match="released"):
        window[0]
    with memory.host.view(0xFFC, 8, writable=False) as window:
        assert bytes(window) == b"abcdefgh"
        with pytest.raises(TypeError):
            window[0] = 1


def test_a_view_asks_for_what_it_needs(memory: Memory) -> None:
    memory.overlays.establish(HvPfn(1), bytes(PAGE), readonly=True, name="hypercall page")
    with pytest.raises(PageFault, match="read-only overlay 'hypercall page'"):
        memory.guest.view(PAGE, 16)
    with memory.guest.view(PAGE, 16, writable=False) as window:
        assert not any(window)
    with pytest.raises(PageFault):
        memory.guest.view(3 * PAGE, 2 * PAGE)


def test_a_view_is_entered_once(memory: Memory) -> None:
    view = memory.guest.view(0, 8)
    with view, pytest.raises(MachineError, match="entered twice"), view:
        pass


def test_a_file_can_be_read_straight_into_a_view(memory: Memory) -> None:
    ours, theirs = os.pipe()
    os.write(theirs, b"from a file")
    with memory.guest.view(0x800, 11) as window:
        assert os.readv(ours, [window]) == 11
    os.close(ours)
    os.close(theirs)
    assert memory.guest.read(0x800, 11) == b"from a file"


# -- vmap -----------------------------------------------------------------------------------


def test_vmap_orders_and_repeats_pages(memory: Memory) -> None:
    vmap = memory.guest.vmap([HvPfn(7), HvPfn(0), HvPfn(1), HvPfn(0), HvPfn(1)])
    assert vmap.size == 5 * PAGE
    vmap.write(PAGE - 2, b"0123456789")
    assert memory.guest.read(8 * PAGE - 2, 2) == b"01"
    assert memory.guest.read(0, 8) == b"23456789"
    vmap.write(3 * PAGE - 4, b"wrapping")
    assert memory.guest.read(2 * PAGE - 4, 4) == b"wrap"
    assert memory.guest.read(0, 4) == b"ping"
    assert vmap.gpa(3 * PAGE + 5) == 5
    with vmap.view(PAGE, 2 * PAGE) as window:
        assert len(window) == 2 * PAGE
    with pytest.raises(ValueError, match="2 separate pieces of memory, a view needs one"):
        vmap.view(0, 2 * PAGE)


@pytest.mark.parametrize("off", [-1, -PAGE, 2 * PAGE, 2 * PAGE - 1, 1 << 40])
def test_vmap_offsets_outside_are_the_callers_mistake(memory: Memory, off: int) -> None:
    vmap = memory.guest.vmap([HvPfn(0), HvPfn(1)])
    calls: list[Callable[[], object]] = [
        lambda: vmap.read(off, 2),
        lambda: vmap.write(off, b"xy"),
        lambda: vmap.load16(off),
    ]
    calls += [lambda: vmap.store16(off, 1), lambda: vmap.load64(off), lambda: vmap.store64(off, 1)]
    for call in calls:
        with pytest.raises(ValueError, match="outside the mapping of 0x2000 bytes"):
            call()


def test_vmap_use_after_unmap(memory: Memory) -> None:
    vmap = memory.guest.vmap([HvPfn(0)])
    assert vmap.mapped
    vmap.unmap()
    assert not vmap.mapped
    for access in READS + WRITES:
        with pytest.raises(MachineError, match="use of a 1-page mapping after vunmap"):
            access(vmap, 0)
    with pytest.raises(MachineError, match="unmapped before"):
        vmap.unmap()


def test_vmap_of_nothing_or_of_a_hole(memory: Memory) -> None:
    with pytest.raises(ValueError, match="empty"):
        memory.guest.vmap([])
    with pytest.raises(PageFault):
        memory.guest.vmap([HvPfn(0), HvPfn(4)])


def test_a_word_of_a_mapping_is_what_its_loads_and_stores_are(memory: Memory) -> None:
    vmap = memory.guest.vmap([HvPfn(2), HvPfn(1)])
    word = vmap.word32(PAGE + 8)
    word.store(0x1234_5678)
    assert (word.load(), vmap.load32(PAGE + 8), memory.host.load32(PAGE + 8)) == (0x1234_5678,) * 3
    for off in (1, 6, -2):
        with pytest.raises(ValueError, match=f"offset {off:#x} is not a multiple of 4"):
            vmap.word32(off)
    for off in (-4, 2 * PAGE):
        with pytest.raises(ValueError, match="outside the mapping of 0x2000 bytes"):
            vmap.word32(off)
    wrong: list[Any] = [-1, 1 << 32, "x"]
    for value in wrong:
        with pytest.raises(ValueError, match=r"store32 at offset 0x1008: .* is not an integer of 32 bits without sign"):
            word.store(value)
    assert word.load() == 0x1234_5678


def test_a_word_says_what_its_mapping_says(memory: Memory) -> None:
    vmap = memory.guest.vmap([HvPfn(1)])
    word = vmap.word32(8)
    memory.protect("guest", HvPfn(1), 1, read=True, write=False)
    assert word.load() == 0
    with pytest.raises(PageFault, match="guest write to gpa 0x1008"):
        word.store(1)
    memory.protect("guest", HvPfn(1), 1, read=True, write=True)
    word.store(1)
    vmap.unmap()
    for access in (word.load, lambda: word.store(2)):
        with pytest.raises(MachineError, match="use of a 1-page mapping after vunmap"):
            access()
    other = memory.guest.vmap([HvPfn(0)]).word32(0)
    memory.close()
    with pytest.raises(MachineError, match="after the machine was closed"):
        other.load()


# -- watched pages --------------------------------------------------------------------------


def test_a_watcher_hears_of_bits_that_the_guest_sets_in_its_page(memory: Memory) -> None:
    heard: list[int] = []
    memory.watch(HvPfn(2), lambda: heard.append(memory.host.load8(2 * PAGE + 1)))
    vmap = memory.guest.vmap([HvPfn(1), HvPfn(2)])
    memory.guest.sync_set_bit(2 * PAGE, 9)
    vmap.sync_set_bit(PAGE, 8)
    assert heard == [2, 3]
    assert vmap.sync_test_and_set_bit(PAGE, 8)
    assert heard == [2, 3, 3]
    memory.host.sync_set_bit(2 * PAGE, 10)
    memory.guest.sync_set_bit(PAGE, 10)
    memory.guest.sync_clear_bit(2 * PAGE, 9)
    assert heard == [2, 3, 3]
    memory.unwatch(HvPfn(2))
    memory.unwatch(HvPfn(2))
    memory.guest.sync_set_bit(2 * PAGE, 11)
    assert heard == [2, 3, 3]
    with pytest.raises(ValueError, match="outside"):
        memory.watch(HvPfn(END), lambda: None)


# -- the end ------------------------------------------------------------------------------------


def test_after_close_nothing_is_reachable() -> None:
    memory = Memory(RAM)
    vmap = memory.guest.vmap([HvPfn(0)])
    overlay = memory.overlays.establish(HvPfn(1), bytes(PAGE), readonly=False, name="simp")
    assert memory.fd >= 0
    assert memory.close()
    assert memory.closed
    assert memory.close()
    for access in READS + WRITES:
        for door in (memory.guest, memory.host, vmap):
            with pytest.raises(MachineError):
                access(door, 0)
    with pytest.raises(MachineError):
        memory.guest.read(0, 0)
    with pytest.raises(MachineError):
        overlay.revoke()
    with pytest.raises(MachineError):
        memory.set_live(HvPfn(0), 1, False)
    with pytest.raises(MachineError):
        _ = memory.fd


def test_close_tells_of_a_live_view_and_does_not_pull_it_away() -> None:
    memory = Memory(RAM)
    with memory.guest.view(0, 4) as window:
        window[:] = b"keep"
        assert not memory.close()
        assert bytes(window) == b"keep"


def test_another_process_sees_the_same_memory(memory: Memory) -> None:
    memory.guest.write(7 * PAGE + 3, b"shared")
    assert os.pread(memory.fd, 6, 7 * PAGE + 3) == b"shared"


@pytest.mark.parametrize(
    ("ram", "message"),
    [
        ([], "ram: no ranges; a machine needs at least one (start, size)"),
        ([(0, 0)], "ram: range (start=0x0, size=0x0) is empty"),
        ([(0, -4096)], "ram: range (start=0x0, size=-0x1000) is empty"),
        ([(-4096, 8192)], "ram: range (start=-0x1000, size=0x2000) is not a multiple of 4096 bytes from address 0 up"),
        ([(1, 4096)], "ram: range (start=0x1, size=0x1000) is not a multiple of 4096 bytes from address 0 up"),
        ([(0, 4097)], "ram: range (start=0x0, size=0x1001) is not a multiple of 4096 bytes from address 0 up"),
        (
            [(0x2000, 0x1000), (0, 0x3000)],
            "ram: range (start=0x2000, size=0x1000) overlaps the range before it, which ends at 0x3000",
        ),
        (
            [((1 << 40) - 4096, 8192)],
            "ram: range (start=0xfffffff000, size=0x2000) ends at 0x10000001000, the limit is 0x10000000000",
        ),
    ],
)
def test_bad_ram_is_refused_by_name_value_and_limit(ram: list[tuple[int, int]], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        Memory(ram)
    assert str(caught.value) == message


# -- everything against a model ------------------------------------------------------------------

PAGES = st.integers(-1, END)
SIDES = st.sampled_from(["guest", "host"])


class MemoryModel(RuleBasedStateMachine):
    """Memory with overlays, protection and visibility, against dictionaries of bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = Memory(RAM)
        self.bytes = {page: bytearray(PAGE) for page in range(END)}
        self.stacks: dict[int, list[tuple[Overlay, bytearray]]] = {page: [] for page in range(END)}
        self.no_write: dict[str, list[int]] = {"guest": [], "host": []}
        self.hidden: list[int] = []

    def teardown(self) -> None:
        assert self.memory.close()

    def shown(self, page: int) -> bytearray:
        return self.stacks[page][-1][1] if self.stacks[page] else self.bytes[page]

    def allowed(self, side: str, page: int, write: bool) -> bool:
        if not 0 <= page < END or (page not in BACKED and not self.stacks[page]):
            return False
        if side == "host" and page in self.hidden:
            return False
        if write and page in self.no_write[side]:
            return False
        return not (write and side == "guest" and self.stacks[page] and self.stacks[page][-1][0].readonly)

    def span(self, at: int, n: int) -> list[tuple[int, int, int]]:
        out = []
        while n:
            size = min(n, PAGE - at % PAGE)
            out.append((at // PAGE, at % PAGE, size))
            at, n = at + size, n - size
        return out

    @rule(side=SIDES, page=PAGES, offset=st.integers(0, PAGE - 1), data=st.binary(min_size=1, max_size=40))
    def write(self, side: str, page: int, offset: int, data: bytes) -> None:
        at = page * PAGE + offset
        spans = self.span(at, len(data))
        door = getattr(self.memory, side)
        if all(self.allowed(side, number, True) for number, _, _ in spans):
            door.write(at, data)
            done = 0
            for number, start, size in spans:
                self.shown(number)[start : start + size] = data[done : done + size]
                done += size
        else:
            with pytest.raises(PageFault):
                door.write(at, data)

    @rule(side=SIDES, page=PAGES, offset=st.integers(0, PAGE - 1), size=st.sampled_from([1, 2, 4, 8, 30, 9000]))
    def read(self, side: str, page: int, offset: int, size: int) -> None:
        at = page * PAGE + offset
        spans = self.span(at, size)
        door = getattr(self.memory, side)
        loads = {1: "load8", 2: "load16", 4: "load32", 8: "load64"}
        if all(self.allowed(side, number, False) for number, _, _ in spans):
            want = b"".join(bytes(self.shown(number)[start : start + length]) for number, start, length in spans)
            assert door.read(at, size) == want
            if size in loads:
                assert getattr(door, loads[size])(at) == int.from_bytes(want, "little")
        else:
            with pytest.raises(PageFault):
                door.read(at, size)
            if size in loads:
                with pytest.raises(PageFault):
                    getattr(door, loads[size])(at)

    @rule(page=PAGES, fill=st.integers(0, 255), readonly=st.booleans())
    def establish(self, page: int, fill: int, readonly: bool) -> None:
        contents = bytes([fill]) * PAGE
        if not 0 <= page < END:
            with pytest.raises(OverlayError):
                self.memory.overlays.establish(HvPfn(page), contents, readonly=readonly, name="o")
            return
        overlay = self.memory.overlays.establish(HvPfn(page), contents, readonly=readonly, name="o")
        self.stacks[page].append((overlay, bytearray(contents)))

    def pick(self, data: st.DataObject) -> tuple[int, int]:
        places = [(page, n) for page, stack in self.stacks.items() for n in range(len(stack))]
        return data.draw(st.sampled_from(places))

    @precondition(lambda self: any(self.stacks.values()))
    @rule(data=st.data())
    def revoke(self, data: st.DataObject) -> None:
        page, n = self.pick(data)
        overlay, contents = self.stacks[page].pop(n)
        assert overlay.revoke() == contents
        assert overlay.hvpfn is None

    @precondition(lambda self: any(self.stacks.values()))
    @rule(data=st.data(), to=PAGES)
    def move(self, data: st.DataObject, to: int) -> None:
        page, n = self.pick(data)
        overlay, contents = self.stacks[page][n]
        if not 0 <= to < END:
            with pytest.raises(OverlayError):
                overlay.move(HvPfn(to))
        else:
            overlay.move(HvPfn(to))
            if to != page:
                del self.stacks[page][n]
                self.stacks[to].append((overlay, contents))

    @precondition(lambda self: any(self.stacks.values()))
    @rule(data=st.data(), offset=st.integers(0, PAGE - 8), value=st.integers(0, 2**64 - 1))
    def write_overlay(self, data: st.DataObject, offset: int, value: int) -> None:
        page, n = self.pick(data)
        overlay, contents = self.stacks[page][n]
        overlay.store64(offset, value)
        contents[offset : offset + 8] = value.to_bytes(8, "little")

    @rule(side=SIDES, page=st.integers(0, END - 1), count=st.integers(1, 3), write=st.booleans())
    def protect(self, side: Any, page: int, count: int, write: bool) -> None:
        count = min(count, END - page)
        self.memory.protect(side, HvPfn(page), count, read=True, write=write)
        mine = range(page, page + count)
        self.no_write[side] = [n for n in self.no_write[side] if n not in mine] + ([] if write else list(mine))

    @rule(page=st.integers(0, END - 1), visible=st.booleans())
    def visibility(self, page: int, visible: bool) -> None:
        self.memory.set_visibility(HvPfn(page), 1, visible)
        self.hidden = [n for n in self.hidden if n != page] + ([] if visible else [page])

    @invariant()
    def overlays_hold_their_contents(self) -> None:
        for page, stack in self.stacks.items():
            for overlay, contents in stack:
                assert overlay.read(0, PAGE) == contents
            assert self.memory.overlays.at(HvPfn(page)) is (stack[-1][0] if stack else None)
        assert [o.hvpfn for o in self.memory.overlays.all()] == [p for p in range(END) for _ in self.stacks[p]]


TestMemoryModel = MemoryModel.TestCase
TestMemoryModel.settings = settings(max_examples=60, stateful_step_count=30)


@settings(max_examples=150)
@given(
    pages=st.lists(st.sampled_from(BACKED), min_size=1, max_size=6),
    ops=st.lists(st.tuples(st.integers(0, 6 * PAGE), st.binary(min_size=1, max_size=5000)), max_size=8),
)
def test_vmap_agrees_with_byte_by_byte_translation(pages: list[int], ops: list[tuple[int, bytes]]) -> None:
    memory = Memory(RAM)
    model = bytearray(END * PAGE)
    vmap = memory.guest.vmap([HvPfn(n) for n in pages])
    for off, data in ops:
        if off + len(data) > vmap.size:
            with pytest.raises(ValueError, match="outside"):
                vmap.write(off, data)
            continue
        vmap.write(off, data)
        for n, byte in enumerate(data, off):
            model[pages[n // PAGE] * PAGE + n % PAGE] = byte
        want = bytes(model[pages[n // PAGE] * PAGE + n % PAGE] for n in range(off, off + len(data)))
        assert vmap.read(off, len(data)) == want
    assert b"".join(memory.host.read(n * PAGE, PAGE) for n in BACKED) == b"".join(
        bytes(model[n * PAGE : (n + 1) * PAGE]) for n in BACKED
    )
    memory.close()


def test_a_machine_reports_freed_memory_with_the_time(make: Callable[..., Machine]) -> None:
    machine = make()
    machine.memory.set_live(HvPfn(3), 1, False)
    machine.clock.charge(70)
    machine.memory.guest.load8(0x3001)
    (finding,) = machine.findings
    assert (finding.kind, finding.side, finding.t) == ("use-after-free", "guest", 70)
    assert finding.text == "guest read of freed memory at 0x3001"
