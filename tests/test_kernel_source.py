"""The kernel's source that other tests compare with is the release that this model is of."""

from __future__ import annotations

from pathlib import Path


def test_the_scripts_of_the_kernel_are_there(kernel_source: Path) -> None:
    assert (kernel_source / "tools/hv/lsvmbus").read_text("utf-8").startswith("#!/usr/bin/env python")
    assert (kernel_source / "drivers/hv/hv_trace.h").is_file()
