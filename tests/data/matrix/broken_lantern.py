"""The lantern plugin with a fault in its driver, laid out as pip would install it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

LANTERN = Path(__file__).parents[1] / "plugins/hvkernel_lantern"
DEVICE = {"class_guid": "1a27e2f0-0000-4000-8000-000000000001", "name": "lantern0"}


def install(site: Path, fault: str) -> None:
    """Put it into a directory that is, or will be, on the path; ``fault`` is one of ``FAULT`` in its ``vsc.py``."""
    package = site / "hvkernel_lantern"
    shutil.copytree(LANTERN, package, ignore=shutil.ignore_patterns("__pycache__"))
    driver = package / "vsc.py"
    sound = driver.read_text()
    assert f"``{fault}``" in sound or not fault
    driver.write_text(sound.replace('FAULT: Final[str] = ""', f'FAULT: Final[str] = "{fault}"'))
    info = site / "hvkernel_lantern-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hvkernel-lantern\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[hvkernel]\nhv_lantern = hvkernel_lantern\n")


def forget() -> None:
    """Let the next one that is installed be imported anew."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "hvkernel_lantern"]:
        del sys.modules[name]
