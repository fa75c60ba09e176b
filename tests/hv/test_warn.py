"""The places where drivers/hv warns, against the kernel's own source."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hvkernel.hv.connection import NO_CHANNELS
from hvkernel.hv.warn import LIMITED, OFFERED_IN_USE, PLACES, UNKNOWN_MSGTYPE, Place, Ratelimit, warning

ONE = re.compile(r"\b(WARN_ON|WARN_ON_ONCE|WARN_ONCE|BUG_ON|pr_warn_once)\(")
FUNCTION = re.compile(r"^(?:[\w*]+\s+)+\**(\w+)\(")


@pytest.mark.parametrize("place", [*PLACES, NO_CHANNELS], ids=lambda place: f"{place.function}:{place.line}")
def test_the_kernel_warns_there(kernel_source: Path, place: Place) -> None:
    lines = (kernel_source / place.file).read_text("utf-8").splitlines()
    assert ONE.search(lines[place.line - 1]), lines[place.line - 1]
    before = [FUNCTION.match(line) for line in lines[: place.line]]
    assert [found for found in before if found][-1].group(1) == place.function


@pytest.mark.parametrize("name", ["connection", "channel_mgmt", "channel", "vmbus_drv", "hv"])
def test_every_message_with_a_limit_has_it(kernel_source: Path, name: str) -> None:
    path = f"drivers/hv/{name}.c"
    lines = (kernel_source / path).read_text("utf-8").splitlines()
    theirs = {number for number, line in enumerate(lines, 1) if "_ratelimited(" in line}
    assert theirs == {place.line for place in LIMITED if place.file == path}


def test_ten_messages_in_five_seconds() -> None:
    limit, hz = Ratelimit(), 250
    assert [limit.allow(1000, hz)[0] for _ in range(13)] == [True] * 10 + [False] * 3
    assert limit.allow(1000 + 5 * hz, hz) == (False, 0), "the interval is not over yet"
    assert limit.allow(1001 + 5 * hz, hz) == (True, 4)
    assert limit.allow(1002 + 5 * hz, hz) == (True, 0)


@pytest.mark.parametrize("name", ["connection", "channel_mgmt", "vmbus_drv"])
def test_no_warning_of_the_kernel_is_missing(kernel_source: Path, name: str) -> None:
    path = f"drivers/hv/{name}.c"
    lines = (kernel_source / path).read_text("utf-8").splitlines()
    theirs = {
        number
        for number, line in enumerate(lines, 1)
        if ONE.search(line) and "BUILD_BUG" not in line and not line.lstrip().startswith("*")
    }
    assert theirs == {place.line for place in (*PLACES, NO_CHANNELS) if place.file == path}


def test_a_warning_looks_like_the_kernels() -> None:
    assert warning(UNKNOWN_MSGTYPE, 3, "unknown msgtype=25").splitlines() == [
        "------------[ cut here ]------------",
        "unknown msgtype=25",
        "WARNING: CPU: 3 PID: 0 at drivers/hv/vmbus_drv.c:1064 vmbus_on_msg_dpc",
        "---[ end trace 0000000000000000 ]---",
    ]
    assert len(warning(OFFERED_IN_USE, 0, "").splitlines()) == 3


def test_a_host_that_negotiates_nonsense_for_ever(between: Callable[..., Any]) -> None:
    b = between().boot()
    start = len(b.lines)

    def flood(count: int) -> None:
        for _ in range(count):
            b.exports.vmbus_prep_negotiate_resp(bytearray(44), 4, [0x30000], [0x10000])

    b.call(flood, 100)
    assert b.lines[start:] == ["hv_vmbus: Invalid icmsg negotiate"] * 10
    b.run(6_000)
    b.call(flood, 1)
    assert b.lines[start + 10 :] == [
        "vmbus_prep_negotiate_resp: 90 callbacks suppressed",
        "hv_vmbus: Invalid icmsg negotiate",
    ]
