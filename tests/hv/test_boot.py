"""drivers/hv and the guest halves of both architectures against the real modelled host, from the first line on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hvkernel.abi.vmbus import VmbusChannelMessageType
from hvkernel.api.guest.hyperv import HvCommon, HvDriver, Vmbus
from hvkernel.api.guest.mm import Page
from hvkernel.boot.request import BootRequest, default_config, read_request
from hvkernel.boot.session import Session, compose
from hvkernel.config.vm import VmConfig
from hvkernel.hv import vmbus_drv
from hvkernel.hv.exports import VmbusExports
from hvkernel.hv.hv_common import HvCommonObject
from hvkernel.hv.hyperv_vmbus import HvVmbus
from hvkernel.machine import GeneralProtectionFault, VpTopology
from hvkernel_x86.guest import X86Guest

if TYPE_CHECKING:
    from hvkernel.testing.guest import Guest, GuestHost

Compose = Callable[..., Session]
DMESG = Path(__file__).parents[1] / "data" / "dmesg"


def booted(session: Session) -> Session:
    session.boot()
    return session


def texts(session: Session) -> list[str]:
    return [line.text for line in session.kernel.printk.log]


def vmbus_lines(session: Session) -> list[str]:
    return [text for text in texts(session) if text.startswith("hv_vmbus: ") and "hv_mmio" not in text]


LADDER = {
    "ws2008r2": ((0x40001, 0x40000, 0x30000, 0x20004), None),
    "ws2012": ((0x40001, 0x40000, 0x30000, 0x20004), "2.4"),
    "ws2012r2": ((0x40001, 0x40000, 0x30000), "3.0"),
    "ws2016": ((0x40001, 0x40000), "4.0"),
    "ws2019": ((0x50003, 0x50002), "5.2"),
    "ws2022": ((0x50003,), "5.3"),
    "ws2025": ((0x50003,), "5.3"),
    "azure-gen1": ((0x40001, 0x40000), "4.0"),
    "azure-gen2": ((0x40001, 0x40000), "4.0"),
    "wsl2": ((0x50003, 0x50002), "5.2"),
}
"""What reaches the host's port, and what the kernel prints. Hosts before 5.0 have no connection 4, so that 5.3 to 5.0
end in HV_STATUS_INVALID_CONNECTION_ID and never reach it (drivers/hv/connection.c:vmbus_negotiate_version)."""


@pytest.mark.parametrize("host", LADDER)
def test_the_version_ladder(guest: Compose, host: str) -> None:
    session = booted(guest(host=host))
    requests, version = LADDER[host]
    assert tuple(session.server.requests) == requests
    first = vmbus_lines(session)[0]
    if version is None:
        assert first == "hv_vmbus: Unable to connect to host"
        return
    assert first == f"hv_vmbus: Vmbus version:{version}"
    major, minor = version.split(".")
    assert session.kernel.symbol(Vmbus).vmbus_proto_version == int(major) << 16 | int(minor)


EARLY = ("Hypervisor detected", "Hyper-V: ", "clocksource: hyperv_clocksource", "tsc: ", "Booting paravirtualized")


def hyperv_lines(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith(EARLY)]


def test_early_lines_are_those_of_log_01(guest: Compose) -> None:
    log = [line.split("] ", 1)[1] for line in (DMESG / "01-azure-gen2.txt").read_text().splitlines() if "] " in line]
    wanted = hyperv_lines([line.strip() for line in log])
    assert len(wanted) == 13
    assert hyperv_lines(texts(booted(guest(host="azure-gen2")))) == wanted


def test_an_invariant_tsc_takes_over(guest: Compose) -> None:
    lines = texts(booted(guest(host="ws2022")))
    assert not any("Marking TSC unstable" in line for line in lines)
    order = [
        next(i for i, line in enumerate(lines) if line.startswith(start))
        for start in (
            "Hyper-V: Nested features: 0x4a0000",
            "Hyper-V: LAPIC Timer Frequency: 0xc3500",
            "clocksource: hyperv_clocksource_tsc_page: ",
            "clocksource: tsc-early: mask: 0xffffffffffffffff max_cycles: ",
            "clocksource: Switched to clocksource tsc-early",
            "clocksource: tsc: mask: 0xffffffffffffffff max_cycles: ",
        )
    ]
    order.append(lines.index("clocksource: Switched to clocksource tsc"))
    assert order == sorted(order)


def test_arm64_lines_in_the_kernel_s_order(guest: Compose) -> None:
    session = booted(guest(arch="arm64"))
    lines = texts(session)
    starts = (
        "arch_timer: cp15 timer(s) running at 25.00MHz (virt).",
        "Hyper-V: privilege flags low 0x",
        "Hyper-V: Host Build 10.0.",
        "Hyper-V: enabling crash_kexec_post_notifiers",
        "smp: Bringing up secondary CPUs ...",
        "hv_vmbus: Vmbus version:5.3",
    )
    order = [next(i for i, line in enumerate(lines) if line.startswith(start)) for start in starts]
    assert order == sorted(order)
    assert "hv_vmbus: No ACPI _CCA found; assuming coherent device I/O" in lines
    assert not any(line.startswith(("clocksource: hyperv", "Hyper-V: PV", "Hyper-V: Using")) for line in lines)


@pytest.mark.hv_matrix(arch="arm64", page_size=["4K", "16K", "64K"])
def test_every_page_size_connects(hv_guest: Guest) -> None:
    assert {"4K": 4096, "16K": 16384, "64K": 65536}[hv_guest.values["page_size"]] == hv_guest.kernel.mm.PAGE_SIZE
    assert "hv_vmbus: Vmbus version:5.3" in hv_guest.dmesg


def test_a_32_bit_guest_prints_no_line_of_the_64_bit_files(guest: Compose) -> None:
    session = booted(guest(bits=32, host="ws2022/gen1"))
    lines = texts(session)
    assert vmbus_lines(session)[0] == "hv_vmbus: Vmbus version:5.3"
    assert "Hyper-V: Using hypercall for remote TLB flush" in lines
    assert not any("PV spinlocks" in line or "IPI hypercalls" in line or "enlightened" in line for line in lines)
    # resource_size_t has 32 bits: the window above 4 GiB folds into the space below, and ends at the vTPM too
    assert [line for line in lines if "hv_mmio" in line] == [
        "hv_vmbus: hv_mmio=[mem 0xf8000000-0xfed3ffff],[mem 0xc0000000-0xfed3ffff] fb=[mem 0xf8000000-0xfbffffff]"
    ]


def test_vp_indexes_are_learnt_from_the_processors() -> None:
    vps = [VpTopology(2, 7), VpTopology(0, 3), VpTopology(1, 12)]
    session = compose(read_request(cpus=3), vps=vps)
    assert isinstance(session, Session)
    with session:
        session.boot()
        common = session.kernel.symbol(HvCommon)
        by_hw_id = {vp.hw_id: vp.vp_index for vp in vps}
        cpus = session.kernel.cpus
        assert list(common.hv_vp_index) == [by_hw_id[cpus.cpu(n).hw_id] for n in range(3)]
        assert common.hv_vp_index[0] == 2
        assert common.hv_max_vp_index == 2


def test_the_hypercall_page_cannot_be_written(guest: Compose) -> None:
    session = booted(guest())
    arch = session.kernel.arch
    assert isinstance(arch, X86Guest)
    page = arch.state.hv_hypercall_pg
    assert page is not None
    before = session.machine.memory.guest.read(page.gpa, 4096)
    with pytest.raises(GeneralProtectionFault, match=r"write to gpa .* read-only overlay 'hypercall page'"):
        session.call(session.kernel.mm.memory.write, page.gpa, b"\x90")
    assert session.machine.memory.guest.read(page.gpa, 4096) == before


def panic(session: Session, text: str, seconds: int = 1) -> None:
    kernel = session.kernel
    kernel.spawn(kernel.reboot.panic, text, name="crash")
    session.machine.run(limit=seconds * 10_000_000)
    assert kernel.outcome is not None
    assert (kernel.outcome.state, kernel.outcome.reason) == ("panic", text)


def test_unload_on_panic_leaves_nothing_behind(guest: Compose) -> None:
    session = booted(guest(host="ws2022"))
    kernel = session.kernel
    assert kernel.outcome is not None
    assert kernel.outcome.state == "up"
    assert session.server.state.name == "OFFERED"
    panic(session, "test")
    assert session.server.state.name == "DISCONNECTED"
    assert [entry for entry in session.machine.ledger.entries() if entry.via.startswith("gpadl")] == []


@pytest.mark.parametrize(
    ("nth", "text"),
    [
        (1, "Unable to allocate SYNIC message page"),
        (2, "Unable to allocate SYNIC event page"),
        (3, "Unable to allocate post msg page"),
        (4, "Unable to connect to host"),
        (5, "Unable to connect to host"),
        (6, "Unable to connect to host"),
        (7, "Vmbus version:5.3"),
    ],
)
def test_a_start_that_runs_out_of_memory_gives_every_page_back(
    guest: Compose, monkeypatch: pytest.MonkeyPatch, nth: int, text: str
) -> None:
    session = guest(host="ws2022", cpus=1)
    mm = session.kernel.mm
    alloc, free, start = mm.alloc_pages, mm.free_pages, vmbus_drv.vmbus_bus_init
    held: dict[int, Page] = {}
    calls: list[int] = []
    results: list[int] = []

    def alloc_pages(order: int = 0, **how: Any) -> Page | None:
        calls.append(order)
        if len(calls) == nth:
            return None
        page = alloc(order, **how)
        assert page is not None
        held[page.gpa] = page
        return page

    def free_pages(page: Page) -> None:
        held.pop(page.gpa, None)
        free(page)

    def vmbus_bus_init(v: HvVmbus) -> int:
        with monkeypatch.context() as patch:
            patch.setattr(mm, "alloc_pages", alloc_pages)
            patch.setattr(mm, "free_pages", free_pages)
            results.append(start(v))
        return results[0]

    monkeypatch.setattr(vmbus_drv, "vmbus_bus_init", vmbus_bus_init)
    booted(session)
    assert vmbus_lines(session)[0] == f"hv_vmbus: {text}"
    whole = text.startswith("Vmbus version")
    assert (results[0] == 0) == whole
    shared = [entry.via for entry in session.machine.ledger.entries() if entry.via in ("simp", "siefp", "monitor")]
    assert (bool(held), bool(shared)) == (whole, whole)
    if not whole:
        assert results == [-12]
        assert len(calls) >= nth
        assert "hv_vmbus: registering driver hv_storvsc" in texts(session), "printed also where there is no bus"


def test_a_panic_waits_100_seconds_for_a_host_that_does_not_unload(guest: Compose) -> None:
    session = booted(guest(host="ws2022"))
    session.server.ignore(VmbusChannelMessageType.CHANNELMSG_UNLOAD)
    panic(session, "test", 120)
    log = session.kernel.printk.log
    first = next(n for n, line in enumerate(log) if line.text == "hv_vmbus: Waiting for VMBus UNLOAD to complete")
    assert [line.text for line in log[first : first + 21]] == [
        *["hv_vmbus: Waiting for VMBus UNLOAD to complete"] * 20,
        "hv_vmbus: Continuing even though VMBus UNLOAD did not complete",
    ]
    assert {(int(line.level), line.text.split()[1]) for line in log[first : first + 21]} == {
        (5, "Waiting"),
        (3, "Continuing"),
    }
    # the log's times are nanoseconds: 5 s from one to the next; every 10 ms the pages of all processors are read
    steps = [(log[n + 1].t - log[n].t) / 1e9 for n in range(first, first + 20)]
    assert all(5 <= step < 5.1 for step in steps[:-1])
    assert 0.01 <= steps[-1] < 0.011, "after the last round only its own delay"


def test_a_panic_tells_the_host_the_log_s_end(guest: Compose) -> None:
    session = booted(guest(host="azure-gen2"))
    panic(session, "what the host shall read")
    crash = [finding.text for finding in session.machine.findings if finding.kind == "guest-crash"]
    assert len(crash) == 1
    numbers = [int(word, 16) for word in crash[0].split(": ")[1].split(", ")]
    assert numbers[:3] == [0, 0, 0]
    page, size = numbers[3:5]
    lines = session.machine.memory.host.read(page, size).decode().splitlines()
    log = [line.render() for line in session.kernel.printk.log]
    first = log.index(lines[0])
    assert lines == log[first : first + len(lines)]
    assert any(line.endswith("Kernel panic - not syncing: what the host shall read") for line in lines)
    assert 3000 < size < 4096


def test_the_page_for_the_log_is_never_quite_full(guest: Compose) -> None:
    """kmsg_dump_get_buffer() looks for records of 4,095 bytes, not 4,096."""
    session = booted(guest(host="azure-gen2"))
    printk = session.kernel.printk
    stamp = len("[    0.000000] ")
    for _ in range(8):
        session.call(printk.pr_info, "x" * (512 - stamp - 1))
    assert [len(line.render()) for line in printk.log[-8:]] == [511] * 8
    common = session.kernel.symbol(HvCommon)
    assert isinstance(common, HvCommonObject)
    session.call(common.hv_kmsg_dump, 1)
    (crash,) = [finding.text for finding in session.machine.findings if finding.kind == "guest-crash"]
    assert int(crash.split(": ")[1].split(", ")[4], 16) == 7 * 512


@pytest.mark.parametrize(
    ("release", "build"),
    [
        ("5.15", "Hyper-V Host Build:20348-10.0-3-0.3020"),
        ("6.1", "Hyper-V: Host Build 10.0.20348.3020-3-0"),
        ("6.6", "Hyper-V: Host Build 10.0.20348.3020-3-0"),
        ("6.12", "Hyper-V: Host Build 10.0.20348.3020-3-0"),
        ("6.18", "Hyper-V: Host Build 10.0.20348.3020-3-0"),
    ],
)
def test_where_each_release_prints_the_host_s_build(guest: Compose, release: str, build: str) -> None:
    lines = texts(booted(guest(release=release, host="azure-gen2")))
    late = release in ("6.12", "6.18")
    before, after = ("APIC: Switch", "enabling crash_kexec") if late else ("privilege flags", "LAPIC Timer")
    at = lines.index(build)
    assert before in lines[at - 1]
    assert after in lines[at + 1]
    assert any(", ext 0, hints " in line for line in lines) == (release == "6.18")


@pytest.mark.parametrize(("release", "waits"), [("6.1", False), ("6.18", True)])
def test_newer_releases_have_their_devices_when_the_initcall_returns(
    guest: Compose, monkeypatch: pytest.MonkeyPatch, release: str, waits: bool
) -> None:
    found: list[int] = []
    real = vmbus_drv.hv_acpi_init

    def watched(v: HvVmbus) -> int:
        ret = real(v)
        found.append(sum(channel.probe_done for channel in v.connection.chn_list))
        return ret

    monkeypatch.setattr(vmbus_drv, "hv_acpi_init", watched)
    session = booted(guest(release=release))
    assert found == [len(session.server.devices) if waits else 0]


def test_a_register_that_is_not_announced_reads_as_zero_with_one_warning(guest: Compose) -> None:
    session = booted(guest(host="azure-gen2"))
    arch = session.kernel.arch
    tsc_invariant = 0x4000_0118
    for _ in range(2):
        assert session.call(arch.hv_get_register, tsc_invariant) == 0
        session.call(arch.hv_set_register, tsc_invariant, 1)
    warnings = [line for line in texts(session) if line.startswith("unchecked MSR access error")]
    assert warnings == [
        "unchecked MSR access error: RDMSR from 0x40000118",
        "unchecked MSR access error: WRMSR to 0x40000118 (tried to write 0x0000000000000001)",
    ]


def test_on_arm64_it_is_a_bug(guest: Compose) -> None:
    session = booted(guest(arch="arm64"))
    kernel = session.kernel
    kernel.spawn(kernel.arch.hv_get_register, 0x000F_FFFF, name="bad")
    session.machine.run(limit=10_000_000)
    assert any(line.startswith("kernel BUG at arch/arm64/hyperv/hv_core.c:114! ") for line in texts(session))
    assert kernel.outcome is not None
    assert kernel.outcome.state == "panic"


@pytest.mark.hv_matrix(arch=["x86", "arm64"], cpus=4, policy="random", seeds=8)
def test_every_schedule_comes_up(hv_guest: Guest) -> None:
    assert [finding for finding in hv_guest.findings if finding.side == "guest"] == []


def test_a_module_can_be_taken_out_and_nothing_stays_shared(guest: Compose) -> None:
    session = booted(guest(host="ws2022"))
    vmbus = session.kernel.symbol(Vmbus)
    assert isinstance(vmbus, VmbusExports)
    for driver in tuple(vmbus.v.hv_bus.drivers if vmbus.v.hv_bus is not None else ()):
        assert isinstance(driver, HvDriver)
        session.call(vmbus.vmbus_driver_unregister, driver)
    session.call(vmbus_drv.vmbus_exit, vmbus.v)
    assert session.server.state.name == "DISCONNECTED"
    via = {entry.via.split()[0] for entry in session.machine.ledger.entries()}
    assert via == {"reference", "vp", "hypercall"}, "what hyperv_init shares is not the module's"


def shared(guest: Guest) -> list[str]:
    return sorted({entry.via.split()[0] for entry in guest.machine.ledger.entries()})


@pytest.mark.hv_matrix(host=["ws2012r2/gen2", "ws2016/gen2", "ws2022/gen2", "azure-gen2/gen2"])
@pytest.mark.hv_guest(check=False)
def test_before_another_kernel_everything_goes_back(hv_guest: Guest, hv_host: GuestHost) -> None:
    assert shared(hv_guest) == ["gpadl", "hypercall", "monitor", "reference", "siefp", "simp", "vp"]
    hv_guest.call(hv_guest.kernel.arch.machine_shutdown, True)
    assert shared(hv_guest) == []
    assert hv_host.vmbus.state.name == "DISCONNECTED"


@pytest.mark.hv_matrix(host="ws2012/gen1")
@pytest.mark.hv_guest(check=False)
def test_a_host_without_unload_keeps_what_the_vmbus_shares(hv_guest: Guest) -> None:
    hv_guest.call(hv_guest.kernel.arch.machine_shutdown, True)
    assert shared(hv_guest) == ["gpadl", "monitor"], "VMBus 2.4 has no UNLOAD message"


def test_a_crash_takes_back_this_cpu_s_pages_only(guest: Compose) -> None:
    session = booted(guest(host="azure-gen2", cpus=4))
    session.call(session.kernel.arch.machine_crash_shutdown)
    left = list(session.machine.ledger.entries())
    assert {entry.via for entry in left} == {"simp", "siefp", "vp assist"}
    assert sorted({entry.cpu for entry in left if entry.via == "simp"}) == [1, 2, 3]


def many(cpus: int, extra: str) -> Session:
    text = default_config().replace("CONFIG_X86_X2APIC=y\n", extra or "CONFIG_X86_X2APIC=y\n")
    text += "CONFIG_NR_CPUS=1024\n"
    session = compose(BootRequest(config=text, vm=VmConfig(cpus=cpus, memory=4 << 30, host="azure-gen2")))
    assert isinstance(session, Session)
    return session


def test_ipis_beyond_64_vps_take_the_sparse_set() -> None:
    with many(130, "") as session:
        session.boot()
        kernel = session.kernel
        seen: list[int] = []
        before = session.machine.stats.hypercall
        targets = [0, 63, 64, 100, 129]
        session.call(
            lambda: kernel.cpus.smp_call_function_many(targets, lambda: seen.append(kernel.cpus.smp_processor_id()))
        )
        assert sorted(seen) == targets[1:], "the caller is not among those that are called"
        assert session.machine.stats.hypercall == before + 1


def test_processors_beyond_eight_bits_of_apic_id_need_x2apic() -> None:
    with many(300, "# CONFIG_X86_X2APIC is not set\n") as session:
        session.boot()
        assert session.kernel.cpus.num_online_cpus() == 255
        assert texts(session).count("ACPI: x2apic entry ignored") == 45
    with many(300, "") as session:
        session.boot()
        assert session.kernel.cpus.num_online_cpus() == 300
        assert "Hyper-V: Using enlightened APIC (x2apic mode)" in texts(session)
