"""The reference TSC page's arithmetic against the kernel's own."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from hvkernel.api.guest.mshyperv import U64_MAX
from hvkernel.hv.hyperv_timer import hv_read_tsc_page


def test_tsc_page_time(rows: Callable[[str], Any]) -> None:
    table = rows("tsc_page_time")["rows"]
    assert len(table) == 54
    for row in table:
        given = row["in"]
        page = struct.pack("<IIQq", 1, 0, int(given["scale"], 16), given["offset"])
        assert f"{hv_read_tsc_page(page, int(given['tsc'], 16)):#x}" == row["out"], row


def test_sequence_zero_means_do_not_use() -> None:
    assert hv_read_tsc_page(struct.pack("<IIQq", 0, 0, 1 << 63, 5), 1000) == U64_MAX
