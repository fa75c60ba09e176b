"""The storage driver: drivers/scsi/storvsc_drv.c of Linux 6.1.192, module ``hv_storvsc``.

Start-up of a controller, sub-channels, probe and removal, and the receiving end of the channels are here; commands
are in
:mod:`hvkernel_storvsc.vsc_io`. Of Fibre Channel, the protocol and the limits are modelled, the FC transport class is
not.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from hvkernel.abi.guids import HV_IDE_GUID, HV_SCSI_GUID, HV_SYNTHFC_GUID
from hvkernel.abi.ring import (
    MAX_MULTIPAGE_BUFFER_PACKET,
    VMBUS_DATA_PACKET_FLAG_COMPLETION_REQUESTED,
    VmbusPacketType,
)
from hvkernel.abi.tlfs_features import HV_HYP_PAGE_SHIFT, HV_HYP_PAGE_SIZE
from hvkernel.api.guest.errno import EINVAL, ENODEV, ENOMEM, ETIMEDOUT
from hvkernel.api.guest.hyperv import (
    VMBUS_RQST_INIT,
    VMBUS_RQST_RESET,
    HvDevice,
    HvDriver,
    HvVmbusDeviceId,
    Vmbus,
    VmbusChannel,
    hv_get_drvdata,
    hv_set_drvdata,
)
from hvkernel.api.guest.kernel import Import, Kernel, KernelObject, ModuleParam
from hvkernel.api.guest.sched import Completion, Work
from hvkernel.api.guest.scsi import (
    BLIST_REPORTLUN2,
    BLIST_TRY_VPD_PAGES,
    FAILED,
    SUCCESS,
    Scsi,
    ScsiCmnd,
    ScsiDevice,
    ScsiHost,
    ScsiHostTemplate,
)

from . import vsc_io
from .vsc_io import (
    HvHostDevice,
    Ratelimit,
    StorvscCmdRequest,
    StorvscDevice,
    StorvscInitRequest,
    get_in_stor_device,
    get_out_stor_device,
)
from .wire import (
    CALLBACK_TIMEOUT,
    IDE_GUID,
    REQUEST_COMPLETION_FLAG,
    SCSI_GUID,
    SFC_GUID,
    STORAGE_CHANNEL_SUPPORTS_MULTI_CHANNEL,
    STORVSC_FC_MAX_CHANNELS,
    STORVSC_FC_MAX_LUNS_PER_TARGET,
    STORVSC_FC_MAX_TARGETS,
    STORVSC_FC_MAX_XFER_SIZE,
    STORVSC_IDE_MAX_CHANNELS,
    STORVSC_IDE_MAX_LUNS_PER_TARGET,
    STORVSC_IDE_MAX_TARGETS,
    STORVSC_LOGGING_ERROR,
    STORVSC_LOGGING_WARN,
    STORVSC_MAX_CHANNELS,
    STORVSC_MAX_CMD_LEN,
    STORVSC_MAX_LUNS_PER_TARGET,
    STORVSC_MAX_PKT_SIZE,
    STORVSC_MAX_TARGETS,
    STORVSC_SENSE_BUFFER_SIZE,
    VMSTOR_PROTO_VERSION_WIN6,
    VMSTOR_PROTO_VERSION_WIN7,
    VMSTOR_PROTO_VERSION_WIN8,
    VMSTOR_PROTO_VERSION_WIN8_1,
    VMSTOR_PROTO_VERSION_WIN10,
    HvFcWwnPacket,
    VmstorageChannelProperties,
    VmstorageProtocolVersion,
    VstorPacket,
)
from .wire import VstorPacketOperation as Op

SCSI_SPC_3: Final = 6
TIMEOUT_ERROR: Final = 0x2007
"""include/scsi/scsi.h."""

PROTOCOL_VERSIONS: Final = (VMSTOR_PROTO_VERSION_WIN10, VMSTOR_PROTO_VERSION_WIN8_1, VMSTOR_PROTO_VERSION_WIN8)
"""Versions in the order in which they are tried. Source: storvsc_drv.c protocol_version[]."""

PRE_WIN8_PROTOCOL_VERSIONS: Final = (VMSTOR_PROTO_VERSION_WIN7, VMSTOR_PROTO_VERSION_WIN6)
"""What kernels before 5.19 try after these (capability ``storvsc_win7``)."""

WIN8_EXTENSION_SIZE: Final = 16
"""Bytes at the end of the SRB that hosts before Windows 8 do not know. Source: struct vmscsi_win8_extension."""

PRE_WIN8_SENSE_BUFFER_SIZE: Final = 0x12
"""Source: storvsc_drv.c of 5.15, PRE_WIN8_STORVSC_SENSE_BUFFER_SIZE."""

STORVSC_TIMEOUT: Final = 180
"""Seconds. Source: storvsc_drv.c storvsc_timeout."""

STORVSC_RINGBUFFER_SIZE: Final = 128 * 1024
"""Bytes of ring data asked for. Source: storvsc_drv.c storvsc_ringbuffer_size."""


def max_outstanding_req_per_channel(aligned_ringbuffer_size: int, page_size: int) -> int:
    """How many of the largest requests a ring holds. Source: storvsc_drv.c storvsc_drv_init."""
    request = (MAX_MULTIPAGE_BUFFER_PACKET + VstorPacket.SIZE + 8 + 7) & ~7
    return (aligned_ringbuffer_size - page_size) // request


class Storvsc:
    """The module's state (its statics) and functions; one instance per guest."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.storvsc_ringbuffer_size = STORVSC_RINGBUFFER_SIZE
        self.aligned_ringbuffer_size = 0
        self.max_outstanding_req_per_channel = 0
        self.storvsc_vcpus_per_sub_channel = 4
        self.storvsc_max_hw_queues = 0
        self.ring_avail_percent_lowater = 10
        self.logging_level = STORVSC_LOGGING_ERROR
        self.vmstor_proto_version = 0
        """Of the controller negotiated last: the kernel has one variable for all of them."""
        self.sense_buffer_size = STORVSC_SENSE_BUFFER_SIZE
        """Bytes of sense data that a command asks for; one variable, too."""
        self.completion_ratelimit = Ratelimit()
        self.scsi_driver = ScsiHostTemplate(
            "storvsc_host_t",
            partial(vsc_io.storvsc_queuecommand, self),
            module="hv_storvsc",
            proc_name="storvsc_host",
            cmd_per_lun=2048,
            this_id=-1,
            virt_boundary_mask=HV_HYP_PAGE_SIZE - 1,
            slave_alloc=self.storvsc_device_alloc,
            slave_configure=self.storvsc_device_configure,
            eh_timed_out=self.storvsc_eh_timed_out,
            eh_host_reset_handler=self.storvsc_host_reset_handler,
            change_queue_depth=self.storvsc_change_queue_depth,
        )
        self.storvsc_drv = HvDriver(
            "hv_storvsc",
            (
                HvVmbusDeviceId(HV_SCSI_GUID, SCSI_GUID),
                HvVmbusDeviceId(HV_IDE_GUID, IDE_GUID),
                HvVmbusDeviceId(HV_SYNTHFC_GUID, SFC_GUID),
            ),
            self.storvsc_probe,
            remove=self.storvsc_remove,
            suspend=self.storvsc_suspend,
            resume=self.storvsc_resume,
        )

    def kernel_object(self) -> KernelObject:
        """What the build knows of the module."""
        return KernelObject(
            "hv_storvsc",
            "HYPERV_STORAGE",
            "drivers/scsi/storvsc_drv.o",
            self.storvsc_drv_init,
            exit=self.storvsc_drv_exit,
            link=self._link,
            imports=(
                Import(Vmbus, ("__vmbus_driver_register", "vmbus_open", "vmbus_sendpacket_mpb_desc")),
                Import(Scsi, ("scsi_host_alloc", "scsi_add_host_with_dma", "scsi_scan_host", "scsi_done")),
            ),
            aliases=tuple(f"vmbus:{guid.hex()}" for guid in (HV_SCSI_GUID, HV_IDE_GUID, HV_SYNTHFC_GUID)),
            function="storvsc_drv_init",
            parameters=(
                ModuleParam("logging_level", "int", 0o644, lambda: self.logging_level, self._set_logging_level),
                ModuleParam("storvsc_ringbuffer_size", "int", 0o444, lambda: self.storvsc_ringbuffer_size),
                ModuleParam(
                    "storvsc_max_hw_queues", "uint", 0o644, lambda: self.storvsc_max_hw_queues, self._set_max_hw_queues
                ),
                ModuleParam("storvsc_vcpus_per_sub_channel", "int", 0o444, lambda: self.storvsc_vcpus_per_sub_channel),
                ModuleParam("ring_avail_percent_lowater", "int", 0o444, lambda: self.ring_avail_percent_lowater),
            ),
        )

    def _set_logging_level(self, value: int) -> None:
        self.logging_level = value

    def _set_max_hw_queues(self, value: int) -> None:
        self.storvsc_max_hw_queues = value

    def _link(self, kernel: Kernel) -> None:
        self.kernel = kernel

    def storvsc_drv_init(self, kernel: Kernel) -> int:
        """module_init. Source: storvsc_drv.c of that name."""
        self.vmbus: Vmbus = kernel.symbol(Vmbus)
        """The exports of hv_vmbus."""
        self.aligned_ringbuffer_size = self.vmbus.VMBUS_RING_SIZE(self.storvsc_ringbuffer_size)
        self.max_outstanding_req_per_channel = max_outstanding_req_per_channel(
            self.aligned_ringbuffer_size, kernel.mm.PAGE_SIZE
        )
        return self.vmbus.vmbus_driver_register(self.storvsc_drv, "hv_storvsc")

    def storvsc_drv_exit(self, kernel: Kernel) -> None:
        """module_exit."""
        self.vmbus.vmbus_driver_unregister(self.storvsc_drv)

    def do_logging(self, level: int) -> bool:
        """Whether messages of *level* are printed (module parameter logging_level)."""
        return self.logging_level >= level

    def hv_dev_is_fc(self, hv_dev: HvDevice) -> bool:
        """Whether a device is a Fibre Channel adapter."""
        return hv_dev.dev_type == HV_SYNTHFC_GUID

    # works

    def storvsc_device_scan(self, work: Work) -> None:
        """Look at a unit again. Source: storvsc_drv.c of that name."""
        host, target, lun = work.data
        sdev = self.kernel.scsi.scsi_device_lookup(host, 0, target, lun)
        if sdev is not None:
            self.kernel.scsi.scsi_rescan_device(sdev)

    def storvsc_remove_lun(self, work: Work) -> None:
        """Drop a unit that is gone. Source: storvsc_drv.c of that name."""
        host, target, lun = work.data
        sdev = self.kernel.scsi.scsi_device_lookup(host, 0, target, lun)
        if sdev is not None:
            self.kernel.scsi.scsi_remove_device(sdev)

    def storvsc_host_scan(self, work: Work) -> None:
        """Find units that went (by asking each) and units that came. Source: storvsc_drv.c of that name."""
        host: ScsiHost = work.data
        scsi = self.kernel.scsi
        with host.scan_mutex:
            for sdev in scsi.shost_for_each_device(host):
                scsi.scsi_test_unit_ready(sdev, 1, 1)
        scsi.scsi_scan_host(host)

    # channels

    def storvsc_change_target_cpu(self, channel: VmbusChannel, old: int, new: int) -> None:
        """A channel's interrupts moved to another CPU. Source: storvsc_drv.c of that name."""
        device = self._device_of(channel)
        stor_device = get_out_stor_device(device)
        if stor_device is None:
            return
        with stor_device.lock.irqsave():
            others = [device.channel, *device.channel.sc_list]
            left = next((chn for chn in others if chn is not channel and chn.target_cpu == old), None)
            if left is not None:
                stor_device.stor_chns[old] = left
            elif old in stor_device.alloced_cpus:
                stor_device.alloced_cpus.remove(old)
            for cpu in self.kernel.cpus.for_each_possible_cpu():
                if stor_device.stor_chns[cpu] is not None and cpu not in stor_device.alloced_cpus:
                    stor_device.stor_chns[cpu] = None
            stor_device.stor_chns[new] = channel
            stor_device.add_cpu(new)

    def _device_of(self, channel: VmbusChannel) -> HvDevice:
        device = (channel.primary_channel or channel).device_obj
        assert device is not None
        return device

    def handle_sc_creation(self, new_sc: VmbusChannel) -> None:
        """Open a sub-channel that the host offered. Source: storvsc_drv.c of that name."""
        device = self._device_of(new_sc)
        stor_device = get_out_stor_device(device)
        if stor_device is None:
            return
        ret = self._open(new_sc, self.aligned_ringbuffer_size)
        if ret != 0:
            self.kernel.printk.dev_err(device, f"Failed to open sub-channel: err={ret}")
            return
        new_sc.change_target_cpu_callback = self.storvsc_change_target_cpu
        stor_device.stor_chns[new_sc.target_cpu] = new_sc
        stor_device.add_cpu(new_sc.target_cpu)

    def _open(self, channel: VmbusChannel, ring_size: int) -> int:
        channel.max_pkt_size = STORVSC_MAX_PKT_SIZE
        channel.next_request_id_callback = vsc_io.storvsc_next_request_id
        props = bytes(VmstorageChannelProperties.SIZE)
        return self.vmbus.vmbus_open(channel, ring_size, ring_size, props, self.storvsc_on_channel_callback, channel)

    def handle_multichannel_storage(self, device: HvDevice, max_chns: int) -> None:
        """Ask the host for sub-channels. Source: storvsc_drv.c of that name."""
        num_sc = min(self.kernel.cpus.num_online_cpus() - 1, max_chns)
        if not num_sc:
            return
        stor_device = get_out_stor_device(device)
        if stor_device is None:
            return
        printk = self.kernel.printk
        stor_device.num_sc = num_sc
        request = stor_device.init_request = StorvscInitRequest()
        self.vmbus.vmbus_set_sc_create_callback(device.channel, self.handle_sc_creation)
        request.vstor_packet = _operation(Op.VSTOR_OPERATION_CREATE_SUB_CHANNELS, num_sc.to_bytes(2, "little"))
        ret = self._send(device, request, VMBUS_RQST_INIT)
        if ret != 0:
            printk.dev_err(device, f"Failed to create sub-channel: err={ret}")
            return
        if not self._wait(request):
            printk.dev_err(device, "Failed to create sub-channel: timed out")
            return
        answer = request.vstor_packet
        if answer.operation != Op.VSTOR_OPERATION_COMPLETE_IO or answer.status != 0:
            printk.dev_err(device, f"Failed to create sub-channel: op={answer.operation}, sts={_signed(answer.status)}")

    def _send(self, device: HvDevice, request: StorvscInitRequest, address: int) -> int:
        stor_device = hv_get_drvdata(device)
        return self.vmbus.vmbus_sendpacket(
            device.channel,
            stor_device.cut(request.vstor_packet.pack()),
            address,
            VmbusPacketType.VM_PKT_DATA_INBAND,
            VMBUS_DATA_PACKET_FLAG_COMPLETION_REQUESTED,
        )

    def _wait(self, request: StorvscInitRequest) -> int:
        timeout = STORVSC_TIMEOUT * self.kernel.timers.HZ
        return self.kernel.sched.wait_for_completion_timeout(request.wait_event, timeout)

    def cache_wwn(self, stor_device: StorvscDevice, vstor_packet: VstorPacket) -> None:
        """Keep the active names of a Fibre Channel adapter. Source: storvsc_drv.c of that name."""
        wwn: HvFcWwnPacket = vstor_packet.wwn_packet
        if wwn.primary_active:
            node, port = wwn.primary_node_wwn, wwn.primary_port_wwn
        else:
            node, port = wwn.secondary_node_wwn, wwn.secondary_port_wwn
        stor_device.node_name = int.from_bytes(node, "big")
        stor_device.port_name = int.from_bytes(port, "big")

    # start-up protocol

    def storvsc_execute_vstor_op(
        self,
        device: HvDevice,
        request: StorvscInitRequest,
        operation: Op,
        body: bytes = b"",
        *,
        status_check: bool = True,
    ) -> int:
        """Send one operation of the start-up and wait for its answer, which replaces the request's packet.

        Source: storvsc_drv.c of that name. 0, -ENODEV, -ETIMEDOUT, -EINVAL (the host refused), or the ring's error.
        """
        if get_out_stor_device(device) is None:
            return -ENODEV
        request.wait_event = Completion()
        request.vstor_packet = _operation(operation, body)
        ret = self._send(device, request, VMBUS_RQST_INIT)
        if ret != 0:
            return ret
        if not self._wait(request):
            return -ETIMEDOUT
        answer = request.vstor_packet
        if status_check and (answer.operation != Op.VSTOR_OPERATION_COMPLETE_IO or answer.status != 0):
            return -EINVAL
        return 0

    def storvsc_channel_init(self, device: HvDevice, is_fc: bool) -> int:
        """Agree on a version, learn the controller's properties, ask for sub-channels. Source: storvsc_drv.c."""
        stor_device = get_out_stor_device(device)
        if stor_device is None:
            return -ENODEV
        request = stor_device.init_request = StorvscInitRequest()
        ret = self.storvsc_execute_vstor_op(device, request, Op.VSTOR_OPERATION_BEGIN_INITIALIZATION)
        if ret:
            return ret
        old = PRE_WIN8_PROTOCOL_VERSIONS if self.kernel.release.has("storvsc_win7") else ()
        for version in PROTOCOL_VERSIONS + old:
            body = VmstorageProtocolVersion(major_minor=version, revision=0).pack()
            ret = self.storvsc_execute_vstor_op(
                device, request, Op.VSTOR_OPERATION_QUERY_PROTOCOL_VERSION, body, status_check=False
            )
            if ret != 0:
                return ret
            if request.vstor_packet.operation != Op.VSTOR_OPERATION_COMPLETE_IO:
                return -EINVAL
            if request.vstor_packet.status == 0:
                self.vmstor_proto_version = version
                stor_device.vmscsi_size_delta = WIN8_EXTENSION_SIZE if version in old else 0
                self.sense_buffer_size = PRE_WIN8_SENSE_BUFFER_SIZE if version in old else STORVSC_SENSE_BUFFER_SIZE
                break
        if request.vstor_packet.status != 0:
            self.kernel.printk.dev_err(device, "Obsolete Hyper-V version")
            return -EINVAL
        ret = self.storvsc_execute_vstor_op(device, request, Op.VSTOR_OPERATION_QUERY_PROPERTIES)
        if ret != 0:
            return ret
        properties = request.vstor_packet.storage_channel_properties
        max_chns = properties.max_channel_cnt
        stor_device.stor_chns = [None] * self.kernel.cpus.nr_cpu_ids
        device.channel.change_target_cpu_callback = self.storvsc_change_target_cpu
        stor_device.stor_chns[device.channel.target_cpu] = device.channel
        stor_device.add_cpu(device.channel.target_cpu)
        process_sub_channels = bool(properties.flags & STORAGE_CHANNEL_SUPPORTS_MULTI_CHANNEL)
        stor_device.max_transfer_bytes = properties.max_transfer_bytes
        if is_fc:
            ret = self.storvsc_execute_vstor_op(device, request, Op.VSTOR_OPERATION_FCHBA_DATA)
            if ret != 0:
                return ret
            self.cache_wwn(stor_device, request.vstor_packet)
        ret = self.storvsc_execute_vstor_op(device, request, Op.VSTOR_OPERATION_END_INITIALIZATION)
        if ret != 0:
            return ret
        if process_sub_channels:
            self.handle_multichannel_storage(device, max_chns)
        return ret

    def storvsc_connect_to_vsp(self, device: HvDevice, ring_size: int, is_fc: bool) -> int:
        """Open the channel and start the controller up. Source: storvsc_drv.c of that name."""
        ret = self._open(device.channel, ring_size)
        if ret != 0:
            return ret
        ret = self.storvsc_channel_init(device, is_fc)
        if ret:
            self.vmbus.vmbus_close(device.channel)
        return ret

    # receiving

    def storvsc_on_receive(
        self, stor_device: StorvscDevice, data: bytes | bytearray, request: StorvscCmdRequest | None
    ) -> None:
        """An answer to a command, or news from the host. Source: storvsc_drv.c of that name.

        :param data: the VstorPacket, in full.
        """
        operation = int.from_bytes(data[:4], "little")
        if operation == vsc_io.VSTOR_OPERATION_COMPLETE_IO:
            assert request is not None
            vsc_io.storvsc_on_io_completion(self, stor_device, data, request)
        elif operation in (Op.VSTOR_OPERATION_REMOVE_DEVICE, Op.VSTOR_OPERATION_ENUMERATE_BUS):
            host_dev: HvHostDevice = stor_device.host.hostdata
            if host_dev.handle_error_wq is not None and host_dev.host_scan_work is not None:
                self.kernel.workqueue.queue_work(host_dev.handle_error_wq, host_dev.host_scan_work)
        elif operation == Op.VSTOR_OPERATION_FCHBA_DATA:
            self.cache_wwn(stor_device, VstorPacket.unpack(data))

    def storvsc_on_channel_callback(self, channel: VmbusChannel) -> None:
        """Work through a channel's packets, for at most CALLBACK_TIMEOUT ms. Source: storvsc_drv.c of that name."""
        timers, vmbus = self.kernel.timers, self.vmbus
        time_limit = timers.jiffies + timers.msecs_to_jiffies(CALLBACK_TIMEOUT)
        device = self._device_of(channel)
        stor_device = get_in_stor_device(device)
        if stor_device is None:
            return
        for desc in vmbus.foreach_vmbus_pkt(channel):
            pktlen = vmbus.hv_pkt_datalen(desc)
            rqst_id = desc.trans_id
            minlen = VstorPacket.SIZE - stor_device.vmscsi_size_delta if rqst_id else 4
            if timers.jiffies > time_limit:
                vmbus.hv_pkt_iter_close(channel)
                return
            if pktlen < minlen:
                self.kernel.printk.dev_err(device, f"Invalid pkt: id={rqst_id}, len={pktlen}, minlen={minlen}")
                continue
            data = vmbus.hv_pkt_data(desc)
            if pktlen < VstorPacket.SIZE:
                data = data.ljust(VstorPacket.SIZE, b"\0")
            if rqst_id in (VMBUS_RQST_INIT, VMBUS_RQST_RESET):
                request = stor_device.init_request if rqst_id == VMBUS_RQST_INIT else stor_device.reset_request
                request.vstor_packet = VstorPacket.unpack(data)
                self.kernel.sched.complete(request.wait_event)
            elif rqst_id == 0:
                operation = int.from_bytes(data[:4], "little")
                if operation in (Op.VSTOR_OPERATION_COMPLETE_IO, Op.VSTOR_OPERATION_FCHBA_DATA):
                    self.kernel.printk.dev_err(device, "Invalid packet with ID of 0")
                    continue
                self.storvsc_on_receive(stor_device, data, None)
            else:
                scmnd = stor_device.host.inflight.get((rqst_id - 1) & 0xFFFFFFFF)  # an int for scsi_host_find_tag()
                if scmnd is None:
                    self.kernel.printk.dev_err(device, "Incorrect transaction ID")
                    continue
                self.storvsc_on_receive(stor_device, data, scmnd.host_scribble)

    # what SCSI calls

    def storvsc_device_alloc(self, sdevice: ScsiDevice) -> int:
        """slave_alloc. Source: storvsc_drv.c of that name."""
        sdevice.sdev_bflags = BLIST_REPORTLUN2 | BLIST_TRY_VPD_PAGES
        return 0

    def storvsc_device_configure(self, sdevice: ScsiDevice) -> int:
        """slave_configure. Source: storvsc_drv.c of that name."""
        sdevice.timeout = STORVSC_TIMEOUT * self.kernel.timers.HZ
        sdevice.no_write_same = True
        if sdevice.vendor.startswith("Msft"):
            if self.vmstor_proto_version in (VMSTOR_PROTO_VERSION_WIN8, VMSTOR_PROTO_VERSION_WIN8_1):
                sdevice.scsi_level = SCSI_SPC_3
            if self.vmstor_proto_version >= VMSTOR_PROTO_VERSION_WIN10:
                sdevice.no_write_same = False
        return 0

    def storvsc_eh_timed_out(self, scmnd: ScsiCmnd) -> bool:
        """The host answers every command, however late: always start the timer again. Source: storvsc_drv.c."""
        return True

    def storvsc_host_reset_handler(self, scmnd: ScsiCmnd) -> int:
        """Reset the bus and wait for what is on its way. Source: storvsc_drv.c of that name."""
        host_dev: HvHostDevice = scmnd.device.host.hostdata
        stor_device = get_out_stor_device(host_dev.dev)
        if stor_device is None:
            return FAILED
        request = stor_device.reset_request
        request.wait_event = Completion()
        srb = vsc_io.NO_SRB.replace(path_id=stor_device.path_id)
        request.vstor_packet = _operation(Op.VSTOR_OPERATION_RESET_BUS, srb.pack())
        if self._send(host_dev.dev, request, VMBUS_RQST_RESET) != 0:
            return FAILED
        if not self._wait(request):
            return TIMEOUT_ERROR
        vsc_io.storvsc_wait_to_drain(self, stor_device)
        return SUCCESS

    def storvsc_change_queue_depth(self, sdev: ScsiDevice, queue_depth: int) -> int:
        """Source: storvsc_drv.c of that name."""
        return self.kernel.scsi.scsi_change_queue_depth(sdev, min(queue_depth, self.scsi_driver.can_queue))

    # driver

    def storvsc_probe(self, device: HvDevice, dev_id: HvVmbusDeviceId) -> int:
        """Bind a controller: start it up, register a SCSI host, scan it. Source: storvsc_drv.c of that name."""
        kernel = self.kernel
        dev_is_ide = dev_id.driver_data == IDE_GUID
        is_fc = dev_id.driver_data == SFC_GUID
        max_sub_channels = 0
        if not dev_is_ide:
            max_sub_channels = (kernel.cpus.num_online_cpus() - 1) // self.storvsc_vcpus_per_sub_channel
        self.scsi_driver.can_queue = (
            self.max_outstanding_req_per_channel
            * (max_sub_channels + 1)
            * (100 - self.ring_avail_percent_lowater)
            // 100
        )
        host = kernel.scsi.scsi_host_alloc(self.scsi_driver)
        if host is None:
            return -ENOMEM
        host_dev = host.hostdata = HvHostDevice(device, host)
        stor_device = StorvscDevice(
            device, host, kernel.locking.spin_lock_init("stor_device->lock"), kernel.sched.init_waitqueue_head()
        )
        if kernel.release.has("storvsc_win7"):
            stor_device.vmscsi_size_delta = WIN8_EXTENSION_SIZE
        hv_set_drvdata(device, stor_device)
        ret = self.storvsc_connect_to_vsp(device, self.aligned_ringbuffer_size, is_fc)
        if ret:
            kernel.scsi.scsi_host_put(host)
            return ret
        host_dev.path, host_dev.target = stor_device.path_id, stor_device.target_id
        self._set_limits(host, stor_device, dev_id.driver_data)
        if not dev_is_ide:
            self._set_hw_queues(host, device)
        host_dev.handle_error_wq = kernel.workqueue.alloc_ordered_workqueue(f"storvsc_error_wq_{host.host_no}")
        host_dev.host_scan_work = Work(self.storvsc_host_scan, host)
        ret = kernel.scsi.scsi_add_host(host, device)
        if ret == 0:
            if not dev_is_ide:
                kernel.scsi.scsi_scan_host(host)
            else:
                target = device.dev_instance[5] << 8 | device.dev_instance[4]
                ret = kernel.scsi.scsi_add_device(host, 0, target, 0)
                if ret:
                    kernel.scsi.scsi_remove_host(host)
        if ret:
            kernel.workqueue.destroy_workqueue(host_dev.handle_error_wq)
            self.storvsc_dev_remove(device)
            kernel.scsi.scsi_host_put(host)
        return ret

    def _set_limits(self, host: ScsiHost, stor_device: StorvscDevice, kind: int) -> None:
        """Targets, units, sectors and segments of a host. Source: storvsc_drv.c storvsc_probe."""
        if kind == SFC_GUID:
            host.max_lun, host.max_id = STORVSC_FC_MAX_LUNS_PER_TARGET, STORVSC_FC_MAX_TARGETS
            host.max_channel = STORVSC_FC_MAX_CHANNELS - 1
        elif kind == SCSI_GUID:
            host.max_lun, host.max_id = STORVSC_MAX_LUNS_PER_TARGET, STORVSC_MAX_TARGETS
            host.max_channel = STORVSC_MAX_CHANNELS - 1
        else:
            host.max_lun, host.max_id = STORVSC_IDE_MAX_LUNS_PER_TARGET, STORVSC_IDE_MAX_TARGETS
            host.max_channel = STORVSC_IDE_MAX_CHANNELS - 1
        host.max_cmd_len = STORVSC_MAX_CMD_LEN
        max_xfer_bytes = stor_device.max_transfer_bytes & -HV_HYP_PAGE_SIZE
        if kind == SFC_GUID:
            max_xfer_bytes = min(max_xfer_bytes, STORVSC_FC_MAX_XFER_SIZE)
        host.max_sectors = max_xfer_bytes >> 9
        host.sg_tablesize = (max_xfer_bytes >> HV_HYP_PAGE_SHIFT) + 1

    def _set_hw_queues(self, host: ScsiHost, device: HvDevice) -> None:
        present = self.kernel.cpus.num_present_cpus()
        if self.storvsc_max_hw_queues > present:
            self.storvsc_max_hw_queues = 0
            if self.do_logging(STORVSC_LOGGING_WARN):
                self.kernel.printk.dev_warn(device, "Resetting invalid storvsc_max_hw_queues value to default.")
        host.nr_hw_queues = self.storvsc_max_hw_queues or present

    def storvsc_dev_remove(self, device: HvDevice) -> int:
        """Let the last requests come back, close the channel. Source: storvsc_drv.c of that name."""
        stor_device: StorvscDevice = hv_get_drvdata(device)
        stor_device.destroy = True
        vsc_io.storvsc_wait_to_drain(self, stor_device)
        hv_set_drvdata(device, None)
        self.vmbus.vmbus_close(device.channel)
        return 0

    def storvsc_remove(self, dev: HvDevice) -> None:
        """Source: storvsc_drv.c of that name."""
        stor_device: StorvscDevice = hv_get_drvdata(dev)
        host = stor_device.host
        host_dev: HvHostDevice = host.hostdata
        if host_dev.handle_error_wq is not None:
            self.kernel.workqueue.destroy_workqueue(host_dev.handle_error_wq)
        self.kernel.scsi.scsi_remove_host(host)
        self.storvsc_dev_remove(dev)
        self.kernel.scsi.scsi_host_put(host)

    def storvsc_suspend(self, hv_dev: HvDevice) -> int:
        """Source: storvsc_drv.c of that name."""
        stor_device: StorvscDevice = hv_get_drvdata(hv_dev)
        host_dev: HvHostDevice = stor_device.host.hostdata
        vsc_io.storvsc_wait_to_drain(self, stor_device)
        if host_dev.handle_error_wq is not None:
            self.kernel.workqueue.flush_workqueue(host_dev.handle_error_wq)
        self.vmbus.vmbus_close(hv_dev.channel)
        stor_device.stor_chns = []
        stor_device.alloced_cpus.clear()
        return 0

    def storvsc_resume(self, hv_dev: HvDevice) -> int:
        """Source: storvsc_drv.c of that name."""
        return self.storvsc_connect_to_vsp(hv_dev, self.aligned_ringbuffer_size, self.hv_dev_is_fc(hv_dev))


def _operation(operation: Op, body: bytes = b"") -> VstorPacket:
    """A packet of the start-up protocol: zero but for the operation, the completion flag and *body*."""
    head = int(operation).to_bytes(4, "little") + REQUEST_COMPLETION_FLAG.to_bytes(4, "little") + bytes(4)
    return VstorPacket.unpack((head + body).ljust(VstorPacket.SIZE, b"\0"))


def _signed(value: int) -> int:
    """A u32 as %d prints it."""
    return value - (1 << 32) if value >> 31 else value
