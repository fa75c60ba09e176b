"""Recording what a boot did, in the formats of the tools that engineers use.

A sink writes one file and is a :class:`~hvkernel.machine.tracing.Tracer`; :class:`~hvkernel.trace.recorder.Recorder`
feeds any number of them. What a sink keeps in memory does not grow with the length of the run: events go to the file as
they come. Nothing of a file depends on anything but the run, so the same seed gives the same bytes.
"""

from __future__ import annotations
