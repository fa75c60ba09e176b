"""STORDOC"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Final

from hvkernel.abi.wire import Wire, overlay, u8, u16, u32, u64, wire

VMSTOR_PROTO_VERSION_WIN6: Final = 0x200
"""VMSTOR_PROTO_VERSION_WIN6. (drivers/scsi/storvsc_drv.c:57 @6.1.192)"""
VMSTOR_PROTO_VERSION_WIN7: Final = 0x402
"""VMSTOR_PROTO_VERSION_WIN7. (drivers/scsi/storvsc_drv.c:58 @6.1.192)"""
VMSTOR_PROTO_VERSION_WIN8: Final = 0x501
"""VMSTOR_PROTO_VERSION_WIN8. (drivers/scsi/storvsc_drv.c:59 @6.1.192)"""
VMSTOR_PROTO_VERSION_WIN8_1: Final = 0x600
"""VMSTOR_PROTO_VERSION_WIN8_1. (drivers/scsi/storvsc_drv.c:60 @6.1.192)"""
VMSTOR_PROTO_VERSION_WIN10: Final = 0x602
"""VMSTOR_PROTO_VERSION_WIN10. (drivers/scsi/storvsc_drv.c:61 @6.1.192)"""
CALLBACK_TIMEOUT: Final = 2
"""CALLBACK_TIMEOUT. (drivers/scsi/storvsc_drv.c:64 @6.1.192)"""
SRB_FLAGS_QUEUE_ACTION_ENABLE: Final = 0x2
"""SRB_FLAGS_QUEUE_ACTION_ENABLE. (drivers/scsi/storvsc_drv.c:103 @6.1.192)"""
SRB_FLAGS_DISABLE_DISCONNECT: Final = 0x4
"""SRB_FLAGS_DISABLE_DISCONNECT. (drivers/scsi/storvsc_drv.c:104 @6.1.192)"""
SRB_FLAGS_DISABLE_SYNCH_TRANSFER: Final = 0x8
"""SRB_FLAGS_DISABLE_SYNCH_TRANSFER. (drivers/scsi/storvsc_drv.c:105 @6.1.192)"""
SRB_FLAGS_BYPASS_FROZEN_QUEUE: Final = 0x10
"""SRB_FLAGS_BYPASS_FROZEN_QUEUE. (drivers/scsi/storvsc_drv.c:106 @6.1.192)"""
SRB_FLAGS_DISABLE_AUTOSENSE: Final = 0x20
"""SRB_FLAGS_DISABLE_AUTOSENSE. (drivers/scsi/storvsc_drv.c:107 @6.1.192)"""
SRB_FLAGS_DATA_IN: Final = 0x40
"""SRB_FLAGS_DATA_IN. (drivers/scsi/storvsc_drv.c:108 @6.1.192)"""
SRB_FLAGS_DATA_OUT: Final = 0x80
"""SRB_FLAGS_DATA_OUT. (drivers/scsi/storvsc_drv.c:109 @6.1.192)"""
SRB_FLAGS_NO_DATA_TRANSFER: Final = 0x0
"""SRB_FLAGS_NO_DATA_TRANSFER. (drivers/scsi/storvsc_drv.c:110 @6.1.192)"""
SRB_FLAGS_UNSPECIFIED_DIRECTION: Final = 0xC0
"""SRB_FLAGS_UNSPECIFIED_DIRECTION. (drivers/scsi/storvsc_drv.c:111 @6.1.192)"""
SRB_FLAGS_NO_QUEUE_FREEZE: Final = 0x100
"""SRB_FLAGS_NO_QUEUE_FREEZE. (drivers/scsi/storvsc_drv.c:112 @6.1.192)"""
SRB_FLAGS_ADAPTER_CACHE_ENABLE: Final = 0x200
"""SRB_FLAGS_ADAPTER_CACHE_ENABLE. (drivers/scsi/storvsc_drv.c:113 @6.1.192)"""
SRB_FLAGS_FREE_SENSE_BUFFER: Final = 0x400
"""SRB_FLAGS_FREE_SENSE_BUFFER. (drivers/scsi/storvsc_drv.c:114 @6.1.192)"""
SRB_FLAGS_D3_PROCESSING: Final = 0x800
"""SRB_FLAGS_D3_PROCESSING. (drivers/scsi/storvsc_drv.c:119 @6.1.192)"""
SRB_FLAGS_IS_ACTIVE: Final = 0x0001_0000
"""SRB_FLAGS_IS_ACTIVE. (drivers/scsi/storvsc_drv.c:120 @6.1.192)"""
SRB_FLAGS_ALLOCATED_FROM_ZONE: Final = 0x0002_0000
"""SRB_FLAGS_ALLOCATED_FROM_ZONE. (drivers/scsi/storvsc_drv.c:121 @6.1.192)"""
SRB_FLAGS_SGLIST_FROM_POOL: Final = 0x0004_0000
"""SRB_FLAGS_SGLIST_FROM_POOL. (drivers/scsi/storvsc_drv.c:122 @6.1.192)"""
SRB_FLAGS_BYPASS_LOCKED_QUEUE: Final = 0x0008_0000
"""SRB_FLAGS_BYPASS_LOCKED_QUEUE. (drivers/scsi/storvsc_drv.c:123 @6.1.192)"""
SRB_FLAGS_NO_KEEP_AWAKE: Final = 0x0010_0000
"""SRB_FLAGS_NO_KEEP_AWAKE. (drivers/scsi/storvsc_drv.c:124 @6.1.192)"""
SRB_FLAGS_PORT_DRIVER_ALLOCSENSE: Final = 0x0020_0000
"""SRB_FLAGS_PORT_DRIVER_ALLOCSENSE. (drivers/scsi/storvsc_drv.c:125 @6.1.192)"""
SRB_FLAGS_PORT_DRIVER_SENSEHASPORT: Final = 0x0040_0000
"""SRB_FLAGS_PORT_DRIVER_SENSEHASPORT. (drivers/scsi/storvsc_drv.c:126 @6.1.192)"""
SRB_FLAGS_DONT_START_NEXT_PACKET: Final = 0x0080_0000
"""SRB_FLAGS_DONT_START_NEXT_PACKET. (drivers/scsi/storvsc_drv.c:127 @6.1.192)"""
SRB_FLAGS_PORT_DRIVER_RESERVED: Final = 0x0F00_0000
"""SRB_FLAGS_PORT_DRIVER_RESERVED. (drivers/scsi/storvsc_drv.c:128 @6.1.192)"""
SRB_FLAGS_CLASS_DRIVER_RESERVED: Final = 0xF000_0000
"""SRB_FLAGS_CLASS_DRIVER_RESERVED. (drivers/scsi/storvsc_drv.c:129 @6.1.192)"""
SP_UNTAGGED: Final = 0xFF
"""SP_UNTAGGED. (drivers/scsi/storvsc_drv.c:131 @6.1.192)"""
SRB_SIMPLE_TAG_REQUEST: Final = 0x20
"""SRB_SIMPLE_TAG_REQUEST. (drivers/scsi/storvsc_drv.c:132 @6.1.192)"""
STORVSC_MAX_CMD_LEN: Final = 0x10
"""STORVSC_MAX_CMD_LEN. (drivers/scsi/storvsc_drv.c:139 @6.1.192)"""
STORVSC_SENSE_BUFFER_SIZE: Final = 0x14
"""STORVSC_SENSE_BUFFER_SIZE. (drivers/scsi/storvsc_drv.c:142 @6.1.192)"""
STORVSC_MAX_BUF_LEN_WITH_PADDING: Final = 0x14
"""STORVSC_MAX_BUF_LEN_WITH_PADDING. (drivers/scsi/storvsc_drv.c:143 @6.1.192)"""
STORVSC_LOGGING_NONE: Final = 0
"""STORVSC_LOGGING_NONE. (drivers/scsi/storvsc_drv.c:154 @6.1.192)"""
STORVSC_LOGGING_ERROR: Final = 1
"""STORVSC_LOGGING_ERROR. (drivers/scsi/storvsc_drv.c:155 @6.1.192)"""
STORVSC_LOGGING_WARN: Final = 2
"""STORVSC_LOGGING_WARN. (drivers/scsi/storvsc_drv.c:156 @6.1.192)"""
STORAGE_CHANNEL_SUPPORTS_MULTI_CHANNEL: Final = 0x1
"""STORAGE_CHANNEL_SUPPORTS_MULTI_CHANNEL. (drivers/scsi/storvsc_drv.c:230 @6.1.192)"""
STORAGE_CHANNEL_REMOVABLE_FLAG: Final = 0x1
"""STORAGE_CHANNEL_REMOVABLE_FLAG. (drivers/scsi/storvsc_drv.c:259 @6.1.192)"""
STORAGE_CHANNEL_EMULATED_IDE_FLAG: Final = 0x2
"""STORAGE_CHANNEL_EMULATED_IDE_FLAG. (drivers/scsi/storvsc_drv.c:260 @6.1.192)"""
REQUEST_COMPLETION_FLAG: Final = 0x1
"""REQUEST_COMPLETION_FLAG. (drivers/scsi/storvsc_drv.c:304 @6.1.192)"""
SRB_STATUS_AUTOSENSE_VALID: Final = 0x80
"""SRB_STATUS_AUTOSENSE_VALID. (drivers/scsi/storvsc_drv.c:319 @6.1.192)"""
SRB_STATUS_QUEUE_FROZEN: Final = 0x40
"""SRB_STATUS_QUEUE_FROZEN. (drivers/scsi/storvsc_drv.c:320 @6.1.192)"""
SRB_STATUS_SUCCESS: Final = 0x1
"""SRB_STATUS_SUCCESS. (drivers/scsi/storvsc_drv.c:323 @6.1.192)"""
SRB_STATUS_ABORTED: Final = 0x2
"""SRB_STATUS_ABORTED. (drivers/scsi/storvsc_drv.c:324 @6.1.192)"""
SRB_STATUS_ERROR: Final = 0x4
"""SRB_STATUS_ERROR. (drivers/scsi/storvsc_drv.c:325 @6.1.192)"""
SRB_STATUS_INVALID_REQUEST: Final = 0x6
"""SRB_STATUS_INVALID_REQUEST. (drivers/scsi/storvsc_drv.c:326 @6.1.192)"""
SRB_STATUS_DATA_OVERRUN: Final = 0x12
"""SRB_STATUS_DATA_OVERRUN. (drivers/scsi/storvsc_drv.c:327 @6.1.192)"""
SRB_STATUS_INVALID_LUN: Final = 0x20
"""SRB_STATUS_INVALID_LUN. (drivers/scsi/storvsc_drv.c:328 @6.1.192)"""
STORVSC_MAX_LUNS_PER_TARGET: Final = 0xFF
"""STORVSC_MAX_LUNS_PER_TARGET. (drivers/scsi/storvsc_drv.c:370 @6.1.192)"""
STORVSC_MAX_TARGETS: Final = 2
"""STORVSC_MAX_TARGETS. (drivers/scsi/storvsc_drv.c:371 @6.1.192)"""
STORVSC_MAX_CHANNELS: Final = 8
"""STORVSC_MAX_CHANNELS. (drivers/scsi/storvsc_drv.c:372 @6.1.192)"""
STORVSC_FC_MAX_LUNS_PER_TARGET: Final = 0xFF
"""STORVSC_FC_MAX_LUNS_PER_TARGET. (drivers/scsi/storvsc_drv.c:374 @6.1.192)"""
STORVSC_FC_MAX_TARGETS: Final = 0x80
"""STORVSC_FC_MAX_TARGETS. (drivers/scsi/storvsc_drv.c:375 @6.1.192)"""
STORVSC_FC_MAX_CHANNELS: Final = 8
"""STORVSC_FC_MAX_CHANNELS. (drivers/scsi/storvsc_drv.c:376 @6.1.192)"""
STORVSC_FC_MAX_XFER_SIZE: Final = 0x0008_0000
"""STORVSC_FC_MAX_XFER_SIZE. (drivers/scsi/storvsc_drv.c:377 @6.1.192)"""
STORVSC_IDE_MAX_LUNS_PER_TARGET: Final = 0x40
"""STORVSC_IDE_MAX_LUNS_PER_TARGET. (drivers/scsi/storvsc_drv.c:379 @6.1.192)"""
STORVSC_IDE_MAX_TARGETS: Final = 1
"""STORVSC_IDE_MAX_TARGETS. (drivers/scsi/storvsc_drv.c:380 @6.1.192)"""
STORVSC_IDE_MAX_CHANNELS: Final = 1
"""STORVSC_IDE_MAX_CHANNELS. (drivers/scsi/storvsc_drv.c:381 @6.1.192)"""
STORVSC_MAX_PKT_SIZE: Final = 0x50
"""STORVSC_MAX_PKT_SIZE. (drivers/scsi/storvsc_drv.c:386 @6.1.192)"""
SCSI_GUID: Final = 0
"""SCSI_GUID. (drivers/scsi/storvsc_drv.c:1898 @6.1.192)"""
IDE_GUID: Final = 1
"""IDE_GUID. (drivers/scsi/storvsc_drv.c:1899 @6.1.192)"""
SFC_GUID: Final = 2
"""SFC_GUID. (drivers/scsi/storvsc_drv.c:1900 @6.1.192)"""


class VstorPacketOperation(IntEnum):
    """``vstor_packet_operation``.

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
    VSTOR_OPERATION_QUERY_PROPERTIES = 0xA
    VSTOR_OPERATION_ENUMERATE_BUS = 0xB
    VSTOR_OPERATION_FCHBA_DATA = 0xC
    VSTOR_OPERATION_CREATE_SUB_CHANNELS = 0xD
    VSTOR_OPERATION_MAXIMUM = 0xD


class StorvscRequestType(IntEnum):
    """``storvsc_request_type``.

    Source: drivers/scsi/storvsc_drv.c:307 @6.1.192
    """

    WRITE_TYPE = 0
    READ_TYPE = 1
    UNKNOWN_TYPE = 2


@wire(size=36, source="drivers/scsi/storvsc_drv.c:88 @6.1.192")
class HvFcWwnPacket(Wire):
    """``hv_fc_wwn_packet``."""

    __kernel__ = "hv_fc_wwn_packet"

    primary_active: u8
    reserved1: Annotated[bytes, 3]
    primary_port_wwn: Annotated[bytes, 8]
    primary_node_wwn: Annotated[bytes, 8]
    secondary_port_wwn: Annotated[bytes, 8]
    secondary_node_wwn: Annotated[bytes, 8]


@wire(size=52, source="drivers/scsi/storvsc_drv.c:180 @6.1.192")
class VmscsiRequest(Wire):
    """``vmscsi_request``."""

    __kernel__ = "vmscsi_request"

    length: u16
    srb_status: u8
    scsi_status: u8
    port_number: u8
    path_id: u8
    target_id: u8
    lun: u8
    cdb_length: u8
    sense_info_length: u8
    data_in: u8
    reserved: u8
    data_transfer_length: u32
    sense_data: Annotated[bytes, 20]
    reserve: u16
    queue_tag: u8
    queue_action: u8
    srb_flags: u32
    time_out_value: u32
    queue_sort_ey: u32
    cdb: Annotated[bytes, 16] = overlay(16)
    reserved_array: Annotated[bytes, 20] = overlay(16)


@wire(size=24, source="drivers/scsi/storvsc_drv.c:232 @6.1.192")
class VmstorageChannelProperties(Wire):
    """``vmstorage_channel_properties``."""

    __kernel__ = "vmstorage_channel_properties"

    reserved: u32
    max_channel_cnt: u16
    reserved1: u16
    flags: u32
    max_transfer_bytes: u32
    reserved2: u64


@wire(size=4, source="drivers/scsi/storvsc_drv.c:244 @6.1.192")
class VmstorageProtocolVersion(Wire):
    """``vmstorage_protocol_version``."""

    __kernel__ = "vmstorage_protocol_version"

    major_minor: u16
    revision: u16


@wire(size=64, source="drivers/scsi/storvsc_drv.c:262 @6.1.192")
class VstorPacket(Wire):
    """``vstor_packet``."""

    __kernel__ = "vstor_packet"

    operation: u32
    flags: u32
    status: u32
    vm_srb: VmscsiRequest
    storage_channel_properties: VmstorageChannelProperties = overlay(12)
    version: VmstorageProtocolVersion = overlay(12)
    wwn_packet: HvFcWwnPacket = overlay(12)
    sub_channel_count: u16 = overlay(12)
    buffer: Annotated[bytes, 52] = overlay(12)
