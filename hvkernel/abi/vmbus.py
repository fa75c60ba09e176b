"""VMBUSDOC"""

from __future__ import annotations

from enum import IntEnum
from types import MappingProxyType
from typing import Annotated, Final, Literal, NamedTuple, TypeAlias

from hvkernel.abi.ring import GpaRange
from hvkernel.abi.wire import Bits, Guid, Union, Wire, overlay, tail, u8, u16, u32, u64, union, wire

VERSION_WS2008: Final = 0xD
"""VERSION_WS2008. (include/linux/hyperv.h:268 @6.1.192)"""
VERSION_WIN7: Final = 0x0001_0001
"""VERSION_WIN7. (include/linux/hyperv.h:269 @6.1.192)"""
VERSION_WIN8: Final = 0x0002_0004
"""VERSION_WIN8. (include/linux/hyperv.h:270 @6.1.192)"""
VERSION_WIN8_1: Final = 0x0003_0000
"""VERSION_WIN8_1. (include/linux/hyperv.h:271 @6.1.192)"""
VERSION_WIN10: Final = 0x0004_0000
"""VERSION_WIN10. (include/linux/hyperv.h:272 @6.1.192)"""
VERSION_WIN10_V4_1: Final = 0x0004_0001
"""VERSION_WIN10_V4_1. (include/linux/hyperv.h:273 @6.1.192)"""
VERSION_WIN10_V5: Final = 0x0005_0000
"""VERSION_WIN10_V5. (include/linux/hyperv.h:274 @6.1.192)"""
VERSION_WIN10_V5_1: Final = 0x0005_0001
"""VERSION_WIN10_V5_1. (include/linux/hyperv.h:275 @6.1.192)"""
VERSION_WIN10_V5_2: Final = 0x0005_0002
"""VERSION_WIN10_V5_2. (include/linux/hyperv.h:276 @6.1.192)"""
VERSION_WIN10_V5_3: Final = 0x0005_0003
"""VERSION_WIN10_V5_3. (include/linux/hyperv.h:277 @6.1.192)"""
MAX_PIPE_DATA_PAYLOAD: Final = 0x4000
"""MAX_PIPE_DATA_PAYLOAD. (include/linux/hyperv.h:280 @6.1.192)"""
VMBUS_PIPE_TYPE_BYTE: Final = 0x0
"""VMBUS_PIPE_TYPE_BYTE. (include/linux/hyperv.h:283 @6.1.192)"""
VMBUS_PIPE_TYPE_MESSAGE: Final = 0x4
"""VMBUS_PIPE_TYPE_MESSAGE. (include/linux/hyperv.h:284 @6.1.192)"""
MAX_USER_DEFINED_BYTES: Final = 0x78
"""MAX_USER_DEFINED_BYTES. (include/linux/hyperv.h:287 @6.1.192)"""
MAX_PIPE_USER_DEFINED_BYTES: Final = 0x74
"""MAX_PIPE_USER_DEFINED_BYTES. (include/linux/hyperv.h:290 @6.1.192)"""
VMBUS_CHANNEL_ENUMERATE_DEVICE_INTERFACE: Final = 1
"""VMBUS_CHANNEL_ENUMERATE_DEVICE_INTERFACE. (include/linux/hyperv.h:338 @6.1.192)"""
VMBUS_CHANNEL_SERVER_SUPPORTS_TRANSFER_PAGES: Final = 2
"""VMBUS_CHANNEL_SERVER_SUPPORTS_TRANSFER_PAGES. (include/linux/hyperv.h:339 @6.1.192)"""
VMBUS_CHANNEL_SERVER_SUPPORTS_GPADLS: Final = 4
"""VMBUS_CHANNEL_SERVER_SUPPORTS_GPADLS. (include/linux/hyperv.h:340 @6.1.192)"""
VMBUS_CHANNEL_NAMED_PIPE_MODE: Final = 0x10
"""VMBUS_CHANNEL_NAMED_PIPE_MODE. (include/linux/hyperv.h:341 @6.1.192)"""
VMBUS_CHANNEL_LOOPBACK_OFFER: Final = 0x100
"""VMBUS_CHANNEL_LOOPBACK_OFFER. (include/linux/hyperv.h:342 @6.1.192)"""
VMBUS_CHANNEL_PARENT_OFFER: Final = 0x200
"""VMBUS_CHANNEL_PARENT_OFFER. (include/linux/hyperv.h:343 @6.1.192)"""
VMBUS_CHANNEL_REQUEST_MONITORED_NOTIFICATION: Final = 0x400
"""VMBUS_CHANNEL_REQUEST_MONITORED_NOTIFICATION. (include/linux/hyperv.h:344 @6.1.192)"""
VMBUS_CHANNEL_TLNPI_PROVIDER_OFFER: Final = 0x2000
"""VMBUS_CHANNEL_TLNPI_PROVIDER_OFFER. (include/linux/hyperv.h:345 @6.1.192)"""
INVALID_RELID: Final = 0xFFFF_FFFF
"""INVALID_RELID. (include/linux/hyperv.h:513 @6.1.192)"""
GPADL_TYPE_RING_BUFFER: Final = 1
"""GPADL_TYPE_RING_BUFFER. (include/linux/hyperv.h:630 @6.1.192)"""
GPADL_TYPE_SERVER_SAVE_AREA: Final = 2
"""GPADL_TYPE_SERVER_SAVE_AREA. (include/linux/hyperv.h:631 @6.1.192)"""
GPADL_TYPE_TRANSACTION: Final = 8
"""GPADL_TYPE_TRANSACTION. (include/linux/hyperv.h:632 @6.1.192)"""


VMBUS_MESSAGE_CONNECTION_ID: Final = 1
"""VMBUS_MESSAGE_CONNECTION_ID. (drivers/hv/hyperv_vmbus.h:109 @6.1.192)"""
VMBUS_MESSAGE_CONNECTION_ID_4: Final = 4
"""VMBUS_MESSAGE_CONNECTION_ID_4. (drivers/hv/hyperv_vmbus.h:110 @6.1.192)"""
VMBUS_MESSAGE_PORT_ID: Final = 1
"""VMBUS_MESSAGE_PORT_ID. (drivers/hv/hyperv_vmbus.h:111 @6.1.192)"""
VMBUS_EVENT_CONNECTION_ID: Final = 2
"""VMBUS_EVENT_CONNECTION_ID. (drivers/hv/hyperv_vmbus.h:112 @6.1.192)"""
VMBUS_EVENT_PORT_ID: Final = 2
"""VMBUS_EVENT_PORT_ID. (drivers/hv/hyperv_vmbus.h:113 @6.1.192)"""
VMBUS_MONITOR_CONNECTION_ID: Final = 3
"""VMBUS_MONITOR_CONNECTION_ID. (drivers/hv/hyperv_vmbus.h:114 @6.1.192)"""
VMBUS_MONITOR_PORT_ID: Final = 3
"""VMBUS_MONITOR_PORT_ID. (drivers/hv/hyperv_vmbus.h:115 @6.1.192)"""
VMBUS_MESSAGE_SINT: Final = 2
"""VMBUS_MESSAGE_SINT. (drivers/hv/hyperv_vmbus.h:116 @6.1.192)"""
MAX_NUM_CHANNELS: Final = 0x4000
"""MAX_NUM_CHANNELS. (drivers/hv/hyperv_vmbus.h:195 @6.1.192)"""
MAX_NUM_CHANNELS_SUPPORTED: Final = 0x100
"""MAX_NUM_CHANNELS_SUPPORTED. (drivers/hv/hyperv_vmbus.h:198 @6.1.192)"""
MAX_CHANNEL_RELIDS: Final = 0x800
"""MAX_CHANNEL_RELIDS. (drivers/hv/hyperv_vmbus.h:200 @6.1.192)"""
MAX_SIZE_CHANNEL_MESSAGE: Final = 0xF0
"""MAX_SIZE_CHANNEL_MESSAGE. (drivers/hv/hyperv_vmbus.h:210 @6.1.192)"""
VMBUS_CONNECT_CPU: Final = 0
"""VMBUS_CONNECT_CPU. (drivers/hv/hyperv_vmbus.h:216 @6.1.192)"""


class VmbusChannelMessageType(IntEnum):
    """``vmbus_channel_message_type``.

    Source: include/linux/hyperv.h:483 @6.1.192
    """

    CHANNELMSG_INVALID = 0
    CHANNELMSG_OFFERCHANNEL = 1
    CHANNELMSG_RESCIND_CHANNELOFFER = 2
    CHANNELMSG_REQUESTOFFERS = 3
    CHANNELMSG_ALLOFFERS_DELIVERED = 4
    CHANNELMSG_OPENCHANNEL = 5
    CHANNELMSG_OPENCHANNEL_RESULT = 6
    CHANNELMSG_CLOSECHANNEL = 7
    CHANNELMSG_GPADL_HEADER = 8
    CHANNELMSG_GPADL_BODY = 9
    CHANNELMSG_GPADL_CREATED = 0xA
    CHANNELMSG_GPADL_TEARDOWN = 0xB
    CHANNELMSG_GPADL_TORNDOWN = 0xC
    CHANNELMSG_RELID_RELEASED = 0xD
    CHANNELMSG_INITIATE_CONTACT = 0xE
    CHANNELMSG_VERSION_RESPONSE = 0xF
    CHANNELMSG_UNLOAD = 0x10
    CHANNELMSG_UNLOAD_RESPONSE = 0x11
    CHANNELMSG_18 = 0x12
    CHANNELMSG_19 = 0x13
    CHANNELMSG_20 = 0x14
    CHANNELMSG_TL_CONNECT_REQUEST = 0x15
    CHANNELMSG_MODIFYCHANNEL = 0x16
    CHANNELMSG_TL_CONNECT_RESULT = 0x17
    CHANNELMSG_MODIFYCHANNEL_RESPONSE = 0x18
    CHANNELMSG_COUNT = 0x19


class VmbusChannelState(IntEnum):
    """``vmbus_channel_state``.

    Source: include/linux/hyperv.h:728 @6.1.192
    """

    CHANNEL_OFFER_STATE = 0
    CHANNEL_OPENING_STATE = 1
    CHANNEL_OPEN_STATE = 2
    CHANNEL_OPENED_STATE = 3


class HvGpadlType(IntEnum):
    """``hv_gpadl_type``.

    Source: include/linux/hyperv.h:71 @6.1.192
    """

    HV_GPADL_BUFFER = 0
    HV_GPADL_RING = 1


class VmbusDeviceType(IntEnum):
    """``vmbus_device_type``.

    Source: include/linux/hyperv.h:780 @6.1.192
    """

    HV_IDE = 0
    HV_SCSI = 1
    HV_FC = 2
    HV_NIC = 3
    HV_ND = 4
    HV_PCIE = 5
    HV_FB = 6
    HV_KBD = 7
    HV_MOUSE = 8
    HV_KVP = 9
    HV_TS = 0xA
    HV_HB = 0xB
    HV_SHUTDOWN = 0xC
    HV_FCOPY = 0xD
    HV_BACKUP = 0xE
    HV_DM = 0xF
    HV_UNKNOWN = 0x10


class HvCallbackMode(IntEnum):
    """``hv_callback_mode``.

    Source: include/linux/hyperv.h:912 @6.1.192
    """

    HV_CALL_BATCHED = 0
    HV_CALL_DIRECT = 1
    HV_CALL_ISR = 2


class VmbusConnectState(IntEnum):
    """``vmbus_connect_state``.

    Source: drivers/hv/hyperv_vmbus.h:203 @6.1.192
    """

    DISCONNECTED = 0
    CONNECTING = 1
    CONNECTED = 2
    DISCONNECTING = 3


class VmbusMessageHandlerType(IntEnum):
    """``vmbus_message_handler_type``.

    Source: drivers/hv/hyperv_vmbus.h:316 @6.1.192
    """

    VMHT_BLOCKING = 0
    VMHT_NON_BLOCKING = 1


class Delay(IntEnum):
    """``delay``.

    Source: drivers/hv/hyperv_vmbus.h:403 @6.1.192
    """

    INTERRUPT_DELAY = 0
    MESSAGE_DELAY = 1


@wire(size=120, source="include/linux/hyperv.h:296 @6.1.192")
class VmbusChannelOfferUStd(Wire):
    """``vmbus_channel_offer.u.std``."""

    user_def: Annotated[bytes, 120]


@wire(size=120, source="include/linux/hyperv.h:296 @6.1.192")
class VmbusChannelOfferUPipe(Wire):
    """``vmbus_channel_offer.u.pipe``."""

    pipe_mode: u32
    user_def: Annotated[bytes, 116]


@union(size=120, source="include/linux/hyperv.h:296 @6.1.192")
class VmbusChannelOfferU(Union):
    """``vmbus_channel_offer.u``."""

    std: VmbusChannelOfferUStd
    pipe: VmbusChannelOfferUPipe


@wire(size=176, source="include/linux/hyperv.h:296 @6.1.192")
class VmbusChannelOffer(Wire):
    """``vmbus_channel_offer``."""

    __kernel__ = "vmbus_channel_offer"

    if_type: Guid
    if_instance: Guid
    reserved1: u64
    reserved2: u64
    chn_flags: u16
    mmio_megabytes: u16
    u: VmbusChannelOfferU
    sub_channel_index: u16
    reserved3: u16


@wire(size=8, source="include/linux/hyperv.h:515 @6.1.192")
class VmbusChannelMessageHeader(Wire):
    """``vmbus_channel_message_header``."""

    __kernel__ = "vmbus_channel_message_header"

    msgtype: u32
    padding: u32


@wire(size=12, source="include/linux/hyperv.h:521 @6.1.192")
class VmbusChannelQueryVmbusVersion(Wire):
    """``vmbus_channel_query_vmbus_version``."""

    __kernel__ = "vmbus_channel_query_vmbus_version"

    header: VmbusChannelMessageHeader
    version: u32


@wire(size=9, source="include/linux/hyperv.h:527 @6.1.192")
class VmbusChannelVersionSupported(Wire):
    """``vmbus_channel_version_supported``."""

    __kernel__ = "vmbus_channel_version_supported"

    header: VmbusChannelMessageHeader
    version_supported: u8


@wire(size=196, source="include/linux/hyperv.h:533 @6.1.192")
class VmbusChannelOfferChannel(Wire):
    """``vmbus_channel_offer_channel``."""

    __kernel__ = "vmbus_channel_offer_channel"

    header: VmbusChannelMessageHeader
    offer: VmbusChannelOffer
    child_relid: u32
    monitorid: u8
    monitor_allocated: Annotated[int, Bits(u8, 1)]
    reserved: Annotated[int, Bits(u8, 7)]
    is_dedicated_interrupt: Annotated[int, Bits(u16, 1)]
    reserved1: Annotated[int, Bits(u16, 15)]
    connection_id: u32


@wire(size=12, source="include/linux/hyperv.h:560 @6.1.192")
class VmbusChannelRescindOffer(Wire):
    """``vmbus_channel_rescind_offer``."""

    __kernel__ = "vmbus_channel_rescind_offer"

    header: VmbusChannelMessageHeader
    child_relid: u32


@wire(size=148, source="include/linux/hyperv.h:575 @6.1.192")
class VmbusChannelOpenChannel(Wire):
    """``vmbus_channel_open_channel``."""

    __kernel__ = "vmbus_channel_open_channel"

    header: VmbusChannelMessageHeader
    child_relid: u32
    openid: u32
    ringbuffer_gpadlhandle: u32
    target_vp: u32
    downstream_ringbuffer_pageoffset: u32
    userdata: Annotated[bytes, 120]


@wire(size=20, source="include/linux/hyperv.h:609 @6.1.192")
class VmbusChannelOpenResult(Wire):
    """``vmbus_channel_open_result``."""

    __kernel__ = "vmbus_channel_open_result"

    header: VmbusChannelMessageHeader
    child_relid: u32
    openid: u32
    status: u32


@wire(size=16, source="include/linux/hyperv.h:617 @6.1.192")
class VmbusChannelModifychannelResponse(Wire):
    """``vmbus_channel_modifychannel_response``."""

    __kernel__ = "vmbus_channel_modifychannel_response"

    header: VmbusChannelMessageHeader
    child_relid: u32
    status: u32


@wire(size=12, source="include/linux/hyperv.h:624 @6.1.192")
class VmbusChannelCloseChannel(Wire):
    """``vmbus_channel_close_channel``."""

    __kernel__ = "vmbus_channel_close_channel"

    header: VmbusChannelMessageHeader
    child_relid: u32


@wire(size=20, source="include/linux/hyperv.h:640 @6.1.192")
class VmbusChannelGpadlHeader(Wire):
    """``vmbus_channel_gpadl_header``."""

    __kernel__ = "vmbus_channel_gpadl_header"

    header: VmbusChannelMessageHeader
    child_relid: u32
    gpadl: u32
    range_buflen: u16
    rangecount: u16
    range = tail(GpaRange)


@wire(size=16, source="include/linux/hyperv.h:650 @6.1.192")
class VmbusChannelGpadlBody(Wire):
    """``vmbus_channel_gpadl_body``."""

    __kernel__ = "vmbus_channel_gpadl_body"

    header: VmbusChannelMessageHeader
    msgnumber: u32
    gpadl: u32
    pfn = tail(u64)


@wire(size=20, source="include/linux/hyperv.h:657 @6.1.192")
class VmbusChannelGpadlCreated(Wire):
    """``vmbus_channel_gpadl_created``."""

    __kernel__ = "vmbus_channel_gpadl_created"

    header: VmbusChannelMessageHeader
    child_relid: u32
    gpadl: u32
    creation_status: u32


@wire(size=16, source="include/linux/hyperv.h:664 @6.1.192")
class VmbusChannelGpadlTeardown(Wire):
    """``vmbus_channel_gpadl_teardown``."""

    __kernel__ = "vmbus_channel_gpadl_teardown"

    header: VmbusChannelMessageHeader
    child_relid: u32
    gpadl: u32


@wire(size=12, source="include/linux/hyperv.h:670 @6.1.192")
class VmbusChannelGpadlTorndown(Wire):
    """``vmbus_channel_gpadl_torndown``."""

    __kernel__ = "vmbus_channel_gpadl_torndown"

    header: VmbusChannelMessageHeader
    gpadl: u32


@wire(size=12, source="include/linux/hyperv.h:675 @6.1.192")
class VmbusChannelRelidReleased(Wire):
    """``vmbus_channel_relid_released``."""

    __kernel__ = "vmbus_channel_relid_released"

    header: VmbusChannelMessageHeader
    child_relid: u32


@wire(size=40, source="include/linux/hyperv.h:680 @6.1.192")
class VmbusChannelInitiateContact(Wire):
    """``vmbus_channel_initiate_contact``."""

    __kernel__ = "vmbus_channel_initiate_contact"

    header: VmbusChannelMessageHeader
    vmbus_version_requested: u32
    target_vcpu: u32
    interrupt_page: u64
    monitor_page1: u64
    monitor_page2: u64
    msg_sint: u8 = overlay(16)
    padding1: Annotated[bytes, 3] = overlay(17)
    padding2: u32 = overlay(20)


@wire(size=40, source="include/linux/hyperv.h:697 @6.1.192")
class VmbusChannelTlConnectRequest(Wire):
    """``vmbus_channel_tl_connect_request``."""

    __kernel__ = "vmbus_channel_tl_connect_request"

    header: VmbusChannelMessageHeader
    guest_endpoint_id: Guid
    host_service_id: Guid


@wire(size=16, source="include/linux/hyperv.h:704 @6.1.192")
class VmbusChannelModifychannel(Wire):
    """``vmbus_channel_modifychannel``."""

    __kernel__ = "vmbus_channel_modifychannel"

    header: VmbusChannelMessageHeader
    child_relid: u32
    target_vp: u32


@wire(size=16, source="include/linux/hyperv.h:710 @6.1.192")
class VmbusChannelVersionResponse(Wire):
    """``vmbus_channel_version_response``."""

    __kernel__ = "vmbus_channel_version_response"

    header: VmbusChannelMessageHeader
    version_supported: u8
    connection_state: u8
    padding: u16
    msg_conn_id: u32


class VmbusMessage(NamedTuple):
    """One row of `CHANNEL_MESSAGES`: what a channel message number means."""

    number: VmbusChannelMessageType
    struct: type[Wire]
    """The fixed part, header included; `VmbusChannelMessageHeader` when the message is nothing else."""
    sender: Literal["guest", "host"]
    since: int
    """First VMBus version that has it."""
    feature: int
    """Feature bits that the connection must have negotiated; 0 in every version that 6.1 knows."""
    min_payload_len: int | None
    """Bytes that the guest demands, shorter messages are dropped; None when it has no handler."""
    blocking: bool
    """True when the guest handles it on a work queue instead of in the tasklet."""
    source: str


def _guest(number: VmbusChannelMessageType, struct: type[Wire], since: int, source: str) -> VmbusMessage:
    return VmbusMessage(number, struct, "guest", since, 0, None, False, source)


_TABLE: Final = "drivers/hv/channel_mgmt.c:channel_message_table @6.1.192"


def _host(
    number: VmbusChannelMessageType, struct: type[Wire], since: int, min_payload_len: int | None, blocking: bool = False
) -> VmbusMessage:
    return VmbusMessage(number, struct, "host", since, 0, min_payload_len, blocking, _TABLE)


_M: TypeAlias = VmbusChannelMessageType

CHANNEL_MESSAGES: Final[tuple[VmbusMessage, ...]] = (
    _host(_M.CHANNELMSG_OFFERCHANNEL, VmbusChannelOfferChannel, VERSION_WS2008, 196, True),
    _host(_M.CHANNELMSG_RESCIND_CHANNELOFFER, VmbusChannelRescindOffer, VERSION_WS2008, 12, True),
    _guest(
        _M.CHANNELMSG_REQUESTOFFERS,
        VmbusChannelMessageHeader,
        VERSION_WS2008,
        "drivers/hv/channel_mgmt.c:vmbus_request_offers @6.1.192",
    ),
    _host(_M.CHANNELMSG_ALLOFFERS_DELIVERED, VmbusChannelMessageHeader, VERSION_WS2008, 0),
    _guest(
        _M.CHANNELMSG_OPENCHANNEL,
        VmbusChannelOpenChannel,
        VERSION_WS2008,
        "drivers/hv/channel.c:__vmbus_open @6.1.192",
    ),
    _host(_M.CHANNELMSG_OPENCHANNEL_RESULT, VmbusChannelOpenResult, VERSION_WS2008, 20),
    _guest(
        _M.CHANNELMSG_CLOSECHANNEL,
        VmbusChannelCloseChannel,
        VERSION_WS2008,
        "drivers/hv/channel.c:vmbus_close_internal @6.1.192",
    ),
    _guest(
        _M.CHANNELMSG_GPADL_HEADER,
        VmbusChannelGpadlHeader,
        VERSION_WS2008,
        "drivers/hv/channel.c:create_gpadl_header @6.1.192",
    ),
    _guest(
        _M.CHANNELMSG_GPADL_BODY,
        VmbusChannelGpadlBody,
        VERSION_WS2008,
        "drivers/hv/channel.c:create_gpadl_header @6.1.192",
    ),
    _host(_M.CHANNELMSG_GPADL_CREATED, VmbusChannelGpadlCreated, VERSION_WS2008, 20),
    _guest(
        _M.CHANNELMSG_GPADL_TEARDOWN,
        VmbusChannelGpadlTeardown,
        VERSION_WS2008,
        "drivers/hv/channel.c:vmbus_teardown_gpadl @6.1.192",
    ),
    _host(_M.CHANNELMSG_GPADL_TORNDOWN, VmbusChannelGpadlTorndown, VERSION_WS2008, 12),
    _guest(
        _M.CHANNELMSG_RELID_RELEASED,
        VmbusChannelRelidReleased,
        VERSION_WS2008,
        "drivers/hv/channel_mgmt.c:vmbus_release_relid @6.1.192",
    ),
    _guest(
        _M.CHANNELMSG_INITIATE_CONTACT,
        VmbusChannelInitiateContact,
        VERSION_WS2008,
        "drivers/hv/connection.c:vmbus_negotiate_version @6.1.192",
    ),
    _host(_M.CHANNELMSG_VERSION_RESPONSE, VmbusChannelVersionResponse, VERSION_WS2008, 16),
    _guest(
        _M.CHANNELMSG_UNLOAD,
        VmbusChannelMessageHeader,
        VERSION_WIN8_1,
        "drivers/hv/channel_mgmt.c:vmbus_initiate_unload @6.1.192",
    ),
    _host(_M.CHANNELMSG_UNLOAD_RESPONSE, VmbusChannelMessageHeader, VERSION_WIN8_1, 0),
    _guest(
        _M.CHANNELMSG_TL_CONNECT_REQUEST,
        VmbusChannelTlConnectRequest,
        VERSION_WIN10,
        "drivers/hv/channel.c:vmbus_send_tl_connect_request, net/vmw_vsock/hyperv_transport.c:hvs_init @6.1.192",
    ),
    _guest(
        _M.CHANNELMSG_MODIFYCHANNEL,
        VmbusChannelModifychannel,
        VERSION_WIN10_V4_1,
        "drivers/hv/vmbus_drv.c:target_cpu_store @6.1.192",
    ),
    # Linux has no struct and no handler for the result; only the header is known.
    _host(_M.CHANNELMSG_TL_CONNECT_RESULT, VmbusChannelMessageHeader, VERSION_WIN10, None),
    _host(_M.CHANNELMSG_MODIFYCHANNEL_RESPONSE, VmbusChannelModifychannelResponse, VERSION_WIN10_V5_3, 16),
)
"""Every channel message that 6.1 names, in order of its number
(include/linux/hyperv.h:vmbus_channel_message_type, drivers/hv/channel_mgmt.c:channel_message_table @6.1.192)."""

_BY_NUMBER: Final = MappingProxyType({int(row.number): row for row in CHANNEL_MESSAGES})


def channel_message(number: int) -> VmbusMessage | None:
    """Return the table's row of a message number, or None for one that has no meaning."""
    return _BY_NUMBER.get(number)
