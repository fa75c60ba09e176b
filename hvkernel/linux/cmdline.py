"""init.h, moduleparam.h: the kernel command line."""

from __future__ import annotations


class CommandLine:
    """``kernel.cmdline``: the text, and its parameters by name."""

    __slots__ = ("_params", "text")

    def __init__(self, raw: bytes) -> None:
        """:param raw: what the firmware hands over; not terminated. Undecodable bytes become U+FFFD."""
        self.text = raw.split(b"\0", 1)[0].decode("utf-8", "replace").strip()
        self._params: dict[str, str] = {}
        for word in self._words(self.text):
            name, _, value = word.partition("=")
            if value[:1] == '"' and value[-1:] == '"' and len(value) > 1:
                value = value[1:-1]
            self._params[name.replace("-", "_")] = value

    @staticmethod
    def _words(text: str) -> list[str]:
        """Split at blanks outside double quotes. Source: lib/cmdline.c:next_arg."""
        words: list[str] = []
        word, quoted = "", False
        for char in text:
            if char == '"':
                quoted = not quoted
            if char.isspace() and not quoted:
                if word:
                    words.append(word)
                word = ""
            else:
                word += char
        return [*words, word] if word else words

    def get(self, name: str, default: str = "") -> str:
        """Value of the last ``name=value``; ``-`` and ``_`` are one in names."""
        return self._params.get(name.replace("-", "_"), default)

    def has(self, name: str) -> bool:
        """Whether the parameter is there, with or without a value."""
        return name.replace("-", "_") in self._params

    def integer(self, name: str, default: int) -> int:
        """Value as simple_strtol() reads it; ``default`` when it is absent or no number."""
        try:
            return int(self.get(name), 0)
        except ValueError:
            return default
