"""The Kconfig language: what newer kernels write, what a stranger's text must not do, and imply."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hvkernel.kconfig import ConfigError, evaluate
from hvkernel.kconfig.reader import KconfigReader, expr_text, rewrite


def read(text: str, **others: str) -> KconfigReader:
    return KconfigReader({"top": text, **others}, "top")


@pytest.mark.parametrize(
    ("line", "rewritten"),
    [
        ("\tmodules\n", "\n"),
        ("\toption modules\n", "\n"),
        ("\ttransitional # gone in 7.1\n", "\n"),
        ("\tdepends on A if B\n", "\tdepends on (A) || !(B)\n"),
        ("\tdepends on A || C if B && D\n", "\tdepends on (A || C) || !(B && D)\n"),
        ("\tdepends on (A)if(B)\n", "\tdepends on (A) || !(B)\n".replace("(A)", "((A))").replace("(B)", "((B))")),
        ('\tdepends on A = "x if y"\n', '\tdepends on A = "x if y"\n'),
        ("\tdepends on A # if B\n", "\tdepends on A # if B\n"),
        ("\tdefault y if B\n", "\tdefault y if B\n"),
        ("config MODULES_TREE\n", "config MODULES_TREE\n"),
    ],
)
def test_newer_lines_are_rewritten(line: str, rewritten: str) -> None:
    assert rewrite("k", 1, line) == rewritten


def test_a_conditional_dependency_means_only_when() -> None:
    kconf = read('config A\n\tbool "A"\nconfig B\n\tbool "B"\nconfig C\n\tbool "C"\n\tdepends on A if \\\n\t\tB\n')
    assert expr_text(kconf.syms["C"].direct_dep) == "A || !B"
    kconf.syms["C"].set_value("y")
    assert kconf.syms["C"].str_value == "y"
    kconf.syms["B"].set_value("y")
    assert kconf.syms["C"].str_value == "n"


def test_line_numbers_stay_true() -> None:
    text = "config MODULES\n\tbool\n\tmodules\n\n# x\nconfig A\n\tbool\n\tdepends on \\\n\t\tMODULES\n\twrong\n"
    with pytest.raises(ConfigError, match=r"^top:10: couldn't parse 'wrong': syntax error$"):
        read(text)


def test_help_texts_are_not_code() -> None:
    kconf = read("config A\n\tbool\n\thelp\n\t  $(shell,rm) X=1\n\n\t  more\nconfig B\n\tbool\n")
    assert list(kconf.syms) == ["MODULES", "A", "B"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('config A\n\tdefault "$(shell,touch owned)"\n', "top:2: $(shell ...) is refused, reading runs nothing: "),
        ('config A\n\tbool "$(HOME)"\n', "top:2: macros and environment variables are refused: "),
        ('config A\n\tdefault "$HOME"\n', "top:2: macros and environment variables are refused: "),
        ("config A\n\tdefault $(dash-lexical,x)\n", "top:2: macros and environment variables are refused: "),
        ('config A\n\tstring\n\toption env="HOME"\n', "top:3: environment variables are refused: "),
        ("shell = ls\n", "top:1: preprocessor assignments are refused: "),
        ("x := ls\n", "top:1: preprocessor assignments are refused: "),
        ("x += ls\n", "top:1: preprocessor assignments are refused: "),
        ('source "/etc/passwd"\n', "top:1: source of '/etc/passwd', which is not one of the given texts"),
        ('source "../*"\n', "top:1: source of '../*', which is not one of the given texts"),
        ('rsource "other"\n', "top:1: source of 'other', which is not one of the given texts"),
        ("source other\n", "top:1: source needs a name in quotes: 'source other'"),
        ("config A\n\tbool\n\tdepends A\n", "top:3: couldn't parse 'depends A': expected 'on' after 'depends'"),
        ("if A\nconfig A\n\tbool\n", "top:3: expected 'endif' at end of 'top'"),
        (
            "config A\n\tbool\n\tselect B\nconfig B\n\tbool\n\tselect A\n",
            "top:1: dependency loop: A -> B -> A",
        ),
    ],
)
def test_a_strangers_text_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        read(text)


def test_source_reaches_the_given_texts_only() -> None:
    kconf = read(
        'source "p/K"\nosource "none"\nconfig Z\n\tbool\n',
        **{"p/K": 'config A\n\tbool\nrsource "L"\n', "p/L": "config B\n\tbool\n\thelp\n\t  last"},
    )
    assert [name for name in kconf.syms if name != "MODULES"] == ["A", "B", "Z"]
    assert kconf.syms["B"].nodes[0].filename == "p/L"


def test_a_text_that_sources_itself_is_refused() -> None:
    with pytest.raises(ConfigError, match="recursive 'source' of 'top'"):
        read('source "top"\n')


def test_nothing_is_imported_and_no_variable_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "kconfigfunctions.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, value in (("KCONFIG_FUNCTIONS", "kconfigfunctions"), ("CONFIG_", "OTHER_"), ("srctree", "/nowhere")):
        monkeypatch.setenv(name, value)
    kconf = read('config A\n\tbool "A"\n')
    assert "kconfigfunctions" not in sys.modules
    assert (kconf.config_prefix, kconf.srctree) == ("CONFIG_", "")


IMPLY = """config MODULES
	bool "MODULES"
	default y
config A
	tristate "A"
	default y
	imply B
	imply C if MODULES
config B
	tristate "B"
config C
	bool "C"
	depends on D
config D
	bool "D"
config E
	tristate
	default m
	depends on MODULES
config F
	bool "F"
	imply E
"""


@pytest.mark.parametrize(
    ("set_to", "got"),
    [
        ({}, {"B": "y", "C": "n", "E": "m"}),
        ({"B": "m"}, {"B": "m"}),
        ({"B": "n"}, {"B": "n"}),
        ({"A": "m"}, {"B": "m"}),
        ({"A": "n"}, {"B": "n"}),
        ({"D": "y"}, {"C": "y"}),
        ({"D": "y", "A": "m"}, {"C": "y"}),
        ({"F": "y"}, {"E": "y"}),
    ],
)
def test_imply_is_a_default_and_no_more(set_to: dict[str, str], got: dict[str, str]) -> None:
    kconf = read(IMPLY)
    for name, value in set_to.items():
        kconf.syms[name].set_value(value)
    assert {name: kconf.syms[name].str_value for name in got} == got


def test_a_plugins_bad_kconfig_is_named(config_text: Callable[[str], str]) -> None:
    with pytest.raises(ConfigError, match=r"^mine/Kconfig:2: \$\(shell \.\.\.\) is refused"):
        evaluate(
            config_text("debian12-6.1.192-amd64"),
            plugin_kconfigs={"mine/Kconfig": "config MINE\n\tdef_bool $(shell,true)\n"},
        )


def test_a_plugins_symbols_are_evaluated_with_the_rest(config_text: Callable[[str], str]) -> None:
    build = evaluate(
        config_text("debian12-6.1.192-amd64") + "CONFIG_MINE=y\n",
        plugin_kconfigs={"Kconfig": 'config MINE\n\ttristate "MINE"\n\tdepends on HYPERV\n'},
    )
    assert build.m("MINE"), "HYPERV is a module"
    assert "MINE" in build.modelled
