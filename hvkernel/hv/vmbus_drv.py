"""``drivers/hv/vmbus_drv.c``: the VMBus as a Linux bus, its interrupt, its ACPI device, start and end of the module."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from hvkernel.abi.tlfs import HV_EVENT_FLAGS_COUNT, HV_MESSAGE_PAYLOAD_BYTE_COUNT, HV_MESSAGE_SIZE, HvMessageType
from hvkernel.abi.vmbus import (
    MAX_NUM_CHANNELS_SUPPORTED,
    VERSION_WIN8,
    VERSION_WIN10_V4_1,
    VMBUS_MESSAGE_SINT,
    HvCallbackMode,
    VmbusChannelMessageType,
    VmbusConnectState,
)
from hvkernel.api.guest.device import NOTIFY_DONE, AcpiDriver, BusType, Device, DeviceDriver, NotifierBlock
from hvkernel.api.guest.hyperv import HvDevice, HvDriver, HvVmbusDeviceId
from hvkernel.api.guest.sched import Work
from hvkernel.api.guest.smp import CpuhpState
from hvkernel.hv import channel as channel_c
from hvkernel.hv import channel_mgmt, hv_trace, mmio, sysfs, vmbus_pm, warn
from hvkernel.hv import connection as connection_c
from hvkernel.hv import hv as hv_c
from hvkernel.hv.channel_state import State as ChannelState
from hvkernel.hv.errno import EEXIST, EINVAL, EIO, ENODEV
from hvkernel.hv.hyperv_vmbus import OnmessageWork, as_int

if TYPE_CHECKING:
    from hvkernel.api.guest.device import AcpiDevice
    from hvkernel.api.guest.hyperv import VmbusChannel
    from hvkernel.api.guest.sched import Workqueue
    from hvkernel.hv.hyperv_vmbus import HvPerCpuContext, HvVmbus

MESSAGE_HEADER: Final = struct.Struct("<IBBxxQ")
"""message_type, payload_size, message_flags, sender of ``struct hv_message_header``."""
MSG_PENDING_OFFSET: Final = 5
EVENT_FLAGS_BYTES: Final = HV_EVENT_FLAGS_COUNT // 8
CHANNELMSG_COUNT: Final = int(VmbusChannelMessageType.CHANNELMSG_COUNT)
OFFER: Final = int(VmbusChannelMessageType.CHANNELMSG_OFFERCHANNEL)
RESCIND: Final = int(VmbusChannelMessageType.CHANNELMSG_RESCIND_CHANNELOFFER)
HV_CALL_BATCHED: Final = HvCallbackMode.HV_CALL_BATCHED
HV_CALL_ISR: Final = HvCallbackMode.HV_CALL_ISR
HVMSG_NONE: Final = HvMessageType.HVMSG_NONE
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


# messages and interrupts ---------------------------------------------------------------------------------------


def vmbus_signal_eom(v: HvVmbus, slot: int, old_msg_type: int) -> None:
    """Free a message slot and, if more messages wait for it, say so to the hypervisor.

    :param slot: guest physical address of the message.
    :param old_msg_type: what the caller handled: a message that came into the slot since then is left alone.
    """
    if v.memory.cmpxchg32(slot, old_msg_type, HvMessageType.HVMSG_NONE) != old_msg_type:
        return
    if v.memory.load8(slot + MSG_PENDING_OFFSET) & 1:
        v.arch.hv_set_register(v.arch.regs.HV_REGISTER_EOM, 0)


def vmbus_onmessage_work(v: HvVmbus, context: OnmessageWork) -> None:
    """Handle a message in a worker, unless the connection is gone."""
    if v.connection.conn_state != VmbusConnectState.DISCONNECTED:
        channel_mgmt.vmbus_onmessage(v, context.msgtype, context.payload)


def vmbus_on_msg_dpc(v: HvVmbus, hv_cpu: HvPerCpuContext) -> None:
    """Tasklet of a CPU: take the message out of its slot and handle or queue it.

    The message is copied first: the slot is shared with the host. An unknown type, a payload of more than 240 bytes and
    a message shorter than its kind are dropped with a warning, each printed once.
    """
    assert hv_cpu.synic_message_page is not None
    slot = hv_cpu.synic_message_page.gpa + VMBUS_MESSAGE_SINT * HV_MESSAGE_SIZE
    copy = v.memory.read(slot, HV_MESSAGE_SIZE)
    message_type, payload_size, _, _ = MESSAGE_HEADER.unpack_from(copy)
    if message_type == HvMessageType.HVMSG_NONE:
        return
    if _dispatch(v, copy, payload_size):
        vmbus_signal_eom(v, slot, message_type)


def _dispatch(v: HvVmbus, copy: bytes, payload_size: int) -> bool:
    """Return False when the slot must stay as it is (never: the model's small allocations do not fail)."""
    msgtype = int.from_bytes(copy[16:20], "little")
    if v.machine.tracer is not None:
        hv_trace.trace_vmbus_on_msg_dpc(v, msgtype)
    if msgtype >= CHANNELMSG_COUNT:
        v.WARN_ONCE(warn.UNKNOWN_MSGTYPE, f"unknown msgtype={as_int(msgtype)}")
        return True
    if payload_size > HV_MESSAGE_PAYLOAD_BYTE_COUNT:
        v.WARN_ONCE(warn.PAYLOAD_SIZE, f"payload size is too large ({payload_size})")
        return True
    entry = channel_mgmt.channel_message_table.get(msgtype)
    if entry is None:
        return True
    if payload_size < entry.min_payload_len:
        v.WARN_ONCE(warn.TOO_SHORT, f"message too short: msgtype={msgtype} len={payload_size}")
        return True
    payload = copy[16 : 16 + payload_size]
    if not entry.blocking:
        entry.message_handler(v, payload)
        return True
    connection = v.connection
    if connection.ignore_any_offer_msg and msgtype in (OFFER, RESCIND):
        return True
    if msgtype == OFFER:
        connection.offer_in_progress += 1
    # Rescinds have a queue of their own: an offer's handler may wait for an answer that a rescind makes impossible.
    queue = connection.rescind_work_queue if msgtype == RESCIND else connection.work_queue
    assert queue is not None
    queue_message(v, queue, msgtype, payload)
    return True


def queue_message(v: HvVmbus, queue: Workqueue, msgtype: int, payload: bytes) -> None:
    """Have a worker of ``queue`` handle a message."""
    work = Work(lambda w: vmbus_onmessage_work(v, w.data))
    work.data = OnmessageWork(work, msgtype, payload)
    v.workqueue.queue_work(queue, work)


def vmbus_chan_sched(v: HvVmbus, flags_gpa: int, size: int) -> None:
    """Run or schedule the callbacks of all channels whose bit is set in the ``size`` bytes at ``flags_gpa``.

    They are the event flags of this CPU, or on hosts before Windows 8 the receive half of the interrupt page.
    """
    flags = int.from_bytes(v.memory.read(flags_gpa, size), "little")
    while flags:
        relid = (flags & -flags).bit_length() - 1
        flags &= flags - 1
        if not v.memory.sync_test_and_clear_bit(flags_gpa, relid) or relid == 0:
            continue
        channel = connection_c.relid2channel(v, relid)
        if channel is None or channel.rescind:
            continue
        with channel.sched_lock:
            callback = channel.onchannel_callback
            if callback is None:
                continue
            if v.machine.tracer is not None:
                hv_trace.trace_vmbus_chan_sched(v, channel)
            channel.interrupts += 1
            mode = channel.callback_mode
            if mode == HV_CALL_ISR:
                callback(channel.channel_callback_context)
                continue
            if mode == HV_CALL_BATCHED:
                v.rings().hv_begin_read(channel.inbound)
            v.softirq.tasklet_schedule(channel.callback_event)


def vmbus_isr(v: HvVmbus) -> None:
    """Interrupt of the VMBus SINT on this CPU: channel events first, then the message slot."""
    hv_cpu = v.percpu.this_cpu_ptr(v.contexts())
    assert hv_cpu.synic_event_page is not None
    assert hv_cpu.synic_message_page is not None
    event = hv_cpu.synic_event_page.gpa + VMBUS_MESSAGE_SINT * EVENT_FLAGS_BYTES
    page = v.connection.int_page
    if v.vmbus_proto_version >= VERSION_WIN8 or page is None or not v.kernel.release.has("vmbus_win7"):
        vmbus_chan_sched(v, event, EVENT_FLAGS_BYTES)
    elif v.memory.sync_test_and_clear_bit(event, 0):
        # Before Windows 8 flag 0 says that the interrupt page has bits (vmbus_isr of 5.15).
        vmbus_chan_sched(v, page.gpa, MAX_NUM_CHANNELS_SUPPORTED // 8)
    slot = hv_cpu.synic_message_page.gpa + VMBUS_MESSAGE_SINT * HV_MESSAGE_SIZE
    message_type = v.memory.load32(slot)
    if message_type == HVMSG_NONE:
        return
    if message_type == HvMessageType.HVMSG_TIMER_EXPIRED:
        if v.hv_timer is not None:
            v.hv_timer.hv_stimer0_isr()
        vmbus_signal_eom(v, slot, HvMessageType.HVMSG_TIMER_EXPIRED)
    else:
        assert hv_cpu.msg_dpc is not None
        v.softirq.tasklet_schedule(hv_cpu.msg_dpc)


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
            if channel_mgmt.hv_is_perf_channel(channel):
                channel_mgmt.hv_update_allocated_cpus(v, origin_cpu, target_cpu)
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
    v.make_rings(lambda channel: channel_c.vmbus_setevent(v, channel))
    v.hv_bus = make_bus(v)
    ret = v.kernel.driver.bus_register(v.hv_bus)
    if ret:
        return ret
    if v.vmbus_irq == -1:
        v.arch.hv_setup_vmbus_handler(lambda: vmbus_isr(v))
    else:
        v.vmbus_evt = v.percpu.alloc_percpu(lambda cpu: 0)
        ret = v.kernel.irq.request_percpu_irq(v.vmbus_irq, lambda irq, dev: vmbus_isr(v), "Hyper-V VMbus", v.vmbus_evt)
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
        "vmbus", VMBUS_ACPI_IDS, lambda device: vmbus_acpi_add(v, device), pm=vmbus_pm.vmbus_bus_pm(v)
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
    contexts = v.contexts()
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
