"""``hvkernel matrix``: runs, files, resuming, one cell, interruption, and bad input."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import sqlite3
import stat
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from broken_lantern import install

CODE = "from hvkernel.cli import main; main()"
SMALL = """
title = "small"
cover = "full"
[axes]
arch = ["x86", "arm64"]
cpus = [1, 2]
"""
HUNGRY = SMALL + "[budget]\nsteps = 1000\n"
"""No guest is up in a thousand steps."""


def matrix(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CODE, "matrix", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    file = tmp_path / "small.toml"
    file.write_text(SMALL)
    return file


@pytest.fixture
def hungry(tmp_path: Path) -> Path:
    file = tmp_path / "hungry.toml"
    file.write_text(HUNGRY)
    return file


def test_every_cell_passes(small: Path) -> None:
    done = matrix(small, "--jobs", "1")
    assert done.returncode == 0, done
    first, second, third = done.stdout.splitlines()
    assert first == "small: 2 axes, full, 4 cells"
    assert second == "4 passed, 0 failed, 0 crashed, 0 over budget"
    assert re.fullmatch(r"4 cells in \d+\.\d s, \d+\.\d a second, 1 worker", third)
    assert re.fullmatch(r"4 of 4 cells, 0 failed, \d+\.\d a second, 0 s left\n", done.stderr)


def test_cells_that_fail(hungry: Path, tmp_path: Path) -> None:
    page, junit = tmp_path / "page.html", tmp_path / "junit.xml"
    done = matrix(hungry, "--jobs", "1", "--html", page, "--junit", junit)
    assert done.returncode == 1, done
    lines = done.stdout.splitlines()
    assert lines[1] == "0 passed, 0 failed, 0 crashed, 4 over budget"
    assert lines[4] == "budget (4 cells): fails with every axis at its default"
    (again,) = [line.strip() for line in lines if line.strip().startswith("replay: ")]
    root = ET.parse(junit).getroot()
    assert [root.get(name) for name in ("tests", "failures", "errors")] == ["4", "4", "0"]
    text = page.read_text()
    assert "<title>small: 4 of 4 cells failed</title>" in text
    assert "fails with every axis at its default" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hungry.toml", "junit.xml", "page.html"]
    # The line that every failure shows runs that cell.
    command = again.removeprefix("replay: ").replace("hvkernel", f"{sys.executable} -c '{CODE}'", 1)
    replayed = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=120)
    assert replayed.returncode == 1, replayed
    assert replayed.stdout.splitlines()[-1].startswith("over-budget (")


PAGES = """
title = "page sizes"
cover = "full"
[axes]
arch = ["x86", "arm64"]
page_size = ["4K", "16K", "64K"]
cpus = [1, 4]
[[vm.device]]
class_guid = "1a27e2f0-0000-4000-8000-000000000001"
name = "lantern0"
"""


def test_a_broken_driver_of_a_plugin_is_told_in_a_paragraph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its ring is sized in pages of 4 KiB: found with larger ones alone, by workers that load it as any plugin."""
    site = tmp_path / "site"
    site.mkdir()
    install(site, "ring")
    monkeypatch.setenv("PYTHONPATH", str(site))
    spec = tmp_path / "pages.toml"
    spec.write_text(PAGES)
    done = matrix(spec, "--seeds", "3", "--jobs", "1")
    assert done.returncode == 1, done
    lines = done.stdout.splitlines()
    assert lines[:2] == [
        "page sizes: 3 axes, full, 24 cells",  # 16K and 64K there are on arm64 alone
        "12 passed, 12 failed, 0 crashed, 0 over budget",
    ]
    assert [line for line in lines if "cells): " in line] == ["log (12 cells): fails iff page_size is 16K or 64K"]
    assert lines[-1] == f"  replay: hvkernel matrix --cell 'page_size=16K' --seed 0 {spec}"


def test_a_cell_that_ends_its_interpreter_ends_no_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: Path
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    install(site, "exit")
    monkeypatch.setenv("PYTHONPATH", str(site))
    spec = tmp_path / "pages.toml"
    spec.write_text(PAGES)
    done = matrix(spec, "--cell", "arch=arm64,page_size=64K")
    assert done.returncode == 1, done
    assert done.stdout.splitlines() == [
        "cell: arch=arm64 page_size=64K, seed 0",
        "good bye",
        "interpreter-exit-3: killed its interpreter: exit status 3",
        "crash (0.000 s of virtual time, 0 steps)",
    ]
    assert done.stderr == ""


def test_json_is_the_same_for_any_number_of_workers(hungry: Path) -> None:
    one, two = (matrix(hungry, "--json", "--jobs", jobs, "--shrink", "0") for jobs in ("1", "2"))
    assert (one.returncode, two.returncode) == (1, 1)
    assert one.stdout == two.stdout
    found = json.loads(one.stdout)
    assert found["schema"] == 1
    assert found["cells"] == {"planned": 4, "done": 4, "pass": 0, "fail": 0, "crash": 0, "over-budget": 4}
    assert found["axes"] == {"arch": ["x86", "arm64"], "cpus": ["1", "2"]}
    assert [cell["values"] for cell in found["failures"]] == [
        {"arch": arch, "cpus": cpus} for arch in ("x86", "arm64") for cpus in ("1", "2")
    ]
    assert all(cell["dmesg"] and cell["cause"] is None for cell in found["failures"])


def test_a_store_is_gone_on_with(small: Path, tmp_path: Path) -> None:
    store = tmp_path / "results.sqlite"
    assert matrix(small, "--store", store, "--jobs", "1").returncode == 0
    with sqlite3.connect(store) as db:
        db.execute("DELETE FROM cell WHERE number IN (1, 2)")
    db.close()
    again = matrix(small, "--store", store, "--jobs", "1")
    assert again.returncode == 0
    assert again.stdout.splitlines()[1].startswith("4 passed")
    assert re.match(r"2 cells in .* 2 had a result before$", again.stdout.splitlines()[2])
    other = matrix(small, "--store", store, "--seeds", "2")
    assert other.returncode == 2
    assert other.stderr.startswith(f"hvkernel: {store}: seeds = ")


def test_one_cell(small: Path, hungry: Path) -> None:
    good = matrix("--cell", "arch=arm64,cpus=2", "--seed", "7", small)
    assert good.returncode == 0, good
    assert good.stdout.splitlines()[0] == "cell: arch=arm64 cpus=2, seed 7"
    assert good.stdout.splitlines()[-1].startswith("pass (up, phase invariants, ")
    assert "Hyper-V" in good.stdout  # the whole log
    bad = matrix("--cell", "cpus=2", hungry, "--json")
    assert bad.returncode == 1
    assert json.loads(bad.stdout)["status"] == "over-budget"


def test_more_seeds_and_another_cover(small: Path) -> None:
    done = matrix(small, "--seeds", "2", "--cover", "2", "--jobs", "1")
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == "small: 2 axes, random, 4 cells"  # two combinations, under two seeds


def test_interrupted_and_gone_on_with(tmp_path: Path) -> None:
    spec, store = tmp_path / "many.toml", tmp_path / "many.sqlite"
    spec.write_text(SMALL)
    arguments = ["matrix", str(spec), "--seeds", "100", "--store", str(store), "--jobs", "1", "--shrink", "0"]
    running = subprocess.Popen(
        [sys.executable, "-c", CODE, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while rows(store) < 3:
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    out, _ = running.communicate(timeout=60)
    assert running.returncode == 130
    left = re.fullmatch(
        rf"interrupted with (\d+) cells left; the same command goes on from {re.escape(str(store))}",
        out.splitlines()[-1],
    )
    assert left
    assert rows(store) == 400 - int(left[1])


def shrinking(*arguments: str | Path) -> subprocess.Popen[str]:
    """Start a run, and return when it shrinks its first failure."""
    running = subprocess.Popen(
        [sys.executable, "-c", CODE, "matrix", *map(str, arguments), "--jobs", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stderr is not None
    while not running.stderr.readline().startswith("shrinking budget; "):
        assert running.poll() is None
    return running


def test_interrupted_while_a_failure_is_shrunk(hungry: Path, tmp_path: Path) -> None:
    """What was found by then is printed, and the page is written."""
    page = tmp_path / "page.html"
    running = shrinking(hungry, "--html", page)
    running.send_signal(signal.SIGTERM)
    out, _ = running.communicate(timeout=60)
    assert running.returncode == 128 + signal.SIGTERM
    assert out.splitlines()[-1] == "interrupted while the failures were shrunk"
    assert "not shrunk" in page.read_text()


def test_a_page_that_has_no_place_any_more_keeps_no_result_back(hungry: Path, tmp_path: Path) -> None:
    page = tmp_path / "place/page.html"
    page.parent.mkdir()
    running = shrinking(hungry, "--html", page)
    page.parent.rmdir()
    out, err = running.communicate(timeout=60)
    assert running.returncode == 2
    assert out.splitlines()[1] == "0 passed, 0 failed, 0 crashed, 4 over budget"
    assert err == f"hvkernel: {page}: cannot be written: No such file or directory\n"


MORTAL = """
import os, pathlib
HVKERNEL_CONTRACT = "1.0"
count = pathlib.Path(__file__).with_name("count")
with count.open("a") as out:
    out.write("x")
if count.stat().st_size > 2:
    os._exit(7)
"""
"""A plugin that the command and its first worker can load, and nobody after them."""


def test_causes_that_cannot_be_looked_for_keep_no_result_back(
    hungry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    (site / "hvkernel_mortal").mkdir(parents=True)
    (site / "hvkernel_mortal/__init__.py").write_text(MORTAL)
    info = site / "hvkernel_mortal-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hvkernel-mortal\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[hvkernel]\nmortal = hvkernel_mortal\n")
    monkeypatch.setenv("PYTHONPATH", str(site))
    page = tmp_path / "page.html"
    done = matrix(hungry, "--jobs", "1", "--html", page)
    assert done.returncode == 2, done
    assert done.stdout.splitlines()[1] == "0 passed, 0 failed, 0 crashed, 4 over budget"
    assert "budget (4 cells): not shrunk" in done.stdout
    assert "not shrunk" in page.read_text()
    assert done.stderr.splitlines()[-1] == "hvkernel: 3 workers died before their first cell: exit status 7"


def rows(store: Path) -> int:
    if not store.exists():
        return 0
    try:
        with sqlite3.connect(f"{store.as_uri()}?mode=ro", uri=True) as db:
            count: int = db.execute("SELECT count(*) FROM cell").fetchone()[0]
        db.close()
    except sqlite3.OperationalError:  # not made yet
        return 0
    return count


@pytest.mark.filterwarnings("default")  # Dask's own are nothing of ours
def test_on_a_cluster(hungry: Path) -> None:
    from distributed import LocalCluster

    here = matrix(hungry, "--json", "--jobs", "1")
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    ) as cluster:
        there = matrix(hungry, "--json", "--scheduler", cluster.scheduler_address)
    assert (here.returncode, there.returncode) == (1, 1), there
    assert here.stdout == there.stdout


def test_a_terminal_gets_a_bar(small: Path) -> None:
    ours, theirs = pty.openpty()
    running = subprocess.Popen(
        [sys.executable, "-c", CODE, "matrix", str(small), "--jobs", "1"],
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(theirs)
    seen = b""
    try:
        while chunk := os.read(ours, 4096):
            seen += chunk
    except OSError:  # the other side is closed
        pass
    os.close(ours)
    assert running.wait(60) == 0
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())
    assert "4/4" in shown
    assert re.search(r"\d+\.\d/s", shown)
    assert " left" in shown


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nowhere.toml"], "nowhere.toml: No such file or directory"),
        (["{small}", "--cover", "most"], "--cover: cover = 'most': "),
        (["{small}", "--seeds", "0"], "--seeds: seeds = "),
        (["{small}", "--jobs", "0"], "--jobs: jobs = 0: at least 1"),
        (["{small}", "--seed", "1"], "--seed goes with --cell; --seeds says how many each combination is run under"),
        (["{small}", "--html", "{tmp}"], "--html {tmp}: is a directory"),
        (["{small}", "--html", "{pipe}"], "--html {pipe}: is no file"),
        (["{small}", "--junit", "{link}"], "--junit {link}: is no file"),
        (["{small}", "--jobs", "0", "--store", "{tmp}/none.html"], "--jobs: jobs = 0: at least 1"),
        (["{small}", "--html", "{tmp}/no/x.html"], "--html {tmp}/no/x.html: there is no directory {tmp}/no"),
        (["{small}", "--html", "{tmp}/x", "--junit", "{tmp}/./x"], "--junit {tmp}/x: is the file of --html"),
        (["{small}", "--store", "{small}"], "{small}: "),
        (["{small}", "--cell", "cpus=2", "--html", "x"], "--html does not go with --cell"),
        (["{small}", "--cell", "cpu=2"], "--cell: axis = 'cpu': did you mean 'cpus'? "),
        (["{small}", "--cell", "cpus=two"], "--cell: cpus = 'two': "),
        (["{small}", "--cell", "cpus"], "--cell: axis = 'cpus': must be AXIS=VALUE"),
        (["{small}", "--cell", "cpus=2", "--seed", "-1"], "Invalid value for '--seed': -1 is not in the range"),
        (["{small}", "--jobs", "1", "--scheduler", "tcp://x:1"], "--jobs does not go with --scheduler, whose workers"),
        (["{small}", "--scheduler", "bogus"], "--scheduler: address = 'bogus': must be "),
        (["--cover", "full"], "default.toml: cover = 'full': is "),
        (["{contradiction}"], "{contradiction}: no cell is left: Kconfig's rules for bits, with arch=arm64"),
        (["{bad_axis}"], "{bad_axis}: axes.cpuz: did you mean 'cpus'? "),
        (["{bad_value}"], "{bad_value}: axes.cpus = '0': "),
        (["{bad_toml}"], "{bad_toml}: is not TOML: "),
    ],
)
def test_bad_input_is_one_line(small: Path, tmp_path: Path, arguments: list[str], line: str) -> None:
    texts = {
        "contradiction": "[axes]\narch = 'arm64'\nbits = 32\n",
        "bad_axis": "[axes]\ncpuz = [1]\n",
        "bad_value": "[axes]\ncpus = [0]\n",
        "bad_toml": "[axes",
    }
    names = {"small": str(small), "tmp": str(tmp_path), "pipe": str(tmp_path / "pipe"), "link": str(tmp_path / "link")}
    os.mkfifo(names["pipe"])
    os.symlink("pipe", names["link"])
    for name, text in texts.items():
        file = tmp_path / f"{name}.toml"
        file.write_text(text)
        names[name] = str(file)
    done = matrix(*(argument.format(**names) for argument in arguments))
    assert (done.returncode, done.stdout) == (2, ""), done
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("hvkernel: " + line.format(**names)), done.stderr
    assert not list(tmp_path.glob("*.html"))
    assert stat.S_ISFIFO(os.stat(names["link"]).st_mode)


def test_a_link_stays_a_link(small: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    os.symlink("there/page.html", tmp_path / "latest.html")
    assert matrix(small, "--cover", "1", "--jobs", "1", "--html", tmp_path / "latest.html").returncode == 0
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["page.html"]
    assert os.readlink(tmp_path / "latest.html") == "there/page.html"


def test_a_page_that_cannot_be_written_keeps_the_old_one(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("of yesterday")
    code = (
        "import resource, sys; from pathlib import Path; from hvkernel.cli import main, matrix\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))\n"
        f"matrix._one_cell = lambda *_: matrix._write(Path({str(page)!r}), lambda out: out.write('x' * 100_000))\n"
        "sys.argv[1:] = ['matrix', '--cell', '']; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (2, f"hvkernel: {page}: cannot be written: File too large\n")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert page.read_text() == "of yesterday"


def test_nothing_of_it_is_loaded_by_other_commands() -> None:
    code = (
        "import sys; from hvkernel.cli import cli; cli.main(['--help'], standalone_mode=False); "
        "print([m for m in ('jinja2', 'covertable', 'rich', 'hvkernel.matrix', 'sqlite3') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "matrix " in done.stdout
