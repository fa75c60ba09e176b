"""The device attributes of ``drivers/hv/vmbus_drv.c``, as files below ``/sys/bus/vmbus/devices/<instance>``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from hvkernel.api.guest.hyperv import HvDevice, pUl
from hvkernel.hv.hyperv_vmbus import as_int
from hvkernel.hv.ring_buffer import HvRingBufferDebugInfo

if TYPE_CHECKING:
    from hvkernel.hv.hyperv_vmbus import HvVmbus

__all__ = ["device_attributes"]

TRIGGER_GROUP: Final = 8
LATENCY: Final = 0x240
PARAMETER: Final = 0x440
"""Offsets in ``struct hv_monitor_page`` (drivers/hv/hyperv_vmbus.h)."""
RING_FILES: Final = (
    ("intr_mask", "current_interrupt_mask"),
    ("read_index", "current_read_index"),
    ("write_index", "current_write_index"),
    ("read_bytes_avail", "bytes_avail_toread"),
    ("write_bytes_avail", "bytes_avail_towrite"),
)


def channel_pending(v: HvVmbus, dev: HvDevice, which: int) -> int:
    """Return the pending word of the device's group in monitor page 0 (host's) or 1 (guest's)."""
    page = v.connection.monitor_pages[which]
    return v.memory.load32(page.gpa + TRIGGER_GROUP + 8 * dev.channel.monitor_grp) if page is not None else 0


def channel_latency(v: HvVmbus, dev: HvDevice, which: int) -> int:
    """Return the latency, in 100 ns units, that the host chose for the device."""
    page = v.connection.monitor_pages[which]
    return v.memory.load16(page.gpa + LATENCY + 2 * dev.channel.offermsg.monitorid) if page is not None else 0


def channel_conn_id(v: HvVmbus, dev: HvDevice, which: int) -> int:
    """Return the connection id that the monitor signals for the device."""
    page = v.connection.monitor_pages[which]
    return v.memory.load32(page.gpa + PARAMETER + 8 * dev.channel.offermsg.monitorid) & 0xFFFFFF if page else 0


def channel_vp_mapping(dev: HvDevice) -> str:
    """Return ``relid:cpu`` of the primary channel and then of each sub-channel, a line each."""
    channels = [dev.channel, *dev.channel.sc_list]
    return "".join(f"{one.offermsg.child_relid}:{one.target_cpu}\n" for one in channels)


def _monitor(v: HvVmbus, read: Callable[[HvVmbus, HvDevice, int], int], which: int) -> Callable[[Any], str]:
    return lambda dev: f"{read(v, dev, which)}\n"


def _ring(v: HvVmbus, which: str, field: str) -> Callable[[Any], str | int]:
    def show(dev: HvDevice) -> str | int:
        info = v.rings().hv_ringbuffer_get_debuginfo(getattr(dev.channel, which))
        return f"{getattr(info, field)}\n" if isinstance(info, HvRingBufferDebugInfo) else info

    return show


def device_attributes(v: HvVmbus) -> Mapping[str, Callable[[Any], str | int]]:
    """Return file name to show function; a negative number is the errno that reading gives."""
    show: dict[str, Callable[[Any], str | int]] = {
        "id": lambda dev: f"{as_int(dev.channel.offermsg.child_relid)}\n",
        "state": lambda dev: f"{int(dev.channel.state)}\n",
        "monitor_id": lambda dev: f"{dev.channel.offermsg.monitorid}\n",
        "class_id": lambda dev: f"{{{pUl(dev.channel.offermsg.if_type)}}}\n",
        "device_id": lambda dev: f"{{{pUl(dev.channel.offermsg.if_instance)}}}\n",
        "modalias": lambda dev: f"{dev.modalias}\n",
    }
    if v.kernel.config.y("NUMA"):
        show["numa_node"] = lambda dev: f"{v.cpus.cpu_to_node(dev.channel.target_cpu)}\n"
    for which, side in enumerate(("server", "client")):
        show[f"{side}_monitor_pending"] = _monitor(v, channel_pending, which)
        show[f"{side}_monitor_latency"] = _monitor(v, channel_latency, which)
        show[f"{side}_monitor_conn_id"] = _monitor(v, channel_conn_id, which)
    for name, field in RING_FILES:
        show[f"out_{name}"] = _ring(v, "outbound", field)
        show[f"in_{name}"] = _ring(v, "inbound", field)
    show["channel_vp_mapping"] = channel_vp_mapping
    show["vendor"] = lambda dev: f"0x{dev.vendor_id:x}\n"
    show["device"] = lambda dev: f"0x{dev.device_id:x}\n"
    show["driver_override"] = lambda dev: f"{dev.driver_override or '(null)'}\n"
    return MappingProxyType(show)
