"""ioport.h: the tree of memory resources. Source: kernel/resource.c."""

from __future__ import annotations

from hvkernel.api.guest.device import IORESOURCE_BUSY, IORESOURCE_MEM, Resource


class IoResources:
    """``kernel.ioport``."""

    def __init__(self) -> None:
        self.iomem_resource = Resource(0, (1 << 64) - 1, "PCI mem", IORESOURCE_MEM)

    def insert(self, parent: Resource, new: Resource) -> bool:
        """Add ``new`` below ``parent``; False when it leaves the parent or overlaps a child partly or wholly."""
        if new.start > new.end or new.start < parent.start or new.end > parent.end:
            return False
        at = len(parent.children)
        for i, child in enumerate(parent.children):
            if new.end < child.start:
                at = i
                break
            if new.start <= child.end:
                return False
        new.parent = parent
        parent.children.insert(at, new)
        return True

    def request_region(self, parent: Resource, start: int, size: int, name: str) -> Resource | None:
        """Reserve ``size`` bytes at ``start``, descending into free children that hold the range; None when busy."""
        if size <= 0:
            return None
        end = start + size - 1
        while True:
            holder = next((c for c in parent.children if c.start <= start and end <= c.end), None)
            if holder is None or holder.flags & IORESOURCE_BUSY:
                break
            parent = holder
        new = Resource(start, end, name, IORESOURCE_MEM | IORESOURCE_BUSY)
        return new if self.insert(parent, new) else None

    def release_region(self, parent: Resource, start: int, size: int) -> None:
        """Give a requested region back. :raises ValueError: when there is no such busy region."""
        end = start + size - 1
        level: Resource | None = parent
        while level is not None:
            for i, child in enumerate(level.children):
                if child.start == start and child.end == end and child.flags & IORESOURCE_BUSY:
                    del level.children[i]
                    child.parent = None
                    return
            level = next((c for c in level.children if c.start <= start and end <= c.end), None)
        raise ValueError(f"Trying to free nonexistent resource <{start:016x}-{end:016x}>")
