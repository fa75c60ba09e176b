"""What differs between kernel releases, as data: code asks for a capability, never for a number."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import Any

from hvkernel.config.errors import InputError

__all__ = ["Capability", "KernelRelease", "capabilities", "load_release"]

_FILE = "releases.toml"


def _key(text: str) -> tuple[int, ...]:
    major, _, rest = text.partition(".")
    minor = rest.partition(".")[0].partition("-")[0]
    return int(major), int(minor)


@dataclass(frozen=True, slots=True)
class Capability:
    """One difference between releases."""

    name: str
    first: tuple[int, ...] | None
    """First release that has it; ``None``: older than all that are modelled."""
    last: tuple[int, ...] | None
    """Last release that has it; ``None``: it is still there."""
    commit: str
    """What changed it, in the kernel's history."""
    what: str

    def holds(self, release: tuple[int, ...]) -> bool:
        """Whether ``(major, minor)`` has it."""
        return (self.first is None or self.first <= release) and (self.last is None or release <= self.last)


class KernelRelease:
    """One kernel version. Implements :class:`hvkernel.api.guest.Release`."""

    __slots__ = ("_rows", "version")

    def __init__(self, version: str, rows: dict[str, bool]) -> None:
        self.version = version
        self._rows = rows

    def has(self, capability: str, /) -> bool:
        """Whether this release has a capability.

        :raises KeyError: ``releases.toml`` has no such row.
        """
        return self._rows[capability]


def capabilities() -> tuple[Capability, ...]:
    """Return the rows of ``releases.toml``, in its order."""
    data: dict[str, dict[str, Any]] = tomllib.loads(
        resources.files("hvkernel.config").joinpath(_FILE).read_text("utf-8")
    )
    return tuple(
        Capability(
            name,
            _key(row["first"]) if "first" in row else None,
            _key(row["last"]) if "last" in row else None,
            row["commit"],
            row["what"],
        )
        for name, row in data.items()
    )


def load_release(version: str) -> KernelRelease:
    """Return the release called ``version``, as ``6.1.192`` or ``6.12``.

    :raises InputError: it does not begin with two numbers.
    """
    try:
        key = _key(version)
    except ValueError:
        raise InputError("--release", "release", version, "must be a kernel release, as 6.1") from None
    return KernelRelease(version, {row.name: row.holds(key) for row in capabilities()})
