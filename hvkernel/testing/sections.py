"""What a report says of the guest of a test that failed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hvkernel.matrix.axes import cell_text
from hvkernel.matrix.run import SECOND
from hvkernel.testing.cases import matrix_command

if TYPE_CHECKING:
    from hvkernel.boot.plugins import Plugins
    from hvkernel.matrix.model import CellResult
    from hvkernel.testing.cases import Case
    from hvkernel.testing.guest import Guest

__all__ = ["Watched"]

LINES: Final = 40
"""Last lines of the log that are shown."""

FINDINGS: Final = 20
"""Last findings that are shown."""

LONGEST: Final = 500
"""Characters of a line that are shown."""


@dataclass(slots=True)
class Watched:
    """The guest of one test, or what became of its cell, from setup to teardown."""

    case: Case
    plugins: Plugins
    guest: Guest | None = None
    result: CellResult | None = None
    check: bool = False
    """Whether the guest is checked after a test that passed."""

    def sections(self, command: str) -> Iterator[tuple[str, str]]:
        """Yield (title, text) for the report.

        :param command: the one of pytest that runs the test again.
        """
        cell = self.case.cell
        yield "hvkernel: the cell", "\n".join(self._about())
        if self.guest is not None:
            yield from self._guest(self.guest)
        if self.result is not None:
            if self.result.problems:
                problems = [f"{one.invariant}: {one.text}" for one in self.result.problems]
                yield "hvkernel: broken invariants", _lines(problems)
            if self.result.dmesg:
                yield f"hvkernel: last {len(self.result.dmesg)} lines of the log", _lines(self.result.dmesg)
        again = [command]
        matrix = matrix_command(self.case, self.plugins)
        if matrix is not None:
            again.append(matrix)
        yield f"hvkernel: run it again (seed {cell.seed})", "\n".join(again)

    def _about(self) -> Iterator[str]:
        cell = self.case.cell
        yield f"{cell_text(cell).replace(',', ' ')} seed={cell.seed}"
        if self.guest is not None:
            session = self.guest.session
            how = self.guest.outcome or "not booted"
            why = f": {self.guest.reason}" if self.guest.reason else ""
            yield _inert(f"{how}{why}, at {session.machine.clock.now / SECOND:.6f} s of virtual time")
        if self.result is not None:
            yield f"{self.result.status} in phase {self.result.phase}, outcome {self.result.outcome or 'none'}"

    def _guest(self, guest: Guest) -> Iterator[tuple[str, str]]:
        log = guest.session.kernel.printk.log[-LINES:]
        if log:
            text = _lines([f"[{line.t / 1e9:12.6f}] {line.text}" for line in log])
            yield f"hvkernel: last {len(log)} lines of the log", text
        findings = guest.findings[-FINDINGS:]
        if findings:
            shown = []
            for one in findings:
                shown += f"{one.kind} ({one.side}, at {one.t / SECOND:.6f} s): {one.text}".splitlines()
                shown += [f"    {call}" for call in one.where]
            yield f"hvkernel: last {len(findings)} findings", _lines(shown)
        faults = guest.session.plugins.faults
        if faults:
            yield "hvkernel: plugins", _lines([str(fault) for fault in faults])


def _lines(texts: list[str] | tuple[str, ...]) -> str:
    return "\n".join(map(_inert, texts))


def _inert(text: str) -> str:
    """A guest's text, with control characters made visible: it must not drive the reader's terminal."""
    shown = "".join(c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in text[:LONGEST])
    return f"{shown} ..." if len(text) > LONGEST else shown
