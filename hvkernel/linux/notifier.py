"""notifier.h: chains of callbacks with priorities."""

from __future__ import annotations

from typing import Any

from hvkernel.api.guest.device import NOTIFY_DONE, NOTIFY_STOP_MASK, NotifierBlock
from hvkernel.api.guest.errno import EEXIST, ENOENT


class NotifierChain:
    """One chain. Source: kernel/notifier.c:notifier_chain_register, notifier_call_chain."""

    __slots__ = ("_blocks", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self._blocks: list[NotifierBlock] = []

    def register(self, nb: NotifierBlock) -> int:
        """Add by priority, after the equal ones; -EEXIST (and a WARN in the kernel) when it is there already."""
        if nb in self._blocks:
            return -EEXIST
        at = next((i for i, other in enumerate(self._blocks) if nb.priority > other.priority), len(self._blocks))
        self._blocks.insert(at, nb)
        return 0

    def unregister(self, nb: NotifierBlock) -> int:
        """Take it out; -ENOENT when it is not there."""
        if nb not in self._blocks:
            return -ENOENT
        self._blocks.remove(nb)
        return 0

    def call_chain(self, action: int, data: Any = None) -> int:
        """Call them in order until one answers with NOTIFY_STOP_MASK; the last answer."""
        ret = NOTIFY_DONE
        for nb in tuple(self._blocks):
            if nb not in self._blocks:
                continue
            answer = nb.call(action, data)
            ret = NOTIFY_DONE if answer is None else answer
            if ret & NOTIFY_STOP_MASK:
                break
        return ret

    def __len__(self) -> int:
        return len(self._blocks)


class Notifiers:
    """The kernel's well-known chains."""

    __slots__ = ("die_chain", "memory_chain", "panic_notifier_list", "reboot_notifier_list")

    def __init__(self) -> None:
        self.panic_notifier_list = NotifierChain("panic_notifier_list")
        self.die_chain = NotifierChain("die_chain")
        self.reboot_notifier_list = NotifierChain("reboot_notifier_list")
        self.memory_chain = NotifierChain("memory_chain")

    def chain(self, name: str) -> NotifierChain:
        """A new chain of the caller's own."""
        return NotifierChain(name)
