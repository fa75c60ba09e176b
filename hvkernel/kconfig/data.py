"""The generated Kconfig data: which releases there are, and what the files of one hold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hvkernel.kconfig.errors import ConfigError

__all__ = ["ARCHES", "BASELINE", "RELEASES", "Data", "data_release", "load_data", "nearest", "version_key"]

BASELINE: Final = "6.1"
"""The release whose behaviour is modelled; a file that names none is read as one of it."""
RELEASES: Final = ("5.15", "6.1", "6.6", "6.12", "6.18", "6.19", "7.0", "7.1")
"""Releases with Kconfig data, oldest first."""
ARCHES: Final = ("x86", "arm64")
"""Architectures with Kconfig data, as the kernel names their directories under arch/."""

_DIRECTORY: Final = Path(__file__).resolve().parent / "data"
_SET: Final = re.compile(r"(?m)^CONFIG_(\w+)=([ymn])$")
_OUTSIDE: Final = "# Outside:"


@dataclass(frozen=True)
class Data:
    """One release's data for one architecture.

    :ivar release: the release the data are of.
    :ivar arch: ``x86`` or ``arm64``.
    :ivar text: the Kconfig text.
    :ivar outside_line: 1-based line from which the selectors from outside the closure stand.
    :ivar always: symbols outside the closure that have this value whatever is configured.
    """

    release: str
    arch: str
    text: str
    outside_line: int
    always: Mapping[str, str]

    @property
    def name(self) -> str:
        """The name that errors in the data show."""
        return f"data/{self.release}/{self.arch}.Kconfig"


def version_key(version: str) -> tuple[int, int]:
    """``(major, minor)`` of a kernel version such as ``6.1.192`` or ``6.6.134.1``.

    :raises ValueError: when it does not begin with two numbers.
    """
    found = re.match(r"v?(\d+)\.(\d+)(?![0-9])", version)
    if found is None:
        raise ValueError(f"{version!r} is not a kernel release such as 6.1 or 6.12.117")
    return int(found.group(1)), int(found.group(2))


def nearest(version: str, releases: tuple[str, ...]) -> str | None:
    """The latest of ``releases`` (oldest first) that is not later than ``version``; None when all are later."""
    key = version_key(version)
    fitting = [release for release in releases if version_key(release) <= key]
    return fitting[-1] if fitting else None


def data_release(version: str, where: str) -> str:
    """The release whose data serve a kernel version.

    :raises ConfigError: for a version older than the oldest data, or that is none.
    """
    try:
        found = nearest(version, RELEASES)
    except ValueError as error:
        raise ConfigError(where, None, str(error)) from None
    if found is None:
        raise ConfigError(where, None, f"release {version} is older than {RELEASES[0]}, the oldest with Kconfig data")
    return found


def load_data(release: str, arch: str) -> Data:
    """Read one release's data.

    :param release: one of :data:`RELEASES`.
    :param arch: one of :data:`ARCHES`.
    """
    text = (_DIRECTORY / release / f"{arch}.Kconfig").read_text(encoding="utf-8")
    outside = text.index(_OUTSIDE)
    always = dict(_SET.findall((_DIRECTORY / release / f"{arch}.always").read_text(encoding="utf-8")))
    return Data(release, arch, text, text.count("\n", 0, outside) + 1, always)
