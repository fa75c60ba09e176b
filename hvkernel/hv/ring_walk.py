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

from collections.abc import Callable
from typing import TYPE_CHECKING

from hvkernel.hv.ring_info import DESC_SIZE, WRITE_INDEX, hv_pkt_iter_avail

if TYPE_CHECKING:
    from hvkernel.hv.ring_info import HvRingBufferInfo

__all__ = ["RingWalk", "comes_back_for_nothing", "end_of_walk", "refused", "tell", "walked_here_before"]

Finding = Callable[[str, str], object]


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


def tell(rbi: HvRingBufferInfo, finding: Finding, kind: str, text: str) -> None:
    """Make a finding about a ring, the first time."""
    if kind not in rbi.told:
        rbi.told |= {kind}
        finding(kind, text)


def walked_here_before(rbi: HvRingBufferInfo, write_loc: int, finding: Finding) -> bool:
    """Whether the iterator's walk can only repeat itself; then it ends, and a finding says so."""
    if rbi.walk is None:
        rbi.walk = RingWalk(write_loc)
    if not rbi.walk.repeats(rbi.priv_read_index, write_loc):
        return False
    tell(
        rbi,
        finding,
        "ring-loop",
        f"the guest reads the host's packets round and round: it is at {rbi.priv_read_index:#x} again and the host's "
        f"write_index is still {write_loc:#x}. Linux 6.1 would go on for ever; this guest waits for the next write",
    )
    rbi.walk.stop(write_loc)
    return True


def end_of_walk(rbi: HvRingBufferInfo, write_loc: int, left: int) -> None:
    """The iterator ends: in step with the host again, or before *left* bytes that are no packet."""
    if not left:
        rbi.walk = None
        return
    if rbi.walk is None:
        rbi.walk = RingWalk(write_loc)
    rbi.walk.stop(write_loc)


def refused(rbi: HvRingBufferInfo) -> None:
    """A caller had too little room for the packet where the iterator stands."""
    if rbi.walk is None:
        rbi.mapped(WRITE_INDEX)
        rbi.walk = RingWalk(rbi.write_index.load())
    rbi.walk.refuse(rbi.priv_read_index)


def comes_back_for_nothing(rbi: HvRingBufferInfo, left: int, finding: Finding) -> bool:
    """Whether whoever looks at the ring again for the *left* bytes finds what was there the last time.

    The kernel counts those bytes from the read index in shared memory and reads from its private one. Where the host
    wrote the former, the count never comes to 0.
    """
    walk, index = rbi.walk, rbi.priv_read_index
    nothing_to_take = hv_pkt_iter_avail(rbi) < DESC_SIZE
    if walk is None and not nothing_to_take:
        return False
    rbi.mapped(WRITE_INDEX)
    write_loc = rbi.write_index.load()
    stands_still = walk is not None and walk.stands_still(index, write_loc)
    if not stands_still and (not nothing_to_take or rbi.came_back_for != (index, write_loc)):
        rbi.came_back_for = (index, write_loc)
        return False
    tell(
        rbi,
        finding,
        "ring-stuck",
        f"the indices say that {left} bytes are in the host's ring; the guest stands at {index:#x}, the host's "
        f"write_index is {write_loc:#x}, and no driver takes them. Linux 6.1 would run the channel's callback for "
        "ever; this guest waits for the next write",
    )
    return True
