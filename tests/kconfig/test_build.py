"""A real .config is a fixed point: each symbol comes out as written."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hvkernel.kconfig import Build

FACTS = [
    # name, release, arch, bits, page size, HZ
    ("alpine-virt.x86", "6.1", "x86", 32, 4096, 100),
    ("alpine-virt.x86_64", "6.1", "x86", 64, 4096, 100),
    ("arm64_defconfig_6.1", "6.1.5", "arm64", 64, 4096, 250),
    ("azurelinux3-64k-aarch64", "6.6.134.1", "arm64", 64, 65536, 250),
    ("azurelinux3-x86_64", "6.6.134.1", "x86", 64, 4096, 250),
    ("debian12-6.1.192-amd64", "6.1.192", "x86", 64, 4096, 250),
    ("debian12-6.1.192-arm64", "6.1.192", "arm64", 64, 4096, 250),
    ("debian12-6.1.192-cloud-amd64", "6.1.192", "x86", 64, 4096, 250),
    ("debian12-6.1.192-cloud-arm64", "6.1.192", "arm64", 64, 4096, 250),
    ("debian12bpo-6.12.117-arm64-16k", "6.12.117", "arm64", 64, 16384, 250),
    ("wsl2-5.15.54-Microsoft-config-wsl", "5.15.54", "x86", 64, 4096, 100),
    ("x86_64_defconfig_6.1", "6.1.5", "x86", 64, 4096, 1000),
]
DIFFERENT = {
    # The file names no symbol that 5.14 or 5.15 added: its header says 5.15.54, but an older kernel's make wrote the
    # list. olddefconfig of 5.15 adds these three at their defaults, and so do we.
    "wsl2-5.15.54-Microsoft-config-wsl": {
        "SYSFB": "None -> y",
        "NET_VENDOR_MICROSOFT": "None -> y",
        "PTP_1588_CLOCK_OPTIONAL": "None -> y",
    },
}
"""Symbols that do not come out as written, and why."""


@pytest.mark.parametrize(("name", "release", "arch", "bits", "page_size", "hz"), FACTS)
def test_facts_are_read_from_the_file(
    build_of: Callable[..., Build], name: str, release: str, arch: str, bits: int, page_size: int, hz: int
) -> None:
    build = build_of(name)
    assert (build.release, build.arch, build.bits, build.page_size, build.hz) == (release, arch, bits, page_size, hz)


@pytest.mark.parametrize("name", [facts[0] for facts in FACTS])
def test_a_real_config_is_a_fixed_point(build_of: Callable[..., Build], name: str) -> None:
    build = build_of(name)
    whole = build.whole
    changed = {}
    for symbol in build.modelled:
        written = build.wanted(symbol)
        if written is None and not (whole and build.value(symbol) in ("m", "y")):
            continue
        if (written or "n") != build.value(symbol):
            changed[symbol] = f"{written} -> {build.value(symbol)}"
    assert changed == DIFFERENT.get(name, {})
    assert build.lost() == ()
