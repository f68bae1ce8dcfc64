/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A device that does what it likes, and consumers at work
 *
 * All that is random comes from the number of a seed. Each who decides on
 * something has a generator of its own, so that its decisions do not depend on
 * how the others get on: with the same number it decides the same.
 */
#ifndef _GPIO_VIRTIO_FUZZ_H
#define _GPIO_VIRTIO_FUZZ_H

#include <linux/atomic.h>
#include <linux/bits.h>
#include <linux/hrtimer_types.h>
#include <linux/ktime.h>
#include <linux/prandom.h>
#include <linux/rwsem.h>
#include <linux/spinlock_types.h>

#include "fixture.h"

#define FUZZ_USERS	5
#define FUZZ_USER_LINES	6

/**
 * enum fuzz_trick - what a device may be up to
 * @TRICK_ERROR: refuses messages
 * @TRICK_STATUS: answers with any status
 * @TRICK_VALUE: answers with any value
 * @TRICK_USED: answers with any used length
 * @TRICK_SILENT: does not write its answers
 * @TRICK_DROP: does not act on messages, and answers late or never
 * @TRICK_HOLD: acts on messages, and answers late or never
 * @TRICK_DELAY: answers after a while
 * @TRICK_STORM: returns event buffers as soon as it gets them
 * @TRICK_SPURIOUS: interrupts for no reason
 * @TRICK_CONTEXT: calls back from process context, too
 * @TRICK_LOST: loses interrupts
 * @TRICK_CONFIG: changes its configuration, and says so
 * @TRICK_MAP: memory cannot be mapped
 * @TRICK_ID: returns buffers that it does not have, or that do not exist
 * @TRICK_NOTIFY: cannot be notified
 * @TRICK_NEEDS_RESET: needs a reset
 * @TRICK_BREAK: is gone
 * @TRICKS: number of tricks
 */
enum fuzz_trick {
	TRICK_ERROR,
	TRICK_STATUS,
	TRICK_VALUE,
	TRICK_USED,
	TRICK_SILENT,
	TRICK_DROP,
	TRICK_HOLD,
	TRICK_DELAY,
	TRICK_STORM,
	TRICK_SPURIOUS,
	TRICK_CONTEXT,
	TRICK_LOST,
	TRICK_CONFIG,
	TRICK_MAP,
	TRICK_ID,
	TRICK_NOTIFY,
	TRICK_NEEDS_RESET,
	TRICK_BREAK,
	TRICKS
};

/* A line in the hands of a consumer. */
struct fuzz_line {
	struct gpio_desc *desc;
	bool is_output;
	/* The interrupt, 0 if it is not in use, and its line. */
	int irq;
	struct gpio_desc *irq_desc;
	atomic_t disabled;
	/* Of the handler. */
	struct rnd_state rnd;
};

/* A consumer. */
struct fuzz_user {
	struct fuzz *z;
	struct job *job;
	struct rnd_state rnd;
	struct fuzz_line lines[FUZZ_USER_LINES];
	/* The longest that an operation has taken. */
	unsigned int slowest_ms;
};

/**
 * struct fuzz - one seed
 * @f: its device
 * @seed: its number
 * @ngpio: number of lines
 * @tricks: what the device may be up to, one bit each
 * @wrong: how many of 256 answers are wrong
 * @delay_shift: binary logarithm of the longest delay in microseconds
 * @patience_ms: time after which the device answers all that it has held back
 * @chip: the chip of @f stays what it is while this is held
 * @flags: no line is freed while this is held
 * @users: the consumers
 */
struct fuzz {
	struct fixture *f;
	unsigned int seed;
	unsigned int ngpio;
	unsigned long tricks;
	unsigned int wrong;
	unsigned int delay_shift;
	unsigned int patience_ms;
	struct rw_semaphore chip;
	struct rw_semaphore flags;
	struct fuzz_user users[FUZZ_USERS];

	/* private to the device: */
	struct rnd_state answers;
	unsigned int storm;
	u8 storm_status;
	struct job *host;
	struct rnd_state host_rnd;
	struct hrtimer timer;
	struct rnd_state timer_rnd;
	raw_spinlock_t config_lock;
	bool config_is_free;
};

/* Who has a generator of random numbers. */
enum fuzz_who {
	FUZZ_PLAN,
	FUZZ_LIFE,
	FUZZ_ANSWERS,
	FUZZ_HOST,
	FUZZ_TIMER,
	FUZZ_USER,
	/* As many as there are lines of consumers. */
	FUZZ_HANDLER = FUZZ_USER + FUZZ_USERS,
};

void fuzz_rnd(struct rnd_state *rnd, unsigned int seed, unsigned int who);

/* Any number below @n. */
static inline unsigned int below(struct rnd_state *rnd, unsigned int n)
{
	return prandom_u32_state(rnd) % n;
}

static inline bool one_in(struct rnd_state *rnd, unsigned int n)
{
	return !below(rnd, n);
}

unsigned int fuzz_responses(struct fuzz *z);
void fuzz_end_step(struct fuzz *z, const char *step, ktime_t start);

void fuzz_device_init(struct fuzz *z);
void fuzz_device_start(struct fuzz *z);
void fuzz_device_soften(struct fuzz *z);
void fuzz_device_stop(struct fuzz *z);
void fuzz_config(struct fuzz *z, const struct virtio_gpio_config *space);
void fuzz_config_is_free(struct fuzz *z);

void fuzz_users_init(struct fuzz *z);
void fuzz_users_start(struct fuzz *z);
void fuzz_users_stop(struct fuzz *z);
void fuzz_users_free_irqs(struct fuzz *z);
void fuzz_users_forget_irqs(struct fuzz *z);

#endif /* _GPIO_VIRTIO_FUZZ_H */
