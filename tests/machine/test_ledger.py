"""The sharing ledger against a per-page count."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hvkernel.machine import HvPfn, Ledger, LedgerEntry, LedgerError

SIZE = 40


def test_entries_in_the_order_of_sharing() -> None:
    ledger = Ledger(100)
    ledger.share(HvPfn(9), 1, "hypercall page", 0, 10, 0)
    ledger.share(HvPfn(3), 2, "simp", 1, 20, 1)
    ledger.share_pages([HvPfn(n) for n in (50, 51, 52, 7, 8, 60)], "gpadl 0xe1e10", 0xE1E10, 30, 2)
    assert ledger.entries() == (
        LedgerEntry(0x9000, 1, "hypercall page", 0, 10, 0),
        LedgerEntry(0x3000, 2, "simp", 1, 20, 1),
        LedgerEntry(50 << 12, 3, "gpadl 0xe1e10", 0xE1E10, 30, 2),
        LedgerEntry(0x7000, 2, "gpadl 0xe1e10", 0xE1E10, 30, 2),
        LedgerEntry(60 << 12, 1, "gpadl 0xe1e10", 0xE1E10, 30, 2),
    )
    assert len(ledger) == 5
    assert ledger.is_shared("simp", 1)
    assert not ledger.is_shared("simp", 0)
    assert ledger.revoke("gpadl 0xe1e10", 0xE1E10)[2].gpa == 60 << 12
    assert [entry.via for entry in ledger.entries()] == ["hypercall page", "simp"]


def test_neighbouring_shares_join_only_if_all_else_is_equal() -> None:
    ledger = Ledger(100)
    ledger.share(HvPfn(1), 1, "gpadl 1", 1, 5, 0)
    ledger.share(HvPfn(2), 1, "gpadl 1", 1, 5, 0)
    ledger.share(HvPfn(3), 1, "gpadl 1", 1, 6, 0)
    ledger.share(HvPfn(4), 1, "gpadl 1", 1, 6, 1)
    ledger.share(HvPfn(5), 1, "gpadl 2", 2, 6, 1)
    assert [(e.gpa >> 12, e.pages) for e in ledger.entries()] == [(1, 2), (3, 1), (4, 1), (5, 1)]


def test_overlaps_are_counted() -> None:
    ledger = Ledger(100)
    ledger.share(HvPfn(4), 4, "gpadl 1", 1, 0, 0)
    ledger.share(HvPfn(6), 4, "gpa-range", 9, 0, 0)
    assert [ledger.count(HvPfn(n)) for n in range(3, 11)] == [0, 1, 1, 2, 2, 1, 1, 0]
    assert [e.via for e in ledger.shares_of(HvPfn(7))] == ["gpadl 1", "gpa-range"]
    ledger.revoke("gpadl 1", 1)
    assert [ledger.host_can_reach(HvPfn(n)) for n in range(4, 8)] == [False, False, True, True]


def test_more_overlaps_than_a_byte_can_count() -> None:
    ledger = Ledger(10)
    for key in range(300):
        ledger.share(HvPfn(2), 3 if key % 2 else 1, "gpa-range", key, 0, 0)
        ledger.share(HvPfn(4), 1, "gpa-range", "all", key, 0)
        ledger.share(HvPfn(3), 2, "gpa-range", "all", key, 0)
    assert [ledger.count(HvPfn(n)) for n in range(1, 6)] == [0, 300, 450, 750, 0]
    assert len(ledger.revoke("gpa-range", "all")) == 600
    assert [ledger.count(HvPfn(n)) for n in range(1, 6)] == [0, 300, 150, 150, 0]
    for key in range(300):
        assert ledger.host_can_reach(HvPfn(2))
        ledger.revoke("gpa-range", key)
        assert ledger.count(HvPfn(2)) == 299 - key
    assert ledger.first_shared(HvPfn(0), 10) is None


def test_questions_about_pages_outside() -> None:
    ledger = Ledger(4)
    ledger.share(HvPfn(3), 1, "simp", 0, 0, 0)
    assert [ledger.count(HvPfn(n)) for n in (-1, 4, 1 << 40)] == [0, 0, 0]
    assert not any(ledger.host_can_reach(HvPfn(n)) for n in (-1, 4, 1 << 40))
    assert ledger.first_shared(HvPfn(-2), 2) is None
    assert ledger.first_shared(HvPfn(-2), 9) == 3
    assert ledger.first_shared(HvPfn(4), 9) is None


def test_mistakes_name_what_and_the_limit() -> None:
    ledger = Ledger(10)
    with pytest.raises(LedgerError, match=r"^share via 'simp' key 0: pages = 0, at least 1 is needed$"):
        ledger.share(HvPfn(1), 0, "simp", 0, 0, 0)
    message = r"^share via 'simp' key 0: pages 0x9..0xa are outside guest memory, which ends before page 0xa$"
    with pytest.raises(LedgerError, match=message):
        ledger.share(HvPfn(9), 2, "simp", 0, 0, 0)
    with pytest.raises(LedgerError, match="outside"):
        ledger.share(HvPfn(-1), 1, "simp", 0, 0, 0)
    with pytest.raises(LedgerError, match=r"^revoke via 'simp' key 0: nothing is shared under that name$"):
        ledger.revoke("simp", 0)
    assert ledger.entries() == ()


def test_watchers_hear_of_every_change() -> None:
    ledger = Ledger(10)
    heard: list[tuple[bool, int]] = []
    ledger.watch(lambda shared, entry: heard.append((shared, entry.gpa >> 12)))
    ledger.share(HvPfn(1), 1, "simp", 0, 0, 0)
    ledger.revoke("simp", 0)
    assert heard == [(True, 1), (False, 1)]


class LedgerModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(SIZE)
        self.shares: dict[tuple[str, int], list[tuple[int, int]]] = {}

    @rule(
        start=st.integers(0, SIZE - 1),
        pages=st.integers(1, 8),
        via=st.sampled_from(["gpadl", "gpa-range"]),
        key=st.integers(0, 3),
    )
    def share(self, start: int, pages: int, via: str, key: int) -> None:
        pages = min(pages, SIZE - start)
        self.ledger.share(HvPfn(start), pages, via, key, 0, 0)
        self.shares.setdefault((via, key), []).append((start, pages))

    @rule(pages=st.lists(st.integers(0, SIZE - 1), max_size=12), key=st.integers(4, 6))
    def share_pages(self, pages: list[int], key: int) -> None:
        self.ledger.share_pages([HvPfn(n) for n in pages], "pages", key, 0, 0)
        if pages:
            self.shares.setdefault(("pages", key), []).extend((n, 1) for n in pages)

    @precondition(lambda self: self.shares)
    @rule(data=st.data())
    def revoke(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(list(self.shares)))
        runs = self.shares.pop(name)
        assert sum(e.pages for e in self.ledger.revoke(*name)) == sum(n for _, n in runs)

    @invariant()
    def counts_agree(self) -> None:
        want: Counter[int] = Counter()
        for runs in self.shares.values():
            for start, pages in runs:
                want.update(range(start, start + pages))
        assert [self.ledger.count(HvPfn(n)) for n in range(SIZE)] == [want[n] for n in range(SIZE)]
        assert sum(e.pages for e in self.ledger.entries()) == want.total()
        for first, pages in ((0, SIZE), (3, 5), (17, 1)):
            shared = [n for n in range(first, first + pages) if want[n]]
            assert self.ledger.first_shared(HvPfn(first), pages) == (min(shared) if shared else None)


TestLedgerModel = LedgerModel.TestCase
TestLedgerModel.settings = settings(max_examples=50, stateful_step_count=25)
