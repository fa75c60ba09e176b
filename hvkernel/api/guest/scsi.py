"""scsi/scsi_host.h, scsi_device.h, scsi_cmnd.h: what a SCSI host driver gives and gets.

Structs here are plain data, as in a C header; the functions are on ``kernel.scsi``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import Any, Final, Protocol

from .device import Device
from .mm import Page


class DmaDirection(IntEnum):
    """enum dma_data_direction. Source: include/linux/dma-direction.h."""

    DMA_BIDIRECTIONAL = 0
    DMA_TO_DEVICE = 1
    DMA_FROM_DEVICE = 2
    DMA_NONE = 3


class HostByte(IntEnum):
    """Host byte of a command's result (bits 16 to 23). Source: include/scsi/scsi_status.h:enum scsi_host_status."""

    DID_OK = 0x00
    DID_NO_CONNECT = 0x01
    DID_BUS_BUSY = 0x02
    DID_TIME_OUT = 0x03
    DID_BAD_TARGET = 0x04
    DID_ABORT = 0x05
    DID_PARITY = 0x06
    DID_ERROR = 0x07
    DID_RESET = 0x08
    DID_BAD_INTR = 0x09
    DID_PASSTHROUGH = 0x0A
    DID_SOFT_ERROR = 0x0B
    DID_IMM_RETRY = 0x0C
    DID_REQUEUE = 0x0D
    DID_TRANSPORT_DISRUPTED = 0x0E
    DID_TRANSPORT_FAILFAST = 0x0F
    DID_TRANSPORT_MARGINAL = 0x14


SAM_STAT_GOOD: Final = 0x00
SAM_STAT_CHECK_CONDITION: Final = 0x02
SAM_STAT_BUSY: Final = 0x08
SAM_STAT_TASK_SET_FULL: Final = 0x28
"""Status bytes. Source: include/scsi/scsi_proto.h."""

SCSI_MLQUEUE_HOST_BUSY: Final = 0x1055
SCSI_MLQUEUE_DEVICE_BUSY: Final = 0x1056
"""What queuecommand returns to be asked again. Source: include/scsi/scsi.h."""

SUCCESS: Final = 0x2002
FAILED: Final = 0x2003
"""What error handlers return. Source: include/scsi/scsi.h."""

SCSI_SENSE_BUFFERSIZE: Final = 96
"""Source: include/scsi/scsi_cmnd.h."""

BLIST_REPORTLUN2: Final = 1 << 17
BLIST_TRY_VPD_PAGES: Final = 1 << 28
BLIST_NOREPORTLUN: Final = 1 << 18
BLIST_SPARSELUN: Final = 1 << 6
BLIST_LARGELUN: Final = 1 << 9
"""Scan flags. Source: include/scsi/scsi_devinfo.h."""


class ScatterSegment:
    """One element of a scatter list: ``length`` bytes at ``offset`` in ``page``."""

    __slots__ = ("length", "offset", "page")

    def __init__(self, page: Page, offset: int, length: int) -> None:
        self.page = page
        self.offset = offset
        self.length = length

    @property
    def gpa(self) -> int:
        """Guest physical byte address of the first byte (sg_dma_address)."""
        return self.page.gpa + self.offset


class ScsiCmnd:
    """struct scsi_cmnd. The driver fills ``result`` and ``sense_buffer`` and calls ``kernel.scsi.scsi_done(cmd)``."""

    __slots__ = (
        "allowed", "cmnd", "device", "done", "host_scribble", "hwq", "issued", "resid", "result", "retries",
        "sc_data_direction", "sense_buffer", "sg", "tag", "timeout", "transfersize", "waiter",
    )  # fmt: skip

    def __init__(
        self,
        device: ScsiDevice,
        cmnd: bytes,
        direction: DmaDirection,
        sg: list[ScatterSegment],
        timeout: int,
    ) -> None:
        self.device = device
        self.cmnd = cmnd
        """The CDB; its length is cmd_len."""
        self.sc_data_direction = direction
        self.sg = sg
        """scsi_sglist(); empty when the command moves no data."""
        self.transfersize = sg[0].length if len(sg) == 1 else sum(s.length for s in sg)
        """scsi_bufflen(), bytes."""
        self.timeout = timeout
        """Jiffies until eh_timed_out is asked."""
        self.issued = 0
        """Jiffies when it was sent, or when eh_timed_out last gave it more time."""
        self.result = 0
        """status byte | host byte << 16."""
        self.sense_buffer = b""
        """Sense data, at most SCSI_SENSE_BUFFERSIZE bytes; empty when there is none."""
        self.resid = 0
        """scsi_set_resid(): bytes not transferred."""
        self.tag = 0
        """Unique block tag (hardware queue number << 16 | tag)."""
        self.hwq = 0
        self.retries = 0
        self.allowed = 0
        self.host_scribble: Any = None
        """scsi_cmd_priv(): the driver's own."""
        self.waiter: Any = None
        self.done = False


class ScsiHostTemplate:
    """struct scsi_host_template. Callbacks that a driver has not are None."""

    __slots__ = (
        "can_queue", "change_queue_depth", "cmd_per_lun", "eh_host_reset_handler", "eh_timed_out", "map_queues",
        "max_sectors", "module", "name", "proc_name", "queuecommand", "sg_tablesize", "slave_alloc", "slave_configure",
        "slave_destroy", "this_id", "virt_boundary_mask",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        queuecommand: Callable[[ScsiHost, ScsiCmnd], int],
        *,
        module: str = "",
        proc_name: str = "",
        can_queue: int = 1,
        cmd_per_lun: int = 1,
        sg_tablesize: int = 0,
        max_sectors: int = 1024,
        this_id: int = -1,
        virt_boundary_mask: int = 0,
        slave_alloc: Callable[[ScsiDevice], int] | None = None,
        slave_configure: Callable[[ScsiDevice], int] | None = None,
        slave_destroy: Callable[[ScsiDevice], None] | None = None,
        eh_timed_out: Callable[[ScsiCmnd], bool] | None = None,
        eh_host_reset_handler: Callable[[ScsiCmnd], int] | None = None,
        change_queue_depth: Callable[[ScsiDevice, int], int] | None = None,
    ) -> None:
        self.name = name
        self.queuecommand = queuecommand
        """0 when taken, else SCSI_MLQUEUE_*."""
        self.module = module
        self.proc_name = proc_name
        self.can_queue = can_queue
        self.cmd_per_lun = cmd_per_lun
        self.sg_tablesize = sg_tablesize
        self.max_sectors = max_sectors
        """Sectors of 512 bytes in one request (SCSI_DEFAULT_MAX_SECTORS when the driver says nothing)."""
        self.this_id = this_id
        self.virt_boundary_mask = virt_boundary_mask
        self.slave_alloc = slave_alloc
        self.slave_configure = slave_configure
        self.slave_destroy = slave_destroy
        self.eh_timed_out = eh_timed_out
        """True: the command is not late yet, start its timer again (SCSI_EH_RESET_TIMER)."""
        self.eh_host_reset_handler = eh_host_reset_handler
        self.change_queue_depth = change_queue_depth


class ScsiHost(Device):
    """struct Scsi_Host. Made by ``scsi_host_alloc``."""

    def __init__(self, host_no: int, hostt: ScsiHostTemplate) -> None:
        super().__init__(f"host{host_no}")
        self.host_no = host_no
        self.hostt = hostt
        self.hostdata: Any = None
        """shost_priv(): the driver's own."""
        self.max_lun = 8
        self.max_id = 8
        self.max_channel = 0
        self.max_cmd_len = 12
        self.max_sectors = hostt.max_sectors
        self.sg_tablesize = hostt.sg_tablesize
        self.can_queue = hostt.can_queue
        self.cmd_per_lun = hostt.cmd_per_lun
        self.nr_hw_queues = 1
        self.this_id = hostt.this_id
        self.virt_boundary_mask = hostt.virt_boundary_mask
        self.no_scsi2_lun_in_cdb = False
        self.removed = False
        self.devices: list[ScsiDevice] = []
        self.inflight: dict[int, ScsiCmnd] = {}
        """Commands the driver has, by tag."""
        self.scan_mutex: Any = None
        self.async_scan = False


class ScsiDevice(Device):
    """struct scsi_device, named ``host:channel:id:lun``."""

    def __init__(self, host: ScsiHost, channel: int, id: int, lun: int) -> None:
        super().__init__(f"{host.host_no}:{channel}:{id}:{lun}", parent=host)
        self.host = host
        self.channel = channel
        self.id = id
        self.lun = lun
        self.hostdata: Any = None
        self.type = 0x1F
        """Peripheral device type of the INQUIRY data."""
        self.scsi_level = 0
        """SCSI-2 is 3, SPC-3 is 6 (the INQUIRY version + 1)."""
        self.vendor = ""
        self.model = ""
        self.rev = ""
        self.inquiry = b""
        self.removable = False
        self.no_write_same = False
        self.sector_size = 512
        self.queue_depth = 1
        self.timeout = 0
        """Request timeout in jiffies (blk_queue_rq_timeout); 0 is the class's default of 30 s."""
        self.sdev_bflags = 0
        self.use_10_for_rw = True
        self.use_16_for_rw = False
        self.vpd: dict[int, bytes] = {}
        """VPD pages that were read."""
        self.gone = False


class ScsiSense(Protocol):
    """struct scsi_sense_hdr."""

    @property
    def key(self) -> int: ...
    @property
    def asc(self) -> int: ...
    @property
    def ascq(self) -> int: ...


class ScsiResult(Protocol):
    """How a command of :meth:`Scsi.execute` ended."""

    @property
    def result(self) -> int:
        """status byte | host byte << 16; 0 is success."""
        ...

    @property
    def data(self) -> bytes:
        """What was read, as long as was asked for; empty when it failed."""
        ...

    @property
    def sense(self) -> ScsiSense | None: ...


class Scsi(Protocol):
    """``kernel.scsi``."""

    @property
    def hosts(self) -> tuple[ScsiHost, ...]: ...

    def scsi_host_alloc(self, template: ScsiHostTemplate) -> ScsiHost | None:
        """A host with the next number."""
        ...

    def scsi_add_host(self, host: ScsiHost, parent: Device) -> int:
        """Print ``scsi hostN: name``; 0 or a negative errno."""
        ...

    def scsi_scan_host(self, host: ScsiHost) -> None:
        """Scan every channel and target, in another task when the configuration scans asynchronously."""
        ...

    def scsi_add_device(self, host: ScsiHost, channel: int, target: int, lun: int) -> int: ...
    def scsi_remove_device(self, sdev: ScsiDevice) -> None: ...
    def scsi_remove_host(self, host: ScsiHost) -> None: ...
    def scsi_host_put(self, host: ScsiHost) -> None: ...
    def scsi_rescan_device(self, sdev: ScsiDevice) -> None: ...
    def scsi_test_unit_ready(self, sdev: ScsiDevice, timeout: int, retries: int) -> int:
        """Send TEST UNIT READY and wait; the command's result.

        :param timeout: jiffies.
        """
        ...

    def execute(self, sdev: ScsiDevice, cdb: bytes, *, read: int = 0, write: bytes = b"") -> ScsiResult:
        """Send a command and wait for it (drivers/scsi/scsi_lib.c: scsi_execute_req; SG_IO of user space).

        :param read: bytes that it reads.
        :param write: data that it sends.
        """
        ...

    def scsi_device_lookup(self, host: ScsiHost, channel: int, target: int, lun: int) -> ScsiDevice | None: ...
    def shost_for_each_device(self, host: ScsiHost) -> Iterator[ScsiDevice]: ...

    def scsi_done(self, cmd: ScsiCmnd) -> None:
        """The driver has finished ``cmd``; from any context."""
        ...

    def scsi_change_queue_depth(self, sdev: ScsiDevice, depth: int) -> int: ...
    def scsi_block_requests(self, host: ScsiHost) -> None: ...
    def scsi_unblock_requests(self, host: ScsiHost) -> None: ...


__all__ = [
    "BLIST_LARGELUN",
    "BLIST_NOREPORTLUN",
    "BLIST_REPORTLUN2",
    "BLIST_SPARSELUN",
    "BLIST_TRY_VPD_PAGES",
    "FAILED",
    "SAM_STAT_BUSY",
    "SAM_STAT_CHECK_CONDITION",
    "SAM_STAT_GOOD",
    "SAM_STAT_TASK_SET_FULL",
    "SCSI_MLQUEUE_DEVICE_BUSY",
    "SCSI_MLQUEUE_HOST_BUSY",
    "SCSI_SENSE_BUFFERSIZE",
    "SUCCESS",
    "DmaDirection",
    "HostByte",
    "ScatterSegment",
    "Scsi",
    "ScsiCmnd",
    "ScsiDevice",
    "ScsiHost",
    "ScsiHostTemplate",
    "ScsiResult",
    "ScsiSense",
]
