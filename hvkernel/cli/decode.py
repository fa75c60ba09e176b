"""``hvkernel decode``: what bytes of the VMBus say, field by field."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from hvkernel.cli import inert

if TYPE_CHECKING:
    from hvkernel.abi.wire import Guid

MAX_INPUT: Final = 64 << 20
"""Bytes of a file at most."""


@click.command("decode")
@click.argument("file", required=False)
@click.option("--as", "kind", metavar="KIND", help="What it is: pcapng, synic, ring, messages, packets or hex.")
@click.option("--device", metavar="CLASS", help="Device class of packets that do not say theirs: a GUID or its name.")
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=1000, show_default=True, help="Records to explain.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--dissector", is_flag=True, help="Print the Wireshark dissector for the plugins that are installed.")
@click.pass_context
def command(
    ctx: click.Context,
    file: str | None,
    kind: str | None,
    device: str | None,
    limit: int,
    as_json: bool,
    dissector: bool,
) -> None:
    """Explain FILE (- for standard input): a hex dump, a pcapng file of hvkernel, a ring image, channel messages, ring
    packets, or SynIC message slots.

    Exit status: 0 nothing is wrong in it, 1 something is, 2 it is nothing of these.
    """
    from hvkernel.abi.meaning import dictionary
    from hvkernel.boot.plugins import load
    from hvkernel.decode.node import Unrecognised
    from hvkernel.decode.recognise import KINDS, explain
    from hvkernel.decode.render import to_json, to_text

    plugins = load()
    modules = [module for _, more in plugins.call("hv_abi") for module in more]
    for fault in plugins.faults:
        click.echo(str(fault), err=True)
    if dissector:
        from hvkernel.trace.dissector import dissector as lua

        if file is not None:
            raise click.UsageError("--dissector takes no FILE")
        click.echo(lua(modules), nl=False)
        return
    if file is None:
        raise click.UsageError("FILE is missing; - reads standard input")
    if kind is not None and kind not in KINDS:
        raise click.UsageError(f"--as {kind!r} is not known; choose from {', '.join(KINDS)}")
    guid = _device(device)
    data = _read(file)
    try:
        found = explain(data, dictionary(modules), kind=kind, limit=limit, device=guid)
    except Unrecognised as error:
        raise click.ClickException(f"{file}: {error}") from None
    if as_json:
        click.echo(json.dumps(to_json(found, file), indent=2))
    else:
        for line in to_text(found):
            click.echo(inert(line))
    ctx.exit(1 if any(one.all_problems() for one in found) else 0)


def _device(text: str | None) -> Guid | None:
    from hvkernel.abi.guids import GUIDS
    from hvkernel.abi.wire import Guid, WireError

    if text is None:
        return None
    if text in GUIDS:
        return GUIDS[text]
    try:
        return Guid.parse(text)
    except WireError:
        raise click.UsageError(f"--device {text!r} is neither a GUID nor one of {', '.join(GUIDS)}") from None


def _read(name: str) -> bytes:
    """Return the bytes of a file or of standard input.

    :raises click.ClickException: it cannot be read, or is too large.
    """
    try:
        if name == "-":
            data = sys.stdin.buffer.read(MAX_INPUT + 1)
        else:
            with Path(name).open("rb") as stream:
                data = stream.read(MAX_INPUT + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise click.ClickException(f"{name}: {why}") from None
    if len(data) > MAX_INPUT:
        raise click.ClickException(f"{name}: has more than the {MAX_INPUT} bytes that are read")
    return data
