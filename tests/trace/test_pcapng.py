"""The pcapng writer: what it writes is what happened, and programs that we did not write read it."""

from __future__ import annotations

import io
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hvkernel.abi.vmbus import VmbusChannelMessageType as Type
from hvkernel.abi.vmbus import VmbusChannelOfferChannel
from hvkernel.decode.pcapng import read_pcapng
from hvkernel.trace.pcapng import KIND_PACKET, MAX_CAPTURED, PcapHeader, PcapngWriter

SHAPES = ("x86-4k", "x86-jit", "arm64-64k", "ws2012")


@pytest.mark.parametrize("shape", SHAPES)
def test_a_watched_boot_is_the_same_boot(shape: str, traced: Callable[[str], Any]) -> None:
    run = traced(shape)
    assert run.report.outcome == "up"
    assert run.report.to_json() == run.untraced.to_json()


@pytest.mark.parametrize("shape", SHAPES)
def test_the_file_holds_what_the_tracer_was_told(shape: str, traced: Callable[[str], Any]) -> None:
    run = traced(shape)
    capture = read_pcapng(run.pcapng)
    assert capture.problems == ()
    assert capture.comments == (f"shape {shape}",)
    found = []
    for packet in capture.packets:
        header = PcapHeader.unpack(packet.data)
        kind = "packet" if header.kind == KIND_PACKET else "message"
        assert packet.interface.ticks == 10_000_000
        assert (packet.interface.name == "vmbus") == (kind == "message")
        found.append((kind, packet.timestamp, header.vp, header.relid, bool(header.to_host), packet.data[48:]))
    assert found == run.events
    assert {event[0] for event in found} == {"packet", "message"}


@pytest.mark.parametrize("shape", SHAPES)
def test_messages_and_packets_are_whole(shape: str, traced: Callable[[str], Any]) -> None:
    run = traced(shape)
    assert [t for _, t, *_ in run.events] == sorted(t for _, t, *_ in run.events)
    seen = [
        (struct.unpack_from("<I", data)[0], to_host) for kind, _, _, _, to_host, data in run.events if kind == "message"
    ]
    assert seen[0] == (Type.CHANNELMSG_INITIATE_CONTACT, True)
    assert (
        seen.count((Type.CHANNELMSG_OPENCHANNEL, True)) == seen.count((Type.CHANNELMSG_OPENCHANNEL_RESULT, False)) > 0
    )
    asked: dict[tuple[int, int], int] = {}
    for kind, _, _, relid, to_host, data in run.events:
        if kind == "packet":
            number, offset8, len8, flags, trans_id = struct.unpack_from("<HHHHQ", data)
            assert len8 * 8 == len(data)
            assert 2 <= offset8 <= len8
            if to_host and flags & 1:
                asked[relid, trans_id] = asked.get((relid, trans_id), 0) + 1
            elif not to_host and number == 11:
                asked[relid, trans_id] -= 1
    assert asked
    assert set(asked.values()) == {0}


def test_the_header_names_version_and_device(traced: Callable[[str], Any]) -> None:
    run = traced("arm64-64k")
    offers = {}
    for kind, *_, data in run.events:
        if kind == "message" and data[0] == Type.CHANNELMSG_OFFERCHANNEL:
            message = VmbusChannelOfferChannel.unpack(data)
            offers[message.child_relid] = message.offer
    headers = [PcapHeader.unpack(packet.data) for packet in read_pcapng(run.pcapng).packets]
    assert headers[0].vmbus_version == 0
    version = run.report.vmbus.version
    for header in headers:
        if header.kind == KIND_PACKET:
            assert f"{header.vmbus_version >> 16}.{header.vmbus_version & 0xFFFF}" == version
            assert header.if_type == offers[header.relid].if_type
            assert header.if_instance == offers[header.relid].if_instance
    used = {header.relid for header in headers if header.kind == KIND_PACKET}
    assert {offers[relid].sub_channel_index for relid in used} > {0}


def test_a_packet_of_a_channel_without_offer_and_one_that_is_too_long() -> None:
    out = io.BytesIO()
    writer = PcapngWriter(out)
    writer.message(5, 0, False, b"\x01")
    writer.packet(0x1_0000_0007, 3, 9, False, bytes(524_280))
    capture = read_pcapng(out.getvalue())
    assert capture.problems == ()
    short, long = capture.packets
    assert short.data[48:] == b"\x01"
    assert (long.timestamp, long.interface.name, len(long.data)) == (0x1_0000_0007, "relid 9", MAX_CAPTURED)
    assert long.original == 524_280 + 48


@pytest.mark.parametrize("shape", ["x86-4k", "arm64-64k"])
def test_wiresharks_tools_read_the_file(
    shape: str, traced: Callable[[str], Any], tmp_path: Path, program: Callable[[str, str], str]
) -> None:
    run = traced(shape)
    file, copy = tmp_path / "boot.pcapng", tmp_path / "copy.pcapng"
    file.write_bytes(run.pcapng)
    info = subprocess.run(
        [program("capinfos", "wireshark-common"), "-M", "-t", "-E", "-c", "-k", "-I", str(file)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = {line.partition("=" if "=" in line else ":")[0].strip(): line for line in info.stdout.splitlines()}
    assert lines["Number of packets"].split()[-1].isdigit()
    assert f"Number of packets:   {len(run.events)}" in info.stdout
    assert "Time resolution = 0x07" in info.stdout
    assert f"shape {shape}" in info.stdout
    done = subprocess.run(
        [program("editcap", "wireshark-common"), str(file), str(copy)], capture_output=True, text=True, check=True
    )
    assert "damaged" not in (info.stderr + done.stderr).lower()
    again = read_pcapng(copy.read_bytes())
    assert [p.data for p in again.packets] == [p.data for p in read_pcapng(run.pcapng).packets]


def offer(relid: int, instance: int) -> bytes:
    body = bytearray(VmbusChannelOfferChannel.SIZE)
    body[0] = Type.CHANNELMSG_OFFERCHANNEL
    body[24] = instance
    struct.pack_into("<I", body, 184, relid)
    return bytes(body)


def test_a_relid_that_is_offered_again_is_another_interface() -> None:
    out = io.BytesIO()
    writer = PcapngWriter(out)
    for instance in (1, 2):
        writer.message(0, 0, False, offer(7, instance))
        writer.packet(0, 0, 7, True, bytes(16))
        writer.packet(0, 0, 7, False, bytes(16))
        writer.message(0, 0, True, struct.pack("<III", Type.CHANNELMSG_RELID_RELEASED, 0, 7))
    writer.packet(0, 0, 7, True, bytes(16))
    capture = read_pcapng(out.getvalue())
    assert [interface.name for interface in capture.interfaces] == ["vmbus", "relid 7", "relid 7", "relid 7"]
    packets = [packet for packet in capture.packets if packet.interface.name != "vmbus"]
    assert [capture.interfaces.index(packet.interface) for packet in packets] == [1, 1, 2, 2, 3]
    assert [PcapHeader.unpack(packet.data).if_instance[0] for packet in packets] == [1, 1, 2, 2, 0]


def test_the_version_is_that_of_the_connection() -> None:
    out = io.BytesIO()
    writer = PcapngWriter(out)

    def contact(version: int, supported: int) -> None:
        writer.message(0, 0, True, struct.pack("<IIII24x", Type.CHANNELMSG_INITIATE_CONTACT, 0, version, 0))
        writer.message(0, 0, False, struct.pack("<IIBBHI", Type.CHANNELMSG_VERSION_RESPONSE, 0, supported, 0, 0, 1))

    contact(0x50003, 0)
    contact(0x50000, 1)
    writer.packet(0, 0, 1, True, bytes(16))
    writer.message(0, 0, False, struct.pack("<II", Type.CHANNELMSG_UNLOAD_RESPONSE, 0))
    writer.packet(0, 0, 1, True, bytes(16))
    versions = [PcapHeader.unpack(packet.data).vmbus_version for packet in read_pcapng(out.getvalue()).packets]
    assert versions == [0, 0, 0, 0, 0x50000, 0x50000, 0]
