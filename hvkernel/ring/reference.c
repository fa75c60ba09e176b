/*
 * The VMBus ring as Linux 6.1 drives it, written down a second time in C: the yardstick of hvkernel's benchmark.
 *
 * Part of hvkernel, under its licence (MIT). The order of loads, stores, barriers and copies is that of
 * drivers/hv/ring_buffer.c and of vmbus_sendpacket_getid() in drivers/hv/channel.c (Linux 6.1.192); the text is ours.
 *
 * What a packet costs here, as there:
 *   write    one lock (locked compare-exchange, release store), three copies (descriptor, payload, padding) and the
 *            trailer, a full barrier before the write index and another before the decision to signal;
 *   iterate  one copy of the packet into a staging buffer; at the end of a batch one publication of the read index,
 *            with a full barrier before the look at pending_send_sz;
 *   receive  the same copy, another to the caller, the copy of the packet *behind* it, which nobody uses, and a
 *            publication for each packet.
 * The data pages are mapped twice in a row, so a copy never splits. Not reproduced: switching interrupts off,
 * retpolines, the signalling hypercall (it is counted). So this flatters C.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define CONTROL 4096u
#define TRAILER 8u
#define POLLS 4096
#define NO_REQUEST (~0ull - 1) /* VMBUS_RQST_ERROR */

#define load_once(place) __atomic_load_n(&(place), __ATOMIC_RELAXED)
#define store_once(place, value) __atomic_store_n(&(place), (value), __ATOMIC_RELAXED)
#define separate __attribute__((noipa)) /* in the kernel a function of another file, or an exported one */

#if defined(__x86_64__)
#define full_barrier() __asm__ __volatile__("lock; addl $0,-4(%%rsp)" ::: "memory", "cc")
#define relax() __asm__ __volatile__("pause" ::: "memory")
#else
#define full_barrier() __atomic_thread_fence(__ATOMIC_SEQ_CST)
#define relax() __asm__ __volatile__("" ::: "memory")
#endif
/* On x86 a load is not moved before another one: only the compiler has to be held. */
#if defined(__x86_64__)
#define read_barrier() __asm__ __volatile__("" ::: "memory")
#else
#define read_barrier() __atomic_thread_fence(__ATOMIC_ACQUIRE)
#endif

struct control_page {
	uint32_t write_index;
	uint32_t read_index;
	uint32_t interrupt_mask;
	uint32_t pending_send_sz;
	uint32_t reserved1[12];
	uint32_t feature_bits;
	uint8_t reserved2[CONTROL - 68];
	uint8_t data[];
};

struct descriptor {
	uint16_t type;
	uint16_t offset8;
	uint16_t len8;
	uint16_t flags;
	uint64_t trans_id;
};

struct piece {
	const void *start;
	size_t size; /* as in struct kvec */
};

/* One end. The counters come first: the caller reads them as an array of three. */
struct end {
	uint64_t signals;
	uint64_t full_total;
	uint64_t full_first;
	struct control_page *ring;
	uint8_t *staging;
	uint32_t dsize;
	uint32_t staging_size;
	uint32_t private_index;
	uint32_t lock;
	uint32_t full;
	uint32_t rescinded;
	uint64_t (*next_request)(struct end *end, uint64_t request); /* the requestor; not used by what is measured */
};

/* Map the ring in a file: control page and data, and the data once more behind it. Null when memory is short. */
struct end *ref_attach(int fd, uint32_t dsize, uint32_t staging_size)
{
	struct end *end = calloc(1, sizeof(*end));
	uint8_t *place;

	if (!end)
		return NULL;
	end->staging = aligned_alloc(CONTROL, (staging_size + CONTROL - 1) & ~(CONTROL - 1)); /* as kmalloc() aligns */
	place = mmap(NULL, CONTROL + 2ul * dsize, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (!end->staging || place == MAP_FAILED)
		goto failed;
	if (mmap(place, CONTROL + dsize, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED ||
	    mmap(place + CONTROL + dsize, dsize, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, CONTROL) ==
		    MAP_FAILED) {
		munmap(place, CONTROL + 2ul * dsize);
		goto failed;
	}
	end->ring = (struct control_page *)place;
	end->dsize = dsize;
	end->staging_size = staging_size;
	end->private_index = end->ring->read_index;
	return end;
failed:
	free(end->staging);
	free(end);
	return NULL;
}

void ref_detach(struct end *end)
{
	munmap(end->ring, CONTROL + 2ul * end->dsize);
	free(end->staging);
	free(end);
}

static inline void lock(struct end *end)
{
	uint32_t open = 0;

	while (!__atomic_compare_exchange_n(&end->lock, &open, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
		open = 0;
		relax();
	}
}

static inline void unlock(struct end *end)
{
	__atomic_store_n(&end->lock, 0, __ATOMIC_RELEASE);
}

static inline uint32_t room_of(const struct end *end)
{
	uint32_t read = load_once(end->ring->read_index);
	uint32_t write = load_once(end->ring->write_index);

	return write >= read ? end->dsize - (write - read) : read - write;
}

static inline uint32_t put(struct end *end, uint32_t at, const void *from, uint32_t size)
{
	memcpy(end->ring->data + at, from, size);
	at += size;
	return at >= end->dsize ? at - end->dsize : at;
}

/* hv_signal_on_write(): when the ring was empty before, and nobody asked for silence. */
static inline void signal_on_write(struct end *end, uint32_t before)
{
	full_barrier();
	if (load_once(end->ring->interrupt_mask))
		return;
	read_barrier();
	if (before == load_once(end->ring->read_index))
		end->signals++;
}

/* hv_ringbuffer_write(): one packet in pieces, published and judged at once. 0, -EAGAIN or -ENODEV. */
static separate int write_pieces(struct end *end, const struct piece *pieces, uint32_t count, uint64_t request,
				 uint64_t *request_out)
{
	const struct descriptor *head = pieces[0].start;
	uint32_t total = TRAILER, at, before, i;
	uint64_t start;

	if (load_once(end->rescinded))
		return -ENODEV;
	for (i = 0; i < count; i++)
		total += pieces[i].size;
	lock(end);
	if (room_of(end) <= total) {
		end->full_total++;
		if (!end->full) {
			end->full_first++;
			end->full = 1;
		}
		unlock(end);
		return -EAGAIN;
	}
	end->full = 0;
	before = at = end->ring->write_index;
	for (i = 0; i < count; i++)
		at = put(end, at, pieces[i].start, pieces[i].size);
	if (head->flags == 1 && end->next_request) {
		request = end->next_request(end, request);
		if (request == NO_REQUEST) {
			unlock(end);
			return -EAGAIN;
		}
	}
	store_once(((struct descriptor *)(end->ring->data + before))->trans_id, request);
	if (request_out)
		*request_out = request;
	start = (uint64_t)end->ring->write_index << 32;
	at = put(end, at, &start, sizeof(start));
	full_barrier();
	end->ring->write_index = at;
	unlock(end);

	signal_on_write(end, before);
	return load_once(end->rescinded) ? -ENODEV : 0;
}

/* vmbus_sendpacket_getid(): descriptor, payload and padding become the pieces of one packet. */
static separate int send(struct end *end, const void *payload, uint32_t size, uint64_t request, uint64_t *request_out,
			 uint32_t type, uint32_t flags)
{
	uint32_t length = sizeof(struct descriptor) + size, whole = (length + 7) & ~7u;
	struct descriptor head = { type, sizeof(struct descriptor) >> 3, whole >> 3, flags, NO_REQUEST };
	uint64_t zeros = 0;
	struct piece pieces[3] = { { &head, sizeof(head) }, { payload, size }, { &zeros, whole - length } };

	return write_pieces(end, pieces, size ? 3 : 1, request, request_out);
}

/* vmbus_sendpacket() */
separate int ref_write(struct end *end, const void *payload, uint32_t size, uint64_t request, uint32_t type,
		       uint32_t flags)
{
	return send(end, payload, size, request, NULL, type, flags);
}

static inline uint32_t ready(const struct end *end)
{
	uint32_t write = __atomic_load_n(&end->ring->write_index, __ATOMIC_ACQUIRE), own = end->private_index;

	return write >= own ? write - own : end->dsize - own + write;
}

/* hv_pkt_iter_first(): lengths are made possible first, then the packet is copied out and the copy corrected. */
separate struct descriptor *ref_first(struct end *end)
{
	uint32_t avail = ready(end), length, offset;
	struct descriptor *packet, *copy = (struct descriptor *)end->staging;

	if (avail < sizeof(*packet))
		return NULL;
	if (avail > end->staging_size)
		avail = end->staging_size;
	packet = (struct descriptor *)(end->ring->data + end->private_index);
	length = (uint32_t)load_once(packet->len8) << 3;
	offset = (uint32_t)load_once(packet->offset8) << 3;
	if (length < sizeof(*packet) || length > avail)
		length = avail;
	if (offset < sizeof(*packet) || offset > length)
		offset = sizeof(*packet);
	memcpy(copy, packet, length);
	copy->len8 = length >> 3;
	copy->offset8 = offset >> 3;
	return copy;
}

/* __hv_pkt_iter_next() */
separate struct descriptor *ref_next(struct end *end, const struct descriptor *packet)
{
	end->private_index += ((uint32_t)packet->len8 << 3) + TRAILER;
	if (end->private_index >= end->dsize)
		end->private_index -= end->dsize;
	return ref_first(end);
}

/* hv_pkt_iter_close(): give the space back, signal on the step from too little room to enough. */
separate void ref_finish(struct end *end)
{
	uint32_t start, pending, room, taken;

	read_barrier();
	start = end->ring->read_index;
	end->ring->read_index = end->private_index;
	if (!(end->ring->feature_bits & 1))
		return;
	full_barrier();
	pending = load_once(end->ring->pending_send_sz);
	if (!pending)
		return;
	read_barrier();
	room = room_of(end);
	taken = end->private_index >= start ? end->private_index - start : end->dsize - start + end->private_index;
	if (room - taken > pending || room <= pending)
		return;
	end->signals++;
}

/* hv_ringbuffer_read(), not raw: 0 (with *size 0 when there is nothing), -ENOBUFS or -EINVAL. */
separate int ref_receive(struct end *end, void *buffer, uint32_t room, uint32_t *size, uint64_t *request)
{
	struct descriptor *packet;
	uint32_t length;

	if (!room)
		return -EINVAL;
	*size = 0;
	*request = 0;
	packet = ref_first(end);
	if (!packet)
		return 0;
	length = ((uint32_t)packet->len8 << 3) - ((uint32_t)packet->offset8 << 3);
	*size = length;
	*request = packet->trans_id;
	if (length > room)
		return -ENOBUFS;
	memcpy(buffer, (const uint8_t *)packet + ((uint32_t)packet->offset8 << 3), length);
	ref_next(end, packet);
	ref_finish(end);
	return 0;
}

/* hv_begin_read() and hv_end_read(): returns the write index as it is after the barrier. */
uint32_t ref_mask(struct end *end, uint32_t mask)
{
	store_once(end->ring->interrupt_mask, mask);
	full_barrier();
	return load_once(end->ring->write_index);
}

/* Packets with the payloads at 8-aligned starts of source; how many went in. */
separate uint32_t ref_write_batch(struct end *end, const uint8_t *source, const uint32_t *sizes, uint32_t count,
				  uint64_t request)
{
	uint32_t i;

	for (i = 0; i < count; i++) {
		if (ref_write(end, source, sizes[i], request + i, 6, 0))
			break;
		source += (sizes[i] + 7) & ~7u;
	}
	return i;
}

/* foreach_vmbus_pkt with a copy to the caller ("iter+copy"); stops short of count packets only when it is empty. */
separate uint32_t ref_read_batch(struct end *end, uint8_t *target, uint32_t *sizes, uint64_t *requests, uint32_t count)
{
	struct descriptor *packet = ref_first(end);
	uint32_t done = 0, size;

	while (packet) {
		size = ((uint32_t)packet->len8 << 3) - ((uint32_t)packet->offset8 << 3);
		memcpy(target, (const uint8_t *)packet + ((uint32_t)packet->offset8 << 3), size);
		sizes[done] = size;
		requests[done] = packet->trans_id;
		target += size;
		packet = ref_next(end, packet);
		if (++done == count)
			break;
	}
	if (done)
		ref_finish(end);
	return done;
}

/* vmbus_recvpacket() until count packets came or there is nothing. */
separate uint32_t ref_receive_batch(struct end *end, uint8_t *target, uint32_t room, uint32_t *sizes,
				    uint64_t *requests, uint32_t count)
{
	uint32_t done = 0;

	while (done < count && !ref_receive(end, target, room, sizes + done, requests + done) && sizes[done]) {
		target += sizes[done];
		room -= sizes[done];
		done++;
	}
	return done;
}

/* The loops that are measured ------------------------------------------------------------------------------------- */

struct work {
	const uint8_t *source;
	const uint32_t *sizes;
	uint8_t *target;
	uint32_t *sizes_out;
	uint64_t *requests;
	uint64_t room;
};

uint64_t ref_round_trips(struct end *writer, struct end *reader, const struct work *work, uint32_t count,
			 uint64_t rounds, int receive)
{
	uint64_t moved = 0, i;

	for (i = 0; i < rounds; i++) {
		moved += ref_write_batch(writer, work->source, work->sizes, count, i * count);
		if (receive)
			ref_receive_batch(reader, work->target, work->room, work->sizes_out, work->requests, count);
		else
			ref_read_batch(reader, work->target, work->sizes_out, work->requests, count);
	}
	return moved;
}

/* Write only: the read index follows by itself. */
uint64_t ref_writes(struct end *writer, const struct work *work, uint32_t count, uint64_t rounds)
{
	uint64_t moved = 0, i;

	for (i = 0; i < rounds; i++) {
		moved += ref_write_batch(writer, work->source, work->sizes, count, i * count);
		store_once(writer->ring->read_index, load_once(writer->ring->write_index));
	}
	return moved;
}

uint64_t ref_produce(struct end *writer, const struct work *work, uint32_t count, uint64_t total)
{
	uint64_t sent = 0;
	uint32_t done, idle = 0;

	while (sent < total) {
		done = ref_write_batch(writer, work->source, work->sizes, total - sent < count ? total - sent : count,
				       sent);
		sent += done;
		idle = done ? 0 : idle + 1;
		if (idle)
			relax();
		if (idle > POLLS)
			sched_yield();
	}
	return sent;
}

uint64_t ref_consume(struct end *reader, const struct work *work, uint32_t count, uint64_t total)
{
	uint64_t seen = 0;
	uint32_t done, idle = 0;

	while (seen < total) {
		done = ref_read_batch(reader, work->target, work->sizes_out, work->requests, count);
		seen += done;
		idle = done ? 0 : idle + 1;
		if (idle)
			relax();
		if (idle > POLLS)
			sched_yield();
	}
	return seen;
}

/* The limit: every payload into a window of that size and out of it again, nothing else. */
uint64_t ref_memcpy(const struct work *work, uint8_t *window, uint64_t size, uint32_t count, uint64_t rounds)
{
	uint64_t place = 0, start, i;
	const uint8_t *from;
	uint8_t *to;
	uint32_t k;

	for (i = 0; i < rounds; i++) {
		start = place;
		from = work->source;
		for (k = 0; k < count; k++) {
			uint32_t padded = (work->sizes[k] + 7) & ~7u;

			if (place + padded > size)
				place = 0;
			memcpy(window + place, from, work->sizes[k]);
			from += padded;
			place += padded;
		}
		place = start;
		to = work->target;
		for (k = 0; k < count; k++) {
			uint32_t padded = (work->sizes[k] + 7) & ~7u;

			if (place + padded > size)
				place = 0;
			memcpy(to, window + place, work->sizes[k]);
			to += padded;
			place += padded;
		}
	}
	return rounds;
}
