"""The spec of a matrix: its file, what is refused and how, and its way to other processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from hvkernel.config.errors import InputError
from hvkernel.config.matrix import MatrixSpec, change_spec, default_spec, load_spec

SPEC = """
title = "sizes"
cover = "t=3"
seeds = 4
draw = 9

[axes]
arch = ["x86", "arm64"]
page_size = "4K"
cpus = [1, 2]
jit = [true, false]

[symbols]
HYPERV_NET = ["y", "m", "n"]

[config]
MODULES = "y"

[configs]
debian = "debian.config"

[vm]
memory = "2G"
device = [{ kind = "scsi", offered_at = 2.5 }]

[[rule]]
when = { arch = "x86" }
then = { cpus = 1, page_size = ["4K"] }

[[rule]]
when = { HYPERV_NET = "n", arch = "arm64" }

[budget]
seconds = 2.5
"""


@pytest.fixture
def spec(tmp_path: Path) -> MatrixSpec:
    (tmp_path / "debian.config").write_text("CONFIG_HYPERV=m\n")
    (tmp_path / "spec.toml").write_text(SPEC)
    return load_spec(tmp_path / "spec.toml")


def test_a_file_says_it_all(spec: MatrixSpec, tmp_path: Path) -> None:
    assert spec.varied == {
        "arch": ("x86", "arm64"),
        "page_size": ("4K",),
        "cpus": ("1", "2"),
        "jit": ("y", "n"),
        "HYPERV_NET": ("y", "m", "n"),
    }
    assert (spec.cover, spec.seeds, spec.draw) == ("t=3", (0, 1, 2, 3), 9)
    assert spec.vm.memory == 2 << 30
    assert (spec.budget.seconds, spec.budget.steps) == (2.5, 2_000_000)
    assert [str(rule) for rule in spec.rule] == [
        "arch=x86: cpus=1 and page_size=4K",
        "never HYPERV_NET=n and arch=arm64",
    ]
    assert spec.configs["debian"].text == "CONFIG_HYPERV=m\n"
    assert spec.configs["debian"].file == str(tmp_path / "debian.config")


def test_it_travels_as_json_with_the_texts_of_its_configs(spec: MatrixSpec, tmp_path: Path) -> None:
    (tmp_path / "debian.config").unlink()
    again = MatrixSpec.from_json(spec.to_json())
    assert again == spec
    assert again.to_json() == spec.to_json()
    assert "\n" not in spec.to_json()
    assert again.vm.model_fields_set == spec.vm.model_fields_set


def test_some_keys_replaced(spec: MatrixSpec) -> None:
    assert change_spec(spec, {}, where="--cover") is spec
    changed = change_spec(spec, {"cover": "12", "least": 3000}, where="--cover")
    assert (changed.cover, changed.least, changed.seeds) == (12, 3000, (0,))
    assert changed.varied == spec.varied
    assert change_spec(changed, {"seeds": 2}, where="--seeds").least is None
    with pytest.raises(InputError) as error:
        change_spec(spec, {"cover": "most"}, where="--cover")
    assert (
        str(error.value) == "--cover: cover = 'most': must be pairwise, full, t=1 to t=9, or a number of random cells"
    )


def test_the_default_is_pairwise_with_seeds_for_three_thousand_cells() -> None:
    assert (default_spec().cover, default_spec().least) == ("pairwise", 3000)


AXES = "[axes]\ncpus = [1]\n"
WRONG = [
    ("", "<file>: axes: must name at least one axis"),
    ("cover = 0\n" + AXES, "<file>: cover = 0: a number of random cells is at least 1"),
    (
        "cover = 'most'\n" + AXES,
        "<file>: cover = 'most': must be pairwise, full, t=1 to t=9, or a number of random cells",
    ),
    ("seeds = 0\n" + AXES, "<file>: seeds = 0: must be 1 to 1000000 seeds, or a list of them"),
    ("seeds = [1, 1]\n" + AXES, "<file>: seeds = [1, 1]: has a seed twice"),
    ("seeds = [0, -1]\n" + AXES, "<file>: seeds[1] = -1: must be greater than or equal to 0"),
    ("seeds = 2\nleast = 2\n" + AXES, "<file>: least: says what seeds says"),
    ("[axes]\ncpus = []\n", "<file>: axes.cpus = []: must have at least one value"),
    ("[axes]\ncpus = [1, 2, 1]\n", "<file>: axes.cpus = [1, 2, 1]: has '1' twice"),
    ("[axes]\ncpus = [1.5]\n", "<file>: axes.cpus = [1.5]: a value has letters, digits and _ . : / + - only"),
    ("[axes]\ncpus = ['1,2']\n", "<file>: axes.cpus = ['1,2']: a value has letters, digits and _ . : / + - only"),
    ("[axes]\n'a=b' = [1]\n", "<file>: axes.a=b.[key] = 'a=b': a name has letters, digits, _ and - only"),
    (AXES + "[symbols]\nNET = ['z']\n", "<file>: symbols.NET[0] = 'z': must be 'y', 'm' or 'n'"),
    (AXES + "[symbols]\ncpus = ['y']\n", "<file>: symbols.cpus: is an axis of axes, too"),
    (AXES + "[vm]\nhost = 'ws2022'\n", "<file>: vm.host: is no key of a matrix; take axis host or page_size, or seeds"),
    (AXES + "[vm]\ncpu = 3\n", "<file>: vm.cpu: unknown key"),
    (AXES + "[[rule]]\nthen = { cpus = 1 }\n", "<file>: rule[0].when: is required"),
    (AXES + "[[rule]]\nwhen = {}\n", "<file>: rule[0] = {'when': {}}: when: must name an axis"),
    (AXES + "[budget]\nseconds = 0\n", "<file>: budget.seconds = 0: must be greater than 0"),
    (AXES + "[configs]\nlost = 'no.config'\n", "<file>: configs.lost = 'no.config': No such file or directory"),
    (AXES + "[configs]\nlost = 1\n", "<file>: configs.lost = 1: must be the path of a .config"),
    (AXES + "[configs]\nself = 'bad.config'\n", "<file>: configs.self = 'bad.config': is not UTF-8 text"),
    ("axis = 1\n" + AXES, "<file>: axis: unknown key"),
    ("source = 'x'\n" + AXES, "<file>: source: unknown key"),
    ("axes", "<file>: is not TOML: Expected '=' after a key in a key/value pair (at end of document)"),
]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_a_mistake_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.config").write_bytes(b"\xff")
    path = tmp_path / "spec.toml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        load_spec(path)
    assert str(error.value).replace(str(path), "<file>") == message


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        load_spec(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="is not UTF-8 text"):
        load_spec(tmp_path / "bytes.toml")
