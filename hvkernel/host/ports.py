"""Connections: where HvPostMessage and HvSignalEvent of the guest end up.

A connection id leads to one port of the parent partition, of either kind (TLFS, "Ports and Connections"). The VMBus
server connects its ports here. Ids are 24 bits; the upper 8 are reserved (include/linux/hyperv.h: hv_connection_id).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hvkernel.host.status import HvStatus

__all__ = ["EventPort", "MessagePort", "Ports"]

MessagePort = Callable[[int, int, bytes], int]
"""``fn(vp, message_type, payload) -> HV_STATUS``."""
EventPort = Callable[[int], None]
"""``fn(flag)``."""
_SUCCESS: Final = int(HvStatus.SUCCESS)


class Ports:
    """The partition's connections."""

    __slots__ = ("_declined", "_events", "_flags", "_messages", "_was_declined")

    def __init__(self) -> None:
        self._messages: dict[int, MessagePort] = {}
        self._events: dict[int, EventPort] = {}
        self._flags: dict[int, int] = {}
        self._declined: dict[int, Callable[[], None]] = {}
        self._was_declined = False

    def __len__(self) -> int:
        return len(self._messages) + len(self._events)

    def connect_message(self, connection_id: int, fn: MessagePort) -> None:
        """Let messages to ``connection_id`` end at ``fn``, whose HV_STATUS the hypercall returns.

        :raises ValueError: the id is taken, or not a 24-bit number above zero.
        """
        self._take(connection_id)
        self._messages[connection_id] = fn

    def connect_event(self, connection_id: int, fn: EventPort, flags: int = 2048) -> None:
        """Let events to ``connection_id`` end at ``fn``.

        :param flags: number of event flags of the port; a flag beyond is HV_STATUS_INVALID_PARAMETER.
        :raises ValueError: the id is taken, or not a 24-bit number above zero.
        """
        self._take(connection_id)
        self._events[connection_id] = fn
        self._flags[connection_id] = flags

    def decline(self, connection_id: int, fn: Callable[[], None]) -> None:
        """Let messages to ``connection_id`` get HV_STATUS_INVALID_CONNECTION_ID as a matter of course.

        A guest tries the connection to find out whether the host has it, which is no mistake and no finding.

        :param fn: called for each such message.
        :raises ValueError: the id is taken, or not a 24-bit number above zero.
        """
        self._take(connection_id)
        self._declined[connection_id] = fn

    def take_declined(self) -> bool:
        """Whether the last message was one of those; asking forgets it."""
        declined, self._was_declined = self._was_declined, False
        return declined

    def disconnect(self, connection_id: int) -> None:
        """Drop a connection; unknown ids are ignored."""
        self._messages.pop(connection_id, None)
        self._events.pop(connection_id, None)
        self._flags.pop(connection_id, None)
        self._declined.pop(connection_id, None)

    def _take(self, connection_id: int) -> None:
        if connection_id <= 0 or connection_id & ~0xFF_FFFF:
            raise ValueError(f"connection id {connection_id:#x}: must be 1 to 0xffffff")
        if connection_id in self._messages or connection_id in self._events or connection_id in self._declined:
            raise ValueError(f"connection id {connection_id:#x}: already connected")

    def post(self, vp: int, connection_id: int, message_type: int, payload: bytes) -> int:
        """Post a message of the guest and return the HV_STATUS."""
        fn = self._messages.get(connection_id)
        if fn is None:
            declined = self._declined.get(connection_id)
            if declined is not None:
                self._was_declined = True
                declined()
            return self._miss(connection_id)
        return fn(vp, message_type, payload)

    def signal(self, connection_id: int, flag: int) -> int:
        """Signal an event of the guest and return the HV_STATUS."""
        fn = self._events.get(connection_id)
        if fn is None:
            return self._miss(connection_id)
        if flag >= self._flags[connection_id]:
            return HvStatus.INVALID_PARAMETER
        fn(flag)
        return _SUCCESS

    def _miss(self, connection_id: int) -> int:
        # A connection of the other kind exists but leads to the wrong kind of port (TLFS, HvCallPostMessage).
        if connection_id in self._messages or connection_id in self._events:
            return HvStatus.INVALID_PORT_ID
        return HvStatus.INVALID_CONNECTION_ID
