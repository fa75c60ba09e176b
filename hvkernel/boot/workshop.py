"""What many boots share: data read from files, parsed once, and immutable from then on.

A :class:`Workshop` belongs to one set of :class:`~hvkernel.boot.plugins.Plugins`, and so to whoever boots with them: a
command, a test, a matrix worker. It never changes what a boot does, only what it costs: ``tests/boot/test_workshop.py``
boots with a used one and with a fresh one and compares.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from hvkernel.config.profile import load_profile
from hvkernel.config.releases import KernelRelease, load_release
from hvkernel.kconfig import Build, ConfigFile, KconfigTrees, evaluate, parse_config, read_config_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvkernel.boot.request import BootRequest
    from hvkernel.config.profile import HostProfile

__all__ = ["Workshop"]

_ROOM: Final = 250_000
"""Symbols of the parsed ``.config`` files, and as many of the builds, that are kept at most: some 25 whole files, or
400 fragments. A symbol takes about 100 bytes."""

K = TypeVar("K")
V = TypeVar("V")

_BuildKey = tuple[int, str | None, str | None, int | None, int | None, tuple[tuple[str, str], ...]]


class _Shelf(Generic[K, V]):
    """Keeps what was made last, as long as there is room; the oldest goes first."""

    def __init__(self, room: int) -> None:
        self._left = room
        self._kept: dict[K, tuple[V, int]] = {}

    def get(self, key: K) -> V | None:
        found = self._kept.get(key)
        return None if found is None else found[0]

    def put(self, key: K, value: V, size: int) -> V:
        """Keep ``value``, which takes ``size`` of the room, and return it. What has the key already makes way."""
        self._drop(key)
        self._kept[key] = (value, size)
        self._left -= size
        while self._left < 0 and len(self._kept) > 1:
            self._drop(next(iter(self._kept)))
        return value

    def _drop(self, key: K) -> None:
        gone = self._kept.pop(key, None)
        if gone is not None:
            self._left += gone[1]


class Workshop:
    """Profiles, releases, ``.config`` files and Kconfig trees, each read when it is first asked for."""

    def __init__(self) -> None:
        self._profiles: dict[str, HostProfile] = {}
        self._releases: dict[str, KernelRelease] = {}
        self._configs: _Shelf[tuple[str, str], ConfigFile] = _Shelf(_ROOM)
        self._builds: _Shelf[_BuildKey, tuple[ConfigFile, Build]] = _Shelf(_ROOM)
        self._trees = KconfigTrees()
        self.kconfigs: dict[str, Mapping[str, str]] = {}
        """The plugins' own Kconfig texts by release; see :meth:`hvkernel.boot.plugins.Plugins.kconfigs`."""

    def profile(self, name: str, where: str) -> HostProfile:
        """Return the host profile called ``name``; see :func:`hvkernel.config.profile.load_profile`."""
        profile = self._profiles.get(name)
        if profile is None:
            profile = self._profiles[name] = load_profile(name, where=where)
        return profile

    def adopt(self, profile: HostProfile) -> None:
        """Let VMs name a profile that is no file of ours, such as a changed copy of one."""
        self._profiles[profile.name] = profile

    def release(self, version: str) -> KernelRelease:
        """Return a kernel release; see :func:`hvkernel.config.releases.load_release`."""
        release = self._releases.get(version)
        if release is None:
            release = self._releases[version] = load_release(version)
        return release

    def config(self, source: Path | str, name: str = "<config>") -> ConfigFile:
        """Return what a ``.config`` says: a path, which is read each time, or the text itself.

        :param name: what messages call a text.
        :raises ConfigError: as :func:`hvkernel.kconfig.read_config` does.
        """
        key = (name, source) if isinstance(source, str) else (str(source), read_config_text(source))
        config = self._configs.get(key)
        if config is None:
            config = parse_config(key[1], name=key[0])
            self._configs.put(key, config, len(config.values))
        return config

    def build(self, request: BootRequest, file: ConfigFile, texts: Mapping[str, str]) -> Build:
        """Evaluate a parsed ``.config``; see :func:`hvkernel.kconfig.evaluate`.

        :param texts: name to Kconfig text of each plugin.
        """
        # The file is kept with its build, so that its id is nobody else's.
        key = (id(file), request.arch, request.release, request.page_size, request.bits, tuple(texts.items()))
        found = self._builds.get(key)
        if found is not None:
            return found[1]
        build = evaluate(
            file,
            arch=request.arch,
            release=request.release,
            page_size=request.page_size,
            bits=request.bits,
            plugin_kconfigs=texts,
            trees=self._trees,
        )
        return self._builds.put(key, (file, build), len(build.values))[1]
