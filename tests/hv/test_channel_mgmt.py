"""Pure parts of channel_mgmt.c against the kernel's own functions."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from hvkernel.abi import guids
from hvkernel.abi.vmbus import CHANNEL_MESSAGES, VmbusChannelMessageType, VmbusDeviceType
from hvkernel.hv.channel_cpus import init_vp_index
from hvkernel.hv.channel_mgmt import channel_message_table, hv_get_dev_type
from hvkernel.hv.negotiate import vmbus_prep_negotiate_resp
from hvkernel.hv.vmbus_devs import VMBUS_DEVS, device_type_of
from hvkernel.hv.warn import Place


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
        errors: dict[Place, str] = {}
        buf = bytearray.fromhex(given["buf"])
        answer = vmbus_prep_negotiate_resp(
            buf, given["buflen"], given["fw_versions"], given["srv_versions"], errors.__setitem__
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


class Numa:
    """Just what init_vp_index asks: CPUs by node, all online."""

    def __init__(self, nodes: list[list[int]]) -> None:
        cpus = [cpu for node in nodes for cpu in node]
        self.hv_numa_map = [0] * len(nodes)
        self.next_numa_node_id = 0
        self.vmbus_proto_version = 0x50003
        self.cpus = SimpleNamespace(
            num_online_cpus=lambda: len(cpus),
            nr_node_ids=lambda: len(nodes),
            cpumask_of_node=lambda node: nodes[node],
            cpu_to_node=lambda cpu: next(n for n, node in enumerate(nodes) if cpu in node),
        )


def channel(device_type: int, index: int = 0, primary: Any = None) -> Any:
    return SimpleNamespace(
        device_id=device_type,
        offermsg=SimpleNamespace(sub_channel_index=index),
        primary_channel=primary,
        sc_list=[],
        target_cpu=-1,
    )


def place(v: Any, *channels: Any) -> list[int]:
    for one in channels:
        init_vp_index(v, one)
    return [one.target_cpu for one in channels]


def test_performance_channels_go_round_the_nodes() -> None:
    v: Any = Numa([[0, 1], [2, 3]])
    scsi = [channel(VmbusDeviceType.HV_SCSI) for _ in range(5)]
    assert place(v, *scsi) == [0, 2, 1, 3, 0]


def test_slow_channels_stay_on_the_connect_cpu() -> None:
    v: Any = Numa([[4, 5], [0, 1]])
    assert place(v, channel(VmbusDeviceType.HV_KVP), channel(VmbusDeviceType.HV_UNKNOWN)) == [0, 0]
    assert v.hv_numa_map == [0, 0]


def test_before_windows_8_the_connect_cpu_has_them_all() -> None:
    v: Any = Numa([[0, 1], [2, 3]])
    v.vmbus_proto_version = 0x10001
    assert place(v, channel(VmbusDeviceType.HV_KVP)) == [0]
    assert v.hv_numa_map == [0, 0]
    assert place(v, channel(VmbusDeviceType.HV_SCSI)) == [0]
    assert v.hv_numa_map == [1, 0], "a performance channel takes its CPU"


def test_sub_channels_of_a_device_avoid_each_other() -> None:
    v: Any = Numa([[0, 1, 2, 3]])
    primary = channel(VmbusDeviceType.HV_NIC)
    (first,) = place(v, primary)
    place(v, channel(VmbusDeviceType.HV_SCSI), channel(VmbusDeviceType.HV_SCSI))
    subs = [channel(VmbusDeviceType.HV_NIC, index, primary) for index in (1, 2, 3)]
    for one in subs:
        primary.sc_list.append(one)
        init_vp_index(v, one)
    assert sorted([first, *(one.target_cpu for one in subs)]) == [0, 1, 2, 3]
    extra = channel(VmbusDeviceType.HV_NIC, 4, primary)
    primary.sc_list.append(extra)
    init_vp_index(v, extra)
    assert extra.target_cpu in range(4), "more channels than CPUs: any CPU will do"


def test_a_node_without_cpus_is_passed_over() -> None:
    v: Any = Numa([[0], [], [1]])
    assert place(v, *(channel(VmbusDeviceType.HV_SCSI) for _ in range(3))) == [0, 1, 0]
