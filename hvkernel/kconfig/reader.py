"""The Kconfig language: Kconfiglib, made safe and brought up to the kernel's own reader.

Kconfiglib 14.1 reads the Kconfig language of Linux 5.1. Four things differ here:

* Lines that newer kernels use are rewritten, one line to one line, before Kconfiglib sees them, so that
  line numbers in errors stay true: ``modules`` (5.16) and ``transitional`` (6.18) go, and
  ``depends on A if B`` (7.1) becomes ``depends on A || !(B)``, which is what the kernel's own reader makes of it.
* A stranger's text runs nothing and learns nothing: every preprocessor construct (``$(shell ...)``, any other
  function, a variable, an assignment of one) is refused, no environment variable is read, no Python module is
  imported for functions, and no file is opened. ``source`` reaches only the texts that were handed in.
* ``imply`` counts as a default and nothing more. Kconfiglib also turns a user's ``m`` into ``y`` under an
  ``imply`` of ``y``; ``scripts/kconfig/symbol.c: sym_calc_value`` does not.
* Errors are :class:`~hvkernel.kconfig.errors.ConfigError`.

This module is the only one that imports kconfiglib.
"""

from __future__ import annotations

import io
import posixpath
import re
from collections.abc import Collection, Mapping
from typing import Any, Final

import kconfiglib

from hvkernel.kconfig.errors import ConfigError

__all__ = [
    "BOOL",
    "TRISTATE",
    "TRISTATE_TYPES",
    "KconfigReader",
    "expr_and_terms",
    "expr_or_terms",
    "expr_text",
    "expr_value",
    "is_choice",
    "low_leaves",
    "rewrite",
]

TRI: Final = ("n", "m", "y")
"""Kconfiglib's numbers for the three values, as the kernel writes them."""

_DROPPED: Final = re.compile(r"\s*(?:option\s+)?(?:modules|transitional)\s*$")
_DEPENDS: Final = re.compile(r"(\s*depends\s+on\s+)(.*)$", re.DOTALL)
_SOURCE: Final = re.compile(r"\s*(o?)(r?)source\b(.*)$")
_OPTION_ENV: Final = re.compile(r"\s*option\s+env\b")
_ASSIGNMENT: Final = re.compile(r"\s*[A-Za-z0-9_-]+\s*[+:]?=")
_SUSPECT: Final = re.compile(r"[$=]|^\s*(?:option|modules|transitional)\b|^\s*depends\b.*\bif\b", re.DOTALL)
"""Quick test: only lines with one of these can need rewriting or refusing."""
_DEFINED_AT: Final = re.compile(r"(\S+) \(defined at ([^:()]+):(\d+)\)")
_IF: Final = re.compile(r"(?<=[\s)])if(?=[\s(!])")


def _code(line: str) -> str:
    """The line without its ``#`` comment and with quoted parts blanked out, same length as far as it goes."""
    out: list[str] = []
    quote = ""
    for c in line:
        if quote:
            out.append(c if c == quote else "\0")
            quote = "" if c == quote else quote
        elif c == "#":
            break
        else:
            quote = c if c in "\"'" else ""
            out.append(c)
    return "".join(out)


def rewrite(name: str, number: int, line: str) -> str:
    """Bring one logical Kconfig line to what Kconfiglib 14.1 reads.

    :param name: name of the text, for errors.
    :param number: 1-based number of the line.
    :param line: the line; help texts never come here.
    :raises ConfigError: for preprocessor constructs.
    """
    if not _SUSPECT.search(line):
        return line
    code = _code(line)
    if "$" in line[: len(code)]:
        if "$(shell" in line:
            raise ConfigError(name, number, f"$(shell ...) is refused, reading runs nothing: {line.strip()!r}")
        raise ConfigError(name, number, f"macros and environment variables are refused: {line.strip()!r}")
    if _OPTION_ENV.match(code):
        raise ConfigError(name, number, f"environment variables are refused: {line.strip()!r}")
    if _ASSIGNMENT.match(code):
        raise ConfigError(name, number, f"preprocessor assignments are refused: {line.strip()!r}")
    if _DROPPED.match(code):
        return "\n"
    found = _DEPENDS.match(line[: len(code)])
    if found:
        at = _IF.search(code, found.start(2))
        if at:
            wanted, condition = line[found.start(2) : at.start()].strip(), line[at.end() : len(code)].strip()
            return f"{found.group(1)}({wanted}) || !({condition})\n"
    return line


class KconfigReader(kconfiglib.Kconfig):  # type: ignore[misc] # kconfiglib has no types
    """A Kconfig tree read from texts.

    :param texts: name to Kconfig text; ``source "NAME"`` finds these and nothing else. The names are what
        errors show.
    :param top: the name to start from.
    :param plain: names of texts that hold none of the constructs rewritten here: our own generated data.
    :raises ConfigError: for a syntax error, a refused construct or a ``source`` of an unknown name.
    """

    def __init__(self, texts: Mapping[str, str], top: str, plain: Collection[str] = ()) -> None:
        self._texts = dict(texts)
        self._plain = frozenset(plain)
        self.filename, self.linenr = top, 0
        try:
            self._init(top, True, False, "utf-8")
        except kconfiglib.KconfigError as error:
            raise self._config_error(str(error)) from None

    def _config_error(self, message: str) -> ConfigError:
        text = " ".join(message.split())
        if text.startswith("Dependency loop"):
            places = _DEFINED_AT.findall(text)
            chain = " -> ".join(symbol for symbol, _, _ in places)
            return ConfigError(places[0][1], int(places[0][2]), f"dependency loop: {chain}")
        here = f"{self.filename}:{self.linenr}: "
        if text.startswith(here):
            return ConfigError(self.filename, self.linenr, text.removeprefix(here).removeprefix("error: "))
        return ConfigError(self.filename, self.linenr or None, text.removeprefix("error: "))

    def _init(self, filename: str, warn: bool, warn_to_stderr: bool, encoding: str) -> None:
        """Kconfiglib's own set-up without its reads of the environment and its import of ``kconfigfunctions``."""
        self._encoding = encoding
        self.srctree = self._srctree_prefix = ""
        self.warn = warn
        self.warn_to_stderr = warn_to_stderr
        self.warn_assign_undef = self.warn_assign_override = self.warn_assign_redun = False
        self._warn_assign_no_prompt = False
        self.warnings: list[str] = []
        self.config_prefix = "CONFIG_"
        self.config_header = self.header_header = ""
        self.syms: dict[str, Any] = {}
        self.const_syms: dict[str, Any] = {}
        self.defined_syms: list[Any] = []
        self.missing_syms: list[Any] = []
        self.named_choices: dict[str, Any] = {}
        self.choices: list[Any] = []
        self.menus: list[Any] = []
        self.comments: list[Any] = []
        self._make_constants()
        self.variables: dict[str, Any] = {}
        self._functions: dict[str, Any] = {}
        self.env_vars: set[str] = set()
        self._parsing_kconfigs = True
        self.modules = self._lookup_sym("MODULES")
        self.defconfig_list = None
        self._make_top(filename)
        self.kconfig_filenames = [filename]
        self._filestack: list[Any] = []
        self._include_path: tuple[tuple[str, int], ...] = ()
        self._reuse_tokens = False
        self._readline = self._open(filename, "r").readline
        self._parse_block(None, self.top_node, self.top_node).next = None
        self.top_node.list = self.top_node.next
        self.top_node.next = None
        self._parsing_kconfigs = False
        self._finalize_node(self.top_node, self.y)
        self.unique_defined_syms = list(dict.fromkeys(self.defined_syms))
        self.unique_choices = list(dict.fromkeys(self.choices))
        self._check_sym_sanity()
        self._check_choice_sanity()
        self._imply_as_default()
        self._build_dep()
        for symbol in self.unique_defined_syms:
            kconfiglib._check_dep_loop_sym(symbol, False)
        self._add_choice_deps()

    def _make_constants(self) -> None:
        for number, name in enumerate(TRI):
            symbol = kconfiglib.Symbol()
            symbol.kconfig = self
            symbol.name = name
            symbol.is_constant = True
            symbol.orig_type = kconfiglib.TRISTATE
            symbol._cached_tri_val = number
            self.const_syms[name] = symbol
        self.n, self.m, self.y = (self.const_syms[name] for name in TRI)
        for name in TRI:
            symbol = self.const_syms[name]
            symbol.rev_dep = symbol.weak_rev_dep = symbol.direct_dep = self.n

    def _make_top(self, filename: str) -> None:
        top = kconfiglib.MenuNode()
        top.kconfig = self
        top.item = kconfiglib.MENU
        top.is_menuconfig = True
        top.visibility = top.dep = self.y
        top.prompt = ("Main menu", self.y)
        top.parent = None
        top.filename = filename
        top.linenr = 1
        top.include_path = ()
        self.top_node = top

    def _imply_as_default(self) -> None:
        """Make each ``imply`` a default: max(default, implied), below the dependencies; never above a user's value."""
        for symbol in self.unique_defined_syms:
            if symbol.weak_rev_dep is self.n:
                continue
            implied = self._make_and(symbol.weak_rev_dep, symbol.direct_dep)
            symbol.defaults = [
                (self._make_or(self._make_and(value, cond), implied), cond) for value, cond in symbol.defaults
            ]
            symbol.defaults.append((implied, self.y))
            symbol.weak_rev_dep = self.n

    def forget_values(self) -> None:
        """Take back every value that was set, as if the tree had just been read."""
        for symbol in self.unique_defined_syms:
            symbol.user_value = None
        for choice in self.unique_choices:
            choice.user_value = choice.user_selection = None
        self._invalidate_all()
        self.warnings.clear()

    def _next_line(self) -> bool:
        """The next line's tokens; at the end of a sourced text, the line after its ``source``."""
        while not super()._next_line():
            if not self._filestack:
                return False
            self._leave_file()
        return True

    def _tokenize(self, s: str) -> Any:
        """Kconfiglib's tokens of one line, after the rewriting; ``source`` is followed here and leaves a blank."""
        if self.filename in self._plain:
            return super()._tokenize(s)
        s = rewrite(self.filename, self.linenr, s)
        found = _SOURCE.match(s)
        if found is None:
            return super()._tokenize(s)
        self._line = s
        name = found.group(3).strip()
        if len(name) < 2 or name[0] not in "\"'" or name[-1] != name[0]:
            raise ConfigError(self.filename, self.linenr, f"source needs a name in quotes: {s.strip()!r}")
        name = name[1:-1]
        if found.group(2):
            name = posixpath.normpath(posixpath.join(posixpath.dirname(self.filename), name))
        if name in self._texts:
            self._enter_file(name)
        elif not found.group(1):
            raise ConfigError(self.filename, self.linenr, f"source of {name!r}, which is not one of the given texts")
        return (None,)

    def _fn_val(self, args: list[str]) -> str:
        raise ConfigError(self.filename, self.linenr, f"macro $({args[0]} ...) is refused")

    def _open(self, filename: str, mode: str) -> io.StringIO:
        """Give Kconfiglib a text that was handed in; there is no way to a file from here."""
        return io.StringIO(self._texts[filename])


def expr_value(expression: Any) -> int:
    """The value, 0 to 2, of a Kconfiglib expression."""
    return int(kconfiglib.expr_value(expression))


def expr_text(expression: Any) -> str:
    """A Kconfiglib expression in Kconfig's own spelling."""
    return str(kconfiglib.expr_str(expression))


def expr_and_terms(expression: Any) -> list[Any]:
    """The factors of a conjunction, left to right; the expression itself when it is none."""
    return list(kconfiglib.split_expr(expression, kconfiglib.AND))


def expr_or_terms(expression: Any) -> list[Any]:
    """The terms of a disjunction, left to right; the expression itself when it is none."""
    return list(kconfiglib.split_expr(expression, kconfiglib.OR))


BOOL: Final = kconfiglib.BOOL
"""Kconfiglib's type of a symbol that is n or y."""
TRISTATE: Final = kconfiglib.TRISTATE
"""Kconfiglib's type of a symbol that may be m, too."""
TRISTATE_TYPES: Final = (kconfiglib.BOOL, kconfiglib.TRISTATE)
"""Kconfiglib's types of symbols that are n, m or y."""


def is_choice(expression: Any) -> bool:
    """Whether an expression is a choice, which its members depend on."""
    return isinstance(expression, kconfiglib.Choice)


def low_leaves(expression: Any, level: int, positive: bool = True) -> list[tuple[Any, bool]]:
    """The symbols that keep an expression below a level, the likeliest to be at fault first.

    In a conjunction each low factor counts, left to right. In a disjunction the alternative with the cheapest
    repair counts: one that an undefined symbol blocks is the last resort, one without a prompt the next.

    :param expression: a Kconfiglib expression.
    :param level: 1 (m) or 2 (y).
    :param positive: False below a negation.
    :returns: pairs of symbol and whether it should be on.
    """
    if isinstance(expression, kconfiglib.Symbol):
        if expression.is_constant:
            return []
        low = expr_value(expression) < level if positive else expr_value(expression) > 2 - level
        return [(expression, positive)] if low else []
    if not isinstance(expression, tuple):
        return []
    operator = expression[0]
    if operator is kconfiglib.NOT:
        return low_leaves(expression[1], level, not positive)
    if operator in (kconfiglib.AND, kconfiglib.OR):
        parts = [low_leaves(part, level, positive) for part in expression[1:]]
        if (operator is kconfiglib.AND) == positive:
            return parts[0] + parts[1]
        return min(parts, key=_repair)
    if expr_value(expression) < level if positive else expr_value(expression) > 2 - level:
        return [(part, False) for part in expression[1:] if not part.is_constant and part.nodes]
    return []


def _repair(leaves: list[tuple[Any, bool]]) -> int:
    """What it would take to set these symbols right; more is worse."""
    cost = 0
    for symbol, _ in leaves:
        prompted = any(node.prompt for node in symbol.nodes)
        cost += 1 if prompted else 10 if symbol.nodes else 100
    return cost or 1000
