"""Declare a wire struct once; get a checked codec, a numpy dtype, offsets and a docs table.

An annotation carries the width, the string under a field documents it, and ``size=``/``source=`` pin the
declaration to the C header it mirrors::

    @wire(size=16, source="include/linux/hyperv.h:617 @6.1.192")
    class VmbusChannelModifychannelResponse(Wire):
        \"\"\"Host answers a change of target vCPU.\"\"\"
        __kernel__ = "vmbus_channel_modifychannel_response"
        header: VmbusChannelMessageHeader
        child_relid: u32
        status: u32

Field forms:

======================================================  ===============================================
``x: u32``                                              integer, little-endian (``u8`` .. ``u64``, ``s8`` .. ``s64``)
``x: Annotated[int, Bits(u32, 3)]``                     bit-field of 3 bits in a ``u32`` unit, packed as gcc does
``x: Annotated[bytes, 120]``                            array of bytes
``x: Annotated[tuple[int, ...], u64, 30]``              array of integers, flattened, last index fastest
``x: Guid``                                             `Guid`
``x: Header``                                           nested struct or union
``x: Annotated[tuple[Message, ...], 16]``               array of structs
``x: u8 = overlay(8)``                                  another view of bytes that other fields own (union arm)
``x = tail(u64)``                                       flexible array member: no bytes here, a codec for what follows
======================================================  ===============================================

Structs are packed unless ``packed=False``, which lays them out with C alignment: padding is written as zero
and dropped on reading. A `@union` class holds raw bytes and reads every arm from them.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterable
from types import MappingProxyType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Final,
    Literal,
    NamedTuple,
    NoReturn,
    Self,
    TypeVar,
    dataclass_transform,
    get_args,
)

from hvkernel.abi import _codec
from hvkernel.abi._values import Buffer, Guid, WireError

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "Bits",
    "Buffer",
    "Field",
    "Guid",
    "Tail",
    "Union",
    "Wire",
    "WireError",
    "overlay",
    "s8",
    "s16",
    "s32",
    "s64",
    "tail",
    "u8",
    "u16",
    "u32",
    "u64",
    "union",
    "wire",
]

u8 = Annotated[int, "B"]
u16 = Annotated[int, "H"]
u32 = Annotated[int, "I"]
u64 = Annotated[int, "Q"]
s8 = Annotated[int, "b"]
s16 = Annotated[int, "h"]
s32 = Annotated[int, "i"]
s64 = Annotated[int, "q"]

_WIDTH: Final = MappingProxyType({"B": 1, "H": 2, "I": 4, "Q": 8, "b": 1, "h": 2, "i": 4, "q": 8})


class Bits(NamedTuple):
    """A bit-field: ``width`` bits of a storage unit of the given integer type."""

    storage: Any
    width: int


class Field(NamedTuple):
    """Where one member lies, in bytes and bits."""

    name: str
    offset: int
    size: int
    """Bytes; of a bit-field, those of its storage unit; of a flexible array, 0."""
    kind: Literal["int", "bits", "bytes", "guid", "ints", "wire", "wires", "tail"]
    code: str = ""
    """`struct` letter of an integer, an integer array's element or a bit-field's unit."""
    bit_offset: int = 0
    bit_size: int = 0
    dims: tuple[int, ...] = ()
    type: Any = None
    """The nested `Wire` or `Union` class."""
    overlay: bool = False
    """True when other members own these bytes."""

    @property
    def elements(self) -> int:
        """Elements of an array, all dimensions multiplied; 1 for a scalar."""
        total = 1
        for dim in self.dims:
            total *= dim
        return total


class _Overlay(NamedTuple):
    offset: int


def overlay(offset: int, *, init: Literal[False] = False) -> Any:
    """Place a member at ``offset`` bytes, over whatever else is there.

    In a struct such a member can be read, and written only through `Wire.from_members`.
    """
    return _Overlay(offset)


class Tail:
    """A flexible array member: its offset, and a codec for its elements."""

    __slots__ = ("element", "name", "offset", "owner")

    def __init__(self, element: Any) -> None:
        self.element = get_args(element)[1] if get_args(element) else element
        self.name = self.owner = ""
        self.offset = 0

    @property
    def element_size(self) -> int:
        """Bytes of one element."""
        return _WIDTH[self.element] if isinstance(self.element, str) else int(self.element.SIZE)

    def pack(self, values: Iterable[Any]) -> bytes:
        """Return the bytes of the elements.

        :raises WireError: naming the element that does not fit.
        """
        items = tuple(values)
        if not isinstance(self.element, str):
            return b"".join(item.pack() for item in items)
        try:
            return struct.pack(f"<{len(items)}{self.element}", *items)
        except struct.error:
            raise _codec.explain_element(f"{self.owner}.{self.name}", self.element, items) from None

    def unpack(self, buffer: Buffer, count: int, offset: int = 0) -> tuple[Any, ...]:
        """Read ``count`` elements of the struct that begins at ``offset``.

        :raises WireError: when the buffer ends before them.
        """
        start, size = offset + self.offset, self.element_size
        if count < 0 or len(buffer) - start < count * size:
            raise WireError(
                f"{self.owner}.{self.name}: {count} elements of {size} bytes need {max(count, 0) * size} bytes, "
                f"got {max(len(buffer) - start, 0)}"
            )
        if isinstance(self.element, str):
            return struct.unpack_from(f"<{count}{self.element}", buffer, start)
        return tuple(self.element.unpack(buffer, start + i * size) for i in range(count))


def tail(element: Any) -> Tail:
    """Declare a flexible array member of integers (``tail(u64)``) or structs (``tail(GpaRange)``)."""
    return Tail(element)


class _Dtype:
    """Builds the numpy dtype when first asked for, so that declaring structs does not import numpy."""

    def __get__(self, _: object, owner: type[Wire]) -> np.dtype[np.void]:
        built = _codec.numpy_dtype(owner)
        type.__setattr__(owner, "dtype", built)
        return built


class Wire:
    """Base of every wire struct: little-endian, immutable, no defaults."""

    __slots__ = ()
    __kernel__: ClassVar[str] = ""
    """The C tag; empty when the struct has no counterpart in the kernel."""
    SIZE: ClassVar[int]
    """Bytes of the fixed part."""
    ALIGN: ClassVar[int]
    SOURCE: ClassVar[str]
    FIELDS: ClassVar[tuple[Field, ...]]
    """Every member in the order of the declaration, overlays and flexible arrays included."""
    dtype: ClassVar[np.dtype[np.void]] = _Dtype()  # type: ignore[assignment]  # a descriptor that gives one
    """The same layout, for numpy views and numba kernels; bit-field units are called ``bits_<offset>``."""

    def __init_subclass__(cls) -> None:
        if "__slots__" not in cls.__dict__ and any(hasattr(base, "FIELDS") for base in cls.__bases__):
            raise TypeError(f"{cls.__name__}: a subclass of a declared struct needs __slots__ = ()")

    # The four below replace themselves on the class with generated code when first used.

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        _codec.compile_codec(cls)
        return cls.__new__(cls, *args, **kwargs)

    def pack(self) -> bytes:
        """Return the bytes that go on the wire.

        :raises WireError: naming the first field whose value does not fit.
        """
        return _codec.compile_codec(type(self)).pack(self)

    @classmethod
    def unpack(cls, buffer: Buffer, offset: int = 0) -> Self:
        """Read one struct out of ``buffer`` at ``offset``; what follows it is ignored.

        :raises WireError: when fewer than `SIZE` bytes are there.
        """
        _codec.compile_codec(cls)
        return cls.unpack(buffer, offset)

    def _key(self) -> tuple[Any, ...]:
        return _codec.compile_codec(type(self))._key(self)

    @classmethod
    def from_members(cls, **members: Any) -> Self:
        """Build from any members that do not overlap, overlays too; bytes not named are zero.

        :raises WireError: for an unknown member, two that overlap, or a value that does not fit.
        """
        return cls.unpack(_codec.assemble(cls, members))

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some constructor fields changed."""
        names = [f.name for f in type(self).FIELDS if not f.overlay and f.kind != "tail"]
        unknown = sorted(set(changes) - set(names))
        if unknown:
            raise WireError(f"{type(self).__name__} has no field {unknown[0]!r} to replace ({self.SOURCE})")
        return type(self)(**{name: changes.get(name, getattr(self, name)) for name in names})

    @classmethod
    def field(cls, name: str) -> Field:
        """Return the layout of one member.

        :raises WireError: when there is none of that name.
        """
        for info in cls.FIELDS:
            if info.name == name:
                return info
        raise WireError(f"{cls.__name__} has no field {name!r} ({cls.SOURCE})")

    @classmethod
    def offset_of(cls, name: str) -> int:
        """Return a member's offset in bytes, as C's ``offsetof``."""
        return cls.field(name).offset

    def __eq__(self, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        parts = (
            f"{f.name}={value:#x}" if isinstance(value := getattr(self, f.name), int) and value > 9
            else f"{f.name}={value!r}"
            for f in type(self).FIELDS
            if not f.overlay and f.kind != "tail"
        )  # fmt: skip
        return f"{type(self).__name__}({', '.join(parts)})"

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is immutable; use replace({name}=...)")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is immutable")

    def __reduce__(self) -> tuple[Callable[..., Self], tuple[bytes]]:
        return type(self).unpack, (self.pack(),)


class Union(Wire):
    """Base of every wire union: raw bytes, every arm read from them.

    Built from members that do not overlap, usually one: ``HvSynicSint(as_uint64=x)`` or
    ``HvSynicSint(vector=0xf3, auto_eoi=1)``. Bits that no member names are zero.
    """

    __slots__ = ("_raw",)
    _raw: bytes

    def __new__(cls, **members: Any) -> Self:
        self = object.__new__(cls)
        _set_raw(self, _codec.assemble(cls, members))
        return self

    @classmethod
    def unpack(cls, buffer: Buffer, offset: int = 0) -> Self:
        """Take `SIZE` bytes of ``buffer`` at ``offset``.

        :raises WireError: when fewer are there.
        """
        if offset < 0 or len(buffer) - offset < cls.SIZE:
            raise _codec.short(cls, buffer, offset)
        self = object.__new__(cls)
        _set_raw(self, bytes(buffer[offset : offset + cls.SIZE]))
        return self

    def pack(self) -> bytes:
        """Return the bytes that go on the wire."""
        return self._raw

    def _key(self) -> tuple[Any, ...]:
        return (self._raw,)

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some members changed, the other bits kept."""
        return type(self).unpack(_codec.assemble(type(self), changes, self._raw))

    def __repr__(self) -> str:
        return f"{type(self).__name__}.unpack(bytes.fromhex({self._raw.hex()!r}))"


_set_raw: Callable[[Union, bytes], None] = Union.__dict__["_raw"].__set__

W = TypeVar("W", bound=Wire)
U = TypeVar("U", bound=Union)


@dataclass_transform(frozen_default=True, field_specifiers=(overlay,))
def wire(*, size: int, source: str, packed: bool = True, align: int | None = None) -> Callable[[type[W]], type[W]]:
    """Turn an annotated class into a wire struct of exactly ``size`` bytes.

    :param size: what the source says; checked when the class is made.
    :param source: ``file:line @version``, a TLFS section, ``observed: ...`` or ``unspecified: ...``.
    :param packed: False lays members out with C alignment and padding.
    :param align: C alignment where the source states one (``__aligned``).
    :raises TypeError: when the fields do not add up to ``size``.
    """

    def decorate(cls: type[W]) -> type[W]:
        return _build(cls, size, source, packed, align)

    return decorate


def union(*, size: int, source: str, align: int = 1) -> Callable[[type[U]], type[U]]:
    """Turn an annotated class into a wire union of exactly ``size`` bytes.

    Every arm begins at offset 0 unless declared with `overlay`; consecutive bit-fields share a unit.

    :param align: C alignment, for use inside structs that are not packed.
    :raises TypeError: when the largest arm is not ``size`` bytes.
    """

    def decorate(cls: type[U]) -> type[U]:
        return _build(cls, size, source, True, align)

    return decorate


def _build(cls: type[W], size: int, source: str, packed: bool, align: int | None = None) -> type[W]:
    is_union = issubclass(cls, Union)
    fields, total, natural = _layout(cls, is_union, packed, align)
    if total != size:
        raise TypeError(f"{cls.__name__}: fields add up to {total} bytes, {source} says {size}")
    body = {k: v for k, v in vars(cls).items() if k not in ("__dict__", "__weakref__") and not isinstance(v, _Overlay)}
    body["__slots__"] = () if is_union else tuple(f.name for f in fields if not f.overlay and f.kind != "tail")
    body["__match_args__"] = body["__slots__"]
    body["SIZE"], body["SOURCE"], body["FIELDS"] = size, source, fields
    body["ALIGN"] = natural
    body["__doc__"] = f"{cls.__doc__ or ''}\n\n{_table(fields, size, source, packed)}"
    for field in fields:
        if field.overlay:
            body[field.name] = property(_codec.overlay_getter(field, fields, is_union))
    built: type[W] = type(cls.__name__, cls.__bases__, body)
    built.__qualname__ = cls.__qualname__
    return built


def _resolve(text: Any, scope: dict[str, Any]) -> Any:
    if not isinstance(text, str):
        return text
    found = scope.get(text)
    return eval(text, scope) if found is None else found


def _layout(cls: type[Wire], is_union: bool, packed: bool, force: int | None) -> tuple[tuple[Field, ...], int, int]:
    """Return the fields, the size and the natural alignment."""
    scope = vars(sys.modules[cls.__module__])
    fields: list[Field] = []
    at, end, align = 0, 0, force or 1
    unit: tuple[str, int, int] | None = None  # letter, offset, bits used
    for name, text in cls.__annotations__.items():
        if hasattr(Wire, name):
            raise TypeError(f"{cls.__name__}: a field cannot be called {name!r}, Wire has a member of that name")
        spec = _resolve(text, scope)
        placed = cls.__dict__.get(name)
        field, natural = _field(name, spec)
        is_overlay = is_union or isinstance(placed, _Overlay)
        if isinstance(placed, _Overlay):
            at, unit = placed.offset, None
        elif is_union and (field.kind != "bits" or unit is None):
            at, unit = 0, None
        if field.kind == "bits":
            if unit is None or unit[0] != field.code or unit[2] + field.bit_size > 8 * field.size:
                at = at if packed else -(-at // natural) * natural
                unit = (field.code, at, 0)
                at += field.size
            field = field._replace(offset=unit[1], bit_offset=unit[2], overlay=is_overlay)
            unit = (unit[0], unit[1], unit[2] + field.bit_size)
        else:
            unit = None
            at = at if packed else -(-at // natural) * natural
            field = field._replace(offset=at, overlay=is_overlay)
            at += field.size
        fields.append(field)
        if not isinstance(placed, _Overlay) or is_union:
            end = max(end, at)
        else:
            at = end
        align = align if packed else max(align, natural)
    for name, value in cls.__dict__.items():
        if isinstance(value, Tail):
            value.name, value.owner, value.offset = name, cls.__name__, end
            code = value.element if isinstance(value.element, str) else ""
            fields.append(Field(name, end, 0, "tail", code, type=None if code else value.element))
            align = align if packed else max(align, _WIDTH[code] if code else value.element.ALIGN)
    return tuple(fields), -(-end // align) * align, align


def _field(name: str, spec: Any) -> tuple[Field, int]:
    """Return one member at offset 0 and its C alignment."""
    if spec is Guid:
        return Field(name, 0, 16, "guid"), 1
    if isinstance(spec, type) and issubclass(spec, Wire):
        return Field(name, 0, spec.SIZE, "wire", type=spec), spec.ALIGN
    kind, *notes = get_args(spec) or (None,)
    if kind is int and isinstance(notes[0], Bits):
        code = get_args(notes[0].storage)[1]
        return Field(name, 0, _WIDTH[code], "bits", code, bit_size=notes[0].width), _WIDTH[code]
    if kind is int:
        return Field(name, 0, _WIDTH[notes[0]], "int", notes[0]), _WIDTH[notes[0]]
    if kind is bytes:
        count = 1
        for dim in notes:
            count *= dim
        return Field(name, 0, count, "bytes", "B", dims=tuple(notes)), 1
    element, *dims = (get_args(kind)[0], *notes) if get_args(kind) else (None,)
    if element is int:
        code, field = get_args(dims[0])[1], Field(name, 0, 0, "ints", get_args(dims[0])[1], dims=tuple(dims[1:]))
        return field._replace(size=field.elements * _WIDTH[code]), _WIDTH[code]
    if isinstance(element, type) and issubclass(element, Wire):
        field = Field(name, 0, 0, "wires", dims=tuple(dims), type=element)
        return field._replace(size=field.elements * element.SIZE), element.ALIGN
    raise TypeError(f"{name}: {spec!r} is not a wire field form")


def _table(fields: tuple[Field, ...], size: int, source: str, packed: bool) -> str:
    # Shown by Sphinx under the class docstring.
    rows = "".join(
        f"   {f.offset:#x}, {f.size or '…'}, ``{f.name}``{f' bits {f.bit_offset}+{f.bit_size}' if f.bit_size else ''}\n"
        for f in fields
    )
    packing = "packed" if packed else "C alignment"
    return (
        f".. csv-table:: {size} bytes, {packing}, little-endian; mirrors ``{source}``\n"
        f"   :header: offset, bytes, field\n\n{rows}"
    )
