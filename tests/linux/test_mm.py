"""The page allocator: page sizes, zones, reservations, misuse, failure on demand."""

from __future__ import annotations

import random
from typing import Any

import pytest

from hvkernel.linux.buddy import Buddy
from hvkernel.linux.mm import lowmem_end
from hvkernel.machine import HvPfn

MIB = 1 << 20


@pytest.mark.parametrize("page_size", [4096, 16384, 65536])
def test_pages_are_guest_pages(make_guest: Any, page_size: Any) -> None:
    guest = make_guest(page_size=page_size)
    mm = guest.kernel.mm

    def body() -> None:
        page = mm.alloc_pages(1, zero=True)
        assert page.size == 2 * page_size
        assert page.gpa == page.pfn * page_size
        assert page.gpa % page.size == 0
        assert mm.page_to_hvpfn(page) == page.gpa >> 12
        mm.memory.store32(page.gpa + page.size - 4, 7)
        vmap = mm.vmap([page])
        assert vmap.load32(page.size - 4) == 7
        vmap.unmap()
        mm.free_pages(page)

    guest.call(body)
    assert guest.findings == []


def test_zeroed_pages_are_zero_and_others_keep_what_was_there(guest: Any) -> None:
    mm = guest.kernel.mm

    def body() -> Any:
        page = mm.alloc_page()
        mm.memory.write(page.gpa, b"secret")
        mm.free_pages(page)
        again = mm.alloc_page()
        assert again.gpa == page.gpa
        assert mm.memory.read(again.gpa, 6) == b"secret"
        mm.free_pages(again)
        return mm.memory.read(mm.get_zeroed_page().gpa, 6)

    assert guest.call(body) == bytes(6)


def test_reserved_ranges_and_the_first_mebibyte_are_never_given_out(make_guest: Any) -> None:
    guest = make_guest(up=False, ram=8 * MIB)
    mm = guest.kernel.mm
    mm.reserve(2 * MIB + 100, 5000, "kernel")
    guest.bring_up(2)
    taken: Any = []

    def body() -> None:
        while (page := mm.alloc_page()) is not None:
            taken.append(page.gpa)

    guest.call(body)
    assert min(taken) == MIB
    assert not [gpa for gpa in taken if 2 * MIB <= gpa < 2 * MIB + 8192]
    assert len(taken) == len(set(taken)) == mm.totalram_pages() == (7 * MIB >> 12) - 2
    assert mm.nr_free_pages() == 0
    with pytest.raises(RuntimeError, match="after mm_init"):
        mm.reserve(0, 1, "late")


def test_only_ram_of_the_firmware_map_is_used(make_guest: Any) -> None:
    memory_map = ((0, 4 * MIB, 1), (4 * MIB, 4 * MIB, 2), (8 * MIB, 4 * MIB, 1), (12 * MIB, MIB, 3), (13 * MIB, MIB, 4))
    guest = make_guest(memory_map=memory_map)
    assert guest.kernel.mm.usable == [(0, 4 * MIB), (8 * MIB, 12 * MIB)]
    assert guest.kernel.mm.totalram_pages() == 7 * MIB >> 12


def test_a_map_without_ram_is_an_error(make_guest: Any) -> None:
    with pytest.raises(ValueError, match="no usable RAM"):
        make_guest(memory_map=((0, 4 * MIB, 2),))


def test_partial_guest_pages_are_left_out(make_guest: Any) -> None:
    guest = make_guest(page_size=65536, memory_map=((0x1000, 4 * MIB, 1),))
    assert guest.kernel.mm.usable == [(0x10000, 4 * MIB)]


def test_lowmem_end_is_896_mebibytes_for_the_usual_split() -> None:
    assert lowmem_end(0xC0000000) == 896 * MIB
    assert lowmem_end(0x80000000) == 1920 * MIB


def thirty_two_bits(make_guest: Any, **config: Any) -> Any:
    return make_guest(
        bits=32,
        config={"HIGHMEM": "y", "PAGE_OFFSET": "0xF7000000", **config},
        memory_map=((0, 32 * MIB, 1), (1 << 32, 8 * MIB, 1)),
    )


def test_highmem_is_preferred_for_pages_that_need_no_mapping(make_guest: Any) -> None:
    guest = thirty_two_bits(make_guest, X86_PAE="y")
    mm = guest.kernel.mm
    assert mm.lowmem_limit == 16 * MIB

    def body() -> None:
        high, low = mm.alloc_pages(0), mm.alloc_pages(0, lowmem=True)
        assert high.gpa >= 16 * MIB
        assert high.highmem
        assert low.gpa < 16 * MIB
        assert not low.highmem
        mm.free_pages(high)
        mm.free_pages(low)
        assert mm.get_zeroed_page().gpa < 16 * MIB

    guest.call(body)
    assert guest.findings == []


def test_pae_reaches_memory_above_four_gibibytes_and_others_do_not(make_guest: Any) -> None:
    assert thirty_two_bits(make_guest, X86_PAE="y").kernel.mm.usable[-1][1] == (1 << 32) + 8 * MIB
    assert thirty_two_bits(make_guest).kernel.mm.usable[-1][1] == 32 * MIB


def test_without_highmem_a_32_bit_kernel_has_lowmem_only(make_guest: Any) -> None:
    guest = thirty_two_bits(make_guest, HIGHMEM="n")
    assert guest.kernel.mm.usable == [(0, 16 * MIB)]


def test_a_double_free_is_a_finding_and_changes_nothing(guest: Any) -> None:
    mm = guest.kernel.mm

    def body() -> None:
        page = mm.alloc_page()
        mm.free_pages(page)
        free = mm.nr_free_pages()
        mm.free_pages(page)
        assert mm.nr_free_pages() == free

    guest.call(body)
    assert guest.findings == ["double-free"]
    assert "body" in guest.machine.findings[0].text


def test_use_after_free_is_seen_from_both_sides(guest: Any) -> None:
    mm = guest.kernel.mm

    def body() -> None:
        page = mm.alloc_page()
        mm.free_pages(page)
        mm.memory.load32(page.gpa)
        guest.machine.memory.host.store32(page.gpa, 1)

    guest.call(body)
    assert guest.findings == ["use-after-free", "use-after-free"]


def test_freeing_a_page_that_the_host_can_reach_is_a_finding(guest: Any) -> None:
    mm = guest.kernel.mm

    def body() -> None:
        page = mm.alloc_pages(1)
        guest.machine.ledger.share(HvPfn((page.gpa >> 12) + 1), 1, "gpadl 7", 7, 0, 0)
        mm.free_pages(page)

    guest.call(body)
    assert guest.findings == ["free-of-shared-page"]
    assert "via gpadl 7" in guest.machine.findings[0].text


def test_the_nth_allocation_fails_on_demand(guest: Any) -> None:
    mm = guest.kernel.mm

    def body() -> Any:
        mm.fail_nth = 2
        return [mm.alloc_page() is None for _ in range(4)]

    assert guest.call(body) == [False, True, False, False]


def test_an_order_beyond_the_largest_fails_with_a_finding(guest: Any) -> None:
    assert guest.call(guest.kernel.mm.alloc_pages, 11) is None
    assert guest.findings == ["bad-allocation"]


def test_leaks_name_who_allocated(guest: Any) -> None:
    mm = guest.kernel.mm

    def leaky() -> Any:
        return mm.alloc_pages(2)

    page = guest.call(leaky)
    assert mm.leaks() == [page]
    assert page.caller.startswith("leaky:")


def test_an_allocation_that_may_sleep_is_a_finding_in_atomic_context(guest: Any) -> None:
    k = guest.kernel

    def body() -> None:
        with k.locking.spin_lock_init("l"):
            k.mm.alloc_page()
        with k.locking.spin_lock_init("m"):
            k.mm.get_zeroed_page(atomic=True)

    guest.call(body)
    assert guest.findings == ["sleep-in-atomic"]


@pytest.mark.parametrize("seed", range(50))
def test_the_buddy_never_gives_a_page_twice_and_joins_everything_again(seed: Any) -> None:
    rng = random.Random(seed)
    ranges = [(3, 700), (1024, 2048 + rng.randrange(500))]
    buddy = Buddy("test", ranges, 6)
    live: dict[int, int] = {}
    owned: set[int] = set()
    for _ in range(400):
        if live and rng.random() < 0.45:
            pfn = rng.choice(sorted(live))
            order = live.pop(pfn)
            owned -= set(range(pfn, pfn + (1 << order)))
            buddy.free(pfn, order)
            continue
        order = rng.randrange(7)
        got = buddy.alloc(order)
        if got is None:
            continue
        pages = set(range(got, got + (1 << order)))
        assert got % (1 << order) == 0
        assert not pages & owned
        assert all(any(a <= p < b for a, b in ranges) for p in pages)
        owned |= pages
        live[got] = order
        assert buddy.free_pages == buddy.total - len(owned)
    for pfn, order in sorted(live.items()):
        buddy.free(pfn, order)
    assert buddy.free_pages == buddy.total
    fresh = Buddy("fresh", ranges, 6)
    assert [buddy.alloc(6) is None for _ in range(40)] == [fresh.alloc(6) is None for _ in range(40)]
