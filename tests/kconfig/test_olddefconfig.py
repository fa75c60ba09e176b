"""Random overlays come out as the kernel's own conf makes them (tables by tools/record_olddefconfig.py)."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hvkernel.kconfig import KconfigTrees, evaluate, parse_config
from hvkernel.kconfig.data import ARCHES, RELEASES

TABLES = [f"{release}-{arch}" for release in RELEASES for arch in ARCHES]
KNOWN = {
    # FB switched on in a whole .config turns DRM_FBDEV_EMULATION on by its default. It is a selector from outside that
    # the file does not name, and for a whole file that means n here.
    ("6.1-x86", "x86_64_defconfig_6.1"): {"FB_CFB_FILLRECT", "FB_CFB_COPYAREA", "FB_CFB_IMAGEBLIT", "FB_DEFERRED_IO"},
    # Likewise DRM switched on in a whole .config: DRM_AUX_BRIDGE is on by default.
    ("6.18-arm64", "debian12-6.1.192-cloud-arm64"): {"DRM_KMS_HELPER"},
    ("7.0-arm64", "debian12-6.1.192-cloud-arm64"): {"DRM_KMS_HELPER"},
    ("7.1-arm64", "debian12-6.1.192-cloud-arm64"): {"DRM_KMS_HELPER"},
    # And in 6.19, GPIO_SHARED, which a .config of 6.1 cannot name.
    ("6.19-arm64", "debian12-6.1.192-cloud-arm64"): {"DRM_KMS_HELPER", "AUXILIARY_BUS"},
}
"""Table and base to symbols that may differ, with the reason."""


@pytest.mark.parametrize("table", TABLES)
def test_overlays_come_out_as_olddefconfig_makes_them(
    table: str, config_text: Callable[[str], str], storvsc_kconfig: Callable[[str], dict[str, str]], data_dir: Path
) -> None:
    recorded = json.loads(gzip.decompress((data_dir / "olddefconfig" / f"{table}.json.gz").read_bytes()))
    release, arch, bases = recorded["release"], recorded["arch"], recorded["bases"]
    texts = {name: config_text(name) if name else "# nothing\n" for name in bases}
    symbols = recorded["symbols"]
    parsed = {name: parse_config(text + "# CONFIG_UNUSED is not set\n", name=name) for name, text in texts.items()}
    plugins = storvsc_kconfig(release)
    trees = KconfigTrees()
    wrong: list[str] = []
    for base, overlay, changed in [*([name, {}, {}] for name in bases if name), *recorded["cases"]]:
        wanted = {**bases[base], **changed}
        file = parsed[base]
        known = KNOWN.get((table, base), set())
        numbers = {name: len(file.lines) + 99_999 + i for i, name in enumerate(overlay)}
        gone = {name: file.lines[name] for name, value in overlay.items() if file.values.get(name) == "y" != value}
        file = replace(file, values={**file.values, **overlay}, lines={**file.lines, **numbers}, withdrawn=gone)
        build = evaluate(file, arch=arch, release=release, plugin_kconfigs=plugins, trees=trees)
        differing = {
            symbol: (wanted.get(symbol, "n"), build.value(symbol))
            for symbol in symbols
            if wanted.get(symbol, "n") != build.value(symbol) and symbol not in known
        }
        if differing:
            wrong.append(f"{base or 'nothing'} + {overlay}: conf and ours differ in {differing}")
    assert wrong == []
