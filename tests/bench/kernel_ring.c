/*
 * The kernel's own ring in a user program, timed: the harness of kernel_ring.py. Only this file is ours; the kernel's
 * ring_buffer.c and the send functions of its channel.c are compiled where they lie, each as a unit of its own.
 *
 * Included before each of them, too (KERNEL_RING_DECLARATIONS): it gives the stub header of tests/data/kernel-stub, whose
 * locks and barriers are for one thread, those that Linux has on x86 with several processors.
 */
#ifndef KERNEL_RING_H
#define KERNEL_RING_H
#define _GNU_SOURCE
#include "stub.h"
#undef virt_mb
#undef virt_rmb
#undef spin_lock_irqsave
#undef spin_unlock_irqrestore
#undef likely
#undef unlikely
#if defined(__x86_64__)
#define virt_mb() __asm__ __volatile__("lock; addl $0,-4(%%rsp)" ::: "memory", "cc")
#define virt_rmb() __asm__ __volatile__("" ::: "memory")
#else
#define virt_mb() __atomic_thread_fence(__ATOMIC_SEQ_CST)
#define virt_rmb() __atomic_thread_fence(__ATOMIC_ACQUIRE)
#endif
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define spin_lock_irqsave(lock, flags)                                                                              \
	do {                                                                                                        \
		int open = 0;                                                                                       \
		(void)(flags);                                                                                      \
		while (!__atomic_compare_exchange_n(&(lock)->held, &open, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) \
			open = 0;                                                                                   \
	} while (0)
#define spin_unlock_irqrestore(lock, flags) do { (void)(flags); __atomic_store_n(&(lock)->held, 0, __ATOMIC_RELEASE); } while (0)

#define KBUILD_MODNAME "timed"
#define _HYPERV_VMBUS_H
#include <linux/hyperv.h>
enum delay { INTERRUPT_DELAY = 0, MESSAGE_DELAY = 1 };
static inline void hv_debug_delay_test(struct vmbus_channel *channel, enum delay which) { }
int hv_ringbuffer_init(struct hv_ring_buffer_info *ring_info, struct page *pages, u32 page_cnt, u32 max_pkt_size);
int hv_ringbuffer_write(struct vmbus_channel *channel, const struct kvec *kv_list, u32 kv_count, u64 requestid,
			u64 *trans_id);
int hv_ringbuffer_read(struct vmbus_channel *channel, void *buffer, u32 buflen, u32 *buffer_actual_len,
		       u64 *requestid, bool raw);
#endif

#ifndef KERNEL_RING_DECLARATIONS
#include <sys/mman.h>
#include <unistd.h>

__typeof__(ms_hyperv) ms_hyperv;
static struct page *first_page;
static int memfd;
static u64 setevents;

struct reciprocal_value reciprocal_value(u32 d) { return (struct reciprocal_value){ 0 }; }
unsigned long page_to_pfn(struct page *page) { return page - first_page; }
void *vmap_pfn(unsigned long *pfns, unsigned int count, pgprot_t prot) { abort(); }
void vunmap(const void *address) { }
void vmbus_setevent(struct vmbus_channel *channel) { setevents++; }

void *vmap(struct page **pages, unsigned int count, unsigned long flags, pgprot_t prot)
{
	u8 *at = mmap(NULL, (size_t)count << PAGE_SHIFT, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	for (unsigned int i = 0; i < count; i++)
		if (mmap(at + ((size_t)i << PAGE_SHIFT), PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, memfd,
			 (off_t)page_to_pfn(pages[i]) << PAGE_SHIFT) == MAP_FAILED)
			return NULL;
	return at;
}

/* As struct work of hvkernel/ring/reference.c. */
struct work {
	const u8 *source;
	const u32 *sizes;
	u8 *target;
	u32 *sizes_out;
	u64 *requests;
	u64 room;
};

/* One ring, written and read here; the two ends share nothing but its pages. */
static struct vmbus_channel *writer, *reader;

int timed_open(u32 pages, u32 max_pkt_size)
{
	memfd = memfd_create("timed", 0);
	first_page = calloc(pages, sizeof(*first_page));
	writer = calloc(1, sizeof(*writer));
	reader = calloc(1, sizeof(*reader));
	if (ftruncate(memfd, (off_t)pages << PAGE_SHIFT))
		return -1;
	return hv_ringbuffer_init(&writer->outbound, first_page, pages, 0) ||
	       hv_ringbuffer_init(&reader->inbound, first_page, pages, max_pkt_size);
}

u64 timed_round_trips(const struct work *work, u32 count, u64 rounds, int receive)
{
	struct vmpacket_descriptor *packet;
	u64 moved = 0, room;
	const u8 *from;
	u32 k;
	u8 *to;

	for (u64 i = 0; i < rounds; i++) {
		from = work->source;
		for (k = 0; k < count; k++) {
			moved += !vmbus_sendpacket(writer, (void *)from, work->sizes[k], i * count + k, VM_PKT_DATA_INBAND, 0);
			from += (work->sizes[k] + 7) & ~7u;
		}
		to = work->target;
		k = 0;
		if (receive) {
			for (room = work->room; k < count; k++) {
				vmbus_recvpacket(reader, to, room, work->sizes_out + k, work->requests + k);
				to += work->sizes_out[k];
				room -= work->sizes_out[k];
			}
			continue;
		}
		foreach_vmbus_pkt(packet, reader) {
			work->sizes_out[k] = hv_pkt_datalen(packet);
			work->requests[k] = packet->trans_id;
			memcpy(to, hv_pkt_data(packet), work->sizes_out[k]);
			to += work->sizes_out[k++];
		}
	}
	return moved;
}
#endif
