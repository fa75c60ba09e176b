"""The command's own manners: exit statuses and one line on stderr."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest


def hvkernel(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = "from hvkernel.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)


def test_version_and_help_do_not_load_the_model() -> None:
    probe = "import sys; sys.argv = ['hvkernel', '--help']\nfrom hvkernel.cli import main\n"
    probe += "try: main()\nexcept SystemExit: pass\n"
    heavy = "print(sorted({'numba', 'numpy', 'pydantic', 'pluggy', 'greenlet', 'rich'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", probe + heavy], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert hvkernel("--version").stdout.startswith("hvkernel, version ")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "hvkernel: Missing command."),
        (["frob"], "hvkernel: No such command 'frob'."),
        (["plugins", "--frob"], "hvkernel: No such option '--frob'."),
        (["plugins", "x"], "hvkernel: Got unexpected extra argument (x)"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_status_2(arguments: list[str], text: str) -> None:
    done = hvkernel(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [text]


@pytest.mark.parametrize("arguments", [["boot"], ["boot", "--json"], ["abi", "--json"], ["plugins"]])
def test_a_reader_who_stops_reading_is_no_fault(arguments: list[str]) -> None:
    code = "from hvkernel.cli import main; main()"
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], stdout=write, stderr=subprocess.PIPE, text=True, timeout=60
        )
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("arguments", [["boot"], ["abi"], ["plugins", "--json"]])
def test_output_that_cannot_be_written_is_one_line_and_status_2(arguments: list[str]) -> None:
    code = "from hvkernel.cli import main; main()"
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert (done.returncode, done.stderr) == (2, "hvkernel: [Errno 28] No space left on device\n")


def test_plugins_lists_the_in_tree_ones() -> None:
    done = hvkernel("plugins", "--json")
    document = json.loads(done.stdout)
    assert done.returncode == 0
    assert document["schema"] == 1
    assert {"x86", "arm64", "hv_storvsc"} <= {plugin["name"] for plugin in document["plugins"]}
    assert document["faults"] == []


def test_the_table_of_plugins_cuts_no_name_off_on_a_narrow_terminal() -> None:
    code = "from hvkernel.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "plugins"],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"COLUMNS": "40"},
    )
    assert done.returncode == 0
    assert "\u2026" not in done.stdout
