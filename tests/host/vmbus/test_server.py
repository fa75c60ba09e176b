from __future__ import annotations

from typing import Any

import pytest

from hvkernel.abi import vmbus as abi
from hvkernel.abi.vmbus import VmbusChannelMessageType as Type
from hvkernel.host.vmbus import SlotSpec, VmbusServer
from hvkernel_x86.tlfs import HV_REGISTER_SCONTROL as SCONTROL

VERSIONS = (
    abi.VERSION_WS2008, abi.VERSION_WIN7, abi.VERSION_WIN8, abi.VERSION_WIN8_1, abi.VERSION_WIN10,
    abi.VERSION_WIN10_V4_1, abi.VERSION_WIN10_V5, abi.VERSION_WIN10_V5_1, abi.VERSION_WIN10_V5_2,
    abi.VERSION_WIN10_V5_3, 0x0006_0000,
)  # fmt: skip


@pytest.mark.parametrize("newest", range(len(VERSIONS)))
@pytest.mark.parametrize("asked", VERSIONS)
def test_version_truth_table(raw: Any, newest: int, asked: int) -> None:
    """Each version against each host that stops at one: what 5.0 and later get on a host up to 4.0 is no answer."""
    has4 = VERSIONS[newest] >= abi.VERSION_WIN10_V5
    guest = raw(raw.Accepts(VERSIONS[: newest + 1], has4))
    status = guest.contact(asked)
    if asked >= abi.VERSION_WIN10_V5 and not has4:
        assert status == 0x12
        assert guest.got() == []
        return
    assert status == 0
    ((_, payload),) = guest.taken()
    answer = abi.VmbusChannelVersionResponse.unpack(payload)
    supported = asked <= VERSIONS[newest]
    assert (answer.version_supported, answer.connection_state) == (int(supported), 0)
    assert len(payload) == (20 if supported and asked >= 0x0006_0000 else 16)
    if not supported:
        assert answer.msg_conn_id == 0
    else:
        assert answer.msg_conn_id == (1 if asked >= abi.VERSION_WIN10_V5 else asked)
    assert guest.server.requests == [asked]
    assert guest.findings() == []


def test_versions_that_never_were(raw: Any) -> None:
    guest = raw(raw.NEWEST)
    for version in (0, 0xC, 0x0001_0000, 0x0004_0002, 0x0005_0004, 0x0006_0001, 0xFFFF_FFFF):
        guest.contact(version)
        (answer,) = guest.got()
        assert answer.version_supported == 0, hex(version)


def test_a_refused_version_ends_a_connection(raw: Any) -> None:
    guest = raw()
    guest.connect()
    guest.contact(0x0004_0001)
    assert guest.got()[0].version_supported == 0
    assert guest.server.state == "disconnected"
    guest.post(raw.head(Type.CHANNELMSG_REQUESTOFFERS))
    assert guest.got() == []
    assert guest.findings() == ["ignored: vmbus: REQUESTOFFERS without a connection"]


def test_messages_go_to_the_processor_that_the_guest_names_since_2012_r2(raw: Any) -> None:
    for version, vp in ((abi.VERSION_WIN8, 0), (abi.VERSION_WIN8_1, 1), (abi.VERSION_WIN10, 1)):
        guest = raw()
        guest.contact(version, vp=1)
        assert [m[0] for m in guest.taken()] == [vp]


def test_version_5_on_the_old_connection_is_accepted_and_noted(raw: Any) -> None:
    guest = raw(raw.NEWEST)
    assert guest.contact(abi.VERSION_WIN10_V5, connection=1) == 0
    assert guest.got()[0].version_supported == 1
    assert guest.findings() == ["tolerated: vmbus: INITIATE_CONTACT for version 5.0 on connection 1, not 4"]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"vp": 7}, "target_vcpu 7 is not a processor of this guest"),
        ({"monitor": (0x3000, 0)}, "monitor pages 0x3000 and 0x0: both or neither"),
        ({"monitor": (0x3000, 0x4008)}, "monitor page 0x4008 is not a page of this guest's memory"),
        ({"monitor": (0x3000, 1 << 40)}, "monitor page 0x10000000000 is not a page of this guest's memory"),
    ],
)
def test_bad_contact_is_a_failed_connection(raw: Any, changes: dict[str, Any], why: str) -> None:
    guest = raw(raw.NEWEST)
    guest.contact(abi.VERSION_WIN10_V5_3, **changes)
    answer = guest.got()[0]
    assert (answer.version_supported, answer.connection_state) == (1, 2)
    assert guest.findings() == [f"refused: vmbus: INITIATE_CONTACT for version 5.3: {why}"]
    assert guest.server.state == "disconnected"
    assert guest.shared() == []


def test_before_2012_a_failed_connection_looks_like_an_unknown_version(raw: Any) -> None:
    guest = raw()
    guest.contact(abi.VERSION_WIN7, monitor=(0x3000, 0))
    assert guest.got()[0].version_supported == 0


def test_no_monitor_pages_is_legal(raw: Any) -> None:
    guest = raw()
    guest.contact(abi.VERSION_WIN10, monitor=(0, 0))
    assert guest.got()[0].connection_state == 0
    assert guest.shared() == []


def test_monitor_pages_are_shared_from_contact_to_unload(raw: Any) -> None:
    guest = raw()
    guest.connect()
    assert guest.shared() == [(3, 1, "monitor"), (4, 1, "monitor")]
    guest.post(raw.head(Type.CHANNELMSG_UNLOAD))
    assert guest.got() == [raw.head(Type.CHANNELMSG_UNLOAD_RESPONSE)]
    assert guest.shared() == []


def test_offers_come_once(raw: Any) -> None:
    guest = raw(slots=3)
    offers = guest.connect()
    assert [o.child_relid for o in offers] == [1, 2, 3]
    assert [str(o.offer.if_instance)[:8] for o in offers] == ["00001000", "00001001", "00001002"]
    guest.post(raw.head(Type.CHANNELMSG_REQUESTOFFERS))
    assert guest.got() == []
    assert guest.findings() == [
        "refused: vmbus: the connection is in state 'offers delivered', where 'REQUESTOFFERS' is not legal "
        "(legal: INITIATE_CONTACT, accepted, INITIATE_CONTACT, refused, UNLOAD)"
    ]


def test_a_second_contact_drops_the_first_connection(raw: Any) -> None:
    guest = raw()
    guest.connect()
    guest.open(1)
    assert len(guest.shared()) == 3
    assert guest.connect()[0].child_relid == 1
    assert guest.findings() == ["tolerated: vmbus: INITIATE_CONTACT on a live connection; the old one is dropped"]
    assert guest.shared() == [(3, 1, "monitor"), (4, 1, "monitor")]
    assert [c.is_open for c in guest.echoes[0].closed] == [False]


def test_unload_lets_go_of_everything(raw: Any) -> None:
    guest = raw(slots=2)
    guest.connect()
    guest.open(1)
    guest.lend(2, 0x200, 40)
    guest.post(raw.head(Type.CHANNELMSG_UNLOAD))
    assert guest.got() == [raw.head(Type.CHANNELMSG_UNLOAD_RESPONSE)]
    assert guest.shared() == []
    assert guest.server.gpadls.total == 0
    assert len(guest.server.gpadls) == 0
    assert not guest.signal(0x2001)
    assert [o.child_relid for o in guest.connect()] == [1, 2]
    assert guest.findings() == []


@pytest.mark.parametrize(
    ("payload", "finding"),
    [
        (b"", "a channel message of 0 bytes has no room for its 8-byte header"),
        (b"\3\0\0\0\0\0\0", "a channel message of 7 bytes has no room for its 8-byte header"),
        (bytes(8), "message type 0 is not one that a guest sends"),
        (b"\x63" + bytes(7), "message type 99 is not one that a guest sends"),
        (b"\x12" + bytes(7), "message type 18 is not one that a guest sends"),
        (b"\x01" + bytes(7), "message type 1 (CHANNELMSG_OFFERCHANNEL) is not one that a guest sends"),
        (b"\x05" + bytes(146), "OPENCHANNEL of 147 bytes; it has at least 148"),
        (b"\x08" + bytes(18), "GPADL_HEADER of 19 bytes; it has at least 20"),
        (b"\x16" + bytes(15), "MODIFYCHANNEL needs version 4.1, the connection has 4.0"),
        (b"\x07\0\0\0\0\0\0\0\x09\0\0\0", "CLOSECHANNEL for relid 9, which is not offered"),
        (b"\x0d\0\0\0\0\0\0\0\x09\0\0\0", "RELID_RELEASED for relid 9, which is not offered"),
        (b"\x0b\0\0\0\0\0\0\0\x09\0\0\0\1\0\0\0", "GPADL_TEARDOWN for relid 9, which is not offered"),
        (b"\x0b\0\0\0\0\0\0\0\x01\0\0\0\1\0\0\0", "GPADL_TEARDOWN for 0x1, which relid 1 does not have"),
        (b"\x09\0\0\0\0\0\0\0\0\0\0\0\7\0\0\0" + bytes(8), "GPADL_BODY for 0x7, which waits for none"),
    ],
)
def test_messages_that_are_dropped(raw: Any, payload: bytes, finding: str) -> None:
    guest = raw()
    guest.connect()
    assert guest.post(payload) == 0
    assert guest.got() == []
    assert guest.findings() == [f"ignored: vmbus: {finding}"]


def test_a_longer_message_than_known_is_legal(raw: Any) -> None:
    guest = raw()
    guest.connect()
    message = raw.head(Type.CHANNELMSG_UNLOAD).pack()
    guest.post(message.ljust(240, b"\xee"))
    assert guest.got() == [raw.head(Type.CHANNELMSG_UNLOAD_RESPONSE)]


def test_another_message_type_of_the_hypervisor_is_ignored(raw: Any) -> None:
    guest = raw()
    assert guest.post(bytes(40), message_type=2) == 0
    assert guest.findings() == ["ignored: vmbus: message type 0x2 on connection 1; the bus uses 1"]


def test_too_many_messages_are_turned_away(raw: Any) -> None:
    guest = raw(message_buffers=2)
    payload = raw.head(Type.CHANNELMSG_REQUESTOFFERS)
    assert guest.post(payload, times=4) == 0x13
    assert guest.findings() == [
        "throttled: vmbus: 2 messages wait already",
        "throttled: vmbus: 2 messages wait already",
        "ignored: vmbus: REQUESTOFFERS without a connection",
        "ignored: vmbus: REQUESTOFFERS without a connection",
    ]
    assert guest.post(payload) == 0


def test_a_port_has_sixteen_message_buffers(raw: Any) -> None:
    """TLFS, "Guest Message Buffers"."""
    guest = raw()
    payload = raw.head(Type.CHANNELMSG_REQUESTOFFERS)
    assert guest.post(payload, times=16) == 0
    assert guest.post(payload, times=17) == 0x13
    assert guest.findings().count("throttled: vmbus: 16 messages wait already") == 1


def test_a_page_of_the_hypervisor_over_a_hole_is_no_memory_of_the_guest(raw: Any) -> None:
    """It goes when the guest moves it, and the host would write where there is nothing."""
    guest = raw(raw.NEWEST, ram=[(0, 64 * 1024 * 1024), (96 * 1024 * 1024, 1024 * 1024)])
    hole = 80 * 1024 * 1024
    vp = guest.machine.boot_vp
    guest.machine.call(vp.wrmsr, 0x4000_0073, hole | 1, vp=vp)
    assert guest.machine.memory.is_ram(hole >> 12)
    guest.contact(abi.VERSION_WIN10, monitor=(hole, hole))
    (answer,) = guest.got()
    assert answer.connection_state == 2
    guest.contact(abi.VERSION_WS2008, page=hole)
    guest.got()
    findings = guest.findings()
    assert f"monitor page {hole:#x} is not a page of this guest's memory" in findings[0]
    assert findings[1] == f"tolerated: vmbus: interrupt page {hole:#x} is not a page of this guest's memory; not used"
    guest.connect()
    guest.post_gpadl(1, 7, [(4096, 0, (hole >> 12,))])
    assert guest.got()[0].creation_status != 0


def test_socket_requests_find_no_service(raw: Any) -> None:
    guest = raw()
    guest.connect()
    message = abi.VmbusChannelTlConnectRequest(
        raw.head(Type.CHANNELMSG_TL_CONNECT_REQUEST), raw.guid(1), raw.guid(0x400)
    )
    guest.post(message)
    assert guest.got() == []
    assert guest.findings() == [
        "refused: vmbus: TL_CONNECT_REQUEST to service 00000400-0000-0000-0000-000000000000: no service listens"
    ]


def test_two_devices_of_one_name_are_a_mistake_of_the_vm(raw: Any) -> None:
    guest = raw(slots=1)
    twice = [SlotSpec("a", raw.guid(1), raw.guid(n)) for n in (1, 2)]
    with pytest.raises(ValueError, match=r"^two devices of the VM are called 'a'$"):
        VmbusServer(guest.host, raw.Accepts(), twice, guest.table)


def test_a_processor_that_takes_no_messages(raw: Any) -> None:
    guest = raw()
    guest.machine.call(guest.machine.vps[1].wrmsr, SCONTROL, 0, vp=guest.machine.vps[1])
    guest.contact(abi.VERSION_WIN10, vp=1)
    assert guest.got() == []
    assert guest.findings() == ["tolerated: vmbus: VERSION_RESPONSE is lost: VP 1 takes no messages (HV_STATUS 0x18)"]
