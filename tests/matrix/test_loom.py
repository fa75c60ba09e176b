"""A device that uses all of VMBus (tests/data/plugins/hvkernel_loom) in cells: driven, and again after each event."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from hvkernel.abi.guids import HV_ND_GUID
from hvkernel.boot.plugins import Plugins
from hvkernel.matrix.cell import CellRunner
from hvkernel.matrix.model import CellResult

EVENTS = ("none", "rescind", "rebind", "reload", "cpu-hotplug", "retarget", "subchannels")
GUESTS = (
    "arch=x86,host=ws2022/gen2,cpus=8",
    "arch=x86,host=ws2012r2/gen2,cpus=4,HYPERV=m,HYPERV_STORAGE=m,policy=random",
    "arch=x86,bits=32,host=ws2016/gen1,cpus=2",
    "arch=arm64,host=azure-arm64/gen2,page_size=64K,cpus=4,HYPERV=m,HYPERV_STORAGE=m",
)


@pytest.fixture
def woven(loom_plugins: Plugins, make_runner: Any, make_cell: Any) -> Callable[[str], CellResult]:
    """Return a function that runs a cell of a VM with two looms."""
    looms = [{"class_guid": str(HV_ND_GUID), "name": f"loom{number}", "subchannels": 3} for number in range(2)]
    runner: CellRunner = make_runner(loom_plugins, vm={"device": looms})
    return lambda text: runner.run(make_cell(runner, text))


@pytest.mark.parametrize(("guest", "event"), [*itertools.product(GUESTS, EVENTS)])
def test_looms_are_driven(guest: str, event: str, woven: Any) -> None:
    result = woven(f"{guest},events={event}")
    assert (result.problems, result.undriven, result.phase) == ((), (), "invariants")


def test_frame_numbers_in_native_pages_are_found_at_64k_by_the_drive_alone(
    woven: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe sends nothing by vmbus_sendpacket_mpb_desc(): only who drives the device sees it."""
    from hvkernel_loom.vsc import LoomDriver

    send = LoomDriver.send_mpb_desc

    def native(self: Any, channel: Any, message: Any, page: Any, number: int) -> int:
        moved = SimpleNamespace(gpa=page.gpa >> self.kernel.mm.PAGE_SHIFT << 12)
        return send(self, channel, message, moved, number)  # type: ignore[arg-type] # all that is looked at

    monkeypatch.setattr(LoomDriver, "send_mpb_desc", native)
    assert woven(f"{GUESTS[0]},events=none").problems == ()
    problems = woven(f"{GUESTS[3]},events=none").problems
    assert problems
    assert {problem.invariant for problem in problems} <= {"loom", "findings"}
    assert any(problem.invariant == "loom" and problem.text.endswith(": scatter: -5") for problem in problems)
