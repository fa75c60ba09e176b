"""Clocksources: the figures of real logs, selection, sched_clock."""

from __future__ import annotations

from typing import Any

import pytest

from hvkernel.api.guest.time import CLOCK_SOURCE_MUST_VERIFY, Clocksource
from hvkernel.linux import timekeeping
from hvkernel.linux.clocksource import Clocksources
from hvkernel.linux.printk import Printk

U64 = (1 << 64) - 1


def make(hz: Any = 250) -> Any:
    pr = Printk(lambda: 0)
    return Clocksources(pr, hz, lambda: 1_000, lambda: 0), pr


def lines(pr: Any) -> Any:
    return [line.text for line in pr.log]


@pytest.mark.parametrize(
    ("name", "hz", "mask", "figures"),
    [
        # real log 01 and 10 (6.1 and 5.15 on Azure), 12 (WSL2)
        ("hyperv_clocksource_tsc_page", 10_000_000, U64, "max_cycles: 0x24e6a1710, max_idle_ns: 440795202120 ns"),
        ("acpi_pm", 3_579_545, 0xFFFFFF, "max_cycles: 0xffffff, max_idle_ns: 2085701024 ns"),
    ],
)
def test_max_cycles_and_max_idle_are_those_of_real_logs(name: Any, hz: Any, mask: Any, figures: Any) -> None:
    cs, pr = make()
    assert cs.clocksource_register_hz(Clocksource(name, 300, lambda: 0, mask), hz) == 0
    assert lines(pr)[0] == f"clocksource: {name}: mask: {mask:#x} {figures}"


@pytest.mark.parametrize(
    ("khz", "figures"),
    [
        (2_445_435, "max_cycles: 0x233fe0862e1, max_idle_ns: 440795313989 ns"),  # log 10: 2445.435 MHz
        (3_800_008, "max_cycles: 0x6d8cbf8869f, max_idle_ns: 881590921691 ns"),  # log 12: 3800.008 MHz
    ],
)
def test_the_tsc_rows_of_real_logs(khz: Any, figures: Any) -> None:
    cs, pr = make()
    cs.clocksource_register_khz(Clocksource("tsc-early", 299, lambda: 0, U64), khz)
    assert lines(pr)[0].endswith(figures)


@pytest.mark.parametrize(
    ("hz", "refined", "jiffies"),
    [
        (250, 7645519600211568, 7645041785100000),  # logs 01, 10
        (100, None, 19112604462750000),  # log 12
    ],
)
def test_jiffies_rows_of_real_logs(hz: Any, refined: Any, jiffies: Any) -> None:
    cs, pr = make(hz)
    cs.register_refined_jiffies()
    cs.register_jiffies()
    row = "mask: 0xffffffff max_cycles: 0xffffffff, max_idle_ns:"
    if refined:
        assert lines(pr)[0] == f"clocksource: refined-jiffies: {row} {refined} ns"
    assert lines(pr)[1] == f"clocksource: jiffies: {row} {jiffies} ns"


def test_nothing_is_selected_before_the_fs_initcall_and_the_best_rating_then() -> None:
    cs, pr = make()
    cs.register_jiffies()
    cs.clocksource_register_hz(Clocksource("low", 100, lambda: 0, U64), 1_000_000)
    cs.clocksource_register_hz(Clocksource("high", 400, lambda: 0, U64), 1_000_000)
    assert not [line for line in lines(pr) if "Switched" in line]
    cs.clocksource_done_booting()
    assert lines(pr)[-1] == "clocksource: Switched to clocksource high"
    cs.clocksource_register_hz(Clocksource("higher", 450, lambda: 0, U64), 1_000_000)
    assert lines(pr)[-1] == "clocksource: Switched to clocksource higher"
    cs.clocksource_register_hz(Clocksource("lower", 50, lambda: 0, U64), 1_000_000)
    assert "lower: mask" in lines(pr)[-1]


def test_an_unstable_one_is_not_chosen() -> None:
    cs, pr = make()
    tsc = Clocksource("tsc", 300, lambda: 0, U64, 1 | CLOCK_SOURCE_MUST_VERIFY)
    cs.register_jiffies()
    cs.clocksource_register_hz(tsc, 1_000_000_000)
    cs.clocksource_register_hz(Clocksource("hv", 250, lambda: 0, U64), 10_000_000)
    cs.clocksource_mark_unstable(tsc)
    cs.clocksource_done_booting()
    assert lines(pr)[-1] == "clocksource: Switched to clocksource hv"


def test_the_current_one_gives_way_when_it_leaves() -> None:
    cs, pr = make()
    cs.register_jiffies()
    hv = Clocksource("hv", 250, lambda: 0, U64)
    cs.clocksource_register_hz(hv, 10_000_000)
    cs.clocksource_done_booting()
    assert cs.clocksource_unregister(hv) == 0
    assert lines(pr)[-1] == "clocksource: Switched to clocksource jiffies"
    jiffies = cs.curr
    assert cs.clocksource_unregister(jiffies) == -16


def test_a_rate_that_does_not_fit_is_refused() -> None:
    cs, _ = make()
    assert cs.clocksource_register_hz(Clocksource("x", 1, lambda: 0, U64), 1 << 32) == -22


def test_marking_stable_closes_its_own_sum() -> None:
    cs, pr = make()
    now = [100]
    cs.set_sched_clock(lambda: now[0])
    cs.sched_clock_init()
    now[0] = 5_000
    cs.sched_clock_init_late()
    text = lines(pr)[-1]
    assert text == "sched_clock: Marking stable (1000, -900)->(5000, -4900)"
    cs.clear_sched_clock_stable()
    cs.sched_clock_init_late()
    assert len(pr.log) == 1


def test_the_generic_sched_clock_line_of_arm64() -> None:
    cs, pr = make()
    counter = [1000]
    cs.sched_clock_register(lambda: counter[0], 56, 25_000_000)
    assert lines(pr)[-1] == "sched_clock: 56 bits at 25MHz, resolution 40ns, wraps every 4398046511100ns"
    counter[0] += 25_000_000
    assert cs.sched_clock() == pytest.approx(10**9, abs=50)
    cs.sched_clock_register(lambda: 0, 32, 1_000)
    cs.sched_clock_init_late()
    assert len(pr.log) == 1


@pytest.mark.parametrize("hz", [1, 32_768, 1_193_182, 10_000_000, 24_000_000, 3_000_000_000, 4_294_967_295])
def test_conversion_never_overflows_in_its_range_and_is_exact_enough(hz: Any) -> None:
    mult, shift = timekeeping.clocks_calc_mult_shift(hz, 10**9, 600)
    assert 0 < mult < 1 << 32
    assert 600 * hz * mult < 1 << 64
    assert (hz * mult >> shift) == pytest.approx(10**9, rel=1e-5)
