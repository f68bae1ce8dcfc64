// SPDX-License-Identifier: GPL-2.0
/*
 * Hostile devices at random
 *
 * Each seed determines a device: its number of lines, the sizes of its rings,
 * its features, and its faults. While consumers use it, it is bound and unbound,
 * suspended and reset. At the end it follows the specification, or is replaced
 * by a device that does, and lines and interrupts have to work.
 *
 * The same seed makes the same decisions, but not with the same timing, so that
 * to reproduce a race may take several runs.
 */

#include <linux/atomic.h>
#include <linux/delay.h>
#include <linux/jiffies.h>
#include <linux/ktime.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/virtio_config.h>
#include <uapi/linux/virtio_ring.h>

#include "fuzz.h"
#include "shuffle.h"

static unsigned int fuzz_seed = 1;
module_param(fuzz_seed, uint, 0444);
MODULE_PARM_DESC(fuzz_seed, "Number of the first seed");

static unsigned int fuzz_seeds = 2;
module_param(fuzz_seeds, uint, 0444);
MODULE_PARM_DESC(fuzz_seeds, "Number of seeds");

static unsigned int fuzz_wanted = 1000;
module_param_named(fuzz_responses, fuzz_wanted, uint, 0444);
MODULE_PARM_DESC(fuzz_responses, "Number of responses of the device of each seed");

/* Time after which a seed with fewer responses ends. */
#define MAX_TIME	(20 * HZ)

/* Time without a response after which the device counts as dead. */
#define DEAD_TIME	(HZ / 20)

/* Number of log lines allowed for each start of the driver with a device. */
#define LOG_LINES	10

static atomic_t total_seeds;
static atomic64_t total_responses;

/* End of the hostile part of a seed. */
enum ending {
	END_REBIND,
	END_RESET,
	END_SUSPEND,
	END_REPLUG,
	ENDINGS
};

/* State of a running seed. */
struct life {
	struct fuzz *z;
	struct rnd_state rnd;
	/* Number of starts of the driver. */
	unsigned int starts;
	/* No further step after a shutdown. */
	bool is_over;
};

/* Mixes the bits, so that similar seeds give different sequences. */
void fuzz_rnd(struct rnd_state *rnd, unsigned int seed, unsigned int who)
{
	prandom_seed_state(rnd, (((u64)seed << 32) + who) * 0x9e3779b97f4a7c15ull);
	for (int i = 0; i < 16; i++)
		prandom_u32_state(rnd);
}

unsigned int fuzz_responses(struct fuzz *z)
{
	struct kunit_virtio *dev = z->f->g->dev;
	unsigned int responses = kunit_virtio_completed(dev, REQUESTQ);

	if (!z->f->g->config.no_irq)
		responses += kunit_virtio_completed(dev, EVENTQ);
	return responses;
}

/* Plan */

static void plan_names(struct kunit *test, struct rnd_state *rnd,
		       struct gpio_model_config *config)
{
	static const u32 claims[] = { 1, 4096, (4 << 20) - 1, 4 << 20, S32_MAX, U32_MAX };
	unsigned int size = 1 + below(rnd, 8 * config->ngpio);
	char *names;

	if (one_in(rnd, 4))
		return;

	names = kunit_kzalloc(test, size, GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, names);
	if (one_in(rnd, 2)) {
		/* Names, some of them duplicates, the last one not terminated. */
		for (unsigned int i = 0; i < size; i++)
			names[i] = one_in(rnd, 6) ? 0 : 'a' + below(rnd, 26);
	} else {
		prandom_bytes_state(rnd, names, size);
	}
	config->names = names;
	config->names_size = size;
	if (one_in(rnd, 4))
		config->claim_size = claims[below(rnd, ARRAY_SIZE(claims))];
}

static struct gpio_model_config plan_device(struct kunit *test, struct rnd_state *rnd)
{
	struct gpio_model_config config = {
		.ngpio		= 1 + below(rnd, 1u << below(rnd, 8)),
		.no_irq		= one_in(rnd, 8),
		.request_ring	= 2u << below(rnd, 8),
		.event_ring	= 2u << below(rnd, 8),
		.strict		= one_in(rnd, 4),
	};

	if (one_in(rnd, 2))
		config.ring_features |= BIT_ULL(VIRTIO_RING_F_EVENT_IDX);
	if (one_in(rnd, 2))
		config.ring_features |= BIT_ULL(VIRTIO_RING_F_INDIRECT_DESC);
	plan_names(test, rnd, &config);
	return config;
}

static struct fuzz *plan(struct kunit *test, unsigned int seed)
{
	struct fuzz *z = kunit_kzalloc(test, sizeof(*z), GFP_KERNEL);
	struct gpio_model_config config;
	struct rnd_state rnd;

	KUNIT_ASSERT_NOT_NULL(test, z);
	fuzz_rnd(&rnd, seed, FUZZ_PLAN);
	z->seed = seed;
	z->tricks = prandom_u32_state(&rnd) & GENMASK(TRICKS - 1, 0);
	z->wrong = 1u << below(&rnd, 9);
	z->delay_shift = 1 + below(&rnd, 17);
	z->patience_ms = 5u << below(&rnd, 6);

	config = plan_device(test, &rnd);
	z->ngpio = config.ngpio;
	kunit_info(test,
		   "gpio_virtio_kunit.fuzz_seed=%u gpio_virtio_kunit.fuzz_responses=%u: %u lines, rings of %u and %u, features %#llx, names of %u bytes, tricks %#lx in %u of 256\n",
		   seed, fuzz_wanted, z->ngpio, config.request_ring,
		   config.no_irq ? 0 : config.event_ring, config.ring_features,
		   config.claim_size ?: config.names_size, z->tricks, z->wrong);

	z->f = prepare_config(test, &config);
	z->f->g->invalid = below(&rnd, 3);
	fuzz_users_init(z);
	fuzz_device_init(z);
	return z;
}

/* Life */

/* Each step has to terminate, whatever the device does, after a few timeouts. */
void fuzz_end_step(struct fuzz *z, const char *step, ktime_t start)
{
	s64 ms = ktime_ms_delta(ktime_get(), start);
	struct fixture *f = z->f;

	WRITE_ONCE(f->steps, f->steps + 1);
	KUNIT_EXPECT_LT_MSG(f->test, ms, 3 * (s64)driver_patience(), "%s", step);
}

/* Calls @away, which removes the chip. */
static void end_chip(struct life *life, void (*away)(struct fixture *f), const char *step)
{
	struct fuzz *z = life->z;
	ktime_t start;

	down_write(&z->chip);
	/* Mostly consumers free their interrupts first. */
	if (!one_in(&life->rnd, 4))
		fuzz_users_free_irqs(z);
	start = ktime_get();
	WRITE_ONCE(z->f->gdev, NULL);
	away(z->f);
	fuzz_users_forget_irqs(z);
	up_write(&z->chip);
	fuzz_end_step(z, step, start);
}

static void bind(struct life *life, const struct virtio_gpio_config *space)
{
	struct fuzz *z = life->z;
	ktime_t start = ktime_get();

	fuzz_config(z, space);
	life->starts++;
	if (bind_driver(z->f) == 1)
		find_chip(z->f);
	fuzz_config_is_free(z);
	fuzz_end_step(z, "bind", start);
}

static void rebind(struct life *life)
{
	struct virtio_gpio_config space = life->z->f->g->space;

	end_chip(life, unbind_driver, "unbind");
	life->is_over = false;
	if (one_in(&life->rnd, 16)) {
		space.ngpio = 0;
		bind(life, &space);
	}
	bind(life, &life->z->f->g->space);
}

static int reset(struct life *life)
{
	ktime_t start = ktime_get();
	int ret;

	life->starts++;
	ret = virtio_device_reset_prepare(life->z->f->vdev);
	if (!ret) {
		fsleep(below(&life->rnd, 2000));
		ret = virtio_device_reset_done(life->z->f->vdev);
	}
	fuzz_end_step(life->z, "reset", start);
	return ret;
}

#ifdef CONFIG_PM_SLEEP
static int suspend(struct life *life)
{
	struct fuzz *z = life->z;
	ktime_t start = ktime_get();
	int ret;

	life->starts++;
	ret = one_in(&life->rnd, 2) ? freeze_to_idle(z->f) : freeze(z->f);
	fuzz_end_step(z, "suspend", start);
	fsleep(below(&life->rnd, 2000));
	if (ret)
		return ret;
	if (one_in(&life->rnd, 16)) {
		rebind(life);
		return 0;
	}

	start = ktime_get();
	ret = virtio_device_restore(z->f->vdev);
	fuzz_end_step(z, "resume", start);
	return ret;
}
#else
static int suspend(struct life *life)
{
	return reset(life);
}
#endif

static void shutdown(struct life *life)
{
	ktime_t start = ktime_get();

	device_lock(&life->z->f->vdev->dev);
	shut_down(life->z->f);
	device_unlock(&life->z->f->vdev->dev);
	fuzz_end_step(life->z, "shutdown", start);
	life->is_over = true;
}

static void restart_driver(struct life *life)
{
	unsigned int way = below(&life->rnd, 16);

	if (life->is_over || !life->z->f->gdev || way < 4)
		rebind(life);
	else if (way < 9)
		reset(life);
	else if (way < 15)
		suspend(life);
	else
		shutdown(life);
}

static void live(struct life *life)
{
	struct fuzz *z = life->z;
	unsigned long end = jiffies + MAX_TIME, since = jiffies;
	unsigned int eventful = 4u << below(&life->rnd, 8);
	unsigned int seen = 0, deaths = 0;

	while (fuzz_responses(z) < fuzz_wanted && time_before(jiffies, end)) {
		unsigned int responses = fuzz_responses(z);

		if (responses != seen) {
			seen = responses;
			since = jiffies;
		} else if (time_after(jiffies, since + DEAD_TIME)) {
			if (deaths++ & 1)
				fuzz_device_soften(z);
			restart_driver(life);
			since = jiffies;
		}

		if (one_in(&life->rnd, eventful))
			restart_driver(life);
		fsleep(100 + below(&life->rnd, 2000));
	}
}

/* End */

static void end(struct life *life)
{
	struct fuzz *z = life->z;
	enum ending how = below(&life->rnd, ENDINGS);
	struct gpio_model_config good = { .ngpio = 8 };

	if (how == END_REPLUG)
		end_chip(life, unplug_device, "unplug");

	fuzz_users_stop(z);
	fuzz_device_stop(z);
	atomic_inc(&total_seeds);
	atomic64_add(fuzz_responses(z), &total_responses);
	/* Others may have been at it when the device said so. */
	kunit_virtio_forgive(z->f->g->dev, KUNIT_VIRTIO_RULE_NEEDS_RESET);

	if (how == END_REPLUG) {
		replug(z->f, &good);
		return;
	}

	if (life->is_over || !z->f->gdev)
		how = END_REBIND;
	fuzz_config(z, &z->f->g->space);
	switch (how) {
	case END_RESET:
		KUNIT_EXPECT_EQ(z->f->test, reset(life), 0);
		break;
	case END_SUSPEND:
		KUNIT_EXPECT_EQ(z->f->test, suspend(life), 0);
		break;
	default:
		rebind(life);
		break;
	}
	z->f->g->lied = false;
}

static void expect_works(struct fixture *f)
{
	unsigned int last = f->g->config.ngpio - 1;
	struct irq_user *user;
	struct gpio_desc *desc;

	KUNIT_ASSERT_NOT_NULL(f->test, f->gdev);
	desc = line_get(f, 0, GPIOD_IN);
	KUNIT_ASSERT_FALSE(f->test, IS_ERR(desc));
	for (int level = 1; level >= 0; level--) {
		gpio_model_level(f->g, 0, level);
		KUNIT_EXPECT_EQ(f->test, gpiod_get_value_cansleep(desc), level);
	}
	KUNIT_EXPECT_EQ(f->test, gpiod_direction_output(desc, 1), 0);
	KUNIT_EXPECT_EQ(f->test, gpio_model_line(f->g, 0).direction,
			VIRTIO_GPIO_DIRECTION_OUT);
	KUNIT_EXPECT_EQ(f->test, gpio_model_line(f->g, 0).value, 1);
	line_put(f, desc);

	if (f->g->config.no_irq)
		return;
	/* gpiolib refuses the interrupt of an output: make it an input. */
	desc = line_get(f, last, GPIOD_IN);
	KUNIT_ASSERT_FALSE(f->test, IS_ERR(desc));
	gpio_model_level(f->g, last, false);
	user = irq_get(f, last, IRQF_TRIGGER_RISING);
	/* genirq may have kept a pending interrupt of the previous consumer. */
	fsleep(2000);
	atomic_set(&user->count, 0);
	gpio_model_rise(f->g, last);
	assert_irqs(user, 1);
	irq_put(user);
	line_put(f, desc);
}

static void expect_nothing_left(struct fixture *f)
{
	unplug_device(f);
	KUNIT_EXPECT_EQ(f->test, kunit_virtio_busy(f->g->dev, REQUESTQ), 0);
	if (!f->g->config.no_irq)
		KUNIT_EXPECT_EQ(f->test, kunit_virtio_busy(f->g->dev, EVENTQ), 0);
}

static void survives(struct kunit *test)
{
	struct fuzz *z = plan(test, *(const unsigned int *)test->param_value);
	struct life life = { .z = z, .starts = 1 };

	fuzz_rnd(&life.rnd, z->seed, FUZZ_LIFE);
	plug_prepared(z->f);
	device_init_wakeup(&z->f->vdev->dev, true);
	fuzz_device_start(z);
	if (one_in(&life.rnd, 2))
		rebind(&life);
	fuzz_users_start(z);
	live(&life);
	end(&life);
	expect_works(z->f);
	expect_nothing_left(z->f);
	/* genirq logs a line for each interrupt that a consumer did not get. */
	KUNIT_EXPECT_LE(test, log_count(z->f, "*") - log_count(z->f, "genirq: *"),
			LOG_LINES * life.starts);
}

/* Suite */

static const void *next_seed(struct kunit *test, const void *prev, char *desc)
{
	static unsigned int seed;

	seed = prev ? seed + 1 : fuzz_seed;
	if (seed - fuzz_seed >= fuzz_seeds)
		return NULL;
	snprintf(desc, KUNIT_PARAM_DESC_SIZE, "seed %u", seed);
	return &seed;
}

static int start_total(struct kunit_suite *suite)
{
	atomic_set(&total_seeds, 0);
	atomic64_set(&total_responses, 0);
	return 0;
}

static void say_total(struct kunit_suite *suite)
{
	kunit_info(suite, "%d seeds, %lld responses\n", atomic_read(&total_seeds),
		   atomic64_read(&total_responses));
}

static struct kunit_case cases[] = {
	KUNIT_CASE_PARAM(survives, next_seed),
	{ }
};

static struct kunit_suite gpio_virtio_fuzz_suite = {
	.name		= "gpio_virtio_fuzz",
	.init		= fixture_init,
	.suite_init	= start_total,
	.suite_exit	= say_total,
	.test_cases	= cases,
};

kunit_test_suite(gpio_virtio_fuzz_suite);
