"""Whole cells: those of sound kernels pass through every phase, and what is wrong with one is told."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from hvkernel.api.guest.block import BlockError
from hvkernel.api.matrix import Clash, Evidence, Invariant
from hvkernel.host.vmbus.server import VmbusServer
from hvkernel.hv import channel_mgmt
from hvkernel.linux.block import Block
from hvkernel.linux.cpuhp import Cpuhp
from hvkernel.matrix import cell as cell_module
from hvkernel.matrix import events as events_module
from hvkernel.matrix import expect
from hvkernel.matrix.events import EVENTS
from hvkernel.matrix.model import EVENT_NAMES, CellResult
from hvkernel_storvsc import vsc

X86 = "arch=x86,host=ws2022/gen2"
MODULES = "HYPERV=m,HYPERV_STORAGE=m"
ARM64 = "arch=arm64,host=azure-arm64/gen2,page_size=64K"
Run = Callable[..., CellResult]


def problems(result: CellResult) -> list[tuple[str, str]]:
    return [(one.invariant, one.text) for one in result.problems]


def test_the_names_of_the_events() -> None:
    assert tuple(EVENTS) == EVENT_NAMES


@pytest.mark.parametrize("event", EVENT_NAMES)
@pytest.mark.parametrize("guest", [X86, f"{X86},{MODULES}", ARM64])
def test_a_sound_kernel_passes(guest: str, event: str, run: Run) -> None:
    result = run(f"{guest},events={event}")
    assert problems(result) == []
    assert (result.status, result.outcome, result.phase) == ("pass", "up", "invariants")
    assert result.dmesg == ()
    assert 0 < result.virtual < 60 * 10_000_000
    assert result.steps > 1000
    assert result.cpu_ms > 0


@pytest.fixture
def around(make_runner: Any, make_cell: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Return a function that runs a cell and returns the evidence before and after its events."""

    def make(text: str) -> tuple[Any, Any]:
        runner, seen = make_runner(), {}

        def look(evidence: Any) -> Iterator[str]:
            seen[evidence.moment] = SimpleNamespace(
                channels={one.relid: one for one in evidence.guest_channels},
                lines=evidence.dmesg,
                posts=evidence.session.machine.stats.hypercall,
            )
            yield from ()

        own = Invariant("own", ("up", "events"), look, "Of a test.")
        monkeypatch.setattr(runner, "invariants", (*runner.invariants, own))
        assert runner.run(make_cell(runner, text)).status == "pass"
        before, after = seen["up"], seen["events"]
        after.lines = after.lines[len(before.lines) :]
        return before, after

    return make


def test_without_events_nothing_happens(around: Any) -> None:
    before, after = around(X86)
    assert (before.channels, after.lines) == (after.channels, ())


def test_every_device_is_rescinded_and_offered_again(around: Any) -> None:
    before, after = around(f"{X86},events=rescind")
    assert len(after.channels) == len(before.channels) > 5
    assert sum(one.is_open for one in after.channels.values()) == sum(one.is_open for one in before.channels.values())
    assert sum("Attached SCSI disk" in line for line in after.lines) == 1


def test_every_device_is_unbound_and_bound(around: Any) -> None:
    before, after = around(f"{X86},events=rebind")
    assert before.channels == after.channels
    assert [line for line in after.lines if line.startswith("scsi host")] == ["scsi host1: storvsc_host_t"]


LEGACY = "arch=x86,host=ws2012r2/gen2"
"""Its stimer0 sends messages, so hv_vmbus can go."""


@pytest.mark.parametrize(
    ("guest", "built", "times", "bus"),
    [
        (X86, "HYPERV_STORAGE=m", 1, 0),
        (X86, MODULES, 1, 0),
        (X86, "HYPERV_STORAGE=y", 0, 0),
        (LEGACY, MODULES, 1, 1),
        (LEGACY, "HYPERV_STORAGE=m", 1, 0),
        (ARM64, MODULES, 1, 1),
    ],
)
def test_modules_are_loaded_again(guest: str, built: str, times: int, bus: int, around: Any) -> None:
    _, after = around(f"{guest},{built},events=reload")
    assert after.lines.count("hv_vmbus: unregistering driver hv_storvsc") == times
    assert after.lines.count("hv_vmbus: registering driver hv_storvsc") == times
    assert sum(line.startswith("hv_vmbus: Vmbus version:") for line in after.lines) == bus


def test_what_becomes_of_time_without_hv_vmbus(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """6.1 stops a direct stimer0 with the module and unbinds no clock event: so the event leaves hv_vmbus there."""
    monkeypatch.setattr(events_module, "_clock_is_direct", lambda run: False)
    ((name, text),) = problems(run(f"{X86},{MODULES},events=reload"))
    assert name == "stays-up"
    assert text.endswith("sleep/0, sleep/1, sleep/2, sleep/3")
    for guest in (LEGACY, ARM64):
        assert problems(run(f"{guest},{MODULES},events=reload")) == []


def test_processors_leave_and_come_back(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    went: list[tuple[str, int, int]] = []

    def watched(name: str) -> Callable[..., int]:
        original = getattr(Cpuhp, name)

        def call(self: Cpuhp, cpu: int) -> int:
            ret: int = original(self, cpu)
            went.append((name, cpu, ret))
            return ret

        return call

    for name in ("cpu_down", "cpu_up"):
        monkeypatch.setattr(Cpuhp, name, watched(name))
    assert run(f"{X86},cpus=64,events=cpu-hotplug").status == "pass"
    went = went[63:]
    assert [cpu for name, cpu, _ in went if name == "cpu_down"] == [1, 62, 63]
    down = [cpu for name, cpu, ret in went if name == "cpu_down" and ret == 0]
    assert 0 < len(down) < 3, "channels interrupt the second processor"
    assert down == [cpu for name, cpu, ret in went if name == "cpu_up" and ret == 0]


def test_channels_move(around: Any) -> None:
    before, after = around(f"{X86},cpus=4,events=retarget")
    moved = [relid for relid, one in before.channels.items() if one.target_vp != after.channels[relid].target_vp]
    assert moved == [relid for relid, one in before.channels.items() if one.is_open] != []


def test_there_are_more_subchannels(around: Any) -> None:
    """The driver opens them where it has asked for some: on more processors than one channel is for."""
    for cpus, opens in (("4", False), ("64", True)):
        before, after = around(f"{X86},cpus={cpus},events=subchannels")
        new = [one for relid, one in after.channels.items() if relid not in before.channels]
        assert [one.is_open for one in new] == [opens] * 2


def test_the_guest_hibernates(around: Any) -> None:
    _, after = around(f"{X86},cpus=2,events=hibernate")
    assert "Disabling non-boot CPUs ..." in after.lines
    assert "CPU1 is up" in after.lines


def test_the_same_cell_under_another_hash_seed(make_runner: Any, make_cell: Any) -> None:
    program = (
        "import sys; from hvkernel.config.matrix import MatrixSpec; from hvkernel.matrix.cell import CellRunner\n"
        "from hvkernel.matrix.model import Cell\n"
        "runner = CellRunner(MatrixSpec.from_json(sys.argv[1]))\n"
        "cell = Cell(0, tuple(tuple(part.split('=')) for part in sys.argv[2].split(',')), 4)\n"
        "result = runner.run(cell, twice=False); print(result.virtual, result.steps, result.problems)"
    )
    text = "arch=x86,host=ws2022/gen1,cpus=65,events=subchannels,policy=random,offer_order=random"
    found = {
        subprocess.run(
            [sys.executable, "-c", program, make_runner().spec.to_json(), text],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1
    assert found.pop().endswith(" ()\n")


@pytest.mark.parametrize(
    ("guest", "outcome"),
    [
        ("arch=x86,bits=32,pae=y,host=ws2016/gen1", "up"),
        ("arch=x86,bits=32,host=ws2022/gen2", "unsupported"),
        ("arch=x86,host=azure-arm64/gen2", "unsupported"),
        ("arch=x86,host=ws2008r2/gen1", "panic"),
        ("arch=x86,host=ws2008r2/gen1,release=5.15", "up"),
        (f"{X86},HYPERV_STORAGE=n", "panic"),
        (f"{X86},{MODULES},initrd=none", "panic"),
        (f"{X86},{MODULES},BLK_DEV_SD=n", "hung"),
        ("arch=x86,host=wsl2/gen2,HYPERV=m,HYPERV_STORAGE=m", "up"),
        (f"{X86},cpus=65,devices=late,offer_order=random,policy=random", "up"),
        (f"{ARM64},cpus=240,memory=small,disk_size=3T", "up"),
        ("arch=x86,host=ws2012/gen1,HYPERV=m,HYPERV_STORAGE=m,events=reload", "up"),
        ("arch=x86,host=ws2022/gen2,vmbus=3.0,events=subchannels", "up"),
    ],
)
def test_what_should_not_come_up_and_does_not_is_no_fault(guest: str, outcome: str, run: Run) -> None:
    result = run(guest, seed=3)
    assert (problems(result), result.status, result.outcome) == ([], "pass", outcome)


def test_a_cell_that_no_machine_has(run: Run) -> None:
    result = run("arch=x86,host=ws2008r2/gen1,cpus=64")
    assert (result.status, result.phase) == ("fail", "link")
    assert problems(result) == [("legal-cell", "cell 0: cpus = 64: host ws2008r2 has at most 4")]


def test_values_that_clash(make_runner: Any, make_cell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = make_runner()
    clash = Clash("3T", "cpus", ("1", "2"), "of a test")
    axes = {**runner.axes, "disk_size": replace(runner.axes["disk_size"], clashes=(clash,))}
    monkeypatch.setattr(runner, "axes", axes)
    result = runner.run(make_cell(runner, f"{X86},cpus=2,disk_size=3T"))
    assert (result.status, result.phase) == ("fail", "build")
    assert problems(result) == [("legal-cell", "cell 0: disk_size=3T and cpus=2: of a test")]
    assert runner.run(make_cell(runner, f"{X86},cpus=4,disk_size=3T")).status == "pass"


def test_a_symbol_that_does_not_come_out_as_asked(run: Run) -> None:
    text = "cell 0: HYPERV_STORAGE=y was asked for, and the configuration has HYPERV_STORAGE=m"
    result = run(f"{X86},HYPERV=m,HYPERV_STORAGE=y")
    assert (result.phase, problems(result)) == ("build", [("legal-cell", text)])
    assert problems(run("arch=x86,page_size=64K"))[0][0] == "legal-cell"


@pytest.mark.parametrize(
    ("guest", "first", "then"),
    [
        (f"{X86},{MODULES}", "rescind", "reload"),
        (f"{LEGACY},{MODULES}", "reload", "hibernate"),
        (f"{ARM64},{MODULES}", "reload", "rescind"),
        (X86, "subchannels", "cpu-hotplug"),
        (f"{X86},policy=random", "hibernate", "rebind"),
    ],
)
def test_one_event_after_another(guest: str, first: str, then: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    happened = []

    def watched(name: str) -> Any:
        def event(guest: Any) -> Iterator[str]:
            happened.append(name)
            return EVENTS[name](guest)

        return event

    monkeypatch.setattr(cell_module, "EVENTS", {name: watched(name) for name in EVENTS})
    result = run(f"{guest},events={first},then={then}")
    assert (problems(result), happened) == ([], [first, then])
    assert problems(run(f"{guest},events=none,then={then}"))[0][0] == "legal-cell"


@pytest.mark.parametrize("version", ["6.2", "6.0", "5.1"])
def test_a_storage_version_of_an_older_host(version: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    guest = f"{X86},storvsc_version={version},events=rebind"
    assert problems(run(guest)) == []
    monkeypatch.setattr(vsc, "PROTOCOL_VERSIONS", vsc.PROTOCOL_VERSIONS[::-1])
    wrong = (
        [] if version == "5.1" else [("storvsc-controllers", f"scsi0 speaks 5.1; the driver asks for {version} before")]
    )
    assert problems(run(guest)) == wrong


def test_a_storage_version_that_the_kernel_does_not_speak_is_no_cell(run: Run) -> None:
    text = "cell 0: storvsc_version=4.2 needs a kernel with storvsc_win7, this is 6.1"
    assert problems(run(f"{X86},storvsc_version=4.2")) == [("legal-cell", text)]
    assert problems(run(f"{X86},release=5.15,storvsc_version=4.2")) == []


def test_the_rules_for_the_boot_are_the_oracle(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expect.Oracle, "obstacle", lambda *_: "HYPERV is n")
    assert problems(run(X86)) == [("comes-up", "the guest is up although HYPERV is n")]
    monkeypatch.setattr(expect.Oracle, "obstacle", lambda *_: "")
    text = "panic: VFS: Unable to mount root fs on unknown-block(0,0); by the rules of check it should be up"
    assert problems(run(f"{X86},HYPERV_STORAGE=n")) == [("comes-up", text)]


def test_bytes_that_change_on_their_way(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Block.write
    monkeypatch.setattr(Block, "write", lambda self, disk, at, data: write(self, disk, at, b"\xff" + data[1:]))
    result = run(X86)
    assert {name for name, _ in problems(result)} == {"storage-data"}
    assert result.problems[0].text == "sda: sectors 2048+1 were written, 1 of 512 bytes are wrong, from byte 0 on"


def test_a_users_image_is_read_and_never_written(
    make_runner: Any, make_cell: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Random(1).randbytes(2 << 20)
    image = tmp_path / "disk.img"
    image.write_bytes(data)
    runner = make_runner(vm={"disks": [str(image)]})
    cell = make_cell(runner, f"{X86},events=rebind")
    assert runner.run(cell).status == "pass"
    assert image.read_bytes() == data
    read = Block.read
    monkeypatch.setattr(Block, "read", lambda *call: read(*call)[:-1] + b"\0" if call[2] >= 2048 else read(*call))
    assert {name for name, _ in problems(runner.run(cell))} == {"storage-data"}


def test_a_disk_that_fails(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*_: Any) -> None:
        raise BlockError(5, "sda: out of order")

    monkeypatch.setattr(Block, "write", write)
    assert set(problems(run(X86))) == {("storage-data", "sda: sda: out of order")}


def test_a_model_that_raises_is_a_crash(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: VmbusServer, device: Any) -> None:
        raise KeyError("nobody")

    monkeypatch.setattr(VmbusServer, "_offer_if_due", broken)
    result = run(X86)
    assert (result.status, result.phase) == ("crash", "boot")
    ((name, text),) = problems(result)
    assert name == "model"
    assert text.startswith("KeyError: 'nobody' [broken (matrix/test_cell.py:")
    assert "_do_offer_all (vmbus/server.py:" in text
    assert result.dmesg


@pytest.mark.parametrize(
    ("budget", "text"),
    [
        ({"seconds": 0.2}, "took more than 0.2 s of virtual time"),
        ({"steps": 1000}, "took more than 1000 steps of the scheduler"),
    ],
)
def test_a_budget(budget: Any, text: str, make_runner: Any, make_cell: Any) -> None:
    runner = make_runner(budget=budget)
    result = runner.run(make_cell(runner, X86))
    assert (result.status, problems(result)) == ("over-budget", [("budget", text)])


def test_a_guest_that_never_ends_an_event(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stuck(guest: Any) -> Iterator[str]:
        kernel = guest.session.kernel
        guest.call(kernel.sched.wait_for_completion, kernel.sched.init_completion())
        yield ""

    monkeypatch.setattr(cell_module, "EVENTS", {"rescind": stuck})
    result = run(f"{X86},events=rescind")
    assert (result.status, result.outcome, result.phase) == ("fail", "up", "events")
    ((name, text),) = problems(result)
    assert name == "stays-up"
    assert text.startswith("wait_for_completion: nothing can run; tasks of the guest: ")


def test_a_guest_that_panics_in_an_event(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def panic(guest: Any) -> Iterator[str]:
        guest.call(guest.session.kernel.reboot.panic, "enough")
        yield ""

    monkeypatch.setattr(cell_module, "EVENTS", {"rescind": panic})
    result = run(f"{X86},events=rescind")
    assert (result.status, problems(result)) == ("fail", [("stays-up", "panic: panic: enough")])
    assert any("Kernel panic - not syncing: enough" in line for line in result.dmesg)


@pytest.mark.parametrize(
    ("guest", "broken"), [(X86, {"sharing", "relids", "findings"}), (f"{X86},{MODULES}", {"sharing", "findings"})]
)
def test_a_bus_that_forgets_to_unload(guest: str, broken: Any, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_mgmt, "vmbus_initiate_unload", lambda v, crash: None)
    assert {name for name, _ in problems(run(guest))} == broken


def test_a_sampled_cell_is_run_twice(make_runner: Any, make_cell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = make_runner(sample=1)
    cell = make_cell(runner, X86)
    assert runner.run(cell).status == "pass"
    moods = iter([0, 1])
    rescind = events_module.EVENTS["rescind"]

    def fickle(guest: Any) -> Iterator[str]:
        if next(moods):
            yield from rescind(guest)

    monkeypatch.setattr(cell_module, "EVENTS", {"rescind": fickle})
    result = runner.run(make_cell(runner, f"{X86},events=rescind"))
    assert result.status == "fail"
    assert [name for name, _ in problems(result)] == ["same-run"]


def test_the_same_cell_ends_the_same(run: Run) -> None:
    text = f"{X86},cpus=65,policy=random,offer_order=random,events=subchannels"
    first, second, other = (run(text, seed) for seed in (5, 5, 6))
    assert (first.virtual, first.steps) == (second.virtual, second.steps) != (other.virtual, other.steps)


def test_invariants_of_plugins(make_runner: Any, make_cell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = make_runner()
    seen: list[tuple[str, int]] = []

    def check(evidence: Evidence) -> Iterator[str]:
        evidence.memory["times"] = evidence.memory.get("times", 0) + 1
        online = evidence.call(evidence.kernel.cpus.num_online_cpus)
        seen.append((evidence.moment, evidence.memory["times"] * online))
        assert evidence.values["cpus"] == "2"
        if evidence.moment == "ended":
            raise ValueError("is broken")
        if evidence.moment == "unbound":
            yield "is unbound"

    own = Invariant("own", ("up", "events", "unbound", "ended"), check, "Of a test.")
    monkeypatch.setattr(runner, "invariants", (*runner.invariants, own))
    result = runner.run(make_cell(runner, f"{X86},cpus=2"))
    assert seen == [("up", 2), ("events", 4), ("unbound", 6), ("ended", 8)]
    assert problems(result)[0] == ("own", "is unbound")
    assert problems(result)[1][1].startswith("raised ValueError: is broken [check (matrix/test_cell.py:")
