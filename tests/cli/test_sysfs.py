"""``hvkernel boot --sysfs``: the kernel's own scripts, unmodified, against the directory it writes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from hvkernel.boot.request import default_config, read_request
from hvkernel.boot.session import Session, compose
from hvkernel.boot.sysfs_live import LiveTree

DATA = Path(__file__).parents[1] / "data"
CODE = "from hvkernel.cli import main; main()"
Run = subprocess.CompletedProcess[str]
TESTING = "CONFIG_DEBUG_FS=y\nCONFIG_HYPERV_TESTING=y\n"
BOUND = 'mount --bind "$1" /sys && shift && exec "$@"'
"""Runs a command for which a directory is /sys; the tree has relative links, so the whole is bound."""


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-c", CODE, "boot", *map(str, arguments)]


def boot(*arguments: str | Path) -> Run:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=120)


Tool = Callable[..., list[str]]


@pytest.fixture(scope="session")
def tool(program: Callable[[str, str], str], missing: Callable[[str], None], kernel_source: Path) -> Tool:
    """Return a function that runs a script of tools/hv with a directory bound over /sys; its lines."""
    unshare = program("unshare", "util-linux")
    probe = subprocess.run([unshare, "-m", "mount", "--bind", "/tmp", "/sys"], capture_output=True, check=False)
    if probe.returncode:
        missing(f"no mount namespaces: {probe.stderr.decode()}")

    def run(name: str, place: Path, *arguments: str) -> list[str]:
        script = str(kernel_source / "tools/hv" / name)
        bound = [unshare, "-m", "sh", "-c", BOUND, "sh", str(place), sys.executable, script, *arguments]
        done = subprocess.run(bound, capture_output=True, text=True, timeout=120, check=False)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout.splitlines()

    return run


def test_the_report_and_the_trace_do_not_change(tmp_path: Path) -> None:
    plain = boot("--json", "--trace", tmp_path / "plain.ftrace")
    shown = boot("--json", "--trace", tmp_path / "shown.ftrace", "--sysfs", tmp_path / "sys")
    assert (plain.returncode, shown.returncode) == (0, 0)
    assert plain.stdout == shown.stdout
    assert (tmp_path / "plain.ftrace").read_bytes() == (tmp_path / "shown.ftrace").read_bytes()


# lsvmbus -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        ("--host", "ws2022/gen1"),
        ("--host", "ws2022/gen2", "--cpus", "64"),
        ("--arch", "arm64", "--page-size", "64K"),
    ],
    ids=["gen1", "gen2 with sub-channels", "arm64"],
)
def test_lsvmbus_prints_every_device(tool: Tool, tmp_path: Path, options: tuple[str, ...]) -> None:
    done = boot("--sysfs", tmp_path / "sys", *options)
    assert (done.returncode, done.stderr) == (0, "")
    # relid, class, instance ... of the report's table
    table = [line.split() for line in done.stdout.splitlines() if re.search(r"  [0-9a-f]{8}-", line)]
    assert len(table) > 5
    listed = tool("lsvmbus", tmp_path / "sys", "-vv")
    heads = [line.split()[2].rstrip(":") for line in listed if line.startswith("VMBUS ID")]
    assert heads == sorted((row[0] for row in table), key=int)
    assert [line.split()[2] for line in listed if "Device_ID" in line] == [
        f"{{{row[2]}}}" for row in sorted(table, key=lambda row: int(row[0]))
    ]
    targets = [re.fullmatch(r"\tRel_ID=(\d+), target_cpu=(\d+)", line) for line in listed if "Rel_ID" in line]
    found = {int(match[1]): int(match[2]) for match in targets if match is not None}
    assert len(found) == len(targets)
    expected = len(table) + (3 if "64" in options else 0)
    assert len(found) == expected
    if "64" in options:
        assert sorted(found.values())[-4:] == [1, 2, 3, 4], "one CPU for each of the controller's channels"
    for verbosity, lines in (((), len(table)), (("-v",), len(listed) - 2 * len(table))):
        assert len(tool("lsvmbus", tmp_path / "sys", *verbosity)) == lines


def test_lsvmbus_prints_what_it_prints_on_a_real_machine(tool: Tool, tmp_path: Path) -> None:
    """A VM with the two devices of the recorded listing."""
    machine = tmp_path / "vm.toml"
    machine.write_text('host = "azure-gen1"\ndevices = ["balloon", "ide"]\n')
    done = boot("--vm", machine, "--sysfs", tmp_path / "sys")
    assert done.returncode == 0, done.stderr
    source, *recorded = (DATA / "lsvmbus/lisa-gen1-vv.txt").read_text().splitlines()
    assert source.startswith("# source: ")
    guid = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

    def but_for_instances(lines: list[str]) -> list[str]:
        return [line if "Class_ID" in line else guid.sub("GUID", line) for line in lines]

    listed = tool("lsvmbus", tmp_path / "sys", "-vv")
    assert but_for_instances(listed)[: len(recorded)] == but_for_instances(recorded)
    assert not any(listed[len(recorded) :])


# vmbus_testing -------------------------------------------------------------------------------------------------


class Guest:
    """``hvkernel boot --sysfs-live`` with CONFIG_HYPERV_TESTING, as a process."""

    def __init__(self, tmp_path: Path) -> None:
        config = tmp_path / "testing.config"
        config.write_text(default_config() + TESTING)
        self.place = tmp_path / "sys"
        self.errors = tmp_path / "errors"
        self._stderr: IO[bytes] = self.errors.open("wb")
        self.process = subprocess.Popen(
            command("--config", config, "--sysfs", self.place, "--sysfs-live"),
            stdout=subprocess.PIPE,
            stderr=self._stderr,
        )
        self.until(self.place.is_dir)

    def until(self, condition: Callable[[], bool]) -> None:
        for _ in range(9000):
            if condition():
                return
            assert self.process.poll() is None, self.errors.read_text()
            time.sleep(0.01)
        pytest.fail("nothing came of it in a minute and a half")

    def end(self, number: int) -> tuple[int, str]:
        self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=60)
        self._stderr.close()
        return self.process.returncode, out.decode()

    def settled(self, name: str, text: str) -> None:
        """Wait until the guest shows a text in a file: with its newline, which no writer here writes."""
        self.until(lambda: (self.place / name).read_text() == text)


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Guest]:
    guest = Guest(tmp_path)
    yield guest
    if guest.process.poll() is None:
        guest.process.kill()
        guest.process.communicate()


def test_vmbus_testing_sets_and_reads_its_delays(tool: Tool, live: Guest) -> None:
    hyperv = live.place / "kernel/debug/hyperv"
    names = sorted(os.listdir(hyperv))
    assert names == sorted(os.listdir(live.place / "bus/vmbus/devices"))
    state, interrupt, message = (
        "fuzz_test_state",
        "delay/fuzz_test_buffer_interrupt_delay",
        "delay/fuzz_test_message_delay",
    )
    assert sorted(tool("vmbus_testing", live.place, "view_all")) == [f"Testing = OFF for: {name}" for name in names]

    one = f"/sys/kernel/debug/hyperv/{names[0]}"
    assert tool("vmbus_testing", live.place, "delay", "-e", "-t", "300", "7", "-p", one) == [
        f"Testing = ON for device: {names[0]}",
        f"Buffer delay testing = 300 for: {names[0]}",
        f"Message delay testing = 7 for: {names[0]}",
    ]
    for file, text in ((state, "1\n"), (interrupt, "300\n"), (message, "7\n")):
        live.settled(f"kernel/debug/hyperv/{names[0]}/{file}", text)
    assert sorted(tool("vmbus_testing", live.place, "view_single", "-p", one)) == [
        "fuzz_test_buffer_interrupt_delay = 300",
        "fuzz_test_message_delay = 7",
        "fuzz_test_state = 1",
    ]

    tool("vmbus_testing", live.place, "delay", "-E", "-t", "1000", "-1")
    for name in names:
        live.settled(f"kernel/debug/hyperv/{name}/{interrupt}", "1000\n")
        live.settled(f"kernel/debug/hyperv/{name}/{message}", "7\n" if name == names[0] else "0\n")
    assert sorted(tool("vmbus_testing", live.place, "view_all")) == [f"Testing = ON for: {name}" for name in names]

    tool("vmbus_testing", live.place, "disable_all")
    for name in names:
        for file in (state, interrupt, message):
            live.settled(f"kernel/debug/hyperv/{name}/{file}", "0\n")
    status, out = live.end(signal.SIGINT)
    assert status == 0
    assert out.splitlines()[-1].startswith("up (")
    assert live.errors.read_text() == ""


def test_delays_that_vmbus_testing_sets_take_effect(tool: Tool, tmp_path: Path) -> None:
    config = tmp_path / "testing.config"
    config.write_text(default_config() + TESTING)
    session = compose(read_request(config=config))
    assert isinstance(session, Session)
    with session:
        session.boot()
        (disk, *_) = session.kernel.block.disks
        (driver,) = session.kernel.driver.buses["vmbus"].drivers

        def read() -> int:
            """Virtual time of one read of the disk, microseconds."""
            before = session.machine.clock.now
            session.kernel.block.read(disk, 0, 8)
            return (session.machine.clock.now - before) // 10

        with LiveTree(session, tmp_path / "sys") as tree:
            plain = session.call(read)
            for device in [device.name for device in driver.devices]:
                path = f"/sys/kernel/debug/hyperv/{device}"
                tool("vmbus_testing", tree.place, "delay", "-e", "-t", "900", "40", "-p", path)
            stored = tree.poll()
            assert [one.result for one in stored] == [0] * 3 * len(driver.devices)
            # The interrupt waits 900 us, and each look at the ring 40: one look at least, four at most.
            assert 930 <= session.call(read) - plain <= 900 + 5 * 40
            tool("vmbus_testing", tree.place, "disable_all")
            tree.poll()
            assert session.call(read) < plain + 40


def test_the_directory_stays_when_the_guest_is_ended(live: Guest) -> None:
    (live.place / "bus/vmbus/drivers_autoprobe").write_text("0")
    live.settled("bus/vmbus/drivers_autoprobe", "0\n")
    assert live.end(signal.SIGTERM)[0] == 0
    assert (live.place / "bus/vmbus/drivers_autoprobe").read_text() == "0\n"
    assert boot("--sysfs", live.place).returncode == 0, "it is ours to replace"


def test_refused_writes_are_told_with_the_guests_messages(live: Guest) -> None:
    name = sorted(os.listdir(live.place / "bus/vmbus/devices"))[0]
    file = os.path.realpath(live.place / "bus/vmbus/devices" / name / "uevent")
    before = Path(file).read_text()
    Path(file).write_text("no\x1b[2J\n")
    live.until(lambda: "EINVAL" in live.errors.read_text())
    path = os.path.relpath(file, live.place)
    assert live.errors.read_text().splitlines() == [
        f"synth uevent: /{path.removesuffix('/uevent')}: unknown uevent action string",
        f"vmbus {name}: uevent: failed to send synthetic uevent: -22",
        f"hvkernel: {path}: EINVAL: Invalid argument",
    ]
    live.until(lambda: Path(file).read_text() == before)
    assert live.end(signal.SIGINT)[0] == 0


# bad input -----------------------------------------------------------------------------------------------------


def refused(done: Run, text: str) -> None:
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("hvkernel: ")
    assert text in line


def test_bad_places_are_refused_before_anything_is_booted(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis").write_text("")
    refused(boot("--sysfs", tmp_path / "home"), "is not empty and was not written by hvkernel")
    refused(boot("--sysfs", tmp_path / "home/thesis"), "is not a directory")
    refused(boot("--sysfs", tmp_path / "no/sys"), "is no directory")
    refused(boot("--sysfs-live"), "--sysfs-live: needs --sysfs DIR")
    assert os.listdir(tmp_path) == ["home"]
    assert os.listdir(tmp_path / "home") == ["thesis"]


@pytest.mark.parametrize("limit", ["size=64k", "nr_inodes=100"])
def test_a_full_disk_leaves_nothing(tool: Tool, program: Callable[[str, str], str], tmp_path: Path, limit: str) -> None:
    script = 'mount -t tmpfs -o "$1" full "$2" && cd "$2" && shift 2 && "$@"; status=$?; ls -A . >&2; exit $status'
    unshare = program("unshare", "util-linux")
    bound = [unshare, "-m", "sh", "-c", script, "sh", limit, str(tmp_path), *command("--sysfs", "sys")]
    done = subprocess.run(bound, capture_output=True, text=True, timeout=120, check=False)
    refused(done, "--sysfs: directory = 'sys': cannot be written: No space left on device")


def test_without_a_guest_there_is_no_directory(tmp_path: Path) -> None:
    done = boot("--host", "ws2008r2/gen2", "--sysfs", tmp_path / "sys")
    assert done.returncode in (1, 2)
    assert os.listdir(tmp_path) == []
    config = tmp_path / "without-disk.config"
    config.write_text(default_config().replace("CONFIG_BLK_DEV_SD=y", "# CONFIG_BLK_DEV_SD is not set"))
    for live in ((), ("--sysfs-live",)):
        done = boot("--config", config, "--sysfs", tmp_path / "sys", *live)
        assert done.returncode == 1
        assert done.stdout.splitlines()[-1].startswith("panic: ")
        assert done.stderr == "hvkernel: --sysfs: nothing was written: a guest that has ended shows no files\n"
    assert os.listdir(tmp_path) == ["without-disk.config"]
