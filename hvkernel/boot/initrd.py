"""Which modules are in an initramfs: all, none, those of a list and what they need, or just those of a listing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hvkernel.config.errors import InputError

__all__ = ["Initrd", "read_initrd"]

_MODULE: Final = re.compile(r"(?:^|[\s/])([A-Za-z0-9_-]+)\.ko(?:\.(?:xz|gz|zst|bz2|lzma))?(?=\s|$)")
_LISTING: Final = re.compile(r"(?m)^\.$|^Image: |^(?:usr/)?lib/modules/|^[-dlcbps][-rwxsStT]{9}\s")
"""What a listing has and a list has not: the root, dracut's first line, relative paths of the tree, or ``ls -l``."""
MAX_SIZE: Final = 64 << 20
"""Largest listing read, in bytes. *unspecified*: chosen to bound memory."""


@dataclass(frozen=True, slots=True)
class Initrd:
    """An initramfs.

    :ivar modules: names of modules, with underscores, in the order given; ``None``: every one that the kernel builds.
    :ivar exists: False where the kernel is started alone.
    :ivar exact: whether ``modules`` are all that is in it, as in a listing. What programs that make an initramfs are
        told to put in brings what it needs.
    """

    modules: tuple[str, ...] | None = None
    exists: bool = True
    exact: bool = False

    @property
    def held(self) -> tuple[str, ...] | str | None:
        """As :class:`hvkernel.linux.kernel.Kernel` takes it: names, ``"all"``, or None without an initramfs."""
        if not self.exists:
            return None
        return "all" if self.modules is None else self.modules


def read_initrd(given: str | None) -> Initrd:
    """Read what ``--initrd`` names: nothing, ``none``, or a file.

    The file has one module name or path a line (``#`` starts a comment), as for dracut's ``add_drivers`` or
    initramfs-tools' ``modules``: what these need comes with them. Or it is the listing that ``lsinitrd`` or
    ``lsinitramfs`` prints: then the modules in it are all there are.

    :raises InputError: it cannot be read, is no text, or has a line that is neither.
    """
    if given is None:
        return Initrd()
    if given == "none":
        return Initrd((), exists=False)
    text = _text(Path(given))
    if _LISTING.search(text):
        return Initrd(tuple(dict.fromkeys(map(_name, _MODULE.findall(text)))), exact=True)
    names = []
    for number, line in enumerate(text.splitlines(), 1):
        word = line.partition("#")[0].strip()
        if not word:
            continue
        if len(word.split()) > 1:
            raise InputError(f"{given}:{number}", "module", word[:60], "must be one name or path a line")
        names.append(_name(word.rsplit("/", 1)[-1].split(".ko", 1)[0]))
    return Initrd(tuple(names))


def _name(name: str) -> str:
    return name.replace("-", "_")


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
