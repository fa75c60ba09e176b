"""What a set of wire modules declares: the material of ``hvkernel abi``, the reference manual and the tests."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from types import ModuleType
from typing import NamedTuple

from hvkernel.abi.wire import Field, Guid, Wire


class Catalog(NamedTuple):
    """Declarations by kernel name, in name order."""

    structs: dict[str, type[Wire]]
    """C tag to class; a struct without counterpart in the kernel goes by its class name."""
    constants: dict[str, int | bytes]
    """Module constants and the members of enumerations."""
    guids: dict[str, Guid]
    by_page_size: dict[str, Callable[[int], int]]
    """Constants that depend on the guest's page size: modules list them in ``PAGE_SIZE_CONSTANTS``."""
    padded: dict[str, str]
    """Structs that the guest pads to its page, and the field that grows: modules list them in ``PAGE_SIZE_PADDING``."""


def architectures(modules: Iterable[ModuleType]) -> tuple[str, ...]:
    """Return the architectures that some module is for, in name order."""
    return tuple(sorted({module.ABI_ARCH for module in modules if hasattr(module, "ABI_ARCH")}))


def collect(modules: Iterable[ModuleType], arch: str | None = None) -> Catalog:
    """Return what the modules themselves define; what they import is left to its own module.

    :param arch: leave out modules whose ``ABI_ARCH`` is another architecture's.
    :raises ValueError: when two of them give one name two values, naming both.
    """
    found = Catalog({}, {}, {}, {}, {})
    origin: dict[str, str] = {}
    for module in modules:
        if arch is not None and getattr(module, "ABI_ARCH", arch) != arch:
            continue
        found.by_page_size.update(getattr(module, "PAGE_SIZE_CONSTANTS", {}))
        found.padded.update(getattr(module, "PAGE_SIZE_PADDING", {}))
        for name, value in _members(module):
            if isinstance(value, type):
                name = value.__kernel__ or value.__name__
                table: dict[str, object] = found.structs  # type: ignore[assignment]  # one of three
            else:
                table = found.guids if isinstance(value, Guid) else found.constants  # type: ignore[assignment]  # as above
            if name in table and table[name] != value:
                raise ValueError(f"{name} is {table[name]!r} in {origin[name]} but {value!r} in {module.__name__}")
            table[name] = value
            origin[name] = module.__name__
    return Catalog(*(dict(sorted(table.items())) for table in found))  # type: ignore[arg-type]  # same order


def _members(module: ModuleType) -> Iterator[tuple[str, type[Wire] | int | bytes]]:
    for name in inspect.get_annotations(module):
        value = getattr(module, name, None)
        if not name.startswith("_") and isinstance(value, int | bytes) and not isinstance(value, Enum):
            yield name, value
    for value in vars(module).values():
        if not isinstance(value, type) or value.__module__ != module.__name__:
            continue
        if issubclass(value, Wire) and "FIELDS" in vars(value):
            yield value.__name__, value
        elif issubclass(value, Enum):
            for name, member in value.__members__.items():
                yield name, int(member.value)


def flatten(cls: type[Wire], prefix: str = "", base: int = 0) -> Iterator[tuple[str, Field]]:
    """Yield every member with its path and its offset from the start of ``cls``.

    Members of a nested struct that has no C tag of its own follow as ``u.id``, as C's own names for them would be;
    those of an array of such structs as ``element[].name``, for element 0.
    """
    for field in cls.FIELDS:
        name = prefix + field.name
        placed = field._replace(offset=base + field.offset)
        yield name, placed
        if field.type is not None and not field.type.__kernel__:
            inner = "[]." if field.kind in ("wires", "tail") else "."
            yield from flatten(field.type, name + inner, placed.offset)
