"""What each protocol version may send and gets, as a table written down from OpenVMM's server and the kernel.

Sources: OpenVMM vm/devices/vmbus/vmbus_core/src/protocol.rs (vmbus_messages!: first version of each message) and
vmbus_server/src/channels.rs (handle_initiate_contact, send_version_response, send_tl_connect_result,
send_modify_channel_response); drivers/hv/connection.c of Linux 6.1; iPXE src/interface/hyperv/vmbus.c.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import pytest

from hvkernel.abi import vmbus as abi
from hvkernel.abi.vmbus import CHANNEL_MESSAGES
from hvkernel.abi.vmbus import VmbusChannelMessageType as Type
from hvkernel.config import load_profile, profile_names

MIB = 1 << 20
REFUSED = 0xC000_0001


@dataclass(frozen=True)
class Row:
    """One version, from the host's side."""

    version: int
    connection: int
    """Where INITIATE_CONTACT is posted."""
    response: int
    """Bytes of a VERSION_RESPONSE that says yes."""
    msg_conn_id: int | None
    """What it names; None for the version itself."""
    interrupt_page: bool
    """Whether the host interrupts through the page."""
    names_vp: bool
    """Whether the guest chooses the VP of its messages."""
    names_sint: bool
    names_vtl: bool
    has_reason: bool
    """Whether a failure that is none of the version's is told as such."""
    subchannels: bool
    socket_request: bool
    socket_result: bool
    modify: bool
    modify_response: bool


#              version    conn  size  id    page   vp     sint   vtl    reason subs   sock   result modify response
TABLE = (
    Row(0x0000_000D, 1, 16, None, True, False, False, False, False, False, False, False, False, False),
    Row(0x0001_0001, 1, 16, None, True, False, False, False, False, False, False, False, False, False),
    Row(0x0002_0004, 1, 16, None, False, False, False, False, True, True, False, False, False, False),
    Row(0x0003_0000, 1, 16, None, False, True, False, False, True, True, False, False, False, False),
    Row(0x0004_0000, 1, 16, None, False, True, False, False, True, True, True, False, False, False),
    Row(0x0004_0001, 1, 16, None, False, True, False, False, True, True, True, True, True, False),
    Row(0x0005_0000, 4, 16, 1, False, True, True, False, True, True, True, True, True, False),
    Row(0x0005_0001, 4, 16, 1, False, True, True, True, True, True, True, True, True, False),
    Row(0x0005_0002, 4, 16, 1, False, True, True, True, True, True, True, True, True, False),
    Row(0x0005_0003, 4, 16, 1, False, True, True, True, True, True, True, True, True, True),
    Row(0x0006_0000, 4, 20, 1, False, True, True, True, True, True, True, True, True, True),
)
ROWS = [pytest.param(row, id=f"{row.version >> 16}.{row.version & 0xFFFF}") for row in TABLE]
VERSIONS = tuple(row.version for row in TABLE)


def contact_bytes(raw: Any, version: int, **changes: Any) -> bytes:
    """INITIATE_CONTACT with the last fields as bytes of the TargetInfo union."""
    target: bytes = changes.get("target", struct.pack("<BBHI", 2, 0, 0, 0) if version >= 0x5_0000 else bytes(8))
    head: bytes = raw.head(Type.CHANNELMSG_INITIATE_CONTACT).pack()
    vp: int = changes.get("vp", 0)
    return head + struct.pack("<II", version, vp) + target + bytes(16)


@pytest.mark.parametrize("row", ROWS)
def test_the_answer_to_a_contact(raw: Any, row: Row) -> None:
    guest = raw(raw.NEWEST)
    assert guest.contact(row.version, vp=1) == 0
    ((vp, payload),) = guest.taken()
    assert len(payload) == row.response
    answer = abi.VmbusChannelVersionResponse.unpack(payload)
    assert (answer.version_supported, answer.connection_state) == (1, 0)
    assert answer.msg_conn_id == (row.version if row.msg_conn_id is None else row.msg_conn_id)
    assert vp == int(row.names_vp)
    assert ((5, 1, "interrupt page") in guest.shared()) is row.interrupt_page
    assert guest.server.bus.version == row.version
    assert guest.findings() == []


@pytest.mark.parametrize("row", ROWS)
def test_a_failure_has_a_reason_since_2_4(raw: Any, row: Row) -> None:
    guest = raw(raw.NEWEST)
    guest.contact(row.version, monitor=(0x3000, 0))
    (answer,) = guest.got()
    assert (answer.version_supported, answer.connection_state) == ((1, 2) if row.has_reason else (0, 0))
    assert guest.server.state == "disconnected"


@pytest.mark.parametrize("row", ROWS)
def test_the_sint_of_the_messages(raw: Any, row: Row) -> None:
    """Another SINT than 2: the guest hears there that it is not supported, and its old connection lives on."""
    guest = raw(raw.NEWEST)
    guest.connect()
    memory = guest.machine.memory.guest
    memory.write(0x62_0000 + 3 * 256, bytes(256))
    guest.post(contact_bytes(raw, row.version, target=struct.pack("<BBHI", 3, 0, 0, 0)), connection=4)
    if row.names_sint:
        assert guest.got() == []
        kind, size = struct.unpack("<IB", memory.read(0x62_0000 + 3 * 256, 5))
        payload = memory.read(0x62_0000 + 3 * 256 + 16, size)
        assert (kind, payload) == (1, struct.pack("<IIBBHI", 15, 0, 0, 0, 0, 0))
        assert guest.server.state == "offers delivered"
        version = f"{row.version >> 16}.{row.version & 0xFFFF}"
        assert guest.findings() == [f"refused: vmbus: INITIATE_CONTACT for version {version}: msg_sint 3 is not 2"]
    else:
        assert [answer.version_supported for answer in guest.got()] == [1]


@pytest.mark.parametrize("row", ROWS)
def test_the_privilege_level_of_the_messages(raw: Any, row: Row) -> None:
    """Another VTL has another server, which is not here: nobody answers."""
    guest = raw(raw.NEWEST)
    guest.post(contact_bytes(raw, row.version, target=struct.pack("<BBHI", 2, 2, 0, 0)), connection=4)
    assert len(guest.got()) == (0 if row.names_vtl else 1)
    assert any("where no server listens" in finding for finding in guest.findings()) is row.names_vtl


@pytest.mark.parametrize("row", ROWS)
def test_sint_and_vtl_mean_nothing_on_connection_1(raw: Any, row: Row) -> None:
    guest = raw(raw.NEWEST)
    guest.post(contact_bytes(raw, row.version, target=struct.pack("<BBHI", 7, 9, 0, 0)), connection=1)
    assert guest.got()[0].version_supported == 1


def test_a_sint_that_does_not_exist_gets_no_answer(raw: Any) -> None:
    guest = raw(raw.NEWEST)
    guest.post(contact_bytes(raw, 0x5_0003, target=struct.pack("<BBHI", 200, 0, 0, 0)), connection=4)
    guest.post(contact_bytes(raw, 0x5_0003, target=struct.pack("<BBHI", 3, 0, 0, 0), vp=77), connection=4)
    assert guest.got() == []
    assert len(guest.findings()) == 2


def message_of(raw: Any, number: Type) -> bytes:
    """A well-formed message that the server can take in any state."""
    row = abi.channel_message(number)
    assert row is not None
    return (struct.pack("<II", number, 0) + struct.pack("<I", 1)).ljust(row.struct.SIZE, b"\0")


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("number", [m.number for m in CHANNEL_MESSAGES if m.sender == "guest"], ids=lambda n: n.name)
def test_what_a_version_may_send(raw: Any, number: Type, row: Row) -> None:
    guest = raw(raw.NEWEST)
    guest.connect(row.version)
    guest.post(message_of(raw, number))
    legal = {
        Type.CHANNELMSG_TL_CONNECT_REQUEST: row.socket_request,
        Type.CHANNELMSG_MODIFYCHANNEL: row.modify,
    }.get(number, True)
    assert any("needs version" in finding for finding in guest.findings()) is not legal


@pytest.mark.parametrize("row", ROWS)
def test_what_a_version_is_told(raw: Any, row: Row) -> None:
    guest = raw(raw.NEWEST)
    guest.connect(row.version)
    guest.open(1)
    endpoint, service = raw.guid(0xE0), raw.guid(0x400)
    guest.post(abi.VmbusChannelTlConnectRequest(raw.head(Type.CHANNELMSG_TL_CONNECT_REQUEST), endpoint, service))
    result = struct.pack("<II16s16sI", 23, 0, bytes(endpoint), bytes(service), 0xC000_0236)
    assert guest.taken() == [(0, result)] * row.socket_result
    guest.post(abi.VmbusChannelModifychannel(raw.head(Type.CHANNELMSG_MODIFYCHANNEL), 1, 0))
    assert guest.taken() == [(0, struct.pack("<IIII", 24, 0, 1, 0))] * row.modify_response
    assert guest.echoes[0].opened[0].target_vp == (0 if row.modify else 1)
    guest.echoes[0].opened[0].offer_subchannels(1)
    assert len(guest.got()) == row.subchannels
    guest.post(raw.head(Type.CHANNELMSG_UNLOAD))
    assert guest.got()[-1] == raw.head(Type.CHANNELMSG_UNLOAD_RESPONSE)
    assert guest.shared() == []


@pytest.mark.parametrize("second", VERSIONS)
@pytest.mark.parametrize("first", VERSIONS)
@pytest.mark.parametrize("unload", [False, True])
def test_any_version_after_any_other(raw: Any, first: int, second: int, unload: bool) -> None:
    """Nothing of the first connection is left in the second."""
    guest = raw(raw.NEWEST)
    guest.connect(first)
    guest.open(1)
    if unload:
        guest.post(raw.head(Type.CHANNELMSG_UNLOAD))
        guest.got()
        assert guest.shared() == []
    guest.contact(second, page=0x6000 if second < 0x2_0004 else None)
    assert guest.got()[0].version_supported == 1
    pages = [(3, 1, "monitor"), (4, 1, "monitor")] + [(6, 1, "interrupt page")] * (second < 0x2_0004)
    assert sorted(guest.shared()) == pages
    assert [finding.split(":")[0] for finding in guest.findings()] == ["tolerated"] * (not unload)
    guest.post(raw.head(Type.CHANNELMSG_REQUESTOFFERS))
    assert [message.child_relid for message in guest.got()[:-1]] == [1]
    guest.open(1, first=0x200)


def test_a_loader_proves_3_0_and_reconnects_as_0_13(raw: Any) -> None:
    """iPXE: vmbus_negotiate_version; at its end it unloads the old connection too and waits for the answer."""
    guest = raw(load_profile("ws2022").vmbus)
    guest.contact(abi.VERSION_WIN8_1, page=0x5000)
    assert guest.got()[0].version_supported == 1
    guest.post(raw.head(Type.CHANNELMSG_UNLOAD))
    assert guest.got() == [raw.head(Type.CHANNELMSG_UNLOAD_RESPONSE)]
    guest.connect(abi.VERSION_WS2008)
    guest.open(1)
    guest.post(raw.head(Type.CHANNELMSG_UNLOAD))
    assert guest.got() == [raw.head(Type.CHANNELMSG_UNLOAD_RESPONSE)]
    assert guest.findings() == []
    # Then Linux comes.
    guest.connect(abi.VERSION_WIN10_V5_3)


@pytest.mark.parametrize("name", profile_names())
def test_hosts_before_3_0_do_not_unload(raw: Any, name: str) -> None:
    vmbus = load_profile(name).vmbus
    guest = raw(vmbus)
    guest.connect(vmbus.versions[0])
    guest.post(raw.head(Type.CHANNELMSG_UNLOAD))
    newest = vmbus.versions[-1]
    if newest >= abi.VERSION_WIN8_1:
        assert guest.got() == [raw.head(Type.CHANNELMSG_UNLOAD_RESPONSE)]
        assert guest.findings() == []
    else:
        assert guest.got() == []
        has = f"{newest >> 16}.{newest & 0xFFFF}"
        assert guest.findings() == [f"ignored: vmbus: UNLOAD needs a host of version 3.0, this one has {has}"]


@pytest.mark.parametrize("name", profile_names())
def test_trying_connection_4_is_no_mistake(raw: Any, name: str) -> None:
    """It is how a guest finds out; a host up to 4.0 counts it and records nothing."""
    vmbus = load_profile(name).vmbus
    guest = raw(vmbus)
    guest.machine.findings.clear()
    status = guest.contact(abi.VERSION_WIN10_V5_3)
    assert (status == 0) is vmbus.message_connection_4
    assert guest.server.declined == (not vmbus.message_connection_4)
    guest.contact(abi.VERSION_WIN10_V5_3, connection=9)
    assert [finding.text for finding in guest.machine.findings] == ["VP 0: HvCallPostMessage: INVALID_CONNECTION_ID"], (
        "no connection at all is one"
    )
    assert guest.server.declined == (not vmbus.message_connection_4)
    guest.server.bus.host.ports.disconnect(4)


# version 6.0 ------------------------------------------------------------------------------------------------------


def copper(raw: Any, offered: int, asked: int, client_id: bool = True) -> Any:
    accepts = raw.Accepts((*raw.NEWEST.versions,), message_connection_4=True, gpadl_total_mb=1280, features=offered)
    guest = raw(accepts)
    payload = contact_bytes(raw, 0x6_0000, target=struct.pack("<BBHI", 2, 0, 0, asked))
    guest.post(payload + bytes(16) * client_id, connection=4)
    return guest


@pytest.mark.parametrize(
    ("offered", "asked", "granted"),
    [(0, 0xFF, 0), (0xFF, 0, 0), (0xFF, 0xFFFF_FFFF, 0xB), (0xFF, 9, 9), (2, 3, 2), (0xF4, 0xF4, 0)],
)
def test_features_are_what_both_have_and_the_server_knows(raw: Any, offered: int, asked: int, granted: int) -> None:
    ((_, payload),) = copper(raw, offered, asked).taken()
    assert len(payload) == 20
    assert int.from_bytes(payload[16:], "little") == granted


def test_a_client_id_that_is_announced_must_be_there(raw: Any) -> None:
    guest = copper(raw, 0, 8, client_id=False)
    assert guest.got() == []
    assert guest.findings() == ["ignored: vmbus: INITIATE_CONTACT of 40 bytes; with a client id it has at least 56"]


def test_features_need_version_6(raw: Any) -> None:
    guest = raw(raw.NEWEST)
    guest.post(contact_bytes(raw, 0x5_0003, target=struct.pack("<BBHI", 2, 0, 0, 0xFF)), connection=4)
    ((_, payload),) = guest.taken()
    assert len(payload) == 16
    assert guest.server.features == 0


def test_the_guest_names_connection_and_event_flag(raw: Any) -> None:
    guest = copper(raw, 1, 1)
    guest.got()
    guest.post(raw.head(Type.CHANNELMSG_REQUESTOFFERS))
    guest.got()
    handle = guest.lend(1, 0x100, 8)
    message = guest.open_message(1, handle, 4).pack()
    for tail, why in (
        (b"", "ignored: vmbus: OPENCHANNEL of 148 bytes; with the features of this connection at least 156"),
        (
            struct.pack("<IHH", 0x3005, 2048, 0),
            "refused: vmbus: OPENCHANNEL of relid 1 (echo0): event_flag 2048: must be 1 to 2047",
        ),
        (
            struct.pack("<IHH", 1, 77, 0),
            "refused: vmbus: OPENCHANNEL of relid 1 (echo0): connection id 0x1: already connected",
        ),
    ):
        guest.post(message + tail)
        assert guest.got()[0].status == REFUSED
        assert guest.findings() == [why]
    guest.post(message + struct.pack("<IHH", 0x3005, 77, 1))
    assert guest.got()[0].status == 0
    channel = guest.echoes[0].opened[0]
    channel.send_packet(6, b"hello")
    assert guest.events() == [(1, 77)]
    assert guest.signal(0x3005)
    assert not guest.signal(0x2001)
    guest.post(abi.VmbusChannelCloseChannel(raw.head(Type.CHANNELMSG_CLOSECHANNEL), 1))
    assert not guest.signal(0x3005)
    assert channel.connection_id == 0x2001
    assert guest.shared() != []
