"""Version negotiation: both guest lists against hosts of every version, messages and outcome."""

from __future__ import annotations

import re
import struct
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hvkernel.abi import vmbus
from hvkernel.abi.vmbus import VmbusChannelMessageType as Type
from hvkernel.hv.connection import PRE_WIN8_VERSIONS, VMBUS_VERSIONS
from hvkernel.hv.connection_state import State
from hvkernel.linux.cmdline import CommandLine

TABLE = tomllib.loads((Path(__file__).parents[1] / "data" / "vmbus" / "negotiation.toml").read_text("utf-8"))["host"]
INITIATE = struct.Struct("<IIIIQQQ")
"""msgtype, padding, version, target_vcpu, interrupt_page or msg_sint, monitor pages."""
INVALID_CONNECTION_ID = 18


@dataclass(frozen=True)
class Accepts:
    """What the host accepts."""

    versions: tuple[int, ...]
    message_connection_4: bool
    gpadl_total_mb: int = 1280


def number(text: str) -> int:
    major, minor = text.split(".")
    return int(major) << 16 | int(minor)


def text(version: int) -> str:
    return f"{version >> 16}.{version & 0xFFFF}"


def negotiate(b: Any, versions: tuple[int, ...], connection_4: bool) -> list[str]:
    """Boot against such a host; return what the guest tried, as in the table."""
    b.server._accepts = Accepts(versions, connection_4)
    tried: list[str] = []

    def status(connection: int, message: bytes) -> int | None:
        if message[0] != Type.CHANNELMSG_INITIATE_CONTACT:
            return None
        missing = connection == 4 and not connection_4
        tried.append(f"{text(int.from_bytes(message[8:12], 'little'))}@{connection}{'!' if missing else ''}")
        return INVALID_CONNECTION_ID if missing else None

    b.status = status
    b.kernel.boot(limit=600_000_000)
    return tried


@pytest.mark.parametrize("release", ["6.1", "5.15"])
@pytest.mark.parametrize("row", TABLE, ids=lambda row: row["name"])
def test_the_truth_table(between: Callable[..., Any], release: str, row: dict[str, Any]) -> None:
    key = release.replace(".", "_")
    b = between(release=release, host="ws2022")
    assert " ".join(negotiate(b, tuple(map(number, row["versions"])), row["connection_4"])) == row[f"asked_{key}"]
    agreed = row[f"agreed_{key}"]
    connection = b.v.connection
    if not agreed:
        assert "hv_vmbus: Unable to connect to host" in b.lines
        assert (connection.conn_state, b.v.vmbus_proto_version) == (State.DISCONNECTED, 0)
        assert Type.CHANNELMSG_UNLOAD not in b.kinds(), "there is nothing to take leave of"
        assert (connection.int_page, connection.monitor_pages) == (None, [None, None])
        return
    assert (connection.conn_state, text(b.v.vmbus_proto_version)) == (State.CONNECTED, agreed)
    assert f"hv_vmbus: Vmbus version:{agreed}" in b.lines
    assert b.kernel.outcome.state == "up", "and the bus works at that version"
    assert b.kinds()[b.kinds().index(Type.CHANNELMSG_REQUESTOFFERS) - 1] == Type.CHANNELMSG_INITIATE_CONTACT
    for used, _, message in b.sent:
        kind, _, version, vcpu, page, *monitors = INITIATE.unpack(message.ljust(40, b"\0")[:40])
        if kind != Type.CHANNELMSG_INITIATE_CONTACT:
            assert used == 1, "where the host said that it wants the rest"
            continue
        assert len(message) == 40
        assert vcpu == b.v.hv_common.hv_cpu_number_to_vp_number(0)
        assert page == (2 if version >= vmbus.VERSION_WIN10_V5 else connection.int_page.gpa)
        assert monitors == [one.gpa for one in connection.monitor_pages]


def test_the_table_has_every_version_alone() -> None:
    alone = [row["versions"][0] for row in TABLE if len(row["versions"]) == 1]
    assert alone == ["0.13", "1.1", "2.4", "3.0", "4.0", "4.1", "5.0", "5.1", "5.2", "5.3", "6.0"]


@pytest.mark.parametrize(("maximum", "asked"), [(0x40001, "4.1@1"), (0x40000, "4.0@1"), (0x50001, "5.1@4"), (1, "")])
def test_max_version_caps_the_ladder(between: Callable[..., Any], maximum: int, asked: str) -> None:
    b = between(host="ws2022")
    b.kernel.cmdline = CommandLine(f"quiet hv_vmbus.max_version={maximum:#x}".encode())
    tried = negotiate(b, VMBUS_VERSIONS, True)
    assert " ".join(tried) == asked
    if not asked:
        assert "hv_vmbus: Unable to connect to host" in b.lines


def test_the_host_names_the_connection_for_the_rest(between: Callable[..., Any]) -> None:
    """From 5.0 on VERSION_RESPONSE says where messages go (here: to a connection that the host makes up)."""
    b = between(host="ws2022")
    seen: list[int] = []

    def port(vp: int, message_type: int, payload: bytes) -> int:
        seen.append(payload[0])
        return 0

    b.session.host.ports.connect_message(7, port)
    b.keep_kinds(Type.CHANNELMSG_INITIATE_CONTACT)
    b.kernel.start()
    b.run(400)
    assert b.kinds() == [Type.CHANNELMSG_INITIATE_CONTACT]
    b.post(Type.CHANNELMSG_VERSION_RESPONSE, 1, 7)
    assert b.v.connection.msg_conn_id == 7
    assert seen == [Type.CHANNELMSG_REQUESTOFFERS]


def test_a_busy_host_is_asked_again(between: Callable[..., Any]) -> None:
    b = between(host="ws2022").boot()
    codes = [19, 19, 11, 18]  # HV_STATUS_INSUFFICIENT_BUFFERS twice, _MEMORY, _INVALID_CONNECTION_ID

    def status(connection: int, message: bytes) -> int | None:
        return codes.pop(0) if codes else None

    b.status = status
    before = b.machine.clock.now
    assert b.open() == 0
    assert codes == []
    assert b.machine.clock.now - before >= (1 + 2 + 4 + 8) * 10, "1, 2, 4, 8 us between the tries"


def test_a_host_that_never_takes_a_message(between: Callable[..., Any]) -> None:
    b = between(host="ws2022").boot()
    tries: list[int] = []

    def status(connection: int, message: bytes) -> int | None:
        tries.append(message[0])
        return answer

    answer = 19
    b.status = status
    assert b.open() == -105, "ENOBUFS"
    assert tries == [Type.CHANNELMSG_GPADL_HEADER] * 100
    tries.clear()
    answer = 6
    assert b.open() == -22
    assert tries == [Type.CHANNELMSG_GPADL_HEADER], "any other status is final"
    assert b.lines[-1] == "hv_vmbus: hv_post_msg() failed; error code:6"


def test_the_ladder_is_the_kernels(kernel_source: Path) -> None:
    source = (kernel_source / "drivers/hv/connection.c").read_text("utf-8")
    found = re.search(r"vmbus_versions\[\] = \{([^}]*)\}", source)
    assert found is not None
    names = re.findall(r"VERSION_\w+", found.group(1))
    assert tuple(getattr(vmbus, name) for name in names) == VMBUS_VERSIONS
    assert (vmbus.VERSION_WIN7, vmbus.VERSION_WS2008) == PRE_WIN8_VERSIONS
