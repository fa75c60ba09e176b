"""GPADL messages against the kernel's own functions, at every page size."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest

from hvkernel.abi.vmbus import HvGpadlType, VmbusChannelMessageType
from hvkernel.hv.gpadl import (
    create_gpadl_header,
    hv_gpadl_hvpfn,
    hv_gpadl_size,
    hv_ring_gpadl_send_hvpgoffset,
)

PAGE_SIZES = (4096, 16384, 65536)
BASE = 0x12345 << 12


def kind(row: dict[str, Any]) -> HvGpadlType:
    return HvGpadlType[f"HV_GPADL_{row['in']['type']}"]


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_hv_gpadl_size(rows: Callable[[str], Any], page_size: int) -> None:
    for row in rows("hv_gpadl_size")["by_page_size"][str(page_size)]:
        assert hv_gpadl_size(kind(row), row["in"]["size"], page_size) == row["out"], row


def test_a_ring_that_is_not_page_aligned_is_refused() -> None:
    with pytest.raises(ValueError, match="RING size 20480 is not a multiple of PAGE_SIZE 16384"):
        hv_gpadl_size(HvGpadlType.HV_GPADL_RING, 20480, 16384)


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_hv_ring_gpadl_send_hvpgoffset(rows: Callable[[str], Any], page_size: int) -> None:
    for row in rows("hv_ring_gpadl_send_hvpgoffset")["by_page_size"][str(page_size)]:
        assert hv_ring_gpadl_send_hvpgoffset(row["in"]["offset"], page_size) == row["out"], row


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_hv_gpadl_hvpfn(rows: Callable[[str], Any], page_size: int) -> None:
    for row in rows("hv_gpadl_hvpfn")["by_page_size"][str(page_size)]:
        given = row["in"]
        assert hv_gpadl_hvpfn(kind(row), given["send_offset"], given["i"], page_size) == row["out_rel_pfn"], row


def runs(pfns: list[int]) -> list[list[int]]:
    """Run-length encode page numbers as the table does."""
    out: list[list[int]] = []
    for pfn in pfns:
        if out and out[-1][0] + out[-1][1] == pfn:
            out[-1][1] += 1
        else:
            out.append([pfn, 1])
    return out


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_create_gpadl_header(rows: Callable[[str], Any], page_size: int) -> None:
    for row in rows("create_gpadl_header")["by_page_size"][str(page_size)]:
        given, wanted = row["in"], row["out"]
        messages = create_gpadl_header(kind(row), BASE, given["size"], given["send_offset"], page_size)
        header = messages.header(7, 0xE1E10)
        bodies = messages.bodies(0xE1E10)
        msgtype, _, relid, gpadl, buflen, count, byte_count, byte_offset = struct.unpack_from("<IIIIHHII", header)
        assert (msgtype, relid, gpadl) == (VmbusChannelMessageType.CHANNELMSG_GPADL_HEADER, 7, 0xE1E10)
        assert (buflen, count) == (wanted["range_buflen"], wanted["rangecount"]), row
        assert (byte_count, byte_offset) == (wanted["byte_count"], wanted["byte_offset"]), row
        lengths = [one["len"] for one in wanted["msgs"] for _ in range(one.get("repeat", 1))]
        assert [len(header), *(len(body) for body in bodies)] == lengths, row
        assert len(bodies) == wanted["body_msgs"]
        pfns = [pfn - (BASE >> 12) for (pfn,) in struct.iter_unpack("<Q", header[28:])]
        for body in bodies:
            assert struct.unpack_from("<IIII", body) == (
                VmbusChannelMessageType.CHANNELMSG_GPADL_BODY, 0, 0, 0xE1E10
            )  # fmt: skip
            pfns += [pfn - (BASE >> 12) for (pfn,) in struct.iter_unpack("<Q", body[16:])]
        assert runs(pfns) == wanted["pfn_runs_rel"], row


def test_memory_that_is_not_contiguous_keeps_its_order() -> None:
    pages = [0x500, 0x100, 0x300]
    messages = create_gpadl_header(HvGpadlType.HV_GPADL_BUFFER, pages, 3 * 4096, 0, 4096)
    assert messages.pfns == (0x500, 0x100, 0x300)
