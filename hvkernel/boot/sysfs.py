"""A guest's sysfs as a directory: what ``hvkernel boot --sysfs DIR`` writes.

The tree is written beside its place and renamed into it, so it is there whole or not at all. A file
``.hvkernel-sysfs`` in it lists what was written; only a directory that has that list, and nothing beside it, is ever
replaced.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hvkernel.config.errors import InputError
from hvkernel.linux.sysfs import Directory, File, Link, relative
from hvkernel.machine.faults import LimitReached, MachineStuck

if TYPE_CHECKING:
    from hvkernel.boot.session import Session

__all__ = ["MARKER", "Entry", "SysfsRequest", "check_place", "snapshot", "write_tree"]

MARKER: Final = ".hvkernel-sysfs"
FORMAT: Final = "hvkernel sysfs 1"
ANSWER_LIMIT: Final = 10 * 10_000_000
"""Virtual time that a guest has to show its files, 100 ns units."""


@dataclass(frozen=True, slots=True)
class SysfsRequest:
    """``--sysfs DIR``."""

    path: Path
    live: bool = False
    """Stay, and let the directory and the guest follow each other."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One path of the tree."""

    kind: str
    """``dir``, ``file``, ``link``."""
    mode: int = 0o777
    data: bytes = b""
    """A file's contents, empty where reading fails; a link's relative target."""


Tree = Mapping[str, Entry]


def snapshot(session: Session) -> dict[str, Entry] | None:
    """Return the guest's tree as of now by path, a directory before what is in it.

    ``None`` from a guest that has ended. Nobody's trace sees the look.
    """
    outcome = session.kernel.outcome
    if outcome is None or outcome.state not in ("up", "hung"):
        return None
    machine = session.machine
    tracer, machine.tracer = machine.tracer, None
    try:
        return machine.call(_look, session, limit=ANSWER_LIMIT, name="sysfs")
    except (MachineStuck, LimitReached):
        return None
    finally:
        machine.tracer = tracer


def _look(session: Session) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    for path, node in session.kernel.sysfs.walk():
        if not all(map(_possible, path.split("/"))):
            continue
        if isinstance(node, Directory):
            found[path] = Entry("dir", node.mode)
        elif isinstance(node, Link):
            found[path] = Entry("link", data=os.fsencode(relative(path, node.target)))
        elif isinstance(node, File):
            text = node.read()
            found[path] = Entry("file", node.mode, b"" if isinstance(text, int) else text)
    return found


def _possible(name: str) -> bool:
    """Whether a file can have that name; a driver may call itself anything."""
    return name not in (".", "..", MARKER) and "\0" not in name and len(os.fsencode(name)) <= 255


def _refuse(path: Path, problem: str) -> InputError:
    return InputError("--sysfs", "directory", str(path), problem)


def _failed(path: Path, error: OSError) -> InputError:
    return _refuse(path, f"cannot be written: {error.strerror or error}")


def check_place(path: Path) -> None:
    """Say before anything is booted that the tree cannot be written there.

    :raises InputError: there is something else, or no permission, or a guest that lives in it.
    """
    place = Path(os.path.realpath(path))
    try:
        _check_parent(path, place)
        if place.exists():
            _check_ours(path, place)
    except OSError as error:
        raise _failed(path, error) from None


def _check_parent(path: Path, place: Path) -> None:
    parent = place.parent
    if place == parent:
        raise _refuse(path, "is the root of all files")
    if not parent.is_dir():
        raise _refuse(path, f"{parent} is no directory")
    if not os.access(parent, os.W_OK | os.X_OK, effective_ids=True):
        raise _refuse(path, f"{parent} cannot be written")


def _check_ours(path: Path, place: Path) -> list[str]:
    """Return what was written, deepest first.

    :raises InputError: it is not an empty directory, nor one that holds only what was written by this program.
    """
    if not place.is_dir():
        raise _refuse(path, "is not a directory")
    present = sorted(_below(place), reverse=True)
    if not present:
        return []
    if MARKER not in present:
        raise _refuse(path, "is not empty and was not written by hvkernel")
    written = _manifest(place / MARKER)
    if written is None:
        raise _refuse(path, f"its {MARKER} was not written by hvkernel")
    strange = [name for name in present if name not in written and name != MARKER]
    if strange:
        raise _refuse(path, f"holds {strange[-1]}, which hvkernel did not write")
    with _locked(place / MARKER) as free:
        if not free:
            raise _refuse(path, "another hvkernel keeps it live")
    return present


def _below(place: Path) -> Iterator[str]:
    """Paths of everything below a directory, links not followed."""
    for where, directories, files in os.walk(place, onerror=_raise):
        base = os.path.relpath(where, place)
        for name in (*directories, *files):
            yield name if base == "." else f"{base}/{name}"


def _raise(error: OSError) -> None:
    raise error


def _manifest(marker: Path) -> frozenset[str] | None:
    if marker.is_symlink() or not marker.is_file():
        return None
    try:
        head, _, rest = marker.read_text("utf-8", "surrogateescape").partition("\n")
        names = json.loads(rest) if head == FORMAT else None
    except ValueError:
        return None
    return frozenset(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


@contextmanager
def _locked(marker: Path) -> Iterator[bool]:
    """Hold the lock of a tree; False when somebody else does."""
    with marker.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            yield False
        else:
            yield True


def write_tree(path: Path, tree: Tree) -> Path:
    """Write a tree in place of nothing, of an empty directory, or of one that this function wrote; return where.

    :raises InputError: it cannot be written; nothing is changed then.
    """
    place = Path(os.path.realpath(path))
    made: str | None = None
    try:
        _check_parent(path, place)
        old = _check_ours(path, place) if place.exists() else None
        made = tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent)
        fill(Path(made), tree)
        if old:
            _exchange(place, Path(made), old)
        else:
            os.rename(made, place)
        made = None
    except OSError as error:
        raise _failed(path, error) from None
    finally:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
    return place


def fill(top: Path, tree: Tree) -> None:
    """Write the entries and the list of them below a new directory."""
    for name, entry in tree.items():
        put(top, name, entry)
    write_marker(top, tree)
    for name, entry in reversed(tuple(tree.items())):
        if entry.kind == "dir":
            os.chmod(top / name, entry.mode)
    os.chmod(top, 0o755)


def put(top: Path, name: str, entry: Entry) -> None:
    """Make one entry, which must not be there. A directory can be written to until its mode is set."""
    where = top / name
    if entry.kind == "dir":
        where.mkdir()
    elif entry.kind == "link":
        os.symlink(entry.data, os.fsencode(where))
    else:
        fd = os.open(where, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            write_all(fd, entry.data)
            os.fchmod(fd, entry.mode)
        finally:
            os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """Write all of ``data`` at the file's beginning and end the file there: readers never find it empty in between."""
    at = 0
    while at < len(data):
        at += os.pwrite(fd, data[at:], at)
    os.ftruncate(fd, len(data))


def write_marker(top: Path, names: Iterable[str]) -> None:
    """Write the list of what was written, in place."""
    text = f"{FORMAT}\n{json.dumps(sorted(names), indent=0)}\n"
    fd = os.open(top / MARKER, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        write_all(fd, text.encode("utf-8", "surrogateescape"))
    finally:
        os.close(fd)


def _exchange(place: Path, new: Path, old: Iterable[str]) -> None:
    """Put ``new`` where a tree of ours is, and remove that."""
    aside = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
    os.rename(place, aside)
    try:
        os.rename(new, place)
    except OSError:
        os.rename(aside, place)
        raise
    with suppress(OSError):  # what somebody put there meanwhile stays, and so does its directory
        for name in old:
            remove(aside / name)
        aside.rmdir()


def remove(where: Path) -> None:
    """Remove a file, a link, or an empty directory."""
    if where.is_dir() and not where.is_symlink():
        where.rmdir()
    else:
        where.unlink()
