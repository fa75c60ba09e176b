"""The driver's arithmetic and decisions, without a guest around them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hvkernel.abi.ring import VmpacketDescriptor
from hvkernel.hv.ring_buffer import VMBUS_RING_SIZE
from hvkernel_storvsc import vsc, vsc_io
from hvkernel_storvsc.wire import STORVSC_MAX_PKT_SIZE, VmscsiRequest, VstorPacket

DATA = Path(__file__).parents[2] / "data" / "storvsc"


@pytest.mark.parametrize("page_size", [4096, 16384, 65536])
def test_storvsc_max_outstanding_req_per_channel(page_size: int) -> None:
    rows = json.loads((DATA / "max_outstanding_req_per_channel.json").read_text())["by_page_size"][str(page_size)]
    assert len(rows) == 4
    for row in rows:
        aligned = VMBUS_RING_SIZE(row["in"]["storvsc_ringbuffer_size"], page_size)
        assert aligned == row["out"]["aligned"]
        assert vsc.max_outstanding_req_per_channel(aligned, page_size) == row["out"]["max_outstanding"]


def test_versions_are_tried_from_the_newest_down() -> None:
    assert vsc.PROTOCOL_VERSIONS == (0x602, 0x600, 0x501)


def test_sizes_on_the_wire() -> None:
    assert (VstorPacket.SIZE, VmscsiRequest.SIZE) == (64, 52)
    assert STORVSC_MAX_PKT_SIZE == VmpacketDescriptor.SIZE + VstorPacket.SIZE


@pytest.mark.parametrize(
    ("sense", "codes"),
    [
        (b"", (0, 0)),
        (bytes([0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x2A, 0x09]), (0x2A, 0x09)),
        (bytes([0xF0]) + bytes(11) + bytes([0x3F, 0x0E]), (0x3F, 0x0E)),
        (bytes([0x72, 5, 0x24, 0x01]), (0x24, 0x01)),
        (bytes([0x70, 0, 5]), (0, 0)),
        (bytes([0x73, 5]), (0, 0)),
    ],
)
def test_sense_codes_of_both_formats(sense: bytes, codes: tuple[int, int]) -> None:
    assert vsc_io.sense_codes(sense) == codes
