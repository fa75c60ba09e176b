"""Files that a user writes, read the same way everywhere: a mistake is one line that names the file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from hvkernel.config.errors import InputError

__all__ = ["parse_toml", "read_toml"]


def read_toml(path: str | Path) -> dict[str, Any]:
    """Read a TOML file.

    :raises InputError: it cannot be read, is not UTF-8 text, or is not TOML.
    """
    name = str(path)
    try:
        text = Path(path).read_text("utf-8")
    except OSError as error:
        raise InputError(name, limit=error.strerror or "cannot be read") from None
    except UnicodeDecodeError:
        raise InputError(name, limit="is not UTF-8 text") from None
    return parse_toml(text, name)


def parse_toml(text: str, name: str) -> dict[str, Any]:
    """Parse the text of a TOML file.

    :param name: the file's name, for the error.
    :raises InputError: it is not TOML.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(name, limit=f"is not TOML: {error}") from None
