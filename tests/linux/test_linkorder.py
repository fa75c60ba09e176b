"""Link order and initcalls."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from hvkernel.linux.initcall import LEVELS, Initcalls
from hvkernel.linux.linkorder import link_rank


def in_order(*paths: Any) -> Any:
    return sorted(paths, key=link_rank) == list(paths)


def test_drivers_come_in_the_order_of_their_makefile() -> None:
    # The order of registration in a real log (WSL2, all built in): hv_pci, hv_storvsc, hv_netvsc, hyperv_keyboard,
    # hv_utils, hv_balloon, hv_sock.
    assert in_order(
        "arch/x86/hyperv/hv_init.o",
        "kernel/time/clocksource.o",
        "drivers/pci/controller/pci-hyperv.o",
        "drivers/acpi/bus.o",
        "drivers/scsi/scsi_mod.o",
        "drivers/scsi/storvsc_drv.o",
        "drivers/scsi/sd_mod.o",
        "drivers/net/hyperv/netvsc_drv.o",
        "drivers/input/serio/hyperv-keyboard.o",
        "drivers/clocksource/hyperv_timer.o",
        "drivers/hid/hid-hyperv.o",
        "drivers/hv/vmbus_drv.o",
        "drivers/hv/hv_util.o",
        "drivers/hv/hv_balloon.o",
        "drivers/hv/hv_common.o",
        "net/vmw_vsock/hyperv_transport.o",
    )


def test_gpu_and_framebuffer() -> None:
    assert in_order(
        "drivers/video/fbdev/hyperv_fb.o", "drivers/gpu/drm/hyperv/hyperv_drm_drv.o", "drivers/uio/uio_hv_generic.o"
    )


def test_what_is_not_listed_comes_last_by_name() -> None:
    assert in_order(
        "drivers/hv/vmbus_drv.o", "drivers/hv/aaa.o", "drivers/hv/bbb.o", "drivers/zzz/x.o", "net/x.o", "zzz/x.o"
    )


@pytest.mark.parametrize("path", ["drivers/hv/vmbus_drv.c", "/drivers/x.o", "", "x"])
def test_a_path_that_is_no_object_file_is_named(path: Any) -> None:
    with pytest.raises(ValueError, match="is not a relative path"):
        link_rank(path)


def test_initcalls_run_by_level_then_link_order_then_registration() -> None:
    ran: Any = []
    calls = Initcalls(lambda call, result: None)
    for level, path, name in [
        ("device", "drivers/hv/hv_util.o", "utils"),
        ("late", "kernel/x.o", "late"),
        ("device", "drivers/scsi/storvsc_drv.o", "storvsc"),
        ("subsys", "drivers/hv/vmbus_drv.o", "vmbus"),
        ("rootfs", "init/initramfs.o", "rootfs"),
        ("early", "arch/x86/kernel/x.o", "early"),
        ("device", "drivers/scsi/storvsc_drv.o", "storvsc2"),
        ("subsys_sync", "a/b.o", "sync"),
    ]:
        calls.add(level, path, partial(ran.append, name), name)
    calls.run("early", "early")
    assert ran == ["early"]
    calls.run("pure", "late_sync")
    assert ran == ["early", "vmbus", "sync", "rootfs", "storvsc", "storvsc2", "utils", "late"]
    assert [name for name, _ in calls.done] == ran


def test_an_unknown_level_is_named() -> None:
    with pytest.raises(ValueError, match="'moduel' is none of early, pure"):
        Initcalls(lambda call, result: None).add("moduel", "a/b.o", lambda: 0, "f")


def test_levels_are_the_kernel_s() -> None:
    assert len(LEVELS) == 17
    assert LEVELS.index("fs") < LEVELS.index("rootfs") < LEVELS.index("device")


def test_an_initcall_that_leaves_preemption_off_is_a_finding(make_guest: Any) -> None:
    guest = make_guest()
    k = guest.kernel
    k.initcall.add("late", "z/z.o", k.sched.preempt_disable, "leaky_init")
    guest.call(k.initcall.run, "late", "late")
    assert "preempt-imbalance" in guest.findings
    assert "leaky_init" in guest.machine.findings[-1].text
