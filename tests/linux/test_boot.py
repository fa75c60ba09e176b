"""From start_kernel() to an outcome: up, panic, hung; with and without initramfs."""

from __future__ import annotations

from typing import Any

import pytest

from hvkernel.api.guest.device import BusType, Device, NotifierBlock
from hvkernel.api.guest.kernel import Import, KernelObject
from hvkernel.api.guest.scsi import Scsi
from hvkernel.machine import PageFault

MIB = 1 << 20
BUILT_IN = {
    "SCSI": "y",
    "BLK_DEV_SD": "y",
    "SCSI_SCAN_ASYNC": "y",
    "HYPERV": "y",
    "HYPERV_STORAGE": "y",
    "BLK_DEV_INITRD": "y",
}
MODULES = {**BUILT_IN, "SCSI": "m", "BLK_DEV_SD": "m", "HYPERV_STORAGE": "m"}


def disk_with_table() -> Any:
    image = bytearray(MIB)
    image[0x1B8:0x1BC] = b"\x78\x56\x34\x12"
    image[0x1BE:0x1CE] = bytes([0, 0, 0, 0, 0x83, 0, 0, 0, 64, 0, 0, 0, 0, 1, 0, 0])
    image[510:512] = b"\x55\xaa"
    return image


def storage(guest: Any, fake_hba: Any, disks: Any, delay: Any = 0) -> None:
    """A bus with one controller, and the driver object that finds it: what hv_vmbus and hv_storvsc are."""
    k = guest.kernel

    def uevent(dev: Any, env: dict[str, str]) -> int:
        env["MODALIAS"] = "tbus:scsi"
        return 0

    bus = BusType("tbus", uevent=uevent)

    def init_bus(kernel: Any) -> Any:
        kernel.driver.bus_register(bus)
        kernel.driver.device_register(Device("ctrl", bus=bus))
        return 0

    def init_driver(kernel: Any) -> Any:
        kernel.printk.pr_info("registering driver storage")
        hba = fake_hba(guest, disks)

        def later() -> None:
            if delay:
                kernel.sched.msleep(delay)
            kernel.scsi.scsi_add_host(hba.host, Device("ctrl"))
            kernel.scsi.scsi_scan_host(hba.host)

        if delay:
            kernel.sched.kthread_run(later, name="slow probe")
        else:
            later()
        return 0

    k.register_object(KernelObject("tbus", "HYPERV", "drivers/hv/vmbus_drv.o", init_bus, level="subsys"))
    k.register_object(
        KernelObject(
            "storage",
            "HYPERV_STORAGE",
            "drivers/scsi/storvsc_drv.o",
            init_driver,
            imports=(Import(Scsi, ("scsi_add_host",)),),
            aliases=("tbus:scsi",),
        )
    )


def boot(
    make_guest: Any,
    fake_hba: Any,
    config: Any,
    *,
    disks: Any = None,
    delay: Any = 0,
    limit: Any = 200 * 10**7,
    **options: Any,
) -> Any:
    guest = make_guest(up=False, config=config, **options)
    storage(guest, fake_hba, {(0, 0, 0): disk_with_table()} if disks is None else disks, delay)
    return guest, guest.kernel.boot(limit)


def test_a_built_in_kernel_comes_up_without_initramfs(make_guest: Any, fake_hba: Any) -> None:
    guest, outcome = boot(make_guest, fake_hba, BUILT_IN)
    assert (outcome.state, outcome.reason) == ("up", "")
    assert guest.kernel.init.root.name == "sda"
    lines = guest.lines
    assert lines[0] == "Linux version 6.1.192 (hvkernel model) #1 SMP"
    assert (
        lines.index("SCSI subsystem initialized")
        < lines.index("registering driver storage")
        < lines.index(" sda: sda1")
    )
    assert "Trying to unpack rootfs image as initramfs..." not in lines
    assert lines[-1] == "Run /sbin/init as init process"
    assert guest.findings == []


def test_modules_come_from_the_initramfs_in_the_order_of_coldplug(make_guest: Any, fake_hba: Any) -> None:
    guest, outcome = boot(make_guest, fake_hba, MODULES)
    assert outcome.state == "up"
    assert guest.kernel.module.loaded_order == ["scsi_mod", "storage", "sd_mod"]
    lines = guest.lines
    order = [
        "Trying to unpack rootfs image as initramfs...",
        "Run /init as init process",
        "SCSI subsystem initialized",
        " sda: sda1",
    ]
    assert [lines.index(x) for x in order] == sorted(lines.index(x) for x in order)
    assert guest.findings == []


def test_the_arch_is_called_in_the_kernel_s_order(make_guest: Any, fake_hba: Any) -> None:
    guest, _ = boot(make_guest, fake_hba, BUILT_IN)
    assert guest.arch.calls == [
        "setup_arch",
        "setup_arch_late",
        "smp_prepare_boot_cpu",
        "init_IRQ",
        "time_init",
        "late_time_init",
        "smp_prepare_cpus(1)",
        "smp_cpus_done",
    ]


def test_no_disk_and_no_initramfs_is_the_vfs_panic(make_guest: Any, fake_hba: Any) -> None:
    guest, outcome = boot(make_guest, fake_hba, BUILT_IN, disks={})
    assert (outcome.state, outcome.reason) == ("panic", "VFS: Unable to mount root fs on unknown-block(0,0)")
    assert guest.lines[-4:] == [
        'VFS: Cannot open root device "(null)" or unknown-block(0,0): error -6',
        'Please append a correct "root=" boot option; here are the available partitions:',
        "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)",
        "---[ end Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0) ]---",
    ]


def test_a_driver_that_is_not_built_is_the_same_panic(make_guest: Any, fake_hba: Any) -> None:
    _, outcome = boot(make_guest, fake_hba, {**BUILT_IN, "HYPERV": "n", "HYPERV_STORAGE": "n"})
    assert outcome.reason == "VFS: Unable to mount root fs on unknown-block(0,0)"


def test_no_disk_with_an_initramfs_hangs_after_its_wait(make_guest: Any, fake_hba: Any) -> None:
    guest, outcome = boot(make_guest, fake_hba, MODULES, disks={})
    assert (outcome.state, outcome.reason) == ("hung", "initramfs: root device not found")
    assert 30 <= guest.machine.clock.now / 1e7 < 32


def test_rootdelay_changes_the_wait(make_guest: Any, fake_hba: Any) -> None:
    guest, outcome = boot(make_guest, fake_hba, MODULES, disks={}, command_line=b"rootdelay=5")
    assert outcome.state == "hung"
    assert 5 <= guest.machine.clock.now / 1e7 < 7


def test_a_disk_that_is_late_is_waited_for(make_guest: Any, fake_hba: Any) -> None:
    _, outcome = boot(make_guest, fake_hba, MODULES, delay=9000)
    assert outcome.state == "up"


def test_a_kernel_alone_does_not_wait_unless_told(make_guest: Any, fake_hba: Any) -> None:
    _, outcome = boot(make_guest, fake_hba, BUILT_IN, delay=3000)
    assert outcome.state == "panic"
    _, outcome = boot(make_guest, fake_hba, BUILT_IN, delay=3000, command_line=b"root=/dev/sda1 rootwait")
    assert outcome.state == "up"


def test_rootwait_for_ever_is_hung(make_guest: Any, fake_hba: Any) -> None:
    _, outcome = boot(
        make_guest, fake_hba, BUILT_IN, disks={}, command_line=b"root=/dev/sda1 rootwait", limit=20 * 10**7
    )
    assert outcome.state == "hung"
    assert outcome.reason == "rootwait: waiting for root device /dev/sda1: not done within the limit"


@pytest.mark.parametrize(
    ("initrd", "state", "reason"),
    [
        ("all", "up", ""),
        (["storage", "sd_mod"], "up", ""),
        (["storage"], "hung", "initramfs: root device not found"),
        ([], "hung", "initramfs: root device not found"),
        (None, "panic", "VFS: Unable to mount root fs on unknown-block(0,0)"),
    ],
)
def test_what_the_initramfs_holds_decides(make_guest: Any, fake_hba: Any, initrd: Any, state: Any, reason: Any) -> None:
    _, outcome = boot(make_guest, fake_hba, MODULES, initrd=initrd)
    assert (outcome.state, outcome.reason) == (state, reason)


def test_modules_that_the_initramfs_lacks_come_from_the_root(make_guest: Any, fake_hba: Any) -> None:
    guest, outcome = boot(make_guest, fake_hba, {**MODULES, "CHR_DEV_SG": "m"}, initrd=["storage", "sd_mod"])
    assert outcome.state == "up"
    assert guest.kernel.module.loaded_order == ["scsi_mod", "storage", "sd_mod", "sg"]


def test_the_generic_driver_is_never_more_than_the_scsi_core(make_guest: Any, fake_hba: Any) -> None:
    # What olddefconfig makes of CHR_DEV_SG=y with SCSI=m, or with SCSI=n, where the file alone would not link.
    guest, outcome = boot(make_guest, fake_hba, {**MODULES, "CHR_DEV_SG": "y"})
    assert outcome.state == "up"
    assert "sg" in guest.kernel.module.loaded_order
    for core, wanted, state in (("n", "y", "n"), ("m", "y", "m"), ("y", "m", "m"), ("y", "y", "y"), ("y", "n", "n")):
        kernel = make_guest(config={"SCSI": core, "CHR_DEV_SG": wanted}).kernel
        assert kernel.built(next(obj for obj in kernel.objects if obj.name == "sg")) == state


def test_without_blk_dev_initrd_there_is_no_initramfs(make_guest: Any, fake_hba: Any) -> None:
    _, outcome = boot(make_guest, fake_hba, {**MODULES, "BLK_DEV_INITRD": "n"})
    assert outcome.state == "panic"


def test_a_wrong_initrd_is_named(make_guest: Any) -> None:
    with pytest.raises(ValueError, match="initrd is 'some'"):
        make_guest(initrd="some")


@pytest.mark.parametrize(
    ("line", "state"),
    [
        (b"root=/dev/sda1", "up"),
        (b"root=/dev/sda", "up"),
        (b"root=PARTUUID=12345678-01", "up"),
        (b"root=UUID=0123", "up"),
        (b"root=/dev/sdb1", "panic"),
        (b"root=PARTUUID=87654321-01", "panic"),
    ],
)
def test_root_is_found_by_name_and_partuuid(make_guest: Any, fake_hba: Any, line: Any, state: Any) -> None:
    assert boot(make_guest, fake_hba, BUILT_IN, command_line=line)[1].state == state


def test_a_root_that_cannot_be_read_is_no_root(make_guest: Any, fake_hba: Any) -> None:
    guest = make_guest(up=False, config=BUILT_IN)
    storage(guest, fake_hba, {(0, 0, 0): disk_with_table()})
    read = guest.kernel.block.read

    def failing(disk: Any, sector: Any, count: Any) -> Any:
        if count == 1:
            from hvkernel.api.guest.block import BlockError

            raise BlockError(5, "no")
        return read(disk, sector, count)

    guest.kernel.block.read = failing
    outcome = guest.kernel.boot(10**9)
    assert outcome.state == "panic"
    assert "0800            1024 sda  driver: sd" in guest.lines


def test_panic_tells_notifiers_and_dumpers_and_stops_the_others(make_guest: Any) -> None:
    guest = make_guest(3)
    k = guest.kernel
    told: Any = []
    k.notifier.panic_notifier_list.register(NotifierBlock(lambda a, text: told.append(text) and None))
    k.reboot.kmsg_dump_register(lambda reason: told.append(reason))
    guest.machine.spawn(k.guard, k.reboot.panic, "test", name="p", vp=k.cpus.cpus[1].vp)
    outcome = k.run(10**8)
    assert (outcome.state, outcome.reason) == ("panic", "test")
    assert told == ["test", 1]
    guest.machine.run(limit=10**6)
    assert [c.online for c in k.cpus.cpus] == [False, True, False]


@pytest.mark.parametrize(
    ("line", "last", "ended"),
    [
        (b"panic=-1", "Kernel panic - not syncing: x", "restart"),
        (b"panic=5", "Rebooting in 5 seconds..", "restart"),
        (b"panic=0", "---[ end Kernel panic - not syncing: x ]---", ""),
    ],
)
def test_panic_restarts_as_told(make_guest: Any, line: bytes, last: str, ended: str) -> None:
    guest = make_guest(command_line=line, config={"PANIC_TIMEOUT": "7"})
    k = guest.kernel
    k.reboot.setup()
    guest.machine.spawn(k.guard, k.reboot.panic, "x", name="p")
    assert k.run(10**9).state == "panic"
    guest.machine.run(limit=10**8)
    assert guest.lines[-1] == last
    assert k.reboot.ended == ended
    assert k.outcome.state == "panic"


def test_a_fault_in_a_task_is_an_oops_that_ends_only_the_task(make_guest: Any) -> None:
    guest = make_guest()
    k = guest.kernel
    told: Any = []
    k.notifier.die_chain.register(NotifierBlock(lambda a, fault: told.append(type(fault)) and None))
    guest.call(lambda: k.mm.memory.load32(1 << 38))
    assert told == [PageFault]
    assert guest.findings == ["oops"]
    assert "test arch: no such address: 0000004000000000" in guest.lines
    assert guest.call(k.cpus.smp_processor_id) == 0


def test_a_fault_in_an_interrupt_is_a_panic(make_guest: Any) -> None:
    guest = make_guest()
    k = guest.kernel
    k.irq.sysvec_install(0x40, lambda: k.mm.memory.load32(1 << 38), "t")

    def body() -> None:
        guest.machine.current_vp.raise_irq(0x40)
        guest.machine.preempt()

    guest.machine.spawn(k.guard, body, name="b", vp=k.cpus.cpus[0].vp)
    assert k.run(10**8).reason == "Fatal exception in interrupt"


def test_panic_on_oops(make_guest: Any) -> None:
    guest = make_guest()
    guest.kernel.reboot.panic_on_oops = True
    guest.machine.spawn(guest.kernel.guard, guest.kernel.mm.memory.load32, 1 << 38, name="b")
    assert guest.kernel.run(10**8).reason == "Fatal exception"


def test_the_boot_thread_must_not_die(make_guest: Any) -> None:
    guest = make_guest(up=False, config=BUILT_IN)
    k = guest.kernel
    k.initcall.add("device", "drivers/x/x.o", lambda: k.mm.memory.load32(1 << 38), "bad_init")
    assert k.boot(10**9).reason == "Attempted to kill init! exitcode=0x00000009"


def test_a_boot_in_which_nothing_can_run_is_hung(make_guest: Any) -> None:
    guest = make_guest(up=False, config=BUILT_IN)
    k = guest.kernel
    k.initcall.add(
        "device", "drivers/x/x.o", lambda: k.sched.wait_for_completion(k.sched.init_completion()), "stuck_init"
    )
    outcome = k.boot(10**9)
    assert outcome.state == "hung"
    assert outcome.reason == "initcalls: nothing can run; waiting: swapper/0"


@pytest.mark.parametrize(
    ("how", "state", "line"),
    [
        ("orderly_poweroff", "power_off", "reboot: Power down"),
        ("orderly_reboot", "restart", "reboot: Restarting system"),
    ],
)
def test_an_orderly_end_follows_up(make_guest: Any, fake_hba: Any, how: Any, state: Any, line: Any) -> None:
    guest, outcome = boot(make_guest, fake_hba, BUILT_IN)
    assert outcome.state == "up"
    k = guest.kernel
    told: Any = []
    k.notifier.reboot_notifier_list.register(NotifierBlock(lambda a, d: told.append(a) and None))
    guest.call(getattr(k.reboot, how))
    guest.machine.run(lambda: k.outcome.state != "up", 10**8)
    assert k.outcome.state == state
    assert told
    assert guest.lines[-2:] == ["sd 0:0:0:0: [sda] Synchronizing SCSI cache", line]


def test_two_boots_of_one_seed_are_the_same_and_two_interleaved_do_not_meet(make_guest: Any, fake_hba: Any) -> None:
    alone, _ = boot(make_guest, fake_hba, MODULES, policy="random:3")
    want = [tuple(line) for line in alone.kernel.printk.log]
    again, _ = boot(make_guest, fake_hba, MODULES, policy="random:3")
    assert [tuple(line) for line in again.kernel.printk.log] == want
    pair: Any = []
    for _ in range(2):
        guest = make_guest(up=False, config=MODULES, policy="random:3")
        storage(guest, fake_hba, {(0, 0, 0): disk_with_table()})
        guest.kernel.start()
        pair.append(guest)
    while any(g.kernel.outcome is None for g in pair):
        for g in pair:
            if g.kernel.outcome is None:
                g.machine.run(lambda g=g: g.kernel.outcome is not None, steps=40)
    assert [[tuple(line) for line in g.kernel.printk.log] for g in pair] == [want, want]


@pytest.mark.parametrize("seed", range(50))
def test_every_schedule_comes_up_with_the_same_modules(make_guest: Any, fake_hba: Any, seed: Any) -> None:
    guest, outcome = boot(make_guest, fake_hba, MODULES, policy=f"random:{seed}", ram=8 * MIB)
    assert outcome.state == "up"
    assert guest.kernel.module.loaded_order == ["scsi_mod", "storage", "sd_mod"]
    assert guest.findings == []
