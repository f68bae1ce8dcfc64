// SPDX-License-Identifier: GPL-2.0
/*
 * Interrupts
 *
 * Names begin with the number of the bug in a driver:
 *
 *	A1	a line is armed although the device refused the type
 *	A2	a line without a type is armed
 *	A3	a line whose type changes keeps the old one
 *	A4	a buffer returned while a line is being enabled is added too early
 *	A6	a line that genirq disables as spurious stays enabled
 *	B1	buffers that return unused are added at once, in an endless loop
 *	B2	a buffer in flight when its line is enabled causes a warning
 *	B7	a slow line delays all others
 *	C2	interrupts for which the ring has no room are lost
 *	D4	edges between disable_irq() and enable_irq() are lost
 *	D5	enable_irq_wake() fails
 *	D6	the irq_chip is not immutable
 *	D7	disable_irq_nosync() sleeps in a handler
 *	D9	callbacks in process context are not supported
 *	D10	a line of which only the interrupt is requested is not made an input
 *	E2	one notification for each event
 *	E5	interrupts of the device stay enabled while events are handled
 */

#include <linux/delay.h>
#include <linux/iopoll.h>
#include <linux/irq.h>
#include <linux/irqdesc.h>

#include "fixture.h"
#include "shuffle.h"

/* Events */

static void rising_edges_are_counted(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user = irq_get(f, 0, IRQF_TRIGGER_RISING);

	for (int i = 1; i <= 20; i++) {
		gpio_model_level(f->g, 0, true);
		assert_soon(f, i + 1, "arm 0");
		gpio_model_level(f->g, 0, false);
	}
	assert_irqs(user, 20);
}

static void falling_edges_are_counted(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user = irq_get(f, 0, IRQF_TRIGGER_FALLING);

	for (int i = 1; i <= 20; i++) {
		gpio_model_level(f->g, 0, true);
		gpio_model_level(f->g, 0, false);
		assert_soon(f, i + 1, "arm 0");
	}
	assert_irqs(user, 20);
}

static void both_edges_are_counted(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user = irq_get(f, 0, IRQF_TRIGGER_RISING | IRQF_TRIGGER_FALLING);

	for (int i = 1; i <= 20; i++) {
		gpio_model_level(f->g, 0, i & 1);
		assert_soon(f, i + 1, "arm 0");
	}
	assert_irqs(user, 20);
}

static void threaded_handlers_run(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user = irq_get_threaded(f, 0, IRQF_TRIGGER_RISING);

	for (int i = 1; i <= 10; i++) {
		gpio_model_rise(f->g, 0);
		assert_irqs(user, i);
	}
}

static void lower(struct irq_user *user)
{
	gpio_model_level(user->f->g, user->line, false);
}

static void raise(struct irq_user *user)
{
	gpio_model_level(user->f->g, user->line, true);
}

static void high_level_fires_until_it_ends(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user = irq_get_threaded(f, 0, IRQF_TRIGGER_HIGH);

	user->in_handler = lower;
	for (int i = 1; i <= 5; i++) {
		gpio_model_level(f->g, 0, true);
		assert_irqs(user, i);
	}
}

static void low_level_fires_until_it_ends(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user = irq_user(f, 0);

	gpio_model_level(f->g, 0, true);
	user->in_handler = raise;
	KUNIT_ASSERT_EQ(test, irq_request(user, IRQF_TRIGGER_LOW), 0);
	for (int i = 1; i <= 5; i++) {
		gpio_model_level(f->g, 0, false);
		assert_irqs(user, i);
	}
}

static void lower_the_third_time(struct irq_user *user)
{
	if (atomic_read(&user->count) == 3)
		lower(user);
}

/* A level that lasts until the line is unmasked is another event. */
static void level_fires_again_while_it_lasts(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user = irq_get_threaded(f, 0, IRQF_TRIGGER_HIGH);

	user->in_handler = lower_the_third_time;
	gpio_model_level(f->g, 0, true);
	assert_irqs(user, 3);
}

static void other_types_are_refused(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user = irq_get(f, 0, IRQF_TRIGGER_RISING);

	KUNIT_EXPECT_LT(test, irq_set_irq_type(user->irq, IRQ_TYPE_LEVEL_HIGH |
					       IRQ_TYPE_EDGE_RISING), 0);
	gpio_model_rise(f->g, 0);
	assert_irqs(user, 1);
}

static void events_go_to_their_line(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *users[8];

	for (int i = 0; i < 8; i++)
		users[i] = irq_get(f, i, IRQF_TRIGGER_RISING);
	for (int i = 0; i < 8; i++) {
		for (int n = 1; n <= i; n++) {
			gpio_model_rise(f->g, i);
			assert_irqs(users[i], n);
		}
	}
	for (int i = 0; i < 8; i++)
		KUNIT_EXPECT_EQ(test, atomic_read(&users[i]->count), i);
}

static void edge_during_the_handler_is_kept(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user = irq_get_threaded(f, 0, IRQF_TRIGGER_RISING);

	/* The device has latched the second one before the line is unmasked. */
	gpio_model_rise(f->g, 0);
	gpio_model_rise(f->g, 0);
	assert_irqs(user, 2);
}

static void value_can_be_read_meanwhile(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct gpio_desc *desc = line_get(f, 0, GPIOD_IN);
	struct irq_user *user = irq_get(f, 0, IRQF_TRIGGER_RISING);

	gpio_model_rise(f->g, 0);
	KUNIT_EXPECT_EQ(test, gpiod_get_value_cansleep(desc), 1);
	assert_irqs(user, 1);
}

static void interrupt_can_be_requested_again(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user = irq_user(f, 0);

	for (int i = 1; i <= 10; i++) {
		KUNIT_ASSERT_EQ(test, irq_request(user, i & 1 ? IRQF_TRIGGER_RISING :
						  IRQF_TRIGGER_FALLING), 0);
		assert_soon(f, i, "ok type 0 [rf]*");
		gpio_model_level(f->g, 0, !(i & 1));
		gpio_model_level(f->g, 0, i & 1);
		assert_irqs(user, i);
		irq_put(user);
	}
}

static void no_event_after_it_was_freed(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user = irq_get(f, 0, IRQF_TRIGGER_RISING);

	irq_put(user);
	gpio_model_rise(f->g, 0);
	assert_irqs(user, 0);
}

/* A */

static void a1_refused_type_is_not_armed(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user = irq_user(f, 0);

	fault(f, .type = VIRTIO_GPIO_MSG_IRQ_TYPE, .line = 0, .error = true);
	irq_request(user, IRQF_TRIGGER_RISING);
	fsleep(20000);
	expect_count(f, 0, "arm 0");
}

static void a2_no_type_is_not_armed(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user = irq_user(f, 0);

	irq_request(user, 0);
	fsleep(20000);
	expect_count(f, 0, "arm 0");
}

static void a2_type_may_come_later(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user = irq_user(f, 0);

	KUNIT_ASSERT_EQ(test, irq_request(user, 0), 0);
	KUNIT_EXPECT_EQ(test, irq_set_irq_type(user->irq, IRQ_TYPE_EDGE_RISING), 0);
	assert_soon(f, 1, "ok type 0 rising");
	gpio_model_rise(f->g, 0);
	assert_irqs(user, 1);
}

static void a3_old_type_is_gone_after_a_change(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user = irq_get(f, 0, IRQF_TRIGGER_RISING);

	gpio_model_rise(f->g, 0);
	assert_irqs(user, 1);
	KUNIT_EXPECT_EQ(test, irq_set_irq_type(user->irq, IRQ_TYPE_EDGE_FALLING), 0);
	assert_soon(f, 1, "ok type 0 falling");
	gpio_model_level(f->g, 0, false);
	assert_irqs(user, 2);
	gpio_model_level(f->g, 0, true);
	assert_irqs(user, 2);
}

static int request_falling(struct job *job)
{
	return irq_request(job->arg, IRQF_TRIGGER_FALLING);
}

static void a4_old_buffer_returns_before_the_line_is_enabled(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user = irq_get(f, 0, IRQF_TRIGGER_RISING);
	struct job *job;

	f->g->invalid = INVALID_HELD;
	irq_put(user);
	assert_soon(f, 1, "ok type 0 none");

	gpio_model_mark(f->g);
	fault(f, .type = VIRTIO_GPIO_MSG_IRQ_TYPE, .line = 0, .hold = true);
	job = job_start(f, request_falling, user);
	/* Some drivers send this only after the device has returned the buffer. */
	wait_for_log(f, "type 0 falling", 1);
	gpio_model_return_invalid(f->g, 0);
	assert_soon(f, 1, "type 0 falling");
	fsleep(5000);
	expect_count(f, 0, "arm 0");

	gpio_model_heal(f->g);
	gpio_model_release(f->g, false);
	KUNIT_EXPECT_TRUE(test, job_wait(job, 2 * driver_patience()));
	gpio_model_level(f->g, 0, true);
	gpio_model_level(f->g, 0, false);
	assert_irqs(user, 1);
}

static void a4_old_buffer_returns_with_the_answer(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user = irq_user(f, 0);

	f->g->invalid = INVALID_BEFORE;
	for (int i = 1; i <= 20; i++) {
		KUNIT_ASSERT_EQ(test, irq_request(user, IRQF_TRIGGER_RISING), 0);
		gpio_model_rise(f->g, 0);
		assert_irqs(user, i);
		irq_put(user);
	}
}

static irqreturn_t not_mine(int irq, void *data)
{
	struct irq_user *user = data;

	atomic_inc(&user->count);
	return IRQ_NONE;
}

/* Pretends that the last 99900 interrupts of 100000 were not handled. */
static void age(struct irq_user *user)
{
	struct irq_desc *desc = irq_data_to_desc(irq_get_irq_data(user->irq));

	guard(raw_spinlock_irqsave)(&desc->lock);
	desc->irq_count = 99900;
	desc->irqs_unhandled = 99900;
	desc->last_unhandled = jiffies;
}

static void a6_unhandled_interrupt_is_disabled(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user = irq_user(f, 0);
	int seen;

	KUNIT_ASSERT_EQ(test, 0, request_irq(user->irq, not_mine, IRQF_TRIGGER_HIGH,
					     "kunit", user));
	user->requested = true;
	age(user);
	gpio_model_level(f->g, 0, true);
	/* genirq disables it after 100 more. */
	read_poll_timeout(atomic_read, seen, seen >= 100, USEC_PER_MSEC, 10 * USEC_PER_SEC, false,
			  &user->count);
	msleep(30);
	seen = atomic_read(&user->count);
	/* With forced threads one more may be pending. */
	KUNIT_EXPECT_GE(test, seen, 100);
	KUNIT_EXPECT_LE(test, seen, 102);
	KUNIT_EXPECT_NULL(test, gpio_model_line(f->g, 0).event);
	irq_put(user);
	assert_soon(f, 1, "type 0 none");
}

/* B */

static void b1_unused_buffers_are_no_storm(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user = irq_user(f, 0);

	/* The device returns each buffer at once, unused. */
	gpio_model_level(f->g, 0, true);
	fault(f, .type = EVENT, .line = 0, .with = WITH_STATUS,
	      .status = VIRTIO_GPIO_IRQ_STATUS_INVALID);
	irq_request(user, IRQF_TRIGGER_HIGH);
	msleep(100);
	KUNIT_EXPECT_LT_MSG(test, f->g->events, 300, "event buffers in 100 ms");
}

static void b1_line_recovers_from_unused_buffers(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user = irq_user(f, 0);

	user->in_handler = lower;
	gpio_model_level(f->g, 0, true);
	fault(f, .type = EVENT, .line = 0, .count = 20, .with = WITH_STATUS,
	      .status = VIRTIO_GPIO_IRQ_STATUS_INVALID);
	irq_request(user, IRQF_TRIGGER_HIGH);
	assert_soon(f, 1, "event 0 valid");
	assert_irqs(user, 1);
}

#define LONG_LEVEL	150

/* Events that were handled in hard interrupts before a task got to run. */
static unsigned int in_a_row;
static unsigned int most_in_a_row;
static struct task_struct *interrupted;
static unsigned long switches;

static void lower_after_a_long_time(struct irq_user *user)
{
	unsigned long now = current->nvcsw + current->nivcsw;

	/* Between two interrupts another task may have run. */
	if (!in_hardirq() || interrupted != current || switches != now)
		in_a_row = 0;
	in_a_row++;
	interrupted = current;
	switches = now;
	most_in_a_row = max(most_in_a_row, in_a_row);
	if (atomic_read(&user->count) >= LONG_LEVEL)
		lower(user);
	/* The next event arrives before this one was handled. */
	kunit_virtio_poll(user->f->g->dev, EVENTQ);
}

static void b1_events_without_end_leave_the_interrupt(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *users[2];
	unsigned long flags;

	in_a_row = 0;
	most_in_a_row = 0;
	for (int i = 0; i < 2; i++) {
		users[i] = irq_get(f, i, IRQF_TRIGGER_HIGH);
		users[i]->in_handler = lower_after_a_long_time;
	}

	/* From here on an event of one of the two is always pending. */
	local_irq_save(flags);
	for (int i = 0; i < 2; i++)
		gpio_model_level(f->g, i, true);
	local_irq_restore(flags);

	for (int i = 0; i < 2; i++)
		assert_irqs(users[i], LONG_LEVEL);
	KUNIT_EXPECT_LT(test, most_in_a_row, LONG_LEVEL);
}

/* Progress of a CPU-bound task in that time. */
static u64 compute(unsigned int ms)
{
	unsigned long end = jiffies + msecs_to_jiffies(ms);
	u64 steps = 0;

	while (time_before(jiffies, end)) {
		steps++;
		cpu_relax();
	}
	return steps;
}

/* While the level is high the device has another event at once. */
static void expect_half_of_the_processor(struct fixture *f, struct irq_user *user)
{
	unsigned int events = f->g->events;
	u64 quiet = 0, storm = 0;

	f->g->max_events = UINT_MAX;
	for (int i = 0; i < 10; i++) {
		gpio_model_level(f->g, user->line, false);
		msleep(40);
		quiet += compute(40);
		gpio_model_level(f->g, user->line, true);
		storm += compute(40);
		WRITE_ONCE(f->steps, f->steps + 1);
	}
	gpio_model_level(f->g, user->line, false);

	kunit_info(f->test, "%llu of %llu steps, %u events\n", storm, quiet,
		   f->g->events - events);
	/* Less than half, to allow for other load. */
	KUNIT_EXPECT_GE(f->test, storm * 100, quiet * 40);
	KUNIT_EXPECT_GT(f->test, f->g->events - events, 20);
}

static void b1_storm_of_a_level(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user = irq_get(f, 0, IRQF_TRIGGER_HIGH);

	expect_half_of_the_processor(f, user);
	msleep(40);
	atomic_set(&user->count, 0);
	user->in_handler = lower;
	gpio_model_level(f->g, 0, true);
	assert_irqs(user, 1);
}

static void rise_while_high(struct irq_user *user)
{
	if (gpio_model_line(user->f->g, user->line).level)
		gpio_model_rise(user->f->g, user->line);
}

static void b1_storm_of_edges(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user = irq_get(f, 0, IRQF_TRIGGER_RISING);

	user->in_handler = rise_while_high;
	expect_half_of_the_processor(f, user);
	msleep(40);
	user->in_handler = NULL;
	atomic_set(&user->count, 0);
	gpio_model_rise(f->g, 0);
	assert_irqs(user, 1);
}

/* Other lines are served, too. */
static void b1_storm_of_another_line(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user = irq_get(f, 0, IRQF_TRIGGER_RISING);

	f->g->max_events = UINT_MAX;
	irq_get(f, 1, IRQF_TRIGGER_HIGH);
	gpio_model_level(f->g, 1, true);
	for (int i = 1; i <= 5; i++) {
		msleep(40);
		gpio_model_rise(f->g, 0);
		assert_irqs(user, i);
	}
	gpio_model_level(f->g, 1, false);
}

static void b2_old_buffer_is_still_out(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user = irq_get(f, 0, IRQF_TRIGGER_RISING);

	f->g->invalid = INVALID_HELD;
	irq_put(user);
	assert_soon(f, 1, "ok type 0 none");
	KUNIT_EXPECT_EQ(test, irq_request(user, IRQF_TRIGGER_RISING), 0);
	gpio_model_return_invalid(f->g, 0);
	fsleep(2000);
	gpio_model_rise(f->g, 0);
	assert_irqs(user, 1);
}

static void b2_old_buffer_is_used_for_the_new_type(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user = irq_get(f, 0, IRQF_TRIGGER_RISING);

	f->g->invalid = INVALID_HELD;
	disable_irq(user->irq);
	enable_irq(user->irq);
	gpio_model_rise(f->g, 0);
	assert_irqs(user, 1);
	gpio_model_rise(f->g, 0);
	assert_irqs(user, 2);
}

static int request_rising(struct job *job)
{
	return irq_request(job->arg, IRQF_TRIGGER_RISING);
}

static void b7_slow_line_does_not_keep_others(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user = irq_get_threaded(f, 1, IRQF_TRIGGER_RISING);
	struct job *job;

	fault(f, .type = VIRTIO_GPIO_MSG_IRQ_TYPE, .line = 0, .hold = true);
	job = job_start(f, request_rising, irq_user(f, 0));
	assert_soon(f, 1, "type 0 rising");
	for (int i = 1; i <= 3; i++) {
		gpio_model_rise(f->g, 1);
		assert_irqs(user, i);
	}
	/* The driver still serves the other line. */
	KUNIT_EXPECT_FALSE(test, job_wait(job, 0));
	gpio_model_heal(f->g);
	gpio_model_release(f->g, false);
	KUNIT_EXPECT_TRUE(test, job_wait(job, 2 * driver_patience()));
}

/* The buffer of one line is tried again while the other line's type is not answered. */
static void b7_silent_line_does_not_delay_retries(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user = irq_user(f, 1);
	ktime_t start;

	fault(f, .type = VIRTIO_GPIO_MSG_IRQ_TYPE, .line = 0, .drop = true);
	irq_get(f, 0, IRQF_TRIGGER_RISING);
	/* More than are answered at once. */
	fault(f, .type = EVENT, .line = 1, .count = 7, .with = WITH_STATUS,
	      .status = VIRTIO_GPIO_IRQ_STATUS_INVALID);
	gpio_model_level(f->g, 1, true);
	user->in_handler = lower;
	start = ktime_get();
	KUNIT_ASSERT_EQ(test, irq_request(user, IRQF_TRIGGER_HIGH), 0);
	assert_irqs(user, 1);
	KUNIT_EXPECT_LT(test, ktime_ms_delta(ktime_get(), start), driver_patience() / 5);
}

/* C */

static void c2_more_interrupts_than_the_ring_has_room_for(struct kunit *test)
{
	struct fixture *f = plug_with(test, .ngpio = 16, .event_ring = 8);
	struct irq_user *users[16];

	for (int i = 0; i < 16; i++)
		users[i] = irq_get(f, i, IRQF_TRIGGER_RISING);
	for (int i = 0; i < 16; i++)
		gpio_model_rise(f->g, i);
	for (int i = 0; i < 16; i++)
		assert_irqs(users[i], 1);
}

static void c2_more_than_a_page_of_buffers(struct kunit *test)
{
	struct fixture *f = plug_with(test, .ngpio = 80, .request_ring = 256, .event_ring = 256);
	struct irq_user *users[80];

	for (int i = 0; i < 80; i++)
		users[i] = irq_get(f, i, IRQF_TRIGGER_RISING);
	assert_soon(f, 80, "arm *");
	for (int i = 0; i < 80; i++)
		gpio_model_rise(f->g, i);
	for (int i = 0; i < 80; i++)
		assert_irqs(users[i], 1);
}

/* Room for 32 events, or for 64 with indirect descriptors. */
#define CROWD		512
#define CROWD_RING	64
#define CROWD_BUSY	64

static struct {
	struct irq_user *users[CROWD];
	/* Number of idle lines that were served, and the last of them. */
	atomic_t served;
	unsigned int events;
	bool over;
} crowd;

static struct fixture *plug_crowd(struct kunit *test)
{
	struct fixture *f = plug_with(test, .ngpio = CROWD, .event_ring = CROWD_RING);

	f->g->max_events = 20000;
	for (int i = 0; i < CROWD; i++)
		crowd.users[i] = irq_get(f, i, IRQF_TRIGGER_RISING);
	return f;
}

static unsigned int crowd_total(void)
{
	unsigned int total = 0;

	for (int i = 0; i < CROWD; i++)
		total += atomic_read(&crowd.users[i]->count);
	return total;
}

static void c2_no_edge_of_many_lines_is_lost(struct kunit *test)
{
	struct fixture *f = plug_crowd(test);

	for (int round = 1; round <= 5; round++) {
		for (int i = 0; i < CROWD; i++)
			gpio_model_rise(f->g, i);
		for (int n = 0; n < 200 && crowd_total() < CROWD * round; n++)
			msleep(20);
		WRITE_ONCE(f->steps, f->steps + 1);
		for (int i = 0; i < CROWD; i++)
			KUNIT_ASSERT_EQ_MSG(test, atomic_read(&crowd.users[i]->count),
					    round, "line %d", i);
	}
}

static void rise_again(struct irq_user *user)
{
	if (!READ_ONCE(crowd.over))
		gpio_model_rise(user->f->g, user->line);
}

static void note_served(struct irq_user *user)
{
	if (atomic_inc_return(&crowd.served) == CROWD - CROWD_BUSY) {
		crowd.events = READ_ONCE(user->f->g->events);
		WRITE_ONCE(crowd.over, true);
	}
}

/* Some lines always have another edge; all others have to get a turn. */
static void c2_busy_lines_leave_others_their_turn(struct kunit *test)
{
	struct fixture *f = plug_crowd(test);
	unsigned int before = f->g->events;

	atomic_set(&crowd.served, 0);
	crowd.over = false;
	for (int i = 0; i < CROWD; i++)
		crowd.users[i]->in_handler = i < CROWD_BUSY ? rise_again : note_served;
	for (int i = 0; i < CROWD; i++)
		gpio_model_rise(f->g, i);
	for (int n = 0; n < 200 && !READ_ONCE(crowd.over); n++)
		msleep(20);

	KUNIT_EXPECT_TRUE(test, crowd.over);
	WRITE_ONCE(crowd.over, true);
	for (int i = CROWD_BUSY; i < CROWD; i++)
		KUNIT_EXPECT_EQ_MSG(test, atomic_read(&crowd.users[i]->count), 1,
				    "line %d", i);
	/* No line has had a third turn before each has had its first. */
	KUNIT_EXPECT_LE(test, crowd.events - before, CROWD + 2 * CROWD_BUSY);
}

static void c2_buffer_that_could_not_be_mapped_is_tried_again(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user = irq_get(f, 0, IRQF_TRIGGER_RISING);

	assert_soon(f, 1, "arm 0");
	/* More often than the driver retries within the interrupt. */
	kunit_virtio_fail_map(f->g->dev, 4);
	gpio_model_rise(f->g, 0);
	assert_irqs(user, 1);
	gpio_model_rise(f->g, 0);
	assert_irqs(user, 2);
}

/* D */

static void d4_edge_while_disabled_is_kept(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user = irq_get(f, 0, IRQF_TRIGGER_RISING);

	disable_irq(user->irq);
	gpio_model_rise(f->g, 0);
	assert_irqs(user, 0);
	enable_irq(user->irq);
	assert_irqs(user, 1);
}

static void d4_disabled_line_is_silent(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user = irq_get(f, 0, IRQF_TRIGGER_FALLING);

	disable_irq(user->irq);
	for (int i = 0; i < 10; i++)
		gpio_model_rise(f->g, 0);
	assert_irqs(user, 0);
	enable_irq(user->irq);
	/* The device latches one edge per line. */
	fsleep(2000);
	KUNIT_EXPECT_LE(test, atomic_read(&user->count), 2);
}

static void d5_can_wake_the_system(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user = irq_get(f, 0, IRQF_TRIGGER_RISING);
	int ret = enable_irq_wake(user->irq);

	KUNIT_EXPECT_EQ(test, ret, 0);
	if (!ret)
		KUNIT_EXPECT_EQ(test, disable_irq_wake(user->irq), 0);
}

static void d6_chip_is_immutable(struct kunit *test)
{
	struct fixture *f = plug(test);

	KUNIT_EXPECT_EQ(test, log_count(f, "*immutable*"), 0);
}

static void disable_in_handler(struct irq_user *user)
{
	disable_irq_nosync(user->irq);
}

static void d7_can_be_disabled_in_its_handler(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user = irq_get(f, 0, IRQF_TRIGGER_RISING);

	user->in_handler = disable_in_handler;
	gpio_model_rise(f->g, 0);
	assert_irqs(user, 1);
	gpio_model_rise(f->g, 0);
	assert_irqs(user, 1);
	user->in_handler = NULL;
	enable_irq(user->irq);
	assert_irqs(user, 2);
}

static void enable_atomically(struct irq_user *user)
{
	unsigned long flags;

	local_irq_save(flags);
	enable_irq(user->irq);
	local_irq_restore(flags);
}

static void d7_enabled_with_interrupts_off(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user = irq_get(f, 0, IRQF_TRIGGER_RISING);

	/* The event masks the line, so that it has to be unmasked. */
	disable_irq(user->irq);
	gpio_model_rise(f->g, 0);
	assert_irqs(user, 0);
	enable_atomically(user);
	assert_irqs(user, 1);
	assert_soon(f, 2, "arm 0");
	gpio_model_rise(f->g, 0);
	assert_irqs(user, 2);
}

static void d7_started_with_interrupts_off(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user = irq_user(f, 0);

	KUNIT_ASSERT_EQ(test, irq_request(user, IRQF_TRIGGER_RISING | IRQF_NO_AUTOEN), 0);
	expect_count(f, 0, "type 0 rising");
	enable_atomically(user);
	assert_soon(f, 1, "arm 0");
	gpio_model_rise(f->g, 0);
	assert_irqs(user, 1);
}

static void d9_callbacks_in_process_context(struct kunit *test)
{
	struct fixture *f = prepare(test, .ngpio = 8);
	struct irq_user *user;

	kunit_virtio_set_irq(f->g->dev, KUNIT_VIRTIO_PROCESS);
	plug_prepared(f);
	user = irq_get(f, 0, IRQF_TRIGGER_RISING);
	for (int i = 1; i <= 10; i++) {
		gpio_model_rise(f->g, 0);
		assert_irqs(user, i);
	}
}

static void d10_interrupt_only_line_is_an_input(struct kunit *test)
{
	struct fixture *f = plug_with(test, .strict = true);
	struct irq_user *user = irq_get(f, 0, IRQF_TRIGGER_RISING);

	EXPECT_LOG(f, "direction 0 in", "type 0 rising");
	gpio_model_rise(f->g, 0);
	assert_irqs(user, 1);
	irq_put(user);
	assert_soon(f, 1, "direction 0 none");
}

static void d10_input_stays_one_when_its_interrupt_is_freed(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct gpio_desc *desc = line_get(f, 0, GPIOD_IN);

	irq_put(irq_get(f, 0, IRQF_TRIGGER_RISING));
	fsleep(5000);
	expect_count(f, 0, "direction 0 none");
	gpio_model_level(f->g, 0, true);
	KUNIT_EXPECT_EQ(test, gpiod_get_value_cansleep(desc), 1);
}

/* E */

/* A forced thread runs the handler of a line after the interrupt has returned. */
static bool are_forced_threads(const struct irq_user *user)
{
	return IS_ENABLED(CONFIG_PREEMPT_RT) || READ_ONCE(user->in_task);
}

static void e2_one_notification_for_many_events(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *users[8];
	unsigned int before;
	unsigned long flags;

	for (int i = 0; i < 8; i++)
		users[i] = irq_get(f, i, IRQF_TRIGGER_RISING);
	before = kunit_virtio_notifications(f->g->dev, EVENTQ);

	/* The device interrupts after all events are in the ring. */
	local_irq_save(flags);
	for (int i = 0; i < 8; i++)
		gpio_model_rise(f->g, i);
	local_irq_restore(flags);

	for (int i = 0; i < 8; i++)
		assert_irqs(users[i], 1);
	assert_soon(f, 16, "arm *");
	KUNIT_EXPECT_LE(test, kunit_virtio_notifications(f->g->dev, EVENTQ) - before,
			are_forced_threads(users[0]) ? 7 : 2);
}

/* Number of lines with an edge at the same time. */
#define BURST	32

static void burst(struct kunit *test,
		  struct irq_user *(*get)(struct fixture *f, unsigned int line,
					  unsigned long flags),
		  unsigned int most)
{
	struct fixture *f = plug_with(test, .ngpio = BURST);
	struct irq_user *users[BURST];
	unsigned int before;
	unsigned long flags;

	for (int i = 0; i < BURST; i++)
		users[i] = get(f, i, IRQF_TRIGGER_RISING);

	for (int round = 1; round <= 3; round++) {
		before = kunit_virtio_notifications(f->g->dev, EVENTQ);
		local_irq_save(flags);
		for (int i = 0; i < BURST; i++)
			gpio_model_rise(f->g, i);
		local_irq_restore(flags);

		for (int i = 0; i < BURST; i++)
			assert_irqs(users[i], round);
		assert_soon(f, (round + 1) * BURST, "arm *");
		if (get == irq_get && are_forced_threads(users[0]))
			most = BURST;
		KUNIT_EXPECT_LE(test, kunit_virtio_notifications(f->g->dev, EVENTQ) - before,
				IS_ENABLED(CONFIG_PREEMPT_RT) ? BURST : most);
	}
}

static void e2_burst_is_armed_again_at_once(struct kunit *test)
{
	burst(test, irq_get, 2);
}

static void e2_burst_for_threads_is_armed_again_at_once(struct kunit *test)
{
	/* On another processor a task may notify for the lines that are done first. */
	burst(test, irq_get_threaded, num_online_cpus() > 1 ? BURST / 2 : 2);
}

static void raise_next(struct irq_user *user)
{
	if (user->line < 7)
		gpio_model_level(user->f->g, user->line + 1, true);
}

static void e5_no_interrupts_while_events_are_handled(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *users[8];
	unsigned int before;

	for (int i = 0; i < 8; i++) {
		users[i] = irq_get(f, i, IRQF_TRIGGER_RISING);
		users[i]->in_handler = raise_next;
	}
	before = kunit_virtio_interrupts(f->g->dev, EVENTQ);
	gpio_model_rise(f->g, 0);
	for (int i = 0; i < 8; i++)
		assert_irqs(users[i], 1);
	KUNIT_EXPECT_LE(test, kunit_virtio_interrupts(f->g->dev, EVENTQ) - before,
			are_forced_threads(users[0]) ? 8 : 1);
}

static struct kunit_case cases[] = {
	KUNIT_CASE(rising_edges_are_counted),
	KUNIT_CASE(falling_edges_are_counted),
	KUNIT_CASE(both_edges_are_counted),
	KUNIT_CASE(threaded_handlers_run),
	KUNIT_CASE(high_level_fires_until_it_ends),
	KUNIT_CASE(low_level_fires_until_it_ends),
	KUNIT_CASE(level_fires_again_while_it_lasts),
	KUNIT_CASE(other_types_are_refused),
	KUNIT_CASE(events_go_to_their_line),
	KUNIT_CASE(edge_during_the_handler_is_kept),
	KUNIT_CASE(value_can_be_read_meanwhile),
	KUNIT_CASE(interrupt_can_be_requested_again),
	KUNIT_CASE(no_event_after_it_was_freed),
	KUNIT_CASE(a1_refused_type_is_not_armed),
	KUNIT_CASE(a2_no_type_is_not_armed),
	KUNIT_CASE(a2_type_may_come_later),
	KUNIT_CASE(a3_old_type_is_gone_after_a_change),
	KUNIT_CASE(a4_old_buffer_returns_before_the_line_is_enabled),
	KUNIT_CASE(a4_old_buffer_returns_with_the_answer),
	KUNIT_CASE(a6_unhandled_interrupt_is_disabled),
	KUNIT_CASE(b1_unused_buffers_are_no_storm),
	KUNIT_CASE(b1_line_recovers_from_unused_buffers),
	KUNIT_CASE_SLOW(b1_events_without_end_leave_the_interrupt),
	KUNIT_CASE_SLOW(b1_storm_of_a_level),
	KUNIT_CASE_SLOW(b1_storm_of_edges),
	KUNIT_CASE_SLOW(b1_storm_of_another_line),
	KUNIT_CASE(b2_old_buffer_is_still_out),
	KUNIT_CASE(b2_old_buffer_is_used_for_the_new_type),
	KUNIT_CASE(b7_slow_line_does_not_keep_others),
	KUNIT_CASE(b7_silent_line_does_not_delay_retries),
	KUNIT_CASE(c2_more_interrupts_than_the_ring_has_room_for),
	KUNIT_CASE(c2_more_than_a_page_of_buffers),
	KUNIT_CASE(c2_no_edge_of_many_lines_is_lost),
	KUNIT_CASE(c2_busy_lines_leave_others_their_turn),
	KUNIT_CASE(c2_buffer_that_could_not_be_mapped_is_tried_again),
	KUNIT_CASE(d4_edge_while_disabled_is_kept),
	KUNIT_CASE(d4_disabled_line_is_silent),
	KUNIT_CASE(d5_can_wake_the_system),
	KUNIT_CASE(d6_chip_is_immutable),
	KUNIT_CASE(d7_can_be_disabled_in_its_handler),
	KUNIT_CASE(d7_enabled_with_interrupts_off),
	KUNIT_CASE(d7_started_with_interrupts_off),
	KUNIT_CASE(d9_callbacks_in_process_context),
	KUNIT_CASE(d10_interrupt_only_line_is_an_input),
	KUNIT_CASE(d10_input_stays_one_when_its_interrupt_is_freed),
	KUNIT_CASE(e2_one_notification_for_many_events),
	KUNIT_CASE(e2_burst_is_armed_again_at_once),
	KUNIT_CASE(e2_burst_for_threads_is_armed_again_at_once),
	KUNIT_CASE(e5_no_interrupts_while_events_are_handled),
	{ }
};

static struct kunit_suite gpio_virtio_irq_suite = {
	.name		= "gpio_virtio_irq",
	.suite_init	= shuffle_cases,
	.init		= fixture_init,
	.test_cases	= cases,
};

kunit_test_suite(gpio_virtio_irq_suite);
