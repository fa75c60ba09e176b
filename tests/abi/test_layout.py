"""Every declared struct against the layout that the compiler gave it, and every GUID and constant against its value."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from types import MappingProxyType, ModuleType
from typing import Any, Final

import pytest

from hvkernel.abi import guids, ring, tlfs, vmbus
from hvkernel.abi.catalog import Catalog, collect, flatten
from hvkernel.abi.wire import Field, Wire

from .conftest import ARCH_MODULES, DATA, modules_of

PAGE_SIZES: Final = (4096, 16384, 65536)

BY_PAGE_SIZE: Final = MappingProxyType(collect(modules_of("arm64")).by_page_size)

# Types of other subsystems that stand inside a Hyper-V struct: declared as bytes.
OPAQUE: Final = ("ghcb",)


def expected_fields(struct: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    # Rows without a name are C-anonymous containers; their members are in the same namespace.
    return {row["name"]: row for row in struct["fields"] if row["name"] is not None}


def compare(name: str, field: Field, row: Mapping[str, Any]) -> Iterator[str]:
    if (field.offset, field.size) != (row["offset"], row["size"]):
        yield f"{name}: {field.offset}+{field.size}, compiler says {row['offset']}+{row['size']}"
    if (field.bit_offset, field.bit_size) != (row.get("bit_offset", 0), row.get("bit_size", 0)):
        yield f"{name}: bits {field.bit_offset}+{field.bit_size}, compiler says {row}"
    tag = re.sub(r"^(volatile|struct|union) ", "", str(row.get("elem_type", row["type"])))
    if tag in OPAQUE:
        return
    count = row.get("count", 1)
    dims = field.dims or (1,)
    if field.kind != "guid" and list(dims) != (count if isinstance(count, list) else [count]):
        yield f"{name}: dimensions {dims}, compiler says {count}"
    if (field.kind == "tail") != bool(row.get("flexible")):
        yield f"{name}: flexible array is {field.kind == 'tail'}, compiler says {row.get('flexible')}"
    if field.type is not None and "{anon}" not in tag and field.type.__kernel__ != tag:
        yield f"{name}: is {field.type.__kernel__}, compiler says {tag}"
    if field.kind in ("int", "ints") and field.code.islower() != tag.lstrip("_").startswith(("s", "int")):
        yield f"{name}: sign of {field.code} differs from {tag}"


def differences(cls: type[Wire], struct: Mapping[str, Any]) -> Iterator[str]:
    if struct["size"] != cls.SIZE:
        yield f"size {cls.SIZE}, compiler says {struct['size']}"
    if struct["align"] != cls.ALIGN:
        yield f"alignment {cls.ALIGN}, compiler says {struct['align']}"
    ours, theirs = dict(flatten(cls)), expected_fields(struct)
    yield from (f"{name}: declared, unknown to the compiler" for name in ours.keys() - theirs.keys())
    yield from (f"{name}: not declared" for name in theirs.keys() - ours.keys())
    for name in ours.keys() & theirs.keys():
        yield from compare(name, ours[name], theirs[name])


def test_every_declared_struct_has_the_layout_of_the_compiled_kernel(
    arch: str, declared: Catalog, truth: Mapping[str, Any]
) -> None:
    structs = truth[f"layout-{arch}"]["structs"]
    wrong = {
        tag: found
        for tag, cls in declared.structs.items()
        if tag in structs and (found := sorted(differences(cls, structs[tag])))
    }
    assert wrong == {}
    assert sum(tag in structs for tag in declared.structs) > 100


def test_acpi_structs_have_the_layout_of_the_headers(declared: Catalog, truth: Mapping[str, Any]) -> None:
    for tag, struct in truth["acpi"]["structs"].items():
        ours = [
            {"name": f.name, "offset": f.offset, "size": f.size} for f in declared.structs[tag].FIELDS if not f.overlay
        ]
        assert {"size": declared.structs[tag].SIZE, "fields": ours} == struct, tag


def test_nothing_is_declared_under_a_tag_that_the_kernel_does_not_have(
    arch: str, declared: Catalog, truth: Mapping[str, Any]
) -> None:
    known = truth[f"layout-{arch}"]["structs"].keys() | truth["acpi"]["structs"].keys() | {"dmi_header"}
    assert [cls.__kernel__ for cls in declared.structs.values() if cls.__kernel__ and cls.__kernel__ not in known] == []


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_the_ring_header_is_the_same_up_to_its_padding_at_every_page_size(
    page_size: int, truth: Mapping[str, Any]
) -> None:
    meta = truth["layout-arm64"]["_meta"]["page_size_dependent"]
    assert sorted(tag for tag, row in meta.items() if row["class"] == "wire") == ["hv_ring_buffer"]
    build = f"arm64-{page_size // 1024}K"
    row = meta["hv_ring_buffer"]
    assert ring.ring_header_size(page_size) == row["size"][build]
    if page_size == 4096:
        assert ring.HvRingBuffer.SIZE == row["size"]["x86"] == 4096
        return
    theirs = expected_fields({"fields": row["fields"][build]})
    assert theirs.pop("buffer")["offset"] == page_size
    padding = theirs.pop("reserved2")
    assert (padding["offset"], padding["size"]) == (ring.HvRingBuffer.offset_of("reserved2"), page_size - 68)
    ours = dict(flatten(ring.HvRingBuffer))
    for name, expected in theirs.items():
        assert list(compare(name, ours[name], expected)) == []


def value_for(row: Mapping[str, Any], arch: str) -> int | None:
    if "value" in row:
        return int(row["value"]) if arch in row.get("arch", (arch,)) else None
    return int(row[arch])


def test_every_declared_constant_has_the_value_of_the_compiled_kernel(
    arch: str, declared: Catalog, truth: Mapping[str, Any]
) -> None:
    constants = truth["constants"]["constants"]
    wrong = {
        name: (value, value_for(constants[name], arch))
        for name, value in declared.constants.items()
        if name in constants and value != value_for(constants[name], arch)
    }
    assert wrong == {}
    assert sum(name in constants for name in declared.constants) > 400


@pytest.mark.parametrize("name", sorted(BY_PAGE_SIZE))
def test_constants_that_depend_on_the_page_size(name: str, truth: Mapping[str, Any]) -> None:
    row = truth["constants"]["constants"][name]
    expected = (row["x86_64"], row["arm64_16K"], row["arm64_64K"])
    assert tuple(BY_PAGE_SIZE[name](size) for size in PAGE_SIZES) == expected


def test_every_guid_has_the_kernels_bytes(truth: Mapping[str, Any]) -> None:
    rows = truth["guids"]["guids"]
    assert {name: (str(guid), guid.hex()) for name, guid in guids.GUIDS.items()} == {
        name: (row["guid"], row["raw_hex"]) for name, row in rows.items()
    }
    assert all(guids.guid_name(bytes.fromhex(row["raw_hex"])) == name for name, row in rows.items())
    assert guids.guid_name(bytes(16)) is None


def not_yet() -> dict[str, dict[str, list[str]]]:
    return tomllib.loads((DATA / "not-yet.toml").read_text())


def listed(kind: str) -> list[str]:
    return [name for group in not_yet().values() for name in group.get(kind, ())]


def everything() -> Catalog:
    catalogs = [collect(modules_of(arch)) for arch in ARCH_MODULES]
    structs = {tag: cls for catalog in catalogs for tag, cls in catalog.structs.items()}
    constants = {name: value for catalog in catalogs for name, value in catalog.constants.items()}
    return Catalog(structs, constants, dict(guids.GUIDS), {}, {})


@pytest.mark.parametrize("kind", ["structs", "constants", "strings"])
def test_every_ground_truth_item_is_declared_or_on_the_list_and_not_both(kind: str, truth: Mapping[str, Any]) -> None:
    have = everything()
    if kind == "structs":
        wanted = truth["layout-x86_64"]["structs"].keys() | truth["layout-arm64"]["structs"].keys()
        # A GUID is the field form `Guid`, not a struct of its own.
        declared_names = set(have.structs) | {"guid_t"}
    elif kind == "constants":
        wanted = truth["constants"]["constants"].keys()
        declared_names = set(have.constants) | BY_PAGE_SIZE.keys()
    else:
        wanted = truth["constants"]["strings"].keys()
        declared_names = set(have.constants)
    names = listed(kind)
    assert sorted(names) == sorted(set(names)), "an item is on the list twice"
    assert sorted(wanted - declared_names - set(names)) == [], "neither declared nor on the list"
    assert sorted(set(names) & declared_names) == [], "declared, so take it off the list"
    assert sorted(set(names) - wanted) == [], "on the list but not in the ground truth"


def test_the_list_holds_no_core_protocol() -> None:
    core = {"vmbus", "tlfs", "ring", "ic", "monitor", "storvsc", "guids"}
    assert core.isdisjoint(not_yet())


def test_an_architectures_own_names_are_the_same_type_on_both(truth: Mapping[str, Any]) -> None:
    # The six wire types that differ are declared by each architecture, under one name.
    differ = truth["layout-arm64"]["_meta"]["differs_from_x86_64"]["wire"]
    x86, arm64 = (collect(modules_of(arch)).structs for arch in ("x86_64", "arm64"))
    for tag in differ:
        assert x86[tag].__name__ == arm64[tag].__name__
        assert x86[tag].SIZE != arm64[tag].SIZE
    assert {tag for tag in x86.keys() & arm64.keys() if x86[tag] is not arm64[tag]} == {
        *differ,
        "HvInitialVpContext",
    }


def test_the_message_table_agrees_with_the_guests_own(truth: Mapping[str, Any]) -> None:
    rows = truth["tables"]["tables"]["channel_message_table"]
    for number, row in enumerate(rows):
        ours = vmbus.channel_message(number)
        if row["handler"] is None:
            assert ours is None or ours.min_payload_len is None, row
            continue
        assert ours is not None
        assert ours.number.name == row["message_type"]
        assert ours.sender == "host"
        assert ours.min_payload_len == row["min_payload_len"]
        assert ours.blocking == (row["handler_type"] == "VMHT_BLOCKING")
        assert row["min_payload_len"] in (0, ours.struct.SIZE)
    assert [int(row.number) for row in vmbus.CHANNEL_MESSAGES] == sorted(
        number for number in range(len(rows)) if number not in (0, 18, 19, 20)
    )
    assert vmbus.channel_message(len(rows)) is None


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_ring_sizes_agree_with_the_kernels_own_macro(page_size: int, truth: Mapping[str, Any]) -> None:
    rows = truth["functions"]["functions"]["VMBUS_RING_SIZE"]["by_page_size"][str(page_size)]
    assert rows
    for row in rows:
        payload = row["in"]["payload_sz"]
        assert ring.vmbus_header_adj(payload, page_size) == row["out"]["header_adj"]
        assert ring.vmbus_ring_size(payload, page_size) == row["out"]["ring_size"]


def test_tlfs_names_and_kernel_names_have_one_value() -> None:
    for status in tlfs.HvStatus:
        kernel = getattr(tlfs, status.name, None)
        assert kernel is None or kernel == status
    kernel_calls = {value for name, value in vars(tlfs).items() if name.startswith(("HVCALL_", "HV_EXT_CALL_"))}
    assert kernel_calls <= {int(code) for code in tlfs.HvCallCode}
    low = {n: v for n, v in vars(tlfs).items() if n.endswith("_AVAILABLE") or n.startswith("HV_ACCESS_")}
    privileges = 0
    for privilege in tlfs.HvPartitionPrivilege:
        privileges |= privilege
    for name, value in low.items():
        if name not in ("HV_ACCESS_PARTITION_ID", "HV_ACCESS_MEMORY_POOL", "HV_ACCESS_STATS"):
            assert value & privileges == value, name
    assert tlfs.HvPartitionPrivilege.Isolation == tlfs.HV_ISOLATION << 32
    assert tlfs.HvPartitionPrivilege.CpuManagement == tlfs.HV_CPU_MANAGEMENT << 32


def test_x86_flag_names_and_kernel_names_have_one_value() -> None:
    from hvkernel_x86 import tlfs as kernel
    from hvkernel_x86 import tlfs_cpuid as named

    features, advice = named.HvFeaturesD, named.HvEnlightenmentRecommendation
    assert [
        (kernel.HV_X64_MWAIT_AVAILABLE, features.MwaitAvailable),
        (kernel.HV_X64_HYPERCALL_XMM_INPUT_AVAILABLE, features.XmmRegistersForFastHypercallAvailable),
        (kernel.HV_FEATURE_FREQUENCY_MSRS_AVAILABLE, features.FrequencyRegsAvailable),
        (kernel.HV_FEATURE_GUEST_CRASH_MSR_AVAILABLE, features.GuestCrashRegsAvailable),
        (kernel.HV_FEATURE_DEBUG_MSRS_AVAILABLE, features.DebugRegsAvailable),
        (kernel.HV_X64_HYPERCALL_XMM_OUTPUT_AVAILABLE, features.FastHypercallOutputAvailable),
        (kernel.HV_STIMER_DIRECT_MODE_AVAILABLE, features.DirectSyntheticTimers),
        (kernel.HV_X64_REMOTE_TLB_FLUSH_RECOMMENDED, advice.UseHypercallForRemoteFlushAndLocalFlushEntire),
        (kernel.HV_X64_APIC_ACCESS_RECOMMENDED, advice.UseApicMsrs),
        (kernel.HV_X64_RELAXED_TIMING_RECOMMENDED, advice.UseRelaxedTiming),
        (kernel.HV_DEPRECATING_AEOI_RECOMMENDED, advice.DeprecateAutoEoi),
        (kernel.HV_X64_CLUSTER_IPI_RECOMMENDED, advice.UseSyntheticClusterIpi),
        (kernel.HV_X64_EX_PROCESSOR_MASKS_RECOMMENDED, advice.UseExProcessorMasks),
        (kernel.HV_X64_ENLIGHTENED_VMCS_RECOMMENDED, advice.UseVmcsEnlightenments),
        (kernel.HV_X64_NO_NONARCH_CORESHARING, advice.NoNonArchitecturalCoreSharing),
        (kernel.HYPERV_VS_PROPERTIES_EAX_EXTENDED_IOAPIC_RTE, named.HvVirtStackProperty.ExtendedIoapicRte),
    ] == [(value, value) for value in (1, 16, 256, 1024, 2048, 1 << 15, 1 << 19, 4, 8, 32, 512)] + [
        (value, value) for value in (1024, 2048, 1 << 14, 1 << 18, 4)
    ]
    boundary = named.HvIsolationConfiguration.field("shared_gpa_boundary_bits")
    mask = (1 << boundary.bit_size) - 1 << boundary.bit_offset
    assert (boundary.offset, mask) == (4, kernel.HV_SHARED_GPA_BOUNDARY_BITS)


def test_arm64_register_numbers_are_the_tlfs_register_names() -> None:
    from hvkernel_arm64 import tlfs as arm64

    numbers = {int(name) for name in tlfs.HvRegisterName}
    registers = [v for n, v in vars(arm64).items() if n.startswith("HV_REGISTER_")]
    assert len(registers) == 20
    assert set(registers) <= numbers
    assert int(tlfs.HvRegisterName.HvRegisterSimp) == int(arm64.HV_REGISTER_SIMP)


def test_collect_refuses_two_values_for_one_name() -> None:
    first, second = ModuleType("first"), ModuleType("second")
    for module, value in ((first, 1), (second, 2)):
        module.__dict__.update({"LIMIT": value, "__annotations__": {"LIMIT": "Final"}})
    assert collect([first]).constants == {"LIMIT": 1}
    with pytest.raises(ValueError, match=r"^LIMIT is 1 in first but 2 in second$"):
        collect([first, second])
