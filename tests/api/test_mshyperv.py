"""api.guest.mshyperv, the asm-generic header's helpers, against the kernel's own functions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hvkernel.api.guest.mshyperv import (
    VP_INVAL,
    cpumask_to_vpset,
    hv_do_rep_hypercall,
    hv_generate_guest_id,
    hv_repcomp,
    hv_result,
    hv_result_success,
)


def rows(name: str) -> Any:
    path = Path(__file__).parents[1] / "data" / "functions" / f"{name}.json"
    return json.loads(path.read_text("utf-8"))["rows"]


def test_hv_result_and_hv_repcomp() -> None:
    for row in rows("hv_result_repcomp"):
        status = int(row["in"]["status"], 16)
        assert (hv_result(status), hv_repcomp(status)) == (row["out"]["hv_result"], row["out"]["hv_repcomp"]), row
        assert hv_result_success(status) == (row["out"]["hv_result"] == 0)


def test_hv_generate_guest_id() -> None:
    for row in rows("hv_generate_guest_id"):
        version = int(row["in"]["kernel_version"], 16)
        assert f"{hv_generate_guest_id(version):#x}" == row["out"]["guest_id"], row


def test_hv_do_rep_hypercall() -> None:
    for row in rows("hv_do_rep_hypercall"):
        given, wanted = row["in"], row["out"]
        answers = iter(given["host_status"])
        calls: list[tuple[int, int | None, int | None]] = []

        def call(
            control: int, source: int | None, target: int | None, calls: Any = calls, answers: Any = answers
        ) -> int:
            calls.append((control, source, target))
            return int(next(answers))

        status = hv_do_rep_hypercall(call, given["code"], given["rep_count"], given["varhead_size"], given["input_gpa"])
        assert [f"0x{control:016x}" for control, _, _ in calls] == wanted["control_words"], row
        assert {(source, target) for _, source, target in calls} == {(int(wanted["rdx"], 16), None)}
        assert status == wanted["status"]


MAPS: dict[str, Callable[[int], int]] = {
    "identity": lambda cpu: cpu,
    "reversed: vp=255-cpu": lambda cpu: 255 - cpu,
    "sparse: vp=16*cpu": lambda cpu: 16 * cpu,
    "identity, cpu64 = VP_INVAL": lambda cpu: VP_INVAL if cpu == 64 else cpu,
}


def test_cpumask_to_vpset() -> None:
    for row in rows("cpumask_to_vpset"):
        given, wanted = row["in"], row["out"]
        index = [MAPS[given["vp_index_map"]](cpu) for cpu in range(256)]
        exclude = given["this_cpu"] if given["exclude_self"] else None
        found = cpumask_to_vpset(given["cpus"], index, given["hv_max_vp_index"], exclude)
        assert found.nr_bank == wanted["ret_nr_bank"], row
        assert found.valid_bank_mask == int(wanted["valid_bank_mask"], 16), row
        assert [f"{bank:#x}" for bank in found.bank_contents] == wanted["bank_contents"], row
