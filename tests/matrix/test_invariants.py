"""Each built-in invariant, on evidence that is made up: it holds, and is broken by the one thing that it is about."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest

from hvkernel.api.matrix import Noticed, Reached, SeenChannel, SeenDevice
from hvkernel.matrix.invariants import BUILT_IN, TOLERATED

INVARIANTS = {one.name: one for one in BUILT_IN}
DEVICE = SeenDevice("scsi0", "g", "i", "hv_storvsc", "hv_storvsc", "m", "bound", "6.2")
CHANNEL = SeenChannel(4, True, 1)


SYNIC = (Reached(0x5000, 1, "simp"), Reached(0x6000, 1, "siefp"))


class X86:
    """Stands for an architecture."""

    name = "x86"


ONE = SimpleNamespace(num_online_cpus=lambda: 1)
"""Its processors."""


@dataclass
class Made:
    """Evidence, as healthy as it can be."""

    moment: str = "events"
    outcome: str = "up"
    reason: str = ""
    vmbus_version: int = 0x50003
    dmesg: tuple[str, ...] = ("hv_vmbus: Vmbus version:5.3", "sd 0:0:0:0: [sda] Write Protect is off")
    findings: tuple[Noticed, ...] = ()
    devices: tuple[SeenDevice, ...] = (DEVICE,)
    guest_channels: tuple[SeenChannel, ...] = (CHANNEL,)
    host_channels: tuple[SeenChannel, ...] = (CHANNEL,)
    gpadls: int = 1
    shares: tuple[Reached, ...] = SYNIC
    pages: dict[str, int] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)
    memory: dict[str, Any] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    kernel: Any = field(default_factory=lambda: SimpleNamespace(arch=X86(), cpus=ONE))


CLOSED = SeenChannel(4, False, None)
UNBOUND = Made("unbound", guest_channels=(CLOSED,), host_channels=(CLOSED,), gpadls=0)
ENDED = replace(UNBOUND, moment="ended", guest_channels=(), host_channels=(), shares=())


def wrong(name: str, evidence: Made) -> list[str]:
    invariant = INVARIANTS[name]
    assert evidence.moment in invariant.moments
    made: Any = replace(evidence, memory={})
    return list(invariant.check(made))


def noticed(kind: str, text: str) -> tuple[Noticed, ...]:
    return (Noticed(kind, "host", text, ("a (b.py)",)),)


@pytest.mark.parametrize("evidence", [Made(), UNBOUND, ENDED])
def test_health(evidence: Made) -> None:
    for name, invariant in INVARIANTS.items():
        if evidence.moment in invariant.moments:
            assert wrong(name, evidence) == [], name


@pytest.mark.parametrize(
    ("name", "evidence", "text"),
    [
        ("findings", Made(findings=noticed("refused", "it")), "refused: it (a (b.py))"),
        (
            "log",
            Made(dmesg=("WARNING: CPU: 1 PID: 0 at drivers/hv/x.c:1",)),
            "WARNING: CPU: 1 PID: 0 at drivers/hv/x.c:1",
        ),
        ("log", Made(dmesg=("BUG: unable to handle",)), "BUG: unable to handle"),
        ("log", Made(dmesg=("hv_x: probe of 1-2 failed with error -5",)), "hv_x: probe of 1-2 failed with error -5"),
        ("stays-up", Made(outcome="panic", reason="why"), "the guest was up and is panic: why"),
        (
            "devices-bound",
            Made(devices=(replace(DEVICE, driver=None, state="failed"),)),
            "scsi0 (hv_storvsc=m) is failed",
        ),
        (
            "devices-bound",
            Made(devices=(replace(DEVICE, built="n"),)),
            "scsi0 is bound to hv_storvsc, which is not built",
        ),
        (
            "driven",
            Made(devices=(replace(DEVICE, drives={"data": True, "more": False}),)),
            "scsi0 is bound to hv_storvsc, and drive more did not use it",
        ),
        ("channels-agree", Made(host_channels=()), "relid 4: only the guest has it"),
        ("channels-agree", Made(guest_channels=()), "relid 4: only the host has it"),
        ("channels-agree", Made(host_channels=(CLOSED,)), "relid 4: open in the guest, not open in the host"),
        (
            "channels-agree",
            Made(host_channels=(SeenChannel(4, True, 0),)),
            "relid 4: interrupts VP 0, the guest means VP 1",
        ),
        (
            "synic",
            Made(shares=(*SYNIC, SYNIC[0])),
            "2 processors share their SIMP page with the host, 1 are online",
        ),
        ("synic", Made(shares=SYNIC[:1]), "0 processors share their SIEFP page with the host, 1 are online"),
        (
            "channels-closed",
            replace(UNBOUND, guest_channels=(CHANNEL,)),
            "relid 4 is open in the guest, and no device has a driver",
        ),
        (
            "channels-closed",
            replace(UNBOUND, host_channels=(CHANNEL,)),
            "relid 4 is open in the host, and no device has a driver",
        ),
        ("channels-closed", replace(UNBOUND, gpadls=2), "the host has 2 GPADLs, and no device has a driver"),
        (
            "sharing",
            replace(UNBOUND, shares=(Reached(0x1000, 2, "gpadl 0xe1e10"),)),
            "the host still reaches 2 pages at 0x1000 via gpadl 0xe1e10",
        ),
        (
            "sharing",
            replace(ENDED, shares=(Reached(0x1000, 1, "hypercall page"),)),
            "the host still reaches 1 pages at 0x1000 via hypercall page",
        ),
        (
            "pages",
            replace(UNBOUND, pages={"probe:7 (hvkernel_x.vsc)": 3}),
            "3 allocations at probe:7 (hvkernel_x.vsc) were never freed",
        ),
        (
            "pages",
            replace(ENDED, pages={"hv_synic_alloc:9 (hvkernel.hv.hv)": 1}),
            "1 allocations at hv_synic_alloc:9 (hvkernel.hv.hv) were never freed",
        ),
        (
            "relids",
            replace(ENDED, host_channels=(CLOSED,)),
            "the guest has taken leave, and the host still counts relids 4 as taken",
        ),
    ],
)
def test_one_thing_wrong(name: str, evidence: Made, text: str) -> None:
    assert wrong(name, evidence) == [text]


def test_what_stays_by_design() -> None:
    bus = (Reached(0x1000, 1, "simp"), Reached(0x2000, 1, "monitor"))
    assert wrong("sharing", replace(UNBOUND, shares=bus)) == []
    assert len(wrong("sharing", replace(ENDED, shares=bus))) == 2
    pages = {"hv_synic_alloc:9 (hvkernel.hv.hv)": 4, "alloc:41 (hvkernel.hv.hyp_page)": 5}
    assert wrong("pages", replace(UNBOUND, pages=pages)) == []
    own = {"init:7 (hvkernel_x.vsc)": 2}
    assert wrong("pages", replace(UNBOUND, pages=own, kept=own)) == [], "a built-in driver's, from its init on"
    assert len(wrong("pages", replace(UNBOUND, pages=own, kept={"init:7 (hvkernel_x.vsc)": 1}))) == 1
    stays = replace(ENDED, pages=pages, guest_channels=(CLOSED,))
    assert wrong("pages", stays) == [], "hv_vmbus is built in"

    class Arm64:
        name = "arm64"

    other: Any = SimpleNamespace(arch=Arm64())
    at_its_end = replace(ENDED, shares=bus, guest_channels=(CLOSED,), host_channels=(CLOSED,), kernel=other)
    assert (wrong("sharing", at_its_end), wrong("relids", at_its_end)) == ([], [])


def test_hosts_before_3_0_are_not_told() -> None:
    old = replace(ENDED, vmbus_version=0x20004, shares=(Reached(0x1000, 1, "monitor"),), host_channels=(CLOSED,))
    assert (wrong("sharing", old), wrong("relids", old)) == ([], [])


def test_findings_and_lines_are_told_once() -> None:
    for name, evidence in (("findings", Made(findings=noticed("refused", "it"))), ("log", Made(dmesg=("BUG: it",)))):
        made: Any = evidence
        assert len(list(INVARIANTS[name].check(made))) == 1
        assert list(INVARIANTS[name].check(made)) == []


@pytest.mark.parametrize(
    ("evidence", "kind", "text"),
    [
        (Made(vmbus_version=0x40001), "refused", "VP 3: HvCallPostMessage: INVALID_CONNECTION_ID"),
        (Made(), "throttled", "vmbus: 16 messages wait already"),
        (ENDED, "ignored", "vmbus: RELID_RELEASED without a connection"),
        (Made(values={"events": "reload"}), "ignored", "vmbus: RELID_RELEASED without a connection"),
        (Made(values={"then": "reload"}), "ignored", "vmbus: RELID_RELEASED without a connection"),
        (Made(vmbus_version=0x20004), "free-of-shared-page", "BUG: Page(pfn=0x1) freed while the host (via monitor)"),
        (replace(ENDED), "refused", "VP 0 read REFERENCE_TSC: ACCESS_DENIED"),
        (Made(outcome="panic"), "guest-crash", "VP 0 reported a crash: 0x0"),
    ],
)
def test_tolerated(evidence: Made, kind: str, text: str) -> None:
    assert wrong("findings", replace(evidence, findings=noticed(kind, text))) == []


def test_what_is_tolerated_sometimes_is_not_always() -> None:
    for kind, text in (
        ("free-of-shared-page", "BUG: Page(pfn=0x1) freed while the host (via monitor)"),
        ("free-of-shared-page", "BUG: Page(pfn=0x1) freed while the host (via gpadl 0x1)"),
        ("refused", "VP 0 read REFERENCE_TSC: ACCESS_DENIED"),
        ("refused", "VP 3: HvCallPostMessage: INVALID_CONNECTION_ID"),
        ("ignored", "vmbus: RELID_RELEASED without a connection"),
        ("guest-crash", "VP 0 reported a crash: 0x0"),
    ):
        assert len(wrong("findings", Made(findings=noticed(kind, text)))) == 1
    assert all(why for _, _, why in TOLERATED)
