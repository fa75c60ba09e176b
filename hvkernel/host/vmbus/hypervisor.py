"""What the VMBus server needs of the hypervisor under it: message and event connections, the SynIC, the findings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from hvkernel.machine import Machine

__all__ = ["Accepts", "Hypervisor", "Ports", "Synic"]


class Ports(Protocol):
    """The connection table that HvPostMessage and HvSignalEvent look up (TLFS 11.6: ports and connections)."""

    def connect_message(self, connection_id: int, fn: Callable[[int, int, bytes], int]) -> None:
        """Let ``fn(vp, message_type, payload) -> HV_STATUS`` answer HvPostMessage to ``connection_id``."""
        ...

    def connect_event(self, connection_id: int, fn: Callable[[int], None]) -> None:
        """Let ``fn(flag)`` run for HvSignalEvent to ``connection_id``."""
        ...

    def decline(self, connection_id: int, fn: Callable[[], None]) -> None:
        """Let messages to ``connection_id`` get HV_STATUS_INVALID_CONNECTION_ID as a matter of course, and tell
        ``fn``."""
        ...

    def disconnect(self, connection_id: int) -> None:
        """Forget a connection: later hypercalls get HV_STATUS_INVALID_CONNECTION_ID."""
        ...


class Synic(Protocol):
    """The synthetic interrupt controllers of all VPs."""

    def post_message(self, vp: int, sint: int, message_type: int, port_id: int, payload: bytes) -> int:
        """Put a message into the slot of ``sint``, or queue it until the guest has emptied the slot."""
        ...

    def signal_event(self, vp: int, sint: int, flag: int) -> bool:
        """Set an event flag and interrupt; false when the SINT cannot take it."""
        ...


class Accepts(Protocol):
    """What a host profile says of the bus (``hvkernel.config``: HostProfile.vmbus)."""

    @property
    def versions(self) -> Sequence[int]:
        """Protocol versions that INITIATE_CONTACT may ask for, ``major << 16 | minor``."""
        ...

    @property
    def message_connection_4(self) -> bool:
        """Whether connection 4 exists."""
        ...

    @property
    def features(self) -> int:
        """Feature flags of version 6.0 that the host has, as far as the server knows them."""
        ...

    @property
    def gpadl_total_mb(self) -> int:
        """What all GPADLs of the guest together may hold, in MiB."""
        ...


class Hypervisor(Protocol):
    """The partition, as far as the VMBus server uses it."""

    @property
    def machine(self) -> Machine: ...

    @property
    def ports(self) -> Ports: ...

    @property
    def synic(self) -> Synic: ...

    def record(self, kind: str, text: str) -> None:
        """Add a finding of the host's side."""
        ...
