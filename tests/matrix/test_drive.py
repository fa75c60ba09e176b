"""Driving the devices: who is driven, by whom, and what is told of a drive that does not."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import distributions, entry_points
from pathlib import Path
from typing import Any

import pytest

from hvkernel.abi.guids import HV_IDE_GUID, HV_SCSI_GUID
from hvkernel.api.matrix import Drive, Driving
from hvkernel.boot.plugins import load
from hvkernel.config.errors import InputError
from hvkernel.linux.scsi import Scsi
from hvkernel.linux.timers import Timers
from hvkernel.matrix.cell import CellRunner
from hvkernel.matrix.drive import drives_of
from hvkernel.matrix.model import CellResult
from hvkernel_storvsc import vsp, vsp_dvd

LANTERN = Path(__file__).parents[1] / "data/plugins/hvkernel_lantern"
AZURE = "arch=x86,host=azure-gen2/gen2"
X86 = "arch=x86,host=ws2022/gen2"
OLD = "arch=x86,host=ws2012r2/gen1"


def problems(result: CellResult) -> list[tuple[str, str]]:
    return [(one.invariant, one.text) for one in result.problems]


def nothing(driving: Driving) -> Iterator[str]:
    for device in driving.devices:
        driving.spawn(device, lambda: None)
    yield from ()


@pytest.fixture
def driven(make_runner: Any, make_cell: Any) -> Callable[..., CellResult]:
    """Return a function that runs a cell whose storage is driven by another function than the plugin's."""

    def run(drive: Any, text: str = X86, *, classes: Any = (HV_SCSI_GUID, HV_IDE_GUID)) -> CellResult:
        runner: CellRunner = make_runner()
        runner.drives = (Drive("own", classes, drive, "Of a test."),)
        return runner.run(make_cell(runner, text))

    return run


def test_every_device_is_driven_and_after_each_event_again(driven: Any) -> None:
    seen: list[tuple[list[str], int, tuple[int, ...], str]] = []

    def drive(driving: Driving) -> Iterator[str]:
        names = [device.name for device in driving.devices]
        seen.append((names, driving.rng.getrandbits(32), tuple(driving.cpus), driving.values["events"]))
        for device in driving.devices:
            assert device.guest.driver_data is not None
            assert isinstance(device.host, vsp.StorageController)
        return nothing(driving)

    result = driven(drive, f"{X86},cpus=65,devices=two-scsi,events=rebind")
    assert (problems(result), result.undriven) == ([], ())
    assert [one[0] for one in seen] == [["scsi0", "scsi1"]] * 2
    assert seen[0][1] != seen[1][1]
    assert {one[2:] for one in seen} == {((0, 1, 2, 63), "rebind")}


def test_a_device_made_anew_is_driven_as_it_is_then(driven: Any) -> None:
    seen = []

    def drive(driving: Driving) -> Iterator[str]:
        seen.append(driving.devices[0].host)
        return nothing(driving)

    assert problems(driven(drive, f"{X86},events=rescind")) == []
    assert len(seen) == 2
    assert seen[0] is not seen[1]


def test_a_device_that_a_drive_leaves_out(driven: Any) -> None:
    def drive(driving: Driving) -> Iterator[str]:
        driving.spawn(driving.devices[0], lambda: None)
        yield from ()

    found = problems(driven(drive, f"{X86},devices=two-scsi"))
    assert found == [("driven", "scsi1 is bound to hv_storvsc, and drive own did not use it")]


def test_a_device_without_a_drive_is_named(driven: Any) -> None:
    result = driven(nothing, f"{X86},devices=two-scsi", classes=(HV_IDE_GUID,))
    assert (problems(result), result.undriven) == ([], ("scsi0", "scsi1"))


def test_what_a_drive_says_is_told_in_its_name_and_order(driven: Any) -> None:
    def drive(driving: Driving) -> Iterator[str]:
        def slow() -> Iterator[str]:
            driving.kernel.sched.msleep(5)
            yield "slow"

        (device,) = driving.devices
        driving.spawn(device, slow, cpu=driving.cpus[-1])
        driving.spawn(device, lambda word: [word], "fast")
        yield f"{driving.call(driving.kernel.cpus.num_online_cpus)} processors"

    assert problems(driven(drive)) == [("own", "4 processors"), ("own", "slow"), ("own", "fast")]


def test_the_host_can_begin(driven: Any) -> None:
    def drive(driving: Driving) -> Iterator[str]:
        said: list[str] = []

        def listen() -> Iterator[str]:
            driving.host(said.append, "two")
            for _ in range(100):
                if len(said) == 2:
                    yield f"heard {' '.join(said)}"
                    return
                driving.kernel.sched.msleep(1)

        driving.host(said.append, "one")
        driving.spawn(driving.devices[0], listen)
        yield from ()

    assert problems(driven(drive)) == [("own", "heard one two")]


@pytest.mark.parametrize(
    ("part", "text"),
    [
        ("drive", "raised ZeroDivisionError: integer division or modulo by zero [fail (matrix/test_drive.py:"),
        ("thread", "scsi0: raised ZeroDivisionError: integer division or modulo by zero [fail (matrix/test_drive.py:"),
        ("host", "the host raised ZeroDivisionError: integer division or modulo by zero [fail (matrix/test_drive.py:"),
    ],
)
def test_a_drive_that_raises_is_broken(part: str, text: str, driven: Any) -> None:
    def fail() -> None:
        _ = 1 // (1 - 1)

    def drive(driving: Driving) -> Iterator[str]:
        driving.spawn(driving.devices[0], fail if part == "thread" else lambda: None)
        if part == "host":
            driving.host(fail)
        if part == "drive":
            fail()
        yield from ()

    result = driven(drive)
    assert result.status == "fail"
    ((name, told),) = problems(result)
    assert name == "own"
    assert told.startswith(text)


def test_a_drive_that_never_ends(driven: Any) -> None:
    def drive(driving: Driving) -> Iterator[str]:
        sched = driving.kernel.sched
        driving.spawn(driving.devices[0], sched.wait_for_completion, sched.init_completion())
        yield from ()

    result = driven(drive)
    ((name, text),) = problems(result)
    assert (name, result.phase) == ("stays-up", "drive")
    assert text.startswith("driving the devices: nothing can run; tasks of the guest: ")
    assert text.endswith("own scsi0")


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("sleeps", "took more than 60 s of virtual time"),
        ("spins", "took more than 100000 steps of the scheduler"),
    ],
)
def test_a_drive_that_goes_on_for_ever_is_over_budget(what: str, text: str, make_runner: Any, make_cell: Any) -> None:
    def drive(driving: Driving) -> Iterator[str]:
        sched = driving.kernel.sched

        def for_ever() -> None:
            while True:
                if what == "sleeps":
                    sched.msleep(1000)
                else:
                    sched.cond_resched()

        driving.spawn(driving.devices[0], for_ever)
        yield from ()

    runner: CellRunner = make_runner(budget={"seconds": 60, "steps": 100_000})
    runner.drives = (Drive("own", (HV_SCSI_GUID,), drive, "Of a test."),)
    result = runner.run(make_cell(runner, X86))
    assert (result.status, result.phase, problems(result)) == ("over-budget", "drive", [("budget", text)])


@pytest.mark.parametrize("event", ["none", "cpu-hotplug"])
def test_a_processor_whose_timer_is_dead(event: str, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four the last: at once, or once it has been offline."""
    program = Timers._program
    dead: list[int] = [3] if event == "none" else []

    def broken(self: Timers, cpu: Any) -> None:
        up = self._kernel.outcome is not None
        if up and event == "cpu-hotplug" and not cpu.online:
            dead[:] = [3]
        if not (up and cpu.cpu in dead):
            program(self, cpu)

    monkeypatch.setattr(Timers, "_program", broken)
    result = run(f"{X86},events={event}")
    assert [name for name, _ in problems(result)][:1] == ["stays-up"]
    assert "sleep/3" in problems(result)[0][1]


# names ---------------------------------------------------------------------------------------------------------


class Loaded:
    """Stands for loaded plugins: each brings some drives."""

    def __init__(self, *brought: Drive) -> None:
        self.brought = brought

    def call(self, hook: str) -> Iterator[tuple[Any, Any]]:
        assert hook == "hv_matrix_drives"
        info: Any = type("Info", (), {"name": "hv_x"})
        for one in self.brought:
            yield info, (one,)


def test_names_of_drives() -> None:
    own = Drive("own", (HV_SCSI_GUID,), nothing, "Of a test.")
    other = replace(own, name="other")
    loaded: Any = Loaded(own, other)
    assert drives_of(loaded, ["log"]) == (own, other)
    for bad, what in (
        (own, "there is a drive or an invariant of that name"),
        (replace(own, name="log"), "there is a drive or an invariant of that name"),
        (replace(own, name="x", classes=()), "it has no class"),
    ):
        faulty: Any = Loaded(own, bad)
        with pytest.raises(InputError, match=rf"^plugins: drive = '{bad.name}': hv_x: {what}$"):
            drives_of(faulty, ["log"])


# storage -------------------------------------------------------------------------------------------------------


def test_a_drive_without_medium_has_to_say_so(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert problems(run(AZURE)) == []
    monkeypatch.setattr(vsp_dvd.DvdDrive, "_read", lambda self, command: 0)
    ((name, text),) = problems(run(AZURE))
    assert (name, text) == ("storage-data", "0:0:0:2: a read without a medium ended with 0x0, sense None")


def test_a_medium_is_read_and_compared(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    read = vsp_dvd.DvdDrive._read

    def counted(self: Any, command: Any) -> int:
        done = read(self, command)
        reads.append(done // vsp_dvd.BLOCK)
        return done

    monkeypatch.setattr(vsp_dvd.DvdDrive, "_read", counted)
    assert problems(run(f"{AZURE},dvd=medium,events=rescind")) == []
    assert reads == [1, 37, 1] * 2

    def spoilt(self: Any, command: Any) -> int:
        done = read(self, command)
        command.buffer.write(0, b"\xa5")
        return done

    monkeypatch.setattr(vsp_dvd.DvdDrive, "_read", spoilt)
    found = problems(run(f"{AZURE},dvd=medium"))
    assert {name for name, _ in found} == {"storage-data"}
    assert all(
        re.search(r"blocks \d+\+(1|37) were read, 1 of (2048|75776) bytes are wrong, from byte 0", t) for _, t in found
    )
    assert len(found) == 3


def test_a_unit_that_the_guest_has_not_found(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lookup = Scsi.scsi_device_lookup
    monkeypatch.setattr(Scsi, "scsi_device_lookup", lambda self, *at: None if at[3] == 2 else lookup(self, *at))
    assert problems(run(AZURE)) == [("storage-data", "scsi0: the guest has not found the DvdDrive at 0:0:2")]


def test_an_empty_controller_stays_empty(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert problems(run(f"{X86},devices=two-scsi")) == []
    monkeypatch.setattr(Scsi, "scsi_add_device", lambda *_: 0)
    ((name, text),) = problems(run(f"{X86},devices=two-scsi"))
    assert name == "storage-data"
    assert text.startswith("scsi1: the guest has found a unit at ")


# a plugin ------------------------------------------------------------------------------------------------------


def test_a_plugin_without_drives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_runner: Any, make_cell: Any
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    package = tmp_path / "hvkernel_lantern"
    shutil.copytree(LANTERN, package, ignore=shutil.ignore_patterns("__pycache__"))
    hooks = package / "__init__.py"
    hooks.write_text(hooks.read_text().replace("@hookimpl\ndef hv_matrix_drives", "def hv_matrix_drives"))
    info = tmp_path / "hvkernel_lantern-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hvkernel-lantern\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[hvkernel]\nhv_lantern = hvkernel_lantern\n")
    own = [entry for found in distributions(path=[str(tmp_path)]) for entry in found.entry_points]
    try:
        plugins = load([*entry_points(group="hvkernel"), *own])
        device = {"class_guid": "1a27e2f0-0000-4000-8000-000000000001", "name": "lantern0"}
        runner = make_runner(plugins, vm={"device": [device]})
        result = runner.run(make_cell(runner, X86))
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "hvkernel_lantern"]:
            del sys.modules[name]
    assert (problems(result), result.undriven) == ([], ("lantern0",))
