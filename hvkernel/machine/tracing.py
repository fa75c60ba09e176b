"""What may watch a machine: the tracepoints of the guest, and what crosses a VMBus channel.

A tracer sees and changes nothing: it takes no virtual time, draws no random number and is no preemption point, so a
traced run and an untraced one are the same run. Only numbers and bytes are handed to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

__all__ = ["Tracer"]


class Tracer(Protocol):
    """The watcher of one machine (:attr:`hvkernel.machine.Machine.tracer`). Times are in 100 ns units."""

    def tracepoint(
        self, t: int, cpu: int, comm: str, system: str, name: str, fields: Mapping[str, int | str | bytes]
    ) -> None:
        """Take one event of the guest.

        :param cpu: the guest's number of the processor.
        :param comm: name of the task, or of the idle task where an interrupt came in.
        :param system: TRACE_SYSTEM of the kernel: ``hyperv``.
        :param fields: the fields of the event's TP_STRUCT__entry, under the kernel's names.
        """

    def message(self, t: int, vp: int, to_host: bool, data: bytes) -> None:
        """Take one channel message, header included, as it was posted.

        :param vp: VP index that posted it, or that it was posted to.
        """

    def packet(self, t: int, vp: int, relid: int, to_host: bool, data: bytes) -> None:
        """Take one packet of a ring as it was published: descriptor, payload and padding, without the trailer.

        :param vp: VP index that wrote it; for a packet to the guest, the one that the channel interrupts.
        """
