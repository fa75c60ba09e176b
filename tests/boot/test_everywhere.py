"""The smallest array of everything that is modelled: with ``--hv-matrix=pairwise`` and seeds, a matrix under pytest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from hvkernel.matrix.model import CellResult
    from hvkernel.testing.guest import Guest, GuestHost


@pytest.mark.hv_matrix
def test_every_invariant_holds(hv_result: CellResult) -> None:
    assert hv_result.status == "pass"


@pytest.mark.hv_matrix(
    arch=["x86", "arm64"],
    bits=[64, 32],
    pae=["n", "y"],
    page_size=["4K", "16K", "64K"],
    cpus=[4, 1, 64],
    policy=["fifo", "random"],
)
def test_processors_write_at_the_same_time_and_every_byte_arrives(hv_guest: Guest, hv_host: GuestHost) -> None:
    kernel = hv_guest.kernel
    (disk,) = kernel.block.disks
    online = tuple(kernel.cpus.for_each_online_cpu())[:8]
    blocks = {2048 + 300 * number: bytes([number + 1, cpu]) * (256 * 130) for number, cpu in enumerate(online)}
    for (start, data), cpu in zip(blocks.items(), online, strict=True):
        hv_guest.spawn(kernel.block.write, disk, start, data, name=f"writer {start}", cpu=kernel.cpus.cpu(cpu))
    hv_guest.wait()
    for start, data in blocks.items():
        assert hv_host.disks[0].pread(len(data), start * 512) == data
        assert hv_guest.call(kernel.block.read, disk, start, 130) == data
