"""What of a ``.config`` comes to nothing although no rule asks about it."""

from __future__ import annotations

from collections.abc import Collection

from hvkernel.kconfig import Build
from hvkernel.kconfig.kbuild import is_hyperv

__all__ = ["asked_in_vain", "no_such_symbols"]


def asked_in_vain(build: Build, told: Collection[str] = ()) -> tuple[str, ...]:
    """Return a line for each symbol that comes out lower than the file asks, with the reason.

    :param told: symbols of which something is said elsewhere.
    """
    lines = build.file.lines
    return tuple(
        f"{build.source}:{lines[lost.symbol]}: CONFIG_{lost.symbol}={lost.wanted} comes out {lost.got}: {lost.reason}"
        for lost in build.lost()
        if lost.symbol not in told and lost.symbol in lines
    )


def no_such_symbols(build: Build, told: Collection[str] = ()) -> tuple[str, ...]:
    """Return a line for each symbol of Hyper-V's that the file sets and the release does not have.

    :param told: symbols of which something is said elsewhere.
    """
    file = build.file
    return tuple(
        f"{build.source}:{line}: no such symbol in Linux {build.data_release} ({build.arch}): "
        f"CONFIG_{symbol}={file.values[symbol]} builds nothing there"
        for symbol, line in file.lines.items()
        if file.values[symbol] in ("y", "m") and symbol not in told and is_hyperv(symbol) and not build.known(symbol)
    )
