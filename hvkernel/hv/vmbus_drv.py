"""``drivers/hv/vmbus_drv.c``: the VMBus as a Linux bus, its ACPI device, start and end of the module."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from hvkernel.abi.vmbus import (
    VERSION_WIN10_V4_1,
)
from hvkernel.api.guest.device import NOTIFY_DONE, AcpiDriver, BusType, Device, DeviceDriver, NotifierBlock
from hvkernel.api.guest.errno import EEXIST, EINVAL, EIO, ENODEV
from hvkernel.api.guest.hyperv import HvDevice, HvDriver, HvVmbusDeviceId
from hvkernel.api.guest.smp import CpuhpState
from hvkernel.hv import channel as channel_c
from hvkernel.hv import channel_cpus, channel_mgmt, mmio, sysfs, vmbus_isr, vmbus_pm
from hvkernel.hv import connection as connection_c
from hvkernel.hv import hv as hv_c
from hvkernel.hv.channel_state import State as ChannelState

if TYPE_CHECKING:
    from hvkernel.api.guest.device import AcpiDevice
    from hvkernel.api.guest.hyperv import VmbusChannel
    from hvkernel.hv.hyperv_vmbus import HvVmbus

INT_MIN: Final = -(1 << 31)
VMBUS_ACPI_IDS: Final = ("VMBUS", "VMBus")


# the bus -------------------------------------------------------------------------------------------------------


def hv_vmbus_get_id(drv: HvDriver, dev: HvDevice) -> HvVmbusDeviceId | None:
    """Return the id that makes ``drv`` fit ``dev``: dynamic ids first; a matching driver_override always fits."""
    if dev.driver_override is not None and dev.driver_override != drv.name:
        return None
    for table in (drv.dynids, drv.id_table):
        for one in table:
            if one.guid == dev.dev_type:
                return one
    return HvVmbusDeviceId(bytes(16)) if dev.driver_override is not None else None


def vmbus_match(dev: Device, driver: DeviceDriver) -> bool:
    """Say whether a driver takes a device; hv_sock's takes all hv_sock offers and nothing else."""
    assert isinstance(dev, HvDevice)
    assert isinstance(driver, HvDriver)
    if channel_mgmt.is_hvsock_channel(dev.channel):
        return driver.hvsock
    return hv_vmbus_get_id(driver, dev) is not None


def vmbus_probe(v: HvVmbus, dev: HvDevice) -> int:
    """Run the bound driver's probe; 0 or its negative errno."""
    drv = dev.driver
    assert isinstance(drv, HvDriver)
    if drv.probe is None:
        v.pr.pr_err(f"probe not set for driver {dev.name}")
        return -ENODEV
    dev_id = hv_vmbus_get_id(drv, dev)
    ret = drv.probe(dev, dev_id or HvVmbusDeviceId(bytes(16)))
    if ret:
        v.pr.pr_err(f"probe failed for device {dev.name} ({ret})")
    return ret


def vmbus_remove(dev: HvDevice) -> None:
    """Let the bound driver give the device up."""
    drv = dev.driver
    if isinstance(drv, HvDriver) and drv.remove is not None:
        drv.remove(dev)


def vmbus_shutdown(dev: HvDevice) -> None:
    """Tell the bound driver that the machine goes down."""
    drv = dev.driver
    if isinstance(drv, HvDriver) and drv.shutdown is not None:
        drv.shutdown(dev)


def vmbus_uevent(dev: HvDevice, env: dict[str, str]) -> int:
    """Add the alias that user space loads a driver by."""
    env["MODALIAS"] = dev.modalias
    return 0


def vmbus_device_release(v: HvVmbus, dev: HvDevice) -> None:
    """Last reference gone: forget the channel too."""
    if v.debug is not None:
        v.debug.hv_debug_rm_dev_dir(dev)
    with v.connection.chn_mutex():
        channel_mgmt.hv_process_channel_removal(v, dev.channel)


def make_bus(v: HvVmbus) -> BusType:
    """Make this guest's ``struct bus_type``."""
    return BusType(
        "vmbus",
        match=vmbus_match,
        probe=lambda dev: vmbus_probe(v, dev),
        remove=vmbus_remove,
        shutdown=vmbus_shutdown,
        uevent=vmbus_uevent,
        bus_groups=sysfs.bus_groups(v),
        dev_groups=sysfs.device_groups(v),
        drv_groups=sysfs.driver_groups(v),
        dev_kobjects=lambda dev: sysfs.device_kobjects(v, dev),
        pm=vmbus_pm.vmbus_pm(),
    )


def vmbus_device_create(channel: VmbusChannel) -> HvDevice:
    """Make the device of a primary channel."""
    return HvDevice(channel.offermsg.if_type, channel.offermsg.if_instance, channel)


def vmbus_device_register(v: HvVmbus, dev: HvDevice) -> int:
    """Put a device on the bus, which starts the search for its driver; 0 or a negative errno."""
    dev.bus = v.hv_bus
    dev.parent = v.hv_acpi_parent
    dev.release = lambda device: vmbus_device_release(v, device)
    dev.node = v.cpus.cpu_to_node(dev.channel.target_cpu)
    ret = v.kernel.driver.device_register(dev)
    if ret:
        v.pr.pr_err("Unable to register child device")
        # put_device(): nobody rescinded the channel, so its removal is a BUG.
        vmbus_device_release(v, dev)
        return ret
    dev.channels_kset = []
    ret = vmbus_add_channel_kobj(v, dev, dev.channel)
    if v.debug is not None:
        v.debug.hv_debug_add_dev_dir(dev)
    return ret


def vmbus_device_unregister(v: HvVmbus, dev: HvDevice) -> None:
    """Take a device off the bus; its driver's remove runs and its channel goes."""
    v.pr.pr_debug(f"child device {dev.name} unregistered")
    dev.channels_kset = None
    v.kernel.driver.device_unregister(dev)


def vmbus_add_channel_kobj(v: HvVmbus, dev: HvDevice, channel: VmbusChannel) -> int:
    """Show a channel in its device's ``channels`` directory, under its relid: 0, or -EEXIST if that is there."""
    if dev.channels_kset is None:
        return 0
    relid = channel.offermsg.child_relid
    if any(other.offermsg.child_relid == relid for other in dev.channels_kset):
        driver = v.kernel.driver
        driver.duplicate(f"/{driver.dev_path(dev)}/channels/{relid}", str(relid))
        return -EEXIST
    dev.channels_kset.append(channel)
    return 0


def vmbus_driver_register(v: HvVmbus, drv: HvDriver, owner: str) -> int:
    """Register a driver; -ENODEV when there is no VMBus. The line is printed either way."""
    v.pr.pr_info(f"registering driver {drv.name}")
    if v.hv_acpi_dev is None:
        return -ENODEV
    drv.owner = owner
    drv.bus = v.hv_bus
    drv.dynids.clear()
    return v.kernel.driver.driver_register(drv)


def vmbus_driver_unregister(v: HvVmbus, drv: HvDriver) -> None:
    """Unregister a driver; its devices lose it."""
    v.pr.pr_info(f"unregistering driver {drv.name}")
    if v.hv_acpi_dev is not None:
        v.kernel.driver.driver_unregister(drv)
        drv.dynids.clear()


# the interrupt of a channel ------------------------------------------------------------------------------------


def target_cpu_store(v: HvVmbus, channel: VmbusChannel, target_cpu: int) -> int:
    """Move an open channel's interrupt to another online CPU (sysfs ``channels/<relid>/cpu``); 0 or -EIO, -EINVAL."""
    if v.vmbus_proto_version < VERSION_WIN10_V4_1:
        return -EIO
    if target_cpu >= v.cpus.nr_cpu_ids:
        return -EINVAL
    cpuhp = v.kernel.cpuhp
    cpuhp.cpus_read_lock()
    try:
        if not v.cpus.cpu_online(target_cpu):
            return -EINVAL
        with v.connection.chn_mutex():
            if channel.state != ChannelState.CHANNEL_OPENED_STATE:
                return -EIO
            origin_cpu = channel.target_cpu
            if target_cpu == origin_cpu:
                return 0
            vp = v.hv_common.hv_cpu_number_to_vp_number(target_cpu)
            if channel_c.vmbus_send_modifychannel(v, channel, vp):
                return -EIO
            channel.target_cpu = target_cpu
            if channel_cpus.hv_is_perf_channel(channel):
                channel_cpus.hv_update_allocated_cpus(v, origin_cpu, target_cpu)
            if channel.change_target_cpu_callback is not None:
                channel.change_target_cpu_callback(channel, origin_cpu, target_cpu)
            return 0
    finally:
        cpuhp.cpus_read_unlock()


# start and end -------------------------------------------------------------------------------------------------


def vmbus_bus_init(v: HvVmbus) -> int:
    """Start the bus: interrupt, SynIC on every CPU, connection, offers; 0 or a negative errno with all undone."""
    ret = hv_c.hv_init(v)
    if ret:
        v.pr.pr_err(f"Unable to initialize the hypervisor - 0x{ret:x}")
        return ret
    v.make_rings(partial(channel_c.vmbus_setevent, v))
    v.hv_bus = make_bus(v)
    ret = v.kernel.driver.bus_register(v.hv_bus)
    if ret:
        return ret
    if v.vmbus_irq == -1:
        v.arch.hv_setup_vmbus_handler(partial(vmbus_isr.vmbus_isr, v))
    else:
        v.vmbus_evt = v.percpu.alloc_percpu(lambda cpu: 0)
        ret = v.kernel.irq.request_percpu_irq(
            v.vmbus_irq, lambda irq, dev: vmbus_isr.vmbus_isr(v), "Hyper-V VMbus", v.vmbus_evt
        )
        if ret:
            v.pr.pr_err(f"Can't request Hyper-V VMbus IRQ {v.vmbus_irq}, Err {ret}")
            v.kernel.driver.bus_unregister(v.hv_bus)
            return ret
    ret = hv_c.hv_synic_alloc(v)
    if ret == 0:
        ret = v.kernel.cpuhp.cpuhp_setup_state(
            CpuhpState.CPUHP_AP_ONLINE_DYN,
            "hyperv/vmbus:online",
            lambda cpu: hv_c.hv_synic_init(v, cpu),
            lambda cpu: hv_c.hv_synic_cleanup(v, cpu),
        )
        if ret >= 0:
            v.hyperv_cpuhp_online = ret
            ret = connection_c.vmbus_connect(v)
            if ret == 0:
                v.panic_block = NotifierBlock(lambda action, data: hv_panic_vmbus_unload(v), INT_MIN + 1)
                v.kernel.notifier.panic_notifier_list.register(v.panic_block)
                channel_mgmt.vmbus_request_offers(v)
                return 0
            v.kernel.cpuhp.cpuhp_remove_state(v.hyperv_cpuhp_online)
    hv_c.hv_synic_free(v)
    _remove_interrupt(v)
    v.kernel.driver.bus_unregister(v.hv_bus)
    return ret


def _remove_interrupt(v: HvVmbus) -> None:
    if v.vmbus_irq == -1:
        v.arch.hv_remove_vmbus_handler()
    else:
        v.kernel.irq.free_percpu_irq(v.vmbus_irq)


def hv_panic_vmbus_unload(v: HvVmbus) -> int:
    """Panic notifier, almost the last: leave the host in order."""
    channel_mgmt.vmbus_initiate_unload(v, True)
    return NOTIFY_DONE


def vmbus_acpi_add(v: HvVmbus, device: AcpiDevice) -> int:
    """Read the VMBus device of the ACPI namespace: its interrupt, and an ancestor's MMIO windows; 0."""
    v.hv_acpi_dev = device
    v.hv_acpi_parent = device if isinstance(device, Device) else None
    if v.kernel.release.has("vmbus_coherence") and v.arch.acpi_cca_required and device.cca is None:
        v.pr.pr_info("No ACPI _CCA found; assuming coherent device I/O")
    mmio.vmbus_walk_resources(v, device)
    ancestor = device.parent
    while ancestor is not None:
        mmio.vmbus_walk_resources(v, ancestor)
        if v.hyperv_mmio:
            mmio.vmbus_reserve_fb(v)
            break
        ancestor = ancestor.parent
    return 0


def vmbus_acpi_remove(v: HvVmbus) -> None:
    """Give the framebuffer's range and the windows back: the module goes, or could not start."""
    if v.hyperv_mmio and v.fb_mmio is not None:
        fb = v.fb_mmio
        v.kernel.ioport.release_region(v.hyperv_mmio[0], fb.start, fb.end - fb.start + 1)
        v.fb_mmio = None
    v.hyperv_mmio.clear()


def hv_kexec_handler(v: HvVmbus) -> None:
    """Before a new kernel: stop the timers, unload, take every CPU's SynIC pages back."""
    if v.hv_timer is not None:
        v.hv_timer.hv_stimer_global_cleanup()
    channel_mgmt.vmbus_initiate_unload(v, False)
    v.kernel.cpuhp.cpuhp_remove_state(v.hyperv_cpuhp_online)


def hv_crash_handler(v: HvVmbus) -> None:
    """Before a crash kernel: as :func:`hv_kexec_handler`, but for the panicking CPU only."""
    channel_mgmt.vmbus_initiate_unload(v, True)
    cpu = v.cpus.smp_processor_id()
    if v.hv_timer is not None:
        v.hv_timer.hv_stimer_cleanup(cpu)
    hv_c.hv_synic_disable_regs(v, cpu)


def hv_acpi_init(v: HvVmbus) -> int:
    """Initcall of ``hv_vmbus``: 0, or -ENODEV away from Hyper-V or without a VMBus device."""
    if not v.arch.hv_is_hyperv_initialized():
        return -ENODEV
    v.max_version = v.kernel.cmdline.integer("hv_vmbus.max_version", v.max_version) & 0xFFFF_FFFF
    v.acpi_driver = AcpiDriver(
        "vmbus",
        VMBUS_ACPI_IDS,
        lambda device: vmbus_acpi_add(v, device),
        remove=lambda device: vmbus_acpi_remove(v),
        pm=vmbus_pm.vmbus_bus_pm(v),
    )
    ret = v.kernel.acpi.acpi_bus_register_driver(v.acpi_driver)
    if ret:
        return ret
    if v.hv_acpi_dev is None:
        ret = -ENODEV
    else:
        vector = v.arch.hypervisor_callback_vector
        if vector is not None:
            v.vmbus_interrupt = vector
            v.vmbus_irq = -1
        if v.debug is not None:
            v.debug.hv_debug_init()
        ret = vmbus_bus_init(v)
    if ret:
        v.kernel.acpi.acpi_bus_unregister_driver(v.acpi_driver)
        v.hv_acpi_dev = None
        return ret
    v.arch.hv_setup_kexec_handler(lambda: hv_kexec_handler(v))
    v.arch.hv_setup_crash_handler(lambda: hv_crash_handler(v))
    v.hv_synic_syscore_ops = v.kernel.power.register_syscore_ops(
        lambda: vmbus_pm.hv_synic_suspend(v), lambda: vmbus_pm.hv_synic_resume(v)
    )
    return 0


def vmbus_exit(v: HvVmbus) -> None:
    """Module exit: everything :func:`hv_acpi_init` did, undone."""
    v.kernel.power.unregister_syscore_ops(v.hv_synic_syscore_ops)
    v.arch.hv_remove_kexec_handler()
    v.arch.hv_remove_crash_handler()
    if v.hv_timer is not None:
        v.hv_timer.hv_stimer_global_cleanup()
    connection_c.vmbus_disconnect(v)
    _remove_interrupt(v)
    contexts = v.cpu_context
    for cpu in v.cpus.for_each_online_cpu():
        dpc = contexts[cpu].msg_dpc
        if dpc is not None:
            v.softirq.tasklet_kill(dpc)
    if v.debug is not None:
        v.debug.hv_debug_rm_all_dir()
    channel_mgmt.vmbus_free_channels(v)
    v.connection.channels = None
    if v.panic_block is not None:
        v.kernel.notifier.panic_notifier_list.unregister(v.panic_block)
    if v.hv_bus is not None:
        v.kernel.driver.bus_unregister(v.hv_bus)
    v.kernel.cpuhp.cpuhp_remove_state(v.hyperv_cpuhp_online)
    hv_c.hv_synic_free(v)
    if v.acpi_driver is not None:
        v.kernel.acpi.acpi_bus_unregister_driver(v.acpi_driver)
