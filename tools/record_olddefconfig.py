#!/usr/bin/env python3
"""Record what a kernel tree's own ``conf --olddefconfig`` makes of random overlays.

    tools/build_conf.sh TREE CONF
    tools/record_olddefconfig.py --tree TREE --conf CONF --release 6.1 --arch x86 --count 200

writes ``tests/data/olddefconfig/<release>-<arch>.json.gz``: for each base (a real config, or nothing at all) the values
of the modelled symbols after olddefconfig, and for each overlay (lines appended to the base) those that changed.
``tests/kconfig/test_olddefconfig.py`` evaluates the same overlays. With ``--always`` it writes the
``<arch>.always`` data instead: the outside selectors that come out the same from nothing at all, from
``allnoconfig`` and from both word sizes.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hvkernel.kconfig.configfile import parse_config
from hvkernel.kconfig.data import Data, load_data
from hvkernel.kconfig.reader import TRISTATE_TYPES, KconfigReader

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "tests" / "data" / "configs"
PLUGIN_SYMBOL = "HYPERV_STORAGE"
BASES = {
    ("5.15", "x86"): ["wsl2-5.15.54-Microsoft-config-wsl"],
    ("6.1", "x86"): [
        "debian12-6.1.192-amd64",
        "debian12-6.1.192-cloud-amd64",
        "x86_64_defconfig_6.1",
        "alpine-virt.x86",
        "alpine-virt.x86_64",
    ],
    ("6.1", "arm64"): ["debian12-6.1.192-arm64", "debian12-6.1.192-cloud-arm64", "arm64_defconfig_6.1"],
    ("6.6", "x86"): ["azurelinux3-x86_64"],
    ("6.6", "arm64"): ["azurelinux3-64k-aarch64"],
    ("6.12", "arm64"): ["debian12bpo-6.12.117-arm64-16k"],
}
"""The real configs of each release; where there is none, those of 6.1 serve (an upgrade by olddefconfig)."""


class Conf:
    """The kernel's own reader on one tree.

    :param tree: a kernel tree; its Kconfig files and ``scripts`` will do.
    :param conf: what ``tools/build_conf.sh`` made of it.
    """

    def __init__(self, tree: Path, conf: Path, release: str, arch: str) -> None:
        self.tree = tree
        self.binary = str(conf / "conf_many")
        cc = str(conf / "cc")
        self.env = {
            **dict.fromkeys(["CC", "LD", "HOSTCC", "HOSTCXX", "NM", "AR", "OBJCOPY"], cc),
            "PATH": os.environ["PATH"],
            "srctree": ".",
            "SRCARCH": arch,
            "ARCH": arch,
            "KERNELVERSION": release,
            "PAHOLE": "absent",
            "PAHOLE_VERSION": "0",
            "RUSTC": "absent",
            "BINDGEN": "absent",
            "CC_VERSION_TEXT": "gcc 14.2.0",
            "RUSTC_VERSION_TEXT": "",
            "CONFIG_SHELL": "sh",
        }

    def run(self, texts: Sequence[str], mode: str = "--olddefconfig") -> list[dict[str, str]]:
        """Return the values that ``conf`` writes for each text."""
        with tempfile.TemporaryDirectory() as directory:
            paths = [Path(directory) / f"{number}.config" for number in range(len(texts))]
            for path, text in zip(paths, texts, strict=True):
                path.write_text(text, encoding="utf-8")
            subprocess.run(
                [self.binary, mode, "Kconfig"],
                cwd=self.tree,
                env=self.env,
                input="".join(f"{path}\n" for path in paths),
                text=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=True,
            )
            return [parse_config(path.read_text(encoding="utf-8"), name=str(path)).values for path in paths]

    def run_alone(self, text: str, mode: str) -> dict[str, str]:
        """Return the values that ``conf`` writes for one text in a mode that conf_many does not know."""
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / ".config"
            path.write_text(text, encoding="utf-8")
            subprocess.run(
                [self.binary.removesuffix("_many"), mode, "Kconfig"],
                cwd=self.tree,
                env={**self.env, "KCONFIG_CONFIG": str(path)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=True,
            )
            return parse_config(path.read_text(encoding="utf-8"), name=str(path)).values


def modelled(data: Data) -> tuple[list[str], list[str], dict[str, tuple[str, ...]]]:
    """Kept symbols, outside selectors, and the values that a prompt of a kept one takes."""
    kconf = KconfigReader({"data": data.text}, "data")
    kept, outside = [PLUGIN_SYMBOL], []
    prompts: dict[str, tuple[str, ...]] = {PLUGIN_SYMBOL: ("n", "m", "y")}
    for symbol in kconf.unique_defined_syms:
        if symbol.nodes[0].linenr >= data.outside_line:
            outside.append(symbol.name)
            continue
        if symbol.orig_type not in TRISTATE_TYPES:
            continue
        plain = re.match(r"(CC|AS|LD|LLD|CLANG|GCC)_", symbol.name)
        if plain:
            continue
        kept.append(symbol.name)
        if any(node.prompt for node in symbol.nodes) and symbol.name != "CPU_BIG_ENDIAN":
            prompts[symbol.name] = ("n", "m", "y") if symbol.orig_type is TRISTATE_TYPES[1] else ("n", "y")
    return kept, outside, prompts


def lines(overlay: dict[str, str]) -> str:
    """An overlay as the lines of a fragment."""
    return "".join(
        f"# CONFIG_{name} is not set\n" if value == "n" else f"CONFIG_{name}={value}\n"
        for name, value in overlay.items()
    )


def near(names: list[str]) -> list[str]:
    """The symbols that matter most, drawn more often."""
    pattern = re.compile(
        r"HYPERV|^(ACPI|PCI|PCI_MSI|SCSI|SCSI_LOWLEVEL|SCSI_FC_ATTRS|BLK_DEV_SD|NET|NETDEVICES|ETHERNET|CONNECTOR|NLS|HID"
        r"|INPUT|SERIO|FB|DRM|UIO|VSOCKETS|MODULES|EFI|SMP|64BIT|DEBUG_FS|IOMMU_SUPPORT|PTP_1588_CLOCK|ATA|BLOCK|EXPERT)$"
    )
    return [name for name in names if pattern.search(name)]


def record(conf: Conf, release: str, arch: str, count: int, seed: int) -> dict[str, object]:
    kept, _, prompts = modelled(load_data(release, arch))
    rng = random.Random(f"{seed} {release} {arch}")
    names = BASES.get((release, arch)) or BASES[("6.1", arch)]
    texts = {name: gzip.decompress((CONFIGS / f"{name}.config.gz").read_bytes()).decode() for name in names}
    texts[""] = ""
    overlays = []
    symbols, often = list(prompts), near(list(prompts))
    for _ in range(count):
        base = rng.choice([*names, *names, ""])
        wanted = rng.randint(1, 6) if base else rng.randint(4, 40)
        overlay = {}
        for _ in range(wanted):
            symbol = rng.choice(often if rng.random() < 0.75 else symbols)
            values = prompts[symbol]
            overlay[symbol] = rng.choice(values if base else (*values, values[-1], values[-1]))
        overlays.append((base, overlay))
    results = conf.run([*texts.values(), *(texts[base] + lines(overlay) for base, overlay in overlays)])
    bases = {
        name: {symbol: values[symbol] for symbol in kept if values.get(symbol, "n") != "n"}
        for name, values in zip(texts, results, strict=False)
    }
    cases = []
    for (base, overlay), got in zip(overlays, results[len(texts) :], strict=True):
        before = bases[base]
        changed = {s: got.get(s, "n") for s in kept if got.get(s, "n") != before.get(s, "n")}
        cases.append([base, overlay, changed])
    return {"release": release, "arch": arch, "symbols": kept, "bases": bases, "cases": cases}


def always(conf: Conf, release: str, arch: str) -> str:
    """Outside selectors with a value of their own."""
    _, outside, _ = modelled(load_data(release, arch))
    runs = [conf.run_alone("", "--alldefconfig"), conf.run_alone("", "--allnoconfig")]
    if arch == "x86":
        runs += conf.run(["# CONFIG_64BIT is not set\n"])
    common = {name: runs[0].get(name, "n") for name in outside}
    found = {n: v for n, v in common.items() if v != "n" and all(run.get(n, "n") == v for run in runs)}
    head = "# Selectors outside the closure that are on whatever is configured.\n"
    return head + lines(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", type=Path, required=True)
    parser.add_argument("--conf", type=Path, required=True)
    parser.add_argument("--release", required=True)
    parser.add_argument("--arch", choices=("x86", "arm64"), required=True)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--always", action="store_true")
    args = parser.parse_args()
    conf = Conf(args.tree.resolve(), args.conf.resolve(), args.release, args.arch)
    if args.always:
        out = ROOT / "hvkernel" / "kconfig" / "data" / args.release / f"{args.arch}.always"
        out.write_text(always(conf, args.release, args.arch), encoding="utf-8")
        return
    out = ROOT / "tests" / "data" / "olddefconfig" / f"{args.release}-{args.arch}.json.gz"
    out.parent.mkdir(parents=True, exist_ok=True)
    table = record(conf, args.release, args.arch, args.count, args.seed)
    text = json.dumps(table, separators=(",", ":"), sort_keys=False)
    out.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


if __name__ == "__main__":
    main()
