// SPDX-License-Identifier: GPL-2.0
/*
 * A hostile device
 *
 * It chooses the fault of an answer when it receives the message. Besides, it
 * acts on its own: from a thread, and from hard interrupts.
 */

#include <linux/array_size.h>
#include <linux/cleanup.h>
#include <linux/delay.h>
#include <linux/hrtimer.h>
#include <linux/jiffies.h>
#include <linux/virtio_config.h>

#include <kunit/resource.h>

#include "fuzz.h"

static bool can(struct fuzz *z, enum fuzz_trick trick)
{
	return z->tricks & BIT(trick);
}

/* Answers */

static u32 any_length(struct rnd_state *rnd)
{
	static const u32 lengths[] = { 0, 1, 2, 3, 255, 4096, S32_MAX, U32_MAX };

	return one_in(rnd, 8) ? prandom_u32_state(rnd) :
				lengths[below(rnd, ARRAY_SIZE(lengths))];
}

static u8 any_byte(struct rnd_state *rnd)
{
	return one_in(rnd, 2) ? below(rnd, 3) : below(rnd, 256);
}

static void spoil(struct fuzz *z, struct gpio_fault *fault)
{
	struct rnd_state *rnd = &z->answers;
	unsigned int trick = below(rnd, TRICK_DELAY + 1);

	if (!can(z, trick))
		return;

	switch (trick) {
	case TRICK_ERROR:
		fault->error = true;
		break;
	case TRICK_STATUS:
		fault->with |= WITH_STATUS;
		fault->status = any_byte(rnd);
		break;
	case TRICK_VALUE:
		fault->with |= WITH_VALUE;
		fault->value = any_byte(rnd);
		break;
	case TRICK_USED:
		fault->with |= WITH_USED;
		fault->used = any_length(rnd);
		break;
	case TRICK_SILENT:
		fault->silent = true;
		break;
	case TRICK_DROP:
		fault->drop = true;
		break;
	case TRICK_HOLD:
		fault->hold = true;
		break;
	case TRICK_DELAY:
		fault->delay_us = below(rnd, 1u << (1 + below(rnd, z->delay_shift)));
		break;
	}
}

/* Called by the model, with the lock of the device held. */
static struct gpio_fault mutate(struct gpio_model *g, u16 type, unsigned int line)
{
	struct fuzz *z = g->priv;
	struct gpio_fault fault = { };

	if (type == ARM) {
		if (z->storm) {
			z->storm--;
			fault.with = WITH_STATUS;
			fault.status = z->storm_status;
		}
		return fault;
	}

	if (below(&z->answers, 256) >= z->wrong)
		return fault;
	do {
		spoil(z, &fault);
	} while (one_in(&z->answers, 4));

	return fault;
}

/* Actions on its own, all of them possible in hard interrupts. */

static void raise_storm(struct fuzz *z, struct rnd_state *rnd)
{
	unsigned long flags = kunit_virtio_lock(z->f->g->dev);

	z->storm = 1u << below(rnd, 8);
	z->storm_status = any_byte(rnd);
	kunit_virtio_unlock(z->f->g->dev, flags);
}

static void change_levels(struct fuzz *z, struct rnd_state *rnd)
{
	unsigned int from = below(rnd, z->ngpio);

	for (unsigned int i = from; i < min(from + 16, z->ngpio); i++)
		gpio_model_level(z->f->g, i, one_in(rnd, 2));
}

static void choose_context(struct fuzz *z, struct rnd_state *rnd)
{
	enum kunit_virtio_irq irq = KUNIT_VIRTIO_HARDIRQ;

	if (can(z, TRICK_CONTEXT) && one_in(rnd, 2))
		irq = KUNIT_VIRTIO_PROCESS;
	if (can(z, TRICK_LOST) && one_in(rnd, 8))
		irq = KUNIT_VIRTIO_NONE;
	kunit_virtio_set_irq(z->f->g->dev, irq);
}

static void change_config(struct fuzz *z, struct rnd_state *rnd)
{
	struct virtio_gpio_config space;

	prandom_bytes_state(rnd, &space, sizeof(space));
	scoped_guard(raw_spinlock_irqsave, &z->config_lock) {
		if (z->config_is_free)
			kunit_virtio_set_config(z->f->g->dev, &space);
	}
	virtio_config_changed(z->f->vdev);
}

/* After that the driver cannot use the device any more. */
static void ruin(struct fuzz *z, struct rnd_state *rnd)
{
	struct kunit_virtio *dev = z->f->g->dev;
	unsigned int trick = TRICK_ID + below(rnd, TRICKS - TRICK_ID);
	unsigned int queue = z->f->g->config.no_irq ? REQUESTQ : below(rnd, 2);
	unsigned int size = queue == EVENTQ ? z->f->g->config.event_ring :
					      z->f->g->config.request_ring;

	if (!can(z, trick))
		return;

	switch (trick) {
	case TRICK_ID:
		/* In flight, used before, never added, or out of range. */
		kunit_virtio_use_id(dev, queue,
				    one_in(rnd, 4) ? (u16)prandom_u32_state(rnd) :
						     below(rnd, size));
		break;
	case TRICK_NOTIFY:
		kunit_virtio_fail_notify(dev, true);
		break;
	case TRICK_NEEDS_RESET:
		kunit_virtio_needs_reset(dev);
		break;
	case TRICK_BREAK:
		/* In a thread, as a transport does on surprise removal. */
		if (!in_hardirq())
			virtio_break_device(z->f->vdev);
		break;
	}
}

static void act(struct fuzz *z, struct rnd_state *rnd)
{
	switch (below(rnd, 16)) {
	case 0 ... 5:
		gpio_model_level(z->f->g, below(rnd, z->ngpio), one_in(rnd, 2));
		break;
	case 6:
		change_levels(z, rnd);
		break;
	case 7 ... 9:
		gpio_model_release_one(z->f->g, prandom_u32_state(rnd));
		break;
	case 10:
		if (can(z, TRICK_STORM))
			raise_storm(z, rnd);
		break;
	case 11:
		if (can(z, TRICK_SPURIOUS))
			kunit_virtio_interrupt(z->f->g->dev, below(rnd, 2));
		break;
	case 12:
		choose_context(z, rnd);
		break;
	case 13:
		if (can(z, TRICK_CONFIG) && one_in(rnd, 4))
			change_config(z, rnd);
		break;
	case 14:
		if (can(z, TRICK_MAP))
			kunit_virtio_fail_map(z->f->g->dev, below(rnd, 4));
		break;
	case 15:
		if (one_in(rnd, 16))
			ruin(z, rnd);
		break;
	}
}

/* Actors */

static enum hrtimer_restart timer_fn(struct hrtimer *timer)
{
	struct fuzz *z = container_of(timer, struct fuzz, timer);

	act(z, &z->timer_rnd);
	hrtimer_forward_now(timer, us_to_ktime(20u << below(&z->timer_rnd, 8)));
	return HRTIMER_RESTART;
}

/* Answers held messages, for callers without a timeout. */
static void get_round_to_it(struct fuzz *z, struct rnd_state *rnd)
{
	kunit_virtio_set_irq(z->f->g->dev, KUNIT_VIRTIO_HARDIRQ);
	gpio_model_release(z->f->g, one_in(rnd, 2));
	for (unsigned int i = 0; i < (z->f->g->config.no_irq ? 1 : 2); i++)
		kunit_virtio_interrupt(z->f->g->dev, i);
}

static int host_fn(struct job *job)
{
	struct fuzz *z = job->arg;
	struct rnd_state *rnd = &z->host_rnd;
	unsigned int seen = 0;
	unsigned long since = jiffies;

	while (!READ_ONCE(job->stop)) {
		unsigned int responses = fuzz_responses(z);

		if (responses != seen) {
			seen = responses;
			since = jiffies;
		} else if (time_after(jiffies, since + msecs_to_jiffies(z->patience_ms))) {
			get_round_to_it(z, rnd);
			since = jiffies;
		}

		act(z, rnd);
		if (one_in(rnd, 2))
			cond_resched();
		else
			fsleep(1 + below(rnd, 300));
	}

	get_round_to_it(z, rnd);
	return 0;
}

/* The configuration space */

/* Keeps the configuration constant while the driver reads it. */
void fuzz_config(struct fuzz *z, const struct virtio_gpio_config *space)
{
	guard(raw_spinlock_irqsave)(&z->config_lock);
	z->config_is_free = false;
	kunit_virtio_set_config(z->f->g->dev, space);
}

/* Lets the configuration change after the driver has read it. */
void fuzz_config_is_free(struct fuzz *z)
{
	guard(raw_spinlock_irqsave)(&z->config_lock);
	z->config_is_free = true;
}

/* Start and end */

void fuzz_device_init(struct fuzz *z)
{
	fuzz_rnd(&z->answers, z->seed, FUZZ_ANSWERS);
	fuzz_rnd(&z->host_rnd, z->seed, FUZZ_HOST);
	fuzz_rnd(&z->timer_rnd, z->seed, FUZZ_TIMER);
	raw_spin_lock_init(&z->config_lock);
	/*
	 * Like the interrupts of a transport: hard, unless the kernel forces those into threads.
	 * virtio_config_changed() takes a lock that may sleep on such a kernel.
	 */
	hrtimer_setup(&z->timer, timer_fn, CLOCK_MONOTONIC, HRTIMER_MODE_REL);
}

static void cancel_timer(void *data)
{
	struct fuzz *z = data;

	hrtimer_cancel(&z->timer);
}

/* Starts the faults, after the device was plugged in. */
void fuzz_device_start(struct fuzz *z)
{
	struct gpio_model *g = z->f->g;
	unsigned long flags = kunit_virtio_lock(g->dev);

	g->priv = z;
	g->mutate = mutate;
	g->lied = true;
	g->max_events = UINT_MAX;
	kunit_virtio_unlock(g->dev, flags);

	fuzz_config_is_free(z);
	KUNIT_ASSERT_EQ(z->f->test, 0,
			kunit_add_action_or_reset(z->f->test, cancel_timer, z));
	z->host = job_start(z->f, host_fn, z);
	hrtimer_start(&z->timer, us_to_ktime(1000), HRTIMER_MODE_REL);
}

/* Halves the rate of faults, if the driver cannot use the device. */
void fuzz_device_soften(struct fuzz *z)
{
	unsigned long flags = kunit_virtio_lock(z->f->g->dev);

	z->wrong /= 2;
	kunit_virtio_unlock(z->f->g->dev, flags);
	kunit_virtio_fail_notify(z->f->g->dev, false);
	kunit_virtio_fail_map(z->f->g->dev, 0);
}

/* Ends the faults. Their effects remain. */
void fuzz_device_stop(struct fuzz *z)
{
	unsigned long flags;

	hrtimer_cancel(&z->timer);
	WRITE_ONCE(z->host->stop, true);
	KUNIT_EXPECT_TRUE(z->f->test, job_wait(z->host, driver_patience()));

	flags = kunit_virtio_lock(z->f->g->dev);
	z->f->g->mutate = NULL;
	kunit_virtio_unlock(z->f->g->dev, flags);
	kunit_virtio_fail_notify(z->f->g->dev, false);
	kunit_virtio_fail_map(z->f->g->dev, 0);
	/* Without a driver it would wait for the queue of the next. */
	for (unsigned int queue = 0; queue < (z->f->g->config.no_irq ? 1 : 2); queue++)
		kunit_virtio_use_id(z->f->g->dev, queue, -1);
	kunit_virtio_set_irq(z->f->g->dev, KUNIT_VIRTIO_HARDIRQ);
}
