"""The hypervisor: one :class:`Host` per machine, and the VMBus server on top of it."""

from __future__ import annotations

from hvkernel.host.firmware import ram_ranges
from hvkernel.host.partition import Host
from hvkernel.host.status import HvStatus

__all__ = ["Host", "HvStatus", "ram_ranges"]
