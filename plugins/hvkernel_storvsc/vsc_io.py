"""Commands of drivers/scsi/storvsc_drv.c (Linux 6.1.192): requests, the choice of a channel, completions, errors.

The structures of the driver are here too. Where the kernel passes a request's address to the host as transaction id
(by way of its tag), the model does the same with the tag: a request's "address" is its command's tag plus one.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from hvkernel.abi.ring import VMBUS_DATA_PACKET_FLAG_COMPLETION_REQUESTED, VmbusPacketType
from hvkernel.abi.tlfs_features import HV_HYP_PAGE_SHIFT, HV_HYP_PAGE_SIZE
from hvkernel.api.guest.errno import EAGAIN, EINVAL, ENODEV
from hvkernel.api.guest.hyperv import (
    HvDevice,
    HvMpbArray,
    VmbusChannel,
)
from hvkernel.api.guest.sched import Completion, Spinlock, WaitQueueHead, Work, Workqueue
from hvkernel.api.guest.scsi import (
    SAM_STAT_CHECK_CONDITION,
    SCSI_MLQUEUE_DEVICE_BUSY,
    DmaDirection,
    HostByte,
    ScsiCmnd,
    ScsiHost,
)

from .wire import (
    REQUEST_COMPLETION_FLAG,
    SP_UNTAGGED,
    SRB_FLAGS_DATA_IN,
    SRB_FLAGS_DATA_OUT,
    SRB_FLAGS_DISABLE_SYNCH_TRANSFER,
    SRB_FLAGS_NO_DATA_TRANSFER,
    SRB_FLAGS_NO_QUEUE_FREEZE,
    SRB_FLAGS_QUEUE_ACTION_ENABLE,
    SRB_SIMPLE_TAG_REQUEST,
    SRB_STATUS_ABORTED,
    SRB_STATUS_AUTOSENSE_VALID,
    SRB_STATUS_DATA_OVERRUN,
    SRB_STATUS_ERROR,
    SRB_STATUS_INVALID_LUN,
    SRB_STATUS_INVALID_REQUEST,
    SRB_STATUS_QUEUE_FROZEN,
    SRB_STATUS_SUCCESS,
    STORVSC_LOGGING_ERROR,
    STORVSC_LOGGING_WARN,
    VMSTOR_PROTO_VERSION_WIN8,
    StorvscRequestType,
    VmscsiRequest,
    VstorPacket,
    VstorPacketOperation,
)

if TYPE_CHECKING:
    from .vsc import Storvsc

MPB_ARRAY_SIZE: Final = 32
"""sizeof(struct vmbus_packet_mpb_array) (include/linux/hyperv.h)."""

TEST_UNIT_READY: Final = 0x00
INQUIRY: Final = 0x12
MODE_SENSE: Final = 0x1A
SET_WINDOW: Final = 0x24
WRITE_SAME: Final = 0x41
MODE_SENSE_10: Final = 0x5A
ATA_16: Final = 0x85
ATA_12: Final = 0xA1
MAINTENANCE_IN: Final = 0xA3
"""Operation codes that the driver treats apart (include/scsi/scsi_proto.h)."""

SCSI_2: Final = 3
"""scsi_level of SCSI-2 (include/scsi/scsi.h)."""

RATELIMIT_INTERVAL_S: Final = 5
RATELIMIT_BURST: Final = 10
"""DEFAULT_RATELIMIT_INTERVAL in seconds, DEFAULT_RATELIMIT_BURST (include/linux/ratelimit_types.h)."""


class StorvscCmdRequest:
    """``struct storvsc_cmd_request``: a command on its way."""

    __slots__ = (
        "cmd", "data_transfer_length", "device", "length", "packet", "payload", "payload_sz", "scsi_status",
        "srb_status",
    )  # fmt: skip

    def __init__(self) -> None:
        self.cmd: ScsiCmnd | None = None
        self.device: HvDevice | None = None
        self.payload: HvMpbArray | None = None
        """The range of guest pages; None for a command that moves no data."""
        self.payload_sz = 0
        self.length = 0
        """Bytes of *payload* (range.len)."""
        self.packet = b""
        """The vstor_packet of a command, as it is sent."""
        self.scsi_status = 0
        self.srb_status = 0
        self.data_transfer_length = 0
        """The last three: what the answer of the host says (the kernel copies them into the packet)."""


class StorvscInitRequest(StorvscCmdRequest):
    """``struct storvsc_cmd_request`` of the start-up or of a reset, for whose answer the driver waits."""

    __slots__ = ("vstor_packet", "wait_event")

    def __init__(self) -> None:
        super().__init__()
        self.wait_event = Completion()
        self.vstor_packet: VstorPacket = NO_PACKET
        """What was sent, then what came back."""


class StorvscDevice:
    """``struct storvsc_device``."""

    def __init__(self, device: HvDevice, host: ScsiHost, lock: Spinlock, waiting_to_drain: WaitQueueHead) -> None:
        self.device = device
        self.destroy = False
        self.drain_notify = False
        self.num_outstanding_req = 0
        self.host = host
        self.waiting_to_drain = waiting_to_drain
        self.port_number = host.host_no
        self.path_id = 0
        self.target_id = 0
        self.max_transfer_bytes = 0
        self.num_sc = 0
        self.stor_chns: list[VmbusChannel | None] = []
        """Channel to use, by CPU."""
        self.alloced_cpus: list[int] = []
        """CPUs that a channel is bound to, ascending."""
        self.lock = lock
        self.init_request = StorvscInitRequest()
        self.reset_request = StorvscInitRequest()
        self.node_name = 0
        self.port_name = 0
        self.vmscsi_size_delta = 0
        """Bytes that packets are shorter by on hosts before Windows 8."""

    def cut(self, packet: bytes) -> bytes:
        """The packet as long as the host knows it."""
        return packet[: -self.vmscsi_size_delta] if self.vmscsi_size_delta else packet

    def add_cpu(self, cpu: int) -> None:
        """cpumask_set_cpu(cpu, &alloced_cpus)."""
        if cpu not in self.alloced_cpus:
            insort(self.alloced_cpus, cpu)

    def cpus_wrap(self, start: int) -> Iterator[int]:
        """for_each_cpu_wrap over alloced_cpus."""
        cpus = self.alloced_cpus
        first = bisect_left(cpus, start)
        yield from cpus[first:]
        yield from cpus[:first]


class HvHostDevice:
    """``struct hv_host_device``: the driver's part of a SCSI host."""

    def __init__(self, dev: HvDevice, host: ScsiHost) -> None:
        self.dev = dev
        self.host = host
        self.port = host.host_no
        self.path = 0
        self.target = 0
        self.handle_error_wq: Workqueue | None = None
        self.host_scan_work: Work | None = None


class Ratelimit:
    """``struct ratelimit_state`` of one message (lib/ratelimit.c ___ratelimit)."""

    __slots__ = ("begin", "missed", "printed")

    def __init__(self) -> None:
        self.begin = 0
        self.printed = 0
        self.missed = 0

    def allow(self, s: Storvsc, function: str) -> bool:
        """Whether to print now; tells first how many were dropped in the interval before."""
        jiffies = s.kernel.timers.jiffies
        if not self.begin:
            self.begin = jiffies
        if self.begin + RATELIMIT_INTERVAL_S * s.kernel.timers.HZ < jiffies:
            if self.missed:
                s.kernel.printk.printk(4, f"{function}: {self.missed} callbacks suppressed")
                self.missed = 0
            self.begin = jiffies
            self.printed = 0
        if self.printed < RATELIMIT_BURST:
            self.printed += 1
            return True
        self.missed += 1
        return False


EXECUTE_SRB: Final = struct.Struct("<IIIHBBBBBBBBBBI20sHBBIII")
"""A VstorPacket with a VmscsiRequest, the CDB in the place of the sense data. A test holds it against both."""
COMPLETE_IO: Final = struct.Struct("<I4xI2xBB5xB2xI20s")
"""What the answer to a command says: operation, status, srb_status, scsi_status, sense_info_length,
data_transfer_length and sense_data of such a packet. A test holds it against both, too."""
REQUEST_SIZE: Final = VmscsiRequest.SIZE
VSTOR_OPERATION_COMPLETE_IO: Final = int(VstorPacketOperation.VSTOR_OPERATION_COMPLETE_IO)
VSTOR_OPERATION_EXECUTE_SRB: Final = int(VstorPacketOperation.VSTOR_OPERATION_EXECUTE_SRB)
WRITE_TYPE: Final = int(StorvscRequestType.WRITE_TYPE)
READ_TYPE: Final = int(StorvscRequestType.READ_TYPE)
UNKNOWN_TYPE: Final = int(StorvscRequestType.UNKNOWN_TYPE)
VM_PKT_DATA_INBAND: Final = int(VmbusPacketType.VM_PKT_DATA_INBAND)
DMA_TO_DEVICE: Final = int(DmaDirection.DMA_TO_DEVICE)
DMA_FROM_DEVICE: Final = int(DmaDirection.DMA_FROM_DEVICE)
DMA_NONE: Final = int(DmaDirection.DMA_NONE)
NO_SRB: Final = VmscsiRequest.unpack(bytes(VmscsiRequest.SIZE))
NO_PACKET: Final = VstorPacket.unpack(bytes(VstorPacket.SIZE))


def set_host_byte(scmnd: ScsiCmnd, status: HostByte) -> None:
    """Source: include/scsi/scsi_cmnd.h set_host_byte."""
    scmnd.result = (scmnd.result & 0xFF00_FFFF) | status << 16


def get_out_stor_device(device: HvDevice) -> StorvscDevice | None:
    """The device for a new request: none once it is being destroyed. Source: storvsc_drv.c of that name."""
    stor_device: StorvscDevice | None = device.driver_data
    return None if stor_device is None or stor_device.destroy else stor_device


def get_in_stor_device(device: HvDevice) -> StorvscDevice | None:
    """The device for an answer: until the last request came back. Source: storvsc_drv.c of that name."""
    stor_device: StorvscDevice | None = device.driver_data
    if stor_device is not None and stor_device.destroy and stor_device.num_outstanding_req == 0:
        return None
    return stor_device


def storvsc_wait_to_drain(s: Storvsc, dev: StorvscDevice) -> None:
    """Wait until no request is on its way. Source: storvsc_drv.c of that name."""
    dev.drain_notify = True
    s.kernel.sched.wait_event(dev.waiting_to_drain, lambda: dev.num_outstanding_req == 0)
    dev.drain_notify = False


# sending -------------------------------------------------------------------------------------------------------


def storvsc_scsi_cmd_ok(scmnd: ScsiCmnd) -> bool:
    """False for what legacy hosts do not handle; the host byte then says DID_ERROR. Source: storvsc_drv.c."""
    if scmnd.cmnd[0] in (WRITE_SAME, SET_WINDOW):
        set_host_byte(scmnd, HostByte.DID_ERROR)
        return False
    return True


def storvsc_queuecommand(s: Storvsc, host: ScsiHost, scmnd: ScsiCmnd) -> int:
    """Send a command; 0, or SCSI_MLQUEUE_DEVICE_BUSY to be asked again. Source: storvsc_drv.c storvsc_queuecommand."""
    if s.vmstor_proto_version <= VMSTOR_PROTO_VERSION_WIN8 and not storvsc_scsi_cmd_ok(scmnd):
        s.kernel.scsi.scsi_done(scmnd)
        return 0
    host_dev: HvHostDevice = host.hostdata
    device = scmnd.device
    request = scmnd.host_scribble
    if request is None:
        request = scmnd.host_scribble = StorvscCmdRequest()
    request.cmd = scmnd
    srb_flags = SRB_FLAGS_DISABLE_SYNCH_TRANSFER
    queue_tag = queue_action = 0
    if device.scsi_level >= SCSI_2 and len(device.inquiry) > 7 and device.inquiry[7] & 2:  # tagged_supported
        srb_flags |= SRB_FLAGS_QUEUE_ACTION_ENABLE | SRB_FLAGS_NO_QUEUE_FREEZE
        queue_tag, queue_action = SP_UNTAGGED, SRB_SIMPLE_TAG_REQUEST
    direction = scmnd.sc_data_direction
    if direction == DMA_TO_DEVICE:
        data_in = WRITE_TYPE
        srb_flags |= SRB_FLAGS_DATA_OUT
    elif direction == DMA_FROM_DEVICE:
        data_in = READ_TYPE
        srb_flags |= SRB_FLAGS_DATA_IN
    elif direction == DMA_NONE:
        data_in = UNKNOWN_TYPE
        srb_flags |= SRB_FLAGS_NO_DATA_TRANSFER
    else:
        s.kernel.printk.pr_warn(f"Unexpected data direction: {int(direction)}")
        return -EINVAL
    _build_payload(request, scmnd)
    cdb = scmnd.cmnd
    stor_device: StorvscDevice | None = host_dev.dev.driver_data
    delta = stor_device.vmscsi_size_delta if stor_device is not None else 0
    request.packet = EXECUTE_SRB.pack(
        VSTOR_OPERATION_EXECUTE_SRB,
        REQUEST_COMPLETION_FLAG,
        0,
        REQUEST_SIZE - delta,
        0,
        0,
        host_dev.port & 0xFF,
        device.channel & 0xFF,
        device.id & 0xFF,
        device.lun & 0xFF,
        len(cdb),
        s.sense_buffer_size,
        data_in,
        0,
        request.length,
        cdb,
        0,
        queue_tag,
        queue_action,
        srb_flags,
        60,
        0,
    )
    ret = storvsc_do_io(s, host_dev.dev, request, s.kernel.cpus.get_cpu())
    s.kernel.cpus.put_cpu()
    return SCSI_MLQUEUE_DEVICE_BUSY if ret == -EAGAIN else 0


def _build_payload(request: StorvscCmdRequest, scmnd: ScsiCmnd) -> None:
    """The scatter list as one range of 4 KiB pages, whatever the guest's page size. Source: storvsc_queuecommand."""
    request.payload = None
    request.payload_sz = 0
    request.length = 0
    if not scmnd.sg:
        return
    length = scmnd.transfersize
    offset_in_hvpg = scmnd.sg[0].offset & (HV_HYP_PAGE_SIZE - 1)
    hvpg_count = (offset_in_hvpg + length + HV_HYP_PAGE_SIZE - 1) >> HV_HYP_PAGE_SHIFT
    pfns: list[int] = []
    for sg in scmnd.sg:
        address = sg.gpa
        pfns.extend(
            range(address >> HV_HYP_PAGE_SHIFT, (address + sg.length + HV_HYP_PAGE_SIZE - 1) >> HV_HYP_PAGE_SHIFT)
        )
    request.payload = HvMpbArray(length, offset_in_hvpg, pfns)
    request.payload_sz = hvpg_count * 8 + MPB_ARRAY_SIZE
    request.length = length


def storvsc_do_io(s: Storvsc, device: HvDevice, request: StorvscCmdRequest, q_num: int) -> int:
    """Choose a channel and send the request; 0, -ENODEV or what the ring says. Source: storvsc_drv.c storvsc_do_io."""
    stor_device = get_out_stor_device(device)
    if stor_device is None:
        return -ENODEV
    request.device = device
    channel = _outgoing_channel(s, stor_device, q_num)
    packet = stor_device.cut(request.packet) if stor_device.vmscsi_size_delta else request.packet
    assert request.cmd is not None
    address = request.cmd.tag + 1
    if request.payload is not None and request.length:
        ret = s.vmbus.vmbus_sendpacket_mpb_desc(channel, request.payload, request.payload_sz, packet, address)
    else:
        ret = s.vmbus.vmbus_sendpacket(
            channel,
            packet,
            address,
            VM_PKT_DATA_INBAND,
            VMBUS_DATA_PACKET_FLAG_COMPLETION_REQUESTED,
        )
    if ret == 0:
        stor_device.num_outstanding_req += 1
    return ret


def _outgoing_channel(s: Storvsc, stor_device: StorvscDevice, q_num: int) -> VmbusChannel:
    """The channel for a request of CPU *q_num*: near and with room, if there is one. Source: storvsc_do_io."""
    outgoing = stor_device.stor_chns[q_num]
    if outgoing is None:
        with stor_device.lock.irqsave():
            outgoing = stor_device.stor_chns[q_num]
            return outgoing if outgoing is not None else get_og_chn(s, stor_device, q_num)
    if outgoing.target_cpu != q_num:
        return outgoing
    if stor_device.alloced_cpus == [q_num]:
        return outgoing  # the only one
    node_mask = s.kernel.cpus.cpumask_of_node(s.kernel.cpus.cpu_to_node(q_num))
    lowater = s.ring_avail_percent_lowater
    percent = s.vmbus.hv_get_avail_to_write_percent
    for tgt_cpu in stor_device.cpus_wrap(q_num + 1):
        if tgt_cpu == q_num or tgt_cpu not in node_mask:
            continue
        channel = stor_device.stor_chns[tgt_cpu]
        if channel is not None and percent(channel) > lowater:
            return channel
    if percent(outgoing) > lowater:
        return outgoing
    for tgt_cpu in stor_device.alloced_cpus:
        if tgt_cpu in node_mask:
            continue
        channel = stor_device.stor_chns[tgt_cpu]
        if channel is not None and percent(channel) > lowater:
            return channel
    return outgoing


def get_og_chn(s: Storvsc, stor_device: StorvscDevice, q_num: int) -> VmbusChannel:
    """A channel for a CPU that has none: of the same node, spread evenly. Source: storvsc_drv.c get_og_chn."""
    if stor_device.num_sc == 0:
        stor_device.stor_chns[q_num] = stor_device.device.channel
        return stor_device.device.channel
    node_mask = s.kernel.cpus.cpumask_of_node(s.kernel.cpus.cpu_to_node(q_num))
    near = [cpu for cpu in stor_device.alloced_cpus if cpu in node_mask]
    if not near:
        stor_device.stor_chns[q_num] = stor_device.device.channel
        return stor_device.device.channel
    channel = stor_device.stor_chns[near[q_num % len(near)]]
    assert channel is not None, "a bound CPU without a channel"
    stor_device.stor_chns[q_num] = channel
    return channel


def storvsc_next_request_id(channel: VmbusChannel, rqst_addr: int) -> int:
    """The transaction id of a request: never 0, which unsolicited messages have. Source: storvsc_drv.c of that name."""
    return rqst_addr  # VMBUS_RQST_INIT and VMBUS_RQST_RESET stand for themselves, a request for its tag plus one


# answers -------------------------------------------------------------------------------------------------------


def storvsc_on_io_completion(
    s: Storvsc, stor_device: StorvscDevice, data: bytes | bytearray, request: StorvscCmdRequest
) -> None:
    """A command came back: smooth over what hosts get wrong, log failures, finish.

    :param data: the VstorPacket of the answer, in full.

    Source: storvsc_drv.c of that name.
    """
    scmnd = request.cmd
    assert scmnd is not None
    _, status, srb_status, scsi_status, sense_info_length, transferred, sense = COMPLETE_IO.unpack_from(data)
    opcode = scmnd.cmnd[0]
    if opcode in (INQUIRY, MODE_SENSE, MODE_SENSE_10) or (
        opcode == MAINTENANCE_IN and s.hv_dev_is_fc(stor_device.device)
    ):
        scsi_status, srb_status = 0, SRB_STATUS_SUCCESS
    if scsi_status != 0 or srb_status != SRB_STATUS_SUCCESS:
        level = STORVSC_LOGGING_WARN if opcode == TEST_UNIT_READY else STORVSC_LOGGING_ERROR
        if s.do_logging(level) and s.completion_ratelimit.allow(s, "storvsc_on_io_completion"):
            s.kernel.printk.dev_warn(
                stor_device.device,
                f"tag#{scmnd.tag & 0xFFFF} cmd {opcode:#x} status: scsi {scsi_status:#x} srb {srb_status:#x} "
                f"hv {status:#x}",
            )
    if scsi_status == SAM_STAT_CHECK_CONDITION and srb_status & SRB_STATUS_AUTOSENSE_VALID:
        scmnd.sense_buffer = sense[: min(s.sense_buffer_size, sense_info_length)]
    request.scsi_status, request.srb_status = scsi_status, srb_status
    request.data_transfer_length = transferred
    storvsc_command_completion(s, request, stor_device)
    stor_device.num_outstanding_req -= 1
    if stor_device.num_outstanding_req == 0 and stor_device.drain_notify:
        s.kernel.sched.wake_up(stor_device.waiting_to_drain)


def storvsc_command_completion(s: Storvsc, request: StorvscCmdRequest, stor_dev: StorvscDevice) -> None:
    """Hand a finished command back to SCSI. Source: storvsc_drv.c of that name."""
    scmnd = request.cmd
    assert scmnd is not None
    data_transfer_length = request.data_transfer_length
    scmnd.result = request.scsi_status
    if request.srb_status != SRB_STATUS_SUCCESS:
        asc, ascq = sense_codes(scmnd.sense_buffer)
        storvsc_handle_error(s, request, scmnd, stor_dev.host, asc, ascq)
        if request.srb_status != SRB_STATUS_DATA_OVERRUN:
            data_transfer_length = 0
    scmnd.resid = request.length - min(data_transfer_length, request.length)
    s.kernel.scsi.scsi_done(scmnd)


def sense_codes(sense: bytes) -> tuple[int, int]:
    """(asc, ascq) of sense data in either format, zero where there are none. Source: scsi_normalize_sense.

    The kernel leaves its variables unset when the SCSI status is zero; the model has zeroes there.
    """
    if not sense:
        return 0, 0
    if sense[0] & 0x7F >= 0x72:
        return (sense[2] if len(sense) > 2 else 0), (sense[3] if len(sense) > 3 else 0)
    return (sense[12] if len(sense) > 12 else 0), (sense[13] if len(sense) > 13 else 0)


def storvsc_handle_error(
    s: Storvsc, request: StorvscCmdRequest, scmnd: ScsiCmnd, host: ScsiHost, asc: int, ascq: int
) -> None:
    """Decide the host byte, and whether to rescan or remove the unit. Source: storvsc_drv.c of that name."""
    status = request.srb_status & ~(SRB_STATUS_AUTOSENSE_VALID | SRB_STATUS_QUEUE_FROZEN)
    if status in (SRB_STATUS_ERROR, SRB_STATUS_ABORTED, SRB_STATUS_INVALID_REQUEST):
        if request.srb_status & SRB_STATUS_AUTOSENSE_VALID:
            capacity = (asc, ascq) == (0x2A, 0x09)
            operating = asc == 0x3F and ascq not in (0x03, 0x0E)
            if capacity or operating:
                set_host_byte(scmnd, HostByte.DID_REQUEUE)
                _queue_scan(s, request, host, s.storvsc_device_scan)
            return
        opcode = scmnd.cmnd[0]
        if opcode in (ATA_16, ATA_12):
            set_host_byte(scmnd, HostByte.DID_PASSTHROUGH)
        elif opcode != TEST_UNIT_READY:
            set_host_byte(scmnd, HostByte.DID_ERROR)
        return
    if status == SRB_STATUS_INVALID_LUN:
        set_host_byte(scmnd, HostByte.DID_NO_CONNECT)
        _queue_scan(s, request, host, s.storvsc_remove_lun)


def _queue_scan(s: Storvsc, request: StorvscCmdRequest, host: ScsiHost, function: Any) -> None:
    host_dev: HvHostDevice = host.hostdata
    assert host_dev.handle_error_wq is not None
    assert request.cmd is not None
    sdev = request.cmd.device
    s.kernel.workqueue.queue_work(host_dev.handle_error_wq, Work(function, (host, sdev.id & 0xFF, sdev.lun & 0xFF)))
