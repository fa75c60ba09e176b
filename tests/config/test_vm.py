"""VM files: what a user writes, and the one line that says what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hvkernel.config import DEVICE_CLASSES, InputError, load_profile, load_vm
from hvkernel.config.units import format_size, parse_size

KINDS = ", ".join(DEVICE_CLASSES)


@pytest.fixture
def vm_file(tmp_path: Path) -> Path:
    return tmp_path / "vm.toml"


def test_an_empty_file_is_the_default_vm(vm_file: Path) -> None:
    vm_file.write_text("")
    vm = load_vm(vm_file)
    assert (vm.cpus, vm.memory, vm.seed, vm.policy, vm.disks) == (4, 1 << 30, 0, "fifo", None)


def test_everything_can_be_said(vm_file: Path) -> None:
    vm_file.write_text(
        'host = "ws2022"\ngeneration = 1\ncpus = 6\nmemory = "2GiB"\npage_size = "4K"\nseed = 7\npolicy = "random:3"\n'
        'isolation = "none"\ndisks = ["a.img", {path = "", size = "64M", controller = "scsi"}]\n'
        '[[numa]]\ncpus = 2\nmemory = "512M"\n[[numa]]\ncpus = 4\nmemory = "1536M"\n'
    )
    vm = load_vm(vm_file)
    assert (vm.host, vm.generation, vm.cpus, vm.memory, vm.page_size) == ("ws2022", 1, 6, 2 << 30, 4096)
    assert vm.disks is not None
    assert [(disk.path, disk.size, disk.controller) for disk in vm.disks] == [
        ("a.img", None, None),
        ("", 64 << 20, "scsi"),
    ]
    assert [(node.cpus, node.memory) for node in vm.numa] == [(2, 512 << 20), (4, 1536 << 20)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cpus = 0", "cpus = 0: must be greater than or equal to 1"),
        ("cpus = 2049", "cpus = 2049: must be less than or equal to 2048"),
        ("cpus = true", "cpus = True: must be a whole number"),
        ('cpus = "many"', "cpus = 'many': must be a whole number"),
        ("cpu = 4", "cpu: unknown key"),
        ("generation = 3", "generation = 3: must be 1 or 2"),
        ('page_size = "8K"', "page_size = 8192: must be 4096, 16384 or 65536"),
        ('memory = "lots"', "memory = 'lots': a size is a number with an optional K, M, G or T, as 512M"),
        ("memory = 16777216", "memory = 16777216: must be greater than or equal to 67108864"),
        ("memory = 67108865", "memory = 67108865: memory must be a multiple of 2M"),
        ('policy = "lifo"', "policy = 'lifo': must be fifo or random:SEED"),
        ('isolation = "snp"', "isolation = 'snp': must be 'none'"),
        ("seed = -1", "seed = -1: must be greater than or equal to 0"),
        ('disks = [{path = "a", bus = "sata"}]', "disks[0].bus: unknown key"),
        ("[[numa]]\ncpus = 4", "numa[0].memory: is required"),
        ('[[numa]]\ncpus = 3\nmemory = "1G"', "numa: the nodes' cpus must add up to cpus (4)"),
        ('[[numa]]\ncpus = 4\nmemory = "2G"', "numa: the nodes' memory must add up to memory (1G)"),
        (
            'protocols = {scsi = "five"}',
            "protocols.scsi = 'five': a protocol version is MAJOR.MINOR",
        ),
        (
            'protocols = {scsy = "5.1"}',
            "protocols = {'scsy': '5.1'}: no kind of device is called 'scsy'; did you mean 'scsi'? "
            f"It must be one of {KINDS}",
        ),
        (
            'protocols = {dm = "1.0", balloon = "1.0"}',
            "protocols = {'dm': '1.0', 'balloon': '1.0'}: has 'dm' twice",
        ),
        ("dvd = {}", "dvd = {}: a medium has the path of an image, or the size of a blank one"),
        (
            'dvd = {path = "a.iso", size = "2M"}',
            "dvd = {'path': 'a.iso', 'size': '2M'}: a medium has the path of an image, or the size of a blank one",
        ),
        ('dvd = {size = "1M"}', "dvd.size = '1M': must be a multiple of 2048 from 2M to 8T"),
        ("dvd = {size = 2099712}", "dvd.size = 2099712: must be a multiple of 2048 from 2M to 8T"),
        ("cpus = 0\ngeneration = 3", "generation = 3: must be 1 or 2 (and 1 more)"),
        (
            'devices = ["ballon"]',
            f"devices = ['ballon']: no kind of device is called 'ballon'; did you mean 'balloon'? "
            f"It must be one of {KINDS}",
        ),
        ('devices = "ide"', "devices = 'ide': must be a list"),
        ("devices = [1]", "devices[0] = 1: must be text"),
        ('offer_order = "reverse"', "offer_order = 'reverse': must be 'profile' or 'random'"),
        ("[[device]]", "device[0] = {}: a device has a kind or a class_guid, not both"),
        (
            '[[device]]\nkind = "zzz"',
            f"device[0].kind = 'zzz': no kind of device is called 'zzz'; must be one of {KINDS}",
        ),
        ('[[device]]\nkind = "nic"\nrelid = 3', "device[0].relid: unknown key"),
        (
            '[[device]]\nkind = "nic"\nname = "A"',
            "device[0].name = 'A': string should match pattern '^[a-z][a-z0-9-]*$'",
        ),
        (
            '[[device]]\nkind = "nic"\nflags = ["pipe"]',
            "device[0].flags = ['pipe']: no flag 'pipe'; must be bits as a number, or of enumerate-device-interface, "
            "server-supports-transfer-pages, server-supports-gpadls, named-pipe-mode, loopback-offer, parent-offer, "
            "request-monitored-notification, tlnpi-provider-offer",
        ),
        ('[[device]]\nkind = "nic"\nsubchannels = 2047', "device[0].subchannels = 2047: must be less than 2047"),
        ('[[device]]\nkind = "nic"\noffered_at = -1', "device[0].offered_at = -1: must be greater than or equal to 0"),
        (
            '[[device]]\nkind = "nic"\nuser_defined = "0"',
            "device[0].user_defined = '0': string should match pattern '^([0-9a-fA-F]{2})*$'",
        ),
        (
            '[[device]]\nclass_guid = "no"',
            "device[0].class_guid = 'no': must be a GUID, as ba6163d9-04a1-4d29-b605-72e2ffb1dc7f",
        ),
        ("cpus = ", "is not TOML: Invalid value (at end of document)"),
    ],
)
def test_a_mistake_is_one_line_with_file_key_value_and_limit(vm_file: Path, text: str, message: str) -> None:
    vm_file.write_text(text)
    with pytest.raises(InputError) as caught:
        load_vm(vm_file)
    assert str(caught.value) == f"{vm_file}: {message}"
    assert caught.value.file == str(vm_file)


def test_a_missing_file_and_one_that_is_not_text(vm_file: Path) -> None:
    with pytest.raises(InputError, match=r"vm\.toml: No such file or directory$"):
        load_vm(vm_file)
    vm_file.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"vm\.toml: is not UTF-8 text$"):
        load_vm(vm_file)


@pytest.mark.parametrize(
    ("text", "size"), [("4096", 4096), ("4k", 4096), ("64 KiB", 65536), ("2MB", 2 << 20), ("1T", 1 << 40), (7, 7)]
)
def test_sizes(text: str | int, size: int) -> None:
    assert parse_size(text) == size
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize("text", ["", "G", "1.5G", "-1", "1Q", "1 G B", "0x10"])
def test_what_is_not_a_size(text: str) -> None:
    with pytest.raises(ValueError, match="a size is a number"):
        parse_size(text)


@pytest.mark.parametrize("value", ["4", "true", '"4"', "0"])
def test_a_version_without_its_minor_number_is_refused(vm_file: Path, value: str) -> None:
    vm_file.write_text(f"vmbus = {value}\n")
    with pytest.raises(InputError, match=r"vm\.toml: vmbus = .*: a protocol version is MAJOR\.MINOR$"):
        load_vm(vm_file)


def test_a_vm_may_have_an_older_vmbus_than_its_host(vm_file: Path) -> None:
    vm_file.write_text('host = "ws2022"\nvmbus = "4.0"\n')
    assert load_vm(vm_file).vmbus == 4 << 16
    vmbus = load_profile("ws2022").vmbus
    assert vmbus.capped(5 << 16).versions[-1] == 5 << 16
    assert vmbus.capped(5 << 16).message_connection_4
    assert vmbus.capped(4 << 16).versions == (13, 1 << 16 | 1, 2 << 16 | 4, 3 << 16, 4 << 16)
    assert not vmbus.capped(4 << 16).message_connection_4
    with pytest.raises(ValueError) as error:
        load_profile("wsl2").vmbus.capped(1 << 16)
    assert str(error.value) == "the lowest version of this host is 2.4"
