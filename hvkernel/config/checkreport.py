"""What ``hvkernel check --json`` prints, as models that read it back."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Boot", "Broken", "Change", "CheckReport", "Kernel", "TargetReport"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Kernel(_Model):
    """The kernel that the file describes."""

    file: str
    release: str
    kconfig: str
    """Release of the Kconfig data that served it."""
    arch: str
    bits: Literal[32, 64]
    page_size: int


class Broken(_Model):
    """One rule that is broken."""

    kind: str
    symbol: str
    wanted: str
    got: str
    line: int | None
    """Line of the file that names the symbol."""
    because: tuple[str, ...]
    """From the symbol to what is to blame, a link each: its value, and the first false clause of its dependencies."""
    edits: tuple[str, ...]
    verified: bool
    """Whether evaluating the file with the edits showed that they mend it."""
    why: str
    evidence: str


class Boot(_Model):
    """What the modelled boot says of a verdict."""

    outcome: Literal["up", "panic", "hung", "unsupported", "not-modelled"]
    reason: str
    host: str
    agrees: bool | None
    """Whether it came up just where the rules say so; ``None`` where nothing was booted."""


class TargetReport(_Model):
    """One target."""

    target: str
    title: str
    verdict: Literal["runs", "fails", "unfit"]
    reason: str
    problems: tuple[Broken, ...]
    advice: tuple[Broken, ...]
    unknown: tuple[str, ...]
    """Symbols of which neither the file nor the Kconfig data say anything."""
    boot: Boot | None


class Change(_Model):
    """One symbol that comes out otherwise in another release."""

    symbol: str
    kind: Literal["lost", "lowered", "gone", "raised", "new"]
    before: str | None
    after: str | None
    because: tuple[str, ...]


class CheckReport(_Model):
    """One check."""

    schema_version: Annotated[Literal[1], Field(serialization_alias="schema", validation_alias="schema")] = 1
    kernel: Kernel
    targets: tuple[TargetReport, ...]
    upgrade: tuple[Change, ...] | None
    notes: tuple[str, ...]

    def to_json(self) -> str:
        """Return the document that ``--json`` prints."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"

    @property
    def exit_status(self) -> int:
        """0 when every target is one that the kernel runs on, as far as the boots agree; else 1."""
        bad = any(one.verdict != "runs" or (one.boot is not None and one.boot.agrees is False) for one in self.targets)
        return int(bad)
