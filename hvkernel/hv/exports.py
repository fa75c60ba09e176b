"""What ``hv_vmbus`` exports to drivers, bound to one guest: implements :class:`~hvkernel.api.guest.hyperv.Vmbus`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from hvkernel.hv import channel as channel_c
from hvkernel.hv import channel_mgmt, channel_packets, mmio, ring_buffer, vmbus_drv
from hvkernel.hv.negotiate import vmbus_prep_negotiate_resp

if TYPE_CHECKING:
    from hvkernel.abi.vmbus import HvCallbackMode
    from hvkernel.api.guest.device import Resource
    from hvkernel.api.guest.hyperv import (
        HvDevice,
        HvDriver,
        HvMpbArray,
        HvPageBuffer,
        VmbusChannel,
        VmbusGpadl,
        VmbusPacket,
    )
    from hvkernel.hv.hyperv_vmbus import HvVmbus

__all__ = ["VmbusExports"]

Buffer = bytes | bytearray | memoryview


class VmbusExports:
    """The exported functions; each is documented where it is implemented."""

    __slots__ = ("v",)

    def __init__(self, v: HvVmbus) -> None:
        self.v = v

    @property
    def vmbus_proto_version(self) -> int:
        return self.v.vmbus_proto_version

    def vmbus_driver_register(self, drv: HvDriver, owner: str) -> int:
        return vmbus_drv.vmbus_driver_register(self.v, drv, owner)

    def vmbus_driver_unregister(self, drv: HvDriver) -> None:
        vmbus_drv.vmbus_driver_unregister(self.v, drv)

    def VMBUS_RING_SIZE(self, payload_sz: int) -> int:
        return ring_buffer.VMBUS_RING_SIZE(payload_sz, self.v.PAGE_SIZE)

    def vmbus_alloc_ring(self, channel: VmbusChannel, send_size: int, recv_size: int) -> int:
        return channel_c.vmbus_alloc_ring(self.v, channel, send_size, recv_size)

    def vmbus_free_ring(self, channel: VmbusChannel) -> None:
        channel_c.vmbus_free_ring(self.v, channel)

    def vmbus_connect_ring(self, channel: VmbusChannel, onchannelcallback: Callable[[Any], None], context: Any) -> int:
        return channel_c.vmbus_connect_ring(self.v, channel, onchannelcallback, context)

    def vmbus_disconnect_ring(self, channel: VmbusChannel) -> int:
        return channel_c.vmbus_disconnect_ring(self.v, channel)

    def vmbus_open(
        self,
        channel: VmbusChannel,
        send_ringbuffer_size: int,
        recv_ringbuffer_size: int,
        userdata: bytes,
        onchannelcallback: Callable[[Any], None],
        context: Any,
    ) -> int:
        return channel_c.vmbus_open(
            self.v, channel, send_ringbuffer_size, recv_ringbuffer_size, userdata, onchannelcallback, context
        )

    def vmbus_close(self, channel: VmbusChannel) -> None:
        channel_c.vmbus_close(self.v, channel)

    def vmbus_establish_gpadl(
        self, channel: VmbusChannel, buffer: int | Sequence[int], size: int, gpadl: VmbusGpadl
    ) -> int:
        return channel_c.vmbus_establish_gpadl(self.v, channel, buffer, size, gpadl)

    def vmbus_teardown_gpadl(self, channel: VmbusChannel, gpadl: VmbusGpadl) -> int:
        return channel_c.vmbus_teardown_gpadl(self.v, channel, gpadl)

    def vmbus_reset_channel_cb(self, channel: VmbusChannel) -> None:
        channel_c.vmbus_reset_channel_cb(self.v, channel)

    def vmbus_sendpacket(self, channel: VmbusChannel, buffer: Buffer, requestid: int, type: int, flags: int) -> int:
        return channel_packets.vmbus_sendpacket(self.v, channel, buffer, requestid, type, flags)

    def vmbus_sendpacket_getid(
        self, channel: VmbusChannel, buffer: Buffer, requestid: int, type: int, flags: int
    ) -> tuple[int, int]:
        return channel_packets.vmbus_sendpacket_getid(self.v, channel, buffer, requestid, type, flags)

    def vmbus_sendpacket_pagebuffer(
        self, channel: VmbusChannel, pagebuffers: Sequence[HvPageBuffer], buffer: Buffer, requestid: int
    ) -> int:
        return channel_packets.vmbus_sendpacket_pagebuffer(self.v, channel, pagebuffers, buffer, requestid)

    def vmbus_sendpacket_mpb_desc(
        self, channel: VmbusChannel, desc: HvMpbArray, desc_size: int, buffer: Buffer, requestid: int
    ) -> int:
        return channel_packets.vmbus_sendpacket_mpb_desc(self.v, channel, desc, desc_size, buffer, requestid)

    def vmbus_recvpacket(self, channel: VmbusChannel, bufferlen: int) -> tuple[int, bytes, int, int]:
        return channel_packets.vmbus_recvpacket(self.v, channel, bufferlen)

    def vmbus_recvpacket_raw(self, channel: VmbusChannel, bufferlen: int) -> tuple[int, bytes, int, int]:
        return channel_packets.vmbus_recvpacket_raw(self.v, channel, bufferlen)

    def foreach_vmbus_pkt(self, channel: VmbusChannel) -> Iterator[VmbusPacket]:
        return self.v.rings.foreach_vmbus_pkt(channel)

    def hv_pkt_iter_close(self, channel: VmbusChannel) -> None:
        self.v.rings.hv_pkt_iter_close(channel)

    def hv_pkt_data(self, desc: VmbusPacket) -> bytes | bytearray:
        return desc.raw[desc.offset8 << 3 : desc.len8 << 3]

    def hv_pkt_datalen(self, desc: VmbusPacket) -> int:
        return (desc.len8 << 3) - (desc.offset8 << 3)

    def hv_begin_read(self, channel: VmbusChannel) -> None:
        self.v.rings.hv_begin_read(channel.inbound)

    def hv_end_read(self, channel: VmbusChannel) -> int:
        return self.v.rings.hv_end_read(channel.inbound)

    def hv_get_avail_to_write_percent(self, channel: VmbusChannel) -> int:
        return ring_buffer.hv_get_avail_to_write_percent(channel.outbound)

    def set_channel_pending_send_size(self, channel: VmbusChannel, size: int) -> None:
        self.v.rings.set_channel_pending_send_size(channel, size)

    def hv_ringbuffer_spinlock_busy(self, channel: VmbusChannel) -> bool:
        return self.v.rings.hv_ringbuffer_spinlock_busy(channel)

    def set_channel_read_mode(self, channel: VmbusChannel, mode: HvCallbackMode) -> None:
        channel.callback_mode = mode

    def vmbus_next_request_id(self, channel: VmbusChannel, rqst_addr: int) -> int:
        return channel_packets.vmbus_next_request_id(self.v, channel, rqst_addr)

    def vmbus_request_addr(self, channel: VmbusChannel, trans_id: int) -> int:
        return channel_packets.vmbus_request_addr(self.v, channel, trans_id)

    def vmbus_request_addr_match(self, channel: VmbusChannel, trans_id: int, rqst_addr: int) -> int:
        return channel_packets.vmbus_request_addr_match(self.v, channel, trans_id, rqst_addr)

    def vmbus_set_sc_create_callback(
        self, primary_channel: VmbusChannel, sc_cr_cb: Callable[[VmbusChannel], None]
    ) -> None:
        primary_channel.sc_creation_callback = sc_cr_cb

    def vmbus_set_chn_rescind_callback(
        self, channel: VmbusChannel, chn_rescind_cb: Callable[[VmbusChannel], None]
    ) -> None:
        channel.chn_rescind_callback = chn_rescind_cb

    def vmbus_hvsock_device_unregister(self, channel: VmbusChannel) -> None:
        channel_mgmt.vmbus_hvsock_device_unregister(self.v, channel)

    def vmbus_send_tl_connect_request(self, shv_guest_servie_id: bytes, shv_host_servie_id: bytes) -> int:
        return channel_c.vmbus_send_tl_connect_request(self.v, shv_guest_servie_id, shv_host_servie_id)

    def vmbus_send_modifychannel(self, channel: VmbusChannel, target_vp: int) -> int:
        return channel_c.vmbus_send_modifychannel(self.v, channel, target_vp)

    def vmbus_prep_negotiate_resp(
        self, buf: bytearray, buflen: int, fw_version: Sequence[int], srv_version: Sequence[int]
    ) -> tuple[bool, int, int]:
        return vmbus_prep_negotiate_resp(buf, buflen, fw_version, srv_version, self.v.pr_err_ratelimited)

    def vmbus_allocate_mmio(
        self, device_obj: HvDevice, min: int, max: int, size: int, align: int, fb_overlap_ok: bool
    ) -> Resource | int:
        return mmio.vmbus_allocate_mmio(self.v, device_obj.name, min, max, size, align, fb_overlap_ok)

    def vmbus_free_mmio(self, start: int, size: int) -> None:
        mmio.vmbus_free_mmio(self.v, start, size)
