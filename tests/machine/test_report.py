"""Findings and call chains."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from hvkernel.machine import FirmwareTables, Machine
from hvkernel.machine.report import guest_module

Make = Callable[..., Machine]


@pytest.mark.parametrize(
    ("name", "guest"),
    [
        ("hvkernel.linux.mm", True),
        ("hvkernel.hv.channel_mgmt", True),
        ("hvkernel_storvsc.vsc", True),
        ("hvkernel_x86.guest", True),
        ("hvkernel_x86.guest_mshyperv", True),
        ("hvkernel_x86.guest.mmu", True),
        ("hvkernel_storvsc.vsp", False),
        ("hvkernel_x86.host", False),
        ("hvkernel.host.vmbus.server", False),
        ("hvkernel.machine.machine", False),
        ("hvkernel.api.guest.kernel", False),
        ("guest", False),
        ("json", False),
        ("", False),
    ],
)
def test_whose_code_a_module_is(name: str, guest: bool) -> None:
    assert guest_module(name) is guest


def _module(name: str, source: str, **names: Any) -> ModuleType:
    module = ModuleType(name)
    module.__dict__.update(names)
    exec(source, module.__dict__)
    return module


def test_a_finding_has_time_side_and_the_guests_call_chain(make: Make) -> None:
    machine = make()
    host = _module("hvkernel.host.hypercalls", "def refuse(): machine.report('refused', 'host', 'no')", machine=machine)
    driver = _module(
        "hvkernel.hv.channel",
        "def vmbus_close(): refuse()\ndef vmbus_free_ring(): vmbus_close()",
        refuse=host.refuse,
    )
    vsc = _module("hvkernel_storvsc.vsc", "def storvsc_remove(): (lambda: free())()", free=driver.vmbus_free_ring)
    arch = _module("hvkernel_x86.guest", "__path__ = []\ndef hv_shutdown(): remove()", remove=vsc.storvsc_remove)

    def body() -> None:
        machine.delay(123)
        arch.hv_shutdown()

    machine.call(body)
    (finding,) = machine.findings
    assert (finding.kind, finding.side, finding.text) == ("refused", "host", "no")
    assert finding.t == machine.clock.now
    assert finding.where == (
        "vmbus_close (hvkernel/hv/channel.py)",
        "vmbus_free_ring (hvkernel/hv/channel.py)",
        "storvsc_remove (hvkernel_storvsc/vsc.py)",
        "hv_shutdown (hvkernel_x86/guest/__init__.py)",
    )
    assert machine.guest_call_chain() == ()


def test_a_chain_can_be_given(make: Make) -> None:
    machine = make()
    assert machine.report("k", "guest", "t", where=("f (g.py)",)).where == ("f (g.py)",)


def test_firmware_tables_are_values() -> None:
    tables = FirmwareTables(memory_map=((0, 4096, 1),), rsdp=0xE0000, efi=True, command_line=b"ro")
    assert hash(tables) == hash(FirmwareTables(((0, 4096, 1),), 0xE0000, 0, True, (0, 0), b"ro"))
    with pytest.raises(AttributeError):
        tables.rsdp = 5  # type: ignore[misc]
