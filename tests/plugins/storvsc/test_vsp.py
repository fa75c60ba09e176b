"""The storage protocol on the host's side: start-up, versions, operations by state, LUNs, hot plug, bad packets."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from hvkernel.abi.guids import HV_SCSI_GUID
from hvkernel.abi.wire import Guid
from hvkernel.api.host import Offer, Packet, StorageUnit
from hvkernel.host.vmbus.buffers import GpaBuffer
from hvkernel.machine.faults import PageFault
from hvkernel_storvsc.vsp import StorageController, parse_version
from hvkernel_storvsc.vsp_protocol import TRANSITIONS, State
from hvkernel_storvsc.wire import VstorPacketOperation as Op

BEGIN, END, VERSION, PROPERTIES, SUB_CHANNELS, SRB = 7, 8, 9, 10, 13, 3
INVALID_STATE, MISMATCH, INVALID_PARAMETER, NO_DEVICE = 0xC0000184, 0xC0000059, 0xC000000D, 0xC00000C0


def version(major: int, minor: int) -> bytes:
    return struct.pack("<HH", major << 8 | minor, 0)


def test_start_up_and_what_it_tells(rig: Any) -> None:
    guest = rig.guest(subchannels=3)
    assert guest.operation(BEGIN).status == 0
    answer = guest.operation(VERSION, version(6, 2))
    assert (answer.status, answer.body[:4]) == (0, version(6, 2))
    answer = guest.operation(PROPERTIES)
    reserved, count, reserved1, flags, size, reserved2 = struct.unpack_from("<IHHIIQ", answer.body)
    assert (reserved, count, reserved1, flags, size, reserved2) == (0, 3, 0, 1, 0x40000, 0)
    assert guest.operation(END).status == 0
    assert guest.device.state is State.READY
    assert guest.device.version == 0x602


@pytest.mark.parametrize("spoken", [("2.0",), ("2.0", "4.2"), ("2.0", "4.2", "5.1"), ("5.1", "6.0", "6.2")])
def test_only_versions_of_the_profile_are_accepted(rig: Any, spoken: tuple[str, ...]) -> None:
    for major, minor in ((2, 0), (4, 2), (5, 1), (6, 0), (6, 2), (7, 0), (0, 0)):
        guest = rig.guest(protocols=spoken)
        guest.operation(BEGIN)
        wanted = 0 if f"{major}.{minor}" in spoken else MISMATCH
        answer = guest.operation(VERSION, version(major, minor))
        assert (answer.status, answer.body[:4]) == (wanted, version(major, minor))
        assert guest.device.state is (State.PROPERTIES if wanted == 0 else State.VERSION)


def test_a_refused_version_may_be_followed_by_another(rig: Any) -> None:
    guest = rig.guest(protocols=("5.1",))
    guest.operation(BEGIN)
    assert [guest.operation(VERSION, version(*v)).status for v in ((6, 2), (6, 0), (5, 1))] == [MISMATCH, MISMATCH, 0]


@pytest.mark.parametrize(("spoken", "channels", "flags"), [("4.2", 0, 0), ("5.1", 4, 1)])
def test_sub_channels_exist_from_5_1_on(rig: Any, spoken: str, channels: int, flags: int) -> None:
    guest = rig.guest(protocols=(spoken,), subchannels=4)
    guest.operation(BEGIN)
    guest.operation(VERSION, version(*map(int, spoken.split("."))))
    answer = guest.operation(PROPERTIES)
    assert struct.unpack_from("<4xH2xI", answer.body) == (channels, flags)
    guest.operation(END)
    wanted = 0 if channels else INVALID_PARAMETER
    assert guest.operation(SUB_CHANNELS, struct.pack("<H", 2)).status == wanted
    assert guest.channel.subchannels == (2 if channels else 0)


def test_more_sub_channels_than_there_are_is_refused(rig: Any) -> None:
    guest = rig.guest(subchannels=2).start()
    assert guest.operation(SUB_CHANNELS, struct.pack("<H", 2)).status == 0
    assert guest.operation(SUB_CHANNELS, struct.pack("<H", 3)).status == INVALID_PARAMETER
    assert guest.services.findings == [("storvsp-subchannels", "scsi0: 3 asked for, 2 are the limit")]


def test_the_number_of_sub_channels_is_of_all_of_them(rig: Any) -> None:
    """Asked again, only what is missing is offered; a channel that is opened again has none."""
    guest = rig.guest(subchannels=3).start()
    offered = []
    for count in (1, 1, 3, 2):
        assert guest.operation(SUB_CHANNELS, struct.pack("<H", count)).status == 0
        offered.append(guest.channel.subchannels)
    assert offered == [1, 1, 3, 3]
    guest.device.on_close(guest.channel)
    assert guest.device.on_open(guest.channel) == 0
    guest.start()
    guest.operation(SUB_CHANNELS, struct.pack("<H", 2))
    assert guest.channel.subchannels == 5


@pytest.mark.parametrize(("spoken", "statuses"), [("4.2", (INVALID_STATE,) * 2), ("5.1", (0, INVALID_STATE))])
def test_before_the_end_of_initialization_sub_channels_are_made_once(
    rig: Any, spoken: str, statuses: tuple[int, ...]
) -> None:
    guest = rig.guest(protocols=(spoken,), subchannels=4)
    guest.operation(BEGIN)
    guest.operation(VERSION, version(*map(int, spoken.split("."))))
    guest.operation(PROPERTIES)
    for status in statuses:
        assert guest.operation(SUB_CHANNELS, struct.pack("<H", 1)).status == status
    assert guest.operation(END).status == 0
    assert guest.channel.subchannels == (1 if 0 in statuses else 0)


PATH = {
    State.BEGIN: (),
    State.VERSION: ((BEGIN, b""),),
    State.PROPERTIES: ((BEGIN, b""), (VERSION, version(6, 2))),
    State.END: ((BEGIN, b""), (VERSION, version(6, 2)), (PROPERTIES, b"")),
    State.READY: ((BEGIN, b""), (VERSION, version(6, 2)), (PROPERTIES, b""), (END, b"")),
}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("operation", list(Op.__members__.values()), ids=lambda op: op.name)
def test_every_operation_in_every_state(rig: Any, state: State, operation: Op) -> None:
    guest = rig.guest(subchannels=1)
    for step in PATH[state]:
        assert guest.operation(*step).status == 0
    assert guest.device.state is state
    body = version(6, 2) if operation == VERSION else b""
    answer = guest.operation(operation, body)
    if (state, operation) in TRANSITIONS:
        assert guest.device.state is TRANSITIONS[state, operation]
        if operation != SRB:
            assert answer.status == 0
        assert guest.services.findings == []
    else:
        assert answer.status == INVALID_STATE
        assert guest.device.state is state
        assert [kind for kind, _ in guest.services.findings] == ["storvsp-state"]


def test_closing_the_primary_channel_forgets_the_start_up(rig: Any) -> None:
    guest = rig.guest(subchannels=1).start()
    sub = type(guest.channel)(guest.channel)
    guest.device.on_open(sub)
    guest.device.on_close(sub)
    assert guest.device.state is State.READY
    guest.device.on_close(guest.channel)
    assert (guest.device.state, guest.device.version) == (State.BEGIN, 0)


def test_a_sub_channel_does_commands_only(rig: Any) -> None:
    guest = rig.disk()
    sub = type(guest.channel)(guest.channel)
    guest.device.on_open(sub)
    answer, data = guest.command(bytes([0x28, 0, 0, 0, 0, 1, 0, 0, 1, 0]), room=512, channel=sub)
    assert (answer.scsi, answer.srb, answer.moved, answer.status) == (0, 1, 512, 0)
    assert data == guest.device.units[0, 0, 0].image.pread(512, 512)
    assert guest.operation(SUB_CHANNELS, channel=sub).status == INVALID_STATE


# packets that are wrong ----------------------------------------------------------------------------------------


def test_a_packet_without_a_whole_header_is_recorded(rig: Any) -> None:
    guest = rig.guest()
    assert guest.send(b"\x07\0\0\0") is None
    assert guest.services.findings == [("storvsp-short", "scsi0: 4 bytes, an operation needs 12")]


@pytest.mark.parametrize("number", [0, 14, 0xFFFFFFFF])
def test_an_unknown_operation_fails(rig: Any, number: int) -> None:
    guest = rig.guest().start()
    assert guest.operation(number).status == INVALID_PARAMETER
    assert guest.services.findings == [("storvsp-operation", f"scsi0: operation {number} is not known")]


def test_an_operation_that_wants_no_completion_gets_none(rig: Any) -> None:
    guest = rig.guest()
    assert guest.send(struct.pack("<III", BEGIN, 1, 0) + bytes(52), flags=0) is None
    assert guest.device.state is State.VERSION
    assert [kind for kind, _ in guest.services.findings] == ["storvsp-no-completion"]


def test_a_short_request_fails_and_an_old_short_one_works(rig: Any) -> None:
    guest = rig.disk()
    answer = guest.send(struct.pack("<III", SRB, 1, 0) + bytes(35))
    assert answer is not None
    assert answer.status == INVALID_PARAMETER
    answer = guest.send(struct.pack("<III", SRB, 1, 0) + bytes(36))  # TEST UNIT READY of a host before Windows 8
    assert answer is not None
    assert (answer.status, answer.scsi, answer.srb) == (0, 0, 1)
    assert len(answer.body) == 36


def test_less_memory_than_the_request_says_fails(rig: Any) -> None:
    guest = rig.disk()
    body = struct.pack("<HBBBBBBBBBBI", 52, 0, 0, 0, 0, 0, 0, 10, 20, 1, 0, 1024) + bytes(36)
    for buffer in (None, guest.pages(1023)):
        answer = guest.send(struct.pack("<III", SRB, 1, 0) + body, buffer)
        assert answer is not None
        assert answer.status == INVALID_PARAMETER
    assert [kind for kind, _ in guest.services.findings] == ["storvsp-data"] * 2


# units ---------------------------------------------------------------------------------------------------------


def test_report_luns_names_the_units_of_one_target(rig: Any) -> None:
    units = [StorageUnit("dvd", lun=7), StorageUnit("dvd", lun=1), StorageUnit("dvd", lun=2, target=1)]
    guest = rig.guest(*units).start()
    answer, data = guest.command(bytes([0xA0]), room=64)
    assert (answer.scsi, answer.moved) == (0, 24)
    assert data[:24] == struct.pack(">II", 16, 0) + struct.pack(">H6xH6x", 1, 7)
    answer, data = guest.command(bytes([0xA0]), room=16, place=(0, 1, 0))
    assert data == struct.pack(">IIH6x", 8, 0, 2)
    assert guest.command(bytes([0xA0]), room=8, place=(3, 0, 0))[1] == bytes(8)
    answer, data = guest.command(bytes([0xA0]), room=4)
    assert (answer.scsi, answer.moved, data) == (0, 0, b"\xee" * 4)


def test_a_unit_that_is_not_there(rig: Any) -> None:
    guest = rig.disk()
    answer, _ = guest.command(bytes([0x00]), place=(0, 0, 1))
    assert (answer.scsi, answer.srb, answer.sense, answer.status) == (2, 0x20, None, NO_DEVICE)
    for lun, vendor in ((0, b"Msft    "), (1, bytes(8))):
        place = (0, 1, lun)
        answer, data = guest.command(bytes([0x12, 0, 0, 0, 36, 0]), room=36, place=place)
        assert (answer.scsi, answer.moved, data[0], data[8:16]) == (0, 36, 0x7F, vendor)
    answer, _ = guest.command(bytes([0x12, 1, 0x83, 0, 36, 0]), room=36, place=(0, 1, 0))
    assert (answer.scsi, answer.srb, answer.sense) == (2, 0x86, (5, 0x24, 0))


def test_an_ide_disk_is_found_whatever_path_the_guest_says(rig: Any) -> None:
    guest = rig.guest(StorageUnit(image=rig.image()), ide=True, subchannels=9).start()
    for path in (0, 5):
        assert guest.command(bytes(6), place=(path, 1, 0))[0].scsi == 0
    assert guest.command(bytes(6), place=(0, 0, 0))[0].srb == 0x20
    offer = guest.device.offer(Offer(Guid(bytes(16)), Guid(bytes(16))))
    assert offer.user_defined == struct.pack("<HBBII12x", 0, 0, 1, 0, 2)
    assert guest.device.max_subchannels == 0


def test_a_scsi_offer_stays_as_it_is(rig: Any) -> None:
    offer = Offer(HV_SCSI_GUID, Guid(bytes(16)), user_defined=b"x")
    assert rig.guest().device.offer(offer) is offer


def test_hot_plug_tells_the_guest_to_look(rig: Any) -> None:
    guest = rig.guest()
    guest.device.attach(StorageUnit("dvd", lun=1))
    assert guest.channel.sent == []
    guest.start()
    guest.device.attach(StorageUnit("dvd", lun=2))
    guest.device.detach(0, 0, 1)
    assert guest.channel.sent == [(6, struct.pack("<III", 11, 0, 0) + bytes(52), 0)] * 2
    assert sorted(guest.device.units) == [(0, 0, 2)]
    with pytest.raises(ValueError, match=r"scsi0 has two at path, target, lun \(0, 0, 2\)"):
        guest.device.attach(StorageUnit("dvd", lun=2))


def test_old_guests_are_not_told(rig: Any) -> None:
    guest = rig.guest(protocols=("2.0",)).start(0x200)
    guest.device.attach(StorageUnit("dvd", lun=2))
    assert guest.channel.sent == []


def test_wrong_parameters_are_named(rig: Any) -> None:
    with pytest.raises(ValueError, match="the disk at lun 3 of scsi0 has no image"):
        rig.guest(StorageUnit(lun=3))
    for text in ("6", "6.x", "256.0", "", "-1.0"):
        with pytest.raises(ValueError, match=rf"protocols: '{text}' is not MAJOR.MINOR"):
            parse_version(text)
    assert StorageController.__name__ == "StorageController"


def test_memory_that_the_host_may_not_reach_fails_the_command(rig: Any) -> None:
    guest = rig.disk()
    before = guest.device.units[0, 0, 0].image.pread(4096, 0)
    hole = GpaBuffer(guest.memory.host, [(1024, 0, (0x7FFF,))])
    for opcode, data_in in ((0x28, 1), (0x2A, 0)):
        head = struct.pack("<HBBBBBBBBBBI", 52, 0, 0, 0, 0, 0, 0, 10, 20, data_in, 0, 1024)
        body = head + struct.pack(">BBIBHB", opcode, 0, 0, 0, 2, 0) + bytes(26)
        guest.channel.completions.clear()
        with pytest.raises(PageFault):
            guest.device.on_packet(guest.channel, Packet(6, 1, 5, struct.pack("<III", SRB, 1, 0) + body, hole))
        ((tid, answer),) = guest.channel.completions
        assert (tid, answer[8:12]) == (5, struct.pack("<I", 0xC0000001))
        assert (answer[14], answer[15]) == (4, 2), "an error without sense data"
    assert guest.device.units[0, 0, 0].image.pread(4096, 0) == before
    assert guest.command(struct.pack(">BBIBHB", 0x28, 0, 0, 0, 2, 0), room=1024)[0].scsi == 0


@pytest.mark.parametrize(("bytes_", "request_"), [(35, "short"), (52, "data")])
def test_a_request_that_cannot_be_looked_at_is_an_error(rig: Any, bytes_: int, request_: str) -> None:
    guest = rig.disk()
    body = struct.pack("<HBBBBBBBBBBI", 52, 0, 0, 0, 0, 0, 0, 10, 20, 1, 0, 512) + bytes(36)
    answer = guest.send(struct.pack("<III", SRB, 1, 0) + body[:bytes_])
    assert answer is not None
    assert (answer.status, answer.srb, answer.scsi) == (INVALID_PARAMETER, 4, 2)
    assert [kind for kind, _ in guest.services.findings] == [f"storvsp-{request_}"]
