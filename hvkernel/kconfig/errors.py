"""The one error class of this package: what the user gave cannot be read."""

from __future__ import annotations

from hvkernel.config.errors import InputError

__all__ = ["ConfigError"]


class ConfigError(InputError):
    """A ``.config`` or a Kconfig text is wrong.

    The message is ``file:line: what is wrong, and with which value``; the line is left out where
    the fault is the file as a whole. A command line turns it into one line on stderr and exit status 2.

    :param where: name of the file as the user knows it.
    :param line: 1-based line number, or None for the file as a whole.
    :param text: what is wrong, with the offending value.
    """

    def __init__(self, where: str, line: int | None, text: str) -> None:
        self.where = where
        self.line = line
        self.text = text
        super().__init__(f"{where}:{line}" if line is not None else where, limit=text)
