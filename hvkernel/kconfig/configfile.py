"""A ``.config`` as text: what it assigns, and what its header says.

Two kinds are told apart. A *whole* file, as ``make config`` writes it, has the header
``# Linux/x86 6.1.192 Kernel Configuration`` under *Automatically generated file*; a symbol that it does not name had
no value there. In a *fragment* (``make savedefconfig``, a distribution's overlay, a hand-written list) absent means
default; a hand-written header in one still names its architecture and release.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from hvkernel.kconfig.errors import ConfigError

__all__ = ["ConfigFile", "parse_config", "read_config", "read_config_text", "shown"]

_HEADER: Final = re.compile(r"#\s*Linux/(\S+)\s+(\S+)\s+Kernel Configuration\s*$")
_AUTOMATIC: Final = re.compile(r"#\s*Automatically generated (?:make config|file)")
_SET: Final = re.compile(r"CONFIG_([A-Za-z0-9_]+)=(.*)$")
_UNSET: Final = re.compile(r"#\s*CONFIG_([A-Za-z0-9_]+) is not set\s*$")
_NUMBER: Final = re.compile(r"-?(?:0[xX][0-9A-Fa-f]+|[0-9]+)$")

ARCHES: Final = MappingProxyType({
    "x86": "x86", "x86_64": "x86", "i386": "x86", "arm64": "arm64", "aarch64": "arm64",
})  # fmt: skip
"""What headers and users call an architecture, and its directory under arch/."""

_ARM32: Final = ("arm", "armv7", "armhf")
_LAST_MENU: Final = "# end of Kernel hacking"
_SHOWN: Final = 60
"""Most characters of a line in a message."""
MAX_SIZE: Final = 16 << 20
"""Largest file read, in bytes; the largest real ``.config`` is about 0.35 MB. *Unspecified*: chosen to bound memory."""


@dataclass(frozen=True)
class ConfigFile:
    """What a ``.config`` says.

    :ivar name: the file's name, for messages.
    :ivar values: symbol without ``CONFIG_`` to value: ``y``, ``m``, ``n`` (also for *is not set*), a number or a
        string without its quotes. The last assignment of a symbol counts, as in the kernel.
    :ivar lines: symbol to the 1-based line that set it.
    :ivar withdrawn: symbol to the line that last set it to y, for one that a later line set to something else. The
        kernel's reader lets the last y within a choice win, withdrawn or not.
    :ivar header_arch: the header's architecture as in arch/, or None.
    :ivar header_version: the header's kernel version, or None.
    :ivar header_line: line of the header, or None.
    :ivar whole: whether make wrote the file, so that absent means *not set* rather than *default*.
    """

    name: str
    values: dict[str, str]
    lines: dict[str, int]
    header_arch: str | None
    header_version: str | None
    header_line: int | None
    whole: bool
    withdrawn: dict[str, int] = field(default_factory=dict)

    def error(self, text: str, symbol: str | None = None) -> ConfigError:
        """An error that points at the line that set ``symbol``, or at the file."""
        return ConfigError(self.name, self.lines.get(symbol) if symbol else None, text)


def read_config(path: str | Path) -> ConfigFile:
    """Read a ``.config``.

    :raises ConfigError: for a file that is missing, unreadable, too large, not text or not a ``.config``.
    """
    return parse_config(read_config_text(path), name=str(path))


def read_config_text(path: str | Path) -> str:
    """Read the text of a ``.config``.

    :raises ConfigError: for a file that is missing, unreadable, too large or not text.
    """
    name = str(path)
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_SIZE + 1)
    except OSError as error:
        raise ConfigError(name, None, f"cannot read: {error.strerror or error}") from None
    if len(data) > MAX_SIZE:
        raise ConfigError(name, None, f"larger than {MAX_SIZE} bytes, not a .config")
    if b"\0" in data:
        line = data[: data.index(b"\0")].count(b"\n") + 1
        raise ConfigError(name, line, "not a .config: binary data (a zero byte)")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(name, line, f"not a .config: byte {data[error.start]:#04x} is not UTF-8") from None


def parse_config(text: str, *, name: str = "<config>") -> ConfigFile:
    """Parse the text of a ``.config`` or of a fragment.

    :param text: the text.
    :param name: the file's name, for messages.
    :raises ConfigError: naming the line, for anything that is neither an assignment nor a comment, for a value that
        no type of symbol takes, for a text cut off in the middle, and for a header of an unknown architecture.
    """
    values: dict[str, str] = {}
    lines: dict[str, int] = {}
    withdrawn: dict[str, int] = {}
    header: tuple[str, str, int] | None = None
    automatic = False
    all_lines = _lines(text)
    for number, line in enumerate(all_lines, 1):
        line = line.rstrip()
        found = _SET.match(line)
        if found:
            symbol, raw = found.groups()
            if values.get(symbol) == "y" and raw != "y":
                withdrawn[symbol] = lines[symbol]
            values[symbol] = _value(name, number, symbol, raw)
            lines[symbol] = number
        elif line.startswith("#"):
            found = _UNSET.match(line)
            if found:
                symbol = found.group(1)
                if values.get(symbol) == "y":
                    withdrawn[symbol] = lines[symbol]
                values[symbol] = "n"
                lines[symbol] = number
            elif header is None and (found := _HEADER.match(line)):
                header = (found.group(1), found.group(2), number)
            elif _AUTOMATIC.match(line):
                automatic = True
        elif line:
            raise ConfigError(name, number, _malformed(line, last=number == text.count("\n") + 1))
    if automatic:
        _check_end(name, all_lines, header, ended=text.endswith("\n"))
    if not values:
        raise ConfigError(name, None, "not a .config: it sets no symbol")
    arch = _header_arch(name, header) if header else None
    return ConfigFile(
        name,
        values,
        lines,
        arch,
        header[1] if header else None,
        header[2] if header else None,
        automatic,
        withdrawn,
    )


def _lines(text: str) -> list[str]:
    """The lines as the kernel's reader sees them: only a line feed ends one, a string may have any other character."""
    lines = text.split("\n")
    return lines if lines[-1] else lines[:-1]


def shown(line: str) -> str:
    """Return a line or value as messages show it: only its beginning, where it is long."""
    return line if len(line) <= _SHOWN else line[: _SHOWN - 3] + "..."


def _malformed(line: str, *, last: bool) -> str:
    start = shown(line)
    if last and "CONFIG_".startswith(line[:7]) and "=" not in line:
        return f"truncated: {start!r} breaks off in the middle of an assignment"
    return f"not a .config line: {start!r} (expected CONFIG_NAME=VALUE or # CONFIG_NAME is not set)"


def _value(name: str, number: int, symbol: str, raw: str) -> str:
    if raw in ("y", "m", "n"):
        return raw
    if raw.startswith('"'):
        if len(raw) < 2 or not raw.endswith('"') or _odd_backslashes(raw[:-1]):
            raise ConfigError(name, number, f"truncated: {shown(f'CONFIG_{symbol}={raw}')} has no closing quote")
        return re.sub(r"\\(.)", r"\1", raw[1:-1])
    if _NUMBER.match(raw):
        return raw
    if not raw:
        raise ConfigError(name, number, f"truncated: CONFIG_{symbol}= has no value")
    start = shown(f"CONFIG_{symbol}={raw}")
    raise ConfigError(name, number, f"{start}: a value is y, m, n, a number or a string in double quotes")


def _odd_backslashes(text: str) -> bool:
    return (len(text) - len(text.rstrip("\\"))) % 2 == 1


def _check_end(name: str, lines: list[str], header: tuple[str, str, int] | None, *, ended: bool) -> None:
    """Refuse a generated text that was cut off: make ends its files with a line feed and the last menu's comment."""
    last = len(lines)
    if not ended:
        raise ConfigError(name, last, f"truncated: the last line {shown(lines[-1])!r} has no end")
    if header is None:
        raise ConfigError(name, last, "truncated: generated by make, but the Linux/<arch> header line is missing")
    if not any(line.rstrip() == _LAST_MENU for line in reversed(lines)):
        raise ConfigError(
            name, last, f"truncated: generated by make, but it ends without its last menu, {_LAST_MENU!r}"
        )


def _header_arch(name: str, header: tuple[str, str, int]) -> str:
    arch, _, line = header
    if arch in ARCHES:
        return ARCHES[arch]
    if arch in _ARM32:
        raise ConfigError(name, line, f"architecture {arch!r} is 32-bit Arm, which Hyper-V does not run; only arm64 is")
    raise ConfigError(name, line, f"architecture {arch!r} is not modelled: x86 and arm64 are")
