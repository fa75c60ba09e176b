"""``hvkernel plugins``: what is loaded, from where, and what could not be."""

from __future__ import annotations

import json

import click


@click.command("plugins")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """List the plugins, their hooks, and what is wrong with them (exit status 1 if anything is)."""
    from hvkernel.boot.plugins import load

    plugins = load()
    if as_json:
        document = {
            "schema": 1,
            "plugins": [
                {
                    "name": info.name,
                    "distribution": info.distribution,
                    "version": info.version,
                    "contract": info.contract,
                    "hooks": list(info.hooks),
                }
                for info in plugins.infos
            ],
            "faults": [{"plugin": f.plugin, "where": f.where, "text": f.text} for f in plugins.faults],
        }
        click.echo(json.dumps(document, indent=2))
    else:
        from rich.console import Console
        from rich.table import Table

        table = Table()
        for column in ("name", "distribution", "version", "contract", "hooks"):
            table.add_column(column, overflow="fold")
        for info in plugins.infos:
            table.add_row(info.name, info.distribution, info.version, info.contract, " ".join(info.hooks))
        console = Console()
        with console.capture() as shown:  # it would make a closed pipe exit status 1
            console.print(table)
        click.echo(shown.get(), nl=False)
        for fault in plugins.faults:
            click.echo(str(fault), err=True)
    ctx.exit(1 if plugins.faults else 0)
