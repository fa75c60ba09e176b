"""Which of a plugin's Kconfig texts belongs to a release."""

from __future__ import annotations

from collections.abc import Mapping

from hvkernel.kconfig.data import nearest, version_key

__all__ = ["plugin_kconfig"]


def plugin_kconfig(texts: Mapping[str, str], release: str) -> tuple[str, str] | None:
    """Pick a plugin's Kconfig text for a release.

    A plugin has ``Kconfig`` and, from each release where its symbols changed, ``Kconfig.<release>``.

    :param texts: file name to text, for names ``Kconfig`` and ``Kconfig.<release>``; others are ignored.
    :param release: the kernel release.
    :returns: name and text of the latest one that is not later than the release, or None when there is none.
    """
    dated = {name.removeprefix("Kconfig."): name for name in texts if name.startswith("Kconfig.")}
    versions = tuple(sorted((v for v in dated if v[:1].isdigit()), key=version_key))
    found = nearest(release, versions)
    name = dated[found] if found else "Kconfig"
    return (name, texts[name]) if name in texts else None
