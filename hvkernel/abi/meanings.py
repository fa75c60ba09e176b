"""The VMBus's own meanings: channel messages, rings, packets, SynIC messages, in the words of `hvkernel.abi.meaning`.

Every value comes from the module that defines it, which names its source.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from hvkernel.abi import ring, vmbus
from hvkernel.abi.meaning import Choice, Flags, Form, Meaning, Names, Test, names
from hvkernel.abi.tlfs_synic import HvMessageType

_STATUS: Final = Names(MappingProxyType({0: "STATUS_SUCCESS", 0xC000_0001: "STATUS_UNSUCCESSFUL"}), closed=False)
_PACKET: Final = names(ring.VmbusPacketType)
_PACKET_FLAGS: Final = Flags(
    MappingProxyType({ring.VMBUS_DATA_PACKET_FLAG_COMPLETION_REQUESTED: "VMBUS_DATA_PACKET_FLAG_COMPLETION_REQUESTED"})
)
_BOOL: Final = Names(MappingProxyType({0: "no", 1: "yes"}), closed=False)
_RELID: Final = Form.DECIMAL
_OFFER_FLAGS: Final = Flags(
    MappingProxyType(
        {
            getattr(vmbus, name): name
            for name in (
                "VMBUS_CHANNEL_ENUMERATE_DEVICE_INTERFACE",
                "VMBUS_CHANNEL_SERVER_SUPPORTS_TRANSFER_PAGES",
                "VMBUS_CHANNEL_SERVER_SUPPORTS_GPADLS",
                "VMBUS_CHANNEL_NAMED_PIPE_MODE",
                "VMBUS_CHANNEL_LOOPBACK_OFFER",
                "VMBUS_CHANNEL_PARENT_OFFER",
                "VMBUS_CHANNEL_REQUEST_MONITORED_NOTIFICATION",
                "VMBUS_CHANNEL_TLNPI_PROVIDER_OFFER",
            )
        }
    )
)

MEANINGS: Final[MappingProxyType[str, Meaning]] = MappingProxyType(
    {
        "vmbus_channel_message_header.msgtype": names(vmbus.VmbusChannelMessageType),
        "vmbus_channel_offer.chn_flags": _OFFER_FLAGS,
        "VmbusChannelOfferUPipe.pipe_mode": Names(
            MappingProxyType(
                {
                    vmbus.VMBUS_PIPE_TYPE_BYTE: "VMBUS_PIPE_TYPE_BYTE",
                    vmbus.VMBUS_PIPE_TYPE_MESSAGE: "VMBUS_PIPE_TYPE_MESSAGE",
                }
            )
        ),
        "vmbus_channel_offer.mmio_megabytes": Form.DECIMAL,
        "vmbus_channel_offer.sub_channel_index": Form.DECIMAL,
        "vmbus_channel_offer_channel.child_relid": _RELID,
        "vmbus_channel_offer_channel.monitor_allocated": _BOOL,
        "vmbus_channel_offer_channel.is_dedicated_interrupt": _BOOL,
        "vmbus_channel_rescind_offer.child_relid": _RELID,
        "vmbus_channel_open_channel.child_relid": _RELID,
        "vmbus_channel_open_channel.openid": Form.DECIMAL,
        "vmbus_channel_open_channel.target_vp": Form.DECIMAL,
        "vmbus_channel_open_channel.downstream_ringbuffer_pageoffset": Form.DECIMAL,
        "vmbus_channel_open_result.child_relid": _RELID,
        "vmbus_channel_open_result.openid": Form.DECIMAL,
        "vmbus_channel_open_result.status": _STATUS,
        "vmbus_channel_modifychannel_response.child_relid": _RELID,
        "vmbus_channel_modifychannel_response.status": _STATUS,
        "vmbus_channel_close_channel.child_relid": _RELID,
        "vmbus_channel_gpadl_header.child_relid": _RELID,
        "vmbus_channel_gpadl_header.range_buflen": Form.DECIMAL,
        "vmbus_channel_gpadl_header.rangecount": Form.DECIMAL,
        "vmbus_channel_gpadl_body.msgnumber": Form.DECIMAL,
        "vmbus_channel_gpadl_created.child_relid": _RELID,
        "vmbus_channel_gpadl_created.creation_status": _STATUS,
        "vmbus_channel_gpadl_teardown.child_relid": _RELID,
        "vmbus_channel_relid_released.child_relid": _RELID,
        "vmbus_channel_initiate_contact.vmbus_version_requested": Form.VERSION,
        "vmbus_channel_initiate_contact.target_vcpu": Form.DECIMAL,
        "vmbus_channel_initiate_contact.msg_sint": Form.DECIMAL,
        "vmbus_channel_modifychannel.child_relid": _RELID,
        "vmbus_channel_modifychannel.target_vp": Form.DECIMAL,
        "vmbus_channel_version_response.version_supported": _BOOL,
        "gpa_range.byte_count": Form.DECIMAL,
        "gpa_range.byte_offset": Form.DECIMAL,
        "vmpacket_descriptor.type": _PACKET,
        "vmpacket_descriptor.offset8": Form.UNITS8,
        "vmpacket_descriptor.len8": Form.UNITS8,
        "vmpacket_descriptor.flags": _PACKET_FLAGS,
        "vmtransfer_page_packet_header.sender_owns_set": _BOOL,
        "vmtransfer_page_packet_header.range_cnt": Form.DECIMAL,
        "vmtransfer_page_range.byte_count": Form.DECIMAL,
        "vmtransfer_page_range.byte_offset": Form.DECIMAL,
        "vmdata_gpa_direct.range_cnt": Form.DECIMAL,
        "vmestablish_gpadl.range_cnt": Form.DECIMAL,
        "hv_ring_buffer.interrupt_mask": _BOOL,
        "hv_ring_buffer.pending_send_sz": Form.DECIMAL,
        "hv_message_header.message_type": Names(
            MappingProxyType({1: "channel message", **names(HvMessageType).values}), closed=False
        ),
        "hv_message_header.payload_size": Form.DECIMAL,
        "hvkernel_pcap_header.vmbus_version": Form.VERSION,
    }
)
"""By ``tag.field`` (include/linux/hyperv.h, include/asm-generic/hyperv-tlfs.h @6.1.192, through the modules named)."""

CHOICES: Final[MappingProxyType[str, tuple[Choice, ...]]] = MappingProxyType(
    {
        # From VMBus 5.0 on msg_sint takes the place of interrupt_page.
        "vmbus_channel_initiate_contact": (
            Choice(
                "vmbus_version_requested",
                Test.FROM,
                (vmbus.VERSION_WIN10_V5,),
                yes=("msg_sint", "padding1", "padding2"),
                no=("interrupt_page",),
            ),
        ),
        "vmbus_channel_offer": (
            Choice("chn_flags", Test.BITS, (vmbus.VMBUS_CHANNEL_NAMED_PIPE_MODE,), yes=("u.pipe",), no=("u.std",)),
        ),
        # The hypervisor's own messages name a partition, the others the port they came by.
        "hv_message_header": (Choice("message_type", Test.FROM, (0x8000_0000,), yes=("sender",), no=("port",)),),
    }
)
"""By tag: members that share bytes (include/linux/hyperv.h @6.1.192, under the structs named)."""
