"""The VMBus: versions, offers and channel messages.

Counterpart of the first half of include/linux/hyperv.h with drivers/hv/hyperv_vmbus.h. Channel messages travel
as the payload of SynIC messages; `CHANNEL_MESSAGES` says which struct each number means. Rings and their
packets are in `hvkernel.abi.ring`, integration components in `hvkernel.abi.ic`.
"""

from __future__ import annotations

from enum import IntEnum
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, TypeAlias

from hvkernel.abi import vmbus_messages as _messages
from hvkernel.abi.vmbus_messages import *
from hvkernel.abi.wire import Wire

VERSION_WS2008: Final = 0 << 16 | 13
"""VMBus 0.13: Windows Server 2008. Linux no longer offers it. (include/linux/hyperv.h:268 @6.1.192)"""
VERSION_WIN7: Final = 1 << 16 | 1
"""VMBus 1.1: Windows 7, Server 2008 R2. Linux no longer offers it. (include/linux/hyperv.h:269 @6.1.192)"""
VERSION_WIN8: Final = 2 << 16 | 4
"""VMBus 2.4: Windows 8, Server 2012. (include/linux/hyperv.h:270 @6.1.192)"""
VERSION_WIN8_1: Final = 3 << 16 | 0
"""VMBus 3.0: Windows 8.1, Server 2012 R2. (include/linux/hyperv.h:271 @6.1.192)"""
VERSION_WIN10: Final = 4 << 16 | 0
"""VMBus 4.0: Windows 10, Server 2016. (include/linux/hyperv.h:272 @6.1.192)"""
VERSION_WIN10_V4_1: Final = 4 << 16 | 1
"""VMBus 4.1: MODIFYCHANNEL. (include/linux/hyperv.h:273 @6.1.192)"""
VERSION_WIN10_V5: Final = 5 << 16 | 0
"""VMBus 5.0: contact goes to connection 4, the reply names the connection to use.

Source: include/linux/hyperv.h:274 @6.1.192
"""
VERSION_WIN10_V5_1: Final = 5 << 16 | 1
"""VMBus 5.1. (include/linux/hyperv.h:275 @6.1.192)"""
VERSION_WIN10_V5_2: Final = 5 << 16 | 2
"""VMBus 5.2: the lowest that an isolated guest accepts. (include/linux/hyperv.h:276 @6.1.192)"""
VERSION_WIN10_V5_3: Final = 5 << 16 | 3
"""VMBus 5.3: MODIFYCHANNEL is answered. (include/linux/hyperv.h:277 @6.1.192)"""
MAX_PIPE_DATA_PAYLOAD: Final = 16384
"""Most payload of a pipe packet. (include/linux/hyperv.h:280 @6.1.192)"""
VMBUS_PIPE_TYPE_BYTE: Final = 0x0
"""Pipe mode: a byte stream. (include/linux/hyperv.h:283 @6.1.192)"""
VMBUS_PIPE_TYPE_MESSAGE: Final = 0x4
"""Pipe mode: messages. (include/linux/hyperv.h:284 @6.1.192)"""
MAX_USER_DEFINED_BYTES: Final = 120
"""Bytes of user data in an offer or open that is not a pipe. (include/linux/hyperv.h:287 @6.1.192)"""
MAX_PIPE_USER_DEFINED_BYTES: Final = 116
"""Bytes of user data in an offer of a pipe. (include/linux/hyperv.h:290 @6.1.192)"""
VMBUS_CHANNEL_ENUMERATE_DEVICE_INTERFACE: Final = 1
"""Offer flag: enumerate as a device interface. (include/linux/hyperv.h:338 @6.1.192)"""
VMBUS_CHANNEL_SERVER_SUPPORTS_TRANSFER_PAGES: Final = 2
"""Offer flag: the server takes transfer pages. (include/linux/hyperv.h:339 @6.1.192)"""
VMBUS_CHANNEL_SERVER_SUPPORTS_GPADLS: Final = 4
"""Offer flag: the server takes GPADLs. (include/linux/hyperv.h:340 @6.1.192)"""
VMBUS_CHANNEL_NAMED_PIPE_MODE: Final = 0x10
"""Offer flag: a pipe; user data begins with the pipe mode. (include/linux/hyperv.h:341 @6.1.192)"""
VMBUS_CHANNEL_LOOPBACK_OFFER: Final = 0x100
"""Offer flag: loopback. (include/linux/hyperv.h:342 @6.1.192)"""
VMBUS_CHANNEL_PARENT_OFFER: Final = 0x200
"""Offer flag: from the parent partition. (include/linux/hyperv.h:343 @6.1.192)"""
VMBUS_CHANNEL_REQUEST_MONITORED_NOTIFICATION: Final = 0x400
"""Offer flag: wants notification through the monitor page. (include/linux/hyperv.h:344 @6.1.192)"""
VMBUS_CHANNEL_TLNPI_PROVIDER_OFFER: Final = 0x2000
"""Offer flag: a hypervisor socket (vsock). (include/linux/hyperv.h:345 @6.1.192)"""
INVALID_RELID: Final = 0xFFFF_FFFF
"""Stands for no channel; real ones start at 1. (include/linux/hyperv.h:513 @6.1.192)"""
GPADL_TYPE_RING_BUFFER: Final = 1
"""GPADL type: a ring. Unused: no message carries it. (include/linux/hyperv.h:630 @6.1.192)"""
GPADL_TYPE_SERVER_SAVE_AREA: Final = 2
"""GPADL type: a server's save area. Unused. (include/linux/hyperv.h:631 @6.1.192)"""
GPADL_TYPE_TRANSACTION: Final = 8
"""GPADL type: transactions. Unused. (include/linux/hyperv.h:632 @6.1.192)"""


VMBUS_MESSAGE_CONNECTION_ID: Final = 1
"""Connection for channel messages, up to VMBus 4.1. (drivers/hv/hyperv_vmbus.h:109 @6.1.192)"""
VMBUS_MESSAGE_CONNECTION_ID_4: Final = 4
"""Connection for INITIATE_CONTACT from VMBus 5.0 on; old hosts do not know it.

Source: drivers/hv/hyperv_vmbus.h:110 @6.1.192
"""
VMBUS_MESSAGE_PORT_ID: Final = 1
"""Port behind it. (drivers/hv/hyperv_vmbus.h:111 @6.1.192)"""
VMBUS_EVENT_CONNECTION_ID: Final = 2
"""Connection for the events of all channels; from VMBus 1.1 on each offer names its own.

Source: drivers/hv/hyperv_vmbus.h:112 @6.1.192
"""
VMBUS_EVENT_PORT_ID: Final = 2
"""Port behind it. (drivers/hv/hyperv_vmbus.h:113 @6.1.192)"""
VMBUS_MONITOR_CONNECTION_ID: Final = 3
"""Connection for monitored notification. Unused: the monitor page names connections.

Source: drivers/hv/hyperv_vmbus.h:114 @6.1.192
"""
VMBUS_MONITOR_PORT_ID: Final = 3
"""Port behind it. (drivers/hv/hyperv_vmbus.h:115 @6.1.192)"""
VMBUS_MESSAGE_SINT: Final = 2
"""The SINT on which VMBus messages and events arrive. (drivers/hv/hyperv_vmbus.h:116 @6.1.192)"""
MAX_NUM_CHANNELS: Final = 16384
"""Bits in one half of the interrupt page: one direction. (drivers/hv/hyperv_vmbus.h:195 @6.1.192)"""
MAX_NUM_CHANNELS_SUPPORTED: Final = 256
"""Least room of the guest's table of channels by relid. (drivers/hv/hyperv_vmbus.h:198 @6.1.192)"""
MAX_CHANNEL_RELIDS: Final = 2048
"""Entries of the guest's table of channels by relid. (drivers/hv/hyperv_vmbus.h:200 @6.1.192)"""
MAX_SIZE_CHANNEL_MESSAGE: Final = 240
"""Most bytes of a channel message: a SynIC message's payload. (drivers/hv/hyperv_vmbus.h:210 @6.1.192)"""
VMBUS_CONNECT_CPU: Final = 0
"""The CPU that Linux connects from; offers and replies arrive there. (drivers/hv/hyperv_vmbus.h:216 @6.1.192)"""


UNLOAD_DELAY_UNIT_MS: Final = 10
"""Milliseconds between two looks for UNLOAD_RESPONSE in a crashing guest. (drivers/hv/channel_mgmt.c:812 @6.1.192)"""
UNLOAD_WAIT_MS: Final = 100000
"""Milliseconds for which a crashing guest waits for it. (drivers/hv/channel_mgmt.c:813 @6.1.192)"""
UNLOAD_WAIT_LOOPS: Final = 10000
"""The same in looks. (drivers/hv/channel_mgmt.c:814 @6.1.192)"""
UNLOAD_MSG_MS: Final = 5000
"""Milliseconds between two notices that it still waits. (drivers/hv/channel_mgmt.c:815 @6.1.192)"""
UNLOAD_MSG_LOOPS: Final = 500
"""The same in looks. (drivers/hv/channel_mgmt.c:816 @6.1.192)"""
HV_MAX_TRIES: Final = 3
"""Times that a CPU going offline waits for pending channel events. (drivers/hv/hv.c:308 @6.1.192)"""
VTPM_BASE_ADDRESS: Final = 0xFED4_0000
"""Start of the virtual TPM's registers; an MMIO range for devices is cut short below it.

Source: drivers/hv/vmbus_drv.c:1969 @6.1.192
"""


class VmbusChannelMessageType(IntEnum):
    """Numbers of the channel messages; see `CHANNEL_MESSAGES`.

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
    CHANNELMSG_GPADL_CREATED = 10
    CHANNELMSG_GPADL_TEARDOWN = 11
    CHANNELMSG_GPADL_TORNDOWN = 12
    CHANNELMSG_RELID_RELEASED = 13
    CHANNELMSG_INITIATE_CONTACT = 14
    CHANNELMSG_VERSION_RESPONSE = 15
    CHANNELMSG_UNLOAD = 16
    CHANNELMSG_UNLOAD_RESPONSE = 17
    CHANNELMSG_18 = 18
    CHANNELMSG_19 = 19
    CHANNELMSG_20 = 20
    CHANNELMSG_TL_CONNECT_REQUEST = 21
    CHANNELMSG_MODIFYCHANNEL = 22
    CHANNELMSG_TL_CONNECT_RESULT = 23
    CHANNELMSG_MODIFYCHANNEL_RESPONSE = 24
    CHANNELMSG_COUNT = 25


class VmbusChannelState(IntEnum):
    """Where the guest has a channel.

    Source: include/linux/hyperv.h:728 @6.1.192
    """

    CHANNEL_OFFER_STATE = 0
    CHANNEL_OPENING_STATE = 1
    CHANNEL_OPEN_STATE = 2
    CHANNEL_OPENED_STATE = 3


class HvGpadlType(IntEnum):
    """What memory a GPADL describes. In a ring only the first 4 KiB of each header page are listed.

    Source: include/linux/hyperv.h:71 @6.1.192
    """

    HV_GPADL_BUFFER = 0
    HV_GPADL_RING = 1


class VmbusDeviceType(IntEnum):
    """The kernel's numbering of device classes (index of vmbus_devs).

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
    HV_TS = 10
    HV_HB = 11
    HV_SHUTDOWN = 12
    HV_FCOPY = 13
    HV_BACKUP = 14
    HV_DM = 15
    HV_UNKNOWN = 16


class HvCallbackMode(IntEnum):
    """How the guest calls a channel's callback.

    Source: include/linux/hyperv.h:912 @6.1.192
    """

    HV_CALL_BATCHED = 0
    HV_CALL_DIRECT = 1
    HV_CALL_ISR = 2


class VmbusConnectState(IntEnum):
    """States of the guest's connection to the VMBus.

    Source: drivers/hv/hyperv_vmbus.h:203 @6.1.192
    """

    DISCONNECTED = 0
    CONNECTING = 1
    CONNECTED = 2
    DISCONNECTING = 3


class VmbusMessageHandlerType(IntEnum):
    """Whether a message's handler may sleep.

    Source: drivers/hv/hyperv_vmbus.h:316 @6.1.192
    """

    VMHT_BLOCKING = 0
    VMHT_NON_BLOCKING = 1


class Delay(IntEnum):
    """Fuzz-test delays (CONFIG_HYPERV_TESTING).

    Source: drivers/hv/hyperv_vmbus.h:403 @6.1.192
    """

    INTERRUPT_DELAY = 0
    MESSAGE_DELAY = 1


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
    _host(_M.CHANNELMSG_OFFERCHANNEL, _messages.VmbusChannelOfferChannel, VERSION_WS2008, 196, True),
    _host(_M.CHANNELMSG_RESCIND_CHANNELOFFER, _messages.VmbusChannelRescindOffer, VERSION_WS2008, 12, True),
    _guest(
        _M.CHANNELMSG_REQUESTOFFERS,
        _messages.VmbusChannelMessageHeader,
        VERSION_WS2008,
        "drivers/hv/channel_mgmt.c:vmbus_request_offers @6.1.192",
    ),
    _host(_M.CHANNELMSG_ALLOFFERS_DELIVERED, _messages.VmbusChannelMessageHeader, VERSION_WS2008, 0),
    _guest(
        _M.CHANNELMSG_OPENCHANNEL,
        _messages.VmbusChannelOpenChannel,
        VERSION_WS2008,
        "drivers/hv/channel.c:__vmbus_open @6.1.192",
    ),
    _host(_M.CHANNELMSG_OPENCHANNEL_RESULT, _messages.VmbusChannelOpenResult, VERSION_WS2008, 20),
    _guest(
        _M.CHANNELMSG_CLOSECHANNEL,
        _messages.VmbusChannelCloseChannel,
        VERSION_WS2008,
        "drivers/hv/channel.c:vmbus_close_internal @6.1.192",
    ),
    _guest(
        _M.CHANNELMSG_GPADL_HEADER,
        _messages.VmbusChannelGpadlHeader,
        VERSION_WS2008,
        "drivers/hv/channel.c:create_gpadl_header @6.1.192",
    ),
    _guest(
        _M.CHANNELMSG_GPADL_BODY,
        _messages.VmbusChannelGpadlBody,
        VERSION_WS2008,
        "drivers/hv/channel.c:create_gpadl_header @6.1.192",
    ),
    _host(_M.CHANNELMSG_GPADL_CREATED, _messages.VmbusChannelGpadlCreated, VERSION_WS2008, 20),
    _guest(
        _M.CHANNELMSG_GPADL_TEARDOWN,
        _messages.VmbusChannelGpadlTeardown,
        VERSION_WS2008,
        "drivers/hv/channel.c:vmbus_teardown_gpadl @6.1.192",
    ),
    _host(_M.CHANNELMSG_GPADL_TORNDOWN, _messages.VmbusChannelGpadlTorndown, VERSION_WS2008, 12),
    _guest(
        _M.CHANNELMSG_RELID_RELEASED,
        _messages.VmbusChannelRelidReleased,
        VERSION_WS2008,
        "drivers/hv/channel_mgmt.c:vmbus_release_relid @6.1.192",
    ),
    _guest(
        _M.CHANNELMSG_INITIATE_CONTACT,
        _messages.VmbusChannelInitiateContact,
        VERSION_WS2008,
        "drivers/hv/connection.c:vmbus_negotiate_version @6.1.192",
    ),
    _host(_M.CHANNELMSG_VERSION_RESPONSE, _messages.VmbusChannelVersionResponse, VERSION_WS2008, 16),
    _guest(
        _M.CHANNELMSG_UNLOAD,
        _messages.VmbusChannelMessageHeader,
        VERSION_WIN8_1,
        "drivers/hv/channel_mgmt.c:vmbus_initiate_unload @6.1.192",
    ),
    _host(_M.CHANNELMSG_UNLOAD_RESPONSE, _messages.VmbusChannelMessageHeader, VERSION_WIN8_1, 0),
    _guest(
        _M.CHANNELMSG_TL_CONNECT_REQUEST,
        _messages.VmbusChannelTlConnectRequest,
        VERSION_WIN10,
        "drivers/hv/channel.c:vmbus_send_tl_connect_request, net/vmw_vsock/hyperv_transport.c:hvs_init @6.1.192",
    ),
    _guest(
        _M.CHANNELMSG_MODIFYCHANNEL,
        _messages.VmbusChannelModifychannel,
        VERSION_WIN10_V4_1,
        "drivers/hv/vmbus_drv.c:target_cpu_store @6.1.192",
    ),
    # Linux has no struct and no handler for the result; only the header is known.
    _host(_M.CHANNELMSG_TL_CONNECT_RESULT, _messages.VmbusChannelMessageHeader, VERSION_WIN10, None),
    _host(_M.CHANNELMSG_MODIFYCHANNEL_RESPONSE, _messages.VmbusChannelModifychannelResponse, VERSION_WIN10_V5_3, 16),
)
"""Every channel message that 6.1 names, in order of its number
(include/linux/hyperv.h:vmbus_channel_message_type, drivers/hv/channel_mgmt.c:channel_message_table @6.1.192)."""

_BY_NUMBER: Final = MappingProxyType({int(row.number): row for row in CHANNEL_MESSAGES})


def channel_message(number: int) -> VmbusMessage | None:
    """Return the table's row of a message number, or None for one that has no meaning."""
    return _BY_NUMBER.get(number)
