"""Every table of rows that the kernel's own functions gave: which test compares it, or what it waits for.

The tables as they were handed to the project are in tests/data/abi/functions.json. Tests read cuts of it: a cut has all
rows of its table, and no table is forgotten.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parents[1]
DATA = TESTS / "data"

COMPARED = {
    "VMBUS_RING_SIZE": ("ring/VMBUS_RING_SIZE.json", "hv/test_ring_buffer.py", "test_VMBUS_RING_SIZE"),
    "hv_gpadl_size": ("functions/hv_gpadl_size.json", "hv/test_gpadl.py", "test_hv_gpadl_size"),
    "hv_ring_gpadl_send_hvpgoffset": (
        "functions/hv_ring_gpadl_send_hvpgoffset.json", "hv/test_gpadl.py", "test_hv_ring_gpadl_send_hvpgoffset"
    ),
    "hv_gpadl_hvpfn": ("functions/hv_gpadl_hvpfn.json", "hv/test_gpadl.py", "test_hv_gpadl_hvpfn"),
    "create_gpadl_header": ("functions/create_gpadl_header.json", "hv/test_gpadl.py", "test_create_gpadl_header"),
    "ring_init": ("ring/ring_init.json", "hv/test_ring_buffer.py", "test_ring_init"),
    "ring_avail": ("ring/ring_avail.json", "hv/test_ring_buffer.py", "test_ring_avail"),
    "ring_iter": ("ring/ring_iter.json", "hv/test_ring_buffer.py", "test_ring_iter"),
    "storvsc_max_outstanding_req_per_channel": (
        "storvsc/max_outstanding_req_per_channel.json", "plugins/storvsc/test_vsc.py",
        "test_storvsc_max_outstanding_req_per_channel",
    ),
    "hv_get_dev_type": ("functions/hv_get_dev_type.json", "hv/test_channel_mgmt.py", "test_hv_get_dev_type"),
    "vmbus_prep_negotiate_resp": (
        "functions/vmbus_prep_negotiate_resp.json", "hv/test_channel_mgmt.py", "test_vmbus_prep_negotiate_resp"
    ),
    "hv_do_rep_hypercall": (
        "functions/hv_do_rep_hypercall.json", "api/test_mshyperv.py", "test_hv_do_rep_hypercall"
    ),
    "hv_do_hypercall_and_fast": (
        "functions/hv_do_hypercall_and_fast.json", "arch/test_x86_guest.py", "test_hv_do_hypercall_and_fast"
    ),
    "hv_result_repcomp": ("functions/hv_result_repcomp.json", "api/test_mshyperv.py", "test_hv_result_and_hv_repcomp"),
    "hv_generate_guest_id": (
        "functions/hv_generate_guest_id.json", "api/test_mshyperv.py", "test_hv_generate_guest_id"
    ),
    "tsc_page_time": ("functions/tsc_page_time.json", "hv/test_hyperv_timer.py", "test_tsc_page_time"),
    "fill_gva_list": ("functions/fill_gva_list.json", "arch/test_x86_guest.py", "test_fill_gva_list"),
    "hyperv_fill_flush_guest_mapping_list": (
        "functions/hyperv_fill_flush_guest_mapping_list.json", "arch/test_x86_guest.py",
        "test_hyperv_fill_flush_guest_mapping_list",
    ),
    "cpumask_to_vpset": ("functions/cpumask_to_vpset.json", "api/test_mshyperv.py", "test_cpumask_to_vpset"),
    "arm64_hypercall_abi": (
        "functions/arm64_hypercall_abi.json", "arch/test_arm64_guest.py", "test_arm64_hypercall_abi"
    ),
}  # fmt: skip
"""Table to the cut, the file of the test and the test."""

NOT_BUILT = {
    "pci_slots": "pci-hyperv",
    "pci_get_bar_size": "pci-hyperv",
    "compute_balloon_floor": "hv_balloon",
    "hvsock_srv_id": "hv_sock",
}
"""Tables of drivers that do not exist yet. A driver that comes takes its table out of here."""


@pytest.fixture(scope="module")
def truth() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DATA / "abi" / "functions.json").read_text("utf-8"))["functions"]
    return found


def rows_of(name: str, table: dict[str, Any]) -> Any:
    """Return a table's rows; of ring_avail, whose cut has columns, as columns."""
    if name != "ring_avail":
        return table.get("rows", table.get("by_page_size"))
    return {
        size: [
            row
            if isinstance(row, list)
            else [
                *(row["in"][key] for key in ("ring_size", "write_index", "read_index")),
                *(row["out"][key] for key in ("bytes_to_read", "bytes_to_write", "avail_to_write_percent")),
                *row["out"]["debug_avail"],
            ]
            for row in rows
        ]
        for size, rows in table["by_page_size"].items()
    }


def test_no_table_is_forgotten(truth: dict[str, Any]) -> None:
    assert len(truth) == 24
    assert sorted([*COMPARED, *NOT_BUILT]) == sorted(truth)


def test_what_is_not_built_is_not_there() -> None:
    plugins = {"pci-hyperv": "hvkernel_pci", "hv_balloon": "hvkernel_balloon", "hv_sock": "hvkernel_hvsock"}
    assert [plugins[one] for one in NOT_BUILT.values() if importlib.util.find_spec(plugins[one])] == []


@pytest.mark.parametrize("name", COMPARED)
def test_the_cut_has_all_rows_and_its_test_exists(truth: dict[str, Any], name: str) -> None:
    cut, test_file, test = COMPARED[name]
    wanted = rows_of(name, truth[name])
    assert wanted
    assert rows_of(name, json.loads((DATA / cut).read_text("utf-8"))) == wanted
    source = (TESTS / test_file).read_text("utf-8")
    assert f"def {test}(" in source
    assert Path(cut).stem in source
