"""The host's side of the VMBus: a server that offers devices, and the devices' channels.

========================  =============================================================================
``server``                the guest's messages in their order, the connection's steps, the host's own events
``contact`` ``handlers``  what a guest is told about its version; what each other message does
``tables``                the state machines, and nothing else
``offers`` ``devices``    what is offered, and who makes it
``gpadl`` ``buffers``     guest memory that the guest lends
``channel`` ``worker``    an open channel: rings, packets, its host task
``ring`` ``packets``      the host's own implementation of the ring and of packets
``monitor``               signals through a page; ``interrupts``: the page of guests before WS2012
``hypervisor``            what the server needs of the hypervisor
========================  =============================================================================
"""

from __future__ import annotations

from hvkernel.host.vmbus.devices import DeviceStatus, DeviceTable, SlotSpec, slots_of
from hvkernel.host.vmbus.server import VmbusServer

__all__ = ["DeviceStatus", "DeviceTable", "SlotSpec", "VmbusServer", "slots_of"]
