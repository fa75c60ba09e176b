"""Whether a kernel's configuration runs somewhere: rules judged, edits found and verified, upgrades simulated."""

from __future__ import annotations

from hvkernel.check.edits import Configuration, fragment
from hvkernel.check.judge import Problem, TargetVerdict, judge
from hvkernel.check.upgrade import Change, Upgrade, simulate

__all__ = [
    "Change",
    "Configuration",
    "Problem",
    "TargetVerdict",
    "Upgrade",
    "fragment",
    "judge",
    "simulate",
]
