"""``hvkernel matrix``: many guests in every combination that matters, and what makes the failing ones fail."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from hvkernel.cli import inert

if TYPE_CHECKING:
    from hvkernel.config.matrix import MatrixSpec
    from hvkernel.matrix.job import Job
    from hvkernel.matrix.report import Report
    from hvkernel.matrix.runner import Progress
    from hvkernel.matrix.store import Store

_NOT_WITH_CELL: Final = ("cover", "seeds", "jobs", "scheduler", "store", "html", "junit", "shrink")


@click.command("matrix")
@click.argument("spec", required=False, type=click.Path(path_type=Path))
@click.option("--cover", help="How much is run: pairwise, t=3 and so on, full, or N random cells.")
@click.option("--seeds", type=int, help="Run each combination under this many seeds.")
@click.option("--jobs", type=int, help="Worker processes (all cores).")
@click.option("--scheduler", help="Address of a Dask scheduler whose workers run the cells.")
@click.option("--store", type=click.Path(path_type=Path), help="Keep the results here; the same command resumes.")
@click.option("--html", type=click.Path(path_type=Path), help="Write one self-contained page.")
@click.option("--junit", type=click.Path(path_type=Path), help="Write JUnit XML.")
@click.option("--shrink", type=click.IntRange(min=0), help="Look for the causes of at most this many failures (20).")
@click.option("--cell", help="Run one cell here and now: AXIS=VALUE,AXIS=VALUE.")
@click.option("--seed", type=click.IntRange(0, 2**64 - 1), help="Seed of --cell (0).")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.pass_context
def command(ctx: click.Context, /, spec: Path | None, **options: Any) -> None:
    """Build and boot guests in every combination of values, drive their devices, and check that all invariants hold.

    SPEC.toml names the axes; without it all that is modelled is run, pairwise. A cell that fails is shrunk to the few
    values that matter, with the command that runs it again.

    Exit status: 0 every cell passed, 1 some did not, 2 the input is wrong, 130 interrupted.
    """
    from hvkernel.config.errors import InputError
    from hvkernel.kconfig import ConfigError
    from hvkernel.matrix.worker import WorkerError

    try:
        status = _one_cell(spec, options) if options["cell"] is not None else _whole(spec, options)
    except (InputError, ConfigError, WorkerError) as error:
        raise click.ClickException(str(error)) from None
    ctx.exit(status)


# one cell ------------------------------------------------------------------------------------------------------


def _one_cell(path: Path | None, options: dict[str, Any]) -> int:
    from hvkernel.matrix.job import replay

    for name in _NOT_WITH_CELL:
        if options[name] is not None:
            raise click.UsageError(f"--{name} does not go with --cell")
    result, printed = replay(_spec(path), options["cell"], options["seed"] or 0)
    for line in printed:
        click.echo(inert(line), err=True)
    if options["as_json"]:
        click.echo(result.to_json())
    else:
        cell = result.cell
        click.echo(
            f"cell: {' '.join(f'{inert(axis)}={inert(value)}' for axis, value in cell.values)}, seed {cell.seed}"
        )
        for line in result.dmesg:
            click.echo(inert(line))
        for problem in result.problems:
            click.echo(f"{inert(problem.invariant)}: {inert(problem.text)}")
        ended = f"{inert(result.outcome)}, " if result.outcome else ""
        where = f"phase {result.phase}, " if result.phase else ""
        click.echo(
            f"{result.status} ({ended}{where}{result.virtual / 10_000_000:.3f} s of virtual time, {result.steps} steps)"
        )
    return int(result.status != "pass")


# all of them ---------------------------------------------------------------------------------------------------


def _whole(path: Path | None, options: dict[str, Any]) -> int:
    if options["seed"] is not None:
        raise click.UsageError("--seed goes with --cell; --seeds says how many each combination is run under")
    if options["scheduler"] is not None and options["jobs"] is not None:
        raise click.UsageError("--jobs does not go with --scheduler, whose workers run the cells")
    _check_outputs(options)
    from hvkernel.cli.matrix_progress import meter
    from hvkernel.matrix.job import open_job
    from hvkernel.matrix.report import MAX_CAUSES
    from hvkernel.matrix.runner import check_jobs

    check_jobs(options["jobs"])
    job = open_job(_spec(path, options["cover"], options["seeds"]))
    with _store(job, options["store"]) as store, meter(sys.stderr, len(job.cells)) as shown:
        progress = job.run(store, jobs=options["jobs"], scheduler=options["scheduler"], progress=shown.progress)
        report = job.report(store)
        stopped = progress.interrupted
        # Neither causes that cannot be looked for nor a page that cannot be written keep an hour's results back.
        with ExitStack() as last:
            last.callback(lambda: _print(job, report, progress, stopped, options))
            last.callback(_write_files, job, report, store, options)
            last.callback(shown.close)
            last.callback(lambda: report.attribute(store.failures()))
            if not stopped:
                limit = MAX_CAUSES if options["shrink"] is None else options["shrink"]
                stopped = job.explain(report, limit=limit, progress=shown.shrinking)
    return 128 + stopped if stopped else int(report.failed > 0)


def _spec(path: Path | None, cover: str | None = None, seeds: int | None = None) -> MatrixSpec:
    from hvkernel.config.matrix import change_spec, default_spec, load_spec

    spec = default_spec() if path is None else load_spec(path)
    for option, key, value in (("--cover", "cover", cover), ("--seeds", "seeds", seeds)):
        if value is not None:
            spec = change_spec(spec, {key: value}, where=option)
    return spec


def _check_outputs(options: dict[str, Any]) -> None:
    """Refuse what could not be written at the end of an hour, or would overwrite one another."""
    seen: dict[Path, str] = {}
    for name in ("store", "html", "junit"):
        path: Path | None = options[name]
        if path is None:
            continue
        if path.is_dir():
            raise click.UsageError(f"--{name} {path}: is a directory")
        # A device or a pipe would be replaced by a file of its name.
        if path.exists() and not path.is_file():
            raise click.UsageError(f"--{name} {path}: is no file")
        parent = path.resolve().parent
        if not parent.is_dir():
            raise click.UsageError(f"--{name} {path}: there is no directory {parent}")
        if not os.access(parent, os.W_OK | os.X_OK):
            raise click.UsageError(f"--{name} {path}: the directory {parent} cannot be written")
        other = seen.setdefault(path.resolve(), name)
        if other != name:
            raise click.UsageError(f"--{name} {path}: is the file of --{other}")


@contextmanager
def _store(job: Job, path: Path | None) -> Iterator[Store]:
    """Open the results; without ``--store`` they live as long as the command."""
    from hvkernel.matrix.store import Store

    if path is not None:
        with Store(path, job.spec) as store:
            yield store
        return
    with (
        tempfile.TemporaryDirectory(prefix="hvkernel-matrix-") as directory,
        Store(Path(directory) / "results.sqlite", job.spec) as store,
    ):
        yield store


def _write_files(job: Job, report: Report, store: Store, options: dict[str, Any]) -> None:
    if options["html"] is not None:
        from hvkernel.matrix.report_html import render

        _write(options["html"], lambda out: out.write(render(report)))
    if options["junit"] is not None:
        from hvkernel.matrix.junit import write_junit

        _write(options["junit"], lambda out: write_junit(out, report, store.results(), replay=job.replay_of))


def _write(path: Path, fill: Callable[[Any], object]) -> None:
    """Write a file beside its place and rename it into it: whoever reads it never sees half of it."""
    path = path.resolve()  # a link stays one
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("w", encoding="utf-8", newline="\n") as out:
            fill(out)
        beside.replace(path)
    except BaseException as error:
        with suppress(OSError):
            beside.unlink()
        if isinstance(error, OSError):
            raise click.ClickException(f"{path}: cannot be written: {error.strerror}") from None
        raise


def _print(job: Job, report: Report, progress: Progress, stopped: int, options: dict[str, Any]) -> None:
    if options["as_json"]:
        from hvkernel.matrix.report_json import to_json

        click.echo(to_json(report), nl=False)
        return
    _print_summary(job, report, progress)
    _print_undriven(report)
    _print_causes(report)
    left = report.planned - report.done
    if stopped and left:
        kept = options["store"]
        resume = f"; the same command goes on from {inert(str(kept))}" if kept else ""
        click.echo(f"interrupted with {left} cell{'s' if left > 1 else ''} left{resume}")
    elif stopped:
        click.echo("interrupted while the failures were shrunk")


def _print_summary(job: Job, report: Report, progress: Progress) -> None:
    title = f"{inert(report.title)}: " if report.title else ""
    cover = job.spec.cover if isinstance(job.spec.cover, str) else "random"
    click.echo(f"{title}{len(report.axes)} axes, {cover}, {report.planned} cells")
    here = progress.done - progress.earlier
    counts = report.counts
    click.echo(
        f"{counts['pass']} passed, {counts['fail']} failed, {counts['crash']} crashed, "
        f"{counts['over-budget']} over budget"
    )
    earlier = f", {progress.earlier} had a result before" if progress.earlier else ""
    replaced = f", {progress.replaced} of them replaced" if progress.replaced else ""
    workers = f"{progress.workers} worker{'' if progress.workers == 1 else 's'}{replaced}"
    click.echo(f"{here} cells in {progress.seconds:.1f} s, {progress.rate:.1f} a second, {workers}{earlier}")


def _print_undriven(report: Report) -> None:
    """Say of which devices a run that is green says little."""
    for name, cells in sorted(report.undriven.items()):
        click.echo(
            f"not driven in {cells} cell{'s' if cells > 1 else ''}: {inert(name)}, of whose class there is no drive"
        )


def _print_causes(report: Report) -> None:
    """Print each cause once with its first cell, then each kind of failure that has none."""
    shown: set[tuple[int | None, str]] = set()
    for failure in report.failures:
        key = (failure.cause, failure.kind)
        if key in shown:
            continue
        shown.add(key)
        alike = report.cells[key]
        why = "not shrunk" if failure.cause is None else report.causes[failure.cause][1].text
        command = failure.replay if failure.cause is None else report.causes[failure.cause][1].replay
        click.echo(f"\n{inert(failure.kind)} ({alike} cell{'s' if alike > 1 else ''}): {inert(why)}")
        for problem in failure.result.problems[:3]:
            click.echo(f"  {inert(problem.invariant)}: {inert(problem.text)}")
        click.echo(f"  replay: {inert(command)}")
