// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests of the virtio samples
 *
 * A test plugs a device in, and looks at what the sample makes of it: reads
 * from its node in /dev, and what it logs. How the device answers is up to the
 * test.
 */

#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/err.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/kmsg_dump.h>
#include <linux/kthread.h>
#include <linux/limits.h>
#include <linux/mount.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/virtio.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>

#include <kunit/resource.h>
#include <kunit/test.h>
#include <kunit/virtio.h>

/* Buffers that fit into the ring of a device, if each has one segment. */
#define RING		8

/* Time in milliseconds after which a thread that should have returned hangs. */
#define PATIENCE	10000

/* Time in milliseconds that a thread gets to block. */
#define MOMENT		20

/* A device, and how it answers. */
struct sample {
	struct kunit *test;
	struct kunit_virtio *dev;
	struct virtio_device *vdev;
	/* The sample, and where its node is, if it has one. */
	struct device_driver *driver;
	struct vfsmount *devtmpfs;

	/* Fills the buffer, and returns how many bytes it has written. */
	u32 (*answer)(struct sample *s, struct kunit_virtio_buffer *buf);
	/* Buffers are held until release(). */
	bool hold;
	struct list_head held;
	u64 delay_ns;
	/* What the device claims to have written, unless it is negative. */
	s64 claim;
	unsigned int answered;
	/* The first message in the log that is of interest. */
	u64 log;
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

/* Waits until the device has so many buffers. */
static void expect_held(struct sample *s, unsigned int count)
{
	for (int i = 0; i < PATIENCE && kunit_virtio_busy(s->dev, 0) < count; i++)
		fsleep(USEC_PER_MSEC);
	KUNIT_ASSERT_GE(s->test, kunit_virtio_busy(s->dev, 0), count);
}

/* Threads, which are killed by the end of the test at the latest */

struct thread {
	struct sample *s;
	struct task_struct *task;
	/* Signals are ignored before. */
	struct completion started;
	struct completion done;
	ssize_t (*fn)(struct thread *t);
	ssize_t ret;
	/* What a reader wants, and gets. */
	size_t len;
	u8 bytes[256];
};

static int thread_fn(void *data)
{
	struct thread *t = data;

	allow_signal(SIGKILL);
	complete(&t->started);
	t->ret = t->fn(t);
	complete_all(&t->done);
	return 0;
}

static bool returns(struct thread *t, unsigned int ms)
{
	return wait_for_completion_timeout(&t->done, msecs_to_jiffies(ms));
}

static void end_thread(void *data)
{
	struct thread *t = data;

	send_sig(SIGKILL, t->task, 1);
	if (!returns(t, PATIENCE)) {
		/* It is left behind, along with what it uses. */
		KUNIT_FAIL(t->s->test, "a thread hangs");
		return;
	}
	kthread_stop_put(t->task);
	kfree(t);
}

static struct thread *start(struct sample *s, ssize_t (*fn)(struct thread *t), size_t len)
{
	struct thread *t = kzalloc_obj(*t);

	KUNIT_ASSERT_NOT_NULL(s->test, t);
	t->s = s;
	t->fn = fn;
	t->len = min(len, sizeof(t->bytes));
	init_completion(&t->started);
	init_completion(&t->done);
	t->task = kthread_create(thread_fn, t, "virtio-sample");
	if (IS_ERR(t->task)) {
		kfree(t);
		KUNIT_FAIL_AND_ABORT(s->test, "no thread");
	}
	get_task_struct(t->task);
	KUNIT_ASSERT_EQ(s->test, kunit_add_action_or_reset(s->test, end_thread, t), 0);
	wake_up_process(t->task);
	wait_for_completion(&t->started);
	return t;
}

static void expect_blocked(struct thread *t)
{
	KUNIT_ASSERT_FALSE_MSG(t->s->test, returns(t, MOMENT), "the thread did not wait");
}

/* Returns what the thread does, and aborts the test if it hangs. */
static ssize_t result_of(struct thread *t)
{
	KUNIT_ASSERT_TRUE_MSG(t->s->test, returns(t, PATIENCE), "the thread hangs");
	return t->ret;
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
static ssize_t attach(struct thread *t)
{
	return device_driver_attach(t->s->driver, &t->s->vdev->dev);
}

static void expect_bind_fails(struct sample *s, int err)
{
	KUNIT_EXPECT_EQ(s->test, result_of(start(s, attach, 0)), err);
	KUNIT_EXPECT_FALSE(s->test, is_bound(s));
}

static void bind(struct sample *s)
{
	KUNIT_ASSERT_EQ(s->test, result_of(start(s, attach, 0)), 0);
	KUNIT_ASSERT_TRUE(s->test, is_bound(s));
}

static void unbind(struct sample *s)
{
	device_release_driver(&s->vdev->dev);
}

/* Suspends and resumes. */
static int suspend(struct sample *s)
{
#ifdef CONFIG_PM_SLEEP
	KUNIT_ASSERT_EQ(s->test, virtio_device_freeze(s->vdev), 0);
	return virtio_device_restore(s->vdev);
#else
	kunit_skip(s->test, "needs CONFIG_PM_SLEEP");
#endif
}

static int reset(struct sample *s)
{
	KUNIT_ASSERT_EQ(s->test, virtio_device_reset_prepare(s->vdev), 0);
	return virtio_device_reset_done(s->vdev);
}

static struct sample *prepare(struct kunit *test, const char *driver,
			      const struct kunit_virtio_config *base,
			      u32 (*fn)(struct sample *s, struct kunit_virtio_buffer *buf))
{
	struct kunit_virtio_config config = *base;
	struct sample *s = kunit_kzalloc(test, sizeof(*s), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, s);
	s->test = test;
	s->answer = fn;
	s->claim = -1;
	INIT_LIST_HEAD(&s->held);
	config.ops = &sample_ops;
	config.priv = s;
	s->dev = kunit_virtio_alloc(test, &config);
	KUNIT_ASSERT_NOT_NULL(test, s->dev);
	s->vdev = kunit_virtio_device(s->dev);
	plug(s);
	s->driver = driver_find(driver, s->vdev->dev.bus);
	KUNIT_ASSERT_NOT_NULL(test, s->driver);
	return s;
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
		{ .size = RING, .in = RNG_BYTES },
	},
	.num_queues = 1,
};

static void put_mount(void *mnt)
{
	kern_unmount(mnt);
}

/* Makes an entropy device that no driver is bound to. */
static struct sample *unbound_rng(struct kunit *test)
{
	struct sample *s = prepare(test, "rust_virtio_rng", &rng_config, rng_answer);
	struct file_system_type *type = get_fs_type("devtmpfs");

	KUNIT_ASSERT_NOT_NULL(test, type);
	s->devtmpfs = kern_mount(type);
	put_filesystem(type);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, s->devtmpfs);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, put_mount, s->devtmpfs), 0);
	return s;
}

static struct sample *bound_rng(struct kunit *test)
{
	struct sample *s = unbound_rng(test);

	bind(s);
	return s;
}

static struct file *open_node(struct sample *s)
{
	return file_open_root_mnt(s->devtmpfs, "rust-virtio-rng", O_RDONLY, 0);
}

static ssize_t read_node(struct thread *t)
{
	struct file *file = open_node(t->s);
	loff_t pos = 0;
	ssize_t ret;

	if (IS_ERR(file))
		return PTR_ERR(file);
	ret = kernel_read(file, t->bytes, t->len, &pos);
	__fput_sync(file);
	return ret;
}

static struct thread *start_reader(struct sample *s)
{
	return start(s, read_node, RNG_BYTES + 1);
}

/* Starts another reader, when the device answers none. */
static struct thread *waiting_reader(struct sample *s)
{
	unsigned int held = kunit_virtio_busy(s->dev, 0);
	struct thread *reader = start_reader(s);

	expect_held(s, held + 1);
	return reader;
}

static ssize_t read_ret(struct sample *s, size_t len)
{
	return result_of(start(s, read_node, len));
}

/* Returns the number of the buffer that was read; all of its bytes are alike. */
static u8 number_of(struct thread *t)
{
	KUNIT_EXPECT_EQ(t->s->test, result_of(t), RNG_BYTES);
	KUNIT_EXPECT_PTR_EQ(t->s->test, memchr_inv(t->bytes, t->bytes[0], RNG_BYTES), NULL);
	KUNIT_EXPECT_EQ(t->s->test, t->bytes[RNG_BYTES], 0);
	return t->bytes[0];
}

/* All is well: each byte of the device is read once at most. */
static void expect_random_bytes(struct sample *s)
{
	DECLARE_BITMAP(seen, 256) = {};

	for (int i = 0; i < 3 * RING; i++)
		KUNIT_EXPECT_FALSE(s->test, test_and_set_bit(number_of(start_reader(s)), seen));
}

static void rng_reads_what_the_device_has_written(struct kunit *test)
{
	expect_random_bytes(bound_rng(test));
}

static void rng_reads_as_much_as_is_wanted(struct kunit *test)
{
	struct sample *s = bound_rng(test);

	KUNIT_EXPECT_EQ(test, read_ret(s, 0), 0);
	KUNIT_EXPECT_EQ(test, s->answered, 0);
	KUNIT_EXPECT_EQ(test, read_ret(s, 1), 1);
	KUNIT_EXPECT_EQ(test, read_ret(s, RNG_BYTES - 1), RNG_BYTES - 1);
	expect_random_bytes(s);
}

static void rng_used_lengths(struct kunit *test)
{
	static const struct {
		u32 claim;
		int ret;
	} cases[] = {
		{ 1, 1 }, { RNG_BYTES - 1, RNG_BYTES - 1 },
		{ 0, -EIO }, { RNG_BYTES + 1, -EPROTO }, { U32_MAX, -EPROTO },
	};
	struct sample *s = bound_rng(test);

	for (int i = 0; i < ARRAY_SIZE(cases); i++) {
		claim(s, cases[i].claim);
		KUNIT_EXPECT_EQ_MSG(test, read_ret(s, RNG_BYTES), cases[i].ret, "used %u",
				    cases[i].claim);
	}
	claim(s, -1);
	expect_random_bytes(s);
}

/* What a device has not written is not what another reader got. */
static u32 rng_no_answer(struct sample *s, struct kunit_virtio_buffer *buf)
{
	return RNG_BYTES;
}

static void rng_device_that_does_not_write(struct kunit *test)
{
	struct sample *s = bound_rng(test);

	expect_random_bytes(s);
	s->answer = rng_no_answer;
	for (int i = 0; i < RING; i++)
		KUNIT_EXPECT_EQ(test, number_of(start_reader(s)), 0);
}

static void rng_slow_device(struct kunit *test)
{
	struct sample *s = bound_rng(test);
	struct thread *reader;

	hold(s);
	reader = waiting_reader(s);
	s->delay_ns = MOMENT * NSEC_PER_MSEC;
	release(s);
	KUNIT_EXPECT_EQ(test, number_of(reader), 1);
}

static void rng_silent_device(struct kunit *test)
{
	struct sample *s = bound_rng(test);
	struct thread *killed, *patient;

	hold(s);
	killed = waiting_reader(s);
	patient = waiting_reader(s);
	send_sig(SIGKILL, killed->task, 1);
	KUNIT_EXPECT_EQ(test, result_of(killed), -EINTR);
	expect_blocked(patient);
	/* The device may still write to the memory of the one that was killed. */
	KUNIT_EXPECT_EQ(test, kunit_virtio_busy(s->dev, 0), 2);

	release(s);
	number_of(patient);
	expect_random_bytes(s);
}

/* More than there is room for in the ring. */
static void rng_many_readers(struct kunit *test)
{
	struct sample *s = bound_rng(test);
	struct thread *readers[4 * RING];
	DECLARE_BITMAP(seen, 256) = {};

	hold(s);
	for (int i = 0; i < ARRAY_SIZE(readers); i++)
		readers[i] = start_reader(s);
	expect_held(s, 2);
	release(s);
	for (int i = 0; i < ARRAY_SIZE(readers); i++)
		KUNIT_EXPECT_FALSE(test, test_and_set_bit(number_of(readers[i]), seen));
}

static void rng_many_that_are_killed(struct kunit *test)
{
	struct sample *s = bound_rng(test);
	struct thread *readers[4 * RING];

	hold(s);
	for (int i = 0; i < ARRAY_SIZE(readers); i++)
		readers[i] = start_reader(s);
	expect_held(s, 2);
	for (int i = 0; i < ARRAY_SIZE(readers); i++)
		send_sig(SIGKILL, readers[i]->task, 1);
	for (int i = 0; i < ARRAY_SIZE(readers); i++)
		KUNIT_EXPECT_EQ(test, result_of(readers[i]), -EINTR);
	release(s);
	expect_random_bytes(s);
}

static void rng_without_a_device(struct kunit *test)
{
	struct sample *s = unbound_rng(test);
	struct file *file;
	loff_t pos = 0;
	u8 byte;

	KUNIT_EXPECT_EQ(test, read_ret(s, 1), -ENODEV);
	bind(s);
	expect_random_bytes(s);
	file = open_node(s);
	KUNIT_ASSERT_FALSE(test, IS_ERR(file));
	kunit_virtio_unregister(s->dev);
	KUNIT_EXPECT_EQ(test, read_ret(s, 1), -ENODEV);
	KUNIT_EXPECT_EQ(test, kernel_read(file, &byte, 1, &pos), -ENODEV);
	__fput_sync(file);
}

static void rng_unbound_while_readers_wait(struct kunit *test)
{
	struct sample *s = bound_rng(test);
	struct thread *readers[3];

	hold(s);
	for (int i = 0; i < ARRAY_SIZE(readers); i++)
		readers[i] = waiting_reader(s);
	unbind(s);
	for (int i = 0; i < ARRAY_SIZE(readers); i++)
		KUNIT_EXPECT_EQ(test, result_of(readers[i]), -ENODEV);
	release(s);
	bind(s);
	expect_random_bytes(s);
}

/* The device has forgotten the request, so the reader must not wait any longer. */
static void expect_no_wait_after(struct kunit *test, int (*pause)(struct sample *s))
{
	struct sample *s = bound_rng(test);

	for (int i = 0; i < 3; i++) {
		struct thread *reader;

		hold(s);
		reader = waiting_reader(s);
		KUNIT_EXPECT_EQ(test, pause(s), 0);
		KUNIT_EXPECT_LT(test, result_of(reader), 0);
		release(s);
		expect_random_bytes(s);
	}
}

static void rng_suspended_while_a_reader_waits(struct kunit *test)
{
	expect_no_wait_after(test, suspend);
}

static void rng_reset_while_a_reader_waits(struct kunit *test)
{
	expect_no_wait_after(test, reset);
}

static void rng_read_during_a_reset(struct kunit *test)
{
	struct sample *s = bound_rng(test);
	struct thread *reader;

	KUNIT_ASSERT_EQ(test, virtio_device_reset_prepare(s->vdev), 0);
	reader = start_reader(s);
	expect_blocked(reader);
	KUNIT_ASSERT_EQ(test, virtio_device_reset_done(s->vdev), 0);
	KUNIT_EXPECT_EQ(test, number_of(reader), 1);
}

/* The ring is broken: readers do not wait for an answer that cannot come. */
static void rng_device_that_lies_about_buffers(struct kunit *test)
{
	struct sample *s = bound_rng(test);
	struct thread *reader;

	hold(s);
	reader = waiting_reader(s);
	kunit_virtio_use_id(s->dev, 0, RING - 1);
	release(s);
	KUNIT_EXPECT_LT(test, result_of(reader), 0);
	KUNIT_EXPECT_LT(test, read_ret(s, 1), 0);
	unbind(s);
	bind(s);
	expect_random_bytes(s);
}

static void rng_callbacks_without_a_reason(struct kunit *test)
{
	struct sample *s = bound_rng(test);
	struct thread *reader;

	hold(s);
	reader = waiting_reader(s);
	for (int i = 0; i < 5; i++) {
		kunit_virtio_interrupt(s->dev, 0);
		KUNIT_EXPECT_FALSE(test, returns(reader, 1));
	}
	kunit_virtio_set_irq(s->dev, KUNIT_VIRTIO_PROCESS);
	release(s);
	number_of(reader);
	expect_random_bytes(s);
}

static void rng_mappings_that_fail(struct kunit *test)
{
	struct sample *s = bound_rng(test);

	kunit_virtio_fail_map(s->dev, 1);
	KUNIT_EXPECT_EQ(test, read_ret(s, 1), -ENOMEM);
	kunit_virtio_fail_map(s->dev, 0);
	expect_random_bytes(s);
}

static void rng_probe_that_fails(struct kunit *test)
{
	struct sample *s = unbound_rng(test);

	kunit_virtio_fail_find(s->dev, 1);
	KUNIT_EXPECT_NE(test, result_of(start(s, attach, 0)), 0);
	KUNIT_EXPECT_FALSE(test, is_bound(s));
	KUNIT_EXPECT_EQ(test, read_ret(s, 1), -ENODEV);
	bind(s);
	expect_random_bytes(s);
}

static void rng_second_device(struct kunit *test)
{
	struct sample *s = bound_rng(test);
	struct sample *second = unbound_rng(test);

	expect_bind_fails(second, -EBUSY);
	expect_random_bytes(s);
	unbind(s);
	bind(second);
	expect_random_bytes(second);
}

static struct kunit_case rng_cases[] = {
	KUNIT_CASE(rng_reads_what_the_device_has_written),
	KUNIT_CASE(rng_reads_as_much_as_is_wanted),
	KUNIT_CASE(rng_used_lengths),
	KUNIT_CASE(rng_device_that_does_not_write),
	KUNIT_CASE(rng_slow_device),
	KUNIT_CASE(rng_silent_device),
	KUNIT_CASE(rng_many_readers),
	KUNIT_CASE(rng_many_that_are_killed),
	KUNIT_CASE(rng_without_a_device),
	KUNIT_CASE(rng_unbound_while_readers_wait),
	KUNIT_CASE(rng_suspended_while_a_reader_waits),
	KUNIT_CASE(rng_reset_while_a_reader_waits),
	KUNIT_CASE(rng_read_during_a_reset),
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
	u64 sector;

	if (kunit_virtio_read(buf, 0, &header, sizeof(header)) != sizeof(header) ||
	    buf->out_len != sizeof(header) || header.ioprio ||
	    le32_to_cpu((__force __le32)header.type) != VIRTIO_BLK_T_IN)
		return blk_complete(s, buf, VIRTIO_BLK_S_UNSUPP);

	sector = le64_to_cpu((__force __le64)header.sector);
	if (sector >= SECTORS || buf->in_len != SECTOR + 1)
		return blk_complete(s, buf, VIRTIO_BLK_S_IOERR);

	for (size_t i = 0; i < SECTOR; i++) {
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

/* Makes a block device that no driver is bound to. */
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

	return prepare(test, "rust_virtio_blk", &device, blk_answer);
}

static struct sample *unbound_blk(struct kunit *test)
{
	return blk_of(test, SECTORS);
}

/* Tells whether this was logged since the last call. */
static bool logged(struct sample *s, const char *text)
{
	struct kmsg_dump_iter iter;
	bool found = false;
	char line[160];
	size_t len;

	kmsg_dump_rewind(&iter);
	iter.cur_seq = s->log;
	s->log = iter.next_seq;
	while (!found && kmsg_dump_get_line(&iter, false, line, sizeof(line) - 1, &len)) {
		line[len] = '\0';
		found = strstr(line, text);
	}
	return found;
}

/* All is well: the driver tells what the last bytes of the last sector are. */
static void expect_disk(struct sample *s, u64 sectors)
{
	loff_t end = sectors * SECTOR;
	char text[80];

	snprintf(text, sizeof(text), "sector %llu ends with [%02x, %02x, %02x, %02x]", sectors - 1,
		 disk_byte(end - 4), disk_byte(end - 3), disk_byte(end - 2), disk_byte(end - 1));
	KUNIT_EXPECT_TRUE_MSG(s->test, logged(s, text), "not in the log: %s", text);
}

static void expect_to_bind(struct sample *s)
{
	logged(s, "");
	bind(s);
	expect_disk(s, SECTORS);
	unbind(s);
}

static void blk_tells_what_is_on_the_disk(struct kunit *test)
{
	struct sample *s = unbound_blk(test);

	expect_to_bind(s);
	KUNIT_EXPECT_EQ(test, s->answered, 2);
}

/* The sizes of disks are the device's word as well. */
static void blk_odd_capacities(struct kunit *test)
{
	struct sample *s = blk_of(test, 0);

	bind(s);
	KUNIT_EXPECT_EQ(test, s->answered, 0);
	KUNIT_EXPECT_TRUE(test, logged(s, " 0 sectors"));

	s = blk_of(test, 1);
	bind(s);
	expect_disk(s, 1);

	expect_bind_fails(blk_of(test, SECTORS + 1), -EIO);
	expect_bind_fails(blk_of(test, U64_MAX), -EIO);
}

static u32 blk_fails(struct sample *s, struct kunit_virtio_buffer *buf)
{
	return blk_complete(s, buf, VIRTIO_BLK_S_IOERR);
}

/* No success, though the length says that it is. */
static u32 blk_refuses(struct sample *s, struct kunit_virtio_buffer *buf)
{
	blk_complete(s, buf, VIRTIO_BLK_S_UNSUPP);
	return buf->in_len;
}

static u32 blk_writes_nothing(struct sample *s, struct kunit_virtio_buffer *buf)
{
	return buf->in_len;
}

static void blk_bad_status(struct kunit *test)
{
	static u32 (*const answers[])(struct sample *s, struct kunit_virtio_buffer *buf) = {
		blk_fails, blk_refuses, blk_writes_nothing,
	};
	struct sample *s = unbound_blk(test);

	for (int i = 0; i < ARRAY_SIZE(answers); i++) {
		s->answer = answers[i];
		expect_bind_fails(s, -EIO);
	}
	s->answer = blk_answer;
	expect_to_bind(s);
}

static void blk_bad_used_lengths(struct kunit *test)
{
	static const struct {
		u32 claim;
		int err;
	} cases[] = {
		{ 0, -EIO }, { 1, -EIO }, { SECTOR, -EIO }, { SECTOR + 2, -EPROTO },
		{ U32_MAX, -EPROTO },
	};
	struct sample *s = unbound_blk(test);

	for (int i = 0; i < ARRAY_SIZE(cases); i++) {
		claim(s, cases[i].claim);
		expect_bind_fails(s, cases[i].err);
	}
	claim(s, -1);
	expect_to_bind(s);
}

static void blk_slow_device(struct kunit *test)
{
	struct sample *s = unbound_blk(test);

	s->delay_ns = MOMENT * NSEC_PER_MSEC;
	expect_to_bind(s);
}

static void blk_silent_device(struct kunit *test)
{
	struct sample *s = unbound_blk(test);
	struct thread *binding;

	hold(s);
	binding = start(s, attach, 0);
	expect_held(s, 1);
	send_sig(SIGKILL, binding->task, 1);
	KUNIT_EXPECT_EQ(test, result_of(binding), -EINTR);
	KUNIT_EXPECT_FALSE(test, is_bound(s));

	/* As transports do with a device that is unplugged. */
	binding = start(s, attach, 0);
	expect_held(s, 1);
	virtio_break_device(s->vdev);
	KUNIT_EXPECT_EQ(test, result_of(binding), -ENODEV);
	KUNIT_EXPECT_FALSE(test, is_bound(s));

	release(s);
	expect_to_bind(s);
}

static void expect_disk_after(struct kunit *test, int (*pause)(struct sample *s))
{
	struct sample *s = unbound_blk(test);

	bind(s);
	for (int i = 0; i < 3; i++) {
		logged(s, "");
		KUNIT_EXPECT_EQ(test, pause(s), 0);
		expect_disk(s, SECTORS);
	}

	s->answer = blk_fails;
	KUNIT_EXPECT_EQ(test, pause(s), -EIO);
	s->answer = blk_answer;
	unbind(s);
	expect_to_bind(s);
}

static void blk_suspend(struct kunit *test)
{
	expect_disk_after(test, suspend);
}

static void blk_reset(struct kunit *test)
{
	expect_disk_after(test, reset);
}

static void blk_device_that_lies_about_buffers(struct kunit *test)
{
	struct sample *s = unbound_blk(test);

	kunit_virtio_use_id(s->dev, 0, 4 * RING - 1);
	expect_bind_fails(s, -ENODEV);
	expect_to_bind(s);
}

static void blk_mappings_that_fail(struct kunit *test)
{
	struct sample *s = unbound_blk(test);

	for (int i = 1; i <= 3; i++) {
		kunit_virtio_fail_map(s->dev, i);
		expect_bind_fails(s, -ENOMEM);
		kunit_virtio_fail_map(s->dev, 0);
	}
	expect_to_bind(s);
}

static struct kunit_case blk_cases[] = {
	KUNIT_CASE(blk_tells_what_is_on_the_disk),
	KUNIT_CASE(blk_odd_capacities),
	KUNIT_CASE(blk_bad_status),
	KUNIT_CASE(blk_bad_used_lengths),
	KUNIT_CASE(blk_slow_device),
	KUNIT_CASE(blk_silent_device),
	KUNIT_CASE(blk_suspend),
	KUNIT_CASE(blk_reset),
	KUNIT_CASE(blk_device_that_lies_about_buffers),
	KUNIT_CASE(blk_mappings_that_fail),
	{}
};

static struct kunit_suite blk_suite = {
	.name = "rust_virtio_blk",
	.test_cases = blk_cases,
};

kunit_test_suites(&rng_suite, &blk_suite);

MODULE_DESCRIPTION("KUnit tests of the virtio samples");
MODULE_LICENSE("GPL");
