"""The pytest plugin: fixtures ``hv_guest``, ``hv_host``, ``hv_clock``, ``hv_cell``, ``hv_result``; two marks; options.

pytest loads this module in every project of an environment in which hvkernel is installed, so it imports the model
only when a test asks for it.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar, cast

import pytest

if TYPE_CHECKING:
    from hvkernel.boot.plugins import Plugins
    from hvkernel.matrix.model import Cell, CellResult
    from hvkernel.testing.cases import Case, Options
    from hvkernel.testing.guest import Guest, GuestClock, GuestHost
    from hvkernel.testing.sections import Watched

__all__ = ["hv_cell", "hv_clock", "hv_guest", "hv_host", "hv_plugins", "hv_result"]

T = TypeVar("T")

MATRIX_MARK: Final = (
    "hv_matrix(spec=None, *, cover=None, seeds=None, vm={}, kconfig={}, configs={}, rules=[], AXIS=VALUES...): "
    "run the test with the guests of a matrix: the axes of a spec, or those named here; CONFIG symbols in capitals."
)
GUEST_MARK: Final = (
    "hv_guest(boot=True, check=True): boot=False leaves booting to the test, check=False does not check after a test "
    "that passed what holds for every guest."
)
COVERS: Final = ("smoke", "pairwise", "full")
MOST_SEED: Final = (1 << 64) - 1

_PLUGINS: Final[pytest.StashKey[Plugins]] = pytest.StashKey()
_WATCHED: Final[pytest.StashKey[Watched]] = pytest.StashKey()


# the command line ----------------------------------------------------------------------------------------------


def _seed(text: str) -> int:
    if not text.isdecimal() or not text.isascii() or int(text) > MOST_SEED:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 to {MOST_SEED}")
    return int(text)


def _policy(text: str) -> str:
    if not re.fullmatch(r"fifo|random(:[0-9]{1,20})?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not fifo, random (drawn from the seed) or random:SEED")
    return text


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--hv-matrix``, ``--hv-seed`` and ``--hv-policy``."""
    group = parser.getgroup("hvkernel", "guests on Hyper-V (hvkernel)")
    group.addoption(
        "--hv-matrix",
        choices=COVERS,
        default=COVERS[0],
        help="How much of the matrix of @pytest.mark.hv_matrix is run: smoke, every value of every axis in some guest "
        "(the default); pairwise, every legal pair; full, every legal combination.",
    )
    group.addoption(
        "--hv-seed", type=_seed, metavar="N", help="Seed of every guest, instead of what the tests ask for."
    )
    group.addoption(
        "--hv-policy",
        type=_policy,
        metavar="P",
        help="Scheduling policy of every guest: fifo, random or random:SEED.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marks."""
    config.addinivalue_line("markers", MATRIX_MARK)
    config.addinivalue_line("markers", GUEST_MARK)


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say with what guests tests are run, where it is not the default."""
    given = _given(config)
    return f"hvkernel: {' '.join(given)}" if given else None


def _given(config: pytest.Config) -> list[str]:
    """Return our options, as far as they are not the default."""
    option = config.option
    found = [] if option.hv_matrix == COVERS[0] else [f"--hv-matrix={option.hv_matrix}"]
    found += [] if option.hv_seed is None else [f"--hv-seed={option.hv_seed}"]
    found += [] if option.hv_policy is None else [f"--hv-policy={option.hv_policy}"]
    return found


def _options(config: pytest.Config) -> Options:
    from hvkernel.testing.cases import Options

    option = config.option
    return Options(option.hv_matrix, option.hv_seed, option.hv_policy)


def _plugins(config: pytest.Config) -> Plugins:
    """Return the plugins that are installed, loaded once for a run."""
    if _PLUGINS not in config.stash:
        from hvkernel.boot.plugins import load

        config.stash[_PLUGINS] = load()
    return config.stash[_PLUGINS]


# the marks -----------------------------------------------------------------------------------------------------


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test of each cell that its mark asks for."""
    definition = metafunc.definition
    where = f"{definition.nodeid}: hv_matrix"
    if "_hv_case" not in metafunc.fixturenames:
        if any(mark.name == "hv_matrix" for mark in definition.own_markers):
            _refuse(f"{where}: the test takes none of hv_guest, hv_host, hv_clock, hv_cell and hv_result")
        return
    mark = definition.get_closest_marker("hv_matrix")
    if mark is None:
        return
    from hvkernel.config.errors import InputError
    from hvkernel.testing.cases import cases_of

    config = metafunc.config
    try:
        cases = cases_of(mark.args, mark.kwargs, _options(config), _plugins(config), where, definition.path.parent)
    except InputError as error:
        _refuse(str(error))
    metafunc.parametrize("_hv_case", cases, indirect=True, ids=[case.name for case in cases], scope="function")


def _refuse(text: str) -> NoReturn:
    """Fail without a traceback: the text says it all, and the fault is not where it was noticed."""
    raise pytest.fail.Exception(text, pytrace=False) from None


def _settings(request: pytest.FixtureRequest) -> tuple[bool, bool]:
    """Return (boot, check) of the mark ``hv_guest``."""
    mark = request.node.get_closest_marker("hv_guest")
    given = {"boot": True, "check": True}
    if mark is not None:
        wrong = [*map(repr, mark.args), *(key for key in mark.kwargs if key not in given)]
        wrong += [f"{key}={value!r}" for key, value in mark.kwargs.items() if not isinstance(value, bool)]
        if wrong:
            _refuse(f"{request.node.nodeid}: hv_guest: {wrong[0]}: must be boot=True or False, check=True or False")
        given.update(mark.kwargs)
    return given["boot"], given["check"]


# the fixtures --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def hv_plugins(pytestconfig: pytest.Config) -> Plugins:
    """The loaded plugins and architectures: all that are installed. A conftest may define it anew."""
    return _plugins(pytestconfig)


@pytest.fixture
def _hv_case(request: pytest.FixtureRequest) -> Case:
    from hvkernel.testing.cases import default_case

    found = getattr(request, "param", None)
    return default_case(_options(request.config)) if found is None else cast("Case", found)


@pytest.fixture
def _hv_run(request: pytest.FixtureRequest, _hv_case: Case, hv_plugins: Plugins) -> Iterator[Guest]:
    from hvkernel.testing.guest import Guest, NoSuchGuest, NotLinked
    from hvkernel.testing.sections import Watched

    watched = request.node.stash[_WATCHED] = Watched(_hv_case, hv_plugins)
    try:
        guest = watched.guest = Guest(_hv_case, hv_plugins)
    except NoSuchGuest as error:
        pytest.skip(str(error))
    except NotLinked as error:
        _refuse(str(error))
    yield guest
    guest.close()


@pytest.fixture
def hv_guest(request: pytest.FixtureRequest, _hv_run: Guest) -> Guest:
    """A guest that is up (:class:`hvkernel.testing.guest.Guest`).

    A test whose guest is not meant to come up is skipped, and says why; one whose guest should and does not is an
    error. After a test that passed, what holds for every guest is checked.
    """
    from hvkernel.testing.guest import NoSuchGuest, Wrong

    boot, check = _settings(request)
    if boot:
        try:
            _hv_run.boot()
            _hv_run.expect_up()
        except NoSuchGuest as error:
            pytest.skip(str(error))
        except Wrong as error:
            _refuse(str(error))
    request.node.stash[_WATCHED].check = check
    return _hv_run


@pytest.fixture
def hv_host(_hv_run: Guest) -> GuestHost:
    """The host of the test's guest (:class:`hvkernel.testing.guest.GuestHost`), which boots with ``hv_guest`` only."""
    from hvkernel.testing.guest import GuestHost

    return GuestHost(_hv_run.session)


@pytest.fixture
def hv_clock(_hv_run: Guest) -> GuestClock:
    """Virtual time of the test's guest and host (:class:`hvkernel.testing.guest.GuestClock`)."""
    from hvkernel.testing.guest import GuestClock

    return GuestClock(_hv_run.run)


@pytest.fixture
def hv_cell(_hv_case: Case) -> Cell:
    """The cell that the test is run with (:class:`hvkernel.matrix.model.Cell`); nothing is booted for it."""
    return _hv_case.cell


@pytest.fixture
def hv_result(request: pytest.FixtureRequest, _hv_case: Case, hv_plugins: Plugins) -> CellResult:
    """What became of the whole cell, as ``hvkernel matrix`` runs it (:class:`hvkernel.matrix.model.CellResult`).

    It is built, booted, its devices are driven, its events happen, it is shut down, and every invariant is checked,
    in a guest of its own.
    """
    from hvkernel.matrix.cell import CellRunner
    from hvkernel.testing.sections import Watched

    watched: Watched = request.node.stash.setdefault(_WATCHED, Watched(_hv_case, hv_plugins))
    found = watched.result = CellRunner(_hv_case.spec, hv_plugins).run(_hv_case.cell)
    return found


# running and reporting -----------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, T, T]:
    """Check the guest of a test that passed."""
    passed = yield
    watched = pyfuncitem.stash.get(_WATCHED, None)
    if watched is not None and watched.check and watched.guest is not None and watched.guest.was_up:
        from hvkernel.testing.guest import Wrong

        try:
            watched.guest.settle()
            watched.guest.check()
        except Wrong as error:
            _refuse(f"the test passed, but not all is well with its guest:\n{error}")
    return passed


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put the guest, its log, its findings and how to run it again into the report of a test that failed."""
    report = yield
    watched = item.stash.get(_WATCHED, None)
    if watched is not None:
        if report.failed:
            report.sections.extend(watched.sections(_pytest_command(item)))
        if report.when == "teardown":
            # pytest keeps its items until the end of a run, and a guest is some megabytes.
            del item.stash[_WATCHED]
    return report


def _pytest_command(item: pytest.Item) -> str:
    """Return the command that runs a test again, from the directory that pytest was started in."""
    config = item.config
    file, colons, rest = item.nodeid.partition("::")
    path = os.path.relpath(config.rootpath / file, config.invocation_params.dir)
    return " ".join(["pytest", shlex.quote(f"{path}{colons}{rest}"), *_given(config)])
