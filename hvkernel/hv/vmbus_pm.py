"""Hibernation in ``drivers/hv/vmbus_drv.c``: the bus and its devices before the image is made, and after.

Devices go first, each through its driver; then the bus forgets all relids and takes leave of the host. On the way back
the bus asks for the version that it had, the host offers everything again, offers are matched by instance, and only
then the devices resume. All of it runs in the noirq phases; suspend-to-idle leaves the VMBus alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hvkernel.abi.vmbus import (
    INVALID_RELID,
    VMBUS_CONNECT_CPU,
    VmbusChannelMessageType,
    VmbusChannelRescindOffer,
)
from hvkernel.api.guest.device import DevPmOps
from hvkernel.api.guest.errno import EBUSY, EINVAL, EOPNOTSUPP
from hvkernel.api.guest.hyperv import HvDriver
from hvkernel.hv import channel_mgmt, vmbus_isr, warn
from hvkernel.hv import connection as connection_c
from hvkernel.hv import hv as hv_c
from hvkernel.hv.connection_state import Event

if TYPE_CHECKING:
    from hvkernel.api.guest.hyperv import HvDevice, VmbusChannel
    from hvkernel.hv.hyperv_vmbus import HvVmbus

__all__ = [
    "hv_synic_resume",
    "hv_synic_suspend",
    "resume_connection",
    "vmbus_bus_pm",
    "vmbus_bus_resume",
    "vmbus_bus_suspend",
    "vmbus_pm",
    "vmbus_resume",
    "vmbus_suspend",
]

RESUME_SECONDS: Final = 10
"""How long the bus waits for its devices to be offered again."""


def vmbus_suspend(dev: HvDevice) -> int:
    """Let the bound driver stop its device: 0, -EOPNOTSUPP if it cannot, or its errno."""
    drv = dev.driver
    if not isinstance(drv, HvDriver):
        return 0
    return drv.suspend(dev) if drv.suspend is not None else -EOPNOTSUPP


def vmbus_resume(dev: HvDevice) -> int:
    """Let the bound driver start its device again: 0, -EOPNOTSUPP if it cannot, or its errno."""
    drv = dev.driver
    if not isinstance(drv, HvDriver):
        return 0
    return drv.resume(dev) if drv.resume is not None else -EOPNOTSUPP


def vmbus_pm() -> DevPmOps:
    """The callbacks of the bus type."""
    return DevPmOps(
        freeze_noirq=vmbus_suspend, thaw_noirq=vmbus_resume, poweroff_noirq=vmbus_suspend, restore_noirq=vmbus_resume
    )


def vmbus_bus_pm(v: HvVmbus) -> DevPmOps:
    """The callbacks of the ACPI driver, which stands for the bus itself."""

    def suspend(dev: Any) -> int:
        return vmbus_bus_suspend(v)

    def resume(dev: Any) -> int:
        return vmbus_bus_resume(v)

    return DevPmOps(freeze_noirq=suspend, thaw_noirq=resume, poweroff_noirq=suspend, restore_noirq=resume)


def vmbus_force_channel_rescinded(v: HvVmbus, channel: VmbusChannel) -> None:
    """Rescind an hv_sock channel in the host's name: its connection cannot outlive the host's end."""
    if not channel_mgmt.is_hvsock_channel(channel):
        v.WARN_ON(warn.FORCED_NO_HVSOCK)
    rescind = VmbusChannelRescindOffer(
        header=connection_c.header(VmbusChannelMessageType.CHANNELMSG_RESCIND_CHANNELOFFER),
        child_relid=channel.offermsg.child_relid,
    )
    assert v.connection.work_queue is not None
    vmbus_isr.queue_message(
        v,
        v.connection.work_queue,
        VmbusChannelMessageType.CHANNELMSG_RESCIND_CHANNELOFFER,
        rescind.pack(),
    )


def vmbus_bus_suspend(v: HvVmbus) -> int:
    """Clean up what does not survive, forget all relids and unload: 0, or -EBUSY after a resume that failed."""
    connection = v.connection
    dpc = v.cpu_context[VMBUS_CONNECT_CPU].msg_dpc
    assert dpc is not None
    v.softirq.tasklet_disable(dpc)
    connection.ignore_any_offer_msg = True
    v.softirq.tasklet_enable(dpc)
    for queue in (
        connection.rescind_work_queue,
        connection.work_queue,
        connection.handle_primary_chan_wq,
        connection.handle_sub_chan_wq,
    ):
        assert queue is not None
        v.workqueue.drain_workqueue(queue)
    with connection.chn_mutex():
        for channel in connection.chn_list:
            if channel_mgmt.is_hvsock_channel(channel):
                vmbus_force_channel_rescinded(v, channel)
    if connection.nr_chan_close_on_suspend > 0:
        v.sched.wait_for_completion(connection.ready_for_suspend_event)
    if connection.nr_chan_fixup_on_resume != 0:
        v.pr.pr_err("Can not suspend due to a previous failed resuming")
        return -EBUSY
    with connection.chn_mutex():
        for channel in connection.chn_list:
            _forget_relid(v, channel)
    channel_mgmt.vmbus_initiate_unload(v, False)
    v.sched.reinit_completion(connection.ready_for_resume_event)
    return 0


def _forget_relid(v: HvVmbus, channel: VmbusChannel) -> None:
    channel_mgmt.vmbus_channel_unmap_relid(v, channel)
    channel.offermsg.child_relid = INVALID_RELID
    if channel_mgmt.is_hvsock_channel(channel):
        if not channel.rescind:
            v.pr.pr_err("hv_sock channel not rescinded!")
            v.WARN_ONCE(warn.HVSOCK_NOT_RESCINDED)
        return
    for _ in channel.sc_list:
        v.pr.pr_err("Sub-channel not deleted!")
        v.WARN_ONCE(warn.SUB_CHANNEL_LEFT)
    v.connection.nr_chan_fixup_on_resume += 1


def resume_connection(v: HvVmbus) -> int:
    """Ask the host for the version in use before: 0, -ECONNREFUSED or a posting error."""
    connection_c.set_state(v, Event.RESUME)
    return connection_c.vmbus_negotiate_version(v, v.vmbus_proto_version)


def vmbus_bus_resume(v: HvVmbus) -> int:
    """Connect again and wait until every device from before was offered; a missing one is only reported.

    :return: 0, -EINVAL without a version, -ECONNREFUSED if this host does not speak it, or a posting error.
    """
    connection = v.connection
    connection.ignore_any_offer_msg = False
    if not v.vmbus_proto_version:
        v.pr.pr_err(f"Invalid proto version = 0x{v.vmbus_proto_version:x}")
        return -EINVAL
    ret = resume_connection(v)
    if ret:
        return ret
    if connection.nr_chan_fixup_on_resume == 0:
        v.WARN_ON(warn.NOTHING_TO_RESUME)
    channel_mgmt.vmbus_request_offers(v)
    timeout = RESUME_SECONDS * v.kernel.timers.HZ
    if v.sched.wait_for_completion_timeout(connection.ready_for_resume_event, timeout) == 0:
        v.pr.pr_err("Some vmbus device is missing after suspending?")
    v.sched.reinit_completion(connection.ready_for_suspend_event)
    return 0


def hv_synic_suspend(v: HvVmbus) -> int:
    """Syscore callback on CPU 0, interrupts off: take its SynIC back; 0."""
    hv_c.hv_synic_disable_regs(v, 0)
    return 0


def hv_synic_resume(v: HvVmbus) -> None:
    """Syscore callback on CPU 0, interrupts off: give its SynIC the same pages again."""
    hv_c.hv_synic_enable_regs(v, 0)
