"""A guest's sysfs as a directory: written whole or not at all, never over a stranger's files; and followed live."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hvkernel.abi.guids import HV_KVP_GUID
from hvkernel.boot.request import default_config, read_request
from hvkernel.boot.session import Session, Unsupported, compose
from hvkernel.boot.sysfs import MARKER, Entry, check_place, snapshot, write_tree
from hvkernel.boot.sysfs_live import PATIENCE, GuestEnded, LiveTree
from hvkernel.config.errors import InputError

DEVICES = "bus/vmbus/devices"
TREE = {
    "bus": Entry("dir", 0o755),
    "bus/one": Entry("file", 0o444, b"1\n"),
    "bus/two": Entry("file", 0o200),
    "private": Entry("dir", 0o700),
    "private/link": Entry("link", data=b"../bus/one"),
}


@pytest.fixture
def booted() -> Iterator[Callable[..., Session]]:
    open_sessions: list[Session] = []

    def make(**options: Any) -> Session:
        composed = compose(read_request(**options))
        assert not isinstance(composed, Unsupported)
        open_sessions.append(composed)
        composed.boot()
        return composed

    yield make
    for session in open_sessions:
        session.close()


def on_disk(top: Path) -> dict[str, Entry]:
    """The tree as it lies there, without the list of it."""
    found: dict[str, Entry] = {}
    for path in sorted(top.rglob("*")):
        name = str(path.relative_to(top))
        mode = stat.S_IMODE(path.lstat().st_mode)
        if path.is_symlink():
            found[name] = Entry("link", data=os.fsencode(os.readlink(path)))
        elif path.is_dir():
            found[name] = Entry("dir", mode)
        elif name != MARKER:
            found[name] = Entry("file", mode, path.read_bytes())
    return found


def refusal(path: Path, tree: dict[str, Entry] | None = None) -> str:
    with pytest.raises(InputError) as first:
        check_place(path)
    with pytest.raises(InputError) as second:
        write_tree(path, TREE if tree is None else tree)
    assert str(first.value) == str(second.value)
    return str(first.value).removeprefix(f"--sysfs: directory = {str(path)!r}: ")


# writing -------------------------------------------------------------------------------------------------------


def test_what_lies_there_is_what_the_guest_shows(booted: Callable[..., Session], tmp_path: Path) -> None:
    session = booted()
    tree = snapshot(session)
    assert tree is not None
    place = write_tree(tmp_path / "sys", tree)
    assert on_disk(place) == tree
    links = [path for path in place.rglob("*") if path.is_symlink()]
    assert len(links) > 30
    for link in links:
        assert not os.readlink(link).startswith("/")
        assert link.resolve(strict=True).is_relative_to(place)
    for dev in session.kernel.driver.buses["vmbus"].devices:
        assert (place / DEVICES / dev.name / "device_id").read_text() == f"{{{dev.name}}}\n"
    assert os.listdir(tmp_path) == ["sys"]


def test_looking_changes_nothing(booted: Callable[..., Session]) -> None:
    session = booted()
    assert snapshot(session) == snapshot(session)
    assert session.machine.findings == []


def test_a_trace_does_not_see_the_look(booted: Callable[..., Session], monkeypatch: pytest.MonkeyPatch) -> None:
    session = booted()
    tracer: Any = object()
    session.machine.tracer = tracer
    seen: list[Any] = []
    walk = session.kernel.sysfs.walk

    def watched() -> Any:
        seen.append(session.machine.tracer)
        return walk()

    monkeypatch.setattr(session.kernel.sysfs, "walk", watched)
    assert snapshot(session)
    assert seen == [None]
    assert session.machine.tracer is tracer
    session.machine.tracer = None


def test_nothing_an_empty_directory_and_ones_own_are_replaced(tmp_path: Path) -> None:
    place = tmp_path / "sys"
    for _ in range(2):
        check_place(place)
        write_tree(place, TREE)
        assert on_disk(place) == TREE
    smaller = {"bus": TREE["bus"]}
    write_tree(place, smaller)
    assert on_disk(place) == smaller
    empty = tmp_path / "empty"
    empty.mkdir()
    link = tmp_path / "link"
    link.symlink_to("empty")
    write_tree(link, TREE)
    assert on_disk(empty) == TREE
    assert link.is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["empty", "link", "sys"]


def test_files_of_others_are_never_touched(tmp_path: Path) -> None:
    place = tmp_path / "home"
    place.mkdir()
    (place / "thesis.tex").write_text("all my work")
    assert refusal(place) == "is not empty and was not written by hvkernel"
    for claim in ("", "hvkernel sysfs 1\n", "hvkernel sysfs 1\n{}", "hvkernel sysfs 2\n[]", "hvkernel sysfs 1\n[1]"):
        (place / MARKER).write_text(claim)
        assert refusal(place) == f"its {MARKER} was not written by hvkernel"
    (place / MARKER).write_text("hvkernel sysfs 1\n[]")
    assert refusal(place) == "holds thesis.tex, which hvkernel did not write"
    assert (place / "thesis.tex").read_text() == "all my work"
    ours = tmp_path / "ours"
    write_tree(ours, TREE)
    (ours / "private" / "notes").write_text("mine")
    assert refusal(ours) == "holds private/notes, which hvkernel did not write"
    assert (ours / "private" / "notes").read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["home", "ours"]


def test_places_where_no_directory_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert refusal(tmp_path / "file") == "is not a directory"
    assert refusal(tmp_path / "no" / "sys") == f"{tmp_path / 'no'} is no directory"
    assert refusal(tmp_path / "file" / "sys") == f"{tmp_path / 'file'} is no directory"
    assert refusal(Path("/")) == "is the root of all files"


def test_a_place_without_permission(unprivileged: None) -> None:
    assert refusal(Path("/usr/hvkernel-sys")) == "/usr cannot be written"


def test_a_tree_that_cannot_be_finished_leaves_nothing(tmp_path: Path) -> None:
    place = tmp_path / "sys"
    write_tree(place, TREE)
    broken = {**TREE, "absent/file": Entry("file", 0o444)}
    with pytest.raises(
        InputError, match=r"^--sysfs: directory = '.*/sys': cannot be written: No such file or directory$"
    ):
        write_tree(place, broken)
    assert on_disk(place) == TREE
    assert os.listdir(tmp_path) == ["sys"]


def test_names_that_no_file_can_have_are_left_out(booted: Callable[..., Session], tmp_path: Path) -> None:
    from hvkernel.api.guest.hyperv import HvDriver, Vmbus

    session = booted()
    exports = session.kernel.symbol(Vmbus)
    for name in ("..", "../../../etc/passwd", "\x1b[2J", "x" * 300, "a\0b", MARKER):
        session.call(exports.vmbus_driver_register, HvDriver(name, (), None), "bad")
    tree = snapshot(session)
    assert tree is not None
    write_tree(tmp_path / "sys", tree)
    drivers = sorted(os.listdir(tmp_path / "sys/bus/vmbus/drivers"))
    assert drivers == sorted(["..!..!..!etc!passwd", "\x1b[2J", "hv_storvsc"])


def test_a_guest_that_has_ended_shows_nothing(booted: Callable[..., Session], tmp_path: Path) -> None:
    config = tmp_path / "without-disk.config"
    config.write_text(default_config().replace("CONFIG_BLK_DEV_SD=y", "# CONFIG_BLK_DEV_SD is not set"))
    session = booted(config=config)
    assert session.report().outcome == "panic"
    assert snapshot(session) is None
    with pytest.raises(GuestEnded, match="does not answer"):
        LiveTree(session, tmp_path / "sys")


# live ----------------------------------------------------------------------------------------------------------


class Live:
    """A guest with CONFIG_HYPERV_TESTING and its directory."""

    def __init__(self, session: Session, path: Path) -> None:
        self.session = session
        self.tree = LiveTree(session, path)
        self.place = self.tree.place

    def write(self, name: str, text: str) -> list[tuple[str, int]]:
        """Write as a shell does, let the guest see it, return what it took or refused."""
        with (self.place / name).open("w") as file:
            file.write(text)
        return self.poll()

    def poll(self) -> list[tuple[str, int]]:
        return [(one.path, one.result) for one in self.tree.poll()]

    def read(self, name: str) -> str:
        return (self.place / name).read_text()

    @property
    def storage(self) -> str:
        """Path of the first SCSI controller's directory."""
        driver = self.session.kernel.driver.buses["vmbus"].drivers[0]
        return f"{DEVICES}/{driver.devices[0].name}"

    def check(self) -> None:
        """The directory is what the guest shows."""
        assert on_disk(self.place) == snapshot(self.session)


@pytest.fixture
def live(booted: Callable[..., Session], tmp_path: Path) -> Iterator[Live]:
    config = tmp_path / "testing.config"
    config.write_text(default_config() + "CONFIG_DEBUG_FS=y\nCONFIG_HYPERV_TESTING=y\n")
    made = Live(booted(config=config, host="ws2022/gen2"), tmp_path / "sys")
    with made.tree:
        yield made


def test_a_directory_that_nobody_writes_stays(live: Live) -> None:
    before = {path: path.lstat().st_mtime_ns for path in live.place.rglob("*")}
    for _ in range(3):
        assert live.poll() == []
    assert {path: path.lstat().st_mtime_ns for path in live.place.rglob("*")} == before
    live.check()


def test_writes_reach_the_guest_and_what_follows_comes_back(live: Live) -> None:
    where = live.storage
    relid = live.read(f"{where}/id").strip()
    cpu = f"{where}/channels/{relid}/cpu"
    target = (int(live.read(cpu)) + 1) % 4
    assert live.write(cpu, f"{target}") == [(os.path.realpath(live.place / cpu)[len(str(live.place)) + 1 :], 0)]
    assert live.read(cpu) == f"{target}\n"
    assert live.read(f"{where}/channel_vp_mapping") == f"{relid}:{target}\n"
    live.check()


def test_a_refused_write_is_undone(live: Live) -> None:
    where = live.storage
    cpu = f"{where}/channels/{live.read(f'{where}/id').strip()}/cpu"
    old = live.read(cpu)
    for text, error in (("4096\n", -22), ("none", -5), (old, 0)):
        ((_, result),) = live.write(cpu, text)
        assert result == error
        assert live.read(cpu) == old
    live.check()


def test_devices_come_and_go(live: Live) -> None:
    where = live.storage
    name = where.rsplit("/", 1)[-1]
    driver = "bus/vmbus/drivers/hv_storvsc"
    assert live.write(f"{driver}/unbind", f"{name}\n") == [(f"{driver}/unbind", 0)]
    assert not (live.place / driver / name).exists()
    assert not (live.place / where / "driver").is_symlink()
    assert live.read(f"{driver}/unbind") == ""
    assert live.read(f"{where}/out_read_index") == ""
    live.check()
    assert live.write(f"{driver}/bind", name) == [(f"{driver}/bind", 0)]
    assert (live.place / driver / name / "state").read_text() == "3\n"
    live.check()
    written = json.loads((live.place / MARKER).read_text().partition("\n")[2])
    assert sorted(on_disk(live.place)) == written


def test_what_the_host_takes_away_goes_from_the_directory(live: Live) -> None:
    session = live.session
    offered = next(one for one in session.server.devices if one.spec.class_guid == HV_KVP_GUID)
    name = str(offered.spec.instance_guid)
    assert (live.place / DEVICES / name).is_symlink()
    session.server.rescind(offered)
    session.machine.run(limit=10_000_000)
    live.tree.refresh()
    assert not (live.place / DEVICES / name).is_symlink()
    assert [path for path in live.place.rglob("*") if name in str(path)] == []
    live.check()


def test_an_emptied_file_is_left_to_its_writer_for_a_while(live: Live) -> None:
    file = f"{live.storage}/driver_override"
    with (live.place / file).open("w") as writer:
        for _ in range(PATIENCE - 1):
            assert live.poll() == []
        writer.write("vfio")
    ((_, result),) = live.poll()
    assert result == 0
    assert live.read(file) == "vfio\n"
    (live.place / file).write_text("")
    for _ in range(PATIENCE):
        assert live.poll() == []
    assert live.read(file) == "vfio\n"
    ((_, result),) = live.write(file, "\n")
    assert result == 0
    assert live.read(file) == "(null)\n"


def test_what_is_deleted_comes_back_with_the_next_change(live: Live) -> None:
    (live.place / "bus/vmbus/drivers_autoprobe").unlink()
    live.poll()
    live.write("bus/scsi/drivers_autoprobe", "0")
    assert live.read("bus/scsi/drivers_autoprobe") == "0\n"


def test_who_is_not_root_can_read_what_was_written(booted: Callable[..., Session]) -> None:
    """``bind`` and its like are for writing only, and their owner is not above that."""
    session = booted()
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as base:
        os.chmod(base, 0o777)
        if user == 0:
            os.seteuid(65534)
        try:
            with LiveTree(session, Path(base) / "sys") as tree:
                driver = tree.place / "bus/vmbus/drivers/hv_storvsc"
                device = next(path.name for path in driver.iterdir() if path.name.startswith("f8b3781a"))
                (driver / "unbind").write_text(device)
                assert [one.result for one in tree.poll()] == [0]
                assert stat.S_IMODE((driver / "unbind").stat().st_mode) == 0o200
                assert not (driver / device).exists()
        finally:
            os.seteuid(user)


def test_a_live_directory_has_one_guest(live: Live) -> None:
    assert refusal(live.place) == "another hvkernel keeps it live"
    live.tree.close()
    check_place(live.place)


def test_a_guest_that_ends_is_told(live: Live) -> None:
    live.session.kernel.finish("panic", "for the test")
    (live.place / "bus/vmbus/drivers_autoprobe").write_text("0")
    with pytest.raises(GuestEnded, match="the guest has ended"):
        live.poll()
