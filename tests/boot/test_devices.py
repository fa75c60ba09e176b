"""VM files that say which devices there are, booted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hvkernel.boot.request import BootRequest, read_request
from hvkernel.boot.session import Session, boot, compose
from hvkernel.config import InputError
from hvkernel.config.vm import VmConfig

if TYPE_CHECKING:
    from hvkernel.testing.guest import Guest, GuestClock, GuestHost

CONFIG = """
CONFIG_64BIT=y
CONFIG_X86_64=y
CONFIG_SMP=y
CONFIG_ACPI=y
CONFIG_PCI=y
CONFIG_EFI=y
CONFIG_HYPERVISOR_GUEST=y
CONFIG_PARAVIRT=y
CONFIG_SCSI=y
CONFIG_BLK_DEV_SD=y
CONFIG_HYPERV=y
CONFIG_HYPERV_STORAGE=y
"""
MYSTERY = "c0ffee00-0000-4000-8000-000000000001"


def request(**vm: Any) -> BootRequest:
    return BootRequest(config=CONFIG, vm=VmConfig.model_validate(vm), where="vm.toml", arch="x86_64")


def guids(report: Any) -> list[str]:
    """Instances in the order of the guest's log."""
    return [line.text.split()[2] for line in report.dmesg if "vmbus_register" in line.text]


def test_two_devices_of_generation_1() -> None:
    report = boot(request(host="ws2012", generation=1, devices=["balloon", "ide"]))
    assert report.outcome == "up"
    assert [device.relid for device in report.devices] == [1, 2]
    assert [device.class_guid[:8] for device in report.devices] == ["525074dc", "32412632"]
    assert report.devices[1].state == "bound"


def test_no_place_for_the_default_disk() -> None:
    with pytest.raises(InputError) as caught:
        boot(request(host="ws2022", generation=1, devices=["balloon"]))
    assert str(caught.value).startswith("vm.toml: disks[0] = ")
    assert str(caught.value).endswith(
        ": this VM has no place for one more SCSI disk; disks = [] makes one without disks"
    )
    assert boot(request(host="ws2022", generation=1, devices=["balloon"], disks=[])).outcome != "up"


def test_devices_that_contradict_one_another_are_named() -> None:
    with pytest.raises(InputError, match=r"^vm.toml: device: two devices are called 'dm0'$"):
        boot(request(devices=["dm"], device=[{"kind": "nic", "name": "dm0"}]))


def test_the_vm_file_is_named_whatever_the_command_line_says(tmp_path: Path) -> None:
    file = tmp_path / "vm.toml"
    file.write_text('devices = ["scsi"]\n[[device]]\nkind = "scsi"\nname = "scsi0"\n')
    with pytest.raises(InputError) as caught:
        boot(read_request(vm=file, cpus=2))
    assert str(caught.value) == f"{file}: device: two devices are called 'scsi0'"


def order(seed: int, **vm: Any) -> list[str]:
    composed = compose(request(host="ws2022", generation=2, seed=seed, **vm))
    assert isinstance(composed, Session)
    with composed as session:
        session.boot()
        assert session.report().outcome == "up"
        return [status.name for status in session.server.status()]


def test_a_random_order_of_the_offers_is_the_seeds() -> None:
    listed = order(0)
    orders = [order(seed, offer_order="random") for seed in (0, 1, 2, 2)]
    assert orders[2] == orders[3]
    assert len({tuple(one) for one in [listed, *orders]}) == 4
    assert all(sorted(one) == sorted(listed) for one in orders)


EVERYWHERE = {
    "arch": ["x86", "arm64"],
    "page_size": ["4K", "16K", "64K"],
    "host": ["ws2022/gen2", "azure-arm64/gen2"],
}
"""On each architecture with its own host, and every page size."""
LATE = {"class_guid": MYSTERY, "offered_at": 200.0, "monitored": True, "flags": [0x8000]}


@pytest.mark.hv_matrix(**EVERYWHERE, vm={"devices": ["scsi"], "device": [LATE]})
def test_a_device_that_comes_later(hv_guest: Guest, hv_host: GuestHost, hv_clock: GuestClock) -> None:
    """It is offered when the guest is long up, and gets the next relid."""
    scsi, late = hv_host.vmbus.status()
    assert (scsi.relid, late.relid, late.state) == (1, 0, "not offered")
    assert hv_clock.seconds < 200
    hv_clock.advance(201 - hv_clock.seconds)
    scsi, late = hv_host.vmbus.status()
    assert (scsi.relid, late.relid, late.state) == (1, 2, "offered")
    bus = hv_guest.kernel.driver.buses["vmbus"]
    assert [device.name for device in bus.devices][1] == str(late.instance_guid)


ODD = [
    {"class_guid": MYSTERY, "flags": ["tlnpi-provider-offer", "named-pipe-mode"]},
    {"class_guid": MYSTERY[:-1] + "2", "flags": [0x8000, "loopback-offer"], "monitored": True, "subchannels": 3},
    {"kind": "scsi", "offered_at": 0.5},
]


@pytest.mark.hv_matrix(**EVERYWHERE, vm={"devices": ["scsi", "nic"], "device": ODD})
def test_offers_that_no_hyper_v_makes(hv_guest: Guest) -> None:
    """Socket offers, reserved flags, an unknown class with sub-channels: the guest takes note and goes on."""
    hv_guest.settle()
    report = hv_guest.report()
    assert [device.state for device in report.devices] == ["bound", *["not-modelled"] * 3, "bound"]
    assert [device.relid for device in report.devices] == [1, 2, 3, 4, 5]
    # Only the second is a class that vmbus_devs[] does not know; sockets have classes of their own (hv_get_dev_type).
    lines = [line for line in hv_guest.dmesg if "Unknown GUID" in line]
    assert lines == [f"hv_vmbus: Unknown GUID: {MYSTERY[:-1]}2"]
