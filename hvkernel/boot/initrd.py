"""Which modules are in an initramfs: all, none, those of a list and what they need, those of a listing or an image."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hvkernel.boot.cpio import ArchiveError
from hvkernel.boot.initramfs import is_image, read_image
from hvkernel.config.errors import InputError

if TYPE_CHECKING:
    from hvkernel.kconfig import Build

__all__ = ["Initrd", "read_initrd"]

_MODULE: Final = re.compile(r"(?:^|[\s/])([A-Za-z0-9_-]+)\.ko(?:\.(?:xz|gz|zst|bz2|lzma))?(?=\s|$)")
_LISTING: Final = re.compile(r"(?m)^\.$|^Image: |^(?:\./)?(?:usr/)?lib/modules/|^[-dlcbps][-rwxsStT]{9}\s")
"""What a listing has and a list has not: the root, dracut's first line, relative paths of the tree, or ``ls -l``."""
_INNER: Final = re.compile(r"(?:^|/)(?:squash|squashfs|erofs)-root\.img$")
"""What dracut's squash module packs the rest of an image into."""
_START: Final = 16
MAX_SIZE: Final = 64 << 20
"""Largest listing read, in bytes. *unspecified*: chosen to bound memory."""


@dataclass(frozen=True, slots=True)
class Initrd:
    """An initramfs.

    :ivar modules: names of modules, with underscores, in the order given; ``None``: every one that the kernel builds.
    :ivar exists: False where the kernel is started alone.
    :ivar exact: whether ``modules`` are all that is in it, as in a listing. What programs that make an initramfs are
        told to put in brings what it needs.
    :ivar methods: how an image is compressed, in the kernel's words: it needs ``RD_GZIP`` and so on to unpack it.
    """

    modules: tuple[str, ...] | None = None
    exists: bool = True
    exact: bool = False
    methods: tuple[str, ...] = ()

    @property
    def held(self) -> tuple[str, ...] | str | None:
        """As :class:`hvkernel.linux.kernel.Kernel` takes it: names, ``"all"``, or None without an initramfs."""
        if not self.exists:
            return None
        return "all" if self.modules is None else self.modules

    def refused(self, build: Build) -> str | None:
        """Return the method by which the image is compressed and that the kernel was built without, if there is one.

        Nothing is said of a fragment that does not name ``RD_GZIP`` and so on: they are on by default.
        """
        for method in self.methods:
            symbol = f"RD_{method.upper()}"
            if not build.y(symbol) and (build.whole or build.wanted(symbol) is not None):
                return method
        return None


def read_initrd(given: str | None) -> Initrd:
    """Read what ``--initrd`` names: nothing, ``none``, or a file.

    The file has one module name or path a line (``#`` starts a comment, parameters may follow), as for dracut's
    ``add_drivers`` or initramfs-tools' ``modules``: what these need comes with them. Or it is the listing that
    ``lsinitrd`` or ``lsinitramfs`` prints, or the image itself: then the modules in it are all there are.

    :raises InputError: it cannot be read, is neither text nor an image, or has a line that is neither name nor path; or
        an image is damaged.
    """
    if given is None:
        return Initrd()
    if given == "none":
        return Initrd((), exists=False)
    text = _text(Path(given))
    if text is None:
        return _image(Path(given))
    if _LISTING.search(text):
        return Initrd(tuple(dict.fromkeys(map(_name, _MODULE.findall(text)))), exact=True)
    names = []
    for number, line in enumerate(text.splitlines(), 1):
        word = line.partition("#")[0].strip()
        if not word:
            continue
        word, *parameters = word.split()
        if not all("=" in one for one in parameters):
            raise InputError(f"{given}:{number}", "module", line.strip()[:60], "must be one name or path a line")
        names.append(_name(word.rsplit("/", 1)[-1].split(".ko", 1)[0]))
    if not names:
        raise InputError(given, limit="names no module; a kernel without an initramfs has --initrd none")
    return Initrd(tuple(names))


def _name(name: str) -> str:
    return name.replace("-", "_")


def _image(path: Path) -> Initrd:
    try:
        image = read_image(path)
    except ArchiveError as error:
        raise InputError(str(path), limit=f"is no initramfs that the kernel can read: {error}") from None
    except OSError as error:
        raise InputError(str(path), limit=error.strerror or "cannot be read") from None
    inner = next((name for name in image.names if _INNER.search(name)), None)
    if inner is not None:
        raise InputError(
            str(path), limit=f"keeps its modules in a file system of its own, {inner}: give lsinitrd's listing of it"
        )
    names = (found.group(1) for found in map(_MODULE.search, image.names) if found)
    return Initrd(tuple(dict.fromkeys(map(_name, names))), exact=True, methods=image.methods)


def _text(path: Path) -> str | None:
    """The file's text; None for an image."""
    try:
        with path.open("rb") as file:
            data = file.read(_START)
            if is_image(data):
                return None
            data += file.read(MAX_SIZE + 1 - len(data))
    except OSError as error:
        raise InputError(str(path), limit=error.strerror or "cannot be read") from None
    if len(data) > MAX_SIZE:
        raise InputError(str(path), limit=f"is larger than {MAX_SIZE} bytes, no listing of modules")
    if b"\0" in data:
        raise InputError(str(path), limit="is binary, but no initramfs: neither a cpio archive nor compressed")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(str(path), limit="is not a list of modules: not UTF-8 text") from None
