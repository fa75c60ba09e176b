"""The one exception of everything that a user writes: it names the file, the key, the value and the limit."""

from __future__ import annotations

__all__ = ["InputError"]


class InputError(ValueError):
    """A file or an option that a user wrote is wrong.

    The text is one line, ``FILE: FIELD = VALUE: LIMIT``, and is what the command line prints before it ends with
    exit status 2.
    """

    def __init__(self, file: str, field: str = "", value: object = None, limit: str = "") -> None:
        """Describe the mistake.

        :param file: path of the file, or where the value came from (``--host``).
        :param field: dotted key inside the file, empty when the whole file is meant.
        :param value: what was written there; ``None`` when nothing was.
        :param limit: what is allowed, as the rest of a sentence.
        """
        self.file, self.field, self.value, self.limit = file, field, value, limit
        what = f"{field} = {value!r}" if field and value is not None else field
        super().__init__(" ".join(": ".join(part for part in (file, what, limit) if part).split()))
