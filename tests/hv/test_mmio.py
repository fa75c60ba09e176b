"""The windows of drivers/hv/vmbus_drv.c where addresses are short, without a guest around them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from hvkernel.api.guest.device import Resource
from hvkernel.hv.mmio import vmbus_reserve_fb, vmbus_walk_resources


def vmbus(bits: int, pae: bool) -> Any:
    lines: list[str] = []
    return SimpleNamespace(
        arch=SimpleNamespace(bits=bits),
        kernel=SimpleNamespace(
            config=SimpleNamespace(y=lambda name: pae and name == "X86_PAE"),
            machine=SimpleNamespace(firmware=SimpleNamespace(efi=True, framebuffer=(0, 0))),
        ),
        hyperv_mmio=[],
        pr=SimpleNamespace(pr_warn=lines.append),
        lines=lines,
    )


@pytest.mark.parametrize(("bits", "pae", "wide"), [(64, False, True), (32, True, True), (32, False, False)])
def test_addresses_have_the_width_of_resource_size_t(bits: int, pae: bool, wide: bool) -> None:
    v = vmbus(bits, pae)
    device: Any = SimpleNamespace(crs=[SimpleNamespace(start=0xF_C000_0000, end=0xF_CFFF_FFFF)], crs_irqs=())
    vmbus_walk_resources(v, device)
    high = 0xF_0000_0000 if wide else 0
    assert [(one.start, one.end) for one in v.hyperv_mmio] == [(high | 0xC000_0000, high | 0xCFFF_FFFF)]


@pytest.mark.parametrize(("bits", "pae", "text"), [(64, False, "0" * 16), (32, True, "0" * 16), (32, False, "0" * 8)])
def test_a_low_window_at_zero_is_no_base(bits: int, pae: bool, text: str) -> None:
    v = vmbus(bits, pae)
    v.hyperv_mmio = [Resource(0, 0x0FFF_FFFF, "hyperv mmio", 0x200)]
    vmbus_reserve_fb(v)
    assert v.lines == [f"Unexpected low mmio base 0x{text}", "Unexpected framebuffer mmio base of zero"]
