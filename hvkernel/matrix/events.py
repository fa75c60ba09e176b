"""What can happen to a guest that is up. Each event ends with the guest as it was.

An event yields what went wrong in it; what is left behind is for the invariants to see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from hvkernel.abi.vmbus import VERSION_WIN8, VERSION_WIN10_V4_1, VmbusChannelState
from hvkernel.api.guest.errno import EBUSY, EIO
from hvkernel.api.guest.hyperv import HvTimer
from hvkernel.hv import vmbus_drv
from hvkernel.linux.scsi_disk import ScsiDisk
from hvkernel.matrix.evidence import vmbus_of

if TYPE_CHECKING:
    from hvkernel.api.guest.device import Device
    from hvkernel.api.guest.hyperv import HvDriver
    from hvkernel.matrix.run import GuestRun

__all__ = ["EVENTS", "Event", "bound_devices", "unload"]

Event = Callable[["GuestRun"], Iterator[str]]

PASSING_CPUS: Final = 3
"""Processors that go offline and come back in one event, at most: the second and the last ones."""

SUBCHANNELS: Final = 2
"""How many sub-channels a host offers unasked."""

VMBUS_MODULE: Final = "hv_vmbus"


def bound_devices(run: GuestRun) -> list[tuple[Any, Any]]:
    """Return (driver, device) of all VMBus devices that have a driver, in the order of their binding."""
    bus = run.session.kernel.driver.buses.get("vmbus")
    return [(driver, device) for driver in (bus.drivers if bus is not None else ()) for device in driver.devices]


def rescind(run: GuestRun) -> Iterator[str]:
    """The host takes every device away and offers it again, one after the other.

    Before, user space has set the disks' ``cache_type`` to ``temporary write through`` (drivers/scsi/sd.c:
    cache_type_store): 6.1 never lets go of a rescinded controller whose disk has a write cache, because the flush at
    the end is refused and never answered (storvsc_drv.c: storvsc_queuecommand).
    """
    session = run.session
    for disk in session.kernel.block.disks:
        if isinstance(disk.driver, ScsiDisk):
            disk.driver.wce = False
    for status in session.server.status():
        if status.relid:
            session.server.reoffer(status.name)
            run.settle()
    yield from ()


def rebind(run: GuestRun) -> Iterator[str]:
    """User space takes each device from its driver and gives it back (``unbind`` and ``bind`` of sysfs)."""
    core = run.session.kernel.driver
    pairs: list[tuple[HvDriver, Device]] = bound_devices(run)
    for _, device in reversed(pairs):
        run.call(core.device_release_driver, device)
    for driver, device in pairs:
        ret = run.call(core.device_driver_attach, driver, device)
        if ret:
            yield f"{driver.name} took {device.name} once and then did not: {ret}"


def reload(run: GuestRun) -> Iterator[str]:
    """User space unloads what is a module, drivers first and hv_vmbus last, and loads it again.

    hv_vmbus stays where stimer0 interrupts directly: 6.1 stops the processors' timers with it and never lets another
    clock event take over, so that nothing would wake up any more (drivers/clocksource/hyperv_timer.c:
    hv_stimer_global_cleanup, and hv_stimer_cleanup, which unbinds the device only where it does not).
    """
    gone = unload(run, keep_bus=_clock_is_direct(run))
    module = run.session.kernel.module
    for name in reversed(gone):
        ret = run.call(module.request_module, name)
        if ret:
            yield f"module {name} was loaded once and then was not: {ret}"


def _clock_is_direct(run: GuestRun) -> bool:
    try:
        timer: Any = run.session.kernel.symbol(HvTimer)
    except LookupError:
        return False
    return bool(timer.direct_mode_enabled)


def unload(run: GuestRun, *, keep_bus: bool = False) -> list[str]:
    """Unload drivers of VMBus devices that are modules, then hv_vmbus; returns their names in that order.

    That a module is in use, as hv_storvsc is by whoever has mounted its disk, is not modelled.
    """
    kernel = run.session.kernel
    module = kernel.module
    loaded = tuple(reversed(module.loaded_order))
    gone = []
    for name in loaded:
        aliases = module.modules[name].obj.aliases
        wanted = not keep_bus if name == VMBUS_MODULE else any(alias.startswith("vmbus:") for alias in aliases)
        if wanted and not module.modules[name].refs and run.call(module.delete_module, name) == 0:
            gone.append(name)
            run.settle()
    return gone


def cpu_hotplug(run: GuestRun) -> Iterator[str]:
    """Some processors go offline, and come back. One that a channel interrupts stays (hv_synic_cleanup: -EBUSY)."""
    kernel = run.session.kernel
    online = tuple(kernel.cpus.for_each_online_cpu())
    passing = online[1:] if len(online) <= PASSING_CPUS + 1 else (online[1], *online[1 - PASSING_CPUS :])
    for cpu in passing:
        ret = run.call(kernel.cpuhp.cpu_down, cpu)
        if ret not in (0, -EBUSY):
            yield f"CPU {cpu} did not go offline: {ret}"
        if ret == 0:
            ret = run.call(kernel.cpuhp.cpu_up, cpu)
            if ret:
                yield f"CPU {cpu} went offline and did not come back: {ret}"
    if tuple(kernel.cpus.for_each_online_cpu()) != online:
        yield f"{len(online)} CPUs were online, now {kernel.cpus.num_online_cpus()} are"


def retarget(run: GuestRun) -> Iterator[str]:
    """User space moves the interrupt of each open channel to the next processor (``channels/<relid>/cpu``)."""
    vmbus = vmbus_of(run.session)
    if vmbus is None:
        return
    online = tuple(run.session.kernel.cpus.for_each_online_cpu())
    for channel in vmbus.connection.channels or ():
        if channel is None or channel.state != VmbusChannelState.CHANNEL_OPENED_STATE:
            continue
        cpu = online[(online.index(channel.target_cpu) + 1) % len(online)]
        ret = run.call(vmbus_drv.target_cpu_store, vmbus, channel, cpu)
        expected = 0 if vmbus.vmbus_proto_version >= VERSION_WIN10_V4_1 else -EIO
        if ret != expected:
            yield f"channel {channel.offermsg.child_relid}: moving it to CPU {cpu} returned {ret}, not {expected}"
        elif ret == 0 and channel.target_cpu != cpu:
            yield f"channel {channel.offermsg.child_relid} was moved to CPU {cpu} and is on {channel.target_cpu}"


def subchannels(run: GuestRun) -> Iterator[str]:
    """The host offers more sub-channels of each device that has a driver, unasked."""
    session = run.session
    if (session.server.bus.version or 0) < VERSION_WIN8:
        return
    names = {str(status.instance_guid): status.name for status in session.server.status()}
    for _, device in bound_devices(run):
        session.server.offer_subchannels(names[device.name], SUBCHANNELS)
        run.settle()
    yield from ()


def hibernate(run: GuestRun) -> Iterator[str]:
    """The guest stops its devices, takes leave of the host, makes its image, and goes on (kernel/power/hibernate.c)."""
    ret = run.call(run.session.kernel.power.create_image)
    if ret:
        yield f"hibernation was refused: {ret}"


EVENTS: Final[Mapping[str, Event]] = MappingProxyType(
    {
        "rescind": rescind,
        "rebind": rebind,
        "reload": reload,
        "cpu-hotplug": cpu_hotplug,
        "retarget": retarget,
        "subchannels": subchannels,
        "hibernate": hibernate,
    }
)
"""By the name that a plan and the axis ``events`` call them."""
