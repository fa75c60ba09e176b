/*
 * The kernel's own ring in a user program, to compare hvkernel's with. Built by tests/hv/conftest.py, which puts
 * the kernel's drivers/hv on the include path and writes channel_part.h, the functions of channel.c that it needs,
 * cut out at build time. Only this file and stub.h are ours.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#define KBUILD_MODNAME "rig"
#define _HYPERV_VMBUS_H
#include <linux/hyperv.h>

/* What hyperv_vmbus.h declares; the rest of that header is not about rings. */
enum delay { INTERRUPT_DELAY = 0, MESSAGE_DELAY = 1 };
static inline void hv_debug_delay_test(struct vmbus_channel *channel, enum delay which) { }
int hv_ringbuffer_init(struct hv_ring_buffer_info *ring_info, struct page *pages, u32 page_cnt, u32 max_pkt_size);
void hv_ringbuffer_cleanup(struct hv_ring_buffer_info *ring_info);
int hv_ringbuffer_write(struct vmbus_channel *channel, const struct kvec *kv_list, u32 kv_count, u64 requestid,
			u64 *trans_id);
int hv_ringbuffer_read(struct vmbus_channel *channel, void *buffer, u32 buflen, u32 *buffer_actual_len,
		       u64 *requestid, bool raw);
void hv_ringbuffer_pre_init(struct vmbus_channel *channel);

#include "ring_buffer.c"
#include "channel_part.h"

struct rig {
	struct vmbus_channel channel;
	int memfd;
	u8 *arena;		/* every page once: outbound, then inbound */
	size_t size;
	struct page *pages;
	u64 setevents;
	int rescind_at_setevent;
};

/* vmap() gets no channel, and vmbus_setevent() no rig: there is one rig at work at a time. */
static struct rig *current_rig;
__typeof__(ms_hyperv) ms_hyperv;

struct reciprocal_value reciprocal_value(u32 d)
{
	int bits = d > 1 ? 32 - __builtin_clz(d - 1) : 0;
	struct reciprocal_value r = {
		.m = (u32)((((1ULL << 32) * ((1ULL << bits) - d)) / d) + 1),
		.sh1 = bits < 1 ? bits : 1,
		.sh2 = bits > 1 ? bits - 1 : 0,
	};

	return r;
}

unsigned long page_to_pfn(struct page *page) { return page - current_rig->pages; }
phys_addr_t page_to_phys(struct page *page) { return page_to_pfn(page) << PAGE_SHIFT; }
phys_addr_t virt_to_phys(const volatile void *address) { abort(); }
phys_addr_t __pa(const volatile void *address) { abort(); }
bool is_vmalloc_addr(const void *address) { abort(); }
struct page *vmalloc_to_page(const void *address) { abort(); }
void *vmap_pfn(unsigned long *pfns, unsigned int count, pgprot_t prot) { abort(); }

#define MAPPED 16
static struct { void *at; size_t size; } mapped[MAPPED];

void *vmap(struct page **pages, unsigned int count, unsigned long flags, pgprot_t prot)
{
	size_t size = (size_t)count << PAGE_SHIFT;
	u8 *at = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	for (unsigned int i = 0; i < count; i++)
		if (mmap(at + ((size_t)i << PAGE_SHIFT), PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
			 current_rig->memfd, (off_t)page_to_pfn(pages[i]) << PAGE_SHIFT) == MAP_FAILED)
			return NULL;
	for (int i = 0; i < MAPPED; i++)
		if (!mapped[i].at) {
			mapped[i].at = at;
			mapped[i].size = size;
			return at;
		}
	abort();
}

void vunmap(const void *address)
{
	for (int i = 0; address && i < MAPPED; i++)
		if (mapped[i].at == address) {
			munmap(mapped[i].at, mapped[i].size);
			mapped[i].at = NULL;
			return;
		}
}

void vmbus_setevent(struct vmbus_channel *channel)
{
	current_rig->setevents++;
	if (current_rig->rescind_at_setevent)
		channel->rescind = true;
}

/* The rig, for ctypes ----------------------------------------------------------------------------------------- */

struct rig *rig_new(u32 out_pages, u32 in_pages, u32 max_pkt_size, u32 rqstor_size)
{
	struct rig *rig = calloc(1, sizeof(*rig));
	struct vmbus_channel *channel = &rig->channel;

	current_rig = rig;
	rig->size = (size_t)(out_pages + in_pages) << PAGE_SHIFT;
	rig->memfd = memfd_create("ring", 0);
	if (ftruncate(rig->memfd, rig->size))
		return NULL;
	rig->arena = mmap(NULL, rig->size, PROT_READ | PROT_WRITE, MAP_SHARED, rig->memfd, 0);
	rig->pages = calloc(out_pages + in_pages, sizeof(struct page));
	hv_ringbuffer_pre_init(channel);
	if (hv_ringbuffer_init(&channel->outbound, rig->pages, out_pages, 0) ||
	    hv_ringbuffer_init(&channel->inbound, rig->pages + out_pages, in_pages, max_pkt_size))
		return NULL;
	channel->rqstor_size = rqstor_size;
	if (rqstor_size) {
		vmbus_alloc_requestor(&channel->requestor, rqstor_size);
		channel->next_request_id_callback = vmbus_next_request_id;
		channel->request_addr_callback = vmbus_request_addr;
	}
	return rig;
}

void rig_free(struct rig *rig)
{
	hv_ringbuffer_cleanup(&rig->channel.outbound);
	hv_ringbuffer_cleanup(&rig->channel.inbound);
	if (rig->channel.rqstor_size)
		vmbus_free_requestor(&rig->channel.requestor);
	munmap(rig->arena, rig->size);
	close(rig->memfd);
	free(rig->pages);
	free(rig);
	current_rig = NULL;
}

u8 *rig_arena(struct rig *rig) { return rig->arena; }
void rig_rescind(struct rig *rig, int now, int at_setevent)
{
	rig->channel.rescind = now;
	rig->rescind_at_setevent = at_setevent;
}

/* What the guest keeps for itself: 16 numbers, in the order in which the test names them. */
void rig_private(struct rig *rig, u64 *out)
{
	struct vmbus_channel *c = &rig->channel;
	u64 values[] = {
		rig->setevents, c->intr_out_empty, c->intr_in_full, c->out_full_total, c->out_full_first,
		c->out_full_flag, c->inbound.priv_read_index, c->inbound.ring_size, c->inbound.ring_datasize,
		c->inbound.pkt_buffer_size, c->outbound.ring_size, c->outbound.ring_datasize,
		c->requestor.next_request_id, hv_get_bytes_to_read(&c->inbound), hv_get_bytes_to_write(&c->outbound),
		hv_get_avail_to_write_percent(&c->outbound),
	};

	memcpy(out, values, sizeof(values));
}

int rig_send(struct rig *rig, void *buffer, u32 len, u64 requestid, u64 *trans_id, int type, u32 flags)
{
	return vmbus_sendpacket_getid(&rig->channel, buffer, len, requestid, trans_id, type, flags);
}

int rig_send_mpb(struct rig *rig, void *desc, u32 desc_size, void *buffer, u32 len, u64 requestid)
{
	return vmbus_sendpacket_mpb_desc(&rig->channel, desc, desc_size, buffer, len, requestid);
}

int rig_recv(struct rig *rig, void *buffer, u32 len, u32 *actual, u64 *requestid, int raw)
{
	return (raw ? vmbus_recvpacket_raw : vmbus_recvpacket)(&rig->channel, buffer, len, actual, requestid);
}

const void *rig_first(struct rig *rig) { return hv_pkt_iter_first(&rig->channel); }
const void *rig_next(struct rig *rig, const void *desc) { return hv_pkt_iter_next(&rig->channel, desc); }
const void *rig_step(struct rig *rig, const void *desc) { return __hv_pkt_iter_next(&rig->channel, desc); }
void rig_iter_close(struct rig *rig) { hv_pkt_iter_close(&rig->channel); }
void rig_begin_read(struct rig *rig) { hv_begin_read(&rig->channel.inbound); }
u32 rig_end_read(struct rig *rig) { return hv_end_read(&rig->channel.inbound); }

int rig_debuginfo(struct rig *rig, int inbound, u32 *out)
{
	struct hv_ring_buffer_debug_info info;
	int ret = hv_ringbuffer_get_debuginfo(inbound ? &rig->channel.inbound : &rig->channel.outbound, &info);

	if (!ret) {
		out[0] = info.current_interrupt_mask;
		out[1] = info.current_read_index;
		out[2] = info.current_write_index;
		out[3] = info.bytes_avail_toread;
		out[4] = info.bytes_avail_towrite;
	}
	return ret;
}

int rig_debuginfo_closed(void)
{
	struct hv_ring_buffer_info closed = { 0 };
	struct hv_ring_buffer_debug_info info;

	return hv_ringbuffer_get_debuginfo(&closed, &info);
}

u64 rig_next_id(struct rig *rig, u64 address) { return vmbus_next_request_id(&rig->channel, address); }
u64 rig_match(struct rig *rig, u64 trans_id, u64 address)
{
	return vmbus_request_addr_match(&rig->channel, trans_id, address);
}
