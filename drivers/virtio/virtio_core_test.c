// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests for the virtio core: it calls a driver only while it is bound,
 * and in the right order
 */

#include <linux/completion.h>
#include <linux/jiffies.h>
#include <linux/module.h>
#include <linux/panic.h>
#include <linux/scatterlist.h>
#include <linux/slab.h>
#include <linux/suspend.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <linux/workqueue.h>

#include <kunit/device.h>
#include <kunit/test.h>

/* No device has this ID. */
#define CORE_TEST_ID	0x7ffffe

/* Time limit for an unbind that does not wait. */
#define CORE_TEST_MS	50

/* Descriptors of a ring, and alignment of its parts. */
#define CORE_TEST_NUM	4
#define CORE_TEST_ALIGN	64

/**
 * struct core_test - a device, and the calls of its driver
 * @vdev: the device
 * @released: the device was released
 * @status: its status
 * @stuck: its status remains after a reset
 * @refuses: it refuses its features
 * @fails: the probe of the driver fails
 * @wakes: the driver leaves the device in use for it to wake the system up
 * @asked: it was asked that
 * @stop: the next get_status() waits for @resume
 * @stop_late: the first one after the restore of the driver waits, too
 * @stopped: get_status() waits
 * @resume: ends the wait
 * @bound: the driver is bound
 * @quiesced: it is suspended, or prepared for a reset
 * @unbound_calls: calls of the driver while it was not bound
 * @unprepared: restore and reset_done calls without freeze or reset_prepare
 * @failures: calls of restore_failed()
 * @config_changes: calls of config_changed()
 * @call: the call of the transport
 * @transport_work: runs @call
 * @unbind_work: unbinds the driver
 * @unbound: it is unbound
 */
struct core_test {
	struct virtio_device vdev;
	struct completion released;

	u8 status;
	bool stuck;
	bool refuses;
	bool fails;
	bool wakes;
	bool asked;
	bool stop;
	bool stop_late;
	struct completion stopped;
	struct completion resume;

	bool bound;
	bool quiesced;
	unsigned int unbound_calls;
	unsigned int unprepared;
	unsigned int failures;
	unsigned int config_changes;

	int (*call)(struct virtio_device *vdev);
	struct work_struct transport_work;
	struct work_struct unbind_work;
	struct completion unbound;
};

static struct core_test *to_core_test(struct virtio_device *vdev)
{
	return container_of(vdev, struct core_test, vdev);
}

/* Transport */

static u8 core_test_get_status(struct virtio_device *vdev)
{
	struct core_test *core = to_core_test(vdev);

	if (core->stop) {
		core->stop = false;
		complete(&core->stopped);
		wait_for_completion(&core->resume);
	}
	return core->status;
}

static void core_test_set_status(struct virtio_device *vdev, u8 status)
{
	to_core_test(vdev)->status = status;
}

static void core_test_reset(struct virtio_device *vdev)
{
	struct core_test *core = to_core_test(vdev);

	if (!core->stuck)
		core->status = 0;
}

static u64 core_test_get_features(struct virtio_device *vdev)
{
	return BIT_ULL(VIRTIO_F_VERSION_1);
}

static int core_test_finalize_features(struct virtio_device *vdev)
{
	return to_core_test(vdev)->refuses ? -ENODEV : 0;
}

static void core_test_del_vqs(struct virtio_device *vdev) { }

static const struct virtio_config_ops core_test_config_ops = {
	.get_status = core_test_get_status,
	.set_status = core_test_set_status,
	.reset = core_test_reset,
	.get_features = core_test_get_features,
	.finalize_features = core_test_finalize_features,
	.del_vqs = core_test_del_vqs,
};

static void core_test_release(struct device *dev)
{
	complete(&to_core_test(dev_to_virtio(dev))->released);
}

/* Driver */

static int core_test_probe(struct virtio_device *vdev)
{
	struct core_test *core = to_core_test(vdev);

	if (core->fails) {
		virtio_reset_device(vdev);
		return -EIO;
	}
	core->bound = true;
	core->quiesced = false;
	return 0;
}

static void core_test_remove(struct virtio_device *vdev)
{
	virtio_reset_device(vdev);
	to_core_test(vdev)->bound = false;
}

static int core_test_quiesce(struct virtio_device *vdev)
{
	struct core_test *core = to_core_test(vdev);

	if (!core->bound)
		core->unbound_calls++;
	core->quiesced = true;
	return 0;
}

static int core_test_continue(struct virtio_device *vdev)
{
	struct core_test *core = to_core_test(vdev);

	if (!core->bound)
		core->unbound_calls++;
	if (!core->quiesced)
		core->unprepared++;
	core->quiesced = false;
	core->stop = core->stop_late;
	return 0;
}

static void core_test_restore_failed(struct virtio_device *vdev)
{
	struct core_test *core = to_core_test(vdev);

	if (!core->bound)
		core->unbound_calls++;
	core->failures++;
}

static bool core_test_may_wake(struct virtio_device *vdev)
{
	struct core_test *core = to_core_test(vdev);

	core->asked = true;
	return core->wakes;
}

static void core_test_config_changed(struct virtio_device *vdev)
{
	struct core_test *core = to_core_test(vdev);

	if (!core->bound)
		core->unbound_calls++;
	core->config_changes++;
}

static const struct virtio_device_id core_test_ids[] = {
	{ CORE_TEST_ID, VIRTIO_DEV_ANY_ID },
	{ }
};

static struct virtio_driver core_test_driver = {
	.driver.name = "virtio_core_test",
	.id_table = core_test_ids,
	.probe = core_test_probe,
	.remove = core_test_remove,
	.config_changed = core_test_config_changed,
	.may_wake = core_test_may_wake,
	.freeze = core_test_quiesce,
	.restore = core_test_continue,
	.reset_prepare = core_test_quiesce,
	.reset_done = core_test_continue,
	.restore_failed = core_test_restore_failed,
};

/* Tests */

/* Status of a device that a driver uses. */
#define CORE_TEST_IN_USE	(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | \
				 VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK)

/**
 * struct core_test_pair - two calls of a transport
 * @name: name of the test case
 * @quiesce: the first call
 * @resume: the second call
 */
struct core_test_pair {
	const char *name;
	int (*quiesce)(struct virtio_device *vdev);
	int (*resume)(struct virtio_device *vdev);
};

static const struct core_test_pair core_test_pairs[] = {
#ifdef CONFIG_PM_SLEEP
	{ "suspend", virtio_device_freeze, virtio_device_restore },
#endif
	{ "reset", virtio_device_reset_prepare, virtio_device_reset_done },
};

KUNIT_ARRAY_PARAM_DESC(core_test_pair, core_test_pairs, name);

static void core_test_transport_work(struct work_struct *work)
{
	struct core_test *core = container_of(work, struct core_test, transport_work);

	core->call(&core->vdev);
}

static void core_test_unbind_work(struct work_struct *work)
{
	struct core_test *core = container_of(work, struct core_test, unbind_work);

	device_release_driver(&core->vdev.dev);
	complete(&core->unbound);
}

/* Runs the call of the transport, and unbinds the driver while get_status() waits. */
static void core_test_unbind_during(struct kunit *test,
				    int (*call)(struct virtio_device *vdev))
{
	struct core_test *core = test->priv;

	core->call = call;
	queue_work(system_dfl_wq, &core->transport_work);
	wait_for_completion(&core->stopped);
	queue_work(system_dfl_wq, &core->unbind_work);
	/* It should wait for the lock of the device. */
	KUNIT_EXPECT_EQ(test, 0,
			wait_for_completion_timeout(&core->unbound,
						    msecs_to_jiffies(CORE_TEST_MS)));
	complete(&core->resume);
	flush_work(&core->transport_work);
	flush_work(&core->unbind_work);
	KUNIT_EXPECT_FALSE(test, core->bound);
	KUNIT_EXPECT_EQ(test, core->unbound_calls, 0);
}

static void unbind_while_quiesced(struct kunit *test)
{
	const struct core_test_pair *pair = test->param_value;
	struct core_test *core = test->priv;

	core->stop = true;
	core_test_unbind_during(test, pair->quiesce);
}

static void unbind_while_resumed(struct kunit *test)
{
	const struct core_test_pair *pair = test->param_value;
	struct core_test *core = test->priv;

	KUNIT_ASSERT_EQ(test, pair->quiesce(&core->vdev), 0);
	core->stop = true;
	core_test_unbind_during(test, pair->resume);
}

/* The core reports the change after the restore of the driver. */
static void unbind_before_config_change(struct kunit *test)
{
	const struct core_test_pair *pair = test->param_value;
	struct core_test *core = test->priv;

	KUNIT_ASSERT_EQ(test, pair->quiesce(&core->vdev), 0);
	virtio_config_changed(&core->vdev);
	KUNIT_EXPECT_EQ(test, core->config_changes, 0);
	core->stop_late = true;
	core_test_unbind_during(test, pair->resume);
	KUNIT_EXPECT_EQ(test, core->config_changes, 1);
}

/* The new binding was not quiesced. */
static void rebind_while_quiesced(struct kunit *test)
{
	const struct core_test_pair *pair = test->param_value;
	struct core_test *core = test->priv;

	KUNIT_ASSERT_EQ(test, pair->quiesce(&core->vdev), 0);
	device_release_driver(&core->vdev.dev);
	KUNIT_ASSERT_EQ(test, device_attach(&core->vdev.dev), 1);
	KUNIT_ASSERT_TRUE(test, core->bound);

	KUNIT_EXPECT_EQ(test, pair->resume(&core->vdev), 0);
	KUNIT_EXPECT_EQ(test, core->unprepared, 0);
	KUNIT_EXPECT_EQ(test, core->status, CORE_TEST_IN_USE);
	virtio_config_changed(&core->vdev);
	KUNIT_EXPECT_EQ(test, core->config_changes, 1);

	/* Again, with a driver that stays bound. */
	KUNIT_EXPECT_EQ(test, pair->quiesce(&core->vdev), 0);
	KUNIT_EXPECT_TRUE(test, core->quiesced);
	KUNIT_EXPECT_EQ(test, pair->resume(&core->vdev), 0);
	KUNIT_EXPECT_EQ(test, core->unprepared, 0);
}

static void cannot_be_restored(struct kunit *test)
{
	const struct core_test_pair *pair = test->param_value;
	struct core_test *core = test->priv;

	KUNIT_ASSERT_EQ(test, pair->quiesce(&core->vdev), 0);
	core->refuses = true;
	KUNIT_EXPECT_EQ(test, pair->resume(&core->vdev), -ENODEV);
	KUNIT_EXPECT_TRUE(test, core->quiesced);
	KUNIT_EXPECT_EQ(test, core->failures, 1);
	/* The transport fails before it calls the core. */
	virtio_device_restore_failed(&core->vdev);
	KUNIT_EXPECT_EQ(test, core->failures, 2);

	core->refuses = false;
	KUNIT_EXPECT_EQ(test, pair->resume(&core->vdev), 0);
	KUNIT_EXPECT_FALSE(test, core->quiesced);
	virtio_device_restore_failed(&core->vdev);
	KUNIT_EXPECT_EQ(test, core->failures, 2);
	KUNIT_EXPECT_EQ(test, core->unbound_calls, 0);
}

#ifdef CONFIG_SUSPEND
static void core_test_sleep(struct kunit *test)
{
	struct core_test *core = test->priv;

	pm_suspend_target_state = PM_SUSPEND_TO_IDLE;
	KUNIT_EXPECT_EQ(test, virtio_device_freeze(&core->vdev), 0);
	pm_suspend_target_state = PM_SUSPEND_ON;
}

static void core_test_wake_up(struct kunit *test)
{
	struct core_test *core = test->priv;

	KUNIT_EXPECT_EQ(test, virtio_device_restore(&core->vdev), 0);
	KUNIT_EXPECT_FALSE(test, core->quiesced);
	KUNIT_EXPECT_EQ(test, core->unprepared, 0);
	KUNIT_EXPECT_EQ(test, core->status, CORE_TEST_IN_USE);
}

/* The driver is quiesced when the system is resumed. */
static void left_in_use_to_wake_the_system(struct kunit *test)
{
	struct core_test *core = test->priv;

	device_init_wakeup(&core->vdev.dev, true);
	core->wakes = true;
	core_test_sleep(test);
	KUNIT_EXPECT_FALSE(test, core->quiesced);
	KUNIT_EXPECT_EQ(test, core->status, CORE_TEST_IN_USE);
	virtio_config_changed(&core->vdev);
	KUNIT_EXPECT_EQ(test, core->config_changes, 0);
	core_test_wake_up(test);
	KUNIT_EXPECT_EQ(test, core->config_changes, 1);
}

static void quiesced_if_it_does_not_wake_the_system(struct kunit *test)
{
	struct core_test *core = test->priv;

	/* The device cannot. */
	core->wakes = true;
	core_test_sleep(test);
	KUNIT_EXPECT_TRUE(test, core->quiesced);
	core_test_wake_up(test);

	/* It is a hibernation. */
	device_init_wakeup(&core->vdev.dev, true);
	KUNIT_EXPECT_EQ(test, virtio_device_freeze(&core->vdev), 0);
	KUNIT_EXPECT_TRUE(test, core->quiesced);
	core_test_wake_up(test);

	/* The driver has no use for it. */
	core->wakes = false;
	core_test_sleep(test);
	KUNIT_EXPECT_TRUE(test, core->quiesced);
	core_test_wake_up(test);

	/* The user has disabled it. */
	core->wakes = true;
	device_wakeup_disable(&core->vdev.dev);
	core_test_sleep(test);
	KUNIT_EXPECT_TRUE(test, core->quiesced);
	core_test_wake_up(test);
}

/* The new binding was not told of the suspend, and one that failed has no virtqueues. */
static void left_in_use_by_another_binding(struct kunit *test)
{
	struct core_test *core = test->priv;

	device_init_wakeup(&core->vdev.dev, true);
	core->wakes = true;
	core_test_sleep(test);
	device_release_driver(&core->vdev.dev);
	KUNIT_ASSERT_EQ(test, device_attach(&core->vdev.dev), 1);
	core_test_wake_up(test);

	core_test_sleep(test);
	core->refuses = true;
	KUNIT_EXPECT_EQ(test, virtio_device_restore(&core->vdev), -ENODEV);
	KUNIT_EXPECT_EQ(test, core->failures, 1);
	core->asked = false;
	core_test_sleep(test);
	KUNIT_EXPECT_FALSE(test, core->asked);
	core->refuses = false;
	KUNIT_EXPECT_EQ(test, virtio_device_restore(&core->vdev), 0);
}
#endif

/*
 * Of a device that says so, a message is enough. Once a kernel has warned of
 * something else, a WARN shows only with panic_on_warn.
 */
static void remains_after_reset(struct kunit *test)
{
	struct core_test *core = test->priv;
	int warned = test_taint(TAINT_WARN);

	core->stuck = true;
	device_release_driver(&core->vdev.dev);
	KUNIT_EXPECT_FALSE(test, core->bound);
	KUNIT_EXPECT_NE(test, core->status, 0);
	KUNIT_EXPECT_EQ(test, test_taint(TAINT_WARN), warned);
}

/* Neither the failure before nor what the driver has done about it remains. */
static void probed_after_a_failure(struct kunit *test)
{
	struct core_test *core = test->priv;

	device_release_driver(&core->vdev.dev);
	core->fails = true;
	KUNIT_EXPECT_NE(test, device_attach(&core->vdev.dev), 1);
	KUNIT_EXPECT_EQ(test, core->status, VIRTIO_CONFIG_S_FAILED);

	core->fails = false;
	KUNIT_EXPECT_EQ(test, device_attach(&core->vdev.dev), 1);
	KUNIT_EXPECT_TRUE(test, core->bound);
	KUNIT_EXPECT_EQ(test, core->status, CORE_TEST_IN_USE);
}

static bool core_test_notify(struct virtqueue *vq)
{
	return true;
}

/* Adds a buffer of a byte to read and one to write. */
static int core_test_add(struct virtqueue *vq, u8 *bytes)
{
	struct scatterlist out, in;
	struct scatterlist *sgs[] = { &out, &in };

	sg_init_one(&out, &bytes[0], 1);
	sg_init_one(&in, &bytes[1], 1);
	return virtqueue_add_sgs(vq, sgs, 1, 1, bytes, GFP_KERNEL);
}

/* The device chains a buffer that it returns to one that it keeps. */
static void chained_by_the_device(struct kunit *test)
{
	struct core_test *core = test->priv;
	struct virtqueue *vq;
	struct vring vring;
	unsigned int len;
	void *ring;
	u8 *bytes;

	ring = kunit_kzalloc(test, vring_size(CORE_TEST_NUM, CORE_TEST_ALIGN), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, ring);
	bytes = kunit_kzalloc(test, 4, GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, bytes);
	vq = vring_new_virtqueue(0, CORE_TEST_NUM, CORE_TEST_ALIGN, &core->vdev, true, false,
				 ring, core_test_notify, NULL, "virtio_core_test");
	KUNIT_ASSERT_NOT_NULL(test, vq);
	vring_init(&vring, CORE_TEST_NUM, ring, CORE_TEST_ALIGN);

	KUNIT_EXPECT_EQ(test, core_test_add(vq, &bytes[0]), 0);
	KUNIT_EXPECT_EQ(test, core_test_add(vq, &bytes[2]), 0);
	KUNIT_EXPECT_EQ(test, vq->num_free, 0);
	/* The device writes, and uses the first buffer, in descriptors 0 and 1. */
	vring.desc[1].flags |= cpu_to_virtio16(&core->vdev, VRING_DESC_F_NEXT);
	vring.used->idx = cpu_to_virtio16(&core->vdev, 1);

	KUNIT_EXPECT_PTR_EQ(test, virtqueue_get_buf(vq, &len), (void *)&bytes[0]);
	KUNIT_EXPECT_EQ(test, vq->num_free, 2);
	vring_del_virtqueue(vq);
}

static int core_test_init(struct kunit *test)
{
	struct core_test *core;
	struct device *parent;

	core = kunit_kzalloc(test, sizeof(*core), GFP_KERNEL);
	if (!core)
		return -ENOMEM;
	parent = kunit_device_register(test, "virtio_core_test");
	if (IS_ERR(parent))
		return PTR_ERR(parent);

	init_completion(&core->released);
	init_completion(&core->stopped);
	init_completion(&core->resume);
	init_completion(&core->unbound);
	INIT_WORK(&core->transport_work, core_test_transport_work);
	INIT_WORK(&core->unbind_work, core_test_unbind_work);
	core->vdev.id.device = CORE_TEST_ID;
	core->vdev.config = &core_test_config_ops;
	core->vdev.dev.parent = parent;
	core->vdev.dev.release = core_test_release;

	KUNIT_ASSERT_EQ(test, register_virtio_device(&core->vdev), 0);
	test->priv = core;
	KUNIT_ASSERT_TRUE(test, core->bound);
	return 0;
}

static void core_test_exit(struct kunit *test)
{
	struct core_test *core = test->priv;

	if (!core)
		return;
	unregister_virtio_device(&core->vdev);
	wait_for_completion(&core->released);
}

static int core_test_suite_init(struct kunit_suite *suite)
{
	return register_virtio_driver(&core_test_driver);
}

static void core_test_suite_exit(struct kunit_suite *suite)
{
	unregister_virtio_driver(&core_test_driver);
}

static struct kunit_case core_test_cases[] = {
	KUNIT_CASE_PARAM(unbind_while_quiesced, core_test_pair_gen_params),
	KUNIT_CASE_PARAM(unbind_while_resumed, core_test_pair_gen_params),
	KUNIT_CASE_PARAM(unbind_before_config_change, core_test_pair_gen_params),
	KUNIT_CASE_PARAM(rebind_while_quiesced, core_test_pair_gen_params),
	KUNIT_CASE_PARAM(cannot_be_restored, core_test_pair_gen_params),
#ifdef CONFIG_SUSPEND
	KUNIT_CASE(left_in_use_to_wake_the_system),
	KUNIT_CASE(quiesced_if_it_does_not_wake_the_system),
	KUNIT_CASE(left_in_use_by_another_binding),
#endif
	KUNIT_CASE(remains_after_reset),
	KUNIT_CASE(probed_after_a_failure),
	KUNIT_CASE(chained_by_the_device),
	{}
};

static struct kunit_suite core_test_suite = {
	.name = "virtio_core",
	.suite_init = core_test_suite_init,
	.suite_exit = core_test_suite_exit,
	.init = core_test_init,
	.exit = core_test_exit,
	.test_cases = core_test_cases,
};

kunit_test_suite(core_test_suite);

MODULE_DESCRIPTION("KUnit tests of the virtio core");
MODULE_LICENSE("GPL");
