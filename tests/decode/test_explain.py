"""What decode says of captures, messages, packets, rings and message slots: of good ones what the model knows."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hvkernel.abi.guids import HV_SCSI_GUID
from hvkernel.abi.meaning import Dictionary
from hvkernel.abi.vmbus import CHANNEL_MESSAGES, VmbusChannelMessageType, VmbusChannelOpenChannel
from hvkernel.abi.wire import Field, Wire
from hvkernel.boot.request import read_request
from hvkernel.boot.session import boot
from hvkernel.decode.node import Explained, Node, Unrecognised
from hvkernel.decode.recognise import explain
from hvkernel.decode.render import to_text
from hvkernel.ring import RingReader, RingWriter


def one(data: bytes, words: Dictionary, **options: Any) -> Explained:
    (found,) = explain(data, words, **options)
    return found


def leaves(node: Node) -> Iterator[Node]:
    if not node.children:
        yield node
    for child in node.children:
        yield from leaves(child)


def member(node: Node, name: str) -> Node:
    found = [leaf for leaf in leaves(node) if leaf.name == name]
    assert found, (name, [leaf.name for leaf in leaves(node)])
    return found[0]


def problems(found: Explained) -> list[str]:
    return [text for _, text in found.all_problems()]


# captures ------------------------------------------------------------------------------------------------------


def test_a_boots_capture_is_clean_and_whole(booted: Any, words: Dictionary) -> None:
    found = one(booted.pcapng, words)
    assert found.kind == "pcapng"
    assert problems(found) == []
    assert found.notes == ["comment: a boot"]
    assert len(found.records) == len(booted.messages) + len(booted.packets)
    messages = [record for record in found.records if record.children[1].name.startswith("CHANNELMSG_")]
    assert [record.children[1].name for record in messages] == [
        VmbusChannelMessageType(data[0]).name for _, data in booted.messages
    ]
    packets = [record for record in found.records if record not in messages]
    assert [member(record, "trans_id").value for record in packets] == [
        struct.unpack_from("<Q", data, 8)[0] for _, _, data in booted.packets
    ]
    for record, (relid, to_host, data) in zip(packets, booted.packets, strict=True):
        assert f" relid {relid} " in record.text
        assert ("guest -> host" in record.text) == to_host
        assert member(record, "operation").value == struct.unpack_from("<I", data, data[2] * 8)[0]


def test_every_byte_of_a_boot_is_shown_once_at_its_place(booted: Any, words: Dictionary) -> None:
    for record in one(booted.pcapng, words).records:
        at = record.offset
        for leaf in leaves(record):
            if leaf.bits is not None and leaf.bits[0]:
                continue
            assert leaf.raw == booted.pcapng[leaf.offset : leaf.offset + min(leaf.size, 32)], leaf.name
            if leaf.offset == at:  # members that are left out because others hold leave holes, never overlaps
                at += leaf.size
        assert at <= record.offset + record.size


def test_a_completion_is_read_as_its_request(booted: Any, words: Dictionary) -> None:
    records = one(booted.pcapng, words).records
    answers = [record for record in records if "host -> guest" in record.text and "VM_PKT_COMP" in record.text]
    versions = [record for record in answers if "VSTOR_OPERATION_QUERY_PROTOCOL_VERSION" in record.text]
    assert versions
    assert all(member(record, "major_minor").text == "6.2 (0x602)" for record in versions)
    assert all(member(record, "operation").text.startswith("VSTOR_OPERATION_COMPLETE_IO") for record in answers)


@pytest.mark.parametrize("host", ["ws2008r2", "ws2012/gen1", "ws2016/gen2", "ws2022/gen1", "wsl2"])
def test_nothing_is_wrong_with_the_boots_of_old_and_new_hosts(host: str, words: Dictionary, tmp_path: Path) -> None:
    file = tmp_path / "boot.pcapng"
    report = boot(read_request(host=host, cpus=2, trace=[file]))
    found = one(file.read_bytes(), words, limit=100_000)
    assert problems(found) == []
    last = found.records[-1]
    version = member(last, "vmbus_version").text.split()[0]
    assert version == (report.vmbus.version or "0.0")


def test_a_damaged_capture_says_where(booted: Any, words: Dictionary) -> None:
    found = one(booted.pcapng[:-3], words)
    assert len(found.problems) == 1
    assert "block length" in found.problems[0][1]
    assert len(found.records) == len(booted.messages) + len(booted.packets) - 1


def test_a_capture_of_something_else_is_refused(booted: Any, words: Dictionary) -> None:
    with pytest.raises(Unrecognised, match=r"without packets of hvkernel: link type 147 and its header; these have 1$"):
        explain(booted.pcapng.replace(struct.pack("<HHI", 147, 0, 262144), struct.pack("<HHI", 1, 0, 262144)), words)


def test_limit_bounds_the_output(booted: Any, words: Dictionary) -> None:
    found = one(booted.pcapng, words, limit=5)
    assert len(found.records) == 5
    assert f"the first 5 of {len(booted.messages) + len(booted.packets)} packets are explained" in found.notes


# channel messages ----------------------------------------------------------------------------------------------


def test_messages_back_to_back_and_in_240_byte_blocks(booted: Any, words: Dictionary) -> None:
    wanted = [VmbusChannelMessageType(data[0]).name for _, data in booted.messages]
    for data in (
        b"".join(data for _, data in booted.messages),
        b"".join(data.ljust(240, b"\0") for _, data in booted.messages),
    ):
        found = one(data, words)
        assert (found.kind, problems(found)) == ("messages", [])
        assert [record.name for record in found.records] == wanted


@pytest.mark.parametrize("row", CHANNEL_MESSAGES, ids=lambda row: row.number.name)
def test_every_member_of_every_message_is_named(row: Any, words: Dictionary) -> None:
    def names(cls: type[Wire]) -> Iterator[Field]:
        for field in cls.FIELDS:
            if field.kind == "wire":
                yield from names(field.type)
            elif field.kind != "tail":
                yield field

    body = bytearray(row.struct.SIZE)
    body[0] = row.number
    found = one(bytes(body), words)
    shown = {leaf.name for leaf in leaves(found.records[0])}
    if row.number.name == "CHANNELMSG_GPADL_HEADER":
        assert problems(found) == ["rangecount is 0: a GPADL has a range"]
    else:
        assert problems(found) == []
    missing = {field.name for field in names(row.struct)} - shown
    assert missing <= {"msg_sint", "padding1", "padding2", "pipe_mode"}, "members that do not hold in this message"


@pytest.mark.parametrize("row", CHANNEL_MESSAGES, ids=lambda row: row.number.name)
def test_every_member_has_the_value_that_the_wire_class_reads(row: Any, words: Dictionary) -> None:
    def values(cls: type[Wire], value: Any) -> Iterator[tuple[str, Any]]:
        for field in cls.FIELDS:
            got: Any = None if field.kind == "tail" else getattr(value, field.name)
            if field.kind == "wire":
                yield from values(field.type, got)
            elif field.kind in ("int", "bits"):
                yield field.name, got
            elif field.kind == "guid":
                yield field.name, str(got)

    chance = random.Random(int(row.number))
    for _ in range(4):
        body = bytearray(chance.randbytes(row.struct.SIZE))
        body[:8] = struct.pack("<II", row.number, 0)
        record = one(bytes(body), words, kind="messages").records[0]
        wanted = list(values(row.struct, row.struct.unpack(bytes(body))))
        shown = [(leaf.name, leaf.value) for leaf in leaves(record) if leaf.name in {name for name, _ in wanted}]
        assert shown
        assert set(shown) <= set(wanted)


@pytest.mark.parametrize("row", [row for row in CHANNEL_MESSAGES if row.struct.SIZE > 8], ids=lambda r: r.number.name)
def test_a_short_message_is_shown_as_far_as_it_goes(row: Any, words: Dictionary) -> None:
    body = bytearray(row.struct.SIZE - 1)
    body[0] = row.number
    found = one(bytes(body), words)
    (text,) = problems(found)
    assert f"has {row.struct.SIZE} bytes and ends after {len(body)}: " in text


def test_names_of_values_and_what_is_odd(words: Dictionary) -> None:
    message = VmbusChannelOpenChannel.from_members(child_relid=7, openid=7, target_vp=2, userdata=bytes(120)).pack()
    data = struct.pack("<II", 5, 3) + message[8:] + b"\x09"
    found = one(data, words, kind="messages")
    record = found.records[0]
    assert record.text == "relid 7"
    assert member(record, "msgtype").text == "CHANNELMSG_OPENCHANNEL (0x5)"
    assert member(record, "target_vp").text == "2"
    assert member(record, "padding").notes == ["padding is reserved and not zero"]
    assert [text for _, text in found.problems] == ["1 bytes that are no channel message"]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (struct.pack("<II", 25, 0), "message type 25 is a number without a meaning"),
        (struct.pack("<IIIIHHII", 8, 0, 1, 5, 16, 1, 4096, 5000), "byte_offset 5000 is not in the first page of 4096"),
        (struct.pack("<IIIIHHIIQ", 8, 0, 1, 5, 24, 1, 4096, 0, 9), "range_buflen is 24; the range takes 16 bytes"),
        (struct.pack("<IIIIHHI", 8, 0, 1, 5, 24, 1, 4096), "range 0 of 1 does not fit: 4 bytes are left for it"),
        (b"\x05\0\0", "3 bytes are no channel message: its header has 8"),
    ],
)
def test_what_is_wrong_with_a_message(data: bytes, text: str, words: Dictionary) -> None:
    assert any(found.startswith(text) for found in problems(one(data, words, kind="messages")))


# packets and rings ---------------------------------------------------------------------------------------------


def packet(kind: int, offset8: int, len8: int, flags: int = 0, body: bytes = b"") -> bytes:
    return struct.pack("<HHHHQ", kind, offset8, len8, flags, 7) + body


def test_packets_one_after_the_other(booted: Any, words: Dictionary) -> None:
    data = b"".join(data for _, _, data in booted.packets)
    found = one(data, words, device=HV_SCSI_GUID)
    assert (found.kind, problems(found)) == ("packets", [])
    assert [record.size for record in found.records] == [len(data) for _, _, data in booted.packets]


def test_the_protocol_is_guessed_and_said_so(booted: Any, words: Dictionary) -> None:
    found = one(booted.packets[0][2], words)
    body = found.records[0].children[-1]
    assert body.name == "payload: storvsc vstor_packet"
    assert body.notes == ["taken for storvsc by its length"]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (packet(6, 1, 2), "offset8 1 is not from 2 to len8 2: the payload lies outside the packet"),
        (packet(6, 2, 4, 0, bytes(8)), "len8 4 says 32 bytes, 24 are there"),
        (packet(6, 2, 2, 6), "flags 0x6: only bit 0, completion requested, is defined"),
        (packet(99, 2, 2), "type 0x63 has no meaning"),
        (packet(9, 2, 2), "16 bytes before the payload are too few for the 24 before the ranges"),
        (packet(9, 3, 3, 0, struct.pack("<II", 0, 0)), "range_cnt is 0: a GPA-direct packet has a range"),
        (packet(9, 4, 4, 0, struct.pack("<IIII", 0, 1, 9000, 0)), "0 of 3 page numbers are there"),
        (packet(7, 3, 3, 0, struct.pack("<HBBI", 1, 0, 0, 3)), "3 ranges do not fit before the payload: 0 do"),
        (packet(5, 2, 2), "vmteardown_gpadl has 24 bytes and ends after 16"),
        (b"abc", "3 bytes are no packet: its descriptor has 16"),
    ],
)
def test_what_is_wrong_with_a_packet(data: bytes, text: str, words: Dictionary) -> None:
    assert any(found.startswith(text) for found in problems(one(data, words, kind="packets")))


def test_the_rings_of_a_booted_guest(booted: Any, words: Dictionary) -> None:
    seen = 0
    for (relid, to_host), image in booted.rings.items():
        found = one(image, words)
        assert (found.kind, problems(found)) == ("ring", [])
        control, *older = found.records
        assert member(control, "write_index").value == member(control, "read_index").value
        sent = [data for number, way, data in booted.packets if (number, way) == (relid, to_host)]
        assert older, "packets that were read are still there"
        assert all(record.name.startswith("read before") for record in older)
        for record, data in zip(older, reversed(sent), strict=False):
            assert record.size == len(data)
            assert member(record, "trans_id").value == struct.unpack_from("<Q", data, 8)[0]
            assert member(record, "operation").value == struct.unpack_from("<I", data, data[2] * 8)[0]
            seen += 1
        if sum(len(data) + 8 for data in sent) < len(image) - 4096:
            assert len(older) == len(sent)
    assert seen > 20


def test_packets_that_wait_in_a_ring_written_by_hvkernel_ring(words: Dictionary) -> None:
    image = bytearray(3 * 4096)
    out, lens, tids = np.zeros(64, np.uint8), np.zeros(1, np.uint32), np.zeros(1, np.uint64)
    with RingWriter.attach(image) as writer, RingReader.attach(image) as reader:
        for number in range(240):
            length = np.array([24 + 8 * (number % 5)], np.uint32)
            assert writer.write_batch(np.full(64, number, np.uint8), length, 1, number) == 1
            if number < 220:
                assert reader.read_batch(out, lens, tids, 1) == 1
    found = one(bytes(image), words)
    assert problems(found) == []
    waiting = [record for record in found.records if record.name.startswith("waiting")]
    assert [member(record, "trans_id").value for record in waiting] == list(range(220, 240))
    older = [record for record in found.records if record.name.startswith("read before")]
    assert [member(record, "trans_id").value for record in older[:40]] == list(range(219, 179, -1))


@pytest.mark.parametrize(
    ("write", "read", "text"),
    [
        (4096, 0, "write_index 0x1000 is not a multiple of 8 below the 0x1000 bytes of data"),
        (0, 12, "read_index 0xc is not a multiple of 8 below the 0x1000 bytes of data"),
        (64, 0, "0 bytes and a trailer of 8 do not fit the 64 that wait"),
    ],
)
def test_what_is_wrong_with_a_ring(write: int, read: int, text: str, words: Dictionary) -> None:
    image = bytearray(8192)
    struct.pack_into("<II", image, 0, write, read)
    image[64] = 1
    assert any(found.startswith(text) for found in problems(one(bytes(image), words, kind="ring")))


# SynIC message slots -------------------------------------------------------------------------------------------


def test_a_message_page(booted: Any, words: Dictionary) -> None:
    offer = next(data for _, data in booted.messages if data[0] == 1)
    page = bytearray(4096)
    page[2 * 256 : 2 * 256 + 16 + len(offer)] = struct.pack("<IBBHQ", 1, len(offer), 1, 0, 1) + offer
    struct.pack_into("<IBBHQIIQQ", page, 256, 0x80000010, 24, 0, 0, 0, 0, 0, 100, 120)
    found = one(bytes(page), words)
    assert (found.kind, problems(found)) == ("synic", [])
    timer, message = found.records
    assert (timer.name, timer.text) == ("SINT 1", "HVMSG_TIMER_EXPIRED")
    assert (message.name, message.text[:36]) == ("SINT 2", "CHANNELMSG_OFFERCHANNEL relid 1 (HV_")
    assert member(message, "msg_pending").value == 1
    page[2 * 256 + 4] = 250
    assert "payload_size 250 is more than the 240 that a slot holds" in problems(one(bytes(page), words, kind="synic"))


def test_what_the_other_side_sends_is_wrong_in_a_slot(words: Dictionary) -> None:
    slot = (struct.pack("<IBBHQ", 1, 8, 0, 0, 1) + struct.pack("<II", 3, 0)).ljust(256, b"\0")
    assert problems(one(slot, words)) == ["CHANNELMSG_REQUESTOFFERS is sent by the guest"]


# the choice, the text ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [bytes(range(1, 255)) * 3, b"\0" * 64, b"\xd4\xc3\xb2\xa1" + bytes(20)])
def test_garbage_is_refused(data: bytes, words: Dictionary) -> None:
    with pytest.raises(Unrecognised):
        explain(data, words)


def test_the_text_has_offset_bytes_name_and_value(words: Dictionary) -> None:
    lines = list(to_text(explain(struct.pack("<III", 2, 0, 14), words)))
    assert lines == [
        "messages: 12 bytes, nothing wrong",
        "",
        "0x0000                     CHANNELMSG_RESCIND_CHANNELOFFER: relid 14",
        "0x0000                       header",
        "0x0000 02000000                msgtype: CHANNELMSG_RESCIND_CHANNELOFFER (0x2)",
        "0x0004 00000000                padding: 0x0",
        "0x0008 0e000000              child_relid: 14",
    ]
