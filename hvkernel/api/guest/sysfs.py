"""sysfs.h, kobject.h, debugfs.h: the files through which a kernel shows itself.

Nothing is created when an object appears: an object has attributes, and the tree below /sys is what its objects say
when somebody looks (:class:`hvkernel.linux.sysfs.Sysfs`). So a kernel that nobody looks at pays nothing for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

__all__ = ["Attribute", "AttributeGroup", "Debugfs", "Dentry", "Kobject"]

Show = Callable[..., "str | int"]
Store = Callable[..., int]


@dataclass(frozen=True, slots=True)
class Attribute:
    """``struct attribute`` with its functions.

    ``show(object)`` returns the file's text, or a negative errno; ``store(object, bytes)`` 0 or a negative errno.
    """

    name: str
    mode: int
    """Permission bits."""
    show: Show | None = None
    store: Store | None = None
    format: str = ""
    """The text as a printf format, for the manual."""
    source: str = ""
    """Kernel file and function."""

    def bound(self, *first: Any) -> Attribute:
        """Return the same attribute with these first arguments given to both functions."""
        return replace(
            self,
            show=None if self.show is None else partial(self.show, *first),
            store=None if self.store is None else partial(self.store, *first),
        )


@dataclass(frozen=True, slots=True)
class AttributeGroup:
    """``struct attribute_group``; one without a name lies in the object's own directory."""

    attrs: tuple[Attribute, ...]
    is_visible: Callable[[Any, Attribute], int] | None = None
    """Mode of an attribute for an object; 0 hides it."""
    name: str = ""
    arguments: tuple[Any, ...] = ()
    """What the attributes' functions take before the object."""


@dataclass(frozen=True, slots=True)
class Kobject:
    """A directory below a device's that is no device: its attributes, for ``object``, and more of its kind."""

    name: str
    object: Any = None
    groups: tuple[AttributeGroup, ...] = ()
    children: Sequence[Kobject] = ()


class Dentry:
    """``struct dentry`` of a debugfs directory."""

    __slots__ = ("directories", "files", "name", "parent")

    def __init__(self, name: str, parent: Dentry | None = None) -> None:
        self.name = name
        self.parent = parent
        self.directories: dict[str, Dentry] = {}
        self.files: dict[str, tuple[Attribute, Any]] = {}
        """File name to the attribute and its object (``data``)."""


class Debugfs(Protocol):
    """``kernel.debugfs``: what lies below /sys/kernel/debug."""

    def debugfs_create_dir(self, name: str, parent: Dentry | None) -> Dentry | int:
        """A new directory, below the root for None; -EEXIST, or -ENODEV without CONFIG_DEBUG_FS."""
        ...

    def debugfs_create_file(self, attr: Attribute, parent: Dentry, data: Any) -> int:
        """A file of that name and mode; 0 or -EEXIST."""
        ...

    def debugfs_remove_recursive(self, dentry: Dentry | None) -> None: ...
