"""A zoo of awkward plugins, each a real distribution on sys.path: named in the report, never fatal."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from importlib.metadata import EntryPoint, distributions
from pathlib import Path

import pytest

from hvkernel.boot.plugins import load

Install = Callable[..., list[EntryPoint]]
_serial = itertools.count()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return a function that installs ``body`` as a distribution and gives the entry points of all so far."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(distribution: str, body: str, *, name: str | None = None) -> list[EntryPoint]:
        module = f"zoo_{next(_serial)}"
        (tmp_path / f"{module}.py").write_text(body)
        info = tmp_path / f"{distribution}-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.5\n")
        (info / "entry_points.txt").write_text(f"[hvkernel]\n{name or distribution} = {module}\n")
        found = distributions(path=[str(tmp_path)])
        return [entry for dist in found for entry in dist.entry_points if entry.group == "hvkernel"]

    return make


GOOD = """
from hvkernel.api.hooks import hookimpl
HVKERNEL_CONTRACT = "1.0"

@hookimpl
def hv_kconfig(release):
    return f"# for {release}"
"""


def test_a_good_plugin_is_loaded_and_called(install: Install) -> None:
    plugins = load(install("good", GOOD))
    assert [(i.name, i.distribution, i.version, i.contract, i.hooks) for i in plugins.infos] == [
        ("good", "good", "1.5", "1.0", ("hv_kconfig",))
    ]
    assert [(i.name, text) for i, text in plugins.call("hv_kconfig", release="6.1")] == [("good", "# for 6.1")]
    assert plugins.faults == []


def test_in_tree_plugins_arrive_through_the_same_door() -> None:
    assert {"arm64", "hv_storvsc", "x86"} <= {info.name for info in load().infos}
    assert load().faults == []


@pytest.mark.parametrize(
    ("body", "where", "text"),
    [
        ("import nothing_of_that_name", "import", "ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("def f(:", "import", "SyntaxError: "),
        ("raise KeyError('at import')", "import", "KeyError: 'at import'"),
        ("raise SystemExit(3)", "import", "SystemExit: 3"),
        ("x = 1", "contract", 'HVKERNEL_CONTRACT is None; it must be a text like "1.2"'),
        ("HVKERNEL_CONTRACT = 1", "contract", 'HVKERNEL_CONTRACT is 1; it must be a text like "1.2"'),
        ("HVKERNEL_CONTRACT = '1.99'", "contract", "needs contract 1.99, this hvkernel has 1.2"),
        ("HVKERNEL_CONTRACT = '2.0'", "contract", "needs contract 2.0, this hvkernel has 1.2"),
        (GOOD.replace("hv_kconfig(release)", "hv_kconfig(version)"), "register", "hv_kconfig"),
        (GOOD.replace("hv_kconfig", "hv_kconfigs"), "register", "unknown hook 'hv_kconfigs'"),
    ],
)
def test_a_plugin_that_does_not_fit_is_named_and_the_rest_goes_on(
    install: Install, body: str, where: str, text: str
) -> None:
    install("bad", body)
    plugins = load(install("good", GOOD))
    assert [info.name for info in plugins.infos] == ["good"]
    (fault,) = plugins.faults
    assert (fault.plugin, fault.where) == ("bad[bad]", where)
    assert text in fault.text


def test_a_hook_that_raises_is_named_and_the_other_plugins_are_called(install: Install) -> None:
    install("broken", GOOD.replace('return f"# for {release}"', 'raise RuntimeError("no " + release)'))
    plugins = load(install("good", GOOD))
    assert [info.name for info, _ in plugins.call("hv_kconfig", release="6.1")] == ["good"]
    assert [str(fault) for fault in plugins.faults] == ["plugin broken[broken]: hv_kconfig: RuntimeError: no 6.1"]


def test_two_distributions_that_declare_one_name(install: Install) -> None:
    install("first", GOOD, name="same")
    plugins = load(install("second", GOOD, name="same"))
    assert len(plugins.infos) == 1
    (fault,) = plugins.faults
    assert fault.text == f"the name 'same' is already taken by {plugins.infos[0].distribution}"
    assert fault.where == "register"
