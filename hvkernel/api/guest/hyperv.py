"""Hyper-V as a driver sees it.

The counterpart of ``include/linux/hyperv.h``, ``asm-generic/mshyperv.h`` and ``clocksource/hyperv_timer.h``.
Structs are plain data, as in a C header. The functions that ``hv_vmbus`` exports are the Protocol :class:`Vmbus`; a
driver gets it with ``kernel.symbol(Vmbus)``, which is the link check too. :class:`HvCommon` and :class:`HvTimer` are
the exports of the two objects that are always built in. GUIDs are 16 bytes in wire order (``guid_t``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from hvkernel.abi.ring import (
    VMBUS_NO_RQSTOR,
    VMBUS_RQST_ADDR_ANY,
    VMBUS_RQST_ERROR,
    VMBUS_RQST_ID_NO_RESPONSE,
    VMBUS_RQST_INIT,
    VMBUS_RQST_RESET,
)
from hvkernel.abi.vmbus import HvCallbackMode, VmbusChannelState
from hvkernel.abi.wire import Guid
from hvkernel.api.guest.device import Device, DeviceDriver, ProbeType, Resource
from hvkernel.api.guest.mm import Page
from hvkernel.api.guest.sched import Completion, Spinlock, Tasklet, Work
from hvkernel.api.guest.sysfs import Dentry

__all__ = [
    "VMBUS_NO_RQSTOR",
    "VMBUS_RQST_ADDR_ANY",
    "VMBUS_RQST_ERROR",
    "VMBUS_RQST_ID_NO_RESPONSE",
    "VMBUS_RQST_INIT",
    "VMBUS_RQST_RESET",
    "HvCommon",
    "HvDevice",
    "HvDriver",
    "HvMpbArray",
    "HvPageBuffer",
    "HvTimer",
    "HvVmbusDeviceId",
    "Vmbus",
    "VmbusChannel",
    "VmbusGpadl",
    "VmbusOffer",
    "VmbusPacket",
    "VmbusRequestor",
    "hv_get_drvdata",
    "hv_set_drvdata",
    "pUl",
]

PCI_VENDOR_ID_MICROSOFT: Final = 0x1414


def pUl(guid: bytes) -> str:
    """Format a ``guid_t`` as printk's ``%pUl`` does: lower case, first three groups little-endian."""
    return str(Guid(guid))


@dataclass(slots=True)
class VmbusOffer:
    """The fields of ``struct vmbus_channel_offer_channel`` that the guest keeps, flattened."""

    if_type: bytes
    if_instance: bytes
    chn_flags: int
    mmio_megabytes: int
    user_def: bytes
    """120 bytes; for a pipe the first four are the pipe mode."""
    sub_channel_index: int
    child_relid: int
    monitorid: int
    monitor_allocated: bool
    is_dedicated_interrupt: bool
    connection_id: int
    raw: bytes = b""
    """The message as the host sent it: after hibernation the kernel compares all of it."""


@dataclass(slots=True)
class VmbusGpadl:
    """``struct vmbus_gpadl``: memory shared with the host under one handle."""

    gpadl_handle: int = 0
    size: int = 0
    """Bytes."""
    buffer: int = 0
    """Guest physical address of the first byte."""
    decrypted: bool = False


@dataclass(slots=True)
class VmbusRequestor:
    """``struct vmbus_requestor``: hands out transaction ids and remembers what they stand for."""

    req_arr: list[int] = field(default_factory=list)
    """An address per slot in use, else the next free slot."""
    req_bitmap: bytearray = field(default_factory=bytearray)
    """One byte per slot: in use."""
    size: int = 0
    next_request_id: int = 0
    req_lock: Spinlock | None = None


class VmbusChannel:
    """``struct vmbus_channel``."""

    __slots__ = (
        "add_channel_work",
        "callback_event",
        "callback_mode",
        "change_target_cpu_callback",
        "channel_callback_context",
        "chn_rescind_callback",
        "device_id",
        "device_obj",
        "fuzz_testing_interrupt_delay",
        "fuzz_testing_message_delay",
        "fuzz_testing_state",
        "inbound",
        "interrupts",
        "intr_in_full",
        "intr_out_empty",
        "is_dedicated_interrupt",
        "low_latency",
        "max_pkt_size",
        "monitor_bit",
        "monitor_grp",
        "next_request_id_callback",
        "offermsg",
        "onchannel_callback",
        "out_full_first",
        "out_full_flag",
        "out_full_total",
        "outbound",
        "per_channel_state",
        "primary_channel",
        "probe_done",
        "request_addr_callback",
        "requestor",
        "rescind",
        "rescind_event",
        "rescind_ref",
        "ringbuffer_gpadlhandle",
        "ringbuffer_page",
        "ringbuffer_pagecount",
        "ringbuffer_send_offset",
        "rqstor_size",
        "sc_creation_callback",
        "sc_list",
        "sched_lock",
        "sig_event",
        "sig_events",
        "state",
        "target_cpu",
    )

    def __init__(
        self, offermsg: VmbusOffer, sched_lock: Spinlock, callback_event: Tasklet, outbound: Any, inbound: Any
    ) -> None:
        self.offermsg = offermsg
        self.device_obj: HvDevice | None = None
        self.state = VmbusChannelState.CHANNEL_OFFER_STATE
        """Changed by :mod:`hvkernel.hv` only, along the table of :mod:`hvkernel.hv.channel_state`."""
        self.monitor_grp = 0
        self.monitor_bit = 0
        self.rescind = False
        self.rescind_ref = False
        self.rescind_event = Completion()
        self.ringbuffer_gpadlhandle = VmbusGpadl()
        self.ringbuffer_page: Page | None = None
        self.ringbuffer_pagecount = 0
        """Guest pages of both rings."""
        self.ringbuffer_send_offset = 0
        """Guest pages of the outbound ring, which lies first."""
        self.outbound = outbound
        """``struct hv_ring_buffer_info`` (hvkernel.hv.ring_buffer), guest to host."""
        self.inbound = inbound
        self.interrupts = 0
        self.sig_events = 0
        self.intr_out_empty = 0
        self.intr_in_full = 0
        self.out_full_flag = False
        self.out_full_total = 0
        self.out_full_first = 0
        self.callback_event = callback_event
        self.onchannel_callback: Callable[[Any], None] | None = None
        self.channel_callback_context: Any = None
        self.change_target_cpu_callback: Callable[[VmbusChannel, int, int], None] | None = None
        self.sched_lock = sched_lock
        self.callback_mode = HvCallbackMode.HV_CALL_BATCHED
        self.is_dedicated_interrupt = False
        self.sig_event = 0
        """Connection id that HVCALL_SIGNAL_EVENT takes."""
        self.target_cpu = 0
        self.sc_creation_callback: Callable[[VmbusChannel], None] | None = None
        self.chn_rescind_callback: Callable[[VmbusChannel], None] | None = None
        self.sc_list: list[VmbusChannel] = []
        self.primary_channel: VmbusChannel | None = None
        self.per_channel_state: Any = None
        self.low_latency = False
        self.probe_done = False
        self.device_id = 0
        """Index into vmbus_devs[] (``enum vmbus_device_type``)."""
        self.add_channel_work: Work | None = None
        self.next_request_id_callback: Callable[[VmbusChannel, int], int] | None = None
        self.request_addr_callback: Callable[[VmbusChannel, int], int] | None = None
        self.requestor = VmbusRequestor()
        self.rqstor_size = 0
        self.max_pkt_size = 0
        """Bytes; 0 means VMBUS_DEFAULT_MAX_PKT_SIZE at open."""
        self.fuzz_testing_state = False
        """The delays of a device's primary channel are made (CONFIG_HYPERV_TESTING)."""
        self.fuzz_testing_interrupt_delay = 0
        """Microseconds before the callback."""
        self.fuzz_testing_message_delay = 0
        """Microseconds before each look at the inbound ring."""

    def __repr__(self) -> str:
        return f"VmbusChannel(relid={self.offermsg.child_relid}, {pUl(self.offermsg.if_instance)}, {self.state.name})"


@dataclass(frozen=True, slots=True)
class HvVmbusDeviceId:
    """``struct hv_vmbus_device_id``: a row of a driver's id table."""

    guid: bytes
    driver_data: Any = 0


class HvDevice(Device):
    """``struct hv_device``: what a VMBus driver is probed with. Its name is the instance GUID."""

    def __init__(self, dev_type: bytes, dev_instance: bytes, channel: VmbusChannel) -> None:
        super().__init__(pUl(dev_instance))
        self.dev_type = dev_type
        self.dev_instance = dev_instance
        self.vendor_id = PCI_VENDOR_ID_MICROSOFT
        self.device_id = 0
        self.driver_override: str | None = None
        self.channel = channel
        self.channels_kset: list[VmbusChannel] | None = None
        """Channels shown in the device's ``channels`` directory of sysfs."""
        self.debug_dir: Dentry | None = None

    @property
    def modalias(self) -> str:
        """``vmbus:`` and the class GUID in wire byte order."""
        return f"vmbus:{self.dev_type.hex()}"


def hv_set_drvdata(dev: HvDevice, data: Any) -> None:
    """Remember the driver's own object for a device."""
    dev.driver_data = data


def hv_get_drvdata(dev: HvDevice) -> Any:
    """Return what :func:`hv_set_drvdata` remembered, ``None`` before."""
    return dev.driver_data


class HvDriver(DeviceDriver):
    """``struct hv_driver``. ``probe`` returns 0 or a negative errno; ``id_table`` has the classes it drives."""

    def __init__(
        self,
        name: str,
        id_table: Sequence[HvVmbusDeviceId],
        probe: Callable[[HvDevice, HvVmbusDeviceId], int] | None,
        *,
        remove: Callable[[HvDevice], None] | None = None,
        shutdown: Callable[[HvDevice], None] | None = None,
        suspend: Callable[[HvDevice], int] | None = None,
        resume: Callable[[HvDevice], int] | None = None,
        hvsock: bool = False,
        probe_type: ProbeType = ProbeType.PROBE_PREFER_ASYNCHRONOUS,
    ) -> None:
        super().__init__(name, probe_type=probe_type)
        self.id_table = tuple(id_table)
        self.probe = probe
        self.remove = remove
        self.shutdown = shutdown
        self.suspend = suspend
        self.resume = resume
        self.hvsock = hvsock
        """The hv_sock driver: takes every TLNPI provider offer, whatever its class."""
        self.dynids: list[HvVmbusDeviceId] = []
        """Ids added through sysfs ``new_id``."""


@dataclass(frozen=True, slots=True)
class HvPageBuffer:
    """``struct hv_page_buffer``: bytes inside one 4 KiB page."""

    len: int
    offset: int
    pfn: int
    """Hyper-V (4 KiB) page number."""


@dataclass(slots=True)
class HvMpbArray:
    """``struct hv_mpb_array``: one range over many 4 KiB pages. Not changed once made."""

    len: int
    """Bytes of the range."""
    offset: int
    """Byte offset into the first page."""
    pfn_array: Sequence[int]
    """Hyper-V (4 KiB) page numbers."""


class VmbusPacket(Protocol):
    """One received packet, copied out of the ring: ``struct vmpacket_descriptor`` and what follows."""

    @property
    def type(self) -> int: ...
    @property
    def flags(self) -> int: ...
    @property
    def trans_id(self) -> int: ...
    @property
    def offset8(self) -> int: ...
    @property
    def len8(self) -> int: ...
    @property
    def raw(self) -> bytes | bytearray:
        """The whole packet, descriptor included, without the trailer."""


class Vmbus(Protocol):
    """The exports of ``hv_vmbus``, under the kernel's names."""

    @property
    def vmbus_proto_version(self) -> int:
        """The negotiated version, ``major << 16 | minor``; 0 before."""

    def vmbus_driver_register(self, drv: HvDriver, owner: str) -> int:
        """Register a VMBus driver; probes of devices already there start at once. Returns 0 or a negative errno.

        :param owner: the module's name.
        """

    def vmbus_driver_unregister(self, drv: HvDriver) -> None: ...

    def VMBUS_RING_SIZE(self, payload_sz: int) -> int:
        """Bytes of one ring for ``payload_sz`` bytes of data at this guest's page size."""

    def vmbus_alloc_ring(self, channel: VmbusChannel, send_size: int, recv_size: int) -> int: ...
    def vmbus_free_ring(self, channel: VmbusChannel) -> None: ...
    def vmbus_connect_ring(
        self, channel: VmbusChannel, onchannelcallback: Callable[[Any], None], context: Any
    ) -> int: ...
    def vmbus_disconnect_ring(self, channel: VmbusChannel) -> int: ...
    def vmbus_open(
        self,
        channel: VmbusChannel,
        send_ringbuffer_size: int,
        recv_ringbuffer_size: int,
        userdata: bytes,
        onchannelcallback: Callable[[Any], None],
        context: Any,
    ) -> int:
        """Make the rings, share them and open the channel; 0 or a negative errno. May sleep.

        :param send_ringbuffer_size: bytes, a multiple of PAGE_SIZE.
        """

    def vmbus_close(self, channel: VmbusChannel) -> None: ...
    def vmbus_establish_gpadl(
        self, channel: VmbusChannel, buffer: int | Sequence[int], size: int, gpadl: VmbusGpadl
    ) -> int:
        """Share ``size`` bytes with the host. May sleep.

        :param buffer: guest physical address, or the 4 KiB page numbers of memory that is not contiguous.
        """

    def vmbus_teardown_gpadl(self, channel: VmbusChannel, gpadl: VmbusGpadl) -> int: ...
    def vmbus_reset_channel_cb(self, channel: VmbusChannel) -> None: ...

    def vmbus_sendpacket(
        self, channel: VmbusChannel, buffer: bytes | bytearray | memoryview, requestid: int, type: int, flags: int
    ) -> int:
        """Send one packet; 0, -EAGAIN when the ring (or the requestor) is full, -ENODEV when rescinded."""

    def vmbus_sendpacket_getid(
        self, channel: VmbusChannel, buffer: bytes | bytearray | memoryview, requestid: int, type: int, flags: int
    ) -> tuple[int, int]:
        """Send one packet; returns also the transaction id that it got."""

    def vmbus_sendpacket_pagebuffer(
        self,
        channel: VmbusChannel,
        pagebuffers: Sequence[HvPageBuffer],
        buffer: bytes | bytearray | memoryview,
        requestid: int,
    ) -> int:
        """Send a GPA-direct packet of single-page ranges."""

    def vmbus_sendpacket_mpb_desc(
        self,
        channel: VmbusChannel,
        desc: HvMpbArray,
        desc_size: int,
        buffer: bytes | bytearray | memoryview,
        requestid: int,
    ) -> int:
        """Send a GPA-direct packet of one multi-page range.

        :param desc_size: bytes of descriptor on the wire; a caller may send more than the array needs (zero filled).
        """

    def vmbus_recvpacket(self, channel: VmbusChannel, bufferlen: int) -> tuple[int, bytes, int, int]:
        """Take one packet's payload: (status, bytes, actual length, transaction id).

        Status 0 with length 0 is an empty ring; -ENOBUFS leaves the packet and says how long it is.
        """

    def vmbus_recvpacket_raw(self, channel: VmbusChannel, bufferlen: int) -> tuple[int, bytes, int, int]:
        """As :meth:`vmbus_recvpacket`, with the descriptor."""

    def foreach_vmbus_pkt(self, channel: VmbusChannel) -> Iterator[VmbusPacket]: ...
    def hv_pkt_iter_close(self, channel: VmbusChannel) -> None:
        """Give the ring space of what was read back to the host; a driver calls it when it leaves the loop early."""

    def hv_pkt_data(self, desc: VmbusPacket) -> bytes | bytearray: ...
    def hv_pkt_datalen(self, desc: VmbusPacket) -> int: ...
    def hv_begin_read(self, channel: VmbusChannel) -> None: ...
    def hv_end_read(self, channel: VmbusChannel) -> int: ...
    def hv_get_avail_to_write_percent(self, channel: VmbusChannel) -> int: ...
    def set_channel_pending_send_size(self, channel: VmbusChannel, size: int) -> None:
        """Ask the host for a signal (the channel's callback) once more than ``size`` bytes are free; 0 takes it back.

        Look at the ring again afterwards: the room may have come in between.
        """

    def hv_ringbuffer_spinlock_busy(self, channel: VmbusChannel) -> bool: ...
    def set_channel_read_mode(self, channel: VmbusChannel, mode: HvCallbackMode) -> None: ...

    def vmbus_next_request_id(self, channel: VmbusChannel, rqst_addr: int) -> int: ...
    def vmbus_request_addr(self, channel: VmbusChannel, trans_id: int) -> int: ...
    def vmbus_request_addr_match(self, channel: VmbusChannel, trans_id: int, rqst_addr: int) -> int: ...

    def vmbus_set_sc_create_callback(
        self, primary_channel: VmbusChannel, sc_cr_cb: Callable[[VmbusChannel], None]
    ) -> None: ...
    def vmbus_set_chn_rescind_callback(
        self, channel: VmbusChannel, chn_rescind_cb: Callable[[VmbusChannel], None]
    ) -> None: ...
    def vmbus_hvsock_device_unregister(self, channel: VmbusChannel) -> None:
        """Give up the device of an hv_sock channel, once its rescind has come. May sleep."""

    def vmbus_send_tl_connect_request(self, shv_guest_servie_id: bytes, shv_host_servie_id: bytes) -> int:
        """Ask the host for an hv_sock connection to a service of its own; 0 or a negative errno."""

    def vmbus_send_modifychannel(self, channel: VmbusChannel, target_vp: int) -> int: ...
    def vmbus_prep_negotiate_resp(
        self, buf: bytearray, buflen: int, fw_version: Sequence[int], srv_version: Sequence[int]
    ) -> tuple[bool, int, int]:
        """Answer an IC NEGOTIATE message in place: (a service version was found, framework version, service version).

        -1 for a version that was not written (a message too short to answer).
        """

    def vmbus_allocate_mmio(
        self, device_obj: HvDevice, min: int, max: int, size: int, align: int, fb_overlap_ok: bool
    ) -> Resource | int:
        """Take an MMIO range out of what ACPI gives the bus: the range, or -ENXIO."""

    def vmbus_free_mmio(self, start: int, size: int) -> None: ...


class HvCommon(Protocol):
    """The exports of ``hv_common``, built in whenever HYPERV is not n."""

    @property
    def hv_vp_index(self) -> list[int]:
        """VP index by CPU number, VP_INVAL for a CPU that never ran; empty before :meth:`hv_common_init`."""

    @property
    def hv_max_vp_index(self) -> int: ...

    def hv_common_init(self) -> int: ...
    def hv_common_free(self) -> None: ...
    def hv_common_cpu_init(self, cpu: int) -> int: ...
    def hv_common_cpu_die(self, cpu: int) -> int: ...

    def hyperv_pcpu_input_arg(self, cpu: int) -> int | None:
        """Guest physical address of a CPU's hypercall input page, ``None`` without one."""

    def hyperv_pcpu_output_arg(self, cpu: int) -> int | None: ...
    def hv_query_ext_cap(self, cap_query: int) -> bool: ...
    def hv_read_reference_counter(self) -> int:
        """The partition's reference time in 100 ns units, by the best means set up so far."""

    def set_hv_read_reference_counter(self, read: Callable[[], int]) -> None: ...
    def hv_cpu_number_to_vp_number(self, cpu: int) -> int: ...


class HvTimer(Protocol):
    """The exports of ``drivers/clocksource/hyperv_timer.c``."""

    def hv_init_clocksource(self) -> None: ...
    def hv_stimer_alloc(self, have_percpu_irqs: bool) -> int: ...
    def hv_stimer_cleanup(self, cpu: int) -> int: ...
    def hv_stimer_legacy_init(self, cpu: int, sint: int) -> None: ...
    def hv_stimer_legacy_cleanup(self, cpu: int) -> None: ...
    def hv_stimer_global_cleanup(self) -> None: ...
    def hv_stimer0_isr(self) -> None: ...
