"""Tests of a disk's driver, in every configuration that matters to it."""

import pytest

SECTOR = 512


def test_the_guest_sees_its_disk(hv_guest, hv_host):
    (disk,) = hv_guest.kernel.block.disks
    found = hv_guest.call(hv_guest.kernel.block.read, disk, 1, 1)
    assert found == hv_host.disks[0].pread(SECTOR, SECTOR)


@pytest.mark.hv_matrix(arch=["x86", "arm64"], page_size=["4K", "16K", "64K"], cpus=[4, 1, 65])
def test_what_is_written_is_on_the_disk(hv_guest, hv_host):
    (disk,) = hv_guest.kernel.block.disks
    data = bytes(range(256)) * 300
    hv_guest.call(hv_guest.kernel.block.write, disk, 4096, data)
    assert hv_host.disks[0].pread(len(data), 4096 * SECTOR) == data


@pytest.mark.hv_matrix(
    HYPERV_STORAGE=["y", "m"],
    kconfig={"MODULES": "y", "BLK_DEV_INITRD": "y"},
    devices="two-scsi",
)
def test_a_controller_that_is_taken_away(hv_guest, hv_host, hv_clock):
    bus = hv_guest.kernel.driver.buses["vmbus"]
    before = len(bus.devices)
    hv_host.vmbus.rescind("scsi1")
    hv_clock.run_until(lambda: len(bus.devices) == before - 1, seconds=5)


@pytest.mark.hv_matrix(arch=["x86", "arm64"], events=["rebind", "cpu-hotplug"])
def test_nothing_breaks(hv_result):
    assert hv_result.status == "pass"
