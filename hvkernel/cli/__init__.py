"""The ``hvkernel`` command. Each subcommand's module is imported only when it is asked for."""

from __future__ import annotations

import importlib
import os
import sys
from types import MappingProxyType
from typing import Final

import click

from hvkernel import __version__

__all__ = ["inert", "main"]

_COMMANDS: Final = MappingProxyType(
    {
        "abi": "Print the ABI: structs with offsets, constants, GUIDs.",
        "bench": "Measure boots and the ring on this machine.",
        "boot": "Boot a guest built from a .config on a modelled Hyper-V.",
        "check": "Say whether a .config runs on Hyper-V, and which line keeps it from that.",
        "decode": "Explain bytes of the VMBus: captures, hex dumps, rings, messages.",
        "matrix": "Run guests in every combination that matters; say which fail and why.",
        "plugins": "List the plugins, their hooks, and what is wrong with them.",
    }
)


class _Lazy(click.Group):
    """A group whose subcommands live in modules of their own name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command = importlib.import_module(f"hvkernel.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run the subcommand; a reader who has seen enough is no fault, and click would make it exit status 1."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            _discard_output()
            ctx.exit(0)
        except OSError as error:
            raise click.ClickException(str(error)) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(_COMMANDS.items()))


@click.group(cls=_Lazy, no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="hvkernel")
def cli() -> None:
    """Linux on Hyper-V as an executable, byte-exact model."""


def main() -> None:
    """Run the command line: exit status 0 as asked, 1 a fault was found, 2 the input is wrong (one line on stderr)."""
    try:
        status = cli.main(standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except click.exceptions.Exit as stop:
        status = stop.exit_code
    except click.Abort:
        status = 130
    except click.ClickException as error:
        print(f"hvkernel: {inert(' '.join(error.format_message().split()))}", file=sys.stderr)
        status = 2
    except OSError as error:  # of the last flush
        _discard_output()
        status = 0
        if not isinstance(error, BrokenPipeError):
            print(f"hvkernel: {error}", file=sys.stderr)
            status = 2
    sys.exit(status if isinstance(status, int) else 0)


def inert(text: str) -> str:
    """Return ``text`` with control characters made visible: a guest's line, or the name of a file, must not drive the
    reader's terminal."""
    return "".join(c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in text)


def _discard_output() -> None:
    """Send what is still buffered nowhere, or the interpreter would fail to write it once more when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
