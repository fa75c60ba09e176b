"""Tests of a third party's driver, as its own repository has them."""

import pytest

LANTERN = {"class_guid": "1a27e2f0-0000-4000-8000-000000000001", "name": "lantern0"}

pytestmark = pytest.mark.hv_matrix(
    arch=["x86", "arm64"],
    page_size=["4K", "16K", "64K"],
    HYPERV_LANTERN=["y", "m"],
    kconfig={"MODULES": "y", "BLK_DEV_INITRD": "y"},
    vm={"device": [LANTERN]},
)


def test_the_driver_has_its_device(hv_guest):
    (lantern,) = [row for row in hv_guest.report().devices if row.class_guid == LANTERN["class_guid"]]
    assert (lantern.state, lantern.driver) == ("bound", "hv_lantern")


def test_the_device_goes_and_comes_back(hv_guest):
    hv_guest.happen("rescind")
    hv_guest.happen("rebind")


def test_nothing_else_breaks(hv_result):
    assert hv_result.problems == ()
