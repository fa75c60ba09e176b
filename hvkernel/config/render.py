"""pydantic's findings as one line that a user understands."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from pydantic import ValidationError

from hvkernel.config.errors import InputError

__all__ = ["input_error"]

_LIMITS: Final = MappingProxyType(
    {
        "missing": "is required",
        "extra_forbidden": "unknown key",
        "int_type": "must be a whole number",
        "int_parsing": "must be a whole number",
        "int_from_float": "must be a whole number",
        "string_type": "must be text",
        "bool_type": "must be true or false",
        "bool_parsing": "must be true or false",
        "tuple_type": "must be a list",
        "uuid_type": "must be a GUID, as ba6163d9-04a1-4d29-b605-72e2ffb1dc7f",
        "uuid_parsing": "must be a GUID, as ba6163d9-04a1-4d29-b605-72e2ffb1dc7f",
        "model_type": "must be a table",
        "model_attributes_type": "must be a table",
    }
)


def input_error(file: str, error: ValidationError) -> InputError:
    """Turn the first finding of ``error`` into an :class:`InputError` for ``file``; more are counted."""
    found = error.errors(include_url=False)
    first = found[0]
    field = ""
    for part in first["loc"]:
        field += f"[{part}]" if isinstance(part, int) else f".{part}" if field else part
    limit = _LIMITS.get(first["type"])
    if limit is None:
        limit = first["msg"].removeprefix("Value error, ")
        limit = limit[:1].lower() + limit[1:]
        limit = limit.replace("input should be", "must be")
    if len(found) > 1:
        limit += f" (and {len(found) - 1} more)"
    value = None if first["type"] in ("missing", "extra_forbidden") else first["input"]
    return InputError(file, field, value, limit)
