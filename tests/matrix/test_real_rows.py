"""The twelve real ``.config`` files as rows of one spec: each is built, booted, driven and checked."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from hvkernel.boot.plugins import load
from hvkernel.config.matrix import load_spec
from hvkernel.matrix.cell import CellRunner
from hvkernel.matrix.cover import cells_of

CONFIGS = sorted((Path(__file__).parents[1] / "data/configs").glob("*.config.gz"))
PLAIN = {"arm64_defconfig_6_1", "x86_64_defconfig_6_1"}
"""The kernel's own defconfigs, which have no Hyper-V."""


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> CellRunner:
    place = tmp_path_factory.mktemp("rows")
    rows = {}
    for path in CONFIGS:
        plain = place / path.name.removesuffix(".gz")
        plain.write_bytes(gzip.decompress(path.read_bytes()))
        rows[plain.name.removesuffix(".config").replace(".", "_")] = plain.name
    names = ", ".join(f'"{name}"' for name in rows)
    files = "\n".join(f'{name} = "{file}"' for name, file in rows.items())
    spec = place / "rows.toml"
    spec.write_text(
        'cover = "full"\n[axes]\n'
        f'config = [{names}]\narch = ["x86", "arm64"]\nevents = ["none", "hibernate"]\n[configs]\n{files}\n'
    )
    return CellRunner(load_spec(spec), load(), sample=0)


def test_every_real_config_is_a_row(runner: CellRunner) -> None:
    assert len(CONFIGS) == 12
    cells = list(cells_of(runner.spec, runner.plugins))
    rows = {cell.by_axis["config"] for cell in cells}
    assert rows == set(runner.spec.configs)
    for cell in cells:
        values = cell.by_axis
        if values["events"] != "none":
            continue
        result = runner.run(cell)
        assert (result.problems, result.undriven) == ((), ()), cell
        assert (result.outcome == "up") == (values["config"] not in PLAIN), cell


def test_each_has_its_own_architecture_and_hibernates_where_its_kconfig_lets_it(runner: CellRunner) -> None:
    found = {(cell.by_axis["config"], cell.by_axis["arch"]) for cell in cells_of(runner.spec, runner.plugins)}
    assert len(found) == 12
    for name, arch in found:
        assert (arch == "arm64") == ("arm64" in name or "aarch64" in name)
    hibernating = [cell for cell in cells_of(runner.spec, runner.plugins) if cell.by_axis["events"] == "hibernate"]
    assert len(hibernating) > 6
    for cell in hibernating[:4]:
        assert runner.run(cell).problems == ()
