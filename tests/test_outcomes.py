"""The model agrees with what was worked out by hand from the kernel's source, cell by cell."""

from __future__ import annotations

import gzip
import tomllib
from pathlib import Path
from typing import Any

import pytest

DATA = Path(__file__).resolve().parent / "data"
EXPECTED: dict[str, dict[str, dict[str, str]]] = tomllib.loads(
    (DATA / "expected-outcomes.toml").read_text(encoding="utf-8")
)
CELLS = [(config, vm) for config, row in EXPECTED.items() for vm in row]
OUTCOMES = ("up", "panic", "hung", "unsupported")


def test_every_config_has_every_host() -> None:
    from hvkernel.config import load_profile, profile_names

    vms = {f"{name}/gen{generation}" for name in profile_names() for generation in load_profile(name).generations}
    configs = {path.name.removesuffix(".config.gz") for path in (DATA / "configs").glob("*.config.gz")}
    assert set(EXPECTED) == configs
    assert all(set(row) == vms for row in EXPECTED.values())


@pytest.mark.parametrize(("config", "vm"), CELLS)
def test_every_cell_is_complete(config: str, vm: str) -> None:
    cell = EXPECTED[config][vm]
    assert cell["outcome"] in OUTCOMES
    assert cell["why"]
    assert ("reason" in cell) == (cell["outcome"] != "up")


@pytest.mark.parametrize("config", list(EXPECTED))
def test_the_model_agrees(config: str) -> None:
    from hvkernel.boot.request import BootRequest
    from hvkernel.boot.session import boot
    from hvkernel.config import VmConfig

    text = gzip.decompress((DATA / "configs" / f"{config}.config.gz").read_bytes()).decode()
    wrong: dict[str, Any] = {}
    for vm, cell in EXPECTED[config].items():
        host, generation = vm.split("/gen")
        report = boot(
            BootRequest(config=text, vm=VmConfig.model_validate({"host": host, "generation": int(generation)}))
        )
        assert not [note for note in report.notes if note.startswith("plugin ")]
        if report.outcome != cell["outcome"] or cell.get("reason", "") not in (report.reason or ""):
            wrong[vm] = f"expected {cell['outcome']} {cell.get('reason', '')!r}: got {report.outcome} {report.reason!r}"
    assert wrong == {}
