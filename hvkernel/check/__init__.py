"""Whether a kernel's configuration runs somewhere: rules judged, edits found and verified, upgrades simulated."""

from __future__ import annotations

from hvkernel.check.edits import Configuration
from hvkernel.check.fragment import Fragment, mend
from hvkernel.check.judge import Problem, TargetVerdict, judge
from hvkernel.check.upgrade import Change, Upgrade, simulate

__all__ = [
    "Change",
    "Configuration",
    "Fragment",
    "Problem",
    "TargetVerdict",
    "Upgrade",
    "judge",
    "mend",
    "simulate",
]
