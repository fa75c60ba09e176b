"""``hvkernel abi``: structs with offsets, constants and GUIDs, under the kernel's names."""

from __future__ import annotations

import difflib
import json
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from hvkernel.abi.catalog import Catalog

_PAGE_SIZES: Final = ("4096", "16384", "65536")


@click.command("abi")
@click.argument("name", required=False)
@click.option("--arch", default="x86_64", show_default=True, help="Architecture whose numbers to show, as in boot.")
@click.option("--page-size", default="4K", show_default=True, help="The guest's page size: 4K, 16K or 64K.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(ctx: click.Context, name: str | None, arch: str, page_size: str, as_json: bool) -> None:
    """Print the ABI, or only NAME: a struct's C tag, a constant or a GUID."""
    from hvkernel.abi import core_modules
    from hvkernel.abi.catalog import architectures, collect
    from hvkernel.boot.plugins import load
    from hvkernel.kconfig.configfile import ARCHES

    plugins = load()
    modules = list(core_modules())
    for _, more in plugins.call("hv_abi"):
        modules.extend(more)
    known = architectures(modules)
    for _, brought in plugins.call("hv_arch"):
        if ARCHES.get(arch) == brought.name:
            arch = brought.abi
    if arch not in known:
        raise click.UsageError(f"--arch {arch!r} is not known; choose from {', '.join(known)}")
    size = page_size.upper().removesuffix("B").removesuffix("I")
    size = str(int(size[:-1]) * 1024) if size[:-1].isdecimal() and size.endswith("K") else size
    if size not in _PAGE_SIZES:
        raise click.UsageError(f"--page-size {page_size!r} is not 4K, 16K or 64K")
    for _, brought in plugins.call("hv_arch"):
        if brought.abi == arch and int(size) not in brought.page_sizes:
            raise click.UsageError(
                f"--page-size {page_size!r}: {arch} has only {', '.join(map(str, brought.page_sizes))}"
            )
    try:
        catalog = collect(modules, arch)
    except ValueError as clash:
        raise click.ClickException(str(clash)) from None
    document = _document(catalog, arch, int(size))
    if name is not None:
        document = _only(document, name)
    if as_json:
        click.echo(json.dumps(document, indent=2))
    else:
        _show(catalog, document, whole=name is None)
    for fault in plugins.faults:
        click.echo(str(fault), err=True)
    ctx.exit(1 if plugins.faults else 0)


def _document(catalog: Catalog, arch: str, page_size: int) -> dict[str, Any]:
    constants = {n: v.decode("ascii") if isinstance(v, bytes) else v for n, v in catalog.constants.items()}
    constants |= {n: at(page_size) for n, at in catalog.by_page_size.items()}
    inner = {f.type for cls in catalog.structs.values() for f in cls.FIELDS if f.type is not None}
    return {
        "schema": 1,
        "arch": arch,
        "structs": {
            tag: _struct(catalog, tag, page_size)
            for tag, cls in catalog.structs.items()
            if cls.__kernel__ or cls not in inner  # the others' members stand in the struct that has them
        },
        "constants": dict(sorted(constants.items())),
        "guids": {n: {"guid": str(guid), "bytes": guid.hex()} for n, guid in catalog.guids.items()},
    }


def _struct(catalog: Catalog, tag: str, page_size: int) -> dict[str, Any]:
    from hvkernel.abi.catalog import flatten

    cls, grows = catalog.structs[tag], catalog.padded.get(tag)
    extra = page_size - cls.SIZE if grows else 0
    fields: list[dict[str, Any]] = []
    shift = 0
    for name, field in flatten(cls):
        row: dict[str, Any] = {"name": name, "offset": field.offset + shift, "size": field.size}
        if name == grows:
            row["size"] += extra
            shift = extra
        if field.bit_size:
            row |= {"bit_offset": field.bit_offset, "bit_size": field.bit_size}
        fields.append(row)
    return {"size": cls.SIZE + extra, "fields": fields}


def _only(document: dict[str, Any], name: str) -> dict[str, Any]:
    kinds = ("structs", "constants", "guids")
    if not any(name in document[kind] for kind in kinds):
        close = difflib.get_close_matches(name, [n for kind in kinds for n in document[kind]], n=1, cutoff=0.6)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise click.UsageError(f"nothing in the ABI is called {name!r}{hint}")
    return document | {kind: {n: v for n, v in document[kind].items() if n == name} for kind in kinds}


def _show(catalog: Catalog, document: dict[str, Any], *, whole: bool) -> None:
    for tag, struct in document["structs"].items():
        click.echo(f"{tag}: {struct['size']} bytes ({catalog.structs[tag].SOURCE})")
        if whole:
            continue
        for row in struct["fields"]:
            bits = f" bits {row['bit_offset']}+{row['bit_size']}" if "bit_size" in row else ""
            click.echo(f"  {row['offset']:#6x} {row['size']:5} {row['name']}{bits}")
    for name, value in document["constants"].items():
        click.echo(f"{name} = {value if isinstance(value, str) else f'{value:#x} ({value})'}")
    for name, row in document["guids"].items():
        click.echo(f"{name} = {row['guid']}")
