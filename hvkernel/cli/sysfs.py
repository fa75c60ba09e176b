"""``hvkernel boot --sysfs DIR``: the directory, and staying with it."""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Final

from hvkernel.boot.sysfs import SysfsRequest, snapshot, write_tree
from hvkernel.boot.sysfs_live import GuestEnded, LiveTree, Stored
from hvkernel.cli import inert

if TYPE_CHECKING:
    from hvkernel.boot.session import Session
    from hvkernel.config.report import BootReport

__all__ = ["attend_sysfs"]

PAUSE: Final = 0.02
"""Seconds between two looks at the directory."""


def attend_sysfs(
    session: Session, report: BootReport, show: Callable[[BootReport], None], request: SysfsRequest
) -> int:
    """Write the guest's tree, show the report, and stay if that was asked for; return the exit status.

    The tree comes first: a command that cannot do what it was asked to prints nothing but why.

    :raises InputError: the directory cannot be written.
    """
    if request.live and report.outcome == "up":
        with LiveTree(session, request.path) as tree, _interrupted() as stop:
            show(report)
            sys.stdout.flush()
            try:
                while not stop:
                    _tell(tree.poll())
                    time.sleep(PAUSE)
            except GuestEnded as ended:
                print(f"hvkernel: --sysfs: {ended}", file=sys.stderr)
                return 1
        return report.exit_status
    found = snapshot(session)
    if found is not None:
        write_tree(request.path, found)
    show(report)
    if found is None:
        print("hvkernel: --sysfs: nothing was written: a guest that has ended shows no files", file=sys.stderr)
    return report.exit_status


@contextmanager
def _interrupted() -> Iterator[list[int]]:
    """A list that is empty until SIGINT or SIGTERM comes."""
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)

    before = [(number, signal.signal(number, note)) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield came
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def _tell(stored: Iterable[Stored]) -> None:
    """Say on stderr what the guest logged, and what it refused."""
    for one in stored:
        for text in one.messages:
            print(inert(text), file=sys.stderr)
        if one.result:
            name = errno.errorcode.get(-one.result, str(-one.result))
            print(f"hvkernel: {inert(one.path)}: {name}: {os.strerror(-one.result)}", file=sys.stderr)
    sys.stderr.flush()
