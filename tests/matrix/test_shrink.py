"""Drivers that are broken on purpose: found where they break and nowhere else, and shrunk to what makes them break."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import distributions, entry_points
from pathlib import Path
from typing import Any

import pytest
from broken_lantern import DEVICE, forget
from broken_lantern import install as install_lantern

from hvkernel.boot.plugins import Plugins, load
from hvkernel.matrix.cell import CellRunner
from hvkernel.matrix.model import Cell, CellResult, Problem
from hvkernel.matrix.shrink import shrink

SYMBOLS = ("HYPERV", "HYPERV_STORAGE", "HYPERV_LANTERN")
GUESTS = [
    "arch=x86,host=ws2022/gen2,cpus=4,events=rebind",
    "arch=x86,host=ws2022/gen2,cpus=2,HYPERV=m,HYPERV_STORAGE=m,HYPERV_LANTERN=m,events=reload",
    "arch=x86,bits=32,host=ws2016/gen1,cpus=1,events=rescind,HYPERV_LANTERN=m",
    "arch=arm64,host=azure-arm64/gen2,page_size=4K,cpus=65,memory=numa",
    "arch=arm64,host=azure-arm64/gen2,page_size=16K,cpus=4,disk_size=3T,events=cpu-hotplug",
    "arch=arm64,host=azure-arm64/gen2,page_size=64K,cpus=2,policy=random,HYPERV_LANTERN=m",
]
Install = Callable[[str], Plugins]


@pytest.fixture
def lantern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Install the lantern plugin with a fault, and load all plugins."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(fault: str) -> Plugins:
        install_lantern(tmp_path, fault)
        own = [entry for found in distributions(path=[str(tmp_path)]) for entry in found.entry_points]
        plugins = load([*entry_points(group="hvkernel"), *own])
        assert not plugins.faults, plugins.faults
        return plugins

    yield install
    forget()


@pytest.fixture
def broken(lantern: Install, make_runner: Any) -> Callable[[str], CellRunner]:
    """Return a function that makes the runner of a VM with a lantern, whose driver has a fault."""

    def make(fault: str) -> CellRunner:
        runner: CellRunner = make_runner(
            lantern(fault), vm={"device": [DEVICE]}, symbols=dict.fromkeys(SYMBOLS, ("y", "m", "n"))
        )
        return runner

    return make


def results(runner: CellRunner, make_cell: Any) -> list[CellResult]:
    return [runner.run(make_cell(runner, guest)) for guest in GUESTS]


def broken_in(found: list[CellResult]) -> list[bool]:
    return [result.status != "pass" for result in found]


def test_the_sound_driver_passes_everywhere(broken: Any, make_cell: Any) -> None:
    found = results(broken(""), make_cell)
    assert [(result.outcome, result.problems) for result in found] == [("up", ())] * len(GUESTS)


def test_a_ring_in_native_pages_is_found_at_16k_and_64k_only_and_shrunk_to_the_page_size(
    broken: Any, make_cell: Any
) -> None:
    runner = broken("ring")
    found = results(runner, make_cell)
    assert broken_in(found) == [False, False, False, False, True, True]
    for result, size, other in zip(found[4:], ("16K", "64K"), ("64K", "16K"), strict=True):
        assert {problem.invariant for problem in result.problems} == {"log", "devices-bound"}
        cause = shrink(runner, result)
        assert cause.values == (("page_size", size),)
        assert set(cause.needed) <= {("arch", "arm64")}
        assert cause.alike == (("page_size", (other,)),)
        assert cause.text == "fails iff page_size is 16K or 64K"
        assert cause.replay in (
            f"hvkernel matrix --cell 'arch=arm64,page_size={size}' --seed 0",
            f"hvkernel matrix --cell 'page_size={size}' --seed 0",
        )
        assert cause.runs < 20


def test_a_message_in_native_pages(broken: Any, make_cell: Any) -> None:
    runner = broken("pages")
    found = results(runner, make_cell)
    assert broken_in(found) == [False, False, False, False, True, True]
    assert shrink(runner, found[5]).text == "fails iff page_size is 16K or 64K"


def test_a_gpadl_that_is_never_torn_down(broken: Any, make_cell: Any) -> None:
    runner = broken("gpadl")
    found = results(runner, make_cell)
    assert all(broken_in(found))
    for result in found:
        texts = [problem.text for problem in result.problems]
        assert any("freed while the host can reach" in text for text in texts)
        assert any("GPADLs, and no device has a driver" in text for text in texts)
    assert shrink(runner, found[0]).text == "fails with every axis at its default"


def test_a_page_that_leaks(broken: Any, make_cell: Any) -> None:
    runner = broken("leak")
    found = results(runner, make_cell)
    assert all(broken_in(found))
    for result in found:
        assert {problem.invariant for problem in result.problems} == {"pages"}
        assert result.problems[0].text.startswith(tuple("123456789"))
        assert "allocations at share:" in result.problems[0].text
        assert result.problems[0].text.endswith("(hvkernel_lantern.vsc) were never freed")
    cause = shrink(runner, found[5])
    assert (cause.values, cause.text) == ((), "fails with every axis at its default")


def test_a_module_that_keeps_a_page_is_shrunk_to_being_a_module(broken: Any, make_cell: Any) -> None:
    runner = broken("module")
    found = results(runner, make_cell)
    assert broken_in(found) == ["HYPERV_LANTERN=m" in guest for guest in GUESTS]
    for result in (one for one in found if one.problems):
        cause = shrink(runner, result)
        assert (cause.invariant, cause.values) == ("pages", (("HYPERV_LANTERN", "m"),))
        assert cause.text == "fails iff HYPERV_LANTERN=m"


def test_a_driver_that_raises_is_named(broken: Any, make_cell: Any) -> None:
    """Its callback is given up and its probe waits for ever; the cell is not lost."""
    runner = broken("raise")
    result = runner.run(make_cell(runner, GUESTS[0]))
    assert (result.status, result.outcome, result.phase) == ("fail", "hung", "boot")
    found = {problem.invariant: problem.text for problem in result.problems}
    assert found["plugins"] == "plugin hvkernel-lantern[hv_lantern]: driver: KeyError: 'lantern'"
    assert found["comes-up"].endswith("by the rules of check it should be up")


def test_two_values_that_matter_together(broken: Any, make_cell: Any) -> None:
    """The default has four processors: one value has to come in for the driver to be sound again."""
    runner = broken("two")
    assert not any(broken_in(results(runner, make_cell))), "each has 4K pages or an even number of processors"
    result = runner.run(make_cell(runner, "arch=arm64,page_size=64K,cpus=1,offer_order=random"))
    cause = shrink(runner, result)
    assert cause.values == (("page_size", "64K"), ("cpus", "1"))
    assert cause.text == "fails iff page_size is 16K or 64K and cpus=1"


def test_questions_that_share_a_number_are_found_by_several_processors_at_a_time(broken: Any, make_cell: Any) -> None:
    runner = broken("race")
    found = results(runner, make_cell)
    fifo = [at for at, guest in enumerate(GUESTS) if "policy=random" not in guest]  # there they may miss each other
    assert [found[at].status != "pass" for at in fifo] == ["cpus=1," not in GUESTS[at] for at in fifo]
    assert {one.problems[0].invariant for one in found if one.problems} == {"stays-up"}
    assert found[0].problems[0].text.endswith(", lantern lantern0, lantern lantern0, lantern lantern0")
    assert shrink(runner, found[0]).text == "fails with every axis at its default"


def test_a_driver_that_does_not_listen_is_found_by_its_drive(broken: Any, make_cell: Any) -> None:
    for result in results(broken("deaf"), make_cell):
        assert {problem.invariant for problem in result.problems} == {"lantern"}
        assert result.problems[0].text == "lantern0 flashed 3 times, and the driver saw 0"


def test_a_cell_that_is_no_machine_is_not_shrunk(runner: CellRunner, make_cell: Any) -> None:
    result = runner.run(make_cell(runner, "arch=x86,host=ws2008r2/gen1,cpus=64"))
    cause = shrink(runner, result)
    assert cause.text == "there is no such machine: cell 0: cpus = 64: host ws2008r2 has at most 4"
    assert cause.runs == 0


# on a runner that is made up -----------------------------------------------------------------------------------


class Fake:
    """A runner whose cells fail (True), pass (False) or are no machine (None) as a function of their values says."""

    def __init__(self, runner: CellRunner, fails: Callable[[dict[str, str]], bool | None]) -> None:
        self.spec = runner.spec
        self.fails = fails
        self.boots = 0

    def run(self, cell: Cell, *, twice: bool | None = None) -> CellResult:
        verdict = self.fails(cell.by_axis)
        name = "legal-cell" if verdict is None else "it"
        self.boots += verdict is not None
        problems = (Problem(name, "is so"),) if verdict is not False else ()
        return CellResult(cell, "fail" if problems else "pass", "up", "invariants", problems)


WHOLE = (
    "arch=arm64,release=6.1,page_size=64K,hz=100,host=azure-arm64/gen2,cpus=65,memory=numa,devices=late,"
    "offer_order=random,policy=random,events=rescind,disk_size=3T"
)


@pytest.fixture
def shrunk(runner: CellRunner, make_cell: Any) -> Callable[..., Any]:
    def make(fails: Callable[[dict[str, str]], bool | None], **more: Any) -> Any:
        fake: Any = Fake(runner, fails)
        cause = shrink(fake, fake.run(make_cell(runner, WHOLE)), **more)
        assert cause.runs <= fake.boots
        return cause

    return make


def test_each_of_two_values_is_confirmed(shrunk: Any) -> None:
    cause = shrunk(lambda cell: cell.get("cpus") == "65" and cell.get("events") == "rescind")
    assert cause.values == (("cpus", "65"), ("events", "rescind"))
    assert cause.text == "fails iff cpus=65 and events=rescind"
    assert (cause.needed, cause.alike) == ((), ())
    assert cause.replay == "hvkernel matrix --cell 'cpus=65,events=rescind' --seed 0"


def test_many_values_that_do_not_matter_take_few_boots_that_fail(shrunk: Any) -> None:
    failed: list[dict[str, str]] = []

    def fails(cell: dict[str, str]) -> bool:
        if cell.get("disk_size") == "3T":
            failed.append(cell)
        return cell.get("disk_size") == "3T"

    assert shrunk(fails).values == (("disk_size", "3T"),)
    assert len(failed) <= 5, "of twelve values, and the cell itself"


def test_one_of_two_values_suffices(shrunk: Any) -> None:
    cause = shrunk(lambda cell: cell.get("cpus") == "65" or cell.get("hz") == "100")
    assert len(cause.values) == 1
    assert cause.text.startswith("fails iff ")


def test_what_only_goes_together_goes_together(shrunk: Any) -> None:
    def fails(cell: dict[str, str]) -> bool | None:
        three = [cell.get("arch"), cell.get("host"), cell.get("page_size")]
        if any(three) and not all(three):
            return None
        return cell.get("policy") == "random"

    assert shrunk(fails).values == (("policy", "random"),)


def test_what_cannot_go_at_all_is_what_it_takes(shrunk: Any) -> None:
    cause = shrunk(lambda cell: True if cell.get("arch") == "arm64" else None)
    assert (cause.values, cause.needed) == ((("arch", "arm64"),), ())


def test_with_too_few_boots_nothing_is_claimed(shrunk: Any) -> None:
    cause = shrunk(lambda cell: cell.get("events") == "rescind" and cell.get("cpus") == "65", runs=3)
    assert cause.runs == 3
    assert cause.text.startswith("fails with ")
    assert ("events", "rescind") in cause.values


def test_a_cell_that_passed_cannot_be_shrunk(runner: CellRunner, make_cell: Any) -> None:
    result = CellResult(make_cell(runner, ""), "pass", "up", "invariants")
    with pytest.raises(ValueError, match=r"^cell 0 has no problem to shrink$"):
        shrink(runner, result)
