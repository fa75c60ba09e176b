"""The log: levels, prefixes, stamps."""

from __future__ import annotations

import pytest

from hvkernel.api.guest.device import BusType, Device, DeviceDriver
from hvkernel.linux.printk import LogLine, Printk


def test_a_line_renders_as_dmesg_shows_it() -> None:
    assert LogLine(0, 6, "a").render() == "[    0.000000] a"
    assert (
        LogLine(1_355_868_999, 6, "hv_vmbus: Vmbus version:4.0").render()
        == "[    1.355868] hv_vmbus: Vmbus version:4.0"
    )
    assert LogLine(123456 * 10**9 + 7000, 6, "b").render() == "[123456.000007] b"


def test_prefixed_views_share_the_log_and_do_not_touch_dev_lines() -> None:
    now = [0]
    pr = Printk(lambda: now[0])
    mine = pr.prefixed("hv_vmbus: ")
    mine.pr_info("one")
    now[0] = 5000
    mine.dev_info(Device("x"), "two")
    pr.pr_err("three")
    assert pr.log == [(0, 6, "hv_vmbus: one"), (5000, 6, " x: two"), (5000, 3, "three")]


def test_device_lines_name_the_driver_else_the_bus() -> None:
    pr = Printk(lambda: 0)
    bus = BusType("vmbus")
    dev = Device("1:0", bus=bus)
    pr.dev_warn(dev, "unbound")
    dev.driver = DeviceDriver("hv_storvsc", bus=bus)
    pr.dev_warn(dev, "bound")
    assert [line.text for line in pr.log] == ["vmbus 1:0: unbound", "hv_storvsc 1:0: bound"]


def test_debug_lines_are_dropped_unless_asked_for() -> None:
    quiet, loud = Printk(lambda: 0), Printk(lambda: 0, debug=True)
    for pr in (quiet, loud):
        pr.pr_debug("x")
        pr.prefixed("p: ").dev_dbg(Device("d"), "y")
    assert quiet.log == []
    assert len(loud.log) == 2


def test_every_function_has_its_level() -> None:
    pr = Printk(lambda: 0, debug=True)
    names = ["emerg", "alert", "crit", "err", "warn", "notice", "info", "debug"]
    for name in names:
        getattr(pr, f"pr_{name}")(name)
    assert [(line.level, line.text) for line in pr.log] == list(enumerate(names))


def test_a_level_outside_the_scale_is_named() -> None:
    with pytest.raises(ValueError, match="level 8 is outside"):
        Printk(lambda: 0).printk(8, "x")


def test_several_lines_get_one_stamp_each() -> None:
    pr = Printk(lambda: 42)
    pr.pr_info("a\nb")
    assert pr.render() == "[    0.000000] a\n[    0.000000] b\n"
