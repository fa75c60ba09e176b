"""The Wireshark dissector: its tables are the wire classes', and tshark reads whole boots and broken frames with it."""

from __future__ import annotations

import io
import json
import random
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import hvkernel.trace
import hvkernel_storvsc.wire as storvsc
from hvkernel.abi.guids import HV_NIC_GUID, HV_SCSI_GUID
from hvkernel.abi.meaning import Flags, Names, dictionary, tag
from hvkernel.abi.vmbus import CHANNEL_MESSAGES, VmbusChannelInitiateContact, VmbusChannelOfferChannel
from hvkernel.abi.wire import Guid, Wire
from hvkernel.trace.dissector import FILE, dissector
from hvkernel.trace.pcapng import PcapngWriter

LUA = Path(hvkernel.trace.__file__).with_name(FILE)
SHAPES = ("x86-4k", "arm64-64k", "ws2012")
Read = Callable[..., list[dict[str, list[str]]]]


def test_the_tables_are_those_of_the_wire_classes() -> None:
    assert dissector([storvsc]) == LUA.read_text("utf-8"), "run: hvkernel decode --dissector > hvkernel/trace/vmbus.lua"


def test_every_member_of_every_message_has_a_field() -> None:
    text = LUA.read_text("utf-8")
    for row in CHANNEL_MESSAGES:
        assert f'[{int(row.number)}] = {{ name = "{row.number.name}", struct = "{tag(row.struct)}"' in text
        body = text.split(f'STRUCTS["{tag(row.struct)}"]')[1].split("} }\n")[0]
        for field in row.struct.FIELDS:
            assert field.kind == "tail" or f'name = "{field.name}", offset = {field.offset}, ' in body


def test_every_meaning_is_of_a_member() -> None:
    words = dictionary([storvsc])
    for key, meaning in words.meanings.items():
        name, _, member = key.partition(".")
        if name == "hvkernel_pcap_header":
            continue
        field = words.structs[name].field(member)
        if isinstance(meaning, Names):
            assert all(0 <= value < 1 << 8 * field.size for value in meaning.values), key
        elif isinstance(meaning, Flags):
            assert all(mask and not mask & mask - 1 for mask in meaning.bits), key
    for name, rules in words.choices.items():
        for rule in rules:
            for path in (*rule.yes, *rule.no):
                cls = words.structs[name]
                for part in path.split("."):
                    cls = cls.field(part).type


@pytest.fixture
def tshark(program: Callable[[str, str], str], tmp_path: Path) -> Read:
    """Return a function that reads a pcapng with the dissector: fields, or the packets as JSON."""
    binary = program("tshark", "tshark")

    def read(pcapng: bytes, *names: str) -> Any:
        file = tmp_path / "capture.pcapng"
        file.write_bytes(pcapng)
        command = [binary, "-2", "-X", f"lua_script:{LUA}", "-r", str(file)]
        if not names:
            done = subprocess.run([*command, "-T", "json"], capture_output=True, text=True, check=True)
            return json.loads(done.stdout)
        options = [part for name in names for part in ("-e", name)]
        done = subprocess.run(
            [*command, "-T", "fields", "-E", "separator=/t", "-E", "occurrence=a", "-E", "aggregator=|", *options],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert "lua" not in done.stderr.lower(), done.stderr
        rows = []
        for line in done.stdout.splitlines():
            values = line.split("\t")
            rows.append({n: v.split("|") if v else [] for n, v in zip(names, values, strict=True)})
        return rows

    return read


ERRORS = ("_ws.malformed", "_ws.lua.error", "vmbus.malformed", "vmbus.unknown", "vmbus.reserved", "vmbus.cut")


def number(values: list[str]) -> int:
    (value,) = values
    return int(value, 0)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_whole_boot_has_nothing_wrong(shape: str, traced: Callable[[str], Any], tshark: Read) -> None:
    run = traced(shape)
    rows = tshark(run.pcapng, *ERRORS, "_ws.col.Protocol", "vmbus.rest")
    assert len(rows) == len(run.events)
    for row in rows:
        assert row == {**{name: [] for name in ERRORS}, "_ws.col.Protocol": ["VMBus"], "vmbus.rest": []}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_fields_are_what_the_model_recorded(shape: str, traced: Callable[[str], Any], tshark: Read) -> None:
    run = traced(shape)
    names = (
        "frame.time_epoch", "vmbus.hvkernel_pcap_header.vp", "vmbus.hvkernel_pcap_header.to_host",
        "vmbus.message_header.msgtype", "vmbus.vmpacket_descriptor.type", "vmbus.vmpacket_descriptor.trans_id",
        "vmbus.relid", "vmbus.request_in", "vmbus.response_in", "vmbus.device", "vmbus.offered_in",
        "vmbus.vstor_packet.operation", "vmbus.gpa_range.byte_count", "vmbus.pfn",
    )  # fmt: skip
    pending: dict[tuple[int, int], int] = {}
    offered: dict[int, int] = {}
    responses: dict[int, int] = {}
    rows = tshark(run.pcapng, *names)
    for frame, (row, (kind, t, vp, relid, to_host, data)) in enumerate(zip(rows, run.events, strict=True), 1):
        assert row["frame.time_epoch"] == [f"{t // 10**7}.{t % 10**7 * 100:09}"]
        assert number(row["vmbus.hvkernel_pcap_header.vp"]) == vp
        assert number(row["vmbus.hvkernel_pcap_header.to_host"]) == to_host
        if kind == "message":
            assert number(row["vmbus.message_header.msgtype"]) == data[0]
            if data[0] == 1:
                offer = VmbusChannelOfferChannel.unpack(data)
                offered[offer.child_relid] = frame
                assert number(row["vmbus.relid"]) == offer.child_relid
                assert str(offer.offer.if_instance) in row["vmbus.device"][0]
            continue
        assert row["vmbus.message_header.msgtype"] == []
        number_, offset8, _, flags, trans_id = struct.unpack_from("<HHHHQ", data)
        assert number(row["vmbus.vmpacket_descriptor.type"]) == number_
        assert number(row["vmbus.vmpacket_descriptor.trans_id"]) == trans_id
        assert number(row["vmbus.relid"]) == relid
        assert number(row["vmbus.offered_in"]) == offered[relid]
        assert number(row["vmbus.vstor_packet.operation"]) == struct.unpack_from("<I", data, offset8 * 8)[0]
        if number_ == 9:
            count, offset = struct.unpack_from("<II", data, 24)
            assert number(row["vmbus.gpa_range.byte_count"]) == count
            pages = -(-(offset + count) // 4096)
            assert [int(pfn, 0) for pfn in row["vmbus.pfn"]] == list(struct.unpack_from(f"<{pages}Q", data, 32))
        if to_host and flags & 1:
            pending[relid, trans_id] = frame
        elif number_ == 11:
            request = pending.pop((relid, trans_id))
            responses[request] = frame
            assert number(row["vmbus.request_in"]) == request
    assert not pending
    assert len(responses) > 10
    for request, response in responses.items():
        assert number(rows[request - 1]["vmbus.response_in"]) == response


def test_sub_channels_are_told_apart(traced: Callable[[str], Any], tshark: Read) -> None:
    rows = tshark(traced("x86-4k").pcapng, "vmbus.packet", "vmbus.device", "vmbus.relid")
    devices = {row["vmbus.device"][0] for row in rows if row.get("vmbus.device")}
    assert any(name.endswith("sub-channel 1") for name in devices)


def test_json_names_members_and_values(traced: Callable[[str], Any], tshark: Any) -> None:
    packets = tshark(traced("x86-4k").pcapng)
    layers = [packet["_source"]["layers"] for packet in packets]
    assert all("vmbus" in layer for layer in layers)
    text = json.dumps(layers[0])
    assert "vmbus.initiate_contact.vmbus_version_requested" in text


# every member, against the wire classes -------------------------------------------------------------------------


def short(cls: type[Wire]) -> str:
    return tag(cls).removeprefix("vmbus_channel_").removeprefix("vmbus_")


def members(cls: type[Wire], value: Any) -> Iterator[tuple[str, str]]:
    """Yield the field of each member below a struct, and its value as a number or as text."""
    for field in cls.FIELDS:
        name = f"vmbus.{short(cls)}.{field.name}"
        got: Any = None if field.kind == "tail" else getattr(value, field.name)
        if field.kind in ("int", "bits") or field.kind == "guid":
            yield name, str(got)
        elif field.kind == "bytes":
            yield name, got.hex()
        elif field.kind == "wire":
            yield from members(field.type, got)


HOLDS_NOT = {
    "vmbus.initiate_contact.interrupt_page", "vmbus.initiate_contact.msg_sint", "vmbus.initiate_contact.padding1",
    "vmbus.initiate_contact.padding2", "vmbus.VmbusChannelOfferUStd.user_def", "vmbus.VmbusChannelOfferUPipe.user_def",
    "vmbus.VmbusChannelOfferUPipe.pipe_mode",
}  # fmt: skip
"""Members that share bytes with others, which may hold instead."""


Pairs = list[tuple[str, str]]


def compare(rows: list[dict[str, list[str]]], wanted: list[Pairs], may_miss: set[str]) -> set[str]:
    """Compare all values; return the fields that were there."""
    seen = set()
    for row, pairs in zip(rows, wanted, strict=True):
        for name, value in pairs:
            if row[name]:
                (shown,) = row[name]
                assert (str(int(shown, 0)) if value.isdecimal() and len(value) < 21 else shown) == value, name
                seen.add(name)
            else:
                assert name in may_miss, name
    return seen


def test_every_member_of_every_message_has_its_value(tshark: Read) -> None:
    chance = random.Random(5)
    frames, wanted = [], []
    for row in [row for row in CHANNEL_MESSAGES for _ in range(8)]:
        body = bytearray(chance.randbytes(row.struct.SIZE))
        body[:4] = struct.pack("<I", row.number)
        if row.number == 14 and chance.random() < 0.5:
            body[8:12] = struct.pack("<I", 0x40000)
        frames.append((row.sender == "guest", bytes(body)))
        wanted.append(list(members(row.struct, row.struct.unpack(bytes(body)))))
    names = sorted({name for pairs in wanted for name, _ in pairs})
    assert compare(tshark(capture(*frames), *names), wanted, HOLDS_NOT) == set(names)


def test_every_member_of_a_storage_packet_has_its_value(tshark: Read) -> None:
    chance = random.Random(6)
    frames: list[Any] = [offer(4, HV_SCSI_GUID)]
    wanted: list[Pairs] = [[]]
    held = {
        3: "vmscsi_request",
        9: "vmstorage_protocol_version",
        10: "vmstorage_channel_properties",
        12: "hv_fc_wwn_packet",
    }
    for operation in (3, 9, 10, 12):
        for to_host in (True, False):
            body = struct.pack("<I", operation) + chance.randbytes(60)
            frames.append((4, to_host, packet(6, 2, 10, 0, body)))
            value = storvsc.VstorPacket.unpack(body)
            pairs = [pair for pair in members(storvsc.VstorPacket, value) if held[operation] in pair[0]]
            pairs += [
                (f"vmbus.vstor_packet.{name}", str(getattr(value, name))) for name in ("operation", "flags", "status")
            ]
            wanted.append(pairs)
    names = sorted({name for pairs in wanted for name, _ in pairs})
    rows = tshark(capture(*frames), *names)
    sense_or_cdb = {f"vmbus.vmscsi_request.{name}" for name in ("sense_data", "cdb", "reserved_array")}
    assert compare(rows, wanted, sense_or_cdb) == set(names) - {"vmbus.vmscsi_request.reserved_array"}


# frames that no correct side makes ----------------------------------------------------------------------------


def capture(*frames: tuple[bool, bytes] | tuple[int, bool, bytes]) -> bytes:
    out = io.BytesIO()
    writer = PcapngWriter(out)
    for frame in frames:
        if len(frame) == 2:
            writer.message(0, 0, *frame)
        else:
            relid, to_host, data = frame
            writer.packet(0, 0, relid, to_host, data)
    return out.getvalue()


def offer(relid: int, guid: Guid) -> tuple[bool, bytes]:
    body = bytearray(VmbusChannelOfferChannel.SIZE)
    body[0] = 1
    body[8:24] = guid
    body[184:188] = struct.pack("<I", relid)
    return False, bytes(body)


def packet(kind: int, offset8: int, len8: int, flags: int = 0, body: bytes = b"") -> bytes:
    return struct.pack("<HHHHQ", kind, offset8, len8, flags, 7) + body


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        ((False, b""), "a channel message has a header of 8 bytes"),
        ((False, b"\x01\0\0"), "a channel message has a header of 8 bytes"),
        ((False, struct.pack("<II", 6, 0)), "vmbus_channel_open_result ends after 8 of 20 bytes"),
        ((True, struct.pack("<III", 2, 0, 3)), "CHANNELMSG_RESCIND_CHANNELOFFER goes the other way"),
        ((True, struct.pack("<IIIIHHII", 8, 0, 1, 1, 16, 1, 4096, 4096)), "byte_offset is not in the first page"),
        ((True, struct.pack("<IIIIHHI", 8, 0, 1, 1, 16, 1, 4096)), "GPA ranges do not fit"),
        ((4, True, b"\0" * 15), "a packet has a descriptor of 16 bytes"),
        ((4, True, packet(6, 1, 2)), "offset8 1 is not from 2 to len8 2"),
        ((4, True, packet(6, 3, 2)), "offset8 3 is not from 2 to len8 2"),
        ((4, True, packet(6, 2, 3)), "len8 says 24 bytes, 16 are there"),
        ((4, True, packet(9, 2, 2)), "no room for the 24 bytes in front of the ranges"),
        ((4, True, packet(9, 3, 3, 0, struct.pack("<II", 0, 1))), "GPA ranges do not fit"),
        ((4, True, packet(9, 4, 4, 0, struct.pack("<IIII", 0, 1, 4096, 0))), "0 of 1 page numbers are there"),
        ((4, True, packet(7, 3, 3, 0, struct.pack("<HBBI", 1, 0, 0, 2))), "2 ranges do not fit"),
        ((4, True, packet(6, 2, 3, 0, bytes(8))), "vstor_packet ends after"),
    ],
)
def test_a_broken_frame_is_malformed_and_says_why(frame: Any, why: str, tshark: Read) -> None:
    row = tshark(capture(offer(4, HV_SCSI_GUID), frame), "_ws.expert.message", "_ws.lua.error", "vmbus.malformed")[1]
    assert row["_ws.lua.error"] == []
    assert row["vmbus.malformed"]
    assert any(message.startswith(why) for message in row["_ws.expert.message"]), row


def test_unknown_values_and_reserved_bits_are_shown_but_no_fault(tshark: Read) -> None:
    contact = VmbusChannelInitiateContact.from_members(vmbus_version_requested=0x50003, monitor_page1=0x1000).pack()
    frames = (
        (True, struct.pack("<II", 14, 9) + contact[8:]),
        offer(9, HV_NIC_GUID),
        (9, False, packet(99, 2, 2, 6)),
        (True, struct.pack("<IIQ", 77, 0, 1)),
    )
    rows = tshark(capture(*frames), "vmbus.reserved", "vmbus.unknown", "vmbus.malformed", "vmbus.rest")
    assert [len(row["vmbus.reserved"]) for row in rows] == [1, 0, 0, 0]
    assert [len(row["vmbus.unknown"]) for row in rows] == [0, 0, 2, 1]
    assert [row["vmbus.malformed"] for row in rows] == [[], [], [], []]
    assert rows[3]["vmbus.rest"]


def test_a_second_completion_answers_nothing(tshark: Read) -> None:
    request, completion = packet(6, 2, 2, 1), packet(11, 2, 2)
    frames = ((4, True, request), (4, False, completion), (4, False, completion), (5, False, completion))
    rows = tshark(capture(*frames), "vmbus.request_in", "vmbus.response_in")
    assert [row["vmbus.request_in"] for row in rows] == [[], ["1"], [], []]
    assert [row["vmbus.response_in"] for row in rows] == [["2"], [], [], []]


def test_a_frame_of_something_else_is_said_to_be_that(tshark: Read) -> None:
    raw = capture((True, bytes(8)))
    broken = raw.replace(b"\x01\x00\x01\x30", b"\x02\x00\x01\x30")
    assert broken != raw
    row = tshark(broken, "_ws.expert.message", "_ws.col.Info")[0]
    assert row["_ws.col.Info"] == ["not a packet of hvkernel"]


def test_mutated_frames_never_stop_the_dissector(traced: Callable[[str], Any], tshark: Read) -> None:
    chance = random.Random(20)
    frames: list[Any] = [offer(4, HV_SCSI_GUID), offer(5, HV_NIC_GUID)]
    events = traced("x86-4k").events
    for _ in range(4000):
        kind, _, _, _, to_host, data = chance.choice(events)
        body = bytearray(data[: chance.choice((len(data), chance.randrange(len(data) + 1)))])
        for _ in range(chance.choice((1, 2, 8))):
            if body:
                body[chance.randrange(min(len(body), 48))] = chance.choice((0, 1, 2, 9, 11, 0x7F, 0xFF))
        mutated = bytes(body) + chance.choice((b"", b"", bytes(8), b"\xff" * 40))
        frames.append((bool(to_host), mutated) if kind == "message" else (chance.choice((4, 5, 6)), to_host, mutated))
    rows = tshark(capture(*frames), "_ws.lua.error", "vmbus.malformed", "_ws.col.Protocol", "_ws.malformed")
    assert len(rows) == len(frames)
    assert all(row["_ws.lua.error"] == [] and row["_ws.col.Protocol"] == ["VMBus"] for row in rows)
    # Wireshark counts our verdict as _ws.malformed; one of its own would be a read beyond the frame.
    assert all(bool(row["_ws.malformed"]) == bool(row["vmbus.malformed"]) for row in rows)
    assert 500 < sum(bool(row["vmbus.malformed"]) for row in rows) < len(rows)
