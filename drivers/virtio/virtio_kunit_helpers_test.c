// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests for the fake virtio device
 *
 * A driver for them follows the rules, or violates one.
 */

#include <linux/delay.h>
#include <linux/interrupt.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/scatterlist.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <linux/workqueue.h>

#include <kunit/resource.h>
#include <kunit/test.h>
#include <kunit/virtio.h>

/* No device has this ID. */
#define TOY_ID		0x7fffff

#define TOY_QUEUES	2
#define TOY_RING	8
#define TOY_BYTES	16

/* For what takes no time unless the processors are busy. */
#define TOY_PATIENCE	(10 * HZ)

/* A request of the toy driver, in memory that can be mapped. */
struct toy_request {
	u8 out[TOY_BYTES];
	u8 in[TOY_BYTES];
};

/* A test: driver and device. */
struct toy {
	struct kunit *test;
	struct kunit_virtio *dev;
	struct virtio_device *vdev;

	/* Device */
	struct list_head held;
	bool hold;
	u64 delay_ns;
	unsigned int resets;

	/* Driver */
	struct virtqueue *vqs[TOY_QUEUES];
	struct toy_request requests[TOY_RING + 1];
	unsigned int callbacks;
	unsigned int config_changes;
	bool in_hardirq;
	bool in_task;

	/* Another task, and its operation on the device. */
	struct work_struct task;
	enum kunit_virtio_op op;
	bool done;

	/* Mistakes of the driver */
	bool find_early;
	bool notify_early;
	bool no_reset;
	bool leave_buffers;
	bool leave_queues;
};

/* For probe, which has no other way to find the test. */
static struct toy *the_toy;

/* Device */

static void toy_answer(struct kunit_virtio_buffer *buf, u64 delay_ns)
{
	u8 bytes[TOY_BYTES];
	size_t len = kunit_virtio_read(buf, 0, bytes, sizeof(bytes));

	len = kunit_virtio_write(buf, 0, bytes, len);
	kunit_virtio_complete_after(buf, len, delay_ns);
}

static void toy_available(struct kunit_virtio *dev, struct kunit_virtio_buffer *buf)
{
	struct toy *toy = kunit_virtio_priv(dev);

	if (toy->hold)
		list_add_tail(&buf->list, &toy->held);
	else
		toy_answer(buf, toy->delay_ns);
}

static void toy_reset(struct kunit_virtio *dev)
{
	struct toy *toy = kunit_virtio_priv(dev);

	INIT_LIST_HEAD(&toy->held);
	toy->resets++;
}

static void toy_release(struct toy *toy, bool backwards)
{
	unsigned long flags = kunit_virtio_lock(toy->dev);

	while (!list_empty(&toy->held)) {
		struct kunit_virtio_buffer *buf = backwards ?
			list_last_entry(&toy->held, struct kunit_virtio_buffer, list) :
			list_first_entry(&toy->held, struct kunit_virtio_buffer, list);

		list_del_init(&buf->list);
		toy_answer(buf, 0);
	}
	kunit_virtio_unlock(toy->dev, flags);
}

static void toy_rescue(struct kunit_virtio *dev)
{
	struct toy *toy = kunit_virtio_priv(dev);
	struct kunit_virtio_buffer *buf, *next;

	toy->hold = false;
	toy->delay_ns = 0;
	list_for_each_entry_safe(buf, next, &toy->held, list) {
		list_del_init(&buf->list);
		toy_answer(buf, 0);
	}
}

static const struct kunit_virtio_ops toy_ops = {
	.available	= toy_available,
	.reset		= toy_reset,
	.rescue		= toy_rescue,
};

static const struct kunit_virtio_queue_config toy_queues[TOY_QUEUES] = {
	{ .size = TOY_RING, .out = 1, .in = 1 },
	{ .size = TOY_RING },
};

static const u8 toy_config[] = { 1, 2, 3, 4, 5, 6, 7, 8 };

/* Driver */

static void toy_callback(struct virtqueue *vq)
{
	struct toy *toy = vq->vdev->priv;

	toy->in_hardirq = in_hardirq();
	toy->in_task = in_task() && !irqs_disabled();
	/* Pairs with toy_wait_callbacks(). */
	smp_store_release(&toy->callbacks, toy->callbacks + 1);
}

static int toy_find_vqs(struct virtio_device *vdev)
{
	struct virtqueue_info info[TOY_QUEUES] = {
		{ "first", toy_callback },
		{ "second", toy_callback },
	};

	return virtio_find_vqs(vdev, TOY_QUEUES, the_toy->vqs, info, NULL);
}

static int toy_validate(struct virtio_device *vdev)
{
	if (the_toy->find_early) {
		int ret = toy_find_vqs(vdev);

		if (ret)
			return ret;
		vdev->config->del_vqs(vdev);
	}
	return 0;
}

static int toy_probe(struct virtio_device *vdev)
{
	int ret;

	vdev->priv = the_toy;
	ret = toy_find_vqs(vdev);
	if (ret)
		return ret;

	if (the_toy->notify_early)
		virtqueue_notify(the_toy->vqs[0]);
	virtio_device_ready(vdev);
	return 0;
}

static void toy_remove(struct virtio_device *vdev)
{
	struct toy *toy = vdev->priv;

	if (!toy->no_reset)
		virtio_reset_device(vdev);
	for (unsigned int i = 0; i < TOY_QUEUES && !toy->leave_buffers; i++) {
		while (virtqueue_detach_unused_buf(toy->vqs[i]))
			;
	}
	if (!toy->leave_queues)
		vdev->config->del_vqs(vdev);
}

static void toy_config_changed(struct virtio_device *vdev)
{
	struct toy *toy = vdev->priv;

	toy->config_changes++;
}

static const struct virtio_device_id toy_ids[] = {
	{ TOY_ID, VIRTIO_DEV_ANY_ID },
	{ }
};

static struct virtio_driver toy_driver = {
	.driver.name	= "kunit-virtio-toy",
	.id_table	= toy_ids,
	.validate	= toy_validate,
	.probe		= toy_probe,
	.remove		= toy_remove,
	.config_changed	= toy_config_changed,
};

/* Adds request @n to a queue: one segment to read and one to write, if asked for. */
static int toy_add(struct toy *toy, unsigned int queue, unsigned int n, bool out, bool in)
{
	struct toy_request *request = &toy->requests[n];
	struct scatterlist out_sg, in_sg, *sgs[2];
	unsigned int num = 0;

	sg_init_one(&out_sg, request->out, sizeof(request->out));
	sg_init_one(&in_sg, request->in, sizeof(request->in));
	if (out)
		sgs[num++] = &out_sg;
	if (in)
		sgs[num++] = &in_sg;
	return virtqueue_add_sgs(toy->vqs[queue], sgs, out, in, request, GFP_ATOMIC);
}

static int toy_send(struct toy *toy, unsigned int n)
{
	int ret;

	memset(toy->requests[n].out, n + 1, TOY_BYTES);
	ret = toy_add(toy, 0, n, true, true);
	if (!ret && !virtqueue_kick(toy->vqs[0]))
		ret = -EIO;
	return ret;
}

/* Waits for a request to come back, and returns its number or -1. */
static int toy_receive(struct toy *toy, unsigned int *len)
{
	unsigned long end = jiffies + TOY_PATIENCE;

	do {
		struct toy_request *request = virtqueue_get_buf(toy->vqs[0], len);

		if (request)
			return request - toy->requests;
		fsleep(100);
	} while (time_before(jiffies, end));

	return -1;
}

static void toy_wait_callbacks(struct toy *toy, unsigned int count)
{
	unsigned long end = jiffies + TOY_PATIENCE;
	unsigned int callbacks;

	/* Pairs with toy_callback(). */
	while ((callbacks = smp_load_acquire(&toy->callbacks)) < count &&
	       time_before(jiffies, end))
		fsleep(100);
	KUNIT_EXPECT_EQ(toy->test, callbacks, count);
}

/* Waits for interrupts, whether there is a driver or not. */
static void toy_wait_interrupts(struct toy *toy, unsigned int count)
{
	unsigned long end = jiffies + TOY_PATIENCE;

	while (kunit_virtio_interrupts(toy->dev, 0) + kunit_virtio_dropped(toy->dev, 0) < count &&
	       time_before(jiffies, end))
		fsleep(100);
}

/* Calls an operation, in a state of the device in which it is right to. */
static void toy_operate(struct toy *toy, enum kunit_virtio_op op)
{
	const struct virtio_config_ops *config = toy->vdev->config;

	switch (op) {
	case KUNIT_VIRTIO_OP_GET:
		virtio_cread8(toy->vdev, 0);
		break;
	case KUNIT_VIRTIO_OP_GET_STATUS:
		config->get_status(toy->vdev);
		break;
	case KUNIT_VIRTIO_OP_SET_STATUS:
		config->set_status(toy->vdev, kunit_virtio_status(toy->dev) |
					      VIRTIO_CONFIG_S_FAILED);
		break;
	case KUNIT_VIRTIO_OP_RESET:
		config->reset(toy->vdev);
		break;
	case KUNIT_VIRTIO_OP_FIND_VQS:
	case KUNIT_VIRTIO_OP_DEL_VQS:
		config->reset(toy->vdev);
		config->set_status(toy->vdev, VIRTIO_CONFIG_S_FEATURES_OK);
		config->del_vqs(toy->vdev);
		KUNIT_EXPECT_EQ(toy->test, toy_find_vqs(toy->vdev), 0);
		break;
	case KUNIT_VIRTIO_OP_GET_FEATURES:
		config->get_features(toy->vdev);
		break;
	case KUNIT_VIRTIO_OP_FINALIZE_FEATURES:
		config->finalize_features(toy->vdev);
		break;
	case KUNIT_VIRTIO_OP_SYNCHRONIZE_CBS:
		virtio_synchronize_cbs(toy->vdev);
		break;
	case KUNIT_VIRTIO_OP_CALLBACK:
		kunit_virtio_set_irq(toy->dev, KUNIT_VIRTIO_PROCESS);
		kunit_virtio_interrupt(toy->dev, 0);
		virtio_synchronize_cbs(toy->vdev);
		break;
	case KUNIT_VIRTIO_OPS:
		break;
	}
}

static void toy_task(struct work_struct *work)
{
	struct toy *toy = container_of(work, struct toy, task);

	toy_operate(toy, toy->op);
	WRITE_ONCE(toy->done, true);
}

static void toy_start(struct toy *toy, enum kunit_virtio_op op)
{
	toy->op = op;
	toy->done = false;
	queue_work(system_dfl_long_wq, &toy->task);
}

static void toy_end(void *data)
{
	struct toy *toy = data;

	kunit_virtio_release_all(toy->dev);
	cancel_work_sync(&toy->task);
}

/* Expects one violation of a rule. */
static void toy_expect_broken(struct toy *toy, enum kunit_virtio_rule rule)
{
	KUNIT_EXPECT_EQ(toy->test, kunit_virtio_broken(toy->dev, rule), 1);
	kunit_virtio_forgive(toy->dev, rule);
}

/* Access to the ring without the virtio core. */
static const struct vring *toy_vring(struct toy *toy)
{
	return virtqueue_get_vring(toy->vqs[0]);
}

static struct toy *toy_plug(struct kunit *test)
{
	struct toy *toy = test->priv;

	KUNIT_ASSERT_EQ(test, kunit_virtio_register(toy->dev), 0);
	KUNIT_ASSERT_PTR_EQ(test, toy->vdev->priv, (void *)toy);
	return toy;
}

static int toy_init_features(struct kunit *test, u64 features)
{
	struct kunit_virtio_config config = {
		.id		= TOY_ID,
		.features	= features,
		.config		= toy_config,
		.config_len	= sizeof(toy_config),
		.queues		= toy_queues,
		.num_queues	= TOY_QUEUES,
		.ops		= &toy_ops,
	};
	struct toy *toy = kunit_kzalloc(test, sizeof(*toy), GFP_KERNEL);

	if (!toy)
		return -ENOMEM;

	toy->test = test;
	INIT_LIST_HEAD(&toy->held);
	config.priv = toy;
	toy->dev = kunit_virtio_alloc(test, &config);
	if (!toy->dev)
		return -ENOMEM;

	toy->vdev = kunit_virtio_device(toy->dev);
	INIT_WORK(&toy->task, toy_task);
	the_toy = toy;
	test->priv = toy;
	return kunit_add_action_or_reset(test, toy_end, toy);
}

static int toy_init(struct kunit *test)
{
	return toy_init_features(test, 0);
}

static int toy_suite_init(struct kunit_suite *suite)
{
	return register_virtio_driver(&toy_driver);
}

static void toy_suite_exit(struct kunit_suite *suite)
{
	unregister_virtio_driver(&toy_driver);
}

/* Control of the device */

static void answers(struct kunit *test)
{
	struct toy *toy = toy_plug(test);
	unsigned int len = 0;

	KUNIT_ASSERT_EQ(test, toy_send(toy, 0), 0);
	toy_wait_callbacks(toy, 1);
	KUNIT_EXPECT_EQ(test, toy_receive(toy, &len), 0);
	KUNIT_EXPECT_EQ(test, len, TOY_BYTES);
	KUNIT_EXPECT_MEMEQ(test, toy->requests[0].in, toy->requests[0].out, TOY_BYTES);
	KUNIT_EXPECT_EQ(test, kunit_virtio_notifications(toy->dev, 0), 1);
	KUNIT_EXPECT_EQ(test, kunit_virtio_notifications(toy->dev, 1), 0);
	KUNIT_EXPECT_EQ(test, kunit_virtio_interrupts(toy->dev, 0), 1);
}

static void answers_in_hardirq(struct kunit *test)
{
	struct toy *toy = toy_plug(test);

	KUNIT_ASSERT_EQ(test, toy_send(toy, 0), 0);
	toy_wait_callbacks(toy, 1);
	/* On PREEMPT_RT devices interrupt threads. */
	KUNIT_EXPECT_EQ(test, toy->in_hardirq, !IS_ENABLED(CONFIG_PREEMPT_RT));
	KUNIT_EXPECT_FALSE(test, toy->in_task);
}

static void answers_in_process_context(struct kunit *test)
{
	struct toy *toy = toy_plug(test);

	kunit_virtio_set_irq(toy->dev, KUNIT_VIRTIO_PROCESS);
	KUNIT_ASSERT_EQ(test, toy_send(toy, 0), 0);
	toy_wait_callbacks(toy, 1);
	KUNIT_EXPECT_FALSE(test, toy->in_hardirq);
	KUNIT_EXPECT_TRUE(test, toy->in_task);
}

static void loses_interrupts(struct kunit *test)
{
	struct toy *toy = toy_plug(test);
	unsigned int len;

	kunit_virtio_set_irq(toy->dev, KUNIT_VIRTIO_NONE);
	KUNIT_ASSERT_EQ(test, toy_send(toy, 0), 0);
	KUNIT_EXPECT_EQ(test, toy_receive(toy, &len), 0);
	KUNIT_EXPECT_EQ(test, toy->callbacks, 0);
}

static void answers_later(struct kunit *test)
{
	struct toy *toy = toy_plug(test);
	ktime_t start = ktime_get();
	unsigned int len, busy;

	toy->delay_ns = 2 * NSEC_PER_MSEC;
	KUNIT_ASSERT_EQ(test, toy_send(toy, 0), 0);
	busy = kunit_virtio_busy(toy->dev, 0);
	/* On a busy host it may be answered by now. */
	if (ktime_us_delta(ktime_get(), start) < 2 * USEC_PER_MSEC)
		KUNIT_EXPECT_EQ(test, busy, 1);
	KUNIT_EXPECT_EQ(test, toy_receive(toy, &len), 0);
	KUNIT_EXPECT_GE(test, ktime_us_delta(ktime_get(), start), 2 * USEC_PER_MSEC);
	KUNIT_EXPECT_EQ(test, kunit_virtio_busy(toy->dev, 0), 0);
}

static void answers_without_notification(struct kunit *test)
{
	struct toy *toy = toy_plug(test);
	unsigned int len;

	KUNIT_ASSERT_EQ(test, toy_add(toy, 0, 0, true, true), 0);
	kunit_virtio_poll(toy->dev, 0);
	KUNIT_EXPECT_EQ(test, toy_receive(toy, &len), 0);
	KUNIT_EXPECT_EQ(test, kunit_virtio_notifications(toy->dev, 0), 0);
}

static void answers_out_of_order(struct kunit *test)
{
	struct toy *toy = toy_plug(test);
	unsigned int len;

	toy->hold = true;
	for (int n = 0; n < 3; n++)
		KUNIT_ASSERT_EQ(test, toy_send(toy, n), 0);
	KUNIT_EXPECT_EQ(test, kunit_virtio_busy(toy->dev, 0), 3);
	toy_release(toy, true);
	/* Answered under one lock, so together. */
	toy_wait_callbacks(toy, 1);
	for (int n = 2; n >= 0; n--)
		KUNIT_EXPECT_EQ(test, toy_receive(toy, &len), n);
}

static void answers_never(struct kunit *test)
{
	struct toy *toy = toy_plug(test);
	unsigned int len;

	toy->hold = true;
	KUNIT_ASSERT_EQ(test, toy_send(toy, 0), 0);
	fsleep(1000);
	KUNIT_EXPECT_NULL(test, virtqueue_get_buf(toy->vqs[0], &len));
	kunit_virtio_unregister(toy->dev);
	KUNIT_EXPECT_TRUE(test, list_empty(&toy->held));
}

static void rescues(struct kunit *test)
{
	struct toy *toy = toy_plug(test);
	unsigned int len;

	toy->hold = true;
	kunit_virtio_set_irq(toy->dev, KUNIT_VIRTIO_NONE);
	KUNIT_ASSERT_EQ(test, toy_send(toy, 0), 0);
	virtio_break_device(toy->vdev);
	kunit_virtio_rescue(toy->dev);
	toy_wait_callbacks(toy, 1);
	KUNIT_EXPECT_EQ(test, toy_receive(toy, &len), 0);
}

static void rescues_after_reset(struct kunit *test)
{
	struct toy *toy = toy_plug(test);
	unsigned int len;

	toy->hold = true;
	KUNIT_ASSERT_EQ(test, toy_send(toy, 0), 0);
	virtio_device_shutdown(toy->vdev);
	KUNIT_EXPECT_EQ(test, kunit_virtio_status(toy->dev), 0);
	kunit_virtio_rescue(toy->dev);
	KUNIT_EXPECT_EQ(test, toy_receive(toy, &len), 0);
}

static void uses_wrong_id(struct kunit *test)
{
	struct toy *toy = toy_plug(test);
	unsigned int len;

	kunit_virtio_use_id(toy->dev, 0, 0xffff);
	KUNIT_ASSERT_EQ(test, toy_send(toy, 0), 0);
	KUNIT_EXPECT_NULL(test, virtqueue_get_buf(toy->vqs[0], &len));
	KUNIT_EXPECT_TRUE(test, virtqueue_is_broken(toy->vqs[0]));
	kunit_virtio_rescue(toy->dev);
	KUNIT_EXPECT_EQ(test, toy_receive(toy, &len), 0);
}

static void uses_right_id_after_all(struct kunit *test)
{
	struct toy *toy = toy_plug(test);
	unsigned int len;

	kunit_virtio_use_id(toy->dev, 0, 0xffff);
	kunit_virtio_use_id(toy->dev, 0, -1);
	KUNIT_ASSERT_EQ(test, toy_send(toy, 0), 0);
	KUNIT_EXPECT_EQ(test, toy_receive(toy, &len), 0);
}

static void interrupts_for_no_reason(struct kunit *test)
{
	struct toy *toy = toy_plug(test);
	unsigned int len;

	kunit_virtio_interrupt(toy->dev, 0);
	toy_wait_interrupts(toy, 1);
	fsleep(1000);
	/* The core finds no used buffer. */
	KUNIT_EXPECT_EQ(test, kunit_virtio_interrupts(toy->dev, 0), 1);
	KUNIT_EXPECT_EQ(test, toy->callbacks, 0);
	KUNIT_EXPECT_NULL(test, virtqueue_get_buf(toy->vqs[0], &len));
}

static void counts_completed_buffers(struct kunit *test)
{
	struct toy *toy = toy_plug(test);

	KUNIT_EXPECT_EQ(test, kunit_virtio_completed(toy->dev, 0), 0);
	for (int i = 0; i < 3; i++)
		KUNIT_ASSERT_EQ(test, toy_send(toy, i), 0);
	KUNIT_EXPECT_EQ(test, kunit_virtio_completed(toy->dev, 0), 3);
	KUNIT_EXPECT_EQ(test, kunit_virtio_completed(toy->dev, 1), 0);
}

/* The driver believes that the device has the second buffer; it is the first. */
static void asks_for_no_sense_after_a_lie(struct kunit *test)
{
	struct toy *toy = toy_plug(test);
	struct kunit_virtio_buffer *held;
	unsigned long flags;
	unsigned int len;
	u8 byte;

	toy->hold = true;
	KUNIT_ASSERT_EQ(test, toy_send(toy, 0), 0);
	held = list_first_entry(&toy->held, struct kunit_virtio_buffer, list);
	toy->hold = false;
	kunit_virtio_use_id(toy->dev, 0, held->head);
	KUNIT_ASSERT_EQ(test, toy_send(toy, 1), 0);
	KUNIT_EXPECT_EQ(test, toy_receive(toy, &len), 0);
	KUNIT_EXPECT_EQ(test, kunit_virtio_broken(toy->dev, KUNIT_VIRTIO_RULE_TAKEN), 0);

	/* The driver has changed its memory. */
	flags = kunit_virtio_lock(toy->dev);
	KUNIT_EXPECT_EQ(test, kunit_virtio_read(held, 0, &byte, 1), 0);
	KUNIT_EXPECT_EQ(test, kunit_virtio_write(held, 0, &byte, 1), 0);
	kunit_virtio_unlock(toy->dev, flags);
}

static void fails_to_be_notified(struct kunit *test)
{
	struct toy *toy = toy_plug(test);

	kunit_virtio_fail_notify(toy->dev, true);
	KUNIT_EXPECT_EQ(test, toy_send(toy, 0), -EIO);
	KUNIT_EXPECT_TRUE(test, virtqueue_is_broken(toy->vqs[0]));
	KUNIT_EXPECT_EQ(test, kunit_virtio_busy(toy->dev, 0), 0);
}

static void fails_to_map(struct kunit *test)
{
	struct toy *toy = toy_plug(test);
	unsigned int len;

	kunit_virtio_fail_map(toy->dev, 1);
	KUNIT_EXPECT_EQ(test, toy_send(toy, 0), -ENOMEM);
	KUNIT_EXPECT_EQ(test, toy_send(toy, 0), 0);
	KUNIT_EXPECT_EQ(test, toy_receive(toy, &len), 0);
}

static void follows_indirect_tables(struct kunit *test)
{
	struct toy *toy;
	unsigned int len;

	KUNIT_ASSERT_EQ(test, toy_init_features(test, BIT_ULL(VIRTIO_RING_F_INDIRECT_DESC)), 0);
	toy = toy_plug(test);
	toy->hold = true;
	/* Each takes one descriptor of the ring. */
	for (int n = 0; n < TOY_RING; n++)
		KUNIT_ASSERT_EQ(test, toy_send(toy, n), 0);
	toy_release(toy, false);
	for (int n = 0; n < TOY_RING; n++) {
		KUNIT_EXPECT_EQ(test, toy_receive(toy, &len), n);
		KUNIT_EXPECT_EQ(test, toy->requests[n].in[0], n + 1);
	}
}

static void knows_event_indices(struct kunit *test)
{
	struct toy *toy;
	unsigned int len;

	KUNIT_ASSERT_EQ(test, toy_init_features(test, BIT_ULL(VIRTIO_RING_F_EVENT_IDX)), 0);
	toy = toy_plug(test);
	for (int n = 0; n < 3 * TOY_RING; n++) {
		KUNIT_ASSERT_EQ(test, toy_send(toy, n % TOY_RING), 0);
		KUNIT_EXPECT_EQ(test, toy_receive(toy, &len), n % TOY_RING);
	}
	KUNIT_EXPECT_EQ(test, kunit_virtio_notifications(toy->dev, 0), 3 * TOY_RING);
}

static void keeps_a_full_ring(struct kunit *test)
{
	struct toy *toy = toy_plug(test);

	toy->hold = true;
	for (int n = 0; n < TOY_RING / 2; n++)
		KUNIT_ASSERT_EQ(test, toy_send(toy, n), 0);
	KUNIT_EXPECT_EQ(test, toy_send(toy, TOY_RING / 2), -ENOSPC);
	KUNIT_EXPECT_EQ(test, kunit_virtio_busy(toy->dev, 0), TOY_RING / 2);
}

static void asks_for_reset(struct kunit *test)
{
	struct toy *toy = toy_plug(test);

	kunit_virtio_needs_reset(toy->dev);
	KUNIT_EXPECT_EQ(test, toy->config_changes, 1);
	KUNIT_EXPECT_TRUE(test, kunit_virtio_status(toy->dev) & VIRTIO_CONFIG_S_NEEDS_RESET);
	virtio_reset_device(toy->vdev);
	KUNIT_EXPECT_EQ(test, kunit_virtio_status(toy->dev), 0);
}

static void has_a_config_space(struct kunit *test)
{
	struct toy *toy = toy_plug(test);

	KUNIT_EXPECT_EQ(test, virtio_cread32(toy->vdev, 0), 0x04030201);
	virtio_cwrite8(toy->vdev, 1, 0xff);
	KUNIT_EXPECT_EQ(test, virtio_cread16(toy->vdev, 0), 0xff01);
}

static void is_bound_again(struct kunit *test)
{
	struct toy *toy = toy_plug(test);
	unsigned int len;

	device_release_driver(&toy->vdev->dev);
	KUNIT_ASSERT_EQ(test, device_attach(&toy->vdev->dev), 1);
	KUNIT_ASSERT_EQ(test, toy_send(toy, 0), 0);
	KUNIT_EXPECT_EQ(test, toy_receive(toy, &len), 0);
	KUNIT_EXPECT_EQ(test, kunit_virtio_resets(toy->dev), 2);
}

static void stops_at_each_operation(struct kunit *test)
{
	struct toy *toy = toy_plug(test);

	for (unsigned int op = 0; op < KUNIT_VIRTIO_OPS; op++) {
		kunit_virtio_stop_at(toy->dev, op, 1);
		KUNIT_EXPECT_FALSE(test, kunit_virtio_wait_stopped(toy->dev, op, 0));
		toy_start(toy, op);
		KUNIT_ASSERT_TRUE_MSG(test, kunit_virtio_wait_stopped(toy->dev, op, 10000),
				      "operation %u", op);
		fsleep(1000);
		KUNIT_EXPECT_FALSE(test, READ_ONCE(toy->done));
		kunit_virtio_release(toy->dev, op);
		KUNIT_EXPECT_FALSE(test, kunit_virtio_wait_stopped(toy->dev, op, 0));
		flush_work(&toy->task);
		KUNIT_EXPECT_TRUE(test, toy->done);
	}
}

static void stops_before_the_effect(struct kunit *test)
{
	struct toy *toy = toy_plug(test);

	kunit_virtio_stop_at(toy->dev, KUNIT_VIRTIO_OP_RESET, 1);
	toy_start(toy, KUNIT_VIRTIO_OP_RESET);
	KUNIT_ASSERT_TRUE(test, kunit_virtio_wait_stopped(toy->dev, KUNIT_VIRTIO_OP_RESET,
							  10000));
	KUNIT_EXPECT_NE(test, kunit_virtio_status(toy->dev), 0);
	kunit_virtio_release_all(toy->dev);
	flush_work(&toy->task);
	KUNIT_EXPECT_EQ(test, kunit_virtio_status(toy->dev), 0);
}

static void stops_one_task(struct kunit *test)
{
	enum kunit_virtio_op op = KUNIT_VIRTIO_OP_GET_STATUS;
	struct toy *toy = toy_plug(test);

	kunit_virtio_stop_at(toy->dev, op, 2);
	toy_operate(toy, op);
	KUNIT_EXPECT_FALSE(test, kunit_virtio_wait_stopped(toy->dev, op, 0));
	toy_start(toy, op);
	KUNIT_ASSERT_TRUE(test, kunit_virtio_wait_stopped(toy->dev, op, 10000));
	toy_operate(toy, op);
	KUNIT_EXPECT_TRUE(test, kunit_virtio_wait_stopped(toy->dev, op, 0));
	KUNIT_EXPECT_FALSE(test, READ_ONCE(toy->done));
	kunit_virtio_rescue(toy->dev);
	flush_work(&toy->task);
}

/* A running callback, and a task that has to wait for it: whether it still does after @patience. */
static bool toy_waits_for_callback(struct toy *toy, enum kunit_virtio_op op,
				   unsigned long patience)
{
	unsigned long end;
	bool waits;

	kunit_virtio_set_irq(toy->dev, KUNIT_VIRTIO_PROCESS);
	kunit_virtio_stop_at(toy->dev, KUNIT_VIRTIO_OP_CALLBACK, 1);
	KUNIT_ASSERT_EQ(toy->test, toy_send(toy, 0), 0);
	KUNIT_ASSERT_TRUE(toy->test, kunit_virtio_wait_stopped(toy->dev,
							       KUNIT_VIRTIO_OP_CALLBACK,
							       10000));
	toy_start(toy, op);
	end = jiffies + patience;
	while (!READ_ONCE(toy->done) && time_before(jiffies, end))
		fsleep(1000);
	waits = !READ_ONCE(toy->done);
	kunit_virtio_release(toy->dev, KUNIT_VIRTIO_OP_CALLBACK);
	flush_work(&toy->task);
	return waits;
}

static void synchronizes_callbacks(struct kunit *test)
{
	struct toy *toy = toy_plug(test);

	KUNIT_EXPECT_TRUE(test, toy_waits_for_callback(toy, KUNIT_VIRTIO_OP_SYNCHRONIZE_CBS,
						       HZ / 50));
	KUNIT_EXPECT_EQ(test, toy->callbacks, 1);
	KUNIT_EXPECT_EQ(test, kunit_virtio_synchronized(toy->dev), 1);
}

static void resets_after_callbacks(struct kunit *test)
{
	struct toy *toy = toy_plug(test);

	KUNIT_EXPECT_TRUE(test, toy_waits_for_callback(toy, KUNIT_VIRTIO_OP_RESET, HZ / 50));
	KUNIT_EXPECT_EQ(test, toy->callbacks, 0);
	KUNIT_EXPECT_EQ(test, kunit_virtio_dropped(toy->dev, 0), 1);
}

static void resets_before_late_callbacks(struct kunit *test)
{
	struct toy *toy = toy_plug(test);

	kunit_virtio_late_irqs(toy->dev);
	KUNIT_EXPECT_FALSE(test, toy_waits_for_callback(toy, KUNIT_VIRTIO_OP_RESET,
							TOY_PATIENCE));
	toy_wait_callbacks(toy, 1);
	KUNIT_EXPECT_EQ(test, kunit_virtio_dropped(toy->dev, 0), 0);
}

static void drops_interrupts_of_deleted_queues(struct kunit *test)
{
	struct toy *toy = toy_plug(test);

	kunit_virtio_late_irqs(toy->dev);
	device_release_driver(&toy->vdev->dev);
	kunit_virtio_interrupt(toy->dev, 0);
	toy_wait_interrupts(toy, 1);
	KUNIT_EXPECT_EQ(test, kunit_virtio_dropped(toy->dev, 0), 1);
	KUNIT_EXPECT_EQ(test, kunit_virtio_interrupts(toy->dev, 0), 0);
}

static void changes_its_config(struct kunit *test)
{
	const u8 next[] = { 11, 12, 13, 14, 15, 16, 17, 18 };
	struct toy *toy = toy_plug(test);
	u8 bytes[sizeof(next)];
	u32 generation;

	/* Half of it is old. */
	generation = toy->vdev->config->generation(toy->vdev);
	kunit_virtio_set_config_after(toy->dev, next, 1);
	toy->vdev->config->get(toy->vdev, 0, bytes, sizeof(bytes));
	KUNIT_EXPECT_MEMEQ(test, bytes, toy_config, sizeof(u32));
	KUNIT_EXPECT_MEMEQ(test, bytes + sizeof(u32), next + sizeof(u32), sizeof(u32));
	KUNIT_EXPECT_EQ(test, toy->vdev->config->generation(toy->vdev), generation + 1);

	/* The core looks at the generation. */
	kunit_virtio_set_config_after(toy->dev, toy_config, 1);
	KUNIT_EXPECT_EQ(test, virtio_cread64(toy->vdev, 0), 0x0807060504030201);
	kunit_virtio_set_config(toy->dev, next);
	KUNIT_EXPECT_EQ(test, virtio_cread64(toy->vdev, 0), 0x1211100f0e0d0c0b);
	KUNIT_EXPECT_EQ(test, toy->vdev->config->generation(toy->vdev), generation + 3);
}

static void bounces_what_the_device_writes(struct kunit *test)
{
	struct toy *toy = toy_plug(test);
	unsigned int len;

	KUNIT_ASSERT_EQ(test, kunit_virtio_bounce(toy->dev), 0);
	KUNIT_ASSERT_EQ(test, toy_send(toy, 0), 0);
	KUNIT_EXPECT_EQ(test, kunit_virtio_completed(toy->dev, 0), 1);
	KUNIT_EXPECT_EQ(test, toy->requests[0].in[0], 0);
	KUNIT_EXPECT_EQ(test, toy_receive(toy, &len), 0);
	KUNIT_EXPECT_MEMEQ(test, toy->requests[0].in, toy->requests[0].out, TOY_BYTES);
}

static void bounces_what_the_driver_writes(struct kunit *test)
{
	struct toy *toy = toy_plug(test);
	unsigned int len;

	KUNIT_ASSERT_EQ(test, kunit_virtio_bounce(toy->dev), 0);
	KUNIT_ASSERT_EQ(test, toy_add(toy, 0, 0, true, true), 0);
	toy->requests[0].out[0] = 1;
	virtqueue_kick(toy->vqs[0]);
	KUNIT_EXPECT_EQ(test, toy_receive(toy, &len), 0);
	KUNIT_EXPECT_EQ(test, toy->requests[0].in[0], 0);
}

static void bounces_until_it_is_synchronized(struct kunit *test)
{
	struct toy *toy = toy_plug(test);
	struct virtqueue *vq = toy->vqs[0];
	u8 *cpu = toy->requests[0].in;
	dma_addr_t addr;
	u8 *device;

	KUNIT_ASSERT_EQ(test, kunit_virtio_bounce(toy->dev), 0);
	addr = virtqueue_map_single_attrs(vq, cpu, TOY_BYTES, DMA_BIDIRECTIONAL, 0);
	KUNIT_ASSERT_EQ(test, virtqueue_map_mapping_error(vq, addr), 0);
	KUNIT_EXPECT_TRUE(test, virtqueue_map_need_sync(vq, addr));
	device = (u8 *)(uintptr_t)addr;

	cpu[1] = 1;
	KUNIT_EXPECT_EQ(test, device[1], 0);
	virtqueue_map_sync_single_range_for_device(vq, addr, 1, 1, DMA_BIDIRECTIONAL);
	KUNIT_EXPECT_EQ(test, device[1], 1);
	device[2] = 2;
	KUNIT_EXPECT_EQ(test, cpu[2], 0);
	virtqueue_map_sync_single_range_for_cpu(vq, addr, 2, 1, DMA_BIDIRECTIONAL);
	KUNIT_EXPECT_EQ(test, cpu[2], 2);
	virtqueue_unmap_single_attrs(vq, addr, TOY_BYTES, DMA_BIDIRECTIONAL, 0);
}

static void bounces_indirect_tables(struct kunit *test)
{
	struct toy *toy;
	unsigned int len;

	KUNIT_ASSERT_EQ(test, toy_init_features(test, BIT_ULL(VIRTIO_RING_F_INDIRECT_DESC)), 0);
	toy = toy_plug(test);
	KUNIT_ASSERT_EQ(test, kunit_virtio_bounce(toy->dev), 0);
	for (int n = 0; n < 3 * TOY_RING; n++) {
		KUNIT_ASSERT_EQ(test, toy_send(toy, n % TOY_RING), 0);
		KUNIT_EXPECT_EQ(test, toy_receive(toy, &len), n % TOY_RING);
		KUNIT_EXPECT_EQ(test, toy->requests[n % TOY_RING].in[0], n % TOY_RING + 1);
	}
}

static void is_pulled(struct kunit *test)
{
	struct toy *toy = toy_plug(test);
	unsigned int len;

	toy->hold = true;
	KUNIT_ASSERT_EQ(test, toy_send(toy, 0), 0);
	kunit_virtio_pull(toy->dev);
	toy_release(toy, false);
	fsleep(1000);
	KUNIT_EXPECT_NULL(test, virtqueue_get_buf(toy->vqs[0], &len));
	KUNIT_EXPECT_EQ(test, toy->callbacks, 0);
	KUNIT_EXPECT_EQ(test, toy_send(toy, 1), -EIO);

	KUNIT_EXPECT_EQ(test, virtio_cread32(toy->vdev, 0), U32_MAX);
	virtio_cwrite8(toy->vdev, 0, 0);
	KUNIT_EXPECT_EQ(test, virtio_cread8(toy->vdev, 0), U8_MAX);
	kunit_virtio_interrupt(toy->dev, 0);
	kunit_virtio_needs_reset(toy->dev);
	fsleep(1000);
	KUNIT_EXPECT_EQ(test, kunit_virtio_interrupts(toy->dev, 0), 0);
	KUNIT_EXPECT_EQ(test, toy->config_changes, 0);

	virtio_reset_device(toy->vdev);
	KUNIT_EXPECT_EQ(test, toy->vdev->config->get_status(toy->vdev), U8_MAX);
	/* The core warns, once, that it is not zero. */
	kunit_warning_suppress(test)
		kunit_virtio_unregister(toy->dev);
}

static void refuses_features(struct kunit *test)
{
	struct toy *toy = test->priv;
	struct device *dev = &toy->vdev->dev;

	kunit_virtio_refuse_features(toy->dev, 0, 1);
	KUNIT_ASSERT_EQ(test, kunit_virtio_register(toy->dev), 0);
	KUNIT_EXPECT_NULL(test, dev->driver);
	KUNIT_EXPECT_TRUE(test, kunit_virtio_status(toy->dev) & VIRTIO_CONFIG_S_FAILED);

	kunit_virtio_refuse_features(toy->dev, 1, 1);
	KUNIT_ASSERT_EQ(test, device_attach(dev), 1);
	device_release_driver(dev);
	KUNIT_EXPECT_EQ(test, device_attach(dev), 0);
	KUNIT_EXPECT_EQ(test, device_attach(dev), 1);
}

static void fails_to_take_features(struct kunit *test)
{
	struct toy *toy = test->priv;

	kunit_virtio_fail_finalize(toy->dev, 1);
	KUNIT_ASSERT_EQ(test, kunit_virtio_register(toy->dev), 0);
	KUNIT_EXPECT_NULL(test, toy->vdev->dev.driver);
	KUNIT_EXPECT_EQ(test, device_attach(&toy->vdev->dev), 1);
}

/* Reports of violations */

static void notices_memory_that_is_not_mapped(struct kunit *test)
{
	struct toy *toy = toy_plug(test);
	struct scatterlist sg;

	sg_init_one(&sg, toy->requests[0].in, TOY_BYTES);
	sg_dma_address(&sg) = (dma_addr_t)(uintptr_t)toy->requests[0].in;
	sg_dma_len(&sg) = TOY_BYTES;
	KUNIT_ASSERT_EQ(test, virtqueue_add_inbuf_premapped(toy->vqs[0], &sg, 1, toy,
							    NULL, GFP_KERNEL), 0);
	virtqueue_kick(toy->vqs[0]);
	toy_expect_broken(toy, KUNIT_VIRTIO_RULE_CHAIN);
}

static void notices_memory_of_the_wrong_direction(struct kunit *test)
{
	struct toy *toy = toy_plug(test);

	KUNIT_ASSERT_EQ(test, toy_add(toy, 0, 0, true, true), 0);
	toy_vring(toy)->desc[0].flags |= cpu_to_virtio16(toy->vdev, VRING_DESC_F_WRITE);
	virtqueue_kick(toy->vqs[0]);
	toy_expect_broken(toy, KUNIT_VIRTIO_RULE_CHAIN);
}

static void notices_readable_after_writable(struct kunit *test)
{
	struct toy *toy = toy_plug(test);

	KUNIT_ASSERT_EQ(test, toy_add(toy, 0, 0, true, true), 0);
	swap(toy_vring(toy)->desc[0].addr, toy_vring(toy)->desc[1].addr);
	toy_vring(toy)->desc[0].flags |= cpu_to_virtio16(toy->vdev, VRING_DESC_F_WRITE);
	toy_vring(toy)->desc[1].flags &= ~cpu_to_virtio16(toy->vdev, VRING_DESC_F_WRITE);
	virtqueue_kick(toy->vqs[0]);
	toy_expect_broken(toy, KUNIT_VIRTIO_RULE_CHAIN);
}

static void notices_what_is_no_memory(struct kunit *test)
{
	struct toy *toy = toy_plug(test);
	struct scatterlist sg;

	sg_init_one(&sg, toy->requests[0].in, TOY_BYTES);
	sg.length = 0;
	KUNIT_EXPECT_EQ(test, virtqueue_add_inbuf(toy->vqs[0], &sg, 1, toy, GFP_KERNEL),
			-ENOMEM);
	toy_expect_broken(toy, KUNIT_VIRTIO_RULE_CHAIN);
}

static void notices_buffer_twice(struct kunit *test)
{
	struct toy *toy = toy_plug(test);
	const struct vring *vring = toy_vring(toy);

	toy->hold = true;
	KUNIT_ASSERT_EQ(test, toy_send(toy, 0), 0);
	vring->avail->ring[1] = vring->avail->ring[0];
	vring->avail->idx = cpu_to_virtio16(toy->vdev, 2);
	virtqueue_notify(toy->vqs[0]);
	toy_expect_broken(toy, KUNIT_VIRTIO_RULE_TWICE);
}

static void notices_overlap(struct kunit *test)
{
	struct toy *toy = toy_plug(test);

	toy->hold = true;
	KUNIT_ASSERT_EQ(test, toy_add(toy, 0, 0, true, true), 0);
	KUNIT_ASSERT_EQ(test, toy_add(toy, 1, 0, false, true), 0);
	virtqueue_kick(toy->vqs[0]);
	KUNIT_EXPECT_EQ(test, kunit_virtio_broken(toy->dev, KUNIT_VIRTIO_RULE_OVERLAP), 0);
	virtqueue_kick(toy->vqs[1]);
	toy_expect_broken(toy, KUNIT_VIRTIO_RULE_OVERLAP);
}

static void notices_writable_request(struct kunit *test)
{
	struct toy *toy = toy_plug(test);

	KUNIT_ASSERT_EQ(test, toy_add(toy, 0, 0, false, true), 0);
	virtqueue_kick(toy->vqs[0]);
	toy_expect_broken(toy, KUNIT_VIRTIO_RULE_SHAPE);
}

static void notices_missing_response(struct kunit *test)
{
	struct toy *toy = toy_plug(test);

	KUNIT_ASSERT_EQ(test, toy_add(toy, 0, 0, true, false), 0);
	virtqueue_kick(toy->vqs[0]);
	toy_expect_broken(toy, KUNIT_VIRTIO_RULE_SHAPE);
}

static void notices_memory_taken(struct kunit *test)
{
	struct toy *toy = toy_plug(test);

	toy->hold = true;
	KUNIT_ASSERT_EQ(test, toy_send(toy, 0), 0);
	KUNIT_EXPECT_NOT_NULL(test, virtqueue_detach_unused_buf(toy->vqs[0]));
	/* One for each part. */
	KUNIT_EXPECT_EQ(test, kunit_virtio_broken(toy->dev, KUNIT_VIRTIO_RULE_TAKEN), 2);
	kunit_virtio_forgive(toy->dev, KUNIT_VIRTIO_RULE_TAKEN);
}

static void toy_expect_wrong_unmap(struct toy *toy, size_t len, enum dma_data_direction dir)
{
	struct virtqueue *vq = toy->vqs[0];
	dma_addr_t addr = virtqueue_map_single_attrs(vq, toy->requests[0].in, TOY_BYTES,
						     DMA_FROM_DEVICE, 0);

	KUNIT_ASSERT_EQ(toy->test, virtqueue_map_mapping_error(vq, addr), 0);
	virtqueue_unmap_single_attrs(vq, addr, len, dir, 0);
	toy_expect_broken(toy, KUNIT_VIRTIO_RULE_TAKEN);
	virtqueue_unmap_single_attrs(vq, addr, TOY_BYTES, DMA_FROM_DEVICE, 0);
	KUNIT_EXPECT_EQ(toy->test, kunit_virtio_broken(toy->dev, KUNIT_VIRTIO_RULE_TAKEN), 0);
}

static void notices_unmap_of_the_wrong_length(struct kunit *test)
{
	toy_expect_wrong_unmap(toy_plug(test), TOY_BYTES - 1, DMA_FROM_DEVICE);
}

static void notices_unmap_of_the_wrong_direction(struct kunit *test)
{
	toy_expect_wrong_unmap(toy_plug(test), TOY_BYTES, DMA_TO_DEVICE);
}

static void notices_unmap_twice(struct kunit *test)
{
	struct toy *toy = toy_plug(test);
	struct virtqueue *vq = toy->vqs[0];
	dma_addr_t addr = virtqueue_map_single_attrs(vq, toy->requests[0].in, TOY_BYTES,
						     DMA_FROM_DEVICE, 0);

	for (int i = 0; i < 2; i++)
		virtqueue_unmap_single_attrs(vq, addr, TOY_BYTES, DMA_FROM_DEVICE, 0);
	toy_expect_broken(toy, KUNIT_VIRTIO_RULE_TAKEN);
}

static void notices_sync_of_what_is_not_mapped(struct kunit *test)
{
	struct toy *toy = toy_plug(test);
	dma_addr_t addr;

	KUNIT_ASSERT_EQ(test, kunit_virtio_bounce(toy->dev), 0);
	addr = virtqueue_map_single_attrs(toy->vqs[0], toy->requests[0].in, TOY_BYTES,
					  DMA_FROM_DEVICE, 0);
	virtqueue_map_sync_single_range_for_cpu(toy->vqs[0], addr, 1, TOY_BYTES,
						DMA_FROM_DEVICE);
	toy_expect_broken(toy, KUNIT_VIRTIO_RULE_CHAIN);
	virtqueue_unmap_single_attrs(toy->vqs[0], addr, TOY_BYTES, DMA_FROM_DEVICE, 0);
}

static void notices_queue_deleted_under_a_callback(struct kunit *test)
{
	struct toy *toy = toy_plug(test);

	kunit_virtio_late_irqs(toy->dev);
	kunit_virtio_set_irq(toy->dev, KUNIT_VIRTIO_PROCESS);
	kunit_virtio_stop_at(toy->dev, KUNIT_VIRTIO_OP_CALLBACK, 1);
	KUNIT_ASSERT_EQ(test, toy_send(toy, 0), 0);
	KUNIT_ASSERT_TRUE(test, kunit_virtio_wait_stopped(toy->dev, KUNIT_VIRTIO_OP_CALLBACK,
							  10000));
	kunit_virtio_unregister(toy->dev);
	toy_expect_broken(toy, KUNIT_VIRTIO_RULE_CALLBACK);
}

static void notices_early_notification(struct kunit *test)
{
	struct toy *toy = test->priv;

	toy->notify_early = true;
	toy_plug(test);
	toy_expect_broken(toy, KUNIT_VIRTIO_RULE_READY);
}

static void notices_use_after_reset(struct kunit *test)
{
	struct toy *toy = toy_plug(test);

	virtio_reset_device(toy->vdev);
	__virtio_unbreak_device(toy->vdev);
	KUNIT_EXPECT_EQ(test, toy_send(toy, 0), 0);
	toy_expect_broken(toy, KUNIT_VIRTIO_RULE_READY);
}

/* The device is ready again, the queue is not: it was not set up since. */
static void notices_old_queue_after_reset(struct kunit *test)
{
	struct toy *toy = toy_plug(test);

	virtio_reset_device(toy->vdev);
	virtio_device_ready(toy->vdev);
	KUNIT_EXPECT_EQ(test, toy_send(toy, 0), 0);
	toy_expect_broken(toy, KUNIT_VIRTIO_RULE_READY);
}

static void notices_early_queues(struct kunit *test)
{
	struct toy *toy = test->priv;

	toy->find_early = true;
	toy_plug(test);
	toy_expect_broken(toy, KUNIT_VIRTIO_RULE_NEGOTIATE);
}

static void notices_status_bits_that_go(struct kunit *test)
{
	struct toy *toy = toy_plug(test);

	toy->vdev->config->set_status(toy->vdev, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	toy_expect_broken(toy, KUNIT_VIRTIO_RULE_STATUS);
}

static void notices_missing_acknowledgement(struct kunit *test)
{
	struct toy *toy = toy_plug(test);
	const struct virtio_config_ops *config = toy->vdev->config;

	config->reset(toy->vdev);
	config->set_status(toy->vdev, VIRTIO_CONFIG_S_DRIVER);
	toy_expect_broken(toy, KUNIT_VIRTIO_RULE_STATUS);
}

/* The driver has read the status before the device has changed it. */
static void status_is_written_while_a_reset_is_needed(struct kunit *test)
{
	struct toy *toy = toy_plug(test);
	u8 status = toy->vdev->config->get_status(toy->vdev);

	kunit_virtio_needs_reset(toy->dev);
	toy->vdev->config->set_status(toy->vdev, status | VIRTIO_CONFIG_S_FAILED);
	KUNIT_EXPECT_EQ(test, kunit_virtio_status(toy->dev),
			status | VIRTIO_CONFIG_S_FAILED | VIRTIO_CONFIG_S_NEEDS_RESET);
}

static void notices_missing_reset(struct kunit *test)
{
	struct toy *toy = toy_plug(test);

	toy->no_reset = true;
	/* The core warns of it, once. */
	kunit_warning_suppress(test)
		kunit_virtio_unregister(toy->dev);
	/* One for each queue. */
	KUNIT_EXPECT_EQ(test, kunit_virtio_broken(toy->dev, KUNIT_VIRTIO_RULE_RESET),
			TOY_QUEUES);
	kunit_virtio_forgive(toy->dev, KUNIT_VIRTIO_RULE_RESET);
	toy_expect_broken(toy, KUNIT_VIRTIO_RULE_STATUS);
}

static void notices_buffers_left(struct kunit *test)
{
	struct toy *toy = toy_plug(test);

	toy->hold = true;
	toy->leave_buffers = true;
	KUNIT_ASSERT_EQ(test, toy_send(toy, 0), 0);
	kunit_virtio_unregister(toy->dev);
	/* The queue that has the buffer, and the memory of it. */
	KUNIT_EXPECT_EQ(test, kunit_virtio_broken(toy->dev, KUNIT_VIRTIO_RULE_LEFT), 2);
	kunit_virtio_forgive(toy->dev, KUNIT_VIRTIO_RULE_LEFT);
}

static void notices_use_while_reset_is_needed(struct kunit *test)
{
	struct toy *toy = toy_plug(test);

	kunit_virtio_needs_reset(toy->dev);
	KUNIT_ASSERT_EQ(test, toy_send(toy, 0), 0);
	toy_expect_broken(toy, KUNIT_VIRTIO_RULE_NEEDS_RESET);
}

static void notices_config_overrun(struct kunit *test)
{
	struct toy *toy = toy_plug(test);

	KUNIT_EXPECT_EQ(test, virtio_cread32(toy->vdev, sizeof(toy_config) - 2), 0);
	toy_expect_broken(toy, KUNIT_VIRTIO_RULE_CONFIG);
}

/* Violations fail the test */

static void toy_wrong_shape(struct toy *toy)
{
	KUNIT_EXPECT_EQ(toy->test, toy_add(toy, 0, 0, false, true), 0);
	virtqueue_kick(toy->vqs[0]);
}

static void toy_wrong_unmap(struct toy *toy)
{
	dma_addr_t addr = virtqueue_map_single_attrs(toy->vqs[0], toy->requests[0].in,
						     TOY_BYTES, DMA_FROM_DEVICE, 0);

	virtqueue_unmap_single_attrs(toy->vqs[0], addr, TOY_BYTES - 1, DMA_FROM_DEVICE, 0);
	virtqueue_unmap_single_attrs(toy->vqs[0], addr, TOY_BYTES, DMA_FROM_DEVICE, 0);
}

static void toy_leaves_mapping(struct toy *toy)
{
	virtqueue_map_single_attrs(toy->vqs[0], toy->requests[0].in, TOY_BYTES,
				   DMA_FROM_DEVICE, 0);
}

static void toy_leaves_queues(struct toy *toy)
{
	toy->leave_queues = true;
}

static void toy_nothing_wrong(struct toy *toy)
{
	unsigned int len;

	KUNIT_EXPECT_EQ(toy->test, toy_send(toy, 0), 0);
	KUNIT_EXPECT_EQ(toy->test, toy_receive(toy, &len), 0);
}

static const struct toy_mistake {
	const char *name;
	void (*make)(struct toy *toy);
	enum kunit_status status;
} toy_mistakes[] = {
	{ "nothing wrong", toy_nothing_wrong, KUNIT_SUCCESS },
	{ "wrong shape", toy_wrong_shape, KUNIT_FAILURE },
	{ "wrong unmap", toy_wrong_unmap, KUNIT_FAILURE },
	{ "mapping left", toy_leaves_mapping, KUNIT_FAILURE },
	{ "queues left", toy_leaves_queues, KUNIT_FAILURE },
};

KUNIT_ARRAY_PARAM_DESC(toy_mistake, toy_mistakes, name);

/* An inner test violates the rule, and ends. */
static void judges_the_test(struct kunit *test)
{
	const struct toy_mistake *mistake = test->param_value;
	struct kunit *inner = kunit_kzalloc(test, sizeof(*inner), GFP_KERNEL);
	int ret;

	KUNIT_ASSERT_NOT_NULL(test, inner);
	kunit_init_test(inner, "inner", NULL);
	ret = toy_init(inner);
	if (!ret)
		ret = kunit_virtio_register(the_toy->dev);
	if (!ret)
		mistake->make(the_toy);
	kunit_cleanup(inner);
	KUNIT_EXPECT_EQ(test, ret, 0);
	KUNIT_EXPECT_EQ(test, inner->status, mistake->status);
}

static struct kunit_case toy_cases[] = {
	KUNIT_CASE(answers),
	KUNIT_CASE(answers_in_hardirq),
	KUNIT_CASE(answers_in_process_context),
	KUNIT_CASE(loses_interrupts),
	KUNIT_CASE(answers_later),
	KUNIT_CASE(answers_without_notification),
	KUNIT_CASE(answers_out_of_order),
	KUNIT_CASE(answers_never),
	KUNIT_CASE(rescues),
	KUNIT_CASE(rescues_after_reset),
	KUNIT_CASE(uses_wrong_id),
	KUNIT_CASE(uses_right_id_after_all),
	KUNIT_CASE(interrupts_for_no_reason),
	KUNIT_CASE(counts_completed_buffers),
	KUNIT_CASE(asks_for_no_sense_after_a_lie),
	KUNIT_CASE(fails_to_be_notified),
	KUNIT_CASE(fails_to_map),
	KUNIT_CASE(follows_indirect_tables),
	KUNIT_CASE(knows_event_indices),
	KUNIT_CASE(keeps_a_full_ring),
	KUNIT_CASE(asks_for_reset),
	KUNIT_CASE(has_a_config_space),
	KUNIT_CASE(is_bound_again),
	KUNIT_CASE(stops_at_each_operation),
	KUNIT_CASE(stops_before_the_effect),
	KUNIT_CASE(stops_one_task),
	KUNIT_CASE(synchronizes_callbacks),
	KUNIT_CASE(resets_after_callbacks),
	KUNIT_CASE(resets_before_late_callbacks),
	KUNIT_CASE(drops_interrupts_of_deleted_queues),
	KUNIT_CASE(changes_its_config),
	KUNIT_CASE(bounces_what_the_device_writes),
	KUNIT_CASE(bounces_what_the_driver_writes),
	KUNIT_CASE(bounces_until_it_is_synchronized),
	KUNIT_CASE(bounces_indirect_tables),
	KUNIT_CASE(is_pulled),
	KUNIT_CASE(refuses_features),
	KUNIT_CASE(fails_to_take_features),
	KUNIT_CASE(notices_memory_that_is_not_mapped),
	KUNIT_CASE(notices_memory_of_the_wrong_direction),
	KUNIT_CASE(notices_readable_after_writable),
	KUNIT_CASE(notices_what_is_no_memory),
	KUNIT_CASE(notices_buffer_twice),
	KUNIT_CASE(notices_overlap),
	KUNIT_CASE(notices_writable_request),
	KUNIT_CASE(notices_missing_response),
	KUNIT_CASE(notices_memory_taken),
	KUNIT_CASE(notices_unmap_of_the_wrong_length),
	KUNIT_CASE(notices_unmap_of_the_wrong_direction),
	KUNIT_CASE(notices_unmap_twice),
	KUNIT_CASE(notices_sync_of_what_is_not_mapped),
	KUNIT_CASE(notices_queue_deleted_under_a_callback),
	KUNIT_CASE(notices_early_notification),
	KUNIT_CASE(notices_use_after_reset),
	KUNIT_CASE(notices_old_queue_after_reset),
	KUNIT_CASE(notices_early_queues),
	KUNIT_CASE(notices_status_bits_that_go),
	KUNIT_CASE(notices_missing_acknowledgement),
	KUNIT_CASE(status_is_written_while_a_reset_is_needed),
	KUNIT_CASE(notices_missing_reset),
	KUNIT_CASE(notices_buffers_left),
	KUNIT_CASE(notices_use_while_reset_is_needed),
	KUNIT_CASE(notices_config_overrun),
	KUNIT_CASE_PARAM(judges_the_test, toy_mistake_gen_params),
	{ }
};

static struct kunit_suite toy_suite = {
	.name		= "kunit_virtio",
	.suite_init	= toy_suite_init,
	.suite_exit	= toy_suite_exit,
	.init		= toy_init,
	.test_cases	= toy_cases,
};

kunit_test_suites(&toy_suite);

MODULE_DESCRIPTION("KUnit tests for the fake virtio device");
MODULE_LICENSE("GPL");
