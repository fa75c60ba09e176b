"""An exception of the model or of a plugin, in one line."""

from __future__ import annotations

import traceback
from typing import Final

__all__ = ["told"]

FRAMES: Final = 3
"""Innermost calls that are shown of an exception."""


def told(error: BaseException) -> str:
    """Return an exception with its innermost calls, in one line."""
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES:]
    where = " < ".join(f"{one.name} ({_file(one.filename)}:{one.lineno})" for one in reversed(frames))
    inner = f": {told(error.exceptions[0])}" if isinstance(error, ExceptionGroup) else ""
    return f"{type(error).__name__}: {error}{inner} [{where}]"


def _file(name: str) -> str:
    """Return a file's name with its directory: no machine's own paths in a result."""
    return "/".join(name.rsplit("/", 2)[-2:])
