"""Code generation behind `hvkernel.abi.wire`: one compiled codec per struct, made on first use.

Kept apart from the declarations because nothing here is part of anyone's interface.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from hvkernel.abi._values import Buffer, Guid, WireError

if TYPE_CHECKING:
    import numpy as np

    from hvkernel.abi.wire import Field, Wire


def short(cls: type[Wire], buffer: Buffer, offset: int) -> WireError:
    """Return the error for a buffer that ends too early."""
    got = len(buffer) - offset if offset >= 0 else 0
    return WireError(f"{cls.__name__} needs {cls.SIZE} bytes at offset {offset}, got {max(got, 0)} ({cls.SOURCE})")


def _limits(field: Field) -> tuple[int, int]:
    bits = field.bit_size or 8 * struct.calcsize(field.code)
    return (-1 << bits - 1, (1 << bits - 1) - 1) if field.code.islower() else (0, (1 << bits) - 1)


def _complaint(field: Field, value: Any) -> str | None:
    """Say what is wrong with one value, or None."""
    kind = field.kind
    if kind in ("int", "bits"):
        return _int_complaint(field, value)
    if kind in ("bytes", "guid"):
        if not isinstance(value, bytes | bytearray):
            return f"is {type(value).__name__}; it must be bytes"
        return None if len(value) == field.size else f"is {len(value)} bytes; it must be exactly {field.size}"
    if kind == "wire":
        return None if isinstance(value, field.type) else f"is {type(value).__name__}; it must be {field.type.__name__}"
    try:
        items = list(value)
    except TypeError:
        return f"is {type(value).__name__}; it must be a sequence of {field.elements}"
    if len(items) != field.elements:
        return f"has {len(items)} elements; it must have exactly {field.elements}"
    for index, item in enumerate(items):
        if kind == "wires":
            wrong = (
                None if isinstance(item, field.type) else f"is {type(item).__name__}; it must be {field.type.__name__}"
            )
        else:
            wrong = _int_complaint(field, item)
        if wrong:
            return f"[{index}] {wrong}"
    return None


def _int_complaint(field: Field, value: Any) -> str | None:
    try:
        number = value.__index__()
    except AttributeError:
        return f"is {type(value).__name__}; it must be an integer"
    low, high = _limits(field)
    if low <= number <= high:
        return None
    unit = f"a bit-field of {field.bit_size} bits" if field.bit_size else f"{struct.calcsize(field.code)} bytes"
    return f"= {number:#x} does not fit in {unit}: limits {low:#x} to {high:#x}"


def explain(self: Wire) -> WireError:
    """Find the field that made `pack` fail."""
    cls = type(self)
    for field in cls.FIELDS:
        if field.overlay or field.kind == "tail":
            continue
        value = getattr(self, field.name)
        wrong = _complaint(field, value)
        if wrong:
            return WireError(f"{cls.__name__}.{field.name} ({cls.SOURCE}) {wrong}")
        if field.kind == "wire":
            try:
                value.pack()
            except WireError as inner:
                return WireError(f"{cls.__name__}.{field.name}: {inner}")
        elif field.kind == "wires":
            for index, item in enumerate(value):
                try:
                    item.pack()
                except WireError as inner:
                    return WireError(f"{cls.__name__}.{field.name}[{index}]: {inner}")
    return WireError(f"{cls.__name__} ({cls.SOURCE}) cannot be packed")


def explain_element(where: str, code: str, items: tuple[Any, ...]) -> WireError:
    """Find the element that made packing an array fail."""
    from hvkernel.abi.wire import Field

    field = Field("", 0, struct.calcsize(code), "int", code)
    for index, item in enumerate(items):
        wrong = _int_complaint(field, item)
        if wrong:
            return WireError(f"{where}: element {index} {wrong}")
    return WireError(f"{where} cannot be packed")


def raw_reader(field: Field) -> Callable[[Buffer], Any]:
    """Return a function from the struct's bytes to one member."""
    offset, size = field.offset, field.size
    if field.kind == "bits":
        shift, mask, unit = field.bit_offset, (1 << field.bit_size) - 1, struct.Struct("<" + field.code).unpack_from
        return lambda raw: (unit(raw, offset)[0] >> shift) & mask
    if field.kind == "int":
        one = struct.Struct("<" + field.code).unpack_from
        return lambda raw: one(raw, offset)[0]
    if field.kind == "ints":
        many = struct.Struct(f"<{field.elements}{field.code}").unpack_from
        return lambda raw: many(raw, offset)
    if field.kind == "bytes":
        return lambda raw: bytes(raw[offset : offset + size])
    if field.kind == "guid":
        return lambda raw: Guid(raw[offset : offset + size])
    cls, step = field.type, field.type.SIZE
    if field.kind == "wire":
        return lambda raw: cls.unpack(raw, offset)
    return lambda raw: tuple(cls.unpack(raw, at) for at in range(offset, offset + size, step))


def overlay_getter(field: Field, fields: tuple[Field, ...], is_union: bool) -> Callable[[Any], Any]:
    """Return the property getter of a member that owns no bytes."""
    if is_union:
        read = raw_reader(field)
        return lambda self: read(self._raw)
    end = field.offset + field.size
    for owner in fields:
        if (
            owner.kind not in ("bytes", "int")
            or owner.overlay
            or not owner.offset <= field.offset <= end <= (owner.offset + owner.size)
        ):
            continue
        inner, name, size = raw_reader(field._replace(offset=field.offset - owner.offset)), owner.name, owner.size
        if owner.kind == "bytes":
            return lambda self: inner(getattr(self, name))
        mask = (1 << 8 * size) - 1
        return lambda self: inner((getattr(self, name) & mask).to_bytes(size, "little"))
    whole = raw_reader(field)
    return lambda self: whole(self.pack())


class _Member(NamedTuple):
    field: Field
    mask: int
    """Its bits in the struct read as one number."""
    shift: int
    whole: Callable[[Any], bytes] | None
    """Packs a plain integer that is the whole struct."""
    top: int
    """Largest value of an integer or bit-field; -1 for anything else."""


def members_of(cls: type[Wire]) -> dict[str, _Member]:
    """Return the members that values can be assembled of; made once per class."""
    table: dict[str, _Member] | None = cls.__dict__.get("_MEMBERS")
    if table is None:
        table = {}
        for field in cls.FIELDS:
            if field.kind == "tail":
                continue
            shift = 8 * field.offset + field.bit_offset
            mask = (1 << (field.bit_size or 8 * field.size)) - 1 << shift
            whole = struct.Struct("<" + field.code).pack if field.kind == "int" and field.size == cls.SIZE else None
            top = _limits(field)[1] if field.kind in ("int", "bits") else -1
            table[field.name] = _Member(field, mask, shift, whole, top)
        type.__setattr__(cls, "_MEMBERS", table)
    return table


def assemble(cls: type[Wire], members: dict[str, Any], base: bytes | None = None) -> bytes:
    """Return the bytes in which the named members have their values and every other bit is that of ``base`` or zero."""
    table = members_of(cls)
    if base is None and len(members) == 1:
        ((name, value),) = members.items()
        row = table.get(name)
        if row is not None and row.whole is not None:
            try:
                return row.whole(value)
            except struct.error:
                pass  # the general way says what is wrong
    word = int.from_bytes(base, "little") if base is not None else 0
    taken = 0
    for name, value in members.items():
        row = table.get(name)
        if row is None:
            raise WireError(f"{cls.__name__} has no member {name!r} ({cls.SOURCE})")
        field, mask, shift, _, top = row
        if taken & mask:
            other = next(one for one in members if table[one].mask & mask)
            raise WireError(f"{cls.__name__}.{name} overlaps {cls.__name__}.{other}: name one ({cls.SOURCE})")
        taken |= mask
        if value.__class__ is int and 0 <= value <= top:
            word = word & ~mask | value << shift
            continue
        wrong = _complaint(field, value)
        if wrong:
            raise WireError(f"{cls.__name__}.{name} ({cls.SOURCE}) {wrong}")
        word = word & ~mask | _bits_of(field, value, (mask >> shift).bit_length()) << shift
    return word.to_bytes(cls.SIZE, "little")


def _bits_of(field: Field, value: Any, width: int) -> int:
    if field.kind in ("int", "bits"):
        return int(value.__index__()) & (1 << width) - 1
    if field.kind == "ints":
        raw = struct.pack(f"<{field.elements}{field.code}", *value)
    elif field.kind == "wire":
        raw = value.pack()
    elif field.kind == "wires":
        raw = b"".join(item.pack() for item in value)
    else:
        raw = bytes(value)
    return int.from_bytes(raw, "little")


class _Emitter:
    """Walks nested structs and writes the source of pack and unpack."""

    def __init__(self) -> None:
        self.format = ""
        self.checks: list[str] = []
        self.values: list[str] = []
        self.build: list[str] = []
        self.scope: dict[str, Any] = {}
        self._at = 0
        self._index = 0
        self._temps = 0

    def name(self, stem: str, value: Any) -> str:
        name = f"_{stem}{len(self.scope)}"
        self.scope[name] = value
        return name

    def walk(self, cls: type[Wire], path: str, base: int, target: str) -> None:
        """Emit one struct at ``base``; ``path`` reads it when packing, ``target`` names it when building."""
        pending: list[Field] = []
        for field in (*cls.FIELDS, None):
            if field is not None and (field.overlay or field.kind == "tail"):
                continue
            if pending and (field is None or field.kind != "bits" or field.offset != pending[0].offset):
                self._bits(pending, path, base, target)
                pending = []
            if field is None:
                return
            if field.kind == "bits":
                pending.append(field)
            else:
                self._one(field, path, base, target)

    def _pad_to(self, offset: int) -> None:
        if offset > self._at:
            self.format += f"{offset - self._at}x"
            self._at = offset

    def _take(self, text: str, size: int, slots: int) -> int:
        self.format += text
        self._at += size
        first = self._index
        self._index += slots
        return first

    def _setter(self, field: Field, target: str, value: str) -> None:
        self.build.append(f"{target}.{field.name} = {value}")

    def _bits(self, group: list[Field], path: str, base: int, target: str) -> None:
        self._pad_to(base + group[0].offset)
        index = self._take(group[0].code, group[0].size, 1)
        reads = [(f, f"{path}.{f.name}") for f in group]
        self.checks += [f"{read} >> {f.bit_size}" for f, read in reads]
        self.values.append(" | ".join(f"{read} << {f.bit_offset}" if f.bit_offset else read for f, read in reads))
        for f in group:
            shifted = f"v[{index}] >> {f.bit_offset}" if f.bit_offset else f"v[{index}]"
            whole = f.bit_offset + f.bit_size == 8 * f.size
            self._setter(f, target, shifted if whole else f"({shifted}) & {(1 << f.bit_size) - 1:#x}")

    def _one(self, field: Field, path: str, base: int, target: str) -> None:
        read = f"{path}.{field.name}"
        self._pad_to(base + field.offset)
        if field.kind == "int":
            index = self._take(field.code, field.size, 1)
            self.values.append(read)
            self._setter(field, target, f"v[{index}]")
        elif field.kind == "ints":
            index = self._take(f"{field.elements}{field.code}", field.size, field.elements)
            self.checks.append(f"len({read}) != {field.elements}")
            self.values.append(f"*{read}")
            self._setter(field, target, f"v[{index}:{index + field.elements}]")
        elif field.kind == "wire" and not hasattr(field.type, "_raw"):
            self._temps += 1
            temp = f"t{self._temps}"
            kind = self.name("C", field.type)
            self.checks.append(f"{read}.__class__ is not {kind}")
            self.build.append(f"{temp} = _new({self.name('W', writable(field.type))})")
            self.walk(field.type, read, base + field.offset, temp)
            self.build.append(f"{temp}.__class__ = {kind}")
            self._pad_to(base + field.offset + field.size)
            self._setter(field, target, temp)
        else:
            self._blob(field, read, target)

    def _blob(self, field: Field, read: str, target: str) -> None:
        index = self._take(f"{field.size}s", field.size, 1)
        value, v = read, f"v[{index}]"
        if field.kind in ("bytes", "guid"):
            self.checks.append(f"len({read}) != {field.size}")
            if field.kind == "guid":
                v = f"_guid({self.name('g', Guid)}, {v})"
        elif field.kind == "wire":
            kind = self.name("C", field.type)
            self.checks.append(f"{read}.__class__ is not {kind}")
            value, v = f"{read}._raw", f"{kind}.unpack({v})"
        else:
            kind = self.name("C", field.type)
            self.checks.append(f"len({read}) != {field.elements}")
            value = f"b''.join([_item({kind}, x) for x in {read}])"
            v = f"_many({kind}, {v})"
        self.values.append(value)
        self._setter(field, target, v)


def writable(cls: type[Wire]) -> type[Wire]:
    """Return the twin of a struct class whose fields can be assigned.

    Generated code fills a twin with plain assignments and turns it into the immutable class at the end, which costs
    a third of calling every slot's setter. No twin is ever handed out.
    """
    twin: type[Wire] | None = cls.__dict__.get("_WRITABLE")
    if twin is None:
        body = {
            "__slots__": cls.__dict__["__slots__"],
            "__setattr__": object.__setattr__,
            "__delattr__": object.__delattr__,
        }
        twin = type(cls.__name__, cls.__bases__, body)
        type.__setattr__(cls, "_WRITABLE", twin)
    return twin


def _item(kind: type[Wire], value: Any) -> bytes:
    if value.__class__ is not kind:
        raise TypeError
    return bytes(value.pack())


def _many(kind: type[Wire], raw: bytes) -> tuple[Wire, ...]:
    return tuple(kind.unpack(raw, at) for at in range(0, len(raw), kind.SIZE))


def compile_codec(cls: type[Wire]) -> type[Wire]:
    """Give the declared class (or the base of ``cls`` that was declared) its generated methods and return it."""
    declared: type[Wire] | None = next((c for c in cls.__mro__ if "FIELDS" in c.__dict__), None)
    if declared is None:
        raise WireError(f"{cls.__name__} is not declared with @wire(size=, source=)")
    emit = _Emitter()
    emit.walk(declared, "self", 0, "self")
    emit._pad_to(declared.SIZE)
    fields = [f for f in declared.FIELDS if not f.overlay and f.kind != "tail"]
    codec = struct.Struct("<" + emit.format)
    assert codec.size == declared.SIZE, (declared, emit.format)
    names = [f.name for f in fields]
    check = f"        if {' or '.join(emit.checks)}: raise TypeError\n" if emit.checks else ""
    make = "".join(f"    self.{n} = {n}\n" for n in names)
    build = "".join(f"    {line}\n" for line in emit.build)
    source = (
        f"def __new__(_cls, {', '.join(names)}):\n"
        f"    self = _new(_Writable)\n{make}    self.__class__ = _cls\n    return self\n"
        "def pack(self):\n    try:\n"
        f"{check}        return _pack({', '.join(emit.values)})\n"
        "    except (_error, _wire_error, TypeError, AttributeError):\n        raise _explain(self) from None\n"
        "def unpack(cls, buffer, offset=0):\n"
        f"    if offset < 0 or len(buffer) - offset < {declared.SIZE}: raise _short(cls, buffer, offset)\n"
        "    v = _unpack(buffer, offset)\n    self = _new(_Writable)\n"
        f"{build}    self.__class__ = cls\n    return self\n"
        f"def _key(self):\n    return ({''.join(f'self.{n}, ' for n in names)})\n"
    )
    scope = emit.scope | {
        "_pack": codec.pack,
        "_unpack": codec.unpack_from,
        "_error": struct.error,
        "_wire_error": WireError,
        "_explain": explain,
        "_short": short,
        "_new": object.__new__,
        "_Writable": writable(declared),
        "_guid": bytes.__new__,
        "_item": _item,
        "_many": _many,
    }
    exec(compile(source, f"<codec of {declared.__name__}>", "exec"), scope)
    scope["__new__"].__doc__ = f"Make one {declared.__name__} of its fields in order."
    declared.__new__ = staticmethod(scope["__new__"])  # type: ignore[method-assign]  # the stub's place
    for name in ("pack", "_key"):
        scope[name].__doc__ = getattr(declared, name).__doc__
        setattr(declared, name, scope[name])
    scope["unpack"].__doc__ = declared.unpack.__doc__
    declared.unpack = classmethod(scope["unpack"])  # type: ignore[method-assign,assignment]  # the same
    return declared


def numpy_dtype(cls: type[Wire]) -> np.dtype[np.void]:
    """Return the struct's layout as a numpy dtype; unions keep their overlapping arms."""
    import numpy

    names: list[str] = []
    formats: list[Any] = []
    offsets: list[int] = []
    for field in cls.FIELDS:
        name = f"bits_{field.offset}" if field.kind == "bits" else field.name
        if field.kind == "tail" or name in names:
            continue
        names.append(name)
        offsets.append(field.offset)
        formats.append(_numpy_format(field))
    return numpy.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": cls.SIZE})


def _numpy_format(field: Field) -> Any:
    if field.kind == "guid":
        return ("u1", (16,))
    if field.kind == "wire":
        return field.type.dtype
    if field.kind == "wires":
        return (field.type.dtype, field.dims)
    letter = ("i" if field.code.islower() else "u") + str(struct.calcsize("<" + field.code))
    return (f"<{letter}", field.dims) if field.kind in ("ints", "bytes") else f"<{letter}"
