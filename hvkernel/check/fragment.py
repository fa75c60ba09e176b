"""The fragment that mends everything that can be mended, for ``scripts/kconfig/merge_config.sh``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hvkernel.boot.initrd import Initrd
from hvkernel.check.edits import Configuration, strongest, without_needless
from hvkernel.check.judge import TargetVerdict
from hvkernel.check.rules import broken_rules
from hvkernel.config.targets import Rule
from hvkernel.kconfig import Build

__all__ = ["Fragment", "mend"]


@dataclass(frozen=True, slots=True)
class Fragment:
    """What mends a configuration.

    :ivar edits: lines of a ``.config``; without any of them something would be wrong that is not.
    :ivar left: rules that are broken all the same, each with the symbol that breaks it.
    :ivar after: the configuration with the edits.
    """

    edits: tuple[str, ...]
    left: tuple[tuple[Rule, str], ...]
    after: Build

    @property
    def text(self) -> str:
        """The edits as a file."""
        return "".join(f"{edit}\n" for edit in self.edits)


def mend(configuration: Configuration, verdicts: Sequence[TargetVerdict], initrd: Initrd) -> Fragment:
    """Put together what mends the problems of all ``verdicts``, and leave out what others make needless."""
    targets = [verdict.target for verdict in verdicts if verdict.state != "unfit"]

    def broken(build: Build) -> tuple[tuple[Rule, str], ...]:
        return tuple(dict.fromkeys(one for target in targets for one in broken_rules(build, target, initrd)))

    edits = strongest(edit for verdict in verdicts for problem in verdict.problems for edit in problem.edits)
    left = broken(configuration.evaluate(edits))
    needed = without_needless(configuration, edits, lambda build: set(broken(build)) <= set(left))
    return Fragment(needed, left, configuration.evaluate(needed))
