"""What a booted guest does wrong at the hypervisor's door: the TLFS's answer, a finding, and a guest that goes on."""

from __future__ import annotations

from typing import Any

import pytest

from hvkernel.machine import GeneralProtectionFault, PageFault

X86 = "debian12-6.1.192-cloud-amd64"
ARM64 = "debian12-6.1.192-cloud-arm64"
POST = 0x5C
SIGNAL = 0x5D
SUCCESS, INVALID_ALIGNMENT, INVALID_CONNECTION_ID = 0, 4, 0x12


def spoil(session: Any, fn: Any, *args: Any) -> tuple[Any, list[str]]:
    """Do something in the guest; its value or fault, and the host's findings of it as ``kind: text``."""
    before = len(session.machine.findings)
    try:
        value = session.call(fn, *args)
    except (GeneralProtectionFault, PageFault) as fault:
        value = fault
    return value, [f"{f.kind}: {f.text}" for f in session.machine.findings[before:] if f.side == "host"]


def goes_on(session: Any) -> bool:
    """Whether the guest still reads its disk and is up."""
    block = session.kernel.block
    (disk,) = block.disks
    data = session.call(block.read, disk, 1, 1)
    return bytes(data[:8]) == b"EFI PART" and session.report().outcome == "up"


@pytest.mark.parametrize("name", [X86, ARM64])
def test_parameters_that_cannot_be(name: str, start: Any) -> None:
    """TLFS, "Alignment Requirements" and "Common Hypercall Status Codes"."""
    session = start(name, {"memory": "5G"})
    call, page = session.kernel.arch.hv_do_hypercall, session.call(session.kernel.mm.alloc_pages, 1)
    ram = session.machine.memory.ram
    hole = ram[0][0] + ram[0][1]
    assert len(ram) > 1
    beyond = ram[-1][0] + ram[-1][1]
    for gpa, why in (
        (page.gpa + 4, f"input GPA {page.gpa + 4:#x} is not aligned to 8 bytes"),
        (page.gpa + 0xF08, f"input of 256 bytes at GPA {page.gpa + 0xF08:#x} crosses a page"),
        (hole, f"memory intercept: input GPA {hole:#x} is not mapped"),
        (beyond, f"input GPA {beyond:#x} is beyond the GPA space"),
    ):
        status, (finding,) = spoil(session, call, POST, gpa, None)
        assert status == INVALID_ALIGNMENT
        assert finding.startswith("refused: ")
        assert finding.endswith(f"INVALID_ALIGNMENT: HvCallPostMessage: {why}")
    assert goes_on(session)


@pytest.mark.parametrize("name", [X86, ARM64])
def test_a_parameter_on_an_overlay_page(name: str, start: Any) -> None:
    """The TLFS leaves it open: the access is made, and a finding says so."""
    session = start(name)
    gpa = session.host.synic.vps[0].simp_page.hvpfn << 12
    session.machine.memory.guest.write(gpa + 0xE00, (0x777).to_bytes(4, "little") + bytes(4) + b"\1\0\0\0")
    status, findings = spoil(session, session.kernel.arch.hv_do_hypercall, POST, gpa + 0xE00, None)
    assert status == INVALID_CONNECTION_ID, "the input was read"
    assert findings[0] == f"undefined: hypercall input at GPA {gpa + 0xE00:#x} lies on the SIM page of VP 0"
    assert goes_on(session)


def test_writes_to_read_only_pages(start: Any) -> None:
    """#GP for the hypercall page (TLFS, "Establishing the Hypercall Interface"); the other page is as protected."""
    session = start(X86)
    memory = session.machine.memory
    for page, kind in (
        (session.host.registers.hypercall_page, GeneralProtectionFault),
        (session.host.timers.page, PageFault),
    ):
        gpa = page.hvpfn << 12
        before = memory.guest.read(gpa, 4096)
        fault, _ = spoil(session, session.kernel.mm.memory.write, gpa + 8, b"\xcc" * 8)
        assert isinstance(fault, kind)
        assert memory.guest.read(gpa, 4096) == before
    assert goes_on(session)


@pytest.mark.parametrize("name", [X86, ARM64])
def test_signals_in_vain_stop_the_guest_for_a_while(name: str, start: Any) -> None:
    """More than the budget, for a channel with nothing new in its ring: time passes, and the guest goes on."""
    session = start(name)
    limits = session.host.profile.throttle
    channel = next(channel for channel in session.server.by_relid.values() if channel.is_open)
    signal = session.kernel.arch.hv_do_fast_hypercall8

    def storm(count: int) -> int:
        before = session.machine.clock.now
        for _ in range(count):
            assert not signal(SIGNAL, channel.connection_id)
        return int(session.machine.clock.now - before)

    assert spoil(session, storm, limits.budget)[0] < limits.pause // 100
    took, findings = spoil(session, storm, 1)
    assert took >= limits.pause
    assert findings == [
        f"throttled: vmbus: more than {limits.budget} unnecessary signals within 1000 ms, the last one for {channel}; "
        "the guest is paused for 3000 ms"
    ]
    assert (channel.unnecessary, session.server.throttle.pauses) == (limits.budget + 1, 1)
    assert goes_on(session)
    assert channel.unnecessary == limits.budget + 1, "what the driver signals is necessary"
