"""Files that a user writes, read the same way everywhere: a mistake is one line that names the file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Final

from hvkernel.config.errors import InputError

__all__ = ["parse_toml", "read_toml"]

MAX_SIZE: Final = 1 << 20
"""Largest TOML file read, in bytes. *unspecified*: chosen to bound memory; ours have some thousands."""


def read_toml(path: str | Path) -> dict[str, Any]:
    """Read a TOML file.

    :raises InputError: it cannot be read, is too large, is not UTF-8 text, or is not TOML.
    """
    name = str(path)
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_SIZE + 1)
        if len(data) > MAX_SIZE:
            raise InputError(name, limit=f"is larger than {MAX_SIZE} bytes")
        text = data.decode("utf-8")
    except OSError as error:
        raise InputError(name, limit=error.strerror or "cannot be read") from None
    except UnicodeDecodeError:
        raise InputError(name, limit="is not UTF-8 text") from None
    return parse_toml(text.replace("\r\n", "\n"), name)


def parse_toml(text: str, name: str) -> dict[str, Any]:
    """Parse the text of a TOML file.

    :param name: the file's name, for the error.
    :raises InputError: it is not TOML.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(name, limit=f"is not TOML: {error}") from None
    except RecursionError:
        raise InputError(name, limit="is nested too deeply") from None
