"""The storage protocol between storvsc and the host.

Counterpart of the protocol part of drivers/scsi/storvsc_drv.c. Every packet is a `VstorPacket` of 64 bytes; 6.1
speaks only versions from 5.1 on, in which a SCSI request is 52 bytes.
"""

from __future__ import annotations

from enum import IntEnum
from types import MappingProxyType
from typing import Annotated, Final

from hvkernel.abi.guids import HV_IDE_GUID, HV_SCSI_GUID, HV_SYNTHFC_GUID
from hvkernel.abi.meaning import TO_HOST, Choice, Flags, Form, Meaning, Names, Payload, Test, names
from hvkernel.abi.wire import Wire, overlay, u8, u16, u32, u64, wire

VMSTOR_PROTO_VERSION_WIN6: Final = 2 << 8 | 0
"""Storage protocol 2.0: Server 2008. Linux no longer offers it. (drivers/scsi/storvsc_drv.c:57 @6.1.192)"""
VMSTOR_PROTO_VERSION_WIN7: Final = 4 << 8 | 2
"""Storage protocol 4.2: Server 2008 R2. Linux no longer offers it. (drivers/scsi/storvsc_drv.c:58 @6.1.192)"""
VMSTOR_PROTO_VERSION_WIN8: Final = 5 << 8 | 1
"""Storage protocol 5.1: Server 2012. (drivers/scsi/storvsc_drv.c:59 @6.1.192)"""
VMSTOR_PROTO_VERSION_WIN8_1: Final = 6 << 8 | 0
"""Storage protocol 6.0: Server 2012 R2. (drivers/scsi/storvsc_drv.c:60 @6.1.192)"""
VMSTOR_PROTO_VERSION_WIN10: Final = 6 << 8 | 2
"""Storage protocol 6.2: Server 2016 and later. (drivers/scsi/storvsc_drv.c:61 @6.1.192)"""
CALLBACK_TIMEOUT: Final = 2
"""Milliseconds for which one callback goes on reading the ring. (drivers/scsi/storvsc_drv.c:64 @6.1.192)"""
SRB_FLAGS_QUEUE_ACTION_ENABLE: Final = 0x2
"""Request flag: queue_action is valid. (drivers/scsi/storvsc_drv.c:103 @6.1.192)"""
SRB_FLAGS_DISABLE_DISCONNECT: Final = 0x4
"""Request flag: the target may not disconnect. (drivers/scsi/storvsc_drv.c:104 @6.1.192)"""
SRB_FLAGS_DISABLE_SYNCH_TRANSFER: Final = 0x8
"""Request flag: no synchronous transfer; Linux sets it on every command. (drivers/scsi/storvsc_drv.c:105 @6.1.192)"""
SRB_FLAGS_BYPASS_FROZEN_QUEUE: Final = 0x10
"""Request flag: run although the queue is frozen. (drivers/scsi/storvsc_drv.c:106 @6.1.192)"""
SRB_FLAGS_DISABLE_AUTOSENSE: Final = 0x20
"""Request flag: no sense data wanted. (drivers/scsi/storvsc_drv.c:107 @6.1.192)"""
SRB_FLAGS_DATA_IN: Final = 0x40
"""Request flag: data go to the guest. (drivers/scsi/storvsc_drv.c:108 @6.1.192)"""
SRB_FLAGS_DATA_OUT: Final = 0x80
"""Request flag: data go to the device. (drivers/scsi/storvsc_drv.c:109 @6.1.192)"""
SRB_FLAGS_NO_DATA_TRANSFER: Final = 0x0
"""Request flag: no data. (drivers/scsi/storvsc_drv.c:110 @6.1.192)"""
SRB_FLAGS_UNSPECIFIED_DIRECTION: Final = 192
"""Request flag: either direction. (drivers/scsi/storvsc_drv.c:111 @6.1.192)"""
SRB_FLAGS_NO_QUEUE_FREEZE: Final = 0x100
"""Request flag: an error does not freeze the queue. (drivers/scsi/storvsc_drv.c:112 @6.1.192)"""
SRB_FLAGS_ADAPTER_CACHE_ENABLE: Final = 0x200
"""Request flag: the adapter may cache. (drivers/scsi/storvsc_drv.c:113 @6.1.192)"""
SRB_FLAGS_FREE_SENSE_BUFFER: Final = 0x400
"""Request flag: the sense buffer is the class driver's to free. (drivers/scsi/storvsc_drv.c:114 @6.1.192)"""
SRB_FLAGS_D3_PROCESSING: Final = 0x800
"""Request flag: part of going to power state D3. (drivers/scsi/storvsc_drv.c:119 @6.1.192)"""
SRB_FLAGS_IS_ACTIVE: Final = 0x0001_0000
"""Request flag: port driver's, request is active. (drivers/scsi/storvsc_drv.c:120 @6.1.192)"""
SRB_FLAGS_ALLOCATED_FROM_ZONE: Final = 0x0002_0000
"""Request flag: port driver's, allocated from a zone. (drivers/scsi/storvsc_drv.c:121 @6.1.192)"""
SRB_FLAGS_SGLIST_FROM_POOL: Final = 0x0004_0000
"""Request flag: port driver's, scatter list from a pool. (drivers/scsi/storvsc_drv.c:122 @6.1.192)"""
SRB_FLAGS_BYPASS_LOCKED_QUEUE: Final = 0x0008_0000
"""Request flag: run although the queue is locked. (drivers/scsi/storvsc_drv.c:123 @6.1.192)"""
SRB_FLAGS_NO_KEEP_AWAKE: Final = 0x0010_0000
"""Request flag: does not keep the device awake. (drivers/scsi/storvsc_drv.c:124 @6.1.192)"""
SRB_FLAGS_PORT_DRIVER_ALLOCSENSE: Final = 0x0020_0000
"""Request flag: port driver allocated the sense buffer. (drivers/scsi/storvsc_drv.c:125 @6.1.192)"""
SRB_FLAGS_PORT_DRIVER_SENSEHASPORT: Final = 0x0040_0000
"""Request flag: port number lies behind the sense data. (drivers/scsi/storvsc_drv.c:126 @6.1.192)"""
SRB_FLAGS_DONT_START_NEXT_PACKET: Final = 0x0080_0000
"""Request flag: do not start the next request. (drivers/scsi/storvsc_drv.c:127 @6.1.192)"""
SRB_FLAGS_PORT_DRIVER_RESERVED: Final = 0x0F00_0000
"""Request flags: mask for the port driver. (drivers/scsi/storvsc_drv.c:128 @6.1.192)"""
SRB_FLAGS_CLASS_DRIVER_RESERVED: Final = 0xF000_0000
"""Request flags: mask for the class driver. (drivers/scsi/storvsc_drv.c:129 @6.1.192)"""
SP_UNTAGGED: Final = 255
"""Queue tag of a request that has none. (drivers/scsi/storvsc_drv.c:131 @6.1.192)"""
SRB_SIMPLE_TAG_REQUEST: Final = 0x20
"""Queue action: simple tag. (drivers/scsi/storvsc_drv.c:132 @6.1.192)"""
STORVSC_MAX_CMD_LEN: Final = 0x10
"""Bytes of a command block at most. (drivers/scsi/storvsc_drv.c:139 @6.1.192)"""
STORVSC_SENSE_BUFFER_SIZE: Final = 0x14
"""Bytes of sense data at most, from storage protocol 5.1 on. (drivers/scsi/storvsc_drv.c:142 @6.1.192)"""
STORVSC_MAX_BUF_LEN_WITH_PADDING: Final = 0x14
"""Bytes of the area that holds either. (drivers/scsi/storvsc_drv.c:143 @6.1.192)"""
STORVSC_LOGGING_NONE: Final = 0
"""Module parameter logging_level: nothing. (drivers/scsi/storvsc_drv.c:154 @6.1.192)"""
STORVSC_LOGGING_ERROR: Final = 1
"""Module parameter logging_level: errors. (drivers/scsi/storvsc_drv.c:155 @6.1.192)"""
STORVSC_LOGGING_WARN: Final = 2
"""Module parameter logging_level: warnings too. (drivers/scsi/storvsc_drv.c:156 @6.1.192)"""
STORAGE_CHANNEL_SUPPORTS_MULTI_CHANNEL: Final = 0x1
"""Channel property: sub-channels may be asked for. (drivers/scsi/storvsc_drv.c:230 @6.1.192)"""
STORAGE_CHANNEL_REMOVABLE_FLAG: Final = 0x1
"""Channel property: removable. Linux does not look at it. (drivers/scsi/storvsc_drv.c:259 @6.1.192)"""
STORAGE_CHANNEL_EMULATED_IDE_FLAG: Final = 0x2
"""Channel property: of an emulated IDE controller. Linux does not look at it.

Source: drivers/scsi/storvsc_drv.c:260 @6.1.192
"""
REQUEST_COMPLETION_FLAG: Final = 0x1
"""Packet flag: a completion is wanted. (drivers/scsi/storvsc_drv.c:304 @6.1.192)"""
SRB_STATUS_AUTOSENSE_VALID: Final = 0x80
"""Status flag: there are sense data. (drivers/scsi/storvsc_drv.c:319 @6.1.192)"""
SRB_STATUS_QUEUE_FROZEN: Final = 0x40
"""Status flag: the queue is frozen. (drivers/scsi/storvsc_drv.c:320 @6.1.192)"""
SRB_STATUS_SUCCESS: Final = 0x1
"""Status: done. (drivers/scsi/storvsc_drv.c:323 @6.1.192)"""
SRB_STATUS_ABORTED: Final = 0x2
"""Status: aborted. (drivers/scsi/storvsc_drv.c:324 @6.1.192)"""
SRB_STATUS_ERROR: Final = 0x4
"""Status: see scsi_status. (drivers/scsi/storvsc_drv.c:325 @6.1.192)"""
SRB_STATUS_INVALID_REQUEST: Final = 0x6
"""Status: the request is not valid. (drivers/scsi/storvsc_drv.c:326 @6.1.192)"""
SRB_STATUS_DATA_OVERRUN: Final = 0x12
"""Status: more or fewer data than the buffer is long. (drivers/scsi/storvsc_drv.c:327 @6.1.192)"""
SRB_STATUS_INVALID_LUN: Final = 0x20
"""Status: no such LUN. (drivers/scsi/storvsc_drv.c:328 @6.1.192)"""
STORVSC_MAX_LUNS_PER_TARGET: Final = 255
"""SCSI class: LUNs per target. (drivers/scsi/storvsc_drv.c:370 @6.1.192)"""
STORVSC_MAX_TARGETS: Final = 2
"""SCSI class: targets per channel. (drivers/scsi/storvsc_drv.c:371 @6.1.192)"""
STORVSC_MAX_CHANNELS: Final = 8
"""SCSI class: SCSI channels. (drivers/scsi/storvsc_drv.c:372 @6.1.192)"""
STORVSC_FC_MAX_LUNS_PER_TARGET: Final = 255
"""Fibre channel class: LUNs per target. (drivers/scsi/storvsc_drv.c:374 @6.1.192)"""
STORVSC_FC_MAX_TARGETS: Final = 128
"""Fibre channel class: targets per channel. (drivers/scsi/storvsc_drv.c:375 @6.1.192)"""
STORVSC_FC_MAX_CHANNELS: Final = 8
"""Fibre channel class: SCSI channels. (drivers/scsi/storvsc_drv.c:376 @6.1.192)"""
STORVSC_FC_MAX_XFER_SIZE: Final = 512 * 1024
"""Fibre channel class: bytes per transfer at most, whatever the host says. (drivers/scsi/storvsc_drv.c:377 @6.1.192)"""
STORVSC_IDE_MAX_LUNS_PER_TARGET: Final = 64
"""IDE class: LUNs per target. (drivers/scsi/storvsc_drv.c:379 @6.1.192)"""
STORVSC_IDE_MAX_TARGETS: Final = 1
"""IDE class: targets per channel. (drivers/scsi/storvsc_drv.c:380 @6.1.192)"""
STORVSC_IDE_MAX_CHANNELS: Final = 1
"""IDE class: SCSI channels. (drivers/scsi/storvsc_drv.c:381 @6.1.192)"""
STORVSC_MAX_PKT_SIZE: Final = 80
"""Bytes of a storage packet on the ring at most, descriptor included. (drivers/scsi/storvsc_drv.c:386 @6.1.192)"""
SCSI_GUID: Final = 0
"""Index of the driver's device id table: the SCSI class. (drivers/scsi/storvsc_drv.c:1898 @6.1.192)"""
IDE_GUID: Final = 1
"""Index of the driver's device id table: the IDE class. (drivers/scsi/storvsc_drv.c:1899 @6.1.192)"""
SFC_GUID: Final = 2
"""Index of the driver's device id table: the fibre channel class. (drivers/scsi/storvsc_drv.c:1900 @6.1.192)"""


class VstorPacketOperation(IntEnum):
    """Operations of `VstorPacket`.

    Source: drivers/scsi/storvsc_drv.c:67 @6.1.192
    """

    VSTOR_OPERATION_COMPLETE_IO = 1
    VSTOR_OPERATION_REMOVE_DEVICE = 2
    VSTOR_OPERATION_EXECUTE_SRB = 3
    VSTOR_OPERATION_RESET_LUN = 4
    VSTOR_OPERATION_RESET_ADAPTER = 5
    VSTOR_OPERATION_RESET_BUS = 6
    VSTOR_OPERATION_BEGIN_INITIALIZATION = 7
    VSTOR_OPERATION_END_INITIALIZATION = 8
    VSTOR_OPERATION_QUERY_PROTOCOL_VERSION = 9
    VSTOR_OPERATION_QUERY_PROPERTIES = 10
    VSTOR_OPERATION_ENUMERATE_BUS = 11
    VSTOR_OPERATION_FCHBA_DATA = 12
    VSTOR_OPERATION_CREATE_SUB_CHANNELS = 13
    VSTOR_OPERATION_MAXIMUM = 13


class StorvscRequestType(IntEnum):
    """Direction of a request, in data_in.

    Source: drivers/scsi/storvsc_drv.c:307 @6.1.192
    """

    WRITE_TYPE = 0
    READ_TYPE = 1
    UNKNOWN_TYPE = 2


@wire(size=36, source="drivers/scsi/storvsc_drv.c:88 @6.1.192")
class HvFcWwnPacket(Wire):
    """World-wide names of a fibre channel adapter (VSTOR_OPERATION_FCHBA_DATA)."""

    __kernel__ = "hv_fc_wwn_packet"

    primary_active: u8
    reserved1: Annotated[bytes, 3]
    primary_port_wwn: Annotated[bytes, 8]
    primary_node_wwn: Annotated[bytes, 8]
    secondary_port_wwn: Annotated[bytes, 8]
    secondary_node_wwn: Annotated[bytes, 8]


@wire(size=52, source="drivers/scsi/storvsc_drv.c:180 @6.1.192")
class VmscsiRequest(Wire):
    """A SCSI command with its result, in the layout since storage protocol 5.1."""

    __kernel__ = "vmscsi_request"

    length: u16
    """Bytes of this struct: 52."""
    srb_status: u8
    scsi_status: u8
    port_number: u8
    path_id: u8
    target_id: u8
    lun: u8
    cdb_length: u8
    sense_info_length: u8
    data_in: u8
    """A `StorvscRequestType`."""
    reserved: u8
    data_transfer_length: u32
    sense_data: Annotated[bytes, 20]
    """In the completion, when SRB_STATUS_AUTOSENSE_VALID is set."""
    reserve: u16
    queue_tag: u8
    queue_action: u8
    srb_flags: u32
    time_out_value: u32
    """Seconds."""
    queue_sort_ey: u32
    cdb: Annotated[bytes, 16] = overlay(16)
    reserved_array: Annotated[bytes, 20] = overlay(16)


@wire(size=24, source="drivers/scsi/storvsc_drv.c:232 @6.1.192")
class VmstorageChannelProperties(Wire):
    """What the host says about the channel (VSTOR_OPERATION_QUERY_PROPERTIES)."""

    __kernel__ = "vmstorage_channel_properties"

    reserved: u32
    max_channel_cnt: u16
    reserved1: u16
    flags: u32
    max_transfer_bytes: u32
    reserved2: u64


@wire(size=4, source="drivers/scsi/storvsc_drv.c:244 @6.1.192")
class VmstorageProtocolVersion(Wire):
    """A storage protocol version (VSTOR_OPERATION_QUERY_PROTOCOL_VERSION)."""

    __kernel__ = "vmstorage_protocol_version"

    major_minor: u16
    """Major number in the high byte."""
    revision: u16
    """Linux sends 0."""


@wire(size=64, source="drivers/scsi/storvsc_drv.c:262 @6.1.192")
class VstorPacket(Wire):
    """Every packet of the storage protocol, always 64 bytes."""

    __kernel__ = "vstor_packet"

    operation: u32
    """A `VstorPacketOperation`."""
    flags: u32
    status: u32
    """0, or an NTSTATUS."""
    vm_srb: VmscsiRequest
    storage_channel_properties: VmstorageChannelProperties = overlay(12)
    version: VmstorageProtocolVersion = overlay(12)
    wwn_packet: HvFcWwnPacket = overlay(12)
    sub_channel_count: u16 = overlay(12)
    buffer: Annotated[bytes, 52] = overlay(12)


_OPERATION: Final = names(VstorPacketOperation)
_SRB_STATUS: Final = MappingProxyType(
    {
        SRB_STATUS_SUCCESS: "SRB_STATUS_SUCCESS",
        SRB_STATUS_ABORTED: "SRB_STATUS_ABORTED",
        SRB_STATUS_ERROR: "SRB_STATUS_ERROR",
        SRB_STATUS_INVALID_REQUEST: "SRB_STATUS_INVALID_REQUEST",
        SRB_STATUS_DATA_OVERRUN: "SRB_STATUS_DATA_OVERRUN",
        SRB_STATUS_INVALID_LUN: "SRB_STATUS_INVALID_LUN",
    }
)
_SRB_FLAG_NAMES: Final = tuple(
    name
    for name in globals()
    if name.startswith("SRB_FLAGS_")
    and not name.endswith(("_NO_DATA_TRANSFER", "_UNSPECIFIED_DIRECTION", "_DRIVER_RESERVED"))
)
_IO: Final = (VstorPacketOperation.VSTOR_OPERATION_EXECUTE_SRB,)

MEANINGS: Final[MappingProxyType[str, Meaning]] = MappingProxyType(
    {
        "vstor_packet.operation": _OPERATION,
        "vstor_packet.flags": Flags(MappingProxyType({REQUEST_COMPLETION_FLAG: "REQUEST_COMPLETION_FLAG"})),
        "vstor_packet.sub_channel_count": Form.DECIMAL,
        "vmscsi_request.length": Form.DECIMAL,
        "vmscsi_request.srb_status": Names(
            MappingProxyType(
                {0: "-"}
                | {
                    status | flags: " | ".join((name, *more))
                    for status, name in _SRB_STATUS.items()
                    for flags, more in (
                        (0, ()),
                        (SRB_STATUS_AUTOSENSE_VALID, ("SRB_STATUS_AUTOSENSE_VALID",)),
                        (SRB_STATUS_QUEUE_FROZEN, ("SRB_STATUS_QUEUE_FROZEN",)),
                        (
                            SRB_STATUS_AUTOSENSE_VALID | SRB_STATUS_QUEUE_FROZEN,
                            ("SRB_STATUS_AUTOSENSE_VALID", "SRB_STATUS_QUEUE_FROZEN"),
                        ),
                    )
                }
            ),
            closed=False,
        ),
        "vmscsi_request.cdb_length": Form.DECIMAL,
        "vmscsi_request.sense_info_length": Form.DECIMAL,
        "vmscsi_request.data_in": names(StorvscRequestType),
        "vmscsi_request.data_transfer_length": Form.DECIMAL,
        "vmscsi_request.srb_flags": Flags(MappingProxyType({globals()[name]: name for name in _SRB_FLAG_NAMES})),
        "vmscsi_request.time_out_value": Form.DECIMAL,
        "vmstorage_channel_properties.max_channel_cnt": Form.DECIMAL,
        "vmstorage_channel_properties.max_transfer_bytes": Form.DECIMAL,
        "vmstorage_channel_properties.flags": Flags(
            MappingProxyType({STORAGE_CHANNEL_SUPPORTS_MULTI_CHANNEL: "STORAGE_CHANNEL_SUPPORTS_MULTI_CHANNEL"})
        ),
        "vmstorage_protocol_version.major_minor": Form.VERSION8,
    }
)
"""By ``tag.field`` (drivers/scsi/storvsc_drv.c:57 and following @6.1.192, through the names above)."""

CHOICES: Final[MappingProxyType[str, tuple[Choice, ...]]] = MappingProxyType(
    {
        "vstor_packet": (
            Choice("operation", Test.IN, _IO, yes=("vm_srb",)),
            Choice(
                "operation",
                Test.IN,
                (VstorPacketOperation.VSTOR_OPERATION_QUERY_PROPERTIES,),
                yes=("storage_channel_properties",),
            ),
            Choice(
                "operation", Test.IN, (VstorPacketOperation.VSTOR_OPERATION_QUERY_PROTOCOL_VERSION,), yes=("version",)
            ),
            Choice("operation", Test.IN, (VstorPacketOperation.VSTOR_OPERATION_FCHBA_DATA,), yes=("wwn_packet",)),
            Choice(
                "operation",
                Test.IN,
                (VstorPacketOperation.VSTOR_OPERATION_CREATE_SUB_CHANNELS,),
                yes=("sub_channel_count",),
            ),
            Choice(
                "operation",
                Test.IN,
                (
                    *_IO,
                    VstorPacketOperation.VSTOR_OPERATION_QUERY_PROPERTIES,
                    VstorPacketOperation.VSTOR_OPERATION_QUERY_PROTOCOL_VERSION,
                    VstorPacketOperation.VSTOR_OPERATION_FCHBA_DATA,
                    VstorPacketOperation.VSTOR_OPERATION_CREATE_SUB_CHANNELS,
                ),
                no=("buffer",),
            ),
        ),
        "vmscsi_request": (
            Choice(TO_HOST, Test.IN, (1,), yes=("cdb",), no=("sense_data", "reserved_array")),
            Choice(TO_HOST, Test.IN, (0,), no=("reserved_array",)),
        ),
    }
)
"""By tag: which of the overlapping members holds (drivers/scsi/storvsc_drv.c:vstor_packet @6.1.192)."""

PAYLOADS: Final = (
    Payload(
        "storvsc",
        (HV_SCSI_GUID, HV_IDE_GUID, HV_SYNTHFC_GUID),
        VstorPacket,
        selector="operation",
        repeats=(VstorPacketOperation.VSTOR_OPERATION_COMPLETE_IO,),
    ),
)
"""What the packets of these device classes carry; a completion is read as its request
(drivers/scsi/storvsc_drv.c:storvsc_on_receive @6.1.192)."""
