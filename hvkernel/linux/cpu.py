"""One possible CPU: the per-CPU fields that the core itself keeps."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from hvkernel.api.guest.errno import ENODEV

if TYPE_CHECKING:
    from hvkernel.machine import VirtualProcessor


class Cpu:
    """Hangs on its processor (``vp.guest``), so that the running CPU is found without a search."""

    __slots__ = (
        "_vp", "call_queue", "cpu", "held", "hp_thread", "hw_id", "ksoftirqd", "node", "online", "preempt_count",
        "softirq_pending", "state", "stopped", "tasklets", "tick", "timers",
    )  # fmt: skip

    def __init__(self, cpu: int, hw_id: int, node: int, vp: VirtualProcessor | None) -> None:
        self.cpu = cpu
        self.hw_id = hw_id
        self.node = node
        self._vp = vp
        self.online = False
        self.stopped = False
        self.preempt_count = 0
        self.softirq_pending = 0
        self.tasklets: deque[Any] = deque()
        self.call_queue: deque[Any] = deque()
        self.held: list[Any] = []
        """Spinlocks held, with the interrupt level they were taken at."""
        self.timers: list[Any] = []
        """Heap of pending timers."""
        self.tick: Any = None
        """The clock event device in use."""
        self.ksoftirqd: Any = None
        self.hp_thread: Any = None
        self.state = 0
        """The last cpuhp state it has reached."""

    @property
    def exists(self) -> bool:
        """False when the firmware tables name it and the machine has no such processor."""
        return self._vp is not None

    @property
    def vp(self) -> VirtualProcessor:
        """The processor. :raises OSError: ENODEV, when there is none."""
        if self._vp is None:
            raise OSError(ENODEV, f"CPU {self.cpu} (hardware id {self.hw_id:#x}) is in the MADT but not in the machine")
        return self._vp

    def __repr__(self) -> str:
        return f"<Cpu {self.cpu} hw_id {self.hw_id:#x} node {self.node}{'' if self.online else ', offline'}>"
