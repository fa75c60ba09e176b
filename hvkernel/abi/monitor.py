"""The monitor pages: notification without a hypercall.

A guest hands two to the host in INITIATE_CONTACT; the hypervisor polls the second one for the guest.
"""

from __future__ import annotations

from typing import Annotated

from hvkernel.abi.tlfs_hypercall import HvConnectionId
from hvkernel.abi.wire import Bits, Union, Wire, overlay, s32, u16, u32, u64, union, wire


@union(size=8, source="drivers/hv/hyperv_vmbus.h:37 @6.1.192", align=8)
class HvMonitorTriggerGroup(Union):
    """One group of 32 monitor bits."""

    __kernel__ = "hv_monitor_trigger_group"

    as_uint64: u64
    pending: u32
    armed: u32 = overlay(4)


@wire(size=8, source="drivers/hv/hyperv_vmbus.h:45 @6.1.192", packed=False)
class HvMonitorParameter(Wire):
    """Where the hypervisor signals when a monitor bit is found set."""

    __kernel__ = "hv_monitor_parameter"

    connectionid: HvConnectionId
    flagnumber: u16
    rsvdz: u16


@union(size=4, source="drivers/hv/hyperv_vmbus.h:51 @6.1.192", align=4)
class HvMonitorTriggerState(Union):
    """Which of the four groups are on."""

    __kernel__ = "hv_monitor_trigger_state"

    asu32: u32
    group_enable: Annotated[int, Bits(u32, 4)]
    rsvdz: Annotated[int, Bits(u32, 28)]


@wire(size=4096, source="drivers/hv/hyperv_vmbus.h:79 @6.1.192", packed=False)
class HvMonitorPage(Wire):
    """The monitor page: instead of a hypercall a bit is set here, and the hypervisor polls it."""

    __kernel__ = "hv_monitor_page"

    trigger_state: HvMonitorTriggerState
    rsvdz1: u32
    trigger_group: Annotated[tuple[HvMonitorTriggerGroup, ...], 4]
    rsvdz2: Annotated[tuple[int, ...], u64, 3]
    next_checktime: Annotated[tuple[int, ...], s32, 4, 32]
    """[group][bit], flattened: element group * 32 + bit."""
    latency: Annotated[tuple[int, ...], u16, 4, 32]
    """[group][bit]: how long a notification may wait; the unit is unspecified, taken as 100 ns like all TLFS times."""
    rsvdz3: Annotated[tuple[int, ...], u64, 32]
    parameter: Annotated[tuple[HvMonitorParameter, ...], 4, 32]
    """[group][bit]: what to signal."""
    rsvdz4: Annotated[bytes, 1984]
