"""Structs of the channel messages, each with its header. Available as `hvkernel.abi.vmbus` too."""

from __future__ import annotations

from typing import Annotated

from hvkernel.abi.ring import GpaRange
from hvkernel.abi.wire import Bits, Guid, Union, Wire, overlay, tail, u8, u16, u32, u64, union, wire


@wire(size=120, source="include/linux/hyperv.h:296 @6.1.192")
class VmbusChannelOfferUStd(Wire):
    """Not a pipe."""

    user_def: Annotated[bytes, 120]


@wire(size=120, source="include/linux/hyperv.h:296 @6.1.192")
class VmbusChannelOfferUPipe(Wire):
    """A pipe (VMBUS_CHANNEL_NAMED_PIPE_MODE)."""

    pipe_mode: u32
    user_def: Annotated[bytes, 116]


@union(size=120, source="include/linux/hyperv.h:296 @6.1.192")
class VmbusChannelOfferU(Union):
    """User data, as for pipes or not."""

    std: VmbusChannelOfferUStd
    pipe: VmbusChannelOfferUPipe


@wire(size=176, source="include/linux/hyperv.h:296 @6.1.192")
class VmbusChannelOffer(Wire):
    """What an offer says about a channel (in OFFERCHANNEL)."""

    __kernel__ = "vmbus_channel_offer"

    if_type: Guid
    """Device class; see `hvkernel.abi.guids`."""
    if_instance: Guid
    """The device."""
    reserved1: u64
    reserved2: u64
    chn_flags: u16
    """VMBUS_CHANNEL_* flags."""
    mmio_megabytes: u16
    """MMIO space that the device needs, in MiB."""
    u: VmbusChannelOfferU
    sub_channel_index: u16
    """0 for a device's primary channel; reserved before VMBus 2.4."""
    reserved3: u16


@wire(size=8, source="include/linux/hyperv.h:515 @6.1.192")
class VmbusChannelMessageHeader(Wire):
    """In front of every channel message."""

    __kernel__ = "vmbus_channel_message_header"

    msgtype: u32
    """A `VmbusChannelMessageType`."""
    padding: u32


@wire(size=12, source="include/linux/hyperv.h:521 @6.1.192")
class VmbusChannelQueryVmbusVersion(Wire):
    """Ask for a version; from before INITIATE_CONTACT, has no message number."""

    __kernel__ = "vmbus_channel_query_vmbus_version"

    header: VmbusChannelMessageHeader
    version: u32


@wire(size=9, source="include/linux/hyperv.h:527 @6.1.192")
class VmbusChannelVersionSupported(Wire):
    """Answer to it; has no message number."""

    __kernel__ = "vmbus_channel_version_supported"

    header: VmbusChannelMessageHeader
    version_supported: u8


@wire(size=196, source="include/linux/hyperv.h:533 @6.1.192")
class VmbusChannelOfferChannel(Wire):
    """Host offers a channel."""

    __kernel__ = "vmbus_channel_offer_channel"

    header: VmbusChannelMessageHeader
    offer: VmbusChannelOffer
    child_relid: u32
    """Number of the channel in all later messages."""
    monitorid: u8
    """Bit of the monitor page (group * 32 + bit), valid with monitor_allocated."""
    monitor_allocated: Annotated[int, Bits(u8, 1)]
    reserved: Annotated[int, Bits(u8, 7)]
    is_dedicated_interrupt: Annotated[int, Bits(u16, 1)]
    """The channel has its own connection: no bit in the interrupt page to set. From VMBus 1.1."""
    reserved1: Annotated[int, Bits(u16, 15)]
    connection_id: u32
    """Connection to signal. From VMBus 1.1."""


@wire(size=12, source="include/linux/hyperv.h:560 @6.1.192")
class VmbusChannelRescindOffer(Wire):
    """Host takes an offer back."""

    __kernel__ = "vmbus_channel_rescind_offer"

    header: VmbusChannelMessageHeader
    child_relid: u32


@wire(size=148, source="include/linux/hyperv.h:575 @6.1.192")
class VmbusChannelOpenChannel(Wire):
    """Guest opens a channel."""

    __kernel__ = "vmbus_channel_open_channel"

    header: VmbusChannelMessageHeader
    child_relid: u32
    openid: u32
    """Chosen by the guest; Linux uses the relid. The result repeats it."""
    ringbuffer_gpadlhandle: u32
    """GPADL of both rings."""
    target_vp: u32
    """VP index to interrupt. Before VMBus 2.4 always 0."""
    downstream_ringbuffer_pageoffset: u32
    """Where the host-to-guest ring begins, in 4 KiB pages of the GPADL."""
    userdata: Annotated[bytes, 120]
    """For the device."""


@wire(size=20, source="include/linux/hyperv.h:609 @6.1.192")
class VmbusChannelOpenResult(Wire):
    """Host answers OPENCHANNEL."""

    __kernel__ = "vmbus_channel_open_result"

    header: VmbusChannelMessageHeader
    child_relid: u32
    openid: u32
    status: u32
    """0, or an NTSTATUS."""


@wire(size=16, source="include/linux/hyperv.h:617 @6.1.192")
class VmbusChannelModifychannelResponse(Wire):
    """Host answers MODIFYCHANNEL, from VMBus 5.3 on."""

    __kernel__ = "vmbus_channel_modifychannel_response"

    header: VmbusChannelMessageHeader
    child_relid: u32
    status: u32


@wire(size=12, source="include/linux/hyperv.h:624 @6.1.192")
class VmbusChannelCloseChannel(Wire):
    """Guest closes a channel; there is no answer."""

    __kernel__ = "vmbus_channel_close_channel"

    header: VmbusChannelMessageHeader
    child_relid: u32


@wire(size=20, source="include/linux/hyperv.h:640 @6.1.192")
class VmbusChannelGpadlHeader(Wire):
    """Guest describes memory: the first message. The ranges follow, as far as they fit."""

    __kernel__ = "vmbus_channel_gpadl_header"

    header: VmbusChannelMessageHeader
    child_relid: u32
    gpadl: u32
    range_buflen: u16
    """Bytes of all ranges: 8 + 8 per page, modulo 65536."""
    rangecount: u16
    range = tail(GpaRange)


@wire(size=16, source="include/linux/hyperv.h:650 @6.1.192")
class VmbusChannelGpadlBody(Wire):
    """Guest describes memory: page numbers that did not fit."""

    __kernel__ = "vmbus_channel_gpadl_body"

    header: VmbusChannelMessageHeader
    msgnumber: u32
    """Linux leaves it 0."""
    gpadl: u32
    pfn = tail(u64)


@wire(size=20, source="include/linux/hyperv.h:657 @6.1.192")
class VmbusChannelGpadlCreated(Wire):
    """Host answers a GPADL once it is complete."""

    __kernel__ = "vmbus_channel_gpadl_created"

    header: VmbusChannelMessageHeader
    child_relid: u32
    gpadl: u32
    creation_status: u32
    """0, or an NTSTATUS."""


@wire(size=16, source="include/linux/hyperv.h:664 @6.1.192")
class VmbusChannelGpadlTeardown(Wire):
    """Guest wants its memory back."""

    __kernel__ = "vmbus_channel_gpadl_teardown"

    header: VmbusChannelMessageHeader
    child_relid: u32
    gpadl: u32


@wire(size=12, source="include/linux/hyperv.h:670 @6.1.192")
class VmbusChannelGpadlTorndown(Wire):
    """Host no longer uses it."""

    __kernel__ = "vmbus_channel_gpadl_torndown"

    header: VmbusChannelMessageHeader
    gpadl: u32


@wire(size=12, source="include/linux/hyperv.h:675 @6.1.192")
class VmbusChannelRelidReleased(Wire):
    """Guest has forgotten a rescinded channel; its relid may be used again."""

    __kernel__ = "vmbus_channel_relid_released"

    header: VmbusChannelMessageHeader
    child_relid: u32


@wire(size=40, source="include/linux/hyperv.h:680 @6.1.192")
class VmbusChannelInitiateContact(Wire):
    """Guest proposes a VMBus version. From 5.0 on msg_sint replaces interrupt_page."""

    __kernel__ = "vmbus_channel_initiate_contact"

    header: VmbusChannelMessageHeader
    vmbus_version_requested: u32
    target_vcpu: u32
    """VP index that messages go to."""
    interrupt_page: u64
    """GPA of the interrupt page, before VMBus 5.0."""
    monitor_page1: u64
    """GPA of the page on which the host notifies the guest (parent to child)."""
    monitor_page2: u64
    """GPA of the page on which the guest notifies the host (child to parent)."""
    msg_sint: u8 = overlay(16)
    """SINT that messages go to, from VMBus 5.0 on."""
    padding1: Annotated[bytes, 3] = overlay(17)
    padding2: u32 = overlay(20)


@wire(size=40, source="include/linux/hyperv.h:697 @6.1.192")
class VmbusChannelTlConnectRequest(Wire):
    """Guest asks for a hypervisor socket to a service of the host."""

    __kernel__ = "vmbus_channel_tl_connect_request"

    header: VmbusChannelMessageHeader
    guest_endpoint_id: Guid
    host_service_id: Guid


@wire(size=16, source="include/linux/hyperv.h:704 @6.1.192")
class VmbusChannelModifychannel(Wire):
    """Guest moves a channel's interrupt to another VP."""

    __kernel__ = "vmbus_channel_modifychannel"

    header: VmbusChannelMessageHeader
    child_relid: u32
    target_vp: u32


@wire(size=16, source="include/linux/hyperv.h:710 @6.1.192")
class VmbusChannelVersionResponse(Wire):
    """Host answers INITIATE_CONTACT."""

    __kernel__ = "vmbus_channel_version_response"

    header: VmbusChannelMessageHeader
    version_supported: u8
    connection_state: u8
    """Why not, when version_supported is 0."""
    padding: u16
    msg_conn_id: u32
    """Connection for all further messages, from VMBus 5.0 on."""
