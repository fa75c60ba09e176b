"""The places where drivers/hv warns, against the kernel's own source."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hvkernel.hv.connection import NO_CHANNELS
from hvkernel.hv.warn import OFFERED_IN_USE, PLACES, UNKNOWN_MSGTYPE, Place, warning

ONE = re.compile(r"\b(WARN_ON|WARN_ON_ONCE|WARN_ONCE|BUG_ON|pr_warn_once)\(")
FUNCTION = re.compile(r"^(?:[\w*]+\s+)+\**(\w+)\(")


@pytest.mark.parametrize("place", [*PLACES, NO_CHANNELS], ids=lambda place: f"{place.function}:{place.line}")
def test_the_kernel_warns_there(kernel_source: Path, place: Place) -> None:
    lines = (kernel_source / place.file).read_text("utf-8").splitlines()
    assert ONE.search(lines[place.line - 1]), lines[place.line - 1]
    before = [FUNCTION.match(line) for line in lines[: place.line]]
    assert [found for found in before if found][-1].group(1) == place.function


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
