// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests of the virtio samples
 *
 * A test plugs a device in, and reads from the node that the sample has in
 * /dev. How the device answers is up to the test.
 */

#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/err.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/kthread.h>
#include <linux/limits.h>
#include <linux/mount.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/virtio.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>

#include <kunit/resource.h>
#include <kunit/test.h>
#include <kunit/virtio.h>

/* Buffers that fit into the ring of a device, if each has one segment. */
#define RING		8

/* Time in milliseconds after which a reader that should have returned hangs. */
#define PATIENCE	10000

/* Time in milliseconds that a reader gets to block. */
#define MOMENT		20

/* A device, and how it answers. */
struct sample {
	struct kunit *test;
	struct kunit_virtio *dev;
	struct virtio_device *vdev;
	/* The sample is this driver, and this node, which is there without a device. */
	const char *name;
	struct file *file;

	/* Fills the buffer, and returns how many bytes it has written. */
	u32 (*answer)(struct sample *s, struct kunit_virtio_buffer *buf);
	/* Buffers are held until release(). */
	bool hold;
	struct list_head held;
	u64 delay_ns;
	/* What the device claims to have written, unless it is negative. */
	s64 claim;
	unsigned int answered;
};

/* The device model */

static void answer(struct sample *s, struct kunit_virtio_buffer *buf)
{
	u32 used = s->answer(s, buf);

	s->answered++;
	kunit_virtio_complete_after(buf, s->claim < 0 ? used : s->claim, s->delay_ns);
}

static void sample_available(struct kunit_virtio *dev, struct kunit_virtio_buffer *buf)
{
	struct sample *s = kunit_virtio_priv(dev);

	if (s->hold)
		list_add_tail(&buf->list, &s->held);
	else
		answer(s, buf);
}

static void sample_reset(struct kunit_virtio *dev)
{
	struct sample *s = kunit_virtio_priv(dev);

	INIT_LIST_HEAD(&s->held);
}

static void sample_rescue(struct kunit_virtio *dev)
{
}

static const struct kunit_virtio_ops sample_ops = {
	.available	= sample_available,
	.reset		= sample_reset,
	.rescue		= sample_rescue,
};

/* Answers what the device holds, the last buffer first, and holds nothing any more. */
static void release(struct sample *s)
{
	unsigned long flags = kunit_virtio_lock(s->dev);

	s->hold = false;
	while (!list_empty(&s->held)) {
		struct kunit_virtio_buffer *buf =
			list_last_entry(&s->held, struct kunit_virtio_buffer, list);

		list_del_init(&buf->list);
		answer(s, buf);
	}
	kunit_virtio_unlock(s->dev, flags);
}

static void hold(struct sample *s)
{
	unsigned long flags = kunit_virtio_lock(s->dev);

	s->hold = true;
	kunit_virtio_unlock(s->dev, flags);
}

/* Has the device claim to have written so much, or tell the truth if it is negative. */
static void claim(struct sample *s, s64 used)
{
	unsigned long flags = kunit_virtio_lock(s->dev);

	s->claim = used;
	kunit_virtio_unlock(s->dev, flags);
}

/* The node of the sample, which is there with or without a device */

static void put_mount(void *mnt)
{
	kern_unmount(mnt);
}

static void put_file(void *file)
{
	__fput_sync(file);
}

static struct file *open_node(struct kunit *test, const char *name)
{
	struct file_system_type *type = get_fs_type("devtmpfs");
	struct vfsmount *mnt;
	struct file *file;

	KUNIT_ASSERT_NOT_NULL(test, type);
	mnt = kern_mount(type);
	put_filesystem(type);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, mnt);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, put_mount, mnt), 0);

	file = file_open_root_mnt(mnt, name, O_RDONLY, 0);
	KUNIT_ASSERT_FALSE_MSG(test, IS_ERR(file), "no %s: %pe", name, file);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, put_file, file), 0);
	return file;
}

/* Readers */

struct reader {
	struct sample *s;
	struct task_struct *task;
	struct completion done;
	loff_t pos;
	u8 bytes[4096];
	size_t len;
	ssize_t ret;
};

static int reader_fn(void *data)
{
	struct reader *r = data;

	allow_signal(SIGKILL);
	r->ret = kernel_read(r->s->file, r->bytes, r->len, &r->pos);
	complete_all(&r->done);
	return 0;
}

static bool returns(struct reader *r, unsigned int ms)
{
	return wait_for_completion_timeout(&r->done, msecs_to_jiffies(ms));
}

static void end_reader(void *data)
{
	struct reader *r = data;

	send_sig(SIGKILL, r->task, 1);
	if (!returns(r, PATIENCE)) {
		/* It is left behind, along with what it uses. */
		KUNIT_FAIL(r->s->test, "a reader hangs");
		return;
	}
	kthread_stop_put(r->task);
	kfree(r);
}

/* Reads in a thread of its own, which is killed by the end of the test at the latest. */
static struct reader *start_reader(struct sample *s, loff_t pos, size_t len)
{
	struct reader *r = kzalloc_obj(*r);

	KUNIT_ASSERT_NOT_NULL(s->test, r);
	r->s = s;
	r->pos = pos;
	r->len = min(len, sizeof(r->bytes));
	init_completion(&r->done);
	r->task = kthread_create(reader_fn, r, "virtio-sample");
	if (IS_ERR(r->task)) {
		kfree(r);
		KUNIT_FAIL_AND_ABORT(s->test, "no thread");
	}
	get_task_struct(r->task);
	KUNIT_ASSERT_EQ(s->test, kunit_add_action_or_reset(s->test, end_reader, r), 0);
	wake_up_process(r->task);
	return r;
}

/* Reads, and aborts the test if the reader hangs. */
static struct reader *read_at(struct sample *s, loff_t pos, size_t len)
{
	struct reader *r = start_reader(s, pos, len);

	KUNIT_ASSERT_TRUE_MSG(s->test, returns(r, PATIENCE), "the reader hangs");
	return r;
}

static ssize_t read_ret(struct sample *s, loff_t pos, size_t len)
{
	return read_at(s, pos, len)->ret;
}

static struct reader *blocked_reader(struct sample *s, loff_t pos, size_t len)
{
	struct reader *r = start_reader(s, pos, len);

	KUNIT_ASSERT_FALSE_MSG(s->test, returns(r, MOMENT), "the reader did not wait");
	return r;
}

/* The life of a device */

static bool is_bound(struct sample *s)
{
	return READ_ONCE(s->vdev->dev.driver);
}

/* Plugs the device in, with no driver bound: it might not be the sample that binds first. */
static void plug(struct sample *s)
{
	kunit_virtio_fail_find(s->dev, UINT_MAX);
	KUNIT_ASSERT_EQ(s->test, kunit_virtio_register(s->dev), 0);
	KUNIT_ASSERT_FALSE(s->test, is_bound(s));
	kunit_virtio_fail_find(s->dev, 0);
}

/* Binds the sample, and no other driver. */
static int try_to_bind(struct sample *s)
{
	struct device_driver *driver = driver_find(s->name, s->vdev->dev.bus);

	KUNIT_ASSERT_NOT_NULL(s->test, driver);
	return device_driver_attach(driver, &s->vdev->dev);
}

static void bind(struct sample *s)
{
	KUNIT_ASSERT_EQ(s->test, try_to_bind(s), 0);
	KUNIT_ASSERT_TRUE(s->test, is_bound(s));
}

static void plug_bound(struct sample *s)
{
	plug(s);
	bind(s);
}

static void unbind(struct sample *s)
{
	device_release_driver(&s->vdev->dev);
}

/* Suspends and resumes. */
static void suspend(struct sample *s)
{
#ifdef CONFIG_PM_SLEEP
	KUNIT_ASSERT_EQ(s->test, virtio_device_freeze(s->vdev), 0);
	KUNIT_ASSERT_EQ(s->test, virtio_device_restore(s->vdev), 0);
#else
	kunit_skip(s->test, "needs CONFIG_PM_SLEEP");
#endif
}

static void reset(struct sample *s)
{
	KUNIT_ASSERT_EQ(s->test, virtio_device_reset_prepare(s->vdev), 0);
	KUNIT_ASSERT_EQ(s->test, virtio_device_reset_done(s->vdev), 0);
}

static struct sample *prepare(struct kunit *test, const char *name,
			      const struct kunit_virtio_config *base,
			      u32 (*fn)(struct sample *s, struct kunit_virtio_buffer *buf))
{
	struct kunit_virtio_config config = *base;
	struct sample *s = kunit_kzalloc(test, sizeof(*s), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, s);
	s->test = test;
	s->name = name;
	s->answer = fn;
	s->claim = -1;
	INIT_LIST_HEAD(&s->held);
	config.ops = &sample_ops;
	config.priv = s;
	s->dev = kunit_virtio_alloc(test, &config);
	KUNIT_ASSERT_NOT_NULL(test, s->dev);
	s->vdev = kunit_virtio_device(s->dev);
	return s;
}

/* What both samples do without a device; @expect_data() tells that reads are as they should be. */

static void expect_enodev_without_a_device(struct sample *s,
					   void (*expect_data)(struct sample *s))
{
	KUNIT_EXPECT_EQ(s->test, read_ret(s, 0, 4096), -ENODEV);
	plug_bound(s);
	expect_data(s);
	kunit_virtio_unregister(s->dev);
	KUNIT_EXPECT_EQ(s->test, read_ret(s, 0, 4096), -ENODEV);
}

static void expect_enodev_for_readers_at_unbind(struct sample *s,
						void (*expect_data)(struct sample *s))
{
	struct reader *readers[3];

	for (int i = 0; i < ARRAY_SIZE(readers); i++)
		readers[i] = blocked_reader(s, 0, 4096);
	unbind(s);
	for (int i = 0; i < ARRAY_SIZE(readers); i++) {
		KUNIT_ASSERT_TRUE(s->test, returns(readers[i], PATIENCE));
		KUNIT_EXPECT_EQ(s->test, readers[i]->ret, -ENODEV);
	}
	KUNIT_EXPECT_EQ(s->test, read_ret(s, 0, 4096), -ENODEV);

	s->hold = false;
	bind(s);
	expect_data(s);
}

/* The entropy device */

#define RNG_BYTES	64

/* Each buffer gets bytes of its own: its number, from one on. */
static u32 rng_answer(struct sample *s, struct kunit_virtio_buffer *buf)
{
	u8 bytes[RNG_BYTES];

	memset(bytes, s->answered + 1, sizeof(bytes));
	return kunit_virtio_write(buf, 0, bytes, sizeof(bytes));
}

static const struct kunit_virtio_config rng_config = {
	.id = VIRTIO_ID_RNG,
	.queues = (const struct kunit_virtio_queue_config[]) {
		{ .size = RING, .in = 1 },
	},
	.num_queues = 1,
};

/* Makes an entropy device that is not plugged in yet. */
static struct sample *rng_device(struct kunit *test)
{
	struct sample *s = prepare(test, "rust_virtio_rng", &rng_config, rng_answer);

	s->file = open_node(test, "rust-virtio-rng");
	return s;
}

static struct sample *bound_rng(struct kunit *test)
{
	struct sample *s = rng_device(test);

	plug_bound(s);
	return s;
}

/* The device has none of the buffers that are filled before. */
static struct sample *silent_rng(struct kunit *test)
{
	struct sample *s = rng_device(test);

	s->hold = true;
	plug_bound(s);
	return s;
}

/* Returns the number of the buffer that was read; all of its bytes are alike. */
static u8 number_of(struct sample *s, struct reader *r)
{
	KUNIT_ASSERT_GT(s->test, r->ret, 0);
	KUNIT_EXPECT_PTR_EQ(s->test, memchr_inv(r->bytes, r->bytes[0], r->ret), NULL);
	KUNIT_EXPECT_PTR_EQ(s->test, memchr_inv(r->bytes + r->ret, 0, sizeof(r->bytes) - r->ret),
			    NULL);
	return r->bytes[0];
}

/* All is well: each byte of the device is read once at most. */
static void expect_random_bytes(struct sample *s)
{
	DECLARE_BITMAP(seen, 256) = {};

	for (int i = 0; i < 3 * RING; i++) {
		struct reader *r = read_at(s, 0, 4096);

		KUNIT_EXPECT_EQ(s->test, r->ret, RNG_BYTES);
		KUNIT_EXPECT_FALSE(s->test, test_and_set_bit(number_of(s, r), seen));
	}
}

static void rng_reads_what_the_device_has_written(struct kunit *test)
{
	expect_random_bytes(bound_rng(test));
}

static void rng_reads_as_much_as_is_wanted(struct kunit *test)
{
	struct sample *s = bound_rng(test);

	KUNIT_EXPECT_EQ(test, read_ret(s, 0, 0), 0);
	KUNIT_EXPECT_EQ(test, read_ret(s, 0, 1), 1);
	KUNIT_EXPECT_EQ(test, read_ret(s, 0, RNG_BYTES - 1), RNG_BYTES - 1);
	expect_random_bytes(s);
}

static void rng_ring_is_kept_full(struct kunit *test)
{
	struct sample *s = silent_rng(test);

	KUNIT_EXPECT_EQ(test, kunit_virtio_busy(s->dev, 0), RING);
	release(s);
	expect_random_bytes(s);
	hold(s);
	for (int i = 0; i < RING; i++)
		KUNIT_EXPECT_EQ(test, read_ret(s, 0, 1), 1);
	KUNIT_EXPECT_EQ(test, kunit_virtio_busy(s->dev, 0), RING);
}

static void rng_short_answers(struct kunit *test)
{
	struct sample *s = rng_device(test);

	s->claim = 10;
	plug_bound(s);
	for (int i = 0; i < 2 * RING; i++)
		KUNIT_EXPECT_EQ(test, read_ret(s, 0, 4096), 10);
}

static void rng_empty_answers(struct kunit *test)
{
	struct sample *s = rng_device(test);

	s->claim = 0;
	plug_bound(s);
	KUNIT_EXPECT_EQ(test, read_ret(s, 0, 4096), -EIO);
	claim(s, -1);
	for (int i = 0; i < RING; i++)
		read_at(s, 0, 4096);
	expect_random_bytes(s);
}

static void rng_answers_that_are_too_long(struct kunit *test)
{
	static const u32 lengths[] = { RNG_BYTES + 1, U32_MAX };

	for (int i = 0; i < ARRAY_SIZE(lengths); i++) {
		struct sample *s = rng_device(test);

		s->claim = lengths[i];
		plug_bound(s);
		for (int n = 0; n < 2 * RING; n++)
			KUNIT_EXPECT_EQ(test, read_ret(s, 0, 4096), -EIO);
		kunit_virtio_unregister(s->dev);
	}
}

/* What a device has not written is not what another reader got. */
static u32 rng_no_answer(struct sample *s, struct kunit_virtio_buffer *buf)
{
	return s->answered < RING ? rng_answer(s, buf) : RNG_BYTES;
}

static void rng_device_that_does_not_write(struct kunit *test)
{
	struct sample *s = rng_device(test);
	DECLARE_BITMAP(seen, 256) = {};

	s->answer = rng_no_answer;
	plug_bound(s);
	for (int i = 0; i < 3 * RING; i++) {
		u8 number = number_of(s, read_at(s, 0, 4096));

		KUNIT_EXPECT_FALSE(test, number && test_and_set_bit(number, seen));
	}
}

static void rng_slow_device(struct kunit *test)
{
	struct sample *s = silent_rng(test);
	struct reader *r = blocked_reader(s, 0, 4096);

	s->delay_ns = MOMENT * NSEC_PER_MSEC;
	release(s);
	KUNIT_ASSERT_TRUE(test, returns(r, PATIENCE));
	KUNIT_EXPECT_EQ(test, r->ret, RNG_BYTES);
}

static void rng_silent_device(struct kunit *test)
{
	struct sample *s = silent_rng(test);
	struct reader *killed = blocked_reader(s, 0, 4096);
	struct reader *patient = blocked_reader(s, 0, 4096);

	send_sig(SIGKILL, killed->task, 1);
	KUNIT_ASSERT_TRUE(test, returns(killed, PATIENCE));
	KUNIT_EXPECT_EQ(test, killed->ret, -EINTR);
	KUNIT_EXPECT_FALSE(test, returns(patient, MOMENT));

	release(s);
	KUNIT_ASSERT_TRUE(test, returns(patient, PATIENCE));
	KUNIT_EXPECT_EQ(test, patient->ret, RNG_BYTES);
	expect_random_bytes(s);
}

static void rng_many_readers(struct kunit *test)
{
	struct sample *s = silent_rng(test);
	struct reader *readers[4 * RING];
	DECLARE_BITMAP(seen, 256) = {};

	for (int i = 0; i < ARRAY_SIZE(readers); i++)
		readers[i] = start_reader(s, 0, 4096);
	KUNIT_EXPECT_FALSE(test, returns(readers[0], MOMENT));
	release(s);
	for (int i = 0; i < ARRAY_SIZE(readers); i++) {
		KUNIT_ASSERT_TRUE(test, returns(readers[i], PATIENCE));
		KUNIT_EXPECT_EQ(test, readers[i]->ret, RNG_BYTES);
		KUNIT_EXPECT_FALSE(test, test_and_set_bit(number_of(s, readers[i]), seen));
	}
}

static void rng_without_a_device(struct kunit *test)
{
	expect_enodev_without_a_device(rng_device(test), expect_random_bytes);
}

static void rng_unbound_while_readers_wait(struct kunit *test)
{
	expect_enodev_for_readers_at_unbind(silent_rng(test), expect_random_bytes);
}

static void rng_suspended_while_a_reader_waits(struct kunit *test)
{
	struct sample *s = silent_rng(test);
	struct reader *r = blocked_reader(s, 0, 4096);

	suspend(s);
	KUNIT_EXPECT_FALSE(test, returns(r, MOMENT));
	KUNIT_EXPECT_EQ(test, kunit_virtio_busy(s->dev, 0), RING);
	release(s);
	KUNIT_ASSERT_TRUE(test, returns(r, PATIENCE));
	KUNIT_EXPECT_EQ(test, r->ret, RNG_BYTES);
	expect_random_bytes(s);
}

static void rng_reset_while_a_reader_waits(struct kunit *test)
{
	struct sample *s = silent_rng(test);
	struct reader *r = blocked_reader(s, 0, 4096);

	for (int i = 0; i < 3; i++)
		reset(s);
	KUNIT_EXPECT_FALSE(test, returns(r, MOMENT));
	KUNIT_EXPECT_EQ(test, kunit_virtio_busy(s->dev, 0), RING);
	release(s);
	KUNIT_ASSERT_TRUE(test, returns(r, PATIENCE));
	KUNIT_EXPECT_EQ(test, r->ret, RNG_BYTES);
	expect_random_bytes(s);
}

static void rng_reset_with_filled_buffers(struct kunit *test)
{
	struct sample *s = bound_rng(test);

	for (int i = 0; i < 3; i++) {
		KUNIT_EXPECT_EQ(test, read_ret(s, 0, 1), 1);
		reset(s);
	}
	expect_random_bytes(s);
}

/* The ring is broken, so what the device has is lost until the driver is unbound. */
static void rng_device_that_lies_about_buffers(struct kunit *test)
{
	struct sample *s = silent_rng(test);
	struct reader *r;

	kunit_virtio_use_id(s->dev, 0, RING + 5);
	release(s);
	r = blocked_reader(s, 0, 4096);
	unbind(s);
	KUNIT_ASSERT_TRUE(test, returns(r, PATIENCE));
	KUNIT_EXPECT_EQ(test, r->ret, -ENODEV);
	bind(s);
	expect_random_bytes(s);
}

static void rng_callbacks_without_a_reason(struct kunit *test)
{
	struct sample *s = silent_rng(test);
	struct reader *r = blocked_reader(s, 0, 4096);

	for (int i = 0; i < 5; i++) {
		kunit_virtio_interrupt(s->dev, 0);
		KUNIT_EXPECT_FALSE(test, returns(r, 1));
	}
	kunit_virtio_set_irq(s->dev, KUNIT_VIRTIO_PROCESS);
	release(s);
	KUNIT_ASSERT_TRUE(test, returns(r, PATIENCE));
	expect_random_bytes(s);
}

static void rng_mappings_that_fail(struct kunit *test)
{
	struct sample *s = bound_rng(test);

	kunit_virtio_fail_map(s->dev, 2 * RING);
	for (int i = 0; i < RING; i++)
		KUNIT_EXPECT_EQ(test, read_ret(s, 0, 1), 1);
	kunit_virtio_fail_map(s->dev, 0);
	suspend(s);
	expect_random_bytes(s);
}

static void rng_probe_that_fails(struct kunit *test)
{
	struct sample *s = rng_device(test);

	plug(s);
	kunit_virtio_fail_find(s->dev, 1);
	KUNIT_EXPECT_NE(test, try_to_bind(s), 0);
	KUNIT_EXPECT_FALSE(test, is_bound(s));
	KUNIT_EXPECT_EQ(test, read_ret(s, 0, 1), -ENODEV);
	bind(s);
	expect_random_bytes(s);
}

static void rng_second_device(struct kunit *test)
{
	struct sample *s = bound_rng(test);
	struct sample *second = prepare(test, "rust_virtio_rng", &rng_config, rng_answer);

	plug(second);
	KUNIT_EXPECT_NE(test, try_to_bind(second), 0);
	KUNIT_EXPECT_FALSE(test, is_bound(second));
	expect_random_bytes(s);
	unbind(s);
	bind(second);
	KUNIT_EXPECT_EQ(test, read_ret(s, 0, 1), 1);
}

static struct kunit_case rng_cases[] = {
	KUNIT_CASE(rng_reads_what_the_device_has_written),
	KUNIT_CASE(rng_reads_as_much_as_is_wanted),
	KUNIT_CASE(rng_ring_is_kept_full),
	KUNIT_CASE(rng_short_answers),
	KUNIT_CASE(rng_empty_answers),
	KUNIT_CASE(rng_answers_that_are_too_long),
	KUNIT_CASE(rng_device_that_does_not_write),
	KUNIT_CASE(rng_slow_device),
	KUNIT_CASE(rng_silent_device),
	KUNIT_CASE(rng_many_readers),
	KUNIT_CASE(rng_without_a_device),
	KUNIT_CASE(rng_unbound_while_readers_wait),
	KUNIT_CASE(rng_suspended_while_a_reader_waits),
	KUNIT_CASE(rng_reset_while_a_reader_waits),
	KUNIT_CASE(rng_reset_with_filled_buffers),
	KUNIT_CASE(rng_device_that_lies_about_buffers),
	KUNIT_CASE(rng_callbacks_without_a_reason),
	KUNIT_CASE(rng_mappings_that_fail),
	KUNIT_CASE(rng_probe_that_fails),
	KUNIT_CASE(rng_second_device),
	{}
};

static struct kunit_suite rng_suite = {
	.name = "rust_virtio_rng",
	.test_cases = rng_cases,
};

/* The block device */

#define SECTOR		512
#define SECTORS		21
#define DISK_BYTES	(SECTORS * SECTOR)

/* What is on the disk: no two words are alike. */
static u8 disk_byte(loff_t pos)
{
	u32 word = pos / sizeof(word) * 2654435761u;

	return word >> (8 * (pos % sizeof(word)));
}

static u32 blk_complete(struct sample *s, struct kunit_virtio_buffer *buf, u8 status)
{
	kunit_virtio_write(buf, buf->in_len - 1, &status, sizeof(status));
	return status == VIRTIO_BLK_S_OK ? buf->in_len : 1;
}

static u32 blk_answer(struct sample *s, struct kunit_virtio_buffer *buf)
{
	struct virtio_blk_outhdr header = {};
	size_t len = buf->in_len - 1;
	u64 sector;

	if (kunit_virtio_read(buf, 0, &header, sizeof(header)) != sizeof(header) ||
	    buf->out_len != sizeof(header) || header.ioprio ||
	    le32_to_cpu((__force __le32)header.type) != VIRTIO_BLK_T_IN)
		return blk_complete(s, buf, VIRTIO_BLK_S_UNSUPP);

	sector = le64_to_cpu((__force __le64)header.sector);
	if (!len || len % SECTOR || sector >= SECTORS || len / SECTOR > SECTORS - sector)
		return blk_complete(s, buf, VIRTIO_BLK_S_IOERR);

	for (size_t i = 0; i < len; i++) {
		u8 byte = disk_byte(sector * SECTOR + i);

		kunit_virtio_write(buf, i, &byte, sizeof(byte));
	}
	return blk_complete(s, buf, VIRTIO_BLK_S_OK);
}

static const struct kunit_virtio_queue_config blk_queue = {
	.size = 4 * RING,
	.out = sizeof(struct virtio_blk_outhdr),
	.in = SECTOR + 1,
};

/* Makes a block device that is not plugged in yet. */
static struct sample *blk_of(struct kunit *test, u64 sectors)
{
	struct virtio_blk_config config = {
		.capacity = (__force __virtio64)cpu_to_le64(sectors),
	};
	struct kunit_virtio_config device = {
		.id = VIRTIO_ID_BLOCK,
		.config = &config,
		.config_len = sizeof(config),
		.queues = &blk_queue,
		.num_queues = 1,
	};
	struct sample *s = prepare(test, "rust_virtio_blk", &device, blk_answer);

	s->file = open_node(test, "rust-virtio-blk");
	return s;
}

static struct sample *blk_device(struct kunit *test)
{
	return blk_of(test, SECTORS);
}

static struct sample *bound_blk(struct kunit *test)
{
	struct sample *s = blk_device(test);

	plug_bound(s);
	return s;
}

/* Bound, and silent from now on. */
static struct sample *silent_blk(struct kunit *test)
{
	struct sample *s = bound_blk(test);

	hold(s);
	return s;
}

static void expect_disk_bytes(struct sample *s, struct reader *r, loff_t pos, size_t len)
{
	KUNIT_ASSERT_EQ_MSG(s->test, r->ret, len, "%zu bytes at %lld", r->len, pos);
	KUNIT_EXPECT_EQ(s->test, r->pos, pos + len);
	for (size_t i = 0; i < len; i++)
		KUNIT_ASSERT_EQ_MSG(s->test, r->bytes[i], disk_byte(pos + i), "at %lld",
				    pos + i);
	KUNIT_EXPECT_PTR_EQ(s->test, memchr_inv(r->bytes + len, 0, sizeof(r->bytes) - len), NULL);
}

/* All is well: the whole disk can be read. */
static void expect_disk(struct sample *s)
{
	loff_t pos = 0;

	while (pos < DISK_BYTES) {
		size_t len = min_t(size_t, DISK_BYTES - pos, 4096);

		expect_disk_bytes(s, read_at(s, pos, 4096), pos, len);
		pos += len;
	}
	KUNIT_EXPECT_EQ(s->test, read_ret(s, pos, 4096), 0);
}

static void blk_reads_the_disk(struct kunit *test)
{
	expect_disk(bound_blk(test));
}

static void blk_reads_from_anywhere(struct kunit *test)
{
	static const struct {
		loff_t pos;
		size_t len;
	} cases[] = {
		{ 0, 1 }, { 1, 1 }, { 511, 1 }, { 511, 2 }, { 512, 512 }, { 1, 512 },
		{ 1, 4095 }, { 1, 4096 }, { 511, 4096 }, { 513, 3583 }, { 513, 3584 },
		{ DISK_BYTES - 1, 1 }, { DISK_BYTES - 512, 512 }, { DISK_BYTES - 4096, 4096 },
	};
	struct sample *s = bound_blk(test);

	for (int i = 0; i < ARRAY_SIZE(cases); i++)
		expect_disk_bytes(s, read_at(s, cases[i].pos, cases[i].len), cases[i].pos,
				  cases[i].len);
	KUNIT_EXPECT_EQ(test, read_ret(s, 0, 0), 0);
}

static void blk_ends_at_the_capacity(struct kunit *test)
{
	struct sample *s = bound_blk(test);

	expect_disk_bytes(s, read_at(s, DISK_BYTES - 1, 4096), DISK_BYTES - 1, 1);
	expect_disk_bytes(s, read_at(s, DISK_BYTES - 513, 4096), DISK_BYTES - 513, 513);
	KUNIT_EXPECT_EQ(test, read_ret(s, DISK_BYTES, 1), 0);
	KUNIT_EXPECT_EQ(test, read_ret(s, DISK_BYTES + 1, 4096), 0);
	KUNIT_EXPECT_EQ(test, read_ret(s, LLONG_MAX - 4096, 4096), 0);
	KUNIT_EXPECT_EQ(test, read_ret(s, -1, 4096), -EINVAL);
}

/* The sizes of disks are the device's word as well. */
static void blk_odd_capacities(struct kunit *test)
{
	struct sample *s = blk_of(test, 0);

	plug_bound(s);
	KUNIT_EXPECT_EQ(test, s->answered, 0);
	KUNIT_EXPECT_EQ(test, read_ret(s, 0, 1), 0);
	kunit_virtio_unregister(s->dev);

	s = blk_of(test, U64_MAX);
	plug_bound(s);
	expect_disk_bytes(s, read_at(s, 0, 4096), 0, 4096);
	KUNIT_EXPECT_EQ(test, read_ret(s, LLONG_MAX - 4096, 4096), -EIO);
}

static u32 blk_fails(struct sample *s, struct kunit_virtio_buffer *buf)
{
	return blk_complete(s, buf, VIRTIO_BLK_S_IOERR);
}

static u32 blk_refuses(struct sample *s, struct kunit_virtio_buffer *buf)
{
	return blk_complete(s, buf, VIRTIO_BLK_S_UNSUPP);
}

/* No status, but success as far as the length tells. */
static u32 blk_odd_status(struct sample *s, struct kunit_virtio_buffer *buf)
{
	blk_complete(s, buf, 77);
	return buf->in_len;
}

static u32 blk_writes_nothing(struct sample *s, struct kunit_virtio_buffer *buf)
{
	return buf->in_len;
}

static void blk_bad_status(struct kunit *test)
{
	static u32 (*const answers[])(struct sample *s, struct kunit_virtio_buffer *buf) = {
		blk_fails, blk_refuses, blk_odd_status, blk_writes_nothing,
	};
	struct sample *s = bound_blk(test);

	for (int i = 0; i < ARRAY_SIZE(answers); i++) {
		s->answer = answers[i];
		KUNIT_EXPECT_EQ_MSG(test, read_ret(s, 0, 4096), -EIO, "answer %d", i);
	}
	s->answer = blk_answer;
	expect_disk(s);
}

static void blk_bad_used_lengths(struct kunit *test)
{
	static const u32 lengths[] = {
		0, 1, SECTOR, SECTOR + 2, 4 * SECTOR + 1, U32_MAX,
	};
	struct sample *s = bound_blk(test);

	for (int i = 0; i < ARRAY_SIZE(lengths); i++) {
		claim(s, lengths[i]);
		KUNIT_EXPECT_EQ_MSG(test, read_ret(s, 0, SECTOR), -EIO, "used %u", lengths[i]);
	}
	claim(s, -1);
	expect_disk(s);
}

static void blk_slow_device(struct kunit *test)
{
	struct sample *s = silent_blk(test);
	struct reader *r = blocked_reader(s, 0, 4096);

	s->delay_ns = MOMENT * NSEC_PER_MSEC;
	release(s);
	KUNIT_ASSERT_TRUE(test, returns(r, PATIENCE));
	expect_disk_bytes(s, r, 0, 4096);
}

static void blk_silent_device(struct kunit *test)
{
	struct sample *s = silent_blk(test);
	struct reader *killed = blocked_reader(s, 0, 4096);
	struct reader *patient = blocked_reader(s, SECTOR, 4096);

	send_sig(SIGKILL, killed->task, 1);
	KUNIT_ASSERT_TRUE(test, returns(killed, PATIENCE));
	KUNIT_EXPECT_EQ(test, killed->ret, -EINTR);
	KUNIT_EXPECT_FALSE(test, returns(patient, MOMENT));
	/* The device may still write to the memory of the one that was killed. */
	KUNIT_EXPECT_EQ(test, kunit_virtio_busy(s->dev, 0), 2);

	release(s);
	KUNIT_ASSERT_TRUE(test, returns(patient, PATIENCE));
	expect_disk_bytes(s, patient, SECTOR, 4096);
	expect_disk(s);
}

/* More than there is room for in the ring. */
static void blk_many_readers(struct kunit *test)
{
	struct sample *s = silent_blk(test);
	struct reader *readers[2 * SECTORS];

	for (int i = 0; i < ARRAY_SIZE(readers); i++)
		readers[i] = start_reader(s, i / 2 * SECTOR, SECTOR);
	KUNIT_EXPECT_FALSE(test, returns(readers[0], MOMENT));
	KUNIT_EXPECT_GT(test, kunit_virtio_busy(s->dev, 0), 1);
	release(s);
	for (int i = 0; i < ARRAY_SIZE(readers); i++) {
		KUNIT_ASSERT_TRUE(test, returns(readers[i], PATIENCE));
		expect_disk_bytes(s, readers[i], i / 2 * SECTOR, SECTOR);
	}
}

static void blk_many_that_are_killed(struct kunit *test)
{
	struct sample *s = silent_blk(test);
	struct reader *readers[2 * SECTORS];

	for (int i = 0; i < ARRAY_SIZE(readers); i++)
		readers[i] = start_reader(s, 0, SECTOR);
	KUNIT_EXPECT_FALSE(test, returns(readers[0], MOMENT));
	for (int i = 0; i < ARRAY_SIZE(readers); i++)
		send_sig(SIGKILL, readers[i]->task, 1);
	for (int i = 0; i < ARRAY_SIZE(readers); i++) {
		KUNIT_ASSERT_TRUE(test, returns(readers[i], PATIENCE));
		KUNIT_EXPECT_EQ(test, readers[i]->ret, -EINTR);
	}
	release(s);
	expect_disk(s);
}

static void blk_without_a_device(struct kunit *test)
{
	expect_enodev_without_a_device(blk_device(test), expect_disk);
}

static void blk_unbound_while_readers_wait(struct kunit *test)
{
	expect_enodev_for_readers_at_unbind(silent_blk(test), expect_disk);
}

/* The device has forgotten the request, so the reader must not wait any longer. */
static void blk_suspended_while_a_reader_waits(struct kunit *test)
{
	struct sample *s = silent_blk(test);
	struct reader *r = blocked_reader(s, 0, 4096);

	suspend(s);
	KUNIT_ASSERT_TRUE(test, returns(r, PATIENCE));
	KUNIT_EXPECT_LT(test, r->ret, 0);
	release(s);
	expect_disk(s);
}

static void blk_reset_while_a_reader_waits(struct kunit *test)
{
	struct sample *s = silent_blk(test);
	struct reader *r;

	for (int i = 0; i < 3; i++) {
		r = blocked_reader(s, 0, 4096);
		reset(s);
		KUNIT_ASSERT_TRUE(test, returns(r, PATIENCE));
		KUNIT_EXPECT_LT(test, r->ret, 0);
	}
	release(s);
	expect_disk(s);
}

static void blk_read_while_suspended(struct kunit *test)
{
	struct sample *s = bound_blk(test);
	struct reader *r;

	KUNIT_ASSERT_EQ(test, virtio_device_reset_prepare(s->vdev), 0);
	r = blocked_reader(s, SECTOR, SECTOR);
	KUNIT_ASSERT_EQ(test, virtio_device_reset_done(s->vdev), 0);
	KUNIT_ASSERT_TRUE(test, returns(r, PATIENCE));
	expect_disk_bytes(s, r, SECTOR, SECTOR);
}

/* The ring is broken: readers do not wait for an answer that cannot come. */
static void blk_device_that_lies_about_buffers(struct kunit *test)
{
	struct sample *s = silent_blk(test);
	struct reader *r = blocked_reader(s, 0, 4096);

	kunit_virtio_use_id(s->dev, 0, 4 * RING - 1);
	release(s);
	KUNIT_ASSERT_TRUE(test, returns(r, PATIENCE));
	KUNIT_EXPECT_LT(test, r->ret, 0);
	KUNIT_EXPECT_LT(test, read_ret(s, 0, 4096), 0);
	unbind(s);
	bind(s);
	expect_disk(s);
}

static void blk_mappings_that_fail(struct kunit *test)
{
	struct sample *s = bound_blk(test);

	for (int i = 1; i <= 3; i++) {
		kunit_virtio_fail_map(s->dev, i);
		KUNIT_EXPECT_EQ(test, read_ret(s, 0, 4096), -ENOMEM);
		kunit_virtio_fail_map(s->dev, 0);
		expect_disk(s);
	}
}

static void blk_probe_that_fails(struct kunit *test)
{
	struct sample *s = blk_device(test);

	plug(s);
	kunit_virtio_fail_find(s->dev, 1);
	KUNIT_EXPECT_NE(test, try_to_bind(s), 0);
	KUNIT_EXPECT_FALSE(test, is_bound(s));
	s->answer = blk_fails;
	KUNIT_EXPECT_NE(test, try_to_bind(s), 0);
	KUNIT_EXPECT_FALSE(test, is_bound(s));
	KUNIT_EXPECT_EQ(test, read_ret(s, 0, 1), -ENODEV);
	s->answer = blk_answer;
	bind(s);
	expect_disk(s);
}

static void blk_second_device(struct kunit *test)
{
	struct sample *s = bound_blk(test);
	struct sample *second = blk_device(test);

	plug(second);
	KUNIT_EXPECT_NE(test, try_to_bind(second), 0);
	KUNIT_EXPECT_FALSE(test, is_bound(second));
	expect_disk(s);
	unbind(s);
	bind(second);
	expect_disk(second);
}

static struct kunit_case blk_cases[] = {
	KUNIT_CASE(blk_reads_the_disk),
	KUNIT_CASE(blk_reads_from_anywhere),
	KUNIT_CASE(blk_ends_at_the_capacity),
	KUNIT_CASE(blk_odd_capacities),
	KUNIT_CASE(blk_bad_status),
	KUNIT_CASE(blk_bad_used_lengths),
	KUNIT_CASE(blk_slow_device),
	KUNIT_CASE(blk_silent_device),
	KUNIT_CASE(blk_many_readers),
	KUNIT_CASE(blk_many_that_are_killed),
	KUNIT_CASE(blk_without_a_device),
	KUNIT_CASE(blk_unbound_while_readers_wait),
	KUNIT_CASE(blk_suspended_while_a_reader_waits),
	KUNIT_CASE(blk_reset_while_a_reader_waits),
	KUNIT_CASE(blk_read_while_suspended),
	KUNIT_CASE(blk_device_that_lies_about_buffers),
	KUNIT_CASE(blk_mappings_that_fail),
	KUNIT_CASE(blk_probe_that_fails),
	KUNIT_CASE(blk_second_device),
	{}
};

static struct kunit_suite blk_suite = {
	.name = "rust_virtio_blk",
	.test_cases = blk_cases,
};

kunit_test_suites(&rng_suite, &blk_suite);

MODULE_DESCRIPTION("KUnit tests of the virtio samples");
MODULE_LICENSE("GPL");
