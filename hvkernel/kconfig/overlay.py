"""Kconfig values laid over the text of a ``.config``."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Final

__all__ = ["lay_over"]

_LINE: Final = re.compile(r"(?:CONFIG_([A-Za-z0-9_]+)=|#\s*CONFIG_([A-Za-z0-9_]+) is not set\s*$)")
_PLAIN: Final = re.compile(r"[ymn]|-?(?:0[xX][0-9A-Fa-f]+|[0-9]+)")


def lay_over(text: str, values: Mapping[str, str]) -> str:
    """Return the text with each of ``values`` in place of what it says of that symbol, as its last lines.

    What is replaced goes, so that no earlier ``y`` of a choice is left to win over the new one
    (:attr:`hvkernel.kconfig.configfile.ConfigFile.withdrawn`).

    :param text: a ``.config`` or a fragment.
    :param values: symbol without ``CONFIG_`` to ``y``, ``m``, ``n`` or a number; anything else becomes a string.
    """
    if not values:
        return text
    kept = []
    for line in io.StringIO(text):
        found = _LINE.match(line) if "CONFIG_" in line else None
        if found is None or (found[1] or found[2]) not in values:
            kept.append(line)
    if kept and not kept[-1].endswith("\n"):
        kept.append("\n")
    return "".join([*kept, *(_line(symbol, value) for symbol, value in values.items())])


def _line(symbol: str, value: str) -> str:
    if value == "n":
        return f"# CONFIG_{symbol} is not set\n"
    if _PLAIN.fullmatch(value):
        return f"CONFIG_{symbol}={value}\n"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'CONFIG_{symbol}="{escaped}"\n'
