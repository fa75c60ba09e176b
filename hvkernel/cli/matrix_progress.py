"""How far ``hvkernel matrix`` is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol, TextIO

from hvkernel.cli import inert

if TYPE_CHECKING:
    from hvkernel.matrix.runner import Progress

__all__ = ["EVERY", "Bar", "Lines", "Meter", "duration", "meter"]

EVERY: Final = 10.0
"""Seconds between two lines where there is no terminal."""


class Meter(Protocol):
    """Shows how far a run is."""

    def progress(self, now: Progress) -> None:
        """Show how many cells are done."""
        ...

    def shrinking(self, causes: int, kind: str) -> None:
        """Show that a failure is being shrunk."""
        ...

    def close(self) -> None:
        """Leave the terminal to others."""
        ...


def duration(seconds: float | None) -> str:
    """Return a time as a reader says it, ``2 h 05 min``; a question mark where nobody knows."""
    if seconds is None:
        return "?"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes = round(whole / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


class Lines:
    """A line every ten seconds, and one at the end."""

    def __init__(self, out: TextIO) -> None:
        """Write to ``out``."""
        self._out = out
        self._next = EVERY
        self._said = ""
        self._over = False

    def progress(self, now: Progress) -> None:
        """Write a line if it is time to."""
        over = now.done == now.total or bool(now.interrupted)
        if now.seconds >= self._next or (over and not self._over):
            self._over = over
            self._next = now.seconds + EVERY
            self._say(
                f"{now.done} of {now.total} cells, {now.failed} failed, {now.rate:.1f} a second, "
                f"{duration(now.left)} left"
            )

    def shrinking(self, causes: int, kind: str) -> None:
        """Write what is looked into."""
        self._say(f"shrinking {inert(kind)}; causes so far: {causes}")

    def close(self) -> None:
        """Nothing is left to do."""

    def _say(self, line: str) -> None:
        if line != self._said:
            self._said = line
            self._out.write(line + "\n")
            self._out.flush()


class Bar:
    """A bar with the rate, the failures and the time that is left."""

    def __init__(self, out: TextIO, total: int) -> None:
        """Draw on ``out``."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._bar = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            # Texts of ours, not of a guest; still no markup is read in them.
            TextColumn("{task.fields[failed]}", style="red", markup=False),
            TextColumn("{task.fields[rate]}", markup=False),
            TextColumn("{task.fields[left]}", markup=False),
            console=Console(file=out),
            transient=True,
        )
        self._task = self._bar.add_task("", total=total, failed="", rate="", left="")
        self._bar.start()

    def progress(self, now: Progress) -> None:
        """Move the bar."""
        failed = f"{now.failed} failed" if now.failed else ""
        rate, left = f"{now.rate:.1f}/s", f"{duration(now.left)} left"
        self._bar.update(self._task, completed=now.done, failed=failed, rate=rate, left=left)

    def shrinking(self, causes: int, kind: str) -> None:
        """Say what is looked into."""
        self._bar.update(self._task, rate=f"shrinking {inert(kind)}", left=f"causes so far: {causes}")

    def close(self) -> None:
        """Take the bar away."""
        self._bar.stop()


@contextmanager
def meter(out: TextIO, total: int) -> Iterator[Meter]:
    """Return what fits ``out``, and close it however the run ends."""
    found: Meter = Bar(out, total) if out.isatty() else Lines(out)
    try:
        yield found
    finally:
        found.close()
