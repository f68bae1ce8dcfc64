// SPDX-License-Identifier: GPL-2.0
/*
 * A fake virtio device for KUnit tests of virtio drivers
 *
 * The driver's side of each queue is that of the virtio core, the device's
 * side that of vringh. The addresses in the rings are virtual ones: the device
 * offers VIRTIO_F_ACCESS_PLATFORM and brings its own map operations, which lets
 * vringh follow indirect tables, and lets the device see which memory it may
 * access at any time.
 */

#include <linux/align.h>
#include <linux/array_size.h>
#include <linux/bitmap.h>
#include <linux/delay.h>
#include <linux/gfp.h>
#include <linux/hrtimer.h>
#include <linux/jiffies.h>
#include <linux/limits.h>
#include <linux/math.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uio.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include <kunit/resource.h>
#include <kunit/test.h>
#include <kunit/virtio.h>

/* Mappings that can exist at the same time. */
#define MAX_MAPPINGS		4096

/* Size and granularity of the bounce buffers. */
#define BOUNCE_SIZE		SZ_512K
#define BOUNCE_SLOT		64
#define BOUNCE_SLOTS		(BOUNCE_SIZE / BOUNCE_SLOT)

/* Delay of an interrupt. */
#define IRQ_DELAY_NS		1000

static const char * const rule_names[KUNIT_VIRTIO_RULES] = {
	[KUNIT_VIRTIO_RULE_CHAIN]	= "bad descriptor chain",
	[KUNIT_VIRTIO_RULE_TWICE]	= "buffer made available twice",
	[KUNIT_VIRTIO_RULE_OVERLAP]	= "buffers overlap",
	[KUNIT_VIRTIO_RULE_SHAPE]	= "buffer of the wrong shape",
	[KUNIT_VIRTIO_RULE_TAKEN]	= "memory taken from the device",
	[KUNIT_VIRTIO_RULE_READY]	= "notification of a device that is not ready",
	[KUNIT_VIRTIO_RULE_NEGOTIATE]	= "queue set up before the features",
	[KUNIT_VIRTIO_RULE_STATUS]	= "wrong change of the status",
	[KUNIT_VIRTIO_RULE_RESET]	= "queue deleted without a reset",
	[KUNIT_VIRTIO_RULE_LEFT]	= "buffers left in a deleted queue",
	[KUNIT_VIRTIO_RULE_NEEDS_RESET]	= "use of a device that needs a reset",
	[KUNIT_VIRTIO_RULE_CALLBACK]	= "queue deleted under a callback",
	[KUNIT_VIRTIO_RULE_CONFIG]	= "access beyond the configuration space",
};

/* Memory that the driver has mapped for the device. */
struct mapping {
	/* Address for the driver, and for the device: a bounce buffer, if it differs. */
	void *cpu;
	void *addr;
	size_t len;
	enum dma_data_direction dir;
};

/* An operation at which a task stops. */
struct stop {
	/* The nth task that gets here stops; 0 for none. */
	unsigned int nth;
	bool stopped;
	unsigned int releases;
};

struct queue {
	struct kunit_virtio *dev;
	struct kunit_virtio_queue_config config;
	struct virtqueue *vq;
	struct vringh vrh;
	/* Set up since the last reset. */
	bool live;

	/* One for each head, and one to receive the next. */
	struct kunit_virtio_buffer *buffers;
	struct kunit_virtio_buffer **heads;
	struct kunit_virtio_buffer *spare;

	struct hrtimer irq_timer;
	struct work_struct irq_work;

	unsigned int notifications;
	unsigned int interrupts;
	unsigned int dropped;
	unsigned int completed;

	/* The used entry that kunit_virtio_use_id() has spoiled. */
	bool spoil;
	u16 spoil_id;
	struct vring_used_elem *spoiled;
	u32 spoiled_id;
};

struct kunit_virtio {
	struct virtio_device vdev;
	struct kunit *test;
	struct kunit_virtio_config config;
	u8 *config_space;
	/* The next contents, and the number of reads before. */
	u8 *next_config;
	unsigned int next_reads;
	u32 generation;
	bool registered;

	/* Protects all below, and the queues. */
	raw_spinlock_t lock;
	u8 status;
	enum kunit_virtio_irq irq;
	bool fail_notify;
	unsigned int fail_map;
	unsigned int map_us;
	u8 *bounce;
	unsigned long *bounce_map;
	unsigned int fail_find;
	unsigned int fail_finalize;
	unsigned int refuse_after;
	unsigned int refuse;
	bool late_irqs;
	bool pulled;
	bool rescued;
	/* The driver was told that the device needs a reset. */
	bool told;
	/* The driver was told of a buffer that was not completed. */
	bool lied;
	unsigned int resets;
	unsigned int synchronized;
	unsigned int num_mappings;
	struct mapping *mappings;
	unsigned int broken[KUNIT_VIRTIO_RULES];
	char detail[KUNIT_VIRTIO_RULES][80];

	struct stop stops[KUNIT_VIRTIO_OPS];
	/* Stopped tasks, and tests that wait for one to stop. */
	wait_queue_head_t stop_wq;

	struct queue queues[KUNIT_VIRTIO_MAX_QUEUES];
};

static struct kunit_virtio *to_kunit_virtio(struct virtio_device *vdev)
{
	return container_of(vdev, struct kunit_virtio, vdev);
}

static struct queue *to_queue(struct kunit_virtio *dev, unsigned int index)
{
	return &dev->queues[index];
}

/**
 * kunit_virtio_lock() - Lock the device against its driver and its timers
 * @dev: the device
 *
 * Return: the flags for kunit_virtio_unlock().
 */
unsigned long kunit_virtio_lock(struct kunit_virtio *dev)
{
	unsigned long flags;

	raw_spin_lock_irqsave(&dev->lock, flags);
	return flags;
}
EXPORT_SYMBOL_GPL(kunit_virtio_lock);

/**
 * kunit_virtio_unlock() - Undo kunit_virtio_lock()
 * @dev: the device
 * @flags: what kunit_virtio_lock() has returned
 */
void kunit_virtio_unlock(struct kunit_virtio *dev, unsigned long flags)
{
	raw_spin_unlock_irqrestore(&dev->lock, flags);
}
EXPORT_SYMBOL_GPL(kunit_virtio_unlock);

DEFINE_LOCK_GUARD_1(device_state, struct kunit_virtio,
		    _T->flags = kunit_virtio_lock(_T->lock),
		    kunit_virtio_unlock(_T->lock, _T->flags),
		    unsigned long flags)

/* After a false used id a driver cannot know which buffers the device has. */
static bool needs_truth(enum kunit_virtio_rule rule)
{
	switch (rule) {
	case KUNIT_VIRTIO_RULE_CHAIN:
	case KUNIT_VIRTIO_RULE_TWICE:
	case KUNIT_VIRTIO_RULE_OVERLAP:
	case KUNIT_VIRTIO_RULE_TAKEN:
		return true;
	default:
		return false;
	}
}

/* Records a violation, in any context; reported when the device is released. */
static __printf(3, 4) void broke(struct kunit_virtio *dev,
				 enum kunit_virtio_rule rule,
				 const char *fmt, ...)
{
	va_list args;

	lockdep_assert_held(&dev->lock);

	if (dev->lied && needs_truth(rule))
		return;
	if (dev->broken[rule]++)
		return;

	va_start(args, fmt);
	vscnprintf(dev->detail[rule], sizeof(dev->detail[rule]), fmt, args);
	va_end(args);
}

static bool is_ready(struct kunit_virtio *dev)
{
	return dev->rescued ||
	       (!dev->pulled && (dev->status & VIRTIO_CONFIG_S_DRIVER_OK));
}

/* Memory */

static bool is_mapped(struct kunit_virtio *dev, const struct kvec *vec,
		      enum dma_data_direction dir)
{
	for (unsigned int i = 0; i < dev->num_mappings; i++) {
		struct mapping *m = &dev->mappings[i];

		if (vec->iov_base >= m->addr &&
		    vec->iov_base + vec->iov_len <= m->addr + m->len &&
		    (m->dir == dir || m->dir == DMA_BIDIRECTIONAL))
			return true;
	}

	return false;
}

static bool vec_overlaps(const struct vringh_kiov *iov, const void *addr, size_t len)
{
	for (unsigned int i = 0; i < iov->used; i++) {
		const void *start = iov->iov[i].iov_base;

		if (start < addr + len && addr < start + iov->iov[i].iov_len)
			return true;
	}

	return false;
}

/* Whether the device has a buffer, other than @but, in that memory. */
static bool is_busy_memory(struct kunit_virtio *dev, const void *addr, size_t len,
			   const struct kunit_virtio_buffer *but)
{
	for (unsigned int i = 0; i < dev->config.num_queues; i++) {
		struct queue *q = to_queue(dev, i);

		for (unsigned int head = 0; head < q->config.size; head++) {
			struct kunit_virtio_buffer *buf = q->heads[head];

			if (buf == but || buf->state != KUNIT_VIRTIO_BUSY)
				continue;
			if (vec_overlaps(&buf->out, addr, len) ||
			    vec_overlaps(&buf->in, addr, len))
				return true;
		}
	}

	return false;
}

static struct kunit_virtio *map_to_dev(union virtio_map map)
{
	return to_kunit_virtio(dev_to_virtio(map.dma_dev));
}

static void *bounce_alloc(struct kunit_virtio *dev, size_t size)
{
	unsigned long slots = DIV_ROUND_UP(size, BOUNCE_SLOT);
	unsigned long at = bitmap_find_next_zero_area(dev->bounce_map, BOUNCE_SLOTS, 0,
						      slots, 0);

	if (at >= BOUNCE_SLOTS)
		return NULL;
	bitmap_set(dev->bounce_map, at, slots);
	return dev->bounce + at * BOUNCE_SLOT;
}

static void bounce_free(struct kunit_virtio *dev, void *addr, size_t size)
{
	bitmap_clear(dev->bounce_map, ((u8 *)addr - dev->bounce) / BOUNCE_SLOT,
		     DIV_ROUND_UP(size, BOUNCE_SLOT));
}

/* Copies data of the device out of a bounce buffer, or data of the driver into it. */
static void bounce_sync(struct mapping *m, size_t offset, size_t size, bool for_cpu)
{
	if (m->cpu == m->addr)
		return;
	if (!for_cpu)
		memcpy(m->addr + offset, m->cpu + offset, size);
	else if (m->dir != DMA_TO_DEVICE)
		memcpy(m->cpu + offset, m->addr + offset, size);
}

static dma_addr_t kunit_virtio_map_page(union virtio_map map, struct page *page,
					unsigned long offset, size_t size,
					enum dma_data_direction dir,
					unsigned long attrs)
{
	struct kunit_virtio *dev = map_to_dev(map);
	void *addr = page_address(page) + offset;
	struct mapping m = { .cpu = addr, .addr = addr, .len = size, .dir = dir };

	/* Leaves time to interrupt the driver at this point. */
	udelay(READ_ONCE(dev->map_us));

	guard(device_state)(dev);

	if (!size || !virt_addr_valid(addr) || !virt_addr_valid(addr + size - 1)) {
		broke(dev, KUNIT_VIRTIO_RULE_CHAIN, "%zu bytes at %#lx are no memory",
		      size, (unsigned long)addr);
		return DMA_MAPPING_ERROR;
	}
	if (dev->fail_map) {
		dev->fail_map--;
		return DMA_MAPPING_ERROR;
	}
	if (dev->num_mappings == MAX_MAPPINGS)
		return DMA_MAPPING_ERROR;

	if (dev->bounce) {
		m.addr = bounce_alloc(dev, size);
		if (!m.addr)
			return DMA_MAPPING_ERROR;
		/* Bytes that the device does not write keep their value. */
		bounce_sync(&m, 0, size, false);
	}
	dev->mappings[dev->num_mappings++] = m;
	return (dma_addr_t)(uintptr_t)m.addr;
}

static void kunit_virtio_unmap_page(union virtio_map map, dma_addr_t handle,
				    size_t size, enum dma_data_direction dir,
				    unsigned long attrs)
{
	struct kunit_virtio *dev = map_to_dev(map);
	void *addr = (void *)(uintptr_t)handle;

	guard(device_state)(dev);

	if (is_busy_memory(dev, addr, size, NULL))
		broke(dev, KUNIT_VIRTIO_RULE_TAKEN,
		      "%zu bytes of a buffer that the device has", size);

	for (unsigned int i = 0; i < dev->num_mappings; i++) {
		struct mapping *m = &dev->mappings[i];

		if (m->addr == addr && m->len == size && m->dir == dir) {
			if (!(attrs & DMA_ATTR_SKIP_CPU_SYNC))
				bounce_sync(m, 0, size, true);
			if (m->addr != m->cpu)
				bounce_free(dev, m->addr, size);
			*m = dev->mappings[--dev->num_mappings];
			return;
		}
	}
	broke(dev, KUNIT_VIRTIO_RULE_TAKEN, "%zu bytes that are not mapped", size);
}

static void sync_mapping(union virtio_map map, dma_addr_t handle, size_t size, bool for_cpu)
{
	struct kunit_virtio *dev = map_to_dev(map);
	void *addr = (void *)(uintptr_t)handle;

	guard(device_state)(dev);

	for (unsigned int i = 0; i < dev->num_mappings; i++) {
		struct mapping *m = &dev->mappings[i];

		if (addr >= m->addr && addr + size <= m->addr + m->len) {
			bounce_sync(m, addr - m->addr, size, for_cpu);
			return;
		}
	}
	broke(dev, KUNIT_VIRTIO_RULE_CHAIN, "sync of %zu bytes that are not mapped", size);
}

static void kunit_virtio_sync_for_cpu(union virtio_map map, dma_addr_t handle,
				      size_t size, enum dma_data_direction dir)
{
	sync_mapping(map, handle, size, true);
}

static void kunit_virtio_sync_for_device(union virtio_map map, dma_addr_t handle,
					 size_t size, enum dma_data_direction dir)
{
	/* The device sees only what the driver has written before. */
	if (dir != DMA_FROM_DEVICE)
		sync_mapping(map, handle, size, false);
}

static void *kunit_virtio_alloc_coherent(union virtio_map map, size_t size,
					 dma_addr_t *handle, gfp_t gfp)
{
	void *addr = alloc_pages_exact(PAGE_ALIGN(size), gfp | __GFP_ZERO);

	*handle = (dma_addr_t)(uintptr_t)addr;
	return addr;
}

static void kunit_virtio_free_coherent(union virtio_map map, size_t size,
				       void *addr, dma_addr_t handle,
				       unsigned long attrs)
{
	free_pages_exact(addr, PAGE_ALIGN(size));
}

static bool kunit_virtio_need_sync(union virtio_map map, dma_addr_t handle)
{
	return map_to_dev(map)->bounce;
}

static int kunit_virtio_mapping_error(union virtio_map map, dma_addr_t handle)
{
	return handle == DMA_MAPPING_ERROR ? -ENOMEM : 0;
}

static size_t kunit_virtio_max_mapping_size(union virtio_map map)
{
	return SIZE_MAX;
}

static const struct virtio_map_ops kunit_virtio_map_ops = {
	.map_page		= kunit_virtio_map_page,
	.unmap_page		= kunit_virtio_unmap_page,
	.sync_single_for_cpu	= kunit_virtio_sync_for_cpu,
	.sync_single_for_device	= kunit_virtio_sync_for_device,
	.alloc			= kunit_virtio_alloc_coherent,
	.free			= kunit_virtio_free_coherent,
	.need_sync		= kunit_virtio_need_sync,
	.mapping_error		= kunit_virtio_mapping_error,
	.max_mapping_size	= kunit_virtio_max_mapping_size,
};

/* Stop points */

/* Each operation begins with this. */
static void stop_here(struct kunit_virtio *dev, enum kunit_virtio_op op)
{
	struct stop *stop = &dev->stops[op];
	unsigned int releases;

	scoped_guard(device_state, dev) {
		if (!stop->nth || --stop->nth)
			return;
		stop->stopped = true;
		releases = stop->releases;
	}

	wake_up_all(&dev->stop_wq);
	wait_event(dev->stop_wq, READ_ONCE(stop->releases) != releases);
}

/**
 * kunit_virtio_stop_at() - Stop a task at an operation
 * @dev: the device
 * @op: the operation
 * @nth: the nth task that gets there is stopped
 *
 * Before the operation has an effect the task sleeps until a test calls
 * kunit_virtio_release(), or ends. Only one task is stopped. The thread of the
 * test itself must not get there.
 */
void kunit_virtio_stop_at(struct kunit_virtio *dev, enum kunit_virtio_op op,
			  unsigned int nth)
{
	guard(device_state)(dev);
	dev->stops[op].nth = nth;
}
EXPORT_SYMBOL_GPL(kunit_virtio_stop_at);

/**
 * kunit_virtio_wait_stopped() - Wait for a task to be stopped
 * @dev: the device
 * @op: the operation
 * @ms: timeout in milliseconds
 *
 * Return: whether a task sleeps at the operation.
 */
bool kunit_virtio_wait_stopped(struct kunit_virtio *dev, enum kunit_virtio_op op,
			       unsigned int ms)
{
	return wait_event_timeout(dev->stop_wq, READ_ONCE(dev->stops[op].stopped),
				  msecs_to_jiffies(ms));
}
EXPORT_SYMBOL_GPL(kunit_virtio_wait_stopped);

/**
 * kunit_virtio_release() - Undo kunit_virtio_stop_at()
 * @dev: the device
 * @op: the operation
 *
 * A task that sleeps there continues, and no other task stops there.
 */
void kunit_virtio_release(struct kunit_virtio *dev, enum kunit_virtio_op op)
{
	struct stop *stop = &dev->stops[op];

	scoped_guard(device_state, dev) {
		stop->nth = 0;
		stop->stopped = false;
		stop->releases++;
	}
	wake_up_all(&dev->stop_wq);
}
EXPORT_SYMBOL_GPL(kunit_virtio_release);

/**
 * kunit_virtio_release_all() - Undo kunit_virtio_stop_at() for all operations
 * @dev: the device
 *
 * For actions that end the threads of a test, before the device is released.
 */
void kunit_virtio_release_all(struct kunit_virtio *dev)
{
	for (unsigned int op = 0; op < KUNIT_VIRTIO_OPS; op++)
		kunit_virtio_release(dev, op);
}
EXPORT_SYMBOL_GPL(kunit_virtio_release_all);

/* Interrupts */

static void interrupt(struct queue *q)
{
	struct virtqueue *vq;

	scoped_guard(device_state, q->dev) {
		vq = is_ready(q->dev) || q->dev->late_irqs ? q->vq : NULL;
		if (vq)
			q->interrupts++;
		else
			q->dropped++;
	}

	/* The timer, or the work, is cancelled before the queue is freed. */
	if (vq)
		vring_interrupt(0, vq);
}

static enum hrtimer_restart irq_timer_fn(struct hrtimer *timer)
{
	interrupt(container_of(timer, struct queue, irq_timer));
	return HRTIMER_NORESTART;
}

static void irq_work_fn(struct work_struct *work)
{
	struct queue *q = container_of(work, struct queue, irq_work);

	stop_here(q->dev, KUNIT_VIRTIO_OP_CALLBACK);
	interrupt(q);
}

static void raise_irq(struct queue *q)
{
	if (!q->vq || q->dev->pulled) {
		q->dropped++;
		return;
	}

	switch (q->dev->irq) {
	case KUNIT_VIRTIO_HARDIRQ:
		hrtimer_start(&q->irq_timer, ns_to_ktime(IRQ_DELAY_NS),
			      HRTIMER_MODE_REL);
		break;
	case KUNIT_VIRTIO_PROCESS:
		queue_work(system_dfl_wq, &q->irq_work);
		break;
	case KUNIT_VIRTIO_NONE:
		break;
	}
}

static void cancel_irq(struct queue *q)
{
	hrtimer_cancel(&q->irq_timer);
	cancel_work_sync(&q->irq_work);
}

static void kunit_virtio_synchronize_cbs(struct virtio_device *vdev)
{
	struct kunit_virtio *dev = to_kunit_virtio(vdev);

	stop_here(dev, KUNIT_VIRTIO_OP_SYNCHRONIZE_CBS);

	scoped_guard(device_state, dev)
		dev->synchronized++;
	for (unsigned int i = 0; i < dev->config.num_queues; i++) {
		struct queue *q = to_queue(dev, i);

		if (hrtimer_cancel(&q->irq_timer)) {
			guard(device_state)(dev);
			/* A reset cancels pending interrupts. */
			if (is_ready(dev))
				raise_irq(q);
		}
		flush_work(&q->irq_work);
	}
}

/* Buffers */

static bool vec_is_mapped(struct kunit_virtio *dev, const struct vringh_kiov *iov,
			  enum dma_data_direction dir)
{
	for (unsigned int i = 0; i < iov->used; i++) {
		if (!is_mapped(dev, &iov->iov[i], dir))
			return false;
	}

	return true;
}

static bool is_accessible(struct kunit_virtio_buffer *buf)
{
	return vec_is_mapped(buf->dev, &buf->out, DMA_TO_DEVICE) &&
	       vec_is_mapped(buf->dev, &buf->in, DMA_FROM_DEVICE);
}

static size_t copy_vec(const struct vringh_kiov *iov, size_t offset, void *bytes,
		       size_t len, bool write)
{
	size_t done = 0;

	for (unsigned int i = 0; i < iov->used && len; i++) {
		size_t part = iov->iov[i].iov_len;
		void *at = iov->iov[i].iov_base;

		if (offset >= part) {
			offset -= part;
			continue;
		}
		at += offset;
		part = min(part - offset, len);
		if (write)
			memcpy(at, bytes + done, part);
		else
			memcpy(bytes + done, at, part);
		offset = 0;
		done += part;
		len -= part;
	}

	return done;
}

/**
 * kunit_virtio_read() - Read the device-readable part of a buffer
 * @buf: the buffer
 * @offset: where to start in its device-readable part
 * @to: destination
 * @len: number of bytes
 *
 * Return: number of bytes that there were, 0 if the driver has taken its memory.
 */
size_t kunit_virtio_read(struct kunit_virtio_buffer *buf, size_t offset, void *to,
			 size_t len)
{
	if (!is_accessible(buf))
		return 0;
	return copy_vec(&buf->out, offset, to, len, false);
}
EXPORT_SYMBOL_GPL(kunit_virtio_read);

/**
 * kunit_virtio_write() - Write to the device-writable part of a buffer
 * @buf: the buffer
 * @offset: where to start in its device-writable part
 * @from: the bytes
 * @len: number of bytes
 *
 * Return: number of bytes that there was room for, 0 if the driver has taken its
 * memory.
 */
size_t kunit_virtio_write(struct kunit_virtio_buffer *buf, size_t offset,
			  const void *from, size_t len)
{
	if (!is_accessible(buf))
		return 0;
	return copy_vec(&buf->in, offset, (void *)from, len, true);
}
EXPORT_SYMBOL_GPL(kunit_virtio_write);

/**
 * kunit_virtio_complete() - Return a buffer to the driver
 * @buf: the buffer, which the model must not use any more
 * @used: number of bytes that the device claims to have written
 *
 * Interrupts the driver unless it has disabled that. Buffers that are completed
 * without releasing the lock share one interrupt.
 *
 * Context: lock of the device held.
 */
void kunit_virtio_complete(struct kunit_virtio_buffer *buf, u32 used)
{
	struct queue *q = to_queue(buf->dev, buf->queue);
	u16 id = buf->head;

	lockdep_assert_held(&buf->dev->lock);

	if (buf->state != KUNIT_VIRTIO_BUSY || buf->dev->pulled)
		return;

	buf->state = KUNIT_VIRTIO_IDLE;
	hrtimer_try_to_cancel(&buf->timer);
	if (q->spoil) {
		u16 at = q->vrh.last_used_idx + q->vrh.completed;

		q->spoil = false;
		q->spoiled = &q->vrh.vring.used->ring[at & (q->vrh.vring.num - 1)];
		q->spoiled_id = id;
		id = q->spoil_id;
		buf->dev->lied = true;
	}
	q->completed++;

	vringh_complete_kern(&q->vrh, id, used);
	if (vringh_need_notify_kern(&q->vrh) > 0)
		raise_irq(q);
}
EXPORT_SYMBOL_GPL(kunit_virtio_complete);

static enum hrtimer_restart buffer_timer_fn(struct hrtimer *timer)
{
	struct kunit_virtio_buffer *buf =
		container_of(timer, struct kunit_virtio_buffer, timer);

	guard(device_state)(buf->dev);

	/* Without effect if the device was reset, or rescued, meanwhile. */
	kunit_virtio_complete(buf, buf->used);
	return HRTIMER_NORESTART;
}

/**
 * kunit_virtio_complete_after() - Return a buffer to the driver later
 * @buf: the buffer, which the model must not use any more
 * @used: number of bytes that the device claims to have written
 * @delay_ns: when
 *
 * Context: lock of the device held.
 */
void kunit_virtio_complete_after(struct kunit_virtio_buffer *buf, u32 used,
				 u64 delay_ns)
{
	lockdep_assert_held(&buf->dev->lock);

	buf->used = used;
	if (delay_ns)
		hrtimer_start(&buf->timer, ns_to_ktime(delay_ns), HRTIMER_MODE_REL_HARD);
	else
		kunit_virtio_complete(buf, used);
}
EXPORT_SYMBOL_GPL(kunit_virtio_complete_after);

static size_t vec_len(const struct vringh_kiov *iov)
{
	size_t len = 0;

	for (unsigned int i = 0; i < iov->used; i++)
		len += iov->iov[i].iov_len;
	return len;
}

static void check_overlap(struct kunit_virtio_buffer *buf, const struct vringh_kiov *iov)
{
	for (unsigned int i = 0; i < iov->used; i++) {
		if (is_busy_memory(buf->dev, iov->iov[i].iov_base,
				   iov->iov[i].iov_len, buf))
			broke(buf->dev, KUNIT_VIRTIO_RULE_OVERLAP,
			      "queue %u, %zu bytes", buf->queue, iov->iov[i].iov_len);
	}
}

/* A buffer that has just been made available. */
static void receive(struct queue *q, struct kunit_virtio_buffer *buf)
{
	struct kunit_virtio *dev = q->dev;

	buf->out_len = vec_len(&buf->out);
	buf->in_len = vec_len(&buf->in);
	buf->priv = NULL;

	if (q->heads[buf->head]->state == KUNIT_VIRTIO_BUSY) {
		broke(dev, KUNIT_VIRTIO_RULE_TWICE, "queue %u, head %u", buf->queue,
		      buf->head);
		return;
	}
	if (!is_accessible(buf)) {
		broke(dev, KUNIT_VIRTIO_RULE_CHAIN,
		      "queue %u, head %u: memory is not mapped", buf->queue, buf->head);
		return;
	}
	if (buf->out_len < q->config.out || buf->in_len < q->config.in)
		broke(dev, KUNIT_VIRTIO_RULE_SHAPE,
		      "queue %u: %zu bytes to read and %zu to write",
		      buf->queue, buf->out_len, buf->in_len);
	if (dev->told)
		broke(dev, KUNIT_VIRTIO_RULE_NEEDS_RESET, "queue %u", buf->queue);

	check_overlap(buf, &buf->out);
	check_overlap(buf, &buf->in);

	q->spare = q->heads[buf->head];
	q->spare->state = KUNIT_VIRTIO_IDLE;
	q->heads[buf->head] = buf;
	buf->state = KUNIT_VIRTIO_BUSY;
	dev->config.ops->available(dev, buf);
}

static void drain(struct queue *q)
{
	do {
		struct kunit_virtio_buffer *buf = q->spare;
		int ret;

		vringh_kiov_cleanup(&buf->out);
		vringh_kiov_cleanup(&buf->in);
		vringh_kiov_init(&buf->out, buf->out_vec, ARRAY_SIZE(buf->out_vec));
		vringh_kiov_init(&buf->in, buf->in_vec, ARRAY_SIZE(buf->in_vec));

		ret = vringh_getdesc_kern(&q->vrh, &buf->out, &buf->in, &buf->head,
					  GFP_ATOMIC);
		if (ret > 0) {
			receive(q, buf);
			continue;
		}
		if (ret < 0) {
			broke(q->dev, KUNIT_VIRTIO_RULE_CHAIN, "queue %u: error %d",
			      buf->queue, ret);
			return;
		}
		if (vringh_notify_enable_kern(&q->vrh))
			return;
	} while (true);
}

/* Takes the buffers that the driver has made available. */
static void poll(struct queue *q)
{
	if (is_ready(q->dev) && q->live)
		drain(q);
}

static bool kunit_virtio_notify(struct virtqueue *vq)
{
	struct kunit_virtio *dev = to_kunit_virtio(vq->vdev);
	struct queue *q = to_queue(dev, vq->index);

	guard(device_state)(dev);

	q->notifications++;
	if (dev->fail_notify || dev->pulled)
		return false;
	if (is_ready(dev) && q->live)
		drain(q);
	else
		broke(dev, KUNIT_VIRTIO_RULE_READY, "queue %u, status %#x", vq->index,
		      dev->status);
	return true;
}

/* Configuration operations */

static void change_config(struct kunit_virtio *dev, const void *config)
{
	memcpy(dev->config_space, config, dev->config.config_len);
	dev->generation++;
}

/* Transports read what is larger in parts of this size. */
#define CONFIG_PART	sizeof(u32)

static void read_config(struct kunit_virtio *dev, unsigned int offset, u8 *to,
			unsigned int len)
{
	for (unsigned int done = 0; done < len; done += CONFIG_PART) {
		memcpy(to + done, dev->config_space + offset + done,
		       min_t(unsigned int, len - done, CONFIG_PART));
		if (dev->next_reads && !--dev->next_reads)
			change_config(dev, dev->next_config);
	}
}

static void kunit_virtio_get(struct virtio_device *vdev, unsigned int offset,
			     void *to, unsigned int len)
{
	struct kunit_virtio *dev = to_kunit_virtio(vdev);

	stop_here(dev, KUNIT_VIRTIO_OP_GET);

	guard(device_state)(dev);

	memset(to, dev->pulled ? 0xff : 0, len);
	if ((u64)offset + len > dev->config.config_len)
		broke(dev, KUNIT_VIRTIO_RULE_CONFIG, "read %u at %u", len, offset);
	else if (!dev->pulled)
		read_config(dev, offset, to, len);
}

static u32 kunit_virtio_generation(struct virtio_device *vdev)
{
	struct kunit_virtio *dev = to_kunit_virtio(vdev);

	guard(device_state)(dev);
	return dev->generation;
}

static void kunit_virtio_set(struct virtio_device *vdev, unsigned int offset,
			     const void *from, unsigned int len)
{
	struct kunit_virtio *dev = to_kunit_virtio(vdev);

	guard(device_state)(dev);

	if ((u64)offset + len > dev->config.config_len)
		broke(dev, KUNIT_VIRTIO_RULE_CONFIG, "write %u at %u", len, offset);
	else if (!dev->pulled)
		memcpy(dev->config_space + offset, from, len);
}

static u8 kunit_virtio_get_status(struct virtio_device *vdev)
{
	struct kunit_virtio *dev = to_kunit_virtio(vdev);

	stop_here(dev, KUNIT_VIRTIO_OP_GET_STATUS);
	return kunit_virtio_status(dev);
}

/* Whether the device refuses the features that the driver has accepted. */
static bool refuses_features(struct kunit_virtio *dev)
{
	if (dev->refuse_after) {
		dev->refuse_after--;
		return false;
	}
	if (!dev->refuse)
		return false;
	dev->refuse--;
	return true;
}

static void kunit_virtio_set_status(struct virtio_device *vdev, u8 status)
{
	struct kunit_virtio *dev = to_kunit_virtio(vdev);

	stop_here(dev, KUNIT_VIRTIO_OP_SET_STATUS);

	guard(device_state)(dev);

	if (dev->pulled)
		return;
	/* The device may have set it since the status was read: only a reset clears it. */
	status |= dev->status & VIRTIO_CONFIG_S_NEEDS_RESET;
	if (dev->status & ~status)
		broke(dev, KUNIT_VIRTIO_RULE_STATUS, "from %#x to %#x", dev->status,
		      status);
	else if (dev->status == status && (status & VIRTIO_CONFIG_S_DRIVER_OK) &&
		 !(status & VIRTIO_CONFIG_S_FAILED))
		/*
		 * The core sets ACKNOWLEDGE again when a driver is gone. It also sets
		 * FAILED again when another attempt to restore a device has failed.
		 */
		broke(dev, KUNIT_VIRTIO_RULE_STATUS,
		      "%#x again: the device was not reset", status);
	else if ((status & VIRTIO_CONFIG_S_DRIVER) && !(status & VIRTIO_CONFIG_S_ACKNOWLEDGE))
		broke(dev, KUNIT_VIRTIO_RULE_STATUS, "%#x: not acknowledged", status);
	if (status & ~dev->status & VIRTIO_CONFIG_S_FEATURES_OK && refuses_features(dev))
		status &= ~VIRTIO_CONFIG_S_FEATURES_OK;
	dev->status = status;
}

static void kunit_virtio_reset(struct virtio_device *vdev)
{
	struct kunit_virtio *dev = to_kunit_virtio(vdev);

	stop_here(dev, KUNIT_VIRTIO_OP_RESET);

	scoped_guard(device_state, dev) {
		if (!dev->pulled)
			dev->status = 0;
		dev->told = false;
		dev->resets++;
		for (unsigned int i = 0; i < dev->config.num_queues; i++) {
			struct queue *q = to_queue(dev, i);

			q->live = false;
			for (unsigned int head = 0; head < q->config.size; head++) {
				if (q->heads[head]->state == KUNIT_VIRTIO_BUSY)
					q->heads[head]->state = KUNIT_VIRTIO_ORPHAN;
			}
		}
		dev->config.ops->reset(dev);
	}

	for (unsigned int i = 0; i < dev->config.num_queues; i++) {
		struct queue *q = to_queue(dev, i);

		for (unsigned int n = 0; n <= q->config.size; n++)
			hrtimer_cancel(&q->buffers[n].timer);
		if (!READ_ONCE(dev->late_irqs))
			cancel_irq(q);
	}
}

static bool in_callback(struct queue *q)
{
	return hrtimer_active(&q->irq_timer) || work_busy(&q->irq_work);
}

static void delete_queue(struct queue *q)
{
	struct kunit_virtio *dev = q->dev;
	struct virtqueue *vq;

	scoped_guard(device_state, dev) {
		vq = q->vq;
		if (!vq)
			return;
		if (!dev->pulled && (dev->status & VIRTIO_CONFIG_S_DRIVER_OK))
			broke(dev, KUNIT_VIRTIO_RULE_RESET, "queue %u, status %#x",
			      vq->index, dev->status);
		if (vq->num_free != q->config.size)
			broke(dev, KUNIT_VIRTIO_RULE_LEFT,
			      "queue %u: %u of %u descriptors are free", vq->index,
			      vq->num_free, q->config.size);
		if (dev->late_irqs && in_callback(q))
			broke(dev, KUNIT_VIRTIO_RULE_CALLBACK, "queue %u", vq->index);
		q->vq = NULL;
		q->live = false;
		q->spoil = false;
		q->spoiled = NULL;
		for (unsigned int head = 0; head < q->config.size; head++)
			q->heads[head]->state = KUNIT_VIRTIO_IDLE;
	}

	if (work_busy(&q->irq_work))
		kunit_virtio_release(dev, KUNIT_VIRTIO_OP_CALLBACK);
	cancel_irq(q);
	vring_del_virtqueue(vq);
}

static void delete_queues(struct kunit_virtio *dev)
{
	for (unsigned int i = 0; i < dev->config.num_queues; i++)
		delete_queue(to_queue(dev, i));

	guard(device_state)(dev);

	if (dev->num_mappings)
		broke(dev, KUNIT_VIRTIO_RULE_LEFT, "%u mappings", dev->num_mappings);
	dev->num_mappings = 0;
	dev->lied = false;
}

static void kunit_virtio_del_vqs(struct virtio_device *vdev)
{
	struct kunit_virtio *dev = to_kunit_virtio(vdev);

	stop_here(dev, KUNIT_VIRTIO_OP_DEL_VQS);
	delete_queues(dev);
}

static int create_queue(struct kunit_virtio *dev, unsigned int index,
			struct virtqueue_info *info)
{
	struct queue *q = to_queue(dev, index);
	const struct vring *vring;
	struct virtqueue *vq;

	if (index >= dev->config.num_queues || !q->config.size)
		return -ENOENT;
	if (q->vq)
		return -EBUSY;

	vq = vring_create_virtqueue_map(index, q->config.size, SMP_CACHE_BYTES,
					&dev->vdev, true, false, info->ctx,
					kunit_virtio_notify, info->callback, info->name,
					dev->vdev.vmap);
	if (!vq)
		return -ENOMEM;
	vq->num_max = q->config.size;

	guard(device_state)(dev);

	vring = virtqueue_get_vring(vq);
	vringh_init_kern(&q->vrh, dev->vdev.features, vring->num, true, vring->desc,
			 vring->avail, vring->used);
	q->vq = vq;
	q->live = true;
	return 0;
}

static int kunit_virtio_find_vqs(struct virtio_device *vdev, unsigned int nvqs,
				 struct virtqueue *vqs[],
				 struct virtqueue_info vqs_info[],
				 struct irq_affinity *desc)
{
	struct kunit_virtio *dev = to_kunit_virtio(vdev);
	unsigned int index = 0;
	int ret;

	stop_here(dev, KUNIT_VIRTIO_OP_FIND_VQS);

	scoped_guard(device_state, dev) {
		if (dev->pulled)
			return -ENOENT;
		if (!(dev->status & VIRTIO_CONFIG_S_FEATURES_OK))
			broke(dev, KUNIT_VIRTIO_RULE_NEGOTIATE, "status %#x",
			      dev->status);
		if (dev->fail_find) {
			dev->fail_find--;
			return -EIO;
		}
	}

	for (unsigned int i = 0; i < nvqs; i++) {
		if (!vqs_info[i].name) {
			vqs[i] = NULL;
			continue;
		}
		ret = create_queue(dev, index, &vqs_info[i]);
		if (ret) {
			delete_queues(dev);
			return ret;
		}
		vqs[i] = dev->queues[index++].vq;
	}

	return 0;
}

static u64 kunit_virtio_get_features(struct virtio_device *vdev)
{
	struct kunit_virtio *dev = to_kunit_virtio(vdev);

	stop_here(dev, KUNIT_VIRTIO_OP_GET_FEATURES);

	guard(device_state)(dev);

	if (dev->pulled)
		return U64_MAX;
	return dev->config.features | BIT_ULL(VIRTIO_F_VERSION_1) |
	       BIT_ULL(VIRTIO_F_ACCESS_PLATFORM);
}

static int kunit_virtio_finalize_features(struct virtio_device *vdev)
{
	struct kunit_virtio *dev = to_kunit_virtio(vdev);

	stop_here(dev, KUNIT_VIRTIO_OP_FINALIZE_FEATURES);

	scoped_guard(device_state, dev) {
		if (dev->fail_finalize) {
			dev->fail_finalize--;
			return -EIO;
		}
	}
	vring_transport_features(vdev);
	return 0;
}

static const char *kunit_virtio_bus_name(struct virtio_device *vdev)
{
	return "kunit";
}

static const struct virtio_config_ops kunit_virtio_config_ops = {
	.get			= kunit_virtio_get,
	.set			= kunit_virtio_set,
	.generation		= kunit_virtio_generation,
	.get_status		= kunit_virtio_get_status,
	.set_status		= kunit_virtio_set_status,
	.reset			= kunit_virtio_reset,
	.find_vqs		= kunit_virtio_find_vqs,
	.del_vqs		= kunit_virtio_del_vqs,
	.synchronize_cbs	= kunit_virtio_synchronize_cbs,
	.get_features		= kunit_virtio_get_features,
	.finalize_features	= kunit_virtio_finalize_features,
	.bus_name		= kunit_virtio_bus_name,
};

/* Registration */

static void free_device(struct kunit_virtio *dev)
{
	for (unsigned int i = 0; i < dev->config.num_queues; i++) {
		struct queue *q = to_queue(dev, i);

		for (unsigned int n = 0; q->buffers && n <= q->config.size; n++) {
			vringh_kiov_cleanup(&q->buffers[n].out);
			vringh_kiov_cleanup(&q->buffers[n].in);
		}
		kvfree(q->buffers);
		kvfree(q->heads);
	}
	kvfree(dev->mappings);
	kvfree(dev->bounce);
	bitmap_free(dev->bounce_map);
	kfree(dev->config_space);
	kfree(dev->next_config);
	kfree(dev);
}

static void release_device(struct device *dev)
{
	free_device(to_kunit_virtio(dev_to_virtio(dev)));
}

static int init_queue(struct kunit_virtio *dev, unsigned int index)
{
	struct queue *q = to_queue(dev, index);

	q->dev = dev;
	q->config = dev->config.queues[index];
	/* As interrupts of devices, these are threads on PREEMPT_RT. */
	hrtimer_setup(&q->irq_timer, irq_timer_fn, CLOCK_MONOTONIC, HRTIMER_MODE_REL);
	INIT_WORK(&q->irq_work, irq_work_fn);

	q->buffers = kvzalloc_objs(*q->buffers, q->config.size + 1);
	q->heads = kvzalloc_objs(*q->heads, q->config.size + 1);
	if (!q->buffers || !q->heads)
		return -ENOMEM;

	for (unsigned int n = 0; n <= q->config.size; n++) {
		struct kunit_virtio_buffer *buf = &q->buffers[n];

		buf->dev = dev;
		buf->queue = index;
		INIT_LIST_HEAD(&buf->list);
		hrtimer_setup(&buf->timer, buffer_timer_fn, CLOCK_MONOTONIC,
			      HRTIMER_MODE_REL_HARD);
		q->heads[n] = buf;
	}
	q->spare = q->heads[q->config.size];
	return 0;
}

static void report(struct kunit_virtio *dev)
{
	for (unsigned int rule = 0; rule < KUNIT_VIRTIO_RULES; rule++) {
		if (dev->broken[rule])
			KUNIT_FAIL(dev->test, "virtio: %s (%u times; %s)",
				   rule_names[rule], dev->broken[rule],
				   dev->detail[rule]);
	}
}

/* Reports queues that the driver has not deleted. */
static void check_queues(struct kunit_virtio *dev)
{
	for (unsigned int i = 0; i < dev->config.num_queues; i++) {
		struct queue *q = to_queue(dev, i);

		scoped_guard(device_state, dev) {
			if (!q->vq)
				continue;
			broke(dev, KUNIT_VIRTIO_RULE_LEFT, "queue %u itself", i);
		}
		delete_queue(q);
	}
}

static void end_device(void *data)
{
	struct kunit_virtio *dev = data;

	if (!dev->registered) {
		free_device(dev);
		return;
	}

	kunit_virtio_release_all(dev);
	kunit_virtio_unregister(dev);
	check_queues(dev);
	report(dev);
	put_device(&dev->vdev.dev);
}

/**
 * kunit_virtio_alloc() - Allocate a virtio device
 * @test: the test
 * @config: the device; not used afterwards, except the model
 *
 * When the test ends the device is unregistered, and the test fails if the
 * driver has violated a rule.
 *
 * Return: the device, or %NULL.
 */
struct kunit_virtio *kunit_virtio_alloc(struct kunit *test,
					const struct kunit_virtio_config *config)
{
	struct kunit_virtio *dev;

	if (config->num_queues > KUNIT_VIRTIO_MAX_QUEUES)
		return NULL;

	dev = kzalloc_obj(*dev);
	if (!dev)
		return NULL;

	dev->test = test;
	dev->config = *config;
	raw_spin_lock_init(&dev->lock);
	init_waitqueue_head(&dev->stop_wq);

	dev->config_space = kmemdup(config->config, config->config_len, GFP_KERNEL);
	dev->next_config = kmemdup(config->config, config->config_len, GFP_KERNEL);
	dev->mappings = kvzalloc_objs(*dev->mappings, MAX_MAPPINGS);
	if ((config->config_len && (!dev->config_space || !dev->next_config)) ||
	    !dev->mappings)
		goto err;
	for (unsigned int i = 0; i < config->num_queues; i++) {
		if (init_queue(dev, i))
			goto err;
	}

	dev->vdev.dev.release = release_device;
	dev->vdev.id.device = config->id;
	dev->vdev.config = &kunit_virtio_config_ops;
	dev->vdev.map = &kunit_virtio_map_ops;
	dev->vdev.vmap.dma_dev = &dev->vdev.dev;

	if (kunit_add_action_or_reset(test, end_device, dev))
		return NULL;
	return dev;

err:
	free_device(dev);
	return NULL;
}
EXPORT_SYMBOL_GPL(kunit_virtio_alloc);

/**
 * kunit_virtio_register() - Plug the device in
 * @dev: the device
 *
 * The probe of the driver runs before this returns, if it is registered.
 *
 * Return: 0, or a negative error.
 */
int kunit_virtio_register(struct kunit_virtio *dev)
{
	int ret = register_virtio_device(&dev->vdev);

	if (ret) {
		kunit_remove_action(dev->test, end_device, dev);
		put_device(&dev->vdev.dev);
		return ret;
	}

	/* Keeps the device until the test has checked the violations. */
	get_device(&dev->vdev.dev);
	dev->registered = true;
	return 0;
}
EXPORT_SYMBOL_GPL(kunit_virtio_register);

/**
 * kunit_virtio_unregister() - Unplug the device
 * @dev: the device
 *
 * The driver is unbound before this returns. Done by the end of the test at
 * the latest; a second time is without effect.
 */
void kunit_virtio_unregister(struct kunit_virtio *dev)
{
	if (device_is_registered(&dev->vdev.dev))
		unregister_virtio_device(&dev->vdev);
}
EXPORT_SYMBOL_GPL(kunit_virtio_unregister);

/**
 * kunit_virtio_device() - Return the virtio device
 * @dev: the device
 *
 * Return: the virtio device.
 */
struct virtio_device *kunit_virtio_device(struct kunit_virtio *dev)
{
	return &dev->vdev;
}
EXPORT_SYMBOL_GPL(kunit_virtio_device);

/**
 * kunit_virtio_priv() - Return the private data of the model
 * @dev: the device
 *
 * Return: &kunit_virtio_config.priv.
 */
void *kunit_virtio_priv(struct kunit_virtio *dev)
{
	return dev->config.priv;
}
EXPORT_SYMBOL_GPL(kunit_virtio_priv);

/**
 * kunit_virtio_set_irq() - Set the context of the callbacks of the driver
 * @dev: the device
 * @irq: the context
 */
void kunit_virtio_set_irq(struct kunit_virtio *dev, enum kunit_virtio_irq irq)
{
	guard(device_state)(dev);
	dev->irq = irq;
}
EXPORT_SYMBOL_GPL(kunit_virtio_set_irq);

/**
 * kunit_virtio_fail_notify() - Make notifications fail
 * @dev: the device
 * @fail: whether they do
 */
void kunit_virtio_fail_notify(struct kunit_virtio *dev, bool fail)
{
	guard(device_state)(dev);
	dev->fail_notify = fail;
}
EXPORT_SYMBOL_GPL(kunit_virtio_fail_notify);

/**
 * kunit_virtio_fail_map() - Make mappings fail
 * @dev: the device
 * @count: how many of the next ones
 */
void kunit_virtio_fail_map(struct kunit_virtio *dev, unsigned int count)
{
	guard(device_state)(dev);
	dev->fail_map = count;
}
EXPORT_SYMBOL_GPL(kunit_virtio_fail_map);

/**
 * kunit_virtio_fail_find() - Make the set-up of the queues fail
 * @dev: the device
 * @count: how many of the next times
 */
void kunit_virtio_fail_find(struct kunit_virtio *dev, unsigned int count)
{
	guard(device_state)(dev);
	dev->fail_find = count;
}
EXPORT_SYMBOL_GPL(kunit_virtio_fail_find);

/**
 * kunit_virtio_fail_finalize() - Make the write of the accepted features fail
 * @dev: the device
 * @count: how many of the next times
 */
void kunit_virtio_fail_finalize(struct kunit_virtio *dev, unsigned int count)
{
	guard(device_state)(dev);
	dev->fail_finalize = count;
}
EXPORT_SYMBOL_GPL(kunit_virtio_fail_finalize);

/**
 * kunit_virtio_refuse_features() - Refuse the features that the driver accepts
 * @dev: the device
 * @after: how many negotiations succeed before that
 * @count: how many are refused then: FEATURES_OK does not stay set
 */
void kunit_virtio_refuse_features(struct kunit_virtio *dev, unsigned int after,
				  unsigned int count)
{
	guard(device_state)(dev);
	dev->refuse_after = after;
	dev->refuse = count;
}
EXPORT_SYMBOL_GPL(kunit_virtio_refuse_features);

/**
 * kunit_virtio_bounce() - Let memory reach the device through bounce buffers
 * @dev: the device
 *
 * As with swiotlb: the device does not see what the driver writes after the
 * mapping, and the driver does not see what the device writes before the memory
 * is unmapped or synchronized. Affects later mappings only. Buffers that overlap
 * are not reported then.
 *
 * Return: 0, or -ENOMEM.
 */
int kunit_virtio_bounce(struct kunit_virtio *dev)
{
	u8 *bounce = kvzalloc(BOUNCE_SIZE, GFP_KERNEL);
	unsigned long *map = bitmap_zalloc(BOUNCE_SLOTS, GFP_KERNEL);

	if (!bounce || !map) {
		kvfree(bounce);
		bitmap_free(map);
		return -ENOMEM;
	}

	scoped_guard(device_state, dev) {
		if (!dev->bounce) {
			swap(dev->bounce, bounce);
			swap(dev->bounce_map, map);
		}
	}
	kvfree(bounce);
	bitmap_free(map);
	return 0;
}
EXPORT_SYMBOL_GPL(kunit_virtio_bounce);

/**
 * kunit_virtio_slow_map() - Delay DMA mappings
 * @dev: the device
 * @us: microseconds for each mapping
 *
 * Widens the window in which a driver may be interrupted while it adds a buffer,
 * or may add two at the same time.
 */
void kunit_virtio_slow_map(struct kunit_virtio *dev, unsigned int us)
{
	WRITE_ONCE(dev->map_us, us);
}
EXPORT_SYMBOL_GPL(kunit_virtio_slow_map);

/**
 * kunit_virtio_use_id() - Complete the next buffer of a queue with a false id
 * @dev: the device
 * @queue: index of the queue
 * @id: the id in the used ring, in place of the head of the buffer; a negative
 *	one if it is to be the head after all
 */
void kunit_virtio_use_id(struct kunit_virtio *dev, unsigned int queue, int id)
{
	struct queue *q = to_queue(dev, queue);

	guard(device_state)(dev);
	q->spoil = id >= 0;
	q->spoil_id = id;
}
EXPORT_SYMBOL_GPL(kunit_virtio_use_id);

/**
 * kunit_virtio_poll() - Take available buffers without a notification
 * @dev: the device
 * @queue: index of the queue
 *
 * As a device does that polls its rings on a processor of its own.
 */
void kunit_virtio_poll(struct kunit_virtio *dev, unsigned int queue)
{
	guard(device_state)(dev);
	poll(to_queue(dev, queue));
}
EXPORT_SYMBOL_GPL(kunit_virtio_poll);

/**
 * kunit_virtio_interrupt() - Raise a spurious interrupt
 * @dev: the device
 * @queue: index of the queue
 */
void kunit_virtio_interrupt(struct kunit_virtio *dev, unsigned int queue)
{
	guard(device_state)(dev);
	raise_irq(to_queue(dev, queue));
}
EXPORT_SYMBOL_GPL(kunit_virtio_interrupt);

/**
 * kunit_virtio_late_irqs() - Delay interrupts beyond a reset
 * @dev: the device
 *
 * After this call a reset neither waits for running callbacks nor cancels pending
 * interrupts. On some transports only virtio_synchronize_cbs() does, and a driver
 * that does not call it before it deletes its queues violates a rule. Interrupts
 * of deleted queues are dropped.
 */
void kunit_virtio_late_irqs(struct kunit_virtio *dev)
{
	guard(device_state)(dev);
	dev->late_irqs = true;
}
EXPORT_SYMBOL_GPL(kunit_virtio_late_irqs);

/**
 * kunit_virtio_set_config() - Change the configuration space
 * @dev: the device
 * @config: its contents, of the size that it had in the beginning
 */
void kunit_virtio_set_config(struct kunit_virtio *dev, const void *config)
{
	guard(device_state)(dev);
	change_config(dev, config);
}
EXPORT_SYMBOL_GPL(kunit_virtio_set_config);

/**
 * kunit_virtio_set_config_after() - Change the configuration space later
 * @dev: the device
 * @config: its contents, of the size that it had in the beginning
 * @reads: how often the driver reads before that; a read of more than four
 *	bytes is as many as it has words
 *
 * For a driver that is reading several fields. The change is not reported, but
 * increments the generation.
 */
void kunit_virtio_set_config_after(struct kunit_virtio *dev, const void *config,
				   unsigned int reads)
{
	guard(device_state)(dev);
	memcpy(dev->next_config, config, dev->config.config_len);
	dev->next_reads = reads;
}
EXPORT_SYMBOL_GPL(kunit_virtio_set_config_after);

/**
 * kunit_virtio_needs_reset() - Ask the driver for a reset
 * @dev: the device
 *
 * Sets DEVICE_NEEDS_RESET and reports a change of the configuration. A device
 * that was just reset has no need: the virtio core warns if its status is not
 * zero when the driver has let go of it.
 */
void kunit_virtio_needs_reset(struct kunit_virtio *dev)
{
	scoped_guard(device_state, dev) {
		if (dev->pulled)
			return;
		if (dev->status)
			dev->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
	}
	virtio_config_changed(&dev->vdev);

	guard(device_state)(dev);
	if (!(dev->status & VIRTIO_CONFIG_S_NEEDS_RESET))
		return;
	/* A notification in progress on another processor counts as sent before. */
	for (unsigned int i = 0; i < dev->config.num_queues; i++)
		poll(to_queue(dev, i));
	dev->told = !dev->vdev.config_change_pending;
}
EXPORT_SYMBOL_GPL(kunit_virtio_needs_reset);

/**
 * kunit_virtio_pull() - Remove the device by surprise
 * @dev: the device
 *
 * As with a card that is pulled: status and configuration
 * space read as all ones, before a reset and after it, nothing that is written
 * has an effect, notifications fail, and the device neither answers nor
 * interrupts any more. The driver is told by kunit_virtio_unregister().
 */
void kunit_virtio_pull(struct kunit_virtio *dev)
{
	guard(device_state)(dev);
	dev->pulled = true;
	dev->status = U8_MAX;
	dev->told = false;
}
EXPORT_SYMBOL_GPL(kunit_virtio_pull);

/**
 * kunit_virtio_rescue() - Wake up a driver that hangs
 * @dev: the device
 *
 * For tests of drivers that hang: ends all faults, repairs broken queues, and
 * completes each buffer that the driver has made available.
 */
void kunit_virtio_rescue(struct kunit_virtio *dev)
{
	kunit_virtio_release_all(dev);

	guard(device_state)(dev);

	dev->rescued = true;
	if (dev->pulled)
		dev->status = 0;
	dev->pulled = false;
	dev->irq = KUNIT_VIRTIO_HARDIRQ;
	dev->fail_notify = false;
	dev->fail_map = 0;
	dev->fail_find = 0;
	dev->fail_finalize = 0;
	dev->refuse_after = 0;
	dev->refuse = 0;
	dev->status &= ~VIRTIO_CONFIG_S_NEEDS_RESET;
	dev->told = false;
	dev->config.ops->rescue(dev);

	for (unsigned int i = 0; i < dev->config.num_queues; i++) {
		struct queue *q = to_queue(dev, i);

		if (!q->vq)
			continue;
		if (q->spoiled) {
			q->spoiled->id = cpu_to_virtio32(&dev->vdev, q->spoiled_id);
			q->spoiled = NULL;
		}
		q->spoil = false;
		q->live = true;
		__virtqueue_unbreak(q->vq);

		for (unsigned int head = 0; head < q->config.size; head++) {
			struct kunit_virtio_buffer *buf = q->heads[head];

			if (buf->state == KUNIT_VIRTIO_ORPHAN && is_accessible(buf)) {
				buf->state = KUNIT_VIRTIO_BUSY;
				dev->config.ops->available(dev, buf);
			}
		}
		drain(q);
		raise_irq(q);
	}
}
EXPORT_SYMBOL_GPL(kunit_virtio_rescue);

/**
 * kunit_virtio_notifications() - Count the notifications by the driver
 * @dev: the device
 * @queue: index of the queue
 *
 * Return: the number of notifications.
 */
unsigned int kunit_virtio_notifications(struct kunit_virtio *dev,
					unsigned int queue)
{
	guard(device_state)(dev);
	return to_queue(dev, queue)->notifications;
}
EXPORT_SYMBOL_GPL(kunit_virtio_notifications);

/**
 * kunit_virtio_interrupts() - Count the interrupts by the device
 * @dev: the device
 * @queue: index of the queue
 *
 * Return: the number of interrupts.
 */
unsigned int kunit_virtio_interrupts(struct kunit_virtio *dev, unsigned int queue)
{
	guard(device_state)(dev);
	return to_queue(dev, queue)->interrupts;
}
EXPORT_SYMBOL_GPL(kunit_virtio_interrupts);

/**
 * kunit_virtio_dropped() - Count the interrupts that were dropped
 * @dev: the device
 * @queue: index of the queue
 *
 * Return: the number of interrupts of a queue that was deleted or, but for
 * kunit_virtio_late_irqs(), of a device that was reset.
 */
unsigned int kunit_virtio_dropped(struct kunit_virtio *dev, unsigned int queue)
{
	guard(device_state)(dev);
	return to_queue(dev, queue)->dropped;
}
EXPORT_SYMBOL_GPL(kunit_virtio_dropped);

/**
 * kunit_virtio_completed() - Count the buffers that the device has returned
 * @dev: the device
 * @queue: index of the queue
 *
 * Return: the number of buffers.
 */
unsigned int kunit_virtio_completed(struct kunit_virtio *dev, unsigned int queue)
{
	guard(device_state)(dev);
	return to_queue(dev, queue)->completed;
}
EXPORT_SYMBOL_GPL(kunit_virtio_completed);

/**
 * kunit_virtio_resets() - Count the resets of the device
 * @dev: the device
 *
 * Return: the number of resets, that of the registration included.
 */
unsigned int kunit_virtio_resets(struct kunit_virtio *dev)
{
	guard(device_state)(dev);
	return dev->resets;
}
EXPORT_SYMBOL_GPL(kunit_virtio_resets);

/**
 * kunit_virtio_synchronized() - Count the synchronizations of callbacks
 * @dev: the device
 *
 * Return: the number of calls of virtio_synchronize_cbs().
 */
unsigned int kunit_virtio_synchronized(struct kunit_virtio *dev)
{
	guard(device_state)(dev);
	return dev->synchronized;
}
EXPORT_SYMBOL_GPL(kunit_virtio_synchronized);

/**
 * kunit_virtio_busy() - Count the buffers that the device has
 * @dev: the device
 * @queue: index of the queue
 *
 * Return: the number of buffers that were made available and not completed.
 */
unsigned int kunit_virtio_busy(struct kunit_virtio *dev, unsigned int queue)
{
	struct queue *q = to_queue(dev, queue);
	unsigned int count = 0;

	guard(device_state)(dev);
	for (unsigned int head = 0; head < q->config.size; head++) {
		if (q->heads[head]->state == KUNIT_VIRTIO_BUSY)
			count++;
	}
	return count;
}
EXPORT_SYMBOL_GPL(kunit_virtio_busy);

/**
 * kunit_virtio_status() - Return the device status
 * @dev: the device
 *
 * Return: the status byte.
 */
u8 kunit_virtio_status(struct kunit_virtio *dev)
{
	guard(device_state)(dev);
	return dev->status;
}
EXPORT_SYMBOL_GPL(kunit_virtio_status);

/**
 * kunit_virtio_broken() - Count the violations of a rule
 * @dev: the device
 * @rule: the rule
 *
 * Return: the number of times.
 */
unsigned int kunit_virtio_broken(struct kunit_virtio *dev, enum kunit_virtio_rule rule)
{
	guard(device_state)(dev);
	return dev->broken[rule];
}
EXPORT_SYMBOL_GPL(kunit_virtio_broken);

/**
 * kunit_virtio_forgive() - Ignore the violations of a rule
 * @dev: the device
 * @rule: the rule
 *
 * For a test that expects them.
 */
void kunit_virtio_forgive(struct kunit_virtio *dev, enum kunit_virtio_rule rule)
{
	guard(device_state)(dev);
	dev->broken[rule] = 0;
}
EXPORT_SYMBOL_GPL(kunit_virtio_forgive);

MODULE_DESCRIPTION("Virtio device for KUnit tests");
MODULE_LICENSE("GPL");
