"""Pure parts of channel_mgmt.c against the kernel's own functions."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from hvkernel.abi import guids
from hvkernel.abi.vmbus import CHANNEL_MESSAGES, VmbusChannelMessageType
from hvkernel.hv.channel_mgmt import channel_message_table, hv_get_dev_type
from hvkernel.hv.negotiate import vmbus_prep_negotiate_resp
from hvkernel.hv.vmbus_devs import VMBUS_DEVS, device_type_of


def test_hv_get_dev_type(rows: Callable[[str], Any]) -> None:
    lines: list[str] = []
    v: Any = SimpleNamespace(pr=SimpleNamespace(pr_info=lines.append))
    for row in rows("hv_get_dev_type")["rows"]:
        guid = bytes(getattr(guids, row["in"]["name"]))
        assert hv_get_dev_type(v, guid, row["in"]["chn_flags"]) == row["out"], row
    assert lines == [], "known and unsupported classes are passed over in silence"
    assert hv_get_dev_type(v, bytes(range(16)), 0) == 16
    assert lines == ["Unknown GUID: 03020100-0504-0706-0809-0a0b0c0d0e0f"]


def test_the_class_table_is_indexed_by_its_own_type() -> None:
    assert [row.dev_type for row in VMBUS_DEVS] == list(range(17))
    assert all(device_type_of(row.guid) == row.dev_type for row in VMBUS_DEVS if row.guid is not None)
    assert VMBUS_DEVS[16].pref_ring_size == 0x11000


def test_vmbus_prep_negotiate_resp(rows: Callable[[str], Any]) -> None:
    for row in rows("vmbus_prep_negotiate_resp")["rows"]:
        given, wanted = row["in"], row["out"]
        errors: list[str] = []
        buf = bytearray.fromhex(given["buf"])
        answer = vmbus_prep_negotiate_resp(
            buf, given["buflen"], given["fw_versions"], given["srv_versions"], errors.append
        )
        assert answer == (wanted["ret"], wanted["nego_fw_version"], wanted["nego_srv_version"]), row["case"]
        assert buf.hex() == wanted["buf"], row["case"]
        assert bool(errors) == ((not wanted["ret"] and "buflen" in row["case"]) or "max" in row["case"]), row["case"]


def test_handlers_and_the_protocol_table_agree() -> None:
    wanted = {int(row.number): row for row in CHANNEL_MESSAGES if row.min_payload_len is not None}
    assert set(channel_message_table) == set(wanted)
    for number, entry in channel_message_table.items():
        assert entry.min_payload_len == wanted[number].min_payload_len
        assert entry.blocking == wanted[number].blocking
    blocking = [VmbusChannelMessageType(number).name for number, one in channel_message_table.items() if one.blocking]
    assert blocking == ["CHANNELMSG_OFFERCHANNEL", "CHANNELMSG_RESCIND_CHANNELOFFER"]
