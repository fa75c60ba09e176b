"""Reading a ring whose host breaks the rules, without end.

6.1 believes a host's write index and replaces a length that cannot be by what is there. A reader that so steps over the
write index, or whose write index lies outside the ring, reads the ring's old bytes as packets, and nothing makes it
stop: ``foreach_vmbus_pkt`` goes round for ever in a tasklet, or ``vmbus_on_event`` runs a callback for ever that can
take nothing. The kernel says nothing about it but, after 20 seconds, that a CPU is stuck.

A model must end. It reads as the kernel does as long as that leads anywhere: the reader is at a place from which it has
stepped before, and the host has not moved the write index since, so the next round would be the last one again. Then
the reader sees no packet, and no bytes to come back for, until the host moves the write index. What the kernel would
have done more of is thus left out, never anything else.

A ring in order costs nothing of this: packets that end before the write index bring the reader nearer to it, so no walk
is kept while they do.
"""

from __future__ import annotations

__all__ = ["RingWalk"]


class RingWalk:
    """The places that a reader stepped from since the host last moved its write index."""

    __slots__ = ("_from", "_refused", "_returns", "_stopped", "_write_index")

    def __init__(self, write_index: int) -> None:
        self._restart(write_index)

    def _restart(self, write_index: int) -> None:
        self._write_index = write_index
        self._from: set[int] = set()
        self._stopped = False
        self._refused = -1
        self._returns = 0

    def step_from(self, index: int) -> None:
        """The reader steps on from private index *index*."""
        self._from.add(index)

    def repeats(self, index: int, write_index: int) -> bool:
        """Whether the reader stepped from *index* before, with nothing written since."""
        if write_index != self._write_index:
            self._restart(write_index)
        return index in self._from

    def stop(self, write_index: int) -> None:
        """The reader takes nothing more at this write index."""
        if write_index != self._write_index:
            self._restart(write_index)
        self._stopped = True

    def refuse(self, index: int) -> None:
        """A caller had too little room for the packet at *index*, which stays."""
        if index != self._refused:
            self._refused, self._returns = index, 0

    def stands_still(self, index: int, write_index: int) -> bool:
        """Whether to come back to the ring can show nothing new: it was stopped, or a caller that came back refused
        the same packet again."""
        if write_index != self._write_index:
            return False
        if self._stopped:
            return True
        if index != self._refused:
            return False
        self._returns += 1
        return self._returns > 1
