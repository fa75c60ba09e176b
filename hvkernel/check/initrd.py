"""Which modules are in an initramfs: all, none, or those of a list or of a listing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hvkernel.config.errors import InputError

__all__ = ["Initrd", "read_initrd"]

_MODULE: Final = re.compile(r"(?:^|[\s/])([A-Za-z0-9_-]+)\.ko(?:\.(?:xz|gz|zst|bz2|lzma))?(?=\s|$)")
_NAME: Final = re.compile(r"[A-Za-z0-9_-]+")
MAX_SIZE: Final = 64 << 20
"""Largest listing read, in bytes. *unspecified*: chosen to bound memory."""


@dataclass(frozen=True, slots=True)
class Initrd:
    """An initramfs.

    :ivar modules: names of the modules in it, with underscores; ``None``: every module that the kernel builds.
    :ivar exists: False where the kernel is started alone.
    """

    modules: frozenset[str] | None = None
    exists: bool = True

    def has(self, module: str) -> bool:
        """Whether a module is in it."""
        return self.exists and (self.modules is None or module.replace("-", "_") in self.modules)


def read_initrd(given: str | None) -> Initrd:
    """Read what ``--initrd`` names: nothing, ``none``, or a file.

    The file has one module name a line (``#`` starts a comment), or is the listing that ``lsinitrd`` or
    ``lsinitramfs`` prints, of which the paths that end in ``.ko`` count.

    :raises InputError: it cannot be read, is no text, or has a line that is neither.
    """
    if given is None:
        return Initrd()
    if given == "none":
        return Initrd(frozenset(), exists=False)
    text = _text(Path(given))
    found = _MODULE.findall(text)
    if found:
        return Initrd(frozenset(name.replace("-", "_") for name in found))
    names = []
    for number, line in enumerate(text.splitlines(), 1):
        word = line.partition("#")[0].strip()
        if word and _NAME.fullmatch(word) is None:
            limit = "must be a module's name; no path of the file ends in .ko, so it is no listing either"
            raise InputError(f"{given}:{number}", "module", word[:60], limit)
        if word:
            names.append(word.replace("-", "_"))
    return Initrd(frozenset(names))


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SIZE + 1)
    except OSError as error:
        raise InputError(str(path), limit=error.strerror or "cannot be read") from None
    if len(data) > MAX_SIZE:
        raise InputError(str(path), limit=f"is larger than {MAX_SIZE} bytes, no listing of modules")
    if b"\0" in data:
        raise InputError(str(path), limit="is binary: give the listing that lsinitrd or lsinitramfs prints of it")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(str(path), limit="is not a list of modules: not UTF-8 text") from None
