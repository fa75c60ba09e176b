"""A directory that follows a running guest, and a guest that takes what is written into it.

A write into a file of a real sysfs is a call into the kernel, which may refuse it. Here it is an ordinary file: the
follower looks at the writable ones from time to time and stores what it finds in the guest. What a writer sees of it:

* a refused write is undone, and the caller of :meth:`LiveTree.poll` is told the errno; the writer is not;
* of two writes between two looks, only the second is seen;
* a file that is merely emptied (opened for writing, not yet written) is left alone for ten looks, then restored.

Look at most once in some milliseconds: file systems give two changes within their clock's tick (4 ms) the same time.
"""

from __future__ import annotations

import fcntl
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final

from hvkernel.api.guest.errno import ETIMEDOUT
from hvkernel.boot.sysfs import MARKER, Entry, put, remove, snapshot, write_all, write_marker, write_tree
from hvkernel.config.errors import InputError
from hvkernel.machine.faults import LimitReached, MachineStuck

if TYPE_CHECKING:
    from hvkernel.boot.session import Session

__all__ = ["GuestEnded", "LiveTree", "Stored"]

STORE_LIMIT: Final = 300 * 10_000_000
"""Virtual time that one store may take, 100 ns units; as long as a boot."""
SETTLE: Final = 10_000_000
"""Virtual time that the guest runs on after a store: one second."""
PATIENCE: Final = 10
"""Looks for which a file that was emptied is left alone."""

Stamp = tuple[int, int, int]


class GuestEnded(RuntimeError):
    """The guest has panicked or switched itself off: nobody is there to follow."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One write that was given to the guest."""

    path: str
    data: bytes
    result: int
    """0, or the negative errno with which the guest refused it."""
    messages: tuple[str, ...]
    """What the guest logged meanwhile."""


class LiveTree:
    """The directory of a running guest. Use as a context manager; the tree stays when it ends.

    :param path: where; see :func:`hvkernel.boot.sysfs.write_tree`.
    :raises InputError: the tree cannot be written.
    :raises GuestEnded: the guest does not answer.
    """

    def __init__(self, session: Session, path: Path) -> None:
        self._session = session
        self._path = path
        tree = snapshot(session)
        if tree is None:
            raise GuestEnded("the guest does not answer")
        self._tree = tree
        self.place = write_tree(path, tree)
        self._lock = (self.place / MARKER).open("rb")
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._stamps: dict[str, Stamp] = {}
        self._emptied: dict[str, int] = {}
        """Files that were found empty, and at how many looks."""
        self._fresh: set[str] = set()
        """Files written here since the last look: another write in the same tick shows in the contents alone."""
        for name, entry in tree.items():
            self._note(name, entry)

    def close(self) -> None:
        """Let go of the directory, which stays as it is."""
        self._lock.close()

    def __enter__(self) -> LiveTree:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # one look --------------------------------------------------------------------------------------------------

    def poll(self) -> list[Stored]:
        """Store what was written since the last look, oldest first, and bring the directory up to date.

        :raises InputError: the directory cannot be written any more.
        :raises GuestEnded: the guest has ended by it.
        """
        stored: list[Stored] = []
        looked: list[str] = []
        try:
            for name in self._changed():
                stamp = self._stamp(name)
                data = self._contents(name)
                if not data and self._wait_for_contents(name):
                    continue
                if stamp is not None:
                    self._stamps[name] = stamp
                looked.append(name)
                if data:
                    stored.append(self._store(name, data))
            if stored:
                self.refresh()
            for name in looked:
                # A file that was written again meanwhile is the next look's.
                if name in self._tree and self._stamp(name) in (self._stamps.get(name), None):
                    self._restore(name)
        except OSError as error:
            raise InputError(
                "--sysfs", "directory", str(self._path), f"cannot be written: {error.strerror or error}"
            ) from None
        return stored

    def _changed(self) -> list[str]:
        """Writable files that are not as they were left, in the order of their changes."""
        found: list[tuple[int, str]] = []
        for name, known in self._stamps.items():
            now = self._stamp(name)
            if now is None:
                continue
            fresh = name in self._fresh
            self._fresh.discard(name)
            readable = self._tree[name].mode & 0o400
            if now != known or (fresh and readable and self._contents(name) != self._tree[name].data):
                found.append((now[0], name))
        return [name for _, name in sorted(found)]

    def _wait_for_contents(self, name: str) -> bool:
        """Whether an emptied file shall be left alone once more: its writer has opened it and will go on."""
        looks = self._emptied.get(name, 0) + 1
        self._emptied[name] = looks
        return looks < PATIENCE

    def _store(self, name: str, data: bytes) -> Stored:
        session = self._session
        log = session.kernel.printk.log
        before = len(log)
        try:
            result: int = session.machine.call(self._write, name, data, limit=STORE_LIMIT, name="sh")
        except (MachineStuck, LimitReached):
            result = -ETIMEDOUT
        session.machine.run(self._ended, SETTLE)
        return Stored(name, data, result, tuple(line.text for line in log[before:]))

    def _write(self, name: str, data: bytes) -> int:
        kernel = self._session.kernel
        result = kernel.sysfs.write(name, data)
        kernel.async_.async_synchronize_full()
        return result

    def _ended(self) -> bool:
        outcome = self._session.kernel.outcome
        return outcome is None or outcome.state != "up"

    # the directory ---------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Make the directory what the guest shows now; files that did not change are not touched.

        :raises GuestEnded: the guest does not answer.
        """
        tree = None if self._ended() else snapshot(self._session)
        if tree is None:
            raise GuestEnded("the guest has ended")
        old, self._tree = self._tree, tree
        for name in reversed(tuple(old)):
            entry = tree.get(name)
            if entry is None or entry.kind != old[name].kind:
                self._remove(name)
        for name, entry in tree.items():
            before = old.get(name)
            if before is None or before.kind != entry.kind:
                self._make(name, entry)
            elif before != entry and entry.kind == "dir":
                os.chmod(self.place / name, entry.mode)
            elif before != entry:
                self._replace(name, entry)
        if old.keys() != tree.keys():
            write_marker(self.place, tree)

    def _remove(self, name: str) -> None:
        self._stamps.pop(name, None)
        self._emptied.pop(name, None)
        try:
            remove(self.place / name)
        except FileNotFoundError:
            pass
        except OSError:
            if not (self.place / name).is_dir():
                raise
            # Somebody keeps a file of his own in there.

    def _make(self, name: str, entry: Entry) -> None:
        where = self.place / name
        if entry.kind != "dir" and os.path.lexists(where):
            remove(where)
        if entry.kind != "dir" or not where.is_dir():
            put(self.place, name, entry)
        if entry.kind == "dir":
            os.chmod(where, entry.mode)
        self._note(name, entry)

    def _replace(self, name: str, entry: Entry) -> None:
        """Change a writable file in place, since somebody may have it open; replace anything else by a rename."""
        where = self.place / name
        if entry.kind == "file" and entry.mode & 0o222 and where.is_file() and not where.is_symlink():
            if self._stamp(name) in (self._stamps.get(name), None):
                self._restore(name)
            return
        beside = f"{name}.{MARKER}"
        if os.path.lexists(self.place / beside):
            remove(self.place / beside)
        put(self.place, beside, entry)
        os.rename(self.place / beside, where)
        self._note(name, entry)

    def _restore(self, name: str) -> None:
        """Write what the guest shows into a writable file."""
        entry = self._tree[name]
        try:
            fd = os.open(self.place / name, os.O_WRONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            put(self.place, name, entry)
        else:
            try:
                write_all(fd, entry.data)
                os.fchmod(fd, entry.mode)
            finally:
                os.close(fd)
        self._emptied.pop(name, None)
        self._note(name, entry)

    def _note(self, name: str, entry: Entry) -> None:
        if entry.kind == "file" and entry.mode & 0o222:
            stamp = self._stamp(name)
            if stamp is not None:
                self._stamps[name] = stamp
                self._fresh.add(name)

    def _stamp(self, name: str) -> Stamp | None:
        try:
            found = os.stat(self.place / name, follow_symlinks=False)
        except FileNotFoundError:
            return None
        return (found.st_mtime_ns, found.st_size, found.st_ino) if stat.S_ISREG(found.st_mode) else None

    def _contents(self, name: str) -> bytes:
        """What is in a file now, also in one that its owner may not read."""
        where = self.place / name
        mode = self._tree[name].mode
        if not mode & 0o400:
            os.chmod(where, mode | 0o400)
        with open(os.open(where, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            data = file.read(1 << 20)
        if not mode & 0o400:
            os.chmod(where, mode)
        return data
