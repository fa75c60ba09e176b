"""Random interleavings of what can happen to a channel, and what must hold afterwards.

One seed is one run: :func:`make_plan` draws a guest, its looms (tests/data/plugins/hvkernel_loom) and a list of
operations with the moments at which they begin; :func:`run_plan` boots the guest under the scheduler policy
``random:SEED``, begins the operations, lets them run into each other, takes the devices away, and compares guest, host
and the machine between them with how they were before.
"""

from __future__ import annotations

from interleavings.plan import Plan, Step, make_plan
from interleavings.run import Result, run_plan

__all__ = ["Plan", "Result", "Step", "make_plan", "run_plan"]
