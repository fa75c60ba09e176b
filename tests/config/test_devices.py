"""The devices of a VM: kinds in any number, offers described in full, and what contradicts itself."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest

from hvkernel.config import DEVICE_CLASSES, VmConfig, load_profile, load_vm, vm_devices
from hvkernel.config.devices import FLAGS
from hvkernel.config.vm import change_vm

MYSTERY = "c0ffee00-0000-4000-8000-000000000001"


def devices(generation: int = 1, host: str = "ws2022", **vm: Any) -> Any:
    return vm_devices(VmConfig.model_validate(vm), load_profile(host), generation)


def test_the_profile_decides_by_default() -> None:
    profile, vm = load_profile("ws2022"), VmConfig()
    assert vm_devices(vm, profile, 1) is profile.devices(1)
    assert vm_devices(vm, profile, 2) is profile.devices(2)


def test_kinds_in_order_and_any_number() -> None:
    found = devices(devices=["balloon", "ide", "ide", "ide", "dm"])
    assert [device.name for device in found] == ["dm0", "ide0", "ide1", "ide2", "dm1"]
    classes = DEVICE_CLASSES
    assert [device.instance_guid for device in found[1:3]] == list(classes["ide"].instances)
    assert found[3].instance_guid == classes["ide"].instance("ide", 2)
    assert found[1].protocols == load_profile("ws2022").protocols["ide"]
    assert devices(devices=[]) == ()


def test_a_device_in_full(tmp_path: Path) -> None:
    file = tmp_path / "vm.toml"
    file.write_text(
        f'devices = []\n[[device]]\nclass_guid = "{MYSTERY}"\ninstance_guid = "{MYSTERY}"\nname = "socket"\n'
        'flags = ["tlnpi-provider-offer", "named-pipe-mode", 0x8008]\nuser_defined = "01ff"\nmmio_megabytes = 9\n'
        "monitored = true\nmonitor_latency = 77\nsubchannels = 3\noffered_at = 1.25\n"
        '[[device]]\nkind = "net"\n[[device]]\nkind = "nic"\nflags = []\n'
        f'[[device]]\nclass_guid = "{DEVICE_CLASSES["scsi"].class_guid}"\n'
    )
    vm = change_vm(load_vm(file), {"cpus": 2}, where="command line")
    first, second, third, fourth = vm_devices(vm, load_profile("ws2022"), 2)
    assert (first.name, first.kind, first.class_guid, first.instance_guid) == (
        "socket", "device", uuid.UUID(MYSTERY), uuid.UUID(MYSTERY)
    )  # fmt: skip
    assert (first.flags, first.pipe, first.user_defined, first.mmio_megabytes) == (0xA018, True, b"\1\xff", 9)
    assert (first.monitored, first.monitor_latency, first.subchannels, first.offered_at) == (True, 77, 3, 12_500_000)
    assert (second.name, second.flags, third.name, third.flags) == ("nic0", None, "nic1", 0)
    assert second.instance_guid != third.instance_guid
    assert (fourth.name, fourth.kind, fourth.protocols[-1]) == ("scsi0", "scsi", 0x6_0002)


def test_tables_come_behind_the_profiles_own_devices() -> None:
    found = devices(device=[{"kind": "ide"}, {"class_guid": MYSTERY}, {"class_guid": MYSTERY}])
    own = load_profile("ws2022").devices(1)
    assert found[: len(own)] == own
    ides = sum(device.kind == "ide" for device in own)
    assert [device.name for device in found[len(own) :]] == [f"ide{ides}", "device0", "device1"]
    assert len({device.instance_guid for device in found}) == len(found)


def test_the_names_of_flags_are_the_headers() -> None:
    assert FLAGS["named-pipe-mode"] == 0x10
    assert FLAGS["loopback-offer"] == 0x100
    assert FLAGS["tlnpi-provider-offer"] == 0x2000
    assert len(FLAGS) == 8


@pytest.mark.parametrize(
    ("vm", "why"),
    [
        ({"device": [{"kind": "nic", "name": "dm0"}], "devices": ["dm"]}, "two devices are called 'dm0'"),
        (
            {"device": [{"class_guid": MYSTERY, "instance_guid": MYSTERY}] * 2},
            "device0 and device1 have one class_guid and instance_guid",
        ),
        ({"devices": ["dm"], "device": [{"kind": "nic", "subchannels": 2046}]}, "2048 channels; a VM has at most 2047"),
    ],
)
def test_devices_that_contradict_one_another(vm: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=f"^{why}$"):
        devices(**vm)


@pytest.mark.parametrize(("flags", "room"), [([], 120), (["named-pipe-mode"], 116)])
def test_user_defined_has_the_room_of_the_offer(flags: list[str], room: int) -> None:
    entry = {"class_guid": MYSTERY, "flags": flags, "user_defined": "00" * room}
    assert len(devices(device=[entry])[-1].user_defined) == room
    with pytest.raises(ValueError, match=f"user_defined of {room + 1} bytes; this offer has room for {room}"):
        devices(device=[{**entry, "user_defined": "00" * (room + 1)}])
