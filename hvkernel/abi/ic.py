"""Integration components: framing, version negotiation, and the messages of each service.

Heartbeat, shutdown and time sync are answered in the kernel; KVP, VSS and file copy by a daemon, to which the
kernel speaks with the structs of include/uapi/linux/hyperv.h.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Final

from hvkernel.abi.wire import Union, Wire, overlay, s32, tail, u8, u16, u32, u64, union, wire

ICMSGTYPE_NEGOTIATE: Final = 0
"""Framework and message version negotiation. (include/linux/hyperv.h:1541 @6.1.192)"""
ICMSGTYPE_HEARTBEAT: Final = 1
"""`HeartbeatMsgData`. (include/linux/hyperv.h:1542 @6.1.192)"""
ICMSGTYPE_KVPEXCHANGE: Final = 2
"""`HvKvpMsg`. (include/linux/hyperv.h:1543 @6.1.192)"""
ICMSGTYPE_SHUTDOWN: Final = 3
"""`ShutdownMsgData`. (include/linux/hyperv.h:1544 @6.1.192)"""
ICMSGTYPE_TIMESYNC: Final = 4
"""`IctimesyncData` or, from version 4, `IctimesyncRefData`. (include/linux/hyperv.h:1545 @6.1.192)"""
ICMSGTYPE_VSS: Final = 5
"""`HvVssMsg`. (include/linux/hyperv.h:1546 @6.1.192)"""
ICMSGTYPE_FCOPY: Final = 7
"""`HvStartFcopy`, `HvDoFcopy` or just `HvFcopyHdr`. (include/linux/hyperv.h:1547 @6.1.192)"""
ICMSGHDRFLAG_TRANSACTION: Final = 1
"""Header flag: part of a transaction. (include/linux/hyperv.h:1549 @6.1.192)"""
ICMSGHDRFLAG_REQUEST: Final = 2
"""Header flag: a request. (include/linux/hyperv.h:1550 @6.1.192)"""
ICMSGHDRFLAG_RESPONSE: Final = 4
"""Header flag: a response. (include/linux/hyperv.h:1551 @6.1.192)"""
IC_VERSION_NEGOTIATION_MAX_VER_COUNT: Final = 100
"""Most versions that a negotiation may list. (include/linux/hyperv.h:1592 @6.1.192)"""
ICMSG_HDR: Final = 28
"""Bytes in front of the message: pipe header and IC header. (include/linux/hyperv.h:1593 @6.1.192)"""
ICTIMESYNCFLAG_PROBE: Final = 0
"""Time sync flag: nothing to do. (include/linux/hyperv.h:1618 @6.1.192)"""
ICTIMESYNCFLAG_SYNC: Final = 1
"""Time sync flag: set the clock to the host's. (include/linux/hyperv.h:1619 @6.1.192)"""
ICTIMESYNCFLAG_SAMPLE: Final = 2
"""Time sync flag: a sample of the host's clock. (include/linux/hyperv.h:1620 @6.1.192)"""
WLTIMEDELTA: Final = 0x019D_B1DE_D53E_8000
"""Between the epochs of Windows (1601) and Unix (1970), in 100 ns. (include/linux/hyperv.h:1623 @6.1.192)"""
MAX_SRV_VER: Final = 0x07FF_FFFF
"""Larger than any service version. (include/linux/hyperv.h:1657 @6.1.192)"""
HV_CONFIG_BLOCK_SIZE_MAX: Final = 128
"""Most bytes of a configuration block of a pass-through device. (include/linux/hyperv.h:1769 @6.1.192)"""


UTIL_FW_MINOR: Final = 0
"""Framework minor version. (include/uapi/linux/hyperv.h:34 @6.1.192)"""
UTIL_WS2K8_FW_MAJOR: Final = 1
"""Framework major version of Server 2008. (include/uapi/linux/hyperv.h:36 @6.1.192)"""
UTIL_WS2K8_FW_VERSION: Final = 1 << 16 | 0
"""Framework 1.0. (include/uapi/linux/hyperv.h:37 @6.1.192)"""
UTIL_FW_MAJOR: Final = 3
"""Framework major version since Windows 7. (include/uapi/linux/hyperv.h:39 @6.1.192)"""
UTIL_FW_VERSION: Final = 3 << 16 | 0
"""Framework 3.0. (include/uapi/linux/hyperv.h:40 @6.1.192)"""
VSS_OP_REGISTER: Final = 128
"""Daemon to kernel: register, old way. (include/uapi/linux/hyperv.h:47 @6.1.192)"""
VSS_OP_REGISTER1: Final = 129
"""Daemon to kernel: register, with handshake. (include/uapi/linux/hyperv.h:52 @6.1.192)"""
VSS_HBU_NO_AUTO_RECOVERY: Final = 0x5
"""The one feature that Linux answers HOT_BACKUP with. (include/uapi/linux/hyperv.h:83 @6.1.192)"""
FCOPY_VERSION_0: Final = 0
"""Daemon protocol without handshake. (include/uapi/linux/hyperv.h:119 @6.1.192)"""
FCOPY_VERSION_1: Final = 1
"""Daemon protocol with handshake. (include/uapi/linux/hyperv.h:120 @6.1.192)"""
FCOPY_CURRENT_VERSION: Final = FCOPY_VERSION_1
"""Daemon protocol in use. (include/uapi/linux/hyperv.h:121 @6.1.192)"""
W_MAX_PATH: Final = 260
"""UTF-16 units of a file or path name. (include/uapi/linux/hyperv.h:122 @6.1.192)"""
OVER_WRITE: Final = 0x1
"""Copy flag: replace a file that exists. (include/uapi/linux/hyperv.h:137 @6.1.192)"""
CREATE_PATH: Final = 0x2
"""Copy flag: create missing directories. (include/uapi/linux/hyperv.h:138 @6.1.192)"""
DATA_FRAGMENT: Final = 6144
"""Bytes of a file in one message. (include/uapi/linux/hyperv.h:151 @6.1.192)"""
HV_KVP_EXCHANGE_MAX_VALUE_SIZE: Final = 2048
"""Bytes of a value. (include/uapi/linux/hyperv.h:189 @6.1.192)"""
HV_KVP_EXCHANGE_MAX_KEY_SIZE: Final = 512
"""Bytes of a key. (include/uapi/linux/hyperv.h:197 @6.1.192)"""
REG_SZ: Final = 1
"""Value type: string, UTF-16 on the wire. (include/uapi/linux/hyperv.h:252 @6.1.192)"""
REG_U32: Final = 4
"""Value type: 32-bit number. (include/uapi/linux/hyperv.h:253 @6.1.192)"""
REG_U64: Final = 8
"""Value type: 64-bit number. (include/uapi/linux/hyperv.h:254 @6.1.192)"""
KVP_OP_REGISTER: Final = 4
"""Daemon to kernel: register, old way. Clashes with KVP_OP_GET_IP_INFO, which goes the other way.

Source: include/uapi/linux/hyperv.h:285 @6.1.192
"""
KVP_OP_REGISTER1: Final = 100
"""Daemon to kernel: register, can set IP addresses. (include/uapi/linux/hyperv.h:294 @6.1.192)"""
HV_S_OK: Final = 0x0
"""Status: success. (include/uapi/linux/hyperv.h:319 @6.1.192)"""
HV_E_FAIL: Final = 0x8000_4005
"""Status: unspecified failure. (include/uapi/linux/hyperv.h:320 @6.1.192)"""
HV_S_CONT: Final = 0x8007_0103
"""Status: no more items. (include/uapi/linux/hyperv.h:321 @6.1.192)"""
HV_ERROR_NOT_SUPPORTED: Final = 0x8007_0032
"""Status: not supported. (include/uapi/linux/hyperv.h:322 @6.1.192)"""
HV_ERROR_MACHINE_LOCKED: Final = 0x8007_04F7
"""Status: locked. (include/uapi/linux/hyperv.h:323 @6.1.192)"""
HV_ERROR_DEVICE_NOT_CONNECTED: Final = 0x8007_048F
"""Status: the daemon is not there. (include/uapi/linux/hyperv.h:324 @6.1.192)"""
HV_INVALIDARG: Final = 0x8007_0057
"""Status: invalid argument. (include/uapi/linux/hyperv.h:325 @6.1.192)"""
HV_GUID_NOTFOUND: Final = 0x8004_1002
"""Status: no adapter with this id. (include/uapi/linux/hyperv.h:326 @6.1.192)"""
HV_ERROR_ALREADY_EXISTS: Final = 0x8007_0050
"""Status: the file exists. (include/uapi/linux/hyperv.h:327 @6.1.192)"""
HV_ERROR_DISK_FULL: Final = 0x8007_0070
"""Status: disk full. (include/uapi/linux/hyperv.h:328 @6.1.192)"""
ADDR_FAMILY_NONE: Final = 0x0
"""IP configuration: no address family. (include/uapi/linux/hyperv.h:330 @6.1.192)"""
ADDR_FAMILY_IPV4: Final = 0x1
"""IP configuration: IPv4. (include/uapi/linux/hyperv.h:331 @6.1.192)"""
ADDR_FAMILY_IPV6: Final = 0x2
"""IP configuration: IPv6. (include/uapi/linux/hyperv.h:332 @6.1.192)"""
MAX_ADAPTER_ID_SIZE: Final = 128
"""UTF-16 units of an adapter id. (include/uapi/linux/hyperv.h:334 @6.1.192)"""
MAX_IP_ADDR_SIZE: Final = 1024
"""UTF-16 units of a list of addresses. (include/uapi/linux/hyperv.h:335 @6.1.192)"""
MAX_GATEWAY_SIZE: Final = 512
"""UTF-16 units of a list of gateways. (include/uapi/linux/hyperv.h:336 @6.1.192)"""


HV_UTIL_TIMEOUT: Final = 30
"""Seconds that a daemon may take for a request. (drivers/hv/hyperv_vmbus.h:28 @6.1.192)"""
HV_UTIL_NEGO_TIMEOUT: Final = 55
"""Seconds after which the host is answered even if no daemon has shown up. (drivers/hv/hyperv_vmbus.h:33 @6.1.192)"""


class HvKvpExchgOp(IntEnum):
    """KVP operations.

    Source: include/uapi/linux/hyperv.h:296 @6.1.192
    """

    KVP_OP_GET = 0
    KVP_OP_SET = 1
    KVP_OP_DELETE = 2
    KVP_OP_ENUMERATE = 3
    KVP_OP_GET_IP_INFO = 4
    KVP_OP_SET_IP_INFO = 5
    KVP_OP_COUNT = 6


class HvKvpExchgPool(IntEnum):
    """KVP pools.

    Source: include/uapi/linux/hyperv.h:306 @6.1.192
    """

    KVP_POOL_EXTERNAL = 0
    KVP_POOL_GUEST = 1
    KVP_POOL_AUTO = 2
    KVP_POOL_AUTO_EXTERNAL = 3
    KVP_POOL_AUTO_INTERNAL = 4
    KVP_POOL_COUNT = 5


class HvVssOp(IntEnum):
    """VSS operations.

    Source: include/uapi/linux/hyperv.h:54 @6.1.192
    """

    VSS_OP_CREATE = 0
    VSS_OP_DELETE = 1
    VSS_OP_HOT_BACKUP = 2
    VSS_OP_GET_DM_INFO = 3
    VSS_OP_BU_COMPLETE = 4
    VSS_OP_FREEZE = 5
    VSS_OP_THAW = 6
    VSS_OP_AUTO_RECOVER = 7
    VSS_OP_COUNT = 8


class HvFcopyOp(IntEnum):
    """File copy operations.

    Source: include/uapi/linux/hyperv.h:124 @6.1.192
    """

    START_FILE_COPY = 0
    WRITE_TO_FILE = 1
    COMPLETE_FCOPY = 2
    CANCEL_FCOPY = 3


class HvutilDeviceState(IntEnum):
    """States of a service that has a daemon.

    Source: drivers/hv/hyperv_vmbus.h:394 @6.1.192
    """

    HVUTIL_DEVICE_INIT = 0
    HVUTIL_READY = 1
    HVUTIL_HOSTMSG_RECEIVED = 2
    HVUTIL_USERSPACE_REQ = 3
    HVUTIL_USERSPACE_RECV = 4
    HVUTIL_DEVICE_DYING = 5


@wire(size=8, source="include/linux/hyperv.h:1571 @6.1.192")
class VmbuspipeHdr(Wire):
    """Pipe header, in front of every integration component message."""

    __kernel__ = "vmbuspipe_hdr"

    flags: u32
    msgsize: u32


@wire(size=4, source="include/linux/hyperv.h:1576 @6.1.192")
class IcVersion(Wire):
    """A version."""

    __kernel__ = "ic_version"

    major: u16
    minor: u16


@wire(size=20, source="include/linux/hyperv.h:1581 @6.1.192")
class IcmsgHdr(Wire):
    """Integration component header."""

    __kernel__ = "icmsg_hdr"

    icverframe: IcVersion
    icmsgtype: u16
    """ICMSGTYPE_*."""
    icvermsg: IcVersion
    icmsgsize: u16
    """Bytes that follow the header."""
    status: u32
    ictransaction_id: u8
    icflags: u8
    """ICMSGHDRFLAG_*."""
    reserved: Annotated[bytes, 2]


@wire(size=8, source="include/linux/hyperv.h:1598 @6.1.192")
class IcmsgNegotiate(Wire):
    """Version negotiation: the framework versions follow, then the message versions."""

    __kernel__ = "icmsg_negotiate"

    icframe_vercnt: u16
    icmsg_vercnt: u16
    reserved: u32
    icversion_data = tail(IcVersion)


@wire(size=2060, source="include/linux/hyperv.h:1605 @6.1.192")
class ShutdownMsgData(Wire):
    """Host wants the guest to shut down, restart or hibernate."""

    __kernel__ = "shutdown_msg_data"

    reason_code: u32
    timeout_seconds: u32
    flags: u32
    display_message: Annotated[bytes, 2048]


@wire(size=40, source="include/linux/hyperv.h:1612 @6.1.192")
class HeartbeatMsgData(Wire):
    """Host asks for a sign of life; the guest answers seq_num + 1."""

    __kernel__ = "heartbeat_msg_data"

    seq_num: u64
    reserved: Annotated[tuple[int, ...], u32, 8]


@wire(size=25, source="include/linux/hyperv.h:1628 @6.1.192")
class IctimesyncData(Wire):
    """Host's time, up to time sync version 3. Times are in 100 ns since 1601."""

    __kernel__ = "ictimesync_data"

    parenttime: u64
    childtime: u64
    roundtriptime: u64
    flags: u8


@wire(size=22, source="include/linux/hyperv.h:1635 @6.1.192")
class IctimesyncRefData(Wire):
    """Host's time with the reference time at which it was taken, from time sync version 4."""

    __kernel__ = "ictimesync_ref_data"

    parenttime: u64
    vmreferencetime: u64
    flags: u8
    leapflags: u8
    stratum: u8
    reserved: Annotated[bytes, 3]


@wire(size=8, source="include/uapi/linux/hyperv.h:73 @6.1.192")
class HvVssHdr(Wire):
    """Header of a VSS message."""

    __kernel__ = "hv_vss_hdr"

    operation: u8
    reserved: Annotated[bytes, 7]


@wire(size=4, source="include/uapi/linux/hyperv.h:85 @6.1.192")
class HvVssCheckFeature(Wire):
    """Answer to HOT_BACKUP."""

    __kernel__ = "hv_vss_check_feature"

    flags: u32


@wire(size=4, source="include/uapi/linux/hyperv.h:89 @6.1.192")
class HvVssCheckDmInfo(Wire):
    """Answer to GET_DM_INFO."""

    __kernel__ = "hv_vss_check_dm_info"

    flags: u32


@wire(size=12, source="include/uapi/linux/hyperv.h:104 @6.1.192")
class HvVssMsg(Wire):
    """A VSS message, as far as Linux looks at it; FREEZE may be up to 6,260 bytes long."""

    __kernel__ = "hv_vss_msg"

    vss_hdr: HvVssHdr
    vss_cf: HvVssCheckFeature
    error: s32 = overlay(0)
    dm_info: HvVssCheckDmInfo = overlay(8)


@wire(size=36, source="include/uapi/linux/hyperv.h:131 @6.1.192")
class HvFcopyHdr(Wire):
    """Header of a file copy message."""

    __kernel__ = "hv_fcopy_hdr"

    operation: u32
    service_id0: Annotated[bytes, 16]
    service_id1: Annotated[bytes, 16]


@wire(size=1088, source="include/uapi/linux/hyperv.h:140 @6.1.192")
class HvStartFcopy(Wire):
    """START_FILE_COPY."""

    __kernel__ = "hv_start_fcopy"

    hdr: HvFcopyHdr
    file_name: Annotated[tuple[int, ...], u16, 260]
    path_name: Annotated[tuple[int, ...], u16, 260]
    copy_flags: u32
    file_size: u64


@wire(size=6196, source="include/uapi/linux/hyperv.h:153 @6.1.192")
class HvDoFcopy(Wire):
    """WRITE_TO_FILE."""

    __kernel__ = "hv_do_fcopy"

    hdr: HvFcopyHdr
    pad: u32
    offset: u64
    size: u32
    data: Annotated[bytes, 6144]


@wire(size=7426, source="include/uapi/linux/hyperv.h:339 @6.1.192")
class HvKvpIpaddrValue(Wire):
    """An adapter's IP configuration. The strings are UTF-16."""

    __kernel__ = "hv_kvp_ipaddr_value"

    adapter_id: Annotated[tuple[int, ...], u16, 128]
    addr_family: u8
    dhcp_enabled: u8
    ip_addr: Annotated[tuple[int, ...], u16, 1024]
    sub_net: Annotated[tuple[int, ...], u16, 1024]
    gate_way: Annotated[tuple[int, ...], u16, 512]
    dns_addr: Annotated[tuple[int, ...], u16, 1024]


@wire(size=4, source="include/uapi/linux/hyperv.h:350 @6.1.192")
class HvKvpHdr(Wire):
    """Header of a KVP message."""

    __kernel__ = "hv_kvp_hdr"

    operation: u8
    pool: u8
    pad: u16


@wire(size=2572, source="include/uapi/linux/hyperv.h:356 @6.1.192")
class HvKvpExchgMsgValue(Wire):
    """A key with its value."""

    __kernel__ = "hv_kvp_exchg_msg_value"

    value_type: u32
    key_size: u32
    value_size: u32
    key: Annotated[bytes, 512]
    value: Annotated[bytes, 2048]
    value_u32: u32 = overlay(524)
    value_u64: u64 = overlay(524)


@wire(size=2576, source="include/uapi/linux/hyperv.h:368 @6.1.192")
class HvKvpMsgEnumerate(Wire):
    """KVP_OP_ENUMERATE."""

    __kernel__ = "hv_kvp_msg_enumerate"

    index: u32
    data: HvKvpExchgMsgValue


@wire(size=2572, source="include/uapi/linux/hyperv.h:373 @6.1.192")
class HvKvpMsgGet(Wire):
    """KVP_OP_GET."""

    __kernel__ = "hv_kvp_msg_get"

    data: HvKvpExchgMsgValue


@wire(size=2572, source="include/uapi/linux/hyperv.h:377 @6.1.192")
class HvKvpMsgSet(Wire):
    """KVP_OP_SET."""

    __kernel__ = "hv_kvp_msg_set"

    data: HvKvpExchgMsgValue


@wire(size=516, source="include/uapi/linux/hyperv.h:381 @6.1.192", packed=False)
class HvKvpMsgDelete(Wire):
    """KVP_OP_DELETE."""

    __kernel__ = "hv_kvp_msg_delete"

    key_size: u32
    key: Annotated[bytes, 512]


@wire(size=512, source="include/uapi/linux/hyperv.h:386 @6.1.192")
class HvKvpRegister(Wire):
    """Daemon to kernel: its version."""

    __kernel__ = "hv_kvp_register"

    version: Annotated[bytes, 512]


@union(size=7428, source="include/uapi/linux/hyperv.h:390 @6.1.192", align=4)
class HvKvpMsgBody(Union):
    """What the operation needs."""

    kvp_get: HvKvpMsgGet
    kvp_set: HvKvpMsgSet
    kvp_delete: HvKvpMsgDelete
    kvp_enum_data: HvKvpMsgEnumerate
    kvp_ip_val: HvKvpIpaddrValue
    kvp_register: HvKvpRegister


@wire(size=7432, source="include/uapi/linux/hyperv.h:390 @6.1.192")
class HvKvpMsg(Wire):
    """A KVP message between kernel and daemon; the host's begins with the same four bytes."""

    __kernel__ = "hv_kvp_msg"

    kvp_hdr: HvKvpHdr
    body: HvKvpMsgBody
    error: s32 = overlay(0)


@wire(size=7428, source="include/uapi/linux/hyperv.h:405 @6.1.192")
class HvKvpIpMsg(Wire):
    """A KVP message about IP configuration, on the wire."""

    __kernel__ = "hv_kvp_ip_msg"

    operation: u8
    pool: u8
    kvp_ip_val: HvKvpIpaddrValue
