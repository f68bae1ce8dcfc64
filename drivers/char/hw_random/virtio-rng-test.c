// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests of the virtio random number driver, with a device
 */

#include <linux/delay.h>
#include <linux/device.h>
#include <linux/hw_random.h>
#include <linux/limits.h>
#include <linux/minmax.h>
#include <linux/module.h>
#include <linux/string.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <uapi/linux/virtio_ids.h>

#include <kunit/test.h>
#include <kunit/virtio.h>

/* The least that the driver asks for. */
#define RNG_BYTES	32

/**
 * struct rng_model - a device
 * @test: the test
 * @dev: its virtio half
 * @vdev: the same as the driver has it
 * @held: the buffer that the driver waits for
 * @asked: number of buffers that the driver has made available
 * @room: bytes in the last one
 */
struct rng_model {
	struct kunit *test;
	struct kunit_virtio *dev;
	struct virtio_device *vdev;
	struct kunit_virtio_buffer *held;
	unsigned int asked;
	unsigned int room;
};

static void rng_available(struct kunit_virtio *dev, struct kunit_virtio_buffer *buf)
{
	struct rng_model *rng = kunit_virtio_priv(dev);

	rng->held = buf;
	rng->asked++;
	rng->room = buf->in_len;
}

static void rng_reset(struct kunit_virtio *dev)
{
	struct rng_model *rng = kunit_virtio_priv(dev);

	rng->held = NULL;
}

static void rng_rescue(struct kunit_virtio *dev)
{
	struct rng_model *rng = kunit_virtio_priv(dev);

	if (rng->held)
		kunit_virtio_complete(rng->held, 0);
	rng->held = NULL;
}

static const struct kunit_virtio_ops rng_ops = {
	.available	= rng_available,
	.reset		= rng_reset,
	.rescue		= rng_rescue,
};

/* Fills the buffer with that byte, and says that there were @used. */
static bool rng_answer(struct rng_model *rng, u8 byte, u32 used)
{
	unsigned long flags = kunit_virtio_lock(rng->dev);
	struct kunit_virtio_buffer *buf = rng->held;

	if (buf) {
		rng->held = NULL;
		for (unsigned int i = 0; i < rng->room; i++)
			kunit_virtio_write(buf, i, &byte, 1);
		kunit_virtio_complete(buf, used);
	}
	kunit_virtio_unlock(rng->dev, flags);
	return buf;
}

/* Waits until the driver has asked so often, as khwrngd may have to run for that. */
static bool rng_asked(struct rng_model *rng, unsigned int times)
{
	for (int i = 0; i < 100 && READ_ONCE(rng->asked) < times; i++)
		msleep(20);
	return READ_ONCE(rng->asked) >= times;
}

/* What users of random numbers call. */
static int rng_read(struct rng_model *rng, u8 *bytes, size_t len)
{
	struct hwrng *hwrng = rng->vdev->priv;

	return hwrng->read(hwrng, bytes, len, false);
}

/*
 * Reads what the answer to the last of so many requests has, unless khwrngd did:
 * that sleeps for long once it has what it needs, as on machines with an entropy
 * source of their own, or when a read has failed, as it does during a restore.
 */
static void rng_consume(struct rng_model *rng, unsigned int asked)
{
	u8 bytes[RNG_BYTES];

	msleep(20);
	if (READ_ONCE(rng->asked) == asked)
		rng_read(rng, bytes, sizeof(bytes));
}

static struct rng_model *rng_plug(struct kunit *test)
{
	struct rng_model *rng = test->priv;

	KUNIT_ASSERT_EQ(test, kunit_virtio_register(rng->dev), 0);
	KUNIT_ASSERT_NOT_NULL_MSG(test, rng->vdev->dev.driver, "is there a driver?");
	return rng;
}

static int rng_init(struct kunit *test)
{
	static const struct kunit_virtio_queue_config queue = { .size = 8, .in = RNG_BYTES };
	struct kunit_virtio_config config = {
		.id		= VIRTIO_ID_RNG,
		.queues		= &queue,
		.num_queues	= 1,
		.ops		= &rng_ops,
	};
	struct rng_model *rng = kunit_kzalloc(test, sizeof(*rng), GFP_KERNEL);

	if (!rng)
		return -ENOMEM;

	rng->test = test;
	config.priv = rng;
	rng->dev = kunit_virtio_alloc(test, &config);
	if (!rng->dev)
		return -ENOMEM;
	rng->vdev = kunit_virtio_device(rng->dev);
	test->priv = rng;
	return 0;
}

static void asks_at_once(struct kunit *test)
{
	struct rng_model *rng = rng_plug(test);

	KUNIT_EXPECT_EQ(test, rng->asked, 1);
	KUNIT_EXPECT_EQ(test, kunit_virtio_busy(rng->dev, 0), 1);
	KUNIT_EXPECT_TRUE(test, kunit_virtio_status(rng->dev) & VIRTIO_CONFIG_S_DRIVER_OK);
}

/*
 * khwrngd reads as well, and when it likes. It sleeps for long once it has what
 * it needs, so that some answer is not taken by it.
 */
static void expect_read(struct rng_model *rng, u32 used)
{
	static u8 bytes[2048];
	unsigned int n;
	int len = 0;

	for (n = 0; n < 20 && !len;) {
		n++;
		KUNIT_ASSERT_TRUE(rng->test, rng_asked(rng, n));
		KUNIT_ASSERT_TRUE(rng->test, rng_answer(rng, n, used));
		msleep(20);
		if (READ_ONCE(rng->asked) == n)
			len = rng_read(rng, bytes, sizeof(bytes));
	}
	KUNIT_ASSERT_EQ(rng->test, len, min(used, rng->room));
	KUNIT_EXPECT_NULL(rng->test, memchr_inv(bytes, n, len));
}

static void reads_what_the_device_wrote(struct kunit *test)
{
	expect_read(rng_plug(test), RNG_BYTES);
}

static void reads_through_bounce_buffers(struct kunit *test)
{
	struct rng_model *rng = test->priv;

	KUNIT_ASSERT_EQ(test, kunit_virtio_bounce(rng->dev), 0);
	expect_read(rng_plug(test), RNG_BYTES);
}

static void reads_less_than_the_device_claims(struct kunit *test)
{
	expect_read(rng_plug(test), 1000);
}

static void asks_again(struct kunit *test)
{
	struct rng_model *rng = rng_plug(test);

	KUNIT_ASSERT_TRUE(test, rng_answer(rng, 1, RNG_BYTES));
	rng_consume(rng, 1);
	KUNIT_EXPECT_TRUE(test, rng_asked(rng, 2));
	KUNIT_EXPECT_EQ(test, kunit_virtio_completed(rng->dev, 0), 1);
}

static void ignores_interrupts_for_no_reason(struct kunit *test)
{
	struct rng_model *rng = rng_plug(test);

	for (int i = 0; i < 5; i++) {
		kunit_virtio_interrupt(rng->dev, 0);
		fsleep(1000);
	}
	KUNIT_EXPECT_EQ(test, rng->asked, 1);
	KUNIT_ASSERT_TRUE(test, rng_answer(rng, 1, RNG_BYTES));
	rng_consume(rng, 1);
	KUNIT_EXPECT_TRUE(test, rng_asked(rng, 2));
}

static void unbinds_with_a_buffer_out(struct kunit *test)
{
	struct rng_model *rng = rng_plug(test);

	device_release_driver(&rng->vdev->dev);
	KUNIT_EXPECT_EQ(test, kunit_virtio_busy(rng->dev, 0), 0);
	KUNIT_ASSERT_EQ(test, device_attach(&rng->vdev->dev), 1);
	KUNIT_EXPECT_EQ(test, rng->asked, 2);
}

static void fails_to_bind(struct kunit *test)
{
	struct rng_model *rng = test->priv;

	/* Whichever driver tries: there may be a sample. */
	kunit_virtio_fail_find(rng->dev, UINT_MAX);
	KUNIT_ASSERT_EQ(test, kunit_virtio_register(rng->dev), 0);
	KUNIT_EXPECT_NULL(test, rng->vdev->dev.driver);
}

#ifdef CONFIG_PM_SLEEP
static void asks_again_after_a_suspend(struct kunit *test)
{
	struct rng_model *rng = rng_plug(test);

	KUNIT_ASSERT_EQ(test, virtio_device_freeze(rng->vdev), 0);
	KUNIT_EXPECT_EQ(test, kunit_virtio_status(rng->dev), 0);
	KUNIT_ASSERT_EQ(test, virtio_device_restore(rng->vdev), 0);
	KUNIT_EXPECT_EQ(test, rng->asked, 2);
	KUNIT_ASSERT_TRUE(test, rng_answer(rng, 1, RNG_BYTES));
	rng_consume(rng, 2);
	KUNIT_EXPECT_TRUE(test, rng_asked(rng, 3));
}
#else
static void asks_again_after_a_suspend(struct kunit *test)
{
	kunit_skip(test, "needs CONFIG_PM_SLEEP");
}
#endif

static struct kunit_case rng_cases[] = {
	KUNIT_CASE(asks_at_once),
	KUNIT_CASE(reads_what_the_device_wrote),
	KUNIT_CASE(reads_through_bounce_buffers),
	KUNIT_CASE(reads_less_than_the_device_claims),
	KUNIT_CASE(asks_again),
	KUNIT_CASE(ignores_interrupts_for_no_reason),
	KUNIT_CASE(unbinds_with_a_buffer_out),
	KUNIT_CASE(fails_to_bind),
	KUNIT_CASE(asks_again_after_a_suspend),
	{ }
};

static struct kunit_suite rng_suite = {
	.name		= "virtio_rng",
	.init		= rng_init,
	.test_cases	= rng_cases,
};

kunit_test_suite(rng_suite);

MODULE_DESCRIPTION("KUnit tests of the virtio random number driver");
MODULE_LICENSE("GPL");
