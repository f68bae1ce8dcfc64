/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A virtio device for the KUnit tests of virtio drivers
 *
 * The device registers on the virtio bus with real split virtqueues, so that
 * the driver under test cannot tell it from one behind a transport. A test
 * decides what the device offers, sees each buffer that the driver makes
 * available, and says what becomes of it.
 */
#ifndef _KUNIT_VIRTIO_H
#define _KUNIT_VIRTIO_H

#include <linux/hrtimer_types.h>
#include <linux/list.h>
#include <linux/types.h>
#include <linux/virtio.h>
#include <linux/vringh.h>

struct kunit;
struct kunit_virtio;

/* The most queues that a device can have. */
#define KUNIT_VIRTIO_MAX_QUEUES		8

/**
 * enum kunit_virtio_irq - where the callbacks of the driver run
 * @KUNIT_VIRTIO_HARDIRQ: in a hard interrupt, as with most transports
 * @KUNIT_VIRTIO_PROCESS: in process context with interrupts on, as with
 *	transports that call back from a work item
 * @KUNIT_VIRTIO_NONE: nowhere: interrupts are lost
 */
enum kunit_virtio_irq {
	KUNIT_VIRTIO_HARDIRQ,
	KUNIT_VIRTIO_PROCESS,
	KUNIT_VIRTIO_NONE,
};

/**
 * enum kunit_virtio_rule - what the device watches the driver for
 * @KUNIT_VIRTIO_RULE_CHAIN: a descriptor chain is well-formed and in memory
 *	that is mapped for the device in the right direction
 * @KUNIT_VIRTIO_RULE_TWICE: a buffer that the device has is not made
 *	available again
 * @KUNIT_VIRTIO_RULE_OVERLAP: buffers that the device has share no memory
 * @KUNIT_VIRTIO_RULE_SHAPE: a buffer has the device-readable and
 *	device-writable bytes that its queue is made for
 * @KUNIT_VIRTIO_RULE_TAKEN: the memory of a buffer that the device has stays
 *	mapped
 * @KUNIT_VIRTIO_RULE_READY: no notification before DRIVER_OK, nor after a
 *	reset
 * @KUNIT_VIRTIO_RULE_NEGOTIATE: no queue is set up before the features are
 *	agreed on
 * @KUNIT_VIRTIO_RULE_STATUS: status bits are set once, ACKNOWLEDGE before
 *	DRIVER, and cleared by a reset only; a driver that lets go of the device
 *	has reset it
 * @KUNIT_VIRTIO_RULE_RESET: a queue is deleted after a reset only
 * @KUNIT_VIRTIO_RULE_LEFT: no buffer is in a queue that is deleted, no memory
 *	stays mapped, and no queue outlives its driver
 * @KUNIT_VIRTIO_RULE_NEEDS_RESET: no buffer is made available to a device that
 *	has asked for a reset
 * @KUNIT_VIRTIO_RULE_CALLBACK: callbacks of a queue that is deleted have been
 *	waited for, if that is left to virtio_synchronize_cbs()
 * @KUNIT_VIRTIO_RULE_CONFIG: accesses are inside the configuration space
 * @KUNIT_VIRTIO_RULES: number of rules
 */
enum kunit_virtio_rule {
	KUNIT_VIRTIO_RULE_CHAIN,
	KUNIT_VIRTIO_RULE_TWICE,
	KUNIT_VIRTIO_RULE_OVERLAP,
	KUNIT_VIRTIO_RULE_SHAPE,
	KUNIT_VIRTIO_RULE_TAKEN,
	KUNIT_VIRTIO_RULE_READY,
	KUNIT_VIRTIO_RULE_NEGOTIATE,
	KUNIT_VIRTIO_RULE_STATUS,
	KUNIT_VIRTIO_RULE_RESET,
	KUNIT_VIRTIO_RULE_LEFT,
	KUNIT_VIRTIO_RULE_NEEDS_RESET,
	KUNIT_VIRTIO_RULE_CALLBACK,
	KUNIT_VIRTIO_RULE_CONFIG,
	KUNIT_VIRTIO_RULES
};

/**
 * enum kunit_virtio_op - where a test can have the driver, or the core, stop
 * @KUNIT_VIRTIO_OP_GET: read of the configuration space
 * @KUNIT_VIRTIO_OP_GET_STATUS: read of the status
 * @KUNIT_VIRTIO_OP_SET_STATUS: write of the status
 * @KUNIT_VIRTIO_OP_RESET: reset
 * @KUNIT_VIRTIO_OP_FIND_VQS: set-up of the queues
 * @KUNIT_VIRTIO_OP_DEL_VQS: deletion of the queues
 * @KUNIT_VIRTIO_OP_GET_FEATURES: read of the features that are offered
 * @KUNIT_VIRTIO_OP_FINALIZE_FEATURES: write of those that are accepted
 * @KUNIT_VIRTIO_OP_SYNCHRONIZE_CBS: wait for callbacks
 * @KUNIT_VIRTIO_OP_CALLBACK: callback of the driver, with KUNIT_VIRTIO_PROCESS
 * @KUNIT_VIRTIO_OPS: number of operations
 */
enum kunit_virtio_op {
	KUNIT_VIRTIO_OP_GET,
	KUNIT_VIRTIO_OP_GET_STATUS,
	KUNIT_VIRTIO_OP_SET_STATUS,
	KUNIT_VIRTIO_OP_RESET,
	KUNIT_VIRTIO_OP_FIND_VQS,
	KUNIT_VIRTIO_OP_DEL_VQS,
	KUNIT_VIRTIO_OP_GET_FEATURES,
	KUNIT_VIRTIO_OP_FINALIZE_FEATURES,
	KUNIT_VIRTIO_OP_SYNCHRONIZE_CBS,
	KUNIT_VIRTIO_OP_CALLBACK,
	KUNIT_VIRTIO_OPS
};

/**
 * struct kunit_virtio_buffer - a buffer that the driver has made available
 * @dev: the device
 * @queue: index of its queue
 * @head: index of its first descriptor
 * @out: its device-readable part
 * @in: its device-writable part
 * @out_len: bytes in @out
 * @in_len: bytes in @in
 * @list: for the device model, while the buffer is with the device
 * @priv: for the device model, %NULL when the buffer arrives
 */
struct kunit_virtio_buffer {
	struct kunit_virtio *dev;
	unsigned int queue;
	u16 head;
	struct vringh_kiov out;
	struct vringh_kiov in;
	size_t out_len;
	size_t in_len;
	struct list_head list;
	void *priv;
	/* private: */
	struct kvec out_vec[4];
	struct kvec in_vec[4];
	struct hrtimer timer;
	u32 used;
	enum {
		KUNIT_VIRTIO_IDLE,
		KUNIT_VIRTIO_BUSY,
		KUNIT_VIRTIO_ORPHAN,
	} state;
};

/**
 * struct kunit_virtio_ops - a device model
 * @available: The driver has made a buffer available, which from now on the
 *	model has until it calls kunit_virtio_complete(). The buffers of a
 *	queue come in the order in which the driver made them available.
 * @reset: The device was reset: buffers that it had are the driver's again.
 * @rescue: A test has given up on the driver: the model completes all buffers
 *	that it has, and from now on each as soon as it is available.
 *
 * All are called with the lock of the device held and interrupts off, from
 * whatever context the driver was in, so they must neither sleep nor allocate.
 */
struct kunit_virtio_ops {
	void (*available)(struct kunit_virtio *dev,
			  struct kunit_virtio_buffer *buf);
	void (*reset)(struct kunit_virtio *dev);
	void (*rescue)(struct kunit_virtio *dev);
};

/**
 * struct kunit_virtio_queue_config - one queue of a device
 * @size: number of descriptors, a power of two
 * @out: least number of device-readable bytes in a buffer
 * @in: least number of device-writable bytes in a buffer
 */
struct kunit_virtio_queue_config {
	unsigned int size;
	size_t out;
	size_t in;
};

/**
 * struct kunit_virtio_config - what a device is
 * @id: virtio device ID
 * @features: feature bits that it offers; VIRTIO_F_VERSION_1 and
 *	VIRTIO_F_ACCESS_PLATFORM are offered in any case
 * @config: contents of the configuration space
 * @config_len: size of the configuration space
 * @queues: the queues
 * @num_queues: how many of them there are
 * @ops: the device model
 * @priv: for the device model
 */
struct kunit_virtio_config {
	u32 id;
	u64 features;
	const void *config;
	size_t config_len;
	const struct kunit_virtio_queue_config *queues;
	unsigned int num_queues;
	const struct kunit_virtio_ops *ops;
	void *priv;
};

struct kunit_virtio *kunit_virtio_alloc(struct kunit *test,
					const struct kunit_virtio_config *config);
int kunit_virtio_register(struct kunit_virtio *dev);
void kunit_virtio_unregister(struct kunit_virtio *dev);
struct virtio_device *kunit_virtio_device(struct kunit_virtio *dev);
void *kunit_virtio_priv(struct kunit_virtio *dev);

/* Inside of the model: the lock is held by its callbacks. */
unsigned long kunit_virtio_lock(struct kunit_virtio *dev);
void kunit_virtio_unlock(struct kunit_virtio *dev, unsigned long flags);
size_t kunit_virtio_read(struct kunit_virtio_buffer *buf, size_t offset,
			 void *to, size_t len);
size_t kunit_virtio_write(struct kunit_virtio_buffer *buf, size_t offset,
			  const void *from, size_t len);
void kunit_virtio_complete(struct kunit_virtio_buffer *buf, u32 used);
void kunit_virtio_complete_after(struct kunit_virtio_buffer *buf, u32 used,
				 u64 delay_ns);

/* How the device behaves from now on. */
void kunit_virtio_set_irq(struct kunit_virtio *dev, enum kunit_virtio_irq irq);
void kunit_virtio_fail_notify(struct kunit_virtio *dev, bool fail);
void kunit_virtio_fail_map(struct kunit_virtio *dev, unsigned int count);
void kunit_virtio_fail_find(struct kunit_virtio *dev, unsigned int count);
void kunit_virtio_fail_finalize(struct kunit_virtio *dev, unsigned int count);
void kunit_virtio_refuse_features(struct kunit_virtio *dev, unsigned int after,
				  unsigned int count);
int kunit_virtio_bounce(struct kunit_virtio *dev);
void kunit_virtio_slow_map(struct kunit_virtio *dev, unsigned int us);
void kunit_virtio_use_id(struct kunit_virtio *dev, unsigned int queue, int id);
void kunit_virtio_poll(struct kunit_virtio *dev, unsigned int queue);
void kunit_virtio_interrupt(struct kunit_virtio *dev, unsigned int queue);
void kunit_virtio_late_irqs(struct kunit_virtio *dev);
void kunit_virtio_set_config(struct kunit_virtio *dev, const void *config);
void kunit_virtio_set_config_after(struct kunit_virtio *dev, const void *config,
				   unsigned int reads);
void kunit_virtio_needs_reset(struct kunit_virtio *dev);
void kunit_virtio_pull(struct kunit_virtio *dev);
void kunit_virtio_rescue(struct kunit_virtio *dev);

/* What the driver, or the core, is in the middle of. */
void kunit_virtio_stop_at(struct kunit_virtio *dev, enum kunit_virtio_op op,
			  unsigned int nth);
bool kunit_virtio_wait_stopped(struct kunit_virtio *dev, enum kunit_virtio_op op,
			       unsigned int ms);
void kunit_virtio_release(struct kunit_virtio *dev, enum kunit_virtio_op op);
void kunit_virtio_release_all(struct kunit_virtio *dev);

/* What the device has seen. */
unsigned int kunit_virtio_notifications(struct kunit_virtio *dev,
					unsigned int queue);
unsigned int kunit_virtio_interrupts(struct kunit_virtio *dev,
				     unsigned int queue);
unsigned int kunit_virtio_dropped(struct kunit_virtio *dev, unsigned int queue);
unsigned int kunit_virtio_completed(struct kunit_virtio *dev,
				    unsigned int queue);
unsigned int kunit_virtio_resets(struct kunit_virtio *dev);
unsigned int kunit_virtio_synchronized(struct kunit_virtio *dev);
unsigned int kunit_virtio_busy(struct kunit_virtio *dev, unsigned int queue);
u8 kunit_virtio_status(struct kunit_virtio *dev);
unsigned int kunit_virtio_broken(struct kunit_virtio *dev,
				 enum kunit_virtio_rule rule);
void kunit_virtio_forgive(struct kunit_virtio *dev, enum kunit_virtio_rule rule);

#endif /* _KUNIT_VIRTIO_H */
