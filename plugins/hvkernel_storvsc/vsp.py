"""The storage controllers on the host's side of the bus: synthetic SCSI, and one disk of the synthetic IDE controller.

Behaviour follows OpenVMM's storvsp; what a guest sees of the disks is in :mod:`hvkernel_storvsc.vsp_disk`. Parameters
of the device's slot:

``protocols``
    versions spoken, as ``"5.1"``; without it all of 2.0, 4.2, 5.1, 6.0, 6.2.
``units``
    the logical units, :class:`~hvkernel.api.host.StorageUnit`; the path and target of an IDE disk follow from its
    instance GUID.
``subchannels``
    how many sub-channels a guest may ask for; 0 without it, and always for IDE.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from hvkernel.abi.ring import VmbusPacketType
from hvkernel.api.host import Channel, DeviceSlot, Offer, Packet, StorageUnit

from . import vsp_scsi as scsi
from .vsp_disk import HardDisk
from .vsp_dvd import DvdDrive
from .vsp_protocol import TRANSITIONS, State
from .vsp_scsi import Command, Handler, LogicalUnit, Outcome
from .wire import (
    REQUEST_COMPLETION_FLAG,
    SRB_STATUS_AUTOSENSE_VALID,
    STORAGE_CHANNEL_EMULATED_IDE_FLAG,
    STORAGE_CHANNEL_SUPPORTS_MULTI_CHANNEL,
    STORVSC_MAX_CMD_LEN,
    STORVSC_SENSE_BUFFER_SIZE,
    VMSTOR_PROTO_VERSION_WIN7,
    VMSTOR_PROTO_VERSION_WIN8,
    VmscsiRequest,
    VmstorageChannelProperties,
    VmstorageProtocolVersion,
)
from .wire import VstorPacketOperation as Op

STATUS_SUCCESS: Final = 0
STATUS_BUFFER_OVERFLOW: Final = 0x8000_0005
STATUS_UNSUCCESSFUL: Final = 0xC000_0001
STATUS_INVALID_PARAMETER: Final = 0xC000_000D
STATUS_REVISION_MISMATCH: Final = 0xC000_0059
STATUS_DEVICE_DOES_NOT_EXIST: Final = 0xC000_00C0
STATUS_INVALID_DEVICE_STATE: Final = 0xC000_0184
"""NT status values (NTSTATUS, winnt.h)."""

ALL_VERSIONS: Final = ("2.0", "4.2", "5.1", "6.0", "6.2")
MAX_TRANSFER_BYTES: Final = 0x40000
"""Bytes of one command (OpenVMM storvsp: ChannelProperties.max_transfer_bytes)."""
OPERATIONS: Final = MappingProxyType({int(operation): operation for operation in Op})
HEADER: Final = struct.Struct("<III")
REQUEST: Final = struct.Struct("<5xBBB2xBxI16s")
"""What is looked at of a VmscsiRequest: path, target, lun, data_in, data_transfer_length, CDB."""
REQUEST_MIN: Final = 36
"""Bytes of the request of hosts before Windows 8; its later fields are optional."""
REQUEST_MAX: Final = VmscsiRequest.SIZE
LUN_NOT_PRESENT: Final = 0x7F
"""Peripheral qualifier 3, type 31: nothing can be attached here (SPC-4 INQUIRY)."""
NO_TARGET: Final = scsi.inquiry_data(LUN_NOT_PRESENT, 5, "Virtual Disk")
NO_LUN: Final = NO_TARGET[:8] + bytes(28) + NO_TARGET[36:]
"""INQUIRY data of LUN 0 and of another LUN that is not there."""
COMPLETE_IO: Final = int(Op.VSTOR_OPERATION_COMPLETE_IO)
EXECUTE_SRB: Final = Op.VSTOR_OPERATION_EXECUTE_SRB
HEADER_SIZE: Final = HEADER.size


def parse_version(text: str) -> int:
    """``"5.1"`` as on the wire, 0x501. :raises ValueError: it is not MAJOR.MINOR with both below 256."""
    major, dot, minor = text.partition(".")
    if not (dot and major.isdigit() and minor.isdigit() and int(major) < 256 and int(minor) < 256):
        raise ValueError(f"protocols: {text!r} is not MAJOR.MINOR with both below 256")
    return int(major) << 8 | int(minor)


class StorageController:
    """One offered controller. Implements :class:`hvkernel.api.host.Device`.

    :param ide: it is one device of the IDE class: no sub-channels, and path ids of the guest are ignored.
    :raises ValueError: a parameter is wrong: two units at one place, a disk without image, a version that is none.
    """

    def __init__(self, slot: DeviceSlot, *, ide: bool = False) -> None:
        self.slot = slot
        self.ide = ide
        self.state = State.BEGIN
        self.version = 0
        """Negotiated, as on the wire; 0 before."""
        parameters = slot.parameters
        self.versions = frozenset(parse_version(text) for text in parameters.get("protocols", ALL_VERSIONS))
        self.max_subchannels = 0 if ide else int(parameters.get("subchannels", 0))
        self.units: dict[tuple[int, int, int], LogicalUnit] = {}
        # An IDE disk's instance GUID is its place: drivers take channel and device from the first two groups.
        self._ide_place = struct.unpack_from("<IH", slot.instance_guid)
        self._primary: Channel | None = None
        self._subchannels = 0
        self._created = False
        self._add(parameters.get("units", ()))

    def _add(self, units: Iterable[StorageUnit]) -> None:
        for unit in units:
            place = (0, self._ide_place[1] & 0xFF, unit.lun) if self.ide else (unit.path, unit.target, unit.lun)
            if place in self.units:
                raise ValueError(f"units: {self.slot.name} has two at path, target, lun {place}")
            self.units[place] = self._make(unit)

    def _make(self, unit: StorageUnit) -> LogicalUnit:
        if unit.kind == "dvd":
            return DvdDrive(unit.image)
        if unit.image is None:
            raise ValueError(f"units: the disk at lun {unit.lun} of {self.slot.name} has no image")
        disk_id = self.slot.services.rng.getrandbits(128).to_bytes(16, "big")
        return HardDisk(unit.image, disk_id, serial=unit.serial, write_cache=unit.write_cache)

    # the host's side of hot plug

    def attach(self, unit: StorageUnit) -> None:
        """Add a unit and tell the guest to look. :raises ValueError: the place is taken."""
        self._add([unit])
        self._rescan()

    def detach(self, path: int, target: int, lun: int) -> None:
        """Take a unit away and tell the guest to look. :raises KeyError: there is none."""
        del self.units[path, target, lun]
        self._rescan()

    def _rescan(self) -> None:
        if self._primary is not None and self.state is State.READY and self.version >= VMSTOR_PROTO_VERSION_WIN7:
            body = HEADER.pack(Op.VSTOR_OPERATION_ENUMERATE_BUS, 0, STATUS_SUCCESS) + bytes(REQUEST_MAX)
            self._primary.send_packet(VmbusPacketType.VM_PKT_DATA_INBAND, body)

    # Device

    @property
    def protocol(self) -> str | None:
        """``"6.2"`` once the guest's version was accepted."""
        return f"{self.version >> 8}.{self.version & 0xFF}" if self.version else None

    def offer(self, offer: Offer) -> Offer:
        """The offer as it is; that of an IDE disk says which disk it is (OpenVMM storvsp: OfferProperties)."""
        if not self.ide:
            return offer
        path, target = self._ide_place
        properties = struct.pack("<HBBII12x", 0, path & 0xFF, target & 0xFF, 0, STORAGE_CHANNEL_EMULATED_IDE_FLAG)
        return replace(offer, user_defined=properties)

    def on_open(self, channel: Channel) -> int:
        """Start the protocol afresh when the primary channel opens."""
        if channel.primary is channel:
            self._primary = channel
            self._reset()
        return STATUS_SUCCESS

    def on_close(self, channel: Channel) -> None:
        """Forget what was negotiated once the primary channel is closed."""
        if channel.primary is channel:
            self._primary = None
            self._reset()

    def _reset(self) -> None:
        self.state = State.BEGIN
        self.version = 0
        self._subchannels = 0
        self._created = False

    def on_packet(self, channel: Channel, packet: Packet) -> None:
        """Do one operation and complete it. A packet too short for its operation is recorded and fails."""
        payload = packet.payload
        if len(payload) < HEADER_SIZE:
            self._record("short", f"{len(payload)} bytes, an operation needs {HEADER_SIZE}")
            return
        number, flags, _status = HEADER.unpack_from(payload)
        if not (packet.completion_requested and flags & REQUEST_COMPLETION_FLAG):
            self._record("no-completion", f"operation {number} does not ask for its completion")
        body = payload[HEADER_SIZE : HEADER_SIZE + REQUEST_MAX]
        operation = OPERATIONS.get(number)
        if operation is None:
            self._record("operation", f"operation {number} is not known")
            self._complete(channel, packet, STATUS_INVALID_PARAMETER, b"", len(body))
            return
        following = TRANSITIONS.get((self.state, operation))
        if following is None or not (operation is EXECUTE_SRB or channel.primary is channel):
            self._record("state", f"{operation.name} while it {self.state.value}")
            self._complete(channel, packet, STATUS_INVALID_DEVICE_STATE, b"", len(body))
            return
        try:
            status, answer = self._perform(channel, packet, operation, body)
        except Exception:
            # The guest's memory is out of reach: the command fails, and the host says why.
            self._complete(channel, packet, STATUS_UNSUCCESSFUL, FAILED, len(body))
            raise
        if status == STATUS_SUCCESS:
            self.state = following
        self._complete(channel, packet, status, answer, len(body))

    def _perform(self, channel: Channel, packet: Packet, operation: Op, body: bytes) -> tuple[int, bytes]:
        """(status, what the completion carries after its header) of a legal operation."""
        if operation is EXECUTE_SRB:
            return self._execute(packet, body)
        if operation is Op.VSTOR_OPERATION_QUERY_PROTOCOL_VERSION:
            return self._query_version(body)
        if operation is Op.VSTOR_OPERATION_QUERY_PROPERTIES:
            multi = self.version >= VMSTOR_PROTO_VERSION_WIN8
            properties = VmstorageChannelProperties(
                reserved=0,
                max_channel_cnt=self.max_subchannels if multi else 0,
                reserved1=0,
                flags=STORAGE_CHANNEL_SUPPORTS_MULTI_CHANNEL if multi else 0,
                max_transfer_bytes=MAX_TRANSFER_BYTES,
                reserved2=0,
            )
            return STATUS_SUCCESS, properties.pack()
        if operation is Op.VSTOR_OPERATION_CREATE_SUB_CHANNELS:
            if self.state is State.END and (self._created or self.version < VMSTOR_PROTO_VERSION_WIN8):
                # Before END_INITIALIZATION it is legal once, and not at all without sub-channels (OpenVMM storvsp).
                self._record("state", f"{operation.name} again, or without sub-channels, while it {self.state.value}")
                return STATUS_INVALID_DEVICE_STATE, b""
            count = int.from_bytes(body[:2], "little")
            if count > self.max_subchannels or self.version < VMSTOR_PROTO_VERSION_WIN8:
                self._record("subchannels", f"{count} asked for, {self.max_subchannels} are the limit")
                return STATUS_INVALID_PARAMETER, b""
            # The count is of all sub-channels, so asking again for as many offers nothing (OpenVMM vmbus_channel:
            # ChannelControl.enable_subchannels).
            if count > self._subchannels:
                channel.offer_subchannels(count - self._subchannels)
                self._subchannels = count
            self._created = True
        # BEGIN, END, and the resets, which have nothing to do: a command is finished before the next is looked at.
        return STATUS_SUCCESS, b""

    def _query_version(self, body: bytes) -> tuple[int, bytes]:
        if len(body) < VmstorageProtocolVersion.SIZE:
            self._record("short", f"version of {len(body)} bytes")
            return STATUS_INVALID_PARAMETER, b""
        asked = VmstorageProtocolVersion.unpack(body).major_minor
        answer = VmstorageProtocolVersion(major_minor=asked, revision=0).pack()
        if asked not in self.versions:
            return STATUS_REVISION_MISMATCH, answer
        self.version = asked
        return STATUS_SUCCESS, answer

    def _complete(self, channel: Channel, packet: Packet, status: int, answer: bytes, size: int) -> None:
        """Send the completion, as long as the request was (Linux 6.1 sends 64 bytes before any version is agreed)."""
        if packet.completion_requested:
            head = HEADER.pack(COMPLETE_IO, 0, status)
            channel.complete(packet.trans_id, head + answer[:size].ljust(size, b"\0"))

    # commands

    def _execute(self, packet: Packet, body: bytes) -> tuple[int, bytes]:
        if len(body) < REQUEST_MIN:
            self._record("short", f"request of {len(body)} bytes, it has at least {REQUEST_MIN}")
            return STATUS_INVALID_PARAMETER, FAILED
        path, target, lun, data_in, length, cdb = REQUEST.unpack_from(body)
        buffer = packet.buffer
        available = buffer.byte_count if buffer is not None else 0
        if length > available or (buffer is not None and len(buffer.ranges) > 1):
            ranges = len(buffer.ranges) if buffer is not None else 0
            self._record("data", f"{length} bytes to move, {available} bytes of memory in {ranges} ranges")
            return STATUS_INVALID_PARAMETER, FAILED
        command = Command(cdb, buffer, length, data_in == 1)
        outcome = self._dispatch(0 if self.ide else path, target, lun, command)
        if outcome.srb == scsi.SRB_SUCCESS:
            return STATUS_SUCCESS, DONE_BEFORE + outcome.transferred.to_bytes(4, "little") + DONE_AFTER
        return _nt_status(outcome), _response(outcome)

    def _dispatch(self, path: int, target: int, lun: int, command: Command) -> Outcome:
        if command.cdb[0] == scsi.REPORT_LUNS:
            return self._report_luns(path, target, command)
        unit = self.units.get((path, target, lun))
        if unit is not None:
            return unit.execute(command)
        if command.cdb[0] == scsi.INQUIRY:
            return scsi.run(ABSENT_LUN if lun else ABSENT_TARGET, command)
        return Outcome(scsi.CHECK_CONDITION, scsi.SRB_INVALID_LUN)

    def _report_luns(self, path: int, target: int, command: Command) -> Outcome:
        if command.length < 8:
            return Outcome()
        luns = sorted([lun for p, t, lun in self.units if p == path and t == target])
        data = struct.pack(">II", 8 * len(luns), 0) + b"".join([struct.pack(">H6x", lun) for lun in luns])
        return scsi.run({scsi.REPORT_LUNS: lambda asked: asked.answer(data)}, command)

    def _record(self, kind: str, text: str) -> None:
        self.slot.services.record(f"storvsp-{kind}", f"{self.slot.name}: {text}")


def _absent(command: Command, data: bytes) -> int:
    """INQUIRY of a unit that is not there."""
    allocation = int.from_bytes(command.cdb[3:5], "big")
    if command.cdb[1] & 1 or command.cdb[2] or allocation < 5 or not command.data_in:
        raise scsi.illegal(scsi.INVALID_FIELD_IN_CDB)
    return command.answer(data, allocation)


ABSENT_TARGET: Final = MappingProxyType[int, Handler]({scsi.INQUIRY: lambda command: _absent(command, NO_TARGET)})
ABSENT_LUN: Final = MappingProxyType[int, Handler]({scsi.INQUIRY: lambda command: _absent(command, NO_LUN)})
"""What answers for a unit that is not there: for LUN 0, and for another LUN of a target."""


def _nt_status(outcome: Outcome) -> int:
    """The NT status next to an SRB status. Observed: 0xc0000001 with srb 0x84; the others as in OpenVMM."""
    if outcome.srb == scsi.SRB_SUCCESS:
        return STATUS_SUCCESS
    if outcome.srb == scsi.SRB_INVALID_LUN:
        return STATUS_DEVICE_DOES_NOT_EXIST
    if outcome.srb == scsi.SRB_DATA_OVERRUN:
        return STATUS_BUFFER_OVERFLOW
    return STATUS_UNSUCCESSFUL


def _response(outcome: Outcome) -> bytes:
    """The request structure of a completion: statuses, bytes moved, sense data in the place of the CDB."""
    return VmscsiRequest(
        length=REQUEST_MAX,
        srb_status=outcome.srb | (SRB_STATUS_AUTOSENSE_VALID if outcome.sense else 0),
        scsi_status=outcome.status,
        port_number=0,
        path_id=0,
        target_id=0,
        lun=0,
        cdb_length=STORVSC_MAX_CMD_LEN,
        sense_info_length=STORVSC_SENSE_BUFFER_SIZE,
        data_in=0,
        reserved=0,
        data_transfer_length=outcome.transferred,
        sense_data=outcome.sense.ljust(STORVSC_SENSE_BUFFER_SIZE, b"\0"),
        reserve=0,
        queue_tag=0,
        queue_action=0,
        srb_flags=0,
        time_out_value=0,
        queue_sort_ey=0,
    ).pack()


DONE: Final = _response(Outcome())
DONE_BEFORE: Final = DONE[: VmscsiRequest.offset_of("data_transfer_length")]
DONE_AFTER: Final = DONE[len(DONE_BEFORE) + 4 :]
"""The response to a command that succeeded, around the count of bytes moved."""

FAILED: Final = _response(Outcome(scsi.CHECK_CONDITION, scsi.SRB_ERROR))
"""The response to a request that could not be looked at: an error without sense data. *unspecified*: OpenVMM closes the
channel instead."""
