"""Kconfig reading and evaluation: from a real ``.config`` to what is built in, a module or absent, and why."""

from __future__ import annotations

from hvkernel.kconfig.build import Build, evaluate
from hvkernel.kconfig.configfile import ConfigFile, parse_config, read_config, read_config_text
from hvkernel.kconfig.errors import ConfigError
from hvkernel.kconfig.explain import Explanation
from hvkernel.kconfig.kbuild import KbuildObject, Linkable, Undefined, Verdict, link_check, verdicts
from hvkernel.kconfig.plugins import plugin_kconfig
from hvkernel.kconfig.trees import KconfigTrees

__all__ = [
    "Build",
    "ConfigError",
    "ConfigFile",
    "Explanation",
    "KbuildObject",
    "KconfigTrees",
    "Linkable",
    "Undefined",
    "Verdict",
    "evaluate",
    "link_check",
    "parse_config",
    "plugin_kconfig",
    "read_config",
    "read_config_text",
    "verdicts",
]
