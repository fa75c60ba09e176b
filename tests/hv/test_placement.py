"""init_vp_index() and the map of allocated CPUs against the kernel's own code, compiled from its source.

The functions are cut out of drivers/hv where the kernel's source lies; the few lines of C around them (below) are ours.
"""

from __future__ import annotations

import ctypes
import random
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hvkernel.abi.vmbus import VmbusDeviceType as Dev
from hvkernel.hv import channel_cpus

PRELUDE = r"""
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
typedef uint32_t u32; typedef uint64_t u64;
#define lockdep_assert_held(x) do { } while (0)
#define GFP_KERNEL 0
#define VMBUS_CONNECT_CPU 0
#define HK_TYPE_MANAGED_IRQ 0
#define container_of(p, t, m) ((t *)((char *)(p) - offsetof(t, m)))
struct list_head { struct list_head *next, *prev; };
#define list_for_each_entry(pos, head, m) \
  for (pos = container_of((head)->next, __typeof__(*pos), m); &pos->m != (head); \
       pos = container_of(pos->m.next, __typeof__(*pos), m))
static void add_tail(struct list_head *n, struct list_head *h)
{ n->prev = h->prev; n->next = h; h->prev->next = n; h->prev = n; }
static void unlink_(struct list_head *n) { n->prev->next = n->next; n->next->prev = n->prev; }
struct cpumask { u64 bits; };
typedef struct cpumask cpumask_var_t[1];
#define alloc_cpumask_var(m, f) true
#define free_cpumask_var(m) do { } while (0)
static struct cpumask online, all = { ~0ull }, nodes[64];
#define cpu_online_mask (&online)
static const struct cpumask *housekeeping_cpumask(int t) { (void)t; return &all; }
static const struct cpumask *cpumask_of_node(int n) { return &nodes[n]; }
static bool cpumask_intersects(const struct cpumask *a, const struct cpumask *b) { return a->bits & b->bits; }
static void cpumask_xor(struct cpumask *d, const struct cpumask *a, const struct cpumask *b)
{ d->bits = a->bits ^ b->bits; }
static void cpumask_and(struct cpumask *d, const struct cpumask *a, const struct cpumask *b)
{ d->bits = a->bits & b->bits; }
static bool cpumask_empty(const struct cpumask *a) { return !a->bits; }
static void cpumask_clear(struct cpumask *a) { a->bits = 0; }
static u32 cpumask_first(const struct cpumask *a) { return __builtin_ctzll(a->bits); }
static void cpumask_set_cpu(u32 c, struct cpumask *a) { a->bits |= 1ull << c; }
static void cpumask_clear_cpu(u32 c, struct cpumask *a) { a->bits &= ~(1ull << c); }
static u32 num_online_cpus(void) { return __builtin_popcountll(online.bits); }
static int nr_node_ids, home[64];
static int cpu_to_node(u32 c) { return home[c]; }
static struct { struct cpumask *hv_numa_map; } hv_context;
static struct cpumask numa_map[64];
struct offer { unsigned short sub_channel_index; };
struct vmbus_channel {
  struct list_head listentry, sc_list;
  struct vmbus_channel *primary_channel;
  struct { struct offer offer; } offermsg;
  u32 target_cpu; int perf;
};
static bool hv_is_perf_channel(struct vmbus_channel *c) { return c->perf; }
static struct { struct list_head chn_list; int channel_mutex; } vmbus_connection;
"""

AFTER = r"""
static struct vmbus_channel pool[4096];
void reset(int n, const u64 *masks)
{ nr_node_ids = n; next_numa_node_id = 0; online.bits = 0; hv_context.hv_numa_map = numa_map;
  vmbus_connection.chn_list.next = vmbus_connection.chn_list.prev = &vmbus_connection.chn_list;
  for (int i = 0; i < n; i++) { nodes[i].bits = masks[i]; online.bits |= masks[i]; numa_map[i].bits = 0;
    for (int c = 0; c < 64; c++) if (masks[i] >> c & 1) home[c] = i; } }
void set_node(int n, u64 mask) { online.bits = (online.bits & ~nodes[n].bits) | mask; nodes[n].bits = mask; }
u32 offer(int id, int perf, int index, int primary)
{ struct vmbus_channel *c = &pool[id];
  c->perf = perf; c->offermsg.offer.sub_channel_index = index; c->sc_list.next = c->sc_list.prev = &c->sc_list;
  c->primary_channel = primary < 0 ? NULL : &pool[primary];
  init_vp_index(c);
  if (primary < 0) add_tail(&c->listentry, &vmbus_connection.chn_list);
  else add_tail(&c->sc_list, &pool[primary].sc_list);
  return c->target_cpu; }
void drop(int id)
{ struct vmbus_channel *c = &pool[id];
  unlink_(c->primary_channel ? &c->sc_list : &c->listentry);
  if (hv_is_perf_channel(c)) hv_clear_allocated_cpu(c->target_cpu); }
void move(int id, u32 cpu)
{ struct vmbus_channel *c = &pool[id]; u32 old = c->target_cpu; c->target_cpu = cpu;
  if (hv_is_perf_channel(c)) hv_update_allocated_cpus(old, cpu); }
u64 map(int n) { return numa_map[n].bits; }
"""


def cut(source: str, name: str) -> str:
    """Return one static function of a kernel file."""
    found = re.search(rf"^static (?:inline )?[\w ]+ {name}\([^;{{]*\)\n\{{.*?^\}}", source, re.M | re.S)
    assert found is not None, name
    return found.group(0)


@pytest.fixture(scope="session")
def theirs(kernel_source: Path, program: Callable[[str, str], str], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The kernel's functions as a library."""
    mgmt = (kernel_source / "drivers/hv/channel_mgmt.c").read_text("utf-8")
    header = (kernel_source / "drivers/hv/hyperv_vmbus.h").read_text("utf-8")
    names = ("hv_is_allocated_cpu", "hv_set_allocated_cpu", "hv_clear_allocated_cpu", "hv_update_allocated_cpus")
    parts = [PRELUDE, *(cut(header, name) for name in names), cut(mgmt, "hv_cpuself_used")]
    parts += ["static int next_numa_node_id;", cut(mgmt, "init_vp_index"), AFTER]
    folder = tmp_path_factory.mktemp("placement")
    (folder / "placement.c").write_text("\n".join(parts), "utf-8")
    library = folder / "placement.so"
    gcc = program("gcc", "gcc")
    subprocess.run([gcc, "-O1", "-shared", "-fPIC", "-o", library, folder / "placement.c"], check=True)
    made = ctypes.CDLL(str(library))
    made.map.restype = ctypes.c_uint64
    made.set_node.argtypes = (ctypes.c_int, ctypes.c_uint64)
    return made


@dataclass(eq=False)
class Channel:
    """As much of a channel as the functions look at."""

    device_id: int
    offermsg: Any
    primary_channel: Any
    sc_list: list[Any]
    target_cpu: int


class Ours:
    """The same operations on hvkernel.hv.channel_mgmt."""

    def __init__(self, masks: list[int]) -> None:
        self.masks = list(masks)
        self.v: Any = SimpleNamespace(
            vmbus_proto_version=0x50003,
            hv_numa_map=[0] * len(masks),
            next_numa_node_id=0,
            connection=SimpleNamespace(chn_list=[]),
            cpus=SimpleNamespace(
                num_online_cpus=lambda: sum(mask.bit_count() for mask in self.masks),
                nr_node_ids=lambda: len(masks),
                cpumask_of_node=lambda node: [cpu for cpu in range(64) if self.masks[node] >> cpu & 1],
                cpu_to_node=lambda cpu: next(node for node, mask in enumerate(masks) if mask >> cpu & 1),
            ),
        )
        self.pool: dict[int, Any] = {}

    def offer(self, ident: int, perf: int, index: int, primary: int) -> int:
        channel: Any = Channel(
            device_id=Dev.HV_ND if perf else Dev.HV_KVP,
            offermsg=SimpleNamespace(sub_channel_index=index),
            primary_channel=self.pool.get(primary),
            sc_list=[],
            target_cpu=-1,
        )
        self.pool[ident] = channel
        channel_cpus.init_vp_index(self.v, channel)
        (self.v.connection.chn_list if primary < 0 else self.pool[primary].sc_list).append(channel)
        return int(channel.target_cpu)

    def drop(self, ident: int) -> None:
        channel = self.pool.pop(ident)
        owner = channel.primary_channel
        (self.v.connection.chn_list if owner is None else owner.sc_list).remove(channel)
        if channel_cpus.hv_is_perf_channel(channel):
            channel_cpus.hv_clear_allocated_cpu(self.v, channel.target_cpu)

    def move(self, ident: int, cpu: int) -> None:
        channel = self.pool[ident]
        old, channel.target_cpu = channel.target_cpu, cpu
        if channel_cpus.hv_is_perf_channel(channel):
            channel_cpus.hv_update_allocated_cpus(self.v, old, cpu)


SHAPES = ([0b1], [0b1111], [0b11, 0b1100], [0x0F, 0, 0xF0], [0x55, 0xAA], [0b1, 0xFFFE, 0x3 << 20], [(1 << 64) - 1])


@pytest.mark.parametrize("masks", SHAPES, ids=lambda masks: "-".join(f"{mask:x}" for mask in masks))
def test_every_sequence_ends_on_the_kernels_cpus(theirs: Any, masks: list[int]) -> None:
    for seed in range(40):
        rng = random.Random(f"{masks} {seed}")
        theirs.reset(len(masks), (ctypes.c_uint64 * len(masks))(*masks))
        ours = Ours(masks)
        serial = 0
        for step in range(60):
            primaries = [ident for ident, one in ours.pool.items() if one.primary_channel is None]
            choice = rng.random()
            if choice < 0.5 or not primaries:
                given = (serial, int(rng.random() < 0.8), 0, -1)
            elif choice < 0.75:
                primary = rng.choice(primaries)
                kind = int(ours.pool[primary].device_id == Dev.HV_ND)
                given = (serial, kind, len(ours.pool[primary].sc_list) + 1, primary)
            elif choice < 0.85:
                leaves = [ident for ident, one in ours.pool.items() if not one.sc_list]
                gone = rng.choice(leaves)
                ours.drop(gone)
                theirs.drop(gone)
                continue
            elif choice < 0.95:
                moved = rng.choice(list(ours.pool))
                cpu = rng.choice([cpu for cpu in range(64) if sum(ours.masks) >> cpu & 1])
                ours.move(moved, cpu)
                theirs.move(moved, cpu)
                continue
            else:
                node = rng.randrange(len(masks))
                mask = masks[node] & rng.getrandbits(64) | (node == 0)
                ours.masks[node] = mask if masks[node] else 0
                theirs.set_node(node, ours.masks[node])
                continue
            assert ours.offer(*given) == theirs.offer(*given), (seed, step, given)
            assert ours.v.hv_numa_map == [theirs.map(node) for node in range(len(masks))], (seed, step, given)
            serial += 1
