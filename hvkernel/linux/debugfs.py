"""debugfs.h: directories and files that a driver makes for who debugs it, below /sys/kernel/debug."""

from __future__ import annotations

from typing import Any

from hvkernel.api.guest.errno import EEXIST, ENODEV
from hvkernel.api.guest.sysfs import Attribute, Dentry


class Debugfs:
    """``kernel.debugfs``. User space has mounted it, as systemd does."""

    def __init__(self, enabled: bool) -> None:
        """:param enabled: CONFIG_DEBUG_FS; without it every directory is -ENODEV (include/linux/debugfs.h)."""
        self.enabled = enabled
        self.root = Dentry("debug")

    def debugfs_create_dir(self, name: str, parent: Dentry | None) -> Dentry | int:
        """A new directory; -EEXIST for a name that is taken. Source: fs/debugfs/inode.c:debugfs_create_dir."""
        if not self.enabled:
            return -ENODEV
        where = self.root if parent is None else parent
        if name in where.directories or name in where.files:
            return -EEXIST
        made = Dentry(name, where)
        where.directories[name] = made
        return made

    def debugfs_create_file(self, attr: Attribute, parent: Dentry, data: Any) -> int:
        """A file with the functions of ``attr``; 0, or -EEXIST. Source: fs/debugfs/inode.c:debugfs_create_file."""
        if attr.name in parent.directories or attr.name in parent.files:
            return -EEXIST
        parent.files[attr.name] = (attr, data)
        return 0

    def debugfs_remove_recursive(self, dentry: Dentry | None) -> None:
        """Take a directory away with all that is in it; nothing for None."""
        if dentry is not None and dentry.parent is not None:
            dentry.parent.directories.pop(dentry.name, None)
            dentry.parent = None
