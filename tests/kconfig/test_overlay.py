"""Values laid over a .config: they replace what it says, wherever it says it."""

from __future__ import annotations

from hvkernel.kconfig import evaluate, parse_config
from hvkernel.kconfig.overlay import lay_over

TEXT = (
    "CONFIG_NET=y\n# CONFIG_SMP is not set\nCONFIG_NETDEVICES=y\nCONFIG_NET=m\n"
    '# CONFIG_NET says nothing\nCONFIG_NAME="x"'
)


def test_every_line_of_a_symbol_goes_and_others_stay() -> None:
    values = {"NET": "n", "SMP": "y", "NR_CPUS": "64", "NAME": 'a"\\b', "NEW": "m"}
    text = lay_over(TEXT, values)
    assert text == (
        "CONFIG_NETDEVICES=y\n# CONFIG_NET says nothing\n# CONFIG_NET is not set\nCONFIG_SMP=y\nCONFIG_NR_CPUS=64\n"
        'CONFIG_NAME="a\\"\\\\b"\nCONFIG_NEW=m\n'
    )
    assert parse_config(text).values == {"NETDEVICES": "y", **values}


def test_nothing_laid_over_changes_nothing() -> None:
    assert lay_over(TEXT, {}) == TEXT


def test_no_earlier_choice_wins_over_the_new_one() -> None:
    text = "CONFIG_ARM64=y\nCONFIG_HZ_1000=y\nCONFIG_ACPI=y\n"
    assert evaluate(lay_over(text, {"HZ_100": "y"})).hz == 100
    assert evaluate(lay_over(lay_over(text, {"HZ_100": "y"}), {"HZ_100": "n", "HZ_300": "y"})).hz == 300


def test_only_a_line_feed_ends_a_line() -> None:
    text = 'CONFIG_A="x\u2028CONFIG_SMP=n\x0c"\nCONFIG_SMP=y\n'
    assert lay_over(text, {"SMP": "n"}) == 'CONFIG_A="x\u2028CONFIG_SMP=n\x0c"\n# CONFIG_SMP is not set\n'
