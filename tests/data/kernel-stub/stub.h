/*
 * What drivers/hv/ring_buffer.c and the packet half of drivers/hv/channel.c need of the kernel, for a user program.
 * Written for hvkernel's tests, from what those files call; not a line of it is the kernel's.
 */
#ifndef HVKERNEL_STUB_H
#define HVKERNEL_STUB_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef uint8_t u8, __u8;
typedef uint16_t u16, __u16;
typedef uint32_t u32, __u32;
typedef uint64_t u64, __u64;
typedef int32_t s32;
typedef int64_t s64;
typedef s64 ktime_t;
typedef u64 dma_addr_t, phys_addr_t, resource_size_t;
typedef struct { u8 b[16]; } guid_t;
typedef struct { int counter; } atomic_t, refcount_t;
typedef unsigned int gfp_t, pgprot_t, cpumask_var_t;

/* A page of the arena that rig.c maps; vmap() finds its place by its index. */
struct page { int unused; };
struct kvec { void *iov_base; size_t iov_len; };

/* One thread: a lock is whether it is held. */
typedef struct { int held; } spinlock_t;
struct mutex { int held; };
#define spin_lock_init(lock) ((lock)->held = 0)
#define spin_lock_irqsave(lock, flags) do { (void)(flags); if ((lock)->held++) abort(); } while (0)
#define spin_unlock_irqrestore(lock, flags) do { (void)(flags); (lock)->held = 0; } while (0)
#define spin_is_locked(lock) ((lock)->held)
#define mutex_init(lock) ((lock)->held = 0)
#define mutex_lock(lock) do { if ((lock)->held++) abort(); } while (0)
#define mutex_unlock(lock) ((lock)->held = 0)

/* Only pointed to, or members whose inside nobody here looks at. */
struct list_head { struct list_head *next, *prev; };
struct completion { int done; };
struct work_struct { int unused; };
struct delayed_work { int unused; };
struct tasklet_struct { int unused; };
struct rcu_head { int unused; };
struct kobject { int unused; };
struct dentry;
struct module;
struct pci_dev;
struct device { void *driver_data; };
struct device_driver { int unused; };
struct device_dma_parameters { int unused; };
struct hv_vmbus_device_id { guid_t guid; };
struct resource;
struct kset;
#define container_of(ptr, type, member) ((type *)((char *)(ptr) - __builtin_offsetof(type, member)))
static inline void *dev_get_drvdata(const struct device *dev) { return dev->driver_data; }
static inline void dev_set_drvdata(struct device *dev, void *data) { dev->driver_data = data; }

#define __packed __attribute__((packed))
#define __aligned(n) __attribute__((aligned(n)))
#define __must_check
#define unlikely(x) (x)
#define likely(x) (x)
#define EXPORT_SYMBOL(name) extern int stub_unused
#define EXPORT_SYMBOL_GPL(name) extern int stub_unused
#define BUILD_BUG_ON(condition) _Static_assert(!(condition), "BUILD_BUG_ON")
#define READ_ONCE(x) (*(volatile __typeof__(x) *)&(x))
#define WRITE_ONCE(x, value) (*(volatile __typeof__(x) *)&(x) = (value))
#define virt_mb() __sync_synchronize()
#define virt_rmb() __sync_synchronize()
#define virt_load_acquire(p) __atomic_load_n(p, __ATOMIC_ACQUIRE)
#define min(a, b) ((a) < (b) ? (a) : (b))
#define ALIGN(x, a) (((x) + (a) - 1) & ~((__typeof__(x))(a) - 1))
#define BIT(n) (1UL << (n))
#define U64_MAX UINT64_MAX

#define PAGE_SIZE (1UL << PAGE_SHIFT)
#define PAGE_ALIGN(x) ALIGN((unsigned long)(x), PAGE_SIZE)
#define PFN_DOWN(x) ((x) >> PAGE_SHIFT)
#define HV_HYP_PAGE_SHIFT 12
#define HV_HYP_PAGE_SIZE (1UL << HV_HYP_PAGE_SHIFT)
#define HV_HYP_PAGE_MASK (~(HV_HYP_PAGE_SIZE - 1))

#define GFP_KERNEL 0
#define VM_MAP 0
#define PAGE_KERNEL 0
#define kcalloc(n, size, flags) calloc(n, size)
#define kzalloc(size, flags) calloc(1, size)
#define kfree(p) free((void *)(p))
#define bitmap_zalloc(bits, flags) calloc(((bits) + 63) / 64, 8)
#define bitmap_free(p) free(p)
#define bitmap_set(map, at, n) ((map)[(at) / 64] |= 1UL << ((at) % 64))
#define bitmap_clear(map, at, n) ((map)[(at) / 64] &= ~(1UL << ((at) % 64)))
#define test_bit(at, map) ((map)[(at) / 64] >> ((at) % 64) & 1)

extern struct { u64 shared_gpa_boundary; } ms_hyperv;
static inline bool hv_isolation_type_snp(void) { return false; }
unsigned long page_to_pfn(struct page *page);
void *vmap(struct page **pages, unsigned int count, unsigned long flags, pgprot_t prot);
void *vmap_pfn(unsigned long *pfns, unsigned int count, pgprot_t prot);
void vunmap(const void *address);
bool is_vmalloc_addr(const void *address);
struct page *vmalloc_to_page(const void *address);
phys_addr_t page_to_phys(struct page *page);
phys_addr_t virt_to_phys(const volatile void *address);
phys_addr_t __pa(const volatile void *address);
#define offset_in_page(p) ((unsigned long)(p) & (PAGE_SIZE - 1))

struct reciprocal_value { u32 m; u8 sh1, sh2; };
struct reciprocal_value reciprocal_value(u32 d);
static inline u32 reciprocal_divide(u32 a, struct reciprocal_value r)
{
	u32 t = (u32)(((u64)a * r.m) >> 32);

	return (t + ((a - t) >> r.sh1)) >> r.sh2;
}

#endif
