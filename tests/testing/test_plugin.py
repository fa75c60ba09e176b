"""The pytest plugin, run as a project of its own would run it: in a pytest inside this one."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from broken_lantern import install

from hvkernel.boot.plugins import load
from hvkernel.boot.session import Unsupported
from hvkernel.config.matrix import MatrixSpec
from hvkernel.matrix.model import Cell
from hvkernel.testing import cases, guest, sections

pytest_plugins = ("pytester",)

PLUGINS = load()
IMPORTED = (cases, guest, sections)
"""pytester forgets what an inner run imports; what is imported here, the plugins' modules too, is imported once."""

ROOT = Path(__file__).parents[2]
MODULES = 'kconfig={"MODULES": "y", "BLK_DEV_INITRD": "y"}'


@pytest.fixture(autouse=True)
def not_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """pytest writes the lines of its summary in full where it finds itself in CI; the tests count short ones."""
    for name in ("CI", "BUILD_NUMBER"):
        monkeypatch.delenv(name, raising=False)


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Run an inner pytest; without Hypothesis' plugin, whose import takes longer than most of these runs."""
    return pytester.runpytest_inprocess("-p", "no:hypothesispytest", *arguments)


def command_line(pytester: pytest.Pytester, line: str) -> pytest.RunResult:
    """Run what a report says that a shell should run, with the programs of this environment."""
    program, *arguments = shlex.split(line)
    return pytester.run(Path(sys.executable).parent / program, *arguments)


def ids(pytester: pytest.Pytester, *options: str) -> list[str]:
    """Names of the tests that are collected, without their module."""
    result = run(pytester, "--collect-only", "-q", *options)
    assert result.ret == 0, result.stdout.str()
    return [line.partition("::")[2] for line in result.outlines if "::" in line]


def test_a_run_without_guests_imports_nothing_of_the_model(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_it():
            ours = {name for name in sys.modules if name.startswith("hvkernel.")}
            assert ours == {"hvkernel.testing", "hvkernel.testing.plugin"}
            assert not {"pydantic", "numba", "numpy", "kconfiglib", "greenlet"} & set(sys.modules)
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:hypothesispytest")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("hvkernel: *")


# the fixtures --------------------------------------------------------------------------------------------------


def test_a_guest_its_host_and_their_time(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        def test_up(hv_guest, hv_host, hv_clock):
            assert (hv_guest.outcome, hv_guest.reason) == ("up", "")
            assert dict(hv_guest.values) == {"arch": "x86"}
            assert (hv_host.profile, hv_host.generation) == ("azure-gen2", 2)
            assert "hv_vmbus: Vmbus version:4.0" in hv_guest.dmesg
            states = {row.driver: row.state for row in hv_guest.report().devices}
            assert states["hv_storvsc"] == "bound"
            (disk,) = hv_guest.kernel.block.disks
            assert hv_guest.call(hv_guest.kernel.block.read, disk, 1, 1) == hv_host.disks[0].pread(512, 512)
            before = hv_clock.now
            hv_clock.advance(2.5)
            assert hv_clock.now - before == 25_000_000
            assert hv_clock.seconds == hv_clock.now / 1e7

        def test_events(hv_guest, hv_host, hv_clock):
            bus = hv_guest.kernel.driver.buses["vmbus"]
            names = [device.name for device in bus.devices]
            hv_host.vmbus.rescind("nic0")
            hv_clock.run_until(lambda: len(bus.devices) < len(names), 5)
            (gone,) = set(names) - {device.name for device in bus.devices}
            assert gone
            hv_guest.happen("rebind")
            with pytest.raises(ValueError, match="event 'flood': must be one of rescind, rebind"):
                hv_guest.happen("flood")
            with pytest.raises(TimeoutError, match="not within 2 s of virtual time"):
                hv_clock.run_until(lambda: False, 2)
            with pytest.raises(ValueError, match="seconds = -1: time does not go back"):
                hv_clock.advance(-1)

        def test_threads(hv_guest, hv_clock):
            done = []

            def work(number):
                hv_guest.kernel.sched.msleep(100 * number)
                done.append((number, round(hv_clock.seconds - began, 1)))

            began = hv_clock.seconds
            for number in (3, 1):
                hv_guest.spawn(work, number, name=f"worker {number}")
            hv_guest.wait()
            assert done == [(1, 0.1), (3, 0.3)]
            with pytest.raises(ZeroDivisionError):
                hv_guest.call(lambda: 1 // 0)

        def test_the_host_alone_boots_nothing(hv_host, hv_clock):
            assert hv_clock.now == 0
            assert {status.state for status in hv_host.vmbus.status()} == {"not offered"}

        @pytest.mark.hv_guest(boot=False)
        def test_a_test_may_boot_itself(hv_guest, hv_host):
            assert (hv_guest.outcome, hv_guest.dmesg) == ("", ())
            hv_host.vmbus.rescind("scsi0")
            assert hv_guest.boot() == "panic"
            assert hv_guest.reason.startswith("VFS: Unable to mount root fs")

        def test_the_cell_alone(hv_cell):
            assert (hv_cell.values, hv_cell.seed) == ((("arch", "x86"),), 0)

        def test_the_whole_cell(hv_result):
            assert (hv_result.status, hv_result.outcome, hv_result.phase) == ("pass", "up", "invariants")
        """
    )
    run(pytester, "-q").assert_outcomes(passed=7)


def test_no_guest_lives_longer_than_its_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import gc
        import pytest

        @pytest.mark.parametrize("number", range(3))
        def test_guest(hv_guest, number):
            from hvkernel.boot.session import Session
            gc.collect()
            assert sum(isinstance(one, Session) for one in gc.get_objects()) == 1
            assert number < 2
        """
    )
    pytester.runpytest_subprocess("-q", "-p", "no:hypothesispytest").assert_outcomes(passed=2, failed=1)


def test_the_example_of_the_manual(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_disks=(ROOT / "docs/examples/test_disks.py").read_text())
    result = run(pytester, "-v")
    result.assert_outcomes(passed=8)
    page = (ROOT / "docs/testing.rst").read_text()
    shown = [line.split()[0] for line in page.splitlines() if line.strip().startswith("test_disks.py::")]
    assert len(shown) == 4
    for name in shown:
        result.stdout.fnmatch_lines([f"{name.replace('[', '[[]')} PASSED*"])


def test_a_driver_of_a_third_party_in_its_own_project(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manual's second example: it passes with a sound driver and tells of one with a ring of native pages."""
    example = (ROOT / "docs/examples/test_lantern.py").read_text()
    for fault, passed, failed in (("", 9, 0), ("ring", 3, 6)):
        project = pytester.mkdir(f"project{fault}")
        install(project, fault)
        (project / "test_lantern.py").write_text(example)
        monkeypatch.setenv("PYTHONPATH", str(project))
        result = pytester.runpytest_subprocess("-p", "no:hypothesispytest", "-p", "no:cacheprovider", project)
        result.assert_outcomes(passed=passed, failed=failed)
    result.stdout.fnmatch_lines(
        [
            "*test_nothing_else_breaks[[]arm64-*64K*]*",
            "arch=arm64 page_size=64K HYPERV_LANTERN=? seed=0",
            "*hv_lantern: probe of 3f308d62-229a-5deb-8f20-d45c48e133cf failed with error -22",
            "pytest 'projectring/test_lantern.py::test_nothing_else_breaks[[]arm64-64K*]'",
        ]
    )


# the matrix ----------------------------------------------------------------------------------------------------

SIZES = """
    import pytest

    @pytest.mark.hv_matrix(arch=["x86", "arm64"], page_size=["4K", "16K", "64K"], cpus=[4, 1], %s)
    def test_sizes(hv_cell):
        pass
"""


def test_how_much_is_run(pytester: pytest.Pytester) -> None:
    """x86 has 4K pages only: 2 x 1 + 2 x 3 combinations are legal, and the pairs of page size and CPUs need six."""
    pytester.makepyfile(SIZES % "")
    everything = ["x86-4K", "x86-4K-cpus1"]
    everything += [f"arm64-{size}{more}" for size in ("4K", "16K", "64K") for more in ("", "-cpus1")]
    assert sorted(ids(pytester, "--hv-matrix=full")) == sorted(f"test_sizes[{name}]" for name in everything)
    smoke, pairwise = ids(pytester), ids(pytester, "--hv-matrix=pairwise")
    assert smoke == ids(pytester, "--hv-matrix=smoke")
    assert len(smoke) == 3
    assert all(any(value in name for name in smoke) for value in ("x86", "arm64", "4K", "16K", "64K", "cpus1"))
    assert len(pairwise) in (7, 8)
    assert len(set(pairwise)) == len(pairwise)
    assert {name.partition("-cpus")[0].rstrip("]") for name in pairwise} >= {
        "test_sizes[x86-4K",
        "test_sizes[arm64-64K",
    }
    assert ids(pytester, "-k", "arm64-16K and not cpus1", "--hv-matrix=full") == ["test_sizes[arm64-16K]"]


def test_a_mark_may_say_how_much_and_under_which_seeds(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SIZES % 'cover="full", seeds=[3, 9]')
    found = ids(pytester)
    assert len(found) == 16
    assert {"test_sizes[x86-4K-seed3]", "test_sizes[x86-4K-seed9]"} <= set(found)
    assert len(ids(pytester, "--hv-seed=5")) == 8


def test_symbols_the_vm_and_the_guests_own_seed_and_policy(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        f"""
        import pytest

        @pytest.mark.hv_matrix(HYPERV_STORAGE=["y", "m"], {MODULES}, vm={{"memory": "2G"}})
        def test_it(hv_guest, request):
            assert hv_guest.kernel.config.value("HYPERV_STORAGE") == hv_guest.values["HYPERV_STORAGE"]
            assert hv_guest.session.build.value("MODULES") == "y"
            assert sum(size for _, size in hv_guest.machine.memory.ram) == 2 << 30
            assert (hv_guest.machine.seed, hv_guest.session.report().seed) == (7, 7)
            assert hv_guest.values["policy"] == "random"

        def test_no_mark(hv_guest):
            assert hv_guest.machine.seed == 7
            assert hv_guest.values["policy"] == "random"
        """
    )
    result = run(pytester, "-v", "--hv-seed=7", "--hv-policy=random")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(
        ["hvkernel: --hv-seed=7 --hv-policy=random", "*::test_it[[]default] PASSED*",
         "*::test_it[[]HYPERV_STORAGE:m] PASSED*"]
    )  # fmt: skip


def test_a_spec_in_a_file_and_a_plugins_axis(pytester: pytest.Pytester) -> None:
    sub = pytester.mkdir("sub")
    (sub / "spec.toml").write_text('seeds = [4]\n[axes]\narch = ["x86", "arm64"]\nevents = ["none", "rebind"]\n')
    (sub / "test_sub.py").write_text(
        "import pytest\n"
        '@pytest.mark.hv_matrix("spec.toml", disk_size=["64M", "3T"], cover="full")\n'
        "class TestAll:\n"
        "    def test_it(self, hv_guest):\n"
        "        (disk,) = hv_guest.kernel.block.disks\n"
        "        assert disk.capacity == {'64M': 1 << 17, '3T': 3 << 31}[hv_guest.values['disk_size']]\n"
        "        times = sum('Attached SCSI disk' in line for line in hv_guest.dmesg)\n"
        "        assert times == {'none': 1, 'rebind': 2}[hv_guest.values['events']]\n"
        "    def test_without_a_guest(self):\n"
        "        pass\n"
    )
    result = run(pytester, "-v")
    result.assert_outcomes(passed=9)
    result.stdout.fnmatch_lines(["*TestAll::test_it[[]arm64-events:rebind-disk_size:3T] PASSED*"])


def test_the_default_spec_is_what_a_bare_mark_means(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest
        from hvkernel.config.matrix import default_spec

        @pytest.mark.hv_matrix
        def test_all(hv_cell):
            assert set(hv_cell.by_axis) == set(default_spec().varied)
        """
    )
    found = ids(pytester)
    run(pytester, "-q").assert_outcomes(passed=len(found))
    assert 4 <= len(found) < 40
    assert len(set(found)) == len(found)
    assert max(map(len, found)) < 160
    assert any(re.search(r"-and[0-9]+more-cell[0-9]+\]$", name) for name in found)


# what is wrong ---------------------------------------------------------------------------------------------------

FAILING = """
    import pytest

    @pytest.mark.hv_matrix(arch="arm64", page_size=["4K", "64K"], cover="full", seeds=[3, 4])
    def test_small_pages(hv_guest):
        hv_guest.call(hv_guest.kernel.printk.pr_info, "looking at \\x1b[31mpages")
        hv_guest.machine.report("odd", "guest", "the page is\\x1b[2J large", ("probe (x.c)",))
        assert hv_guest.kernel.mm.PAGE_SIZE == 4096
"""


def section(output: str, title: str) -> list[str]:
    """Lines of a section of the first failure."""
    lines = output.splitlines()
    start = next(number for number, line in enumerate(lines) if line.strip("- ").startswith(title))
    rest = lines[start + 1 :]
    end = next((number for number, line in enumerate(rest) if line[:3] in ("---", "===", "___")), len(rest))
    return rest[:end]


def test_the_report_of_a_failure_and_its_replay(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(FAILING)
    # The findings would fail the other two as well, which is another test's matter.
    result = run(pytester, "-k", "64K-seed4")
    result.assert_outcomes(failed=1, deselected=3)
    out = result.stdout.str()
    about = section(out, "hvkernel: the cell")
    assert about[0] == "arch=arm64 page_size=64K seed=4"
    assert about[1].startswith("up, at 0.")
    log = section(out, "hvkernel: last 40 lines of the log")
    assert len(log) == 40
    assert log[-1].endswith("] looking at \\x1b[31mpages")
    assert any(line.endswith("] hv_vmbus: Vmbus version:5.3") for line in log)
    found = section(out, "hvkernel: last 1 findings")
    assert found[0].startswith("odd (guest, at 0.")
    assert found[0].endswith("the page is\\x1b[2J large")
    assert found[1] == "    probe (x.c)"
    again, matrix = section(out, "hvkernel: run it again (seed 4)")
    name = "test_the_report_of_a_failure_and_its_replay.py::test_small_pages[arm64-64K-seed4]"
    assert again == f"pytest '{name}'"
    assert matrix == "hvkernel matrix --cell 'arch=arm64,page_size=64K' --seed 4"
    assert "\x1b" not in out
    run(pytester, *shlex.split(again)[1:]).assert_outcomes(failed=1)
    cell = command_line(pytester, matrix)
    assert cell.ret == 0, "by itself there is nothing wrong with this cell"
    assert "arch=arm64" in cell.stdout.str()


def test_the_replay_has_the_options_and_the_directory(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    sub = pytester.mkdir("sub")
    pytester.makeini("[pytest]")
    (sub / "test_sub.py").write_text(
        "import pytest\n"
        '@pytest.mark.hv_matrix(page_size=["16K", "64K"], arch="arm64", vm={"memory": "2G"})\n'
        "def test_it(hv_cell, hv_host):\n"
        '    assert hv_cell.by_axis["page_size"] == "16K"\n'
    )
    monkeypatch.chdir(pytester.mkdir("elsewhere"))
    result = run(pytester, "--hv-matrix=full", "--hv-seed=6", "--hv-policy=random", "../sub")
    result.assert_outcomes(passed=1, failed=1)
    # No command of hvkernel matrix can say the VM's memory, so there is none.
    wanted = "pytest '../sub/test_sub.py::test_it[arm64-64K]' --hv-matrix=full --hv-seed=6 --hv-policy=random"
    assert section(result.stdout.str(), "hvkernel: run it again (seed 6)") == [wanted]
    assert section(result.stdout.str(), "hvkernel: the cell")[1] == "not booted, at 0.000000 s of virtual time"


def test_a_whole_cell_that_fails(pytester: pytest.Pytester) -> None:
    (pytester.path / "spec.toml").write_text('[axes]\narch = ["x86", "arm64"]\n[budget]\nseconds = 0.3\n')
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.hv_matrix("spec.toml", arch="arm64")
        def test_it(hv_result):
            assert hv_result.status == "pass"
        """
    )
    result = run(pytester)
    result.assert_outcomes(failed=1)
    out = result.stdout.str()
    assert section(out, "hvkernel: the cell")[1] == "over-budget in phase boot, outcome none"
    assert section(out, "hvkernel: broken invariants") == ["budget: took more than 0.3 s of virtual time"]
    assert section(out, "hvkernel: last 4")
    spec = pytester.path / "spec.toml"
    matrix = section(out, "hvkernel: run it again")[1]
    assert matrix == f"hvkernel matrix --cell 'arch=arm64' --seed 0 {spec}"
    cell = command_line(pytester, matrix)
    assert cell.ret == 1
    cell.stdout.fnmatch_lines(["*took more than 0.3 s of virtual time*"])


def test_what_holds_for_every_guest_is_checked_after_a_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        def spoil(guest):
            guest.call(guest.kernel.printk.pr_warn, "WARNING: CPU: 0 PID: 1 at drivers/hv/hv.c:1 it()")

        def test_spoilt(hv_guest):
            spoil(hv_guest)

        def test_failed_anyway(hv_guest):
            spoil(hv_guest)
            assert False, "of its own"

        @pytest.mark.hv_guest(check=False)
        def test_unchecked(hv_guest):
            spoil(hv_guest)

        @pytest.mark.hv_guest(check=False)
        def test_checks_itself(hv_guest):
            hv_guest.check()
            spoil(hv_guest)
            with pytest.raises(AssertionError, match="^log: WARNING: CPU: 0"):
                hv_guest.check()
        """
    )
    result = run(pytester)
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines(
        ["the test passed, but not all is well with its guest:", "log: WARNING: CPU: 0 PID: 1 at *"]
    )
    assert result.stdout.str().count("not all is well") == 1, "a test that failed has its own reason"


def test_guests_that_do_not_come_up(pytester: pytest.Pytester) -> None:
    """A skipped test says why; whoever should come up and does not, or has a plugin that raises, is an error."""
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.hv_matrix(arch="x86", vm={"disks": []})
        def test_not_meant_to(hv_guest):
            raise AssertionError

        @pytest.fixture
        def sabotage(monkeypatch):
            from hvkernel_storvsc.vsc import Storvsc

            def storvsc_connect_to_vsp(*args):
                raise RuntimeError("sabotage")

            monkeypatch.setattr(Storvsc, "storvsc_connect_to_vsp", storvsc_connect_to_vsp)

        def test_sabotaged(sabotage, hv_guest):
            raise AssertionError

        @pytest.mark.hv_guest(boot=False)
        def test_sabotaged_on_purpose(sabotage, hv_guest):
            assert hv_guest.boot() == "panic"
            assert [fault.plugin for fault in hv_guest.faults] == ["hvkernel[hv_storvsc]"] * 2
        """
    )
    result = run(pytester, "-rs")
    result.assert_outcomes(skipped=1, errors=1, passed=1)
    result.stdout.fnmatch_lines(["SKIPPED * not meant to come up: the VM has no disk"])
    result.stdout.fnmatch_lines(
        [
            "*ERROR at setup of test_sabotaged *",
            "plugin hvkernel[[]hv_storvsc]: driver: RuntimeError: sabotage",
            "the guest is not up but panic: VFS: Unable to mount root fs on *",
        ]
    )
    assert section(result.stdout.str(), "hvkernel: plugins")[0].endswith("RuntimeError: sabotage")


def test_kernels_that_no_machine_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    values = (("arch", "x86"), ("host", "ws2022/gen2"))
    spec = MatrixSpec(axes={name: (value,) for name, value in values}, config={"EFI": "n"})
    case = cases.Case(spec, Cell(0, values, 0), "", None)
    with pytest.raises(guest.NoSuchGuest, match="EFI"):
        guest.Guest(case, PLUGINS)
    report: Any = SimpleNamespace(reason="does not link: hv_x: undefined symbol y")
    composed = Unsupported(report)
    monkeypatch.setattr(guest, "compose", lambda *args: composed)
    with pytest.raises(guest.NotLinked, match=r"^does not link: hv_x"):
        guest.Guest(case, PLUGINS)


# bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("--hv-matrix=most", "argument --hv-matrix: invalid choice: 'most' (choose from *smoke*pairwise*full*)"),
        ("--hv-seed=x", "argument --hv-seed: 'x' is no number from 0 to 18446744073709551615"),
        ("--hv-seed=-1", "argument --hv-seed: '-1' is no number from 0 to 18446744073709551615"),
        ("--hv-seed=18446744073709551616", "argument --hv-seed: '18446744073709551616' is no number from 0 to *"),
        ("--hv-policy=lifo", "argument --hv-policy: 'lifo' is not fifo, random (drawn from the seed) or random:SEED"),
        ("--hv-policy=random:", "argument --hv-policy: 'random:' is not fifo, random *"),
    ],
)
def test_bad_options_are_usage_errors(option: str, text: str, pytester: pytest.Pytester) -> None:
    result = run(pytester, option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*: error: {text}"])


@pytest.mark.parametrize(
    ("mark", "text"),
    [
        ('archs="x86"', "axes.archs: did you mean 'arch'? The axes are *"),
        ('arch="mips"', "axes.arch = 'mips': must be one of x86, arm64"),
        ("arch=[]", "axes.arch = []: must have at least one value"),
        ('HYPERV_STORAGE="maybe"', "symbols.HYPERV_STORAGE[[]0] = 'maybe': must be 'y', 'm' or 'n'"),
        ('HYPERV_NOWHERE="y"', "no cell is left: *HYPERV_NOWHERE*"),
        ('page_size="64K"', "no cell is left: *page_size*"),
        ('cover="most"', "cover = 'most': must be pairwise, full, t=1 to t=9, or a number of random cells"),
        ('arch="x86", cover="smoky"', "cover = 'smoky': must be pairwise, full, t=1 *"),
        ('arch="x86", seeds=0', "seeds = 0: must be 1 to 1000000 seeds, or a list of them"),
        ('arch="x86", seeds=20001', "cells = 20001: are too many for one test, which can have 20000: name fewer *"),
        ('arch="x86", vm={"cpu": 4}', "vm.cpu: unknown key"),
        ('arch="x86", kconfig={"EFI": "yes"}', "config.EFI = 'yes': must be 'y', 'm' or 'n'"),
        ('"nowhere.toml"', "*nowhere.toml: No such file or directory"),
        ("spec=3", "spec = 3: must be a path, 'default' or a MatrixSpec"),
        ('"default", "default"', "spec = 'default': is 'default' already"),
        ('"default", configs={"a": "b"}', "configs: stand in the spec, where there is one"),
        ('arch="x86", configs={"a": "b"}', "configs.a = 'b': No such file or directory"),
    ],
)
def test_bad_marks_are_errors_of_the_collection(mark: str, text: str, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        f"""
        import pytest

        @pytest.mark.hv_matrix({mark})
        def test_it(hv_guest):
            pass
        """
    )
    result = run(pytester)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.assert_outcomes(errors=1)
    lines = [line for line in result.outlines if "test_it: hv_matrix: " in line or "nowhere.toml" in line]
    assert len(lines) == 1, result.stdout.str()
    result.stdout.fnmatch_lines([text if "nowhere" in text.partition(":")[0] else f"*test_it: hv_matrix: {text}"])


def test_marks_that_mean_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.hv_guest(boots=False)
        def test_unknown(hv_guest):
            pass

        @pytest.mark.hv_guest(check="no")
        def test_no_truth_value(hv_guest):
            pass
        """
    )
    result = run(pytester)
    result.assert_outcomes(errors=2)
    must = "must be boot=True or False, check=True or False"
    result.stdout.fnmatch_lines([f"*::test_unknown: hv_guest: boots: {must}"])
    result.stdout.fnmatch_lines([f"*::test_no_truth_value: hv_guest: check='no': {must}"])
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.hv_matrix
        def test_it():
            pass
        """
    )
    run(pytester).stdout.fnmatch_lines(
        ["*::test_it: hv_matrix: the test takes none of hv_guest, hv_host, hv_clock, hv_cell and hv_result"]
    )


# xdist ---------------------------------------------------------------------------------------------------------


def test_under_xdist(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(FAILING)
    options = ("-n2", "-p", "no:hypothesispytest", "--hv-policy=random")
    result = pytester.runpytest_subprocess(*options)
    result.assert_outcomes(failed=4)
    out = result.stdout.str()
    assert out.count("hvkernel: run it again") == 4
    assert out.count(" lines of the log -") == 4
    assert out.count("' --hv-policy=random\n") == 4
    named = {line.partition("::")[2] for line in result.outlines if line.startswith("FAILED ")}
    assert len(named) == 4
