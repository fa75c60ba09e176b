"""Print what large VMs cost to boot, and whether the cost is linear. Run it alone: ``python tests/bench/scale.py``.

The host is azure-gen2 with more SCSI controllers, which the guest binds and scans one by one, and with no sub-channels,
so that the number of channels is the number of offers. The kernel is a distribution's (NR_CPUS=8192).
"""

from __future__ import annotations

import gc
import gzip
import sys
from pathlib import Path
from time import process_time

from hvkernel.boot.plugins import Plugins, load
from hvkernel.boot.request import BootRequest, read_request
from hvkernel.boot.session import Session, compose
from hvkernel.config.profile import load_profile

CONFIG = Path(__file__).parents[1] / "data" / "configs" / "debian12-6.1.192-amd64.config.gz"
CPUS = (1, 16, 64, 256, 1024)
CHANNELS = (16, 64, 128, 256)
BUDGET_S = 5.0


def request_of(cpus: int, channels: int, plugins: Plugins) -> BootRequest:
    """A VM of so many processors and offers."""
    azure = load_profile("azure-gen2")
    more = (*azure.gen2, *("scsi",) * (channels - len(azure.gen2)))
    name = f"azure-gen2 with {channels} channels"
    storage = azure.storage.model_copy(update={"vps_per_channel": 1 << 16})
    plugins.workshop.adopt(azure.model_copy(update={"name": name, "gen2": more, "storage": storage}))
    memory = f"{max(1024, cpus * 16, channels * 32)}M"
    return read_request(config=CONFIG.with_suffix(""), cpus=cpus, memory=memory, host=name)


def measure(cpus: int, channels: int, plugins: Plugins) -> float:
    """Seconds of CPU for one boot, report included; :raises SystemExit: it did not come up as asked."""
    request = request_of(cpus, channels, plugins)
    gc.collect()
    began = process_time()
    session = compose(request, plugins)
    if not isinstance(session, Session):
        raise SystemExit(session.report.reason)
    with session:
        session.boot()
        report = session.report()
        taken = process_time() - began
        online = session.kernel.cpus.num_online_cpus()
        if report.outcome != "up" or len(report.devices) != channels or online != cpus:
            raise SystemExit(
                f"{cpus} CPUs, {channels} channels: {report.outcome} ({report.reason}) with {online} CPUs and "
                f"{len(report.devices)} devices"
            )
    return taken


def table(title: str, sizes: tuple[int, ...], seconds: list[float]) -> None:
    """Seconds by size, and the cost of one more between neighbours: equal in the last column means linear."""
    print(f"{title:>10} {'s of CPU':>10} {'ms for one more':>16}")
    for i, (size, taken) in enumerate(zip(sizes, seconds, strict=True)):
        slope = f"{(taken - seconds[i - 1]) * 1e3 / (size - sizes[i - 1]):16.3f}" if i else ""
        print(f"{size:10} {taken:10.3f} {slope}")


def main() -> int:
    plugins = load()
    plain = CONFIG.with_suffix("")
    made = not plain.exists()
    if made:
        plain.write_bytes(gzip.decompress(CONFIG.read_bytes()))
    try:
        measure(4, CHANNELS[0], plugins)
        gc.freeze()
        table("CPUs", CPUS, [measure(cpus, CHANNELS[0], plugins) for cpus in CPUS])
        by_channel = [measure(4, channels, plugins) for channels in CHANNELS]
        table("channels", CHANNELS, by_channel)
        both = measure(CPUS[-1], CHANNELS[-1], plugins)
    finally:
        if made:
            plain.unlink()
    print(f"{CPUS[-1]} CPUs and {CHANNELS[-1]} channels: {both:.2f} s of CPU, budget {BUDGET_S:.0f} s")
    return int(both > BUDGET_S)


if __name__ == "__main__":
    sys.exit(main())
