"""The kernel's own conf, built here from Debian's source of Linux 6.1, beside the model.

Each case is a real configuration with seeded values of symbols of the Hyper-V graph at its end. ``conf --olddefconfig``
completes it, the model is given the same text, and every symbol that the Kconfig data know must come out alike.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from hvkernel.kconfig import KconfigTrees, evaluate
from hvkernel.kconfig.data import load_data

RELEASE = "6.1"
CASES = 100
SEED = 4


@pytest.mark.parametrize("arch", ["x86", "arm64"])
def test_olddefconfig_of_the_kernel_and_the_model_agree(
    arch: str,
    kernel_source: Path,
    conf: Path,
    recorder: ModuleType,
    config_text: Callable[[str], str],
    storvsc_kconfig: Callable[[str], dict[str, str]],
) -> None:
    symbols, _, prompts = recorder.modelled(load_data(RELEASE, arch))
    rng = random.Random(f"{SEED} {arch}")
    names, often = recorder.BASES[(RELEASE, arch)], recorder.near(list(prompts))
    texts = []
    for _ in range(CASES):
        drawn = [rng.choice(often if rng.random() < 0.75 else list(prompts)) for _ in range(rng.randint(1, 6))]
        overlay = {symbol: rng.choice(prompts[symbol]) for symbol in drawn}
        texts.append((rng.choice(names), recorder.lines(overlay)))
    kernel = recorder.Conf(kernel_source, conf, RELEASE, arch)
    completed = kernel.run([config_text(name) + overlay for name, overlay in texts])
    assert kernel.run_alone(config_text(texts[0][0]) + texts[0][1], "--olddefconfig") == completed[0]
    trees, plugins = KconfigTrees(), storvsc_kconfig(RELEASE)
    wrong = []
    for (name, overlay), wanted in zip(texts, completed, strict=True):
        build = evaluate(config_text(name) + overlay, arch=arch, release=RELEASE, plugin_kconfigs=plugins, trees=trees)
        differing = {
            symbol: (wanted.get(symbol, "n"), build.value(symbol))
            for symbol in symbols
            if wanted.get(symbol, "n") != build.value(symbol)
        }
        if differing:
            wrong.append(f"{name} + {overlay.split(chr(10))}: conf and ours differ in {differing}")
    assert wrong == []
