"""``hvkernel check``: does this ``.config`` run on Hyper-V, and if not, which line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hvkernel.cli import inert

if TYPE_CHECKING:
    from hvkernel.check.run import Checked
    from hvkernel.config.checkreport import Broken, CheckReport, TargetReport


@click.command("check")
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--target", "targets", multiple=True, help="Where it is to run, more than once; all for everything.")
@click.option("--rules", type=click.Path(path_type=Path), help="A target file of your own (TOML).")
@click.option("--release", help="Kernel release, as 6.1; read from the .config's header when not given.")
@click.option("--arch", help="Architecture; read from the .config when not given.")
@click.option("--from-release", help="With --to-release: the release that the .config is for now.")
@click.option("--to-release", help="Judge what olddefconfig of this release makes of the .config.")
@click.option(
    "--initrd", help="The initramfs: an image, a list of modules, what lsinitrd or lsinitramfs prints, or none."
)
@click.option("--boot", is_flag=True, help="Hold each verdict against a modelled boot.")
@click.option("--fragment", "as_fragment", is_flag=True, help="Print the lines that are missing, and nothing else.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.pass_context
def command(
    ctx: click.Context,
    config: Path,
    targets: tuple[str, ...],
    rules: Path | None,
    release: str | None,
    arch: str | None,
    from_release: str | None,
    to_release: str | None,
    initrd: str | None,
    boot: bool,
    as_fragment: bool,
    as_json: bool,
) -> None:
    """Say whether a kernel with this .config runs on Hyper-V, and if not, which lines keep it from that.

    Without --target the ordinary targets are judged that the kernel fits: hyperv-gen1, hyperv-gen2, azure.

    Exit status: 0 it runs everywhere that was asked for, 1 it does not, 2 the input is wrong.
    """
    from hvkernel.check.run import CheckRequest, check
    from hvkernel.config.errors import InputError
    from hvkernel.kconfig import ConfigError

    request = CheckRequest(config, targets, rules, release, arch, from_release, to_release, initrd, boot)
    try:
        if as_fragment and (as_json or boot):
            raise InputError(
                "--fragment", limit=f"prints the lines alone: not with {'--json' if as_json else '--boot'}"
            )
        checked = check(request)
    except (InputError, ConfigError) as error:
        raise click.ClickException(str(error)) from None
    if as_fragment:
        _print_fragment(checked)
        ctx.exit(int(bool(checked.left)))
    if as_json:
        click.echo(checked.report.to_json(), nl=False)
    else:
        _print(checked.report)
    ctx.exit(checked.report.exit_status)


def _print_fragment(checked: Checked) -> None:
    click.echo(checked.fragment, nl=False)
    for line in checked.left:
        click.echo(f"# still wrong: {inert(line)}")


def _print(report: CheckReport) -> None:
    kernel = report.kernel
    size = f"{kernel.page_size // 1024}K pages"
    click.echo(f"{inert(kernel.file)}: Linux {inert(kernel.release)} {kernel.arch} {kernel.bits}-bit, {size}")
    if report.upgrade is not None:
        _print_upgrade(report)
    for target in report.targets:
        _print_target(target)
    for note in report.notes:
        click.echo(f"note: {inert(note)}")


def _print_upgrade(report: CheckReport) -> None:
    assert report.upgrade is not None
    many = {0: "nothing of Hyper-V's", 1: "1 symbol:"}.get(len(report.upgrade), f"{len(report.upgrade)} symbols:")
    click.echo(f"\nolddefconfig of {inert(report.kernel.release)} changes {many}")
    for change in report.upgrade:
        before, after = change.before or "no such symbol", change.after or "no such symbol"
        # The first link is enough: the symbol that it blames was lost too, or stands there with its own.
        why = f" ({inert(change.because[0].partition(': ')[2])})" if change.kind in ("lost", "lowered") else ""
        click.echo(f"  {change.kind:8}{change.symbol}: {before} -> {after}{why}")


def _print_target(target: TargetReport) -> None:
    reason = f": {target.reason}" if target.reason else ""
    click.echo(f"\n{target.target}: {target.verdict}{reason}")
    _print_all(target.problems, "problem")
    _print_all(target.advice, "advice")
    if target.unknown:
        click.echo(f"  unknown: {', '.join(target.unknown)} (neither the file nor the Kconfig data say)")
    if target.boot is not None:
        agrees = {True: " (agrees)", False: " (DOES NOT AGREE)", None: ""}[target.boot.agrees]
        why = f": {inert(target.boot.reason)}" if target.boot.reason else ""
        host = f" on {target.boot.host}" if target.boot.host else ""
        click.echo(f"  boot: {target.boot.outcome}{host}{why}{agrees}")


def _print_all(broken: tuple[Broken, ...], title: str) -> None:
    """Print problems; those that one edit mends stand together, explained once."""
    groups: dict[tuple[str, ...], list[Broken]] = {}
    for number, one in enumerate(broken):
        groups.setdefault(one.edits or (str(number),), []).append(one)
    for group in groups.values():
        for one in group:
            line = f" (line {one.line})" if one.line else ""
            click.echo(
                f"  {title}: {one.symbol} is {inert(one.got)}{line}, wanted {inert(one.wanted)}: {inert(one.why)}"
            )
            click.echo(f"    see: {inert(one.evidence)}")
        longest = max(group, key=lambda one: len(one.because))
        for link in longest.because:
            click.echo(f"    {inert(link)}")
        proven = "" if longest.verified else " (not verified: the Kconfig data do not have this symbol)"
        for edit in longest.edits:
            click.echo(f"    edit: {edit}{proven}")
        if not longest.edits:
            click.echo("    edit: none was found that mends it")
