"""The attributes of ``drivers/hv/vmbus_drv.c``: of the bus, its drivers, its devices and their channels.

One table per directory; the manual prints them. Functions take the VMBus, then the object whose file it is, and for a
store the bytes written. A show returns the file's text or a negative errno, a store 0 or one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from hvkernel.abi.monitor import HvMonitorPage
from hvkernel.api.guest.errno import EEXIST, EINVAL, EIO, ENODEV
from hvkernel.api.guest.hyperv import HvDevice, HvDriver, HvVmbusDeviceId, VmbusChannel, pUl
from hvkernel.api.guest.sysfs import Attribute, AttributeGroup, Kobject
from hvkernel.hv.channel import TRIGGER_GROUP
from hvkernel.hv.hyperv_vmbus import as_int
from hvkernel.hv.ring_info import (
    INTERRUPT_MASK,
    HvRingBufferDebugInfo,
    hv_get_bytes_to_read,
    hv_get_bytes_to_write,
)

if TYPE_CHECKING:
    from hvkernel.api.guest.device import BusType
    from hvkernel.hv.hyperv_vmbus import HvVmbus
    from hvkernel.hv.ring_buffer import HvRingBufferInfo

__all__ = [
    "BUS_ATTRS",
    "CHANNEL_ATTRS",
    "DEVICE_ATTRS",
    "DRIVER_ATTRS",
    "bus_groups",
    "device_groups",
    "device_kobjects",
    "driver_groups",
]

LATENCY: Final = HvMonitorPage.offset_of("latency")
PARAMETER: Final = HvMonitorPage.offset_of("parameter")
ACPI_STATE_S4: Final = 4
"""include/acpi/actypes.h."""
SERVER: Final = 0
CLIENT: Final = 1
"""Which monitor page: the host's bits, the guest's."""
GUID: Final = re.compile(rb"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
UNSIGNED: Final = re.compile(rb"[ \t\n\v\f\r]*([0-9]+)")
MONITOR_DEVICE_ATTRS: Final = frozenset(
    ["monitor_id"]
    + [f"{side}_monitor_{what}" for side in ("server", "client") for what in ("pending", "latency", "conn_id")]
)
"""Hidden from a device whose offer has no monitor (vmbus_dev_attr_is_visible)."""
MONITOR_CHANNEL_ATTRS: Final = frozenset(["pending", "latency", "monitor_id"])
"""Hidden from such a channel (vmbus_chan_attr_is_visible)."""


# monitor pages -------------------------------------------------------------------------------------------------


def _monitor_id(channel: VmbusChannel) -> int:
    """The id as the kernel's u8 takes it."""
    return channel.offermsg.monitorid & 0xFF


def channel_pending(v: HvVmbus, channel: VmbusChannel, which: int) -> int:
    """Return the pending word of the channel's group in a monitor page."""
    page = v.connection.monitor_pages[which]
    return v.memory.load32(page.gpa + TRIGGER_GROUP + 8 * (_monitor_id(channel) // 32)) if page is not None else 0


def channel_latency(v: HvVmbus, channel: VmbusChannel, which: int) -> int:
    """Return the latency, in 100 ns units, that the host chose for the channel."""
    page = v.connection.monitor_pages[which]
    return v.memory.load16(page.gpa + LATENCY + 2 * _monitor_id(channel)) if page is not None else 0


def channel_conn_id(v: HvVmbus, channel: VmbusChannel, which: int) -> int:
    """Return the connection id that the monitor signals for the channel."""
    page = v.connection.monitor_pages[which]
    return v.memory.load32(page.gpa + PARAMETER + 8 * _monitor_id(channel)) & 0xFFFFFF if page is not None else 0


# the bus -------------------------------------------------------------------------------------------------------


def hibernation_show(v: HvVmbus, bus: BusType) -> str:
    """Whether the host offers hibernation (ACPI S4) to this guest."""
    return f"{int(v.kernel.acpi.acpi_sleep_state_supported(ACPI_STATE_S4))}\n"


# drivers -------------------------------------------------------------------------------------------------------


def guid_parse(buf: bytes) -> bytes | int:
    """Return the ``guid_t`` at the start of a text, or -EINVAL; what follows is ignored. Source: lib/uuid.c."""
    found = GUID.match(buf)
    if found is None:
        return -EINVAL
    raw = bytes.fromhex(found[0].replace(b"-", b"").decode())
    return raw[3::-1] + raw[5:3:-1] + raw[7:5:-1] + raw[8:]


def new_id_store(v: HvVmbus, drv: HvDriver, buf: bytes) -> int:
    """Let the driver take one more class of devices, and offer it those that are there; -EEXIST for one it was given
    before, -EINVAL for what is no GUID."""
    guid = guid_parse(buf)
    if isinstance(guid, int):
        return guid
    if any(one.guid == guid for one in drv.dynids):
        return -EEXIST
    drv.dynids.append(HvVmbusDeviceId(guid))
    return v.kernel.driver.driver_attach(drv)


def remove_id_store(v: HvVmbus, drv: HvDriver, buf: bytes) -> int:
    """Take a class back that ``new_id`` gave; bound devices stay bound. -ENODEV for any other."""
    guid = guid_parse(buf)
    if isinstance(guid, int):
        return guid
    for one in drv.dynids:
        if one.guid == guid:
            drv.dynids.remove(one)
            return 0
    return -ENODEV


# devices -------------------------------------------------------------------------------------------------------


def id_show(v: HvVmbus, dev: HvDevice) -> str:
    """Relid of the primary channel."""
    return f"{as_int(dev.channel.offermsg.child_relid)}\n"


def state_show(v: HvVmbus, dev: HvDevice) -> str:
    """State of the primary channel, as ``enum vmbus_channel_state`` counts: 3 is open."""
    return f"{int(dev.channel.state)}\n"


def monitor_id_show(v: HvVmbus, dev: HvDevice) -> str:
    """Bit of the monitor page that signals the device."""
    return f"{dev.channel.offermsg.monitorid}\n"


def class_id_show(v: HvVmbus, dev: HvDevice) -> str:
    """Class GUID."""
    return f"{{{pUl(dev.channel.offermsg.if_type)}}}\n"


def device_id_show(v: HvVmbus, dev: HvDevice) -> str:
    """Instance GUID."""
    return f"{{{pUl(dev.channel.offermsg.if_instance)}}}\n"


def modalias_show(v: HvVmbus, dev: HvDevice) -> str:
    """What user space finds the driver's module by: the class GUID's bytes."""
    return f"{dev.modalias}\n"


def numa_node_show(v: HvVmbus, dev: HvDevice) -> str:
    """NUMA node of the primary channel's CPU. CONFIG_NUMA only."""
    return f"{v.cpus.cpu_to_node(dev.channel.target_cpu)}\n"


def server_monitor_pending_show(v: HvVmbus, dev: HvDevice) -> str:
    """Pending bits of the device's trigger group, host's page."""
    return f"{as_int(channel_pending(v, dev.channel, SERVER))}\n"


def client_monitor_pending_show(v: HvVmbus, dev: HvDevice) -> str:
    """Pending bits of the device's trigger group, guest's page."""
    return f"{as_int(channel_pending(v, dev.channel, CLIENT))}\n"


def server_monitor_latency_show(v: HvVmbus, dev: HvDevice) -> str:
    """Latency in 100 ns units, host's page."""
    return f"{channel_latency(v, dev.channel, SERVER)}\n"


def client_monitor_latency_show(v: HvVmbus, dev: HvDevice) -> str:
    """Latency in 100 ns units, guest's page: how late the host may look."""
    return f"{channel_latency(v, dev.channel, CLIENT)}\n"


def server_monitor_conn_id_show(v: HvVmbus, dev: HvDevice) -> str:
    """Connection id of the monitor's parameter, host's page."""
    return f"{channel_conn_id(v, dev.channel, SERVER)}\n"


def client_monitor_conn_id_show(v: HvVmbus, dev: HvDevice) -> str:
    """Connection id of the monitor's parameter, guest's page."""
    return f"{channel_conn_id(v, dev.channel, CLIENT)}\n"


def _debuginfo(v: HvVmbus, ring: HvRingBufferInfo, field: str) -> str | int:
    info = v.rings.hv_ringbuffer_get_debuginfo(ring)
    return f"{as_int(getattr(info, field))}\n" if isinstance(info, HvRingBufferDebugInfo) else info


def out_intr_mask_show(v: HvVmbus, dev: HvDevice) -> str | int:
    """Interrupt mask of the outbound ring: 1 while the host wants no signal."""
    return _debuginfo(v, dev.channel.outbound, "current_interrupt_mask")


def out_read_index_show(v: HvVmbus, dev: HvDevice) -> str | int:
    """Read index of the outbound ring, bytes."""
    return _debuginfo(v, dev.channel.outbound, "current_read_index")


def out_write_index_show(v: HvVmbus, dev: HvDevice) -> str | int:
    """Write index of the outbound ring, bytes."""
    return _debuginfo(v, dev.channel.outbound, "current_write_index")


def out_read_bytes_avail_show(v: HvVmbus, dev: HvDevice) -> str | int:
    """Bytes in the outbound ring."""
    return _debuginfo(v, dev.channel.outbound, "bytes_avail_toread")


def out_write_bytes_avail_show(v: HvVmbus, dev: HvDevice) -> str | int:
    """Bytes free in the outbound ring."""
    return _debuginfo(v, dev.channel.outbound, "bytes_avail_towrite")


def in_intr_mask_show(v: HvVmbus, dev: HvDevice) -> str | int:
    """Interrupt mask of the inbound ring: 1 while the guest wants no signal."""
    return _debuginfo(v, dev.channel.inbound, "current_interrupt_mask")


def in_read_index_show(v: HvVmbus, dev: HvDevice) -> str | int:
    """Read index of the inbound ring, bytes."""
    return _debuginfo(v, dev.channel.inbound, "current_read_index")


def in_write_index_show(v: HvVmbus, dev: HvDevice) -> str | int:
    """Write index of the inbound ring, bytes."""
    return _debuginfo(v, dev.channel.inbound, "current_write_index")


def in_read_bytes_avail_show(v: HvVmbus, dev: HvDevice) -> str | int:
    """Bytes in the inbound ring."""
    return _debuginfo(v, dev.channel.inbound, "bytes_avail_toread")


def in_write_bytes_avail_show(v: HvVmbus, dev: HvDevice) -> str | int:
    """Bytes free in the inbound ring."""
    return _debuginfo(v, dev.channel.inbound, "bytes_avail_towrite")


def channel_vp_mapping_show(v: HvVmbus, dev: HvDevice) -> str:
    """Relid and CPU of the primary channel, then of each sub-channel; cut at one byte less than a page."""
    with v.connection.chn_mutex():
        channels = (dev.channel, *dev.channel.sc_list)
        text = "".join(f"{one.offermsg.child_relid}:{one.target_cpu}\n" for one in channels)
    return text[: v.PAGE_SIZE - 1]


def vendor_show(v: HvVmbus, dev: HvDevice) -> str:
    """Vendor, always Microsoft's PCI id."""
    return f"0x{dev.vendor_id:x}\n"


def device_show(v: HvVmbus, dev: HvDevice) -> str:
    """Device number, 0 unless a driver set it."""
    return f"0x{dev.device_id:x}\n"


def driver_override_show(v: HvVmbus, dev: HvDevice) -> str:
    """The only driver that may have the device, ``(null)`` for none in particular."""
    return f"{'(null)' if dev.driver_override is None else dev.driver_override}\n"


def driver_override_store(v: HvVmbus, dev: HvDevice, buf: bytes) -> int:
    """Set that driver; an empty line clears it. -EINVAL for a text of a page."""
    return v.kernel.driver.driver_set_override(dev, partial(setattr, dev, "driver_override"), buf)


# channels ------------------------------------------------------------------------------------------------------


def _ring(ring: HvRingBufferInfo, value: Callable[[HvRingBufferInfo], int]) -> str | int:
    """Return a value of the ring as text; -EINVAL while the channel has no ring."""
    assert ring.ring_buffer_mutex is not None
    with ring.ring_buffer_mutex:
        return -EINVAL if ring.ring_buffer is None else f"{value(ring)}\n"


def _interrupt_mask(ring: HvRingBufferInfo) -> int:
    ring.mapped(INTERRUPT_MASK)
    return ring.interrupt_mask.load()


def out_mask_show(v: HvVmbus, channel: VmbusChannel) -> str | int:
    """Interrupt mask of the outbound ring."""
    return _ring(channel.outbound, _interrupt_mask)


def in_mask_show(v: HvVmbus, channel: VmbusChannel) -> str | int:
    """Interrupt mask of the inbound ring."""
    return _ring(channel.inbound, _interrupt_mask)


def read_avail_show(v: HvVmbus, channel: VmbusChannel) -> str | int:
    """Bytes in the inbound ring."""
    return _ring(channel.inbound, hv_get_bytes_to_read)


def write_avail_show(v: HvVmbus, channel: VmbusChannel) -> str | int:
    """Bytes free in the outbound ring."""
    return _ring(channel.outbound, hv_get_bytes_to_write)


def target_cpu_show(v: HvVmbus, channel: VmbusChannel) -> str:
    """The CPU that the channel's interrupts go to."""
    return f"{channel.target_cpu}\n"


def target_cpu_store(v: HvVmbus, channel: VmbusChannel, buf: bytes) -> int:
    """Send them to another CPU, which must be online (else -EINVAL), if channel and host allow it (else -EIO)."""
    from hvkernel.hv import vmbus_drv  # it imports this module for the bus's groups

    found = UNSIGNED.match(buf)
    return -EIO if found is None else vmbus_drv.target_cpu_store(v, channel, int(found[1]) & 0xFFFF_FFFF)


def channel_pending_show(v: HvVmbus, channel: VmbusChannel) -> str:
    """Pending bits of the channel's trigger group, guest's monitor page."""
    return f"{as_int(channel_pending(v, channel, CLIENT))}\n"


def channel_latency_show(v: HvVmbus, channel: VmbusChannel) -> str:
    """Latency in 100 ns units, guest's monitor page."""
    return f"{channel_latency(v, channel, CLIENT)}\n"


def channel_interrupts_show(v: HvVmbus, channel: VmbusChannel) -> str:
    """Interrupts from the host."""
    return f"{channel.interrupts}\n"


def channel_events_show(v: HvVmbus, channel: VmbusChannel) -> str:
    """Signals to the host."""
    return f"{channel.sig_events}\n"


def channel_intr_in_full_show(v: HvVmbus, channel: VmbusChannel) -> str:
    """Signals to the host because the inbound ring was full and is not any more."""
    return f"{channel.intr_in_full}\n"


def channel_intr_out_empty_show(v: HvVmbus, channel: VmbusChannel) -> str:
    """Signals to the host because the outbound ring was empty."""
    return f"{channel.intr_out_empty}\n"


def channel_out_full_first_show(v: HvVmbus, channel: VmbusChannel) -> str:
    """How often the outbound ring became full."""
    return f"{channel.out_full_first}\n"


def channel_out_full_total_show(v: HvVmbus, channel: VmbusChannel) -> str:
    """How many sends found the outbound ring full."""
    return f"{channel.out_full_total}\n"


def subchannel_monitor_id_show(v: HvVmbus, channel: VmbusChannel) -> str:
    """Bit of the monitor page that signals the channel."""
    return f"{channel.offermsg.monitorid}\n"


def subchannel_id_show(v: HvVmbus, channel: VmbusChannel) -> str:
    """Number among the device's sub-channels, 0 for the primary one."""
    return f"{channel.offermsg.sub_channel_index}\n"


# tables --------------------------------------------------------------------------------------------------------


def _row(name: str, mode: int, form: str, show: Any, store: Any = None) -> Attribute:
    functions = ", ".join(one.__name__ for one in (show, store) if one is not None)
    return Attribute(name, mode, show, store, form, f"drivers/hv/vmbus_drv.c:{functions}")


BUS_ATTRS: Final = (_row("hibernation", 0o444, "%d", hibernation_show),)
"""/sys/bus/vmbus/, beside those of every bus."""

DRIVER_ATTRS: Final = (
    _row("new_id", 0o200, "", None, new_id_store),
    _row("remove_id", 0o200, "", None, remove_id_store),
)
"""/sys/bus/vmbus/drivers/<driver>/, beside those of every driver."""

DEVICE_ATTRS: Final = (
    _row("id", 0o444, "%d", id_show),
    _row("state", 0o444, "%d", state_show),
    _row("monitor_id", 0o444, "%d", monitor_id_show),
    _row("class_id", 0o444, "{%pUl}", class_id_show),
    _row("device_id", 0o444, "{%pUl}", device_id_show),
    _row("modalias", 0o444, "vmbus:%*phN", modalias_show),
    _row("numa_node", 0o444, "%d", numa_node_show),
    _row("server_monitor_pending", 0o444, "%d", server_monitor_pending_show),
    _row("client_monitor_pending", 0o444, "%d", client_monitor_pending_show),
    _row("server_monitor_latency", 0o444, "%d", server_monitor_latency_show),
    _row("client_monitor_latency", 0o444, "%d", client_monitor_latency_show),
    _row("server_monitor_conn_id", 0o444, "%d", server_monitor_conn_id_show),
    _row("client_monitor_conn_id", 0o444, "%d", client_monitor_conn_id_show),
    _row("out_intr_mask", 0o444, "%d", out_intr_mask_show),
    _row("out_read_index", 0o444, "%d", out_read_index_show),
    _row("out_write_index", 0o444, "%d", out_write_index_show),
    _row("out_read_bytes_avail", 0o444, "%d", out_read_bytes_avail_show),
    _row("out_write_bytes_avail", 0o444, "%d", out_write_bytes_avail_show),
    _row("in_intr_mask", 0o444, "%d", in_intr_mask_show),
    _row("in_read_index", 0o444, "%d", in_read_index_show),
    _row("in_write_index", 0o444, "%d", in_write_index_show),
    _row("in_read_bytes_avail", 0o444, "%d", in_read_bytes_avail_show),
    _row("in_write_bytes_avail", 0o444, "%d", in_write_bytes_avail_show),
    _row("channel_vp_mapping", 0o444, "%u:%u", channel_vp_mapping_show),
    _row("vendor", 0o444, "0x%x", vendor_show),
    _row("device", 0o444, "0x%x", device_show),
    _row("driver_override", 0o644, "%s", driver_override_show, driver_override_store),
)
"""/sys/bus/vmbus/devices/<instance GUID>/, beside those of every device; the order of ``vmbus_dev_attrs``."""

CHANNEL_ATTRS: Final = (
    _row("out_mask", 0o444, "%u", out_mask_show),
    _row("in_mask", 0o444, "%u", in_mask_show),
    _row("read_avail", 0o444, "%u", read_avail_show),
    _row("write_avail", 0o444, "%u", write_avail_show),
    _row("cpu", 0o644, "%u", target_cpu_show, target_cpu_store),
    _row("pending", 0o444, "%d", channel_pending_show),
    _row("latency", 0o444, "%d", channel_latency_show),
    _row("interrupts", 0o444, "%llu", channel_interrupts_show),
    _row("events", 0o444, "%llu", channel_events_show),
    _row("intr_in_full", 0o444, "%llu", channel_intr_in_full_show),
    _row("intr_out_empty", 0o444, "%llu", channel_intr_out_empty_show),
    _row("out_full_first", 0o444, "%llu", channel_out_full_first_show),
    _row("out_full_total", 0o444, "%llu", channel_out_full_total_show),
    _row("monitor_id", 0o444, "%u", subchannel_monitor_id_show),
    _row("subchannel_id", 0o444, "%u", subchannel_id_show),
)
"""/sys/bus/vmbus/devices/<instance GUID>/channels/<relid>/; the order of ``vmbus_chan_attrs``."""


def vmbus_dev_attr_is_visible(dev: HvDevice, attr: Attribute) -> int:
    """Hide the monitor's attributes where no monitor is used."""
    hidden = attr.name in MONITOR_DEVICE_ATTRS and not dev.channel.offermsg.monitor_allocated
    return 0 if hidden else attr.mode


def vmbus_chan_attr_is_visible(channel: VmbusChannel, attr: Attribute) -> int:
    """Hide the monitor's attributes where no monitor is used."""
    hidden = attr.name in MONITOR_CHANNEL_ATTRS and not channel.offermsg.monitor_allocated
    return 0 if hidden else attr.mode


def bus_groups(v: HvVmbus) -> tuple[AttributeGroup, ...]:
    """``vmbus_bus_groups``."""
    return (AttributeGroup(BUS_ATTRS, arguments=(v,)),)


def driver_groups(v: HvVmbus) -> tuple[AttributeGroup, ...]:
    """``vmbus_drv_groups``."""
    return (AttributeGroup(DRIVER_ATTRS, arguments=(v,)),)


def device_groups(v: HvVmbus) -> tuple[AttributeGroup, ...]:
    """``vmbus_dev_groups``."""
    numa = v.kernel.config.y("NUMA")
    attrs = DEVICE_ATTRS if numa else tuple(attr for attr in DEVICE_ATTRS if attr.name != "numa_node")
    return (AttributeGroup(attrs, vmbus_dev_attr_is_visible, arguments=(v,)),)


def device_kobjects(v: HvVmbus, dev: HvDevice) -> Sequence[Kobject]:
    """The directory ``channels`` of a device, with one directory per channel that has one now."""
    if dev.channels_kset is None:
        return ()
    groups = (AttributeGroup(CHANNEL_ATTRS, vmbus_chan_attr_is_visible, arguments=(v,)),)
    channels = [Kobject(str(one.offermsg.child_relid), one, groups) for one in dev.channels_kset]
    return (Kobject("channels", children=channels),)
