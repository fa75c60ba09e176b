"""``hvkernel boot``: one guest, one host, one report."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hvkernel.cli import inert

if TYPE_CHECKING:
    from hvkernel.boot.session import Session
    from hvkernel.config.report import BootReport


@click.command("boot")
@click.option("--config", type=click.Path(path_type=Path), help="The guest's .config or a fragment of one.")
@click.option("--arch", help="Architecture; read from the .config when not given.")
@click.option("--release", help="Kernel release, as 6.1; read from the .config's header when not given.")
@click.option("--page-size", help="Guest page size: 4K, 16K or 64K; read from the .config when not given.")
@click.option("--bits", type=int, help="Word size: 32 or 64; read from the .config when not given.")
@click.option("--cpus", type=int, help="Number of virtual processors (4).")
@click.option("--memory", help="Memory, as 1G (1G).")
@click.option("--host", help="Host profile, as azure-gen2 or ws2022/gen1.")
@click.option("--vm", type=click.Path(path_type=Path), help="A VM file (TOML); options on the line win over it.")
@click.option("--initrd", help="The initramfs: an image, a list of modules or a listing; none for a kernel alone.")
@click.option("--disk", type=click.Path(path_type=Path), help="Raw image of the boot disk; blank when not given.")
@click.option("--seed", type=int, help="Seed of every choice the model makes (0).")
@click.option("--policy", help="Scheduler: fifo or random:SEED (fifo).")
@click.option("--jit", is_flag=True, help="Copy ring data with the compiled loops; same bytes, same order.")
@click.option(
    "--trace",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Record the run in FILE; its suffix says the format. May be given again.",
)
@click.option("--sysfs", type=click.Path(path_type=Path), help="Write the guest's sysfs and debugfs to this directory.")
@click.option("--sysfs-live", is_flag=True, help="Stay until interrupted; writes into the directory reach the guest.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.pass_context
def command(ctx: click.Context, /, as_json: bool, **options: Any) -> None:
    """Boot a guest built from a .config on a modelled Hyper-V.

    Exit status: 0 the guest is up, 1 it is not or cannot run on this VM, 2 the input is wrong.
    """
    from hvkernel.boot.request import read_request
    from hvkernel.boot.session import boot
    from hvkernel.config.errors import InputError
    from hvkernel.kconfig import ConfigError

    def show(report: BootReport) -> None:
        if as_json:
            click.echo(report.to_json(), nl=False)
        else:
            _print(report)

    status: list[int] = []

    def attend(session: Session, report: BootReport) -> None:
        from hvkernel.cli.sysfs import attend_sysfs

        assert request.sysfs is not None
        status.append(attend_sysfs(session, report, show, request.sysfs))

    try:
        request = read_request(**options)
        report = boot(request, attend=attend if request.sysfs is not None else None)
    except (InputError, ConfigError) as error:
        raise click.ClickException(str(error)) from None
    if not status:
        show(report)
    ctx.exit(status[0] if status else report.exit_status)


def _print(report: BootReport) -> None:
    for line in report.dmesg:
        click.echo(f"[{line.t:12.6f}] {inert(line.text)}")
    if report.dmesg:
        click.echo()
    click.echo(device_table(report))
    counts = Counter((finding.side, finding.kind, finding.text) for finding in report.findings)
    for (side, kind, text), count in counts.items():
        times = f" ({count} times)" if count > 1 else ""
        click.echo(f"finding ({side}): {kind}: {inert(text)}{times}")
    for note in report.notes:
        click.echo(f"note: {inert(note)}")
    kernel, host = report.kernel, report.host
    bus = f", VMBus {report.vmbus.version}" if report.vmbus.version else ""
    reason = f": {inert(report.reason)}" if report.reason else ""
    click.echo(
        f"{report.outcome}{reason} (Linux {kernel.release} {kernel.arch} {kernel.bits}-bit, "
        f"{kernel.page_size // 1024}K pages, on {host.profile}/gen{host.generation}{bus}, seed {report.seed})"
    )


def device_table(report: BootReport) -> str:
    """Return the devices as a table of plain text, one line per offer."""
    head = ("relid", "class", "instance", "driver", "built", "state", "protocol")
    rows = [
        (
            str(device.relid),
            device.device_class,
            device.instance_guid,
            device.driver or "-",
            device.built or "-",
            device.state + (f" ({device.reason})" if device.reason else ""),
            device.protocol or "-",
        )
        for device in report.devices
    ]
    if not rows:
        return "no devices were offered"
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)
    )
