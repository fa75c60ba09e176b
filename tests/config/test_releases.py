"""The table of release differences: every row is complete, and has() follows it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from hvkernel.config.errors import InputError
from hvkernel.config.releases import capabilities, load_release

TABLE = Path(__file__).resolve().parents[2] / "hvkernel" / "config" / "releases.toml"
ROWS = tomllib.loads(TABLE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", list(ROWS))
def test_every_row_says_when_by_what_and_what(name: str) -> None:
    row = ROWS[name]
    assert set(row) <= {"first", "last", "commit", "seen", "what"}
    assert "first" in row or "last" in row, "a row that always holds is none"
    assert re.fullmatch(r"[0-9a-f]{12}|posted as \S+@\S+", row["commit"])
    assert re.search(r"\d+\.\d+", row["seen"]), "seen names the trees"
    assert row["what"]


@pytest.mark.parametrize(
    ("release", "has"),
    [
        ("5.15.54", {"vmbus_win7", "storvsc_win7"}),
        ("5.18", {"vmbus_win7", "storvsc_win7", "x86_host_build_as_version", "vmbus_coherence"}),
        ("6.1.192", {"x86_host_build_as_version", "vmbus_coherence"}),
        ("6.6.134.1", {"x86_host_build_as_version", "vmbus_coherence", "nested_hypervisor_line", "x86_vtl_mode"}),
        ("6.18", set(ROWS) - {"vmbus_win7", "storvsc_win7"}),
    ],
)
def test_a_release_has_what_its_rows_say(release: str, has: set[str]) -> None:
    loaded = load_release(release)
    assert {row.name for row in capabilities() if loaded.has(row.name)} == has
    assert loaded.version == release


def test_an_unknown_capability_is_an_error() -> None:
    with pytest.raises(KeyError, match="no_such_row"):
        load_release("6.1").has("no_such_row")


def test_a_release_that_is_none_is_an_input_error() -> None:
    with pytest.raises(InputError, match=r"^--release: release = 'next': must be a kernel release, as 6\.1$"):
        load_release("next")
