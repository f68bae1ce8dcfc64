// SPDX-License-Identifier: GPL-2.0
/*
 * Consumers that use the lines of a device in all possible ways
 *
 * Operations may fail, but have to return.
 */

#include <linux/array_size.h>
#include <linux/bitmap.h>
#include <linux/delay.h>
#include <linux/gpio/machine.h>
#include <linux/irq.h>
#include <linux/ktime.h>

#include "fuzz.h"

/*
 * Use of the lines. Conflicts of consumers about an interrupt, or about its
 * direction, are not tested, and flood the log.
 */
static bool is_output(struct fuzz *z, unsigned int line)
{
	return (line + z->seed) % 3 == 0;
}

/* Returns the line whose interrupt this one may use, or @ngpio. */
static unsigned int irq_line(struct fuzz_user *user, struct fuzz_line *line)
{
	struct fuzz *z = user->z;
	unsigned int first = user - z->users + FUZZ_USERS * (line - user->lines);
	unsigned int step = FUZZ_USERS * FUZZ_USER_LINES;
	unsigned int n = first + step * below(&user->rnd, z->ngpio / step + 1);

	return n < z->ngpio && !is_output(z, n) ? n : z->ngpio;
}

/* Interrupts */

static irqreturn_t handler(int irq, void *data)
{
	struct fuzz_line *line = data;

	if (one_in(&line->rnd, 16)) {
		disable_irq_nosync(irq);
		/* Not before: its user on another processor may still enable it. */
		atomic_inc(&line->disabled);
	}
	return IRQ_HANDLED;
}

static irqreturn_t thread(int irq, void *data)
{
	struct fuzz_line *line = data;

	if (one_in(&line->rnd, 4))
		gpiod_get_value_cansleep(line->irq_desc);
	return IRQ_HANDLED;
}

static unsigned int any_type(struct rnd_state *rnd)
{
	static const unsigned int types[] = {
		IRQ_TYPE_EDGE_RISING, IRQ_TYPE_EDGE_FALLING, IRQ_TYPE_EDGE_BOTH,
		IRQ_TYPE_EDGE_RISING, IRQ_TYPE_EDGE_FALLING, IRQ_TYPE_EDGE_BOTH,
		IRQ_TYPE_LEVEL_HIGH, IRQ_TYPE_LEVEL_LOW,
	};

	return types[below(rnd, ARRAY_SIZE(types))];
}

static void request_interrupt(struct fuzz_user *user, struct fuzz_line *line)
{
	struct fuzz *z = user->z;
	unsigned long flags = any_type(&user->rnd);
	unsigned int n = irq_line(user, line);
	int irq, ret;

	if (n == z->ngpio)
		return;
	line->irq_desc = line_desc(z->f, n);
	irq = gpiod_to_irq(line->irq_desc);
	if (irq <= 0)
		return;

	atomic_set(&line->disabled, 0);
	down_read(&z->flags);
	if (one_in(&user->rnd, 2))
		ret = request_threaded_irq(irq, NULL, thread, flags | IRQF_ONESHOT,
					   "fuzz", line);
	else
		ret = request_irq(irq, handler, flags, "fuzz", line);
	up_read(&z->flags);
	if (!ret)
		line->irq = irq;
}

static void free_interrupt(struct fuzz_line *line)
{
	if (line->irq)
		free_irq(line->irq, line);
	line->irq = 0;
}

static void use_interrupt(struct fuzz_user *user, struct fuzz_line *line)
{
	/* genirq does not protect an interrupt against removal of its chip. */
	if (!down_read_trylock(&user->z->chip))
		return;

	if (!line->irq) {
		if (user->z->f->gdev)
			request_interrupt(user, line);
	} else {
		switch (below(&user->rnd, 8)) {
		case 0:
			free_interrupt(line);
			break;
		case 1 ... 2:
			irq_set_irq_type(line->irq, any_type(&user->rnd));
			break;
		case 3:
			disable_irq(line->irq);
			atomic_inc(&line->disabled);
			break;
		default:
			if (atomic_dec_if_positive(&line->disabled) >= 0)
				enable_irq(line->irq);
			break;
		}
	}

	up_read(&user->z->chip);
}

/* Lines */

static void request_line(struct fuzz_user *user, struct fuzz_line *line)
{
	struct fixture *f = user->z->f;
	struct gpio_desc *desc;
	unsigned int n;

	if (!down_read_trylock(&user->z->chip))
		return;

	if (f->gdev) {
		n = below(&user->rnd, user->z->ngpio);
		desc = gpiochip_request_own_desc(gpio_device_get_chip(f->gdev), n, "fuzz",
						 GPIO_ACTIVE_HIGH, GPIOD_ASIS);
		if (!IS_ERR(desc)) {
			line->desc = desc;
			line->is_output = is_output(user->z, n);
		}
	}

	up_read(&user->z->chip);
}

/*
 * gpiolib reads and writes back the flags of a line that is freed. That reverts flags which a
 * request of the line's interrupt has set in between, and causes a warning later.
 */
static void free_line(struct fuzz_user *user, struct fuzz_line *line)
{
	down_write(&user->z->flags);
	if (line->desc)
		gpiochip_free_own_desc(line->desc);
	line->desc = NULL;
	up_write(&user->z->flags);
}

static unsigned int all_lines(struct fuzz_user *user, struct gpio_desc **descs,
			      bool outputs)
{
	unsigned int count = 0;

	for (unsigned int i = 0; i < FUZZ_USER_LINES; i++) {
		struct fuzz_line *line = &user->lines[i];

		if (line->desc && (line->is_output || !outputs))
			descs[count++] = line->desc;
	}

	return count;
}

static void get_lines(struct fuzz_user *user)
{
	struct gpio_desc *descs[FUZZ_USER_LINES];
	DECLARE_BITMAP(values, FUZZ_USER_LINES);
	unsigned int count = all_lines(user, descs, false);

	if (count)
		gpiod_get_array_value_cansleep(count, descs, NULL, values);
}

static void set_lines(struct fuzz_user *user)
{
	struct gpio_desc *descs[FUZZ_USER_LINES];
	unsigned long values = prandom_u32_state(&user->rnd);
	unsigned int count = all_lines(user, descs, true);

	if (one_in(&user->rnd, 4)) {
		for (unsigned int i = 0; i < count; i++)
			gpiod_direction_output(descs[i], one_in(&user->rnd, 2));
	}
	if (count)
		gpiod_set_array_value_cansleep(count, descs, NULL, &values);
}

/* Returns the result of a random operation on an existing line. */
static int use_line(struct fuzz_user *user, struct fuzz_line *line)
{
	struct rnd_state *rnd = &user->rnd;

	switch (below(rnd, 8)) {
	case 0 ... 2:
		return gpiod_get_value_cansleep(line->desc);
	case 3 ... 4:
		return gpiod_set_value_cansleep(line->desc, one_in(rnd, 2));
	case 5:
		return gpiod_direction_input(line->desc);
	case 6:
		if (line->is_output)
			return gpiod_direction_output(line->desc, one_in(rnd, 2));
		fallthrough;
	default:
		return gpiod_get_direction(line->desc);
	}
}

static void step(struct fuzz_user *user)
{
	struct rnd_state *rnd = &user->rnd;
	struct fuzz_line *line = &user->lines[below(rnd, FUZZ_USER_LINES)];

	switch (below(rnd, 16)) {
	case 0 ... 8:
		if (!line->desc)
			request_line(user, line);
		else if (use_line(user, line) == -ENODEV)
			free_line(user, line);
		break;
	case 9:
		free_line(user, line);
		break;
	case 10:
		get_lines(user);
		break;
	case 11:
		set_lines(user);
		break;
	default:
		use_interrupt(user, line);
		break;
	}
}

/* Life */

static int user_fn(struct job *job)
{
	struct fuzz_user *user = job->arg;

	while (!READ_ONCE(job->stop)) {
		ktime_t start = ktime_get();

		step(user);
		user->slowest_ms = max_t(u64, user->slowest_ms,
					 ktime_ms_delta(ktime_get(), start));
		WRITE_ONCE(job->f->steps, job->f->steps + 1);

		if (one_in(&user->rnd, 4) || !READ_ONCE(job->f->gdev))
			fsleep(1 + below(&user->rnd, 200));
		else
			cond_resched();
	}

	down_read(&user->z->chip);
	for (unsigned int i = 0; i < FUZZ_USER_LINES; i++) {
		free_interrupt(&user->lines[i]);
		free_line(user, &user->lines[i]);
	}
	up_read(&user->z->chip);
	return 0;
}

void fuzz_users_init(struct fuzz *z)
{
	init_rwsem(&z->chip);
	init_rwsem(&z->flags);
	for (unsigned int i = 0; i < FUZZ_USERS; i++) {
		struct fuzz_user *user = &z->users[i];

		user->z = z;
		fuzz_rnd(&user->rnd, z->seed, FUZZ_USER + i);
		for (unsigned int n = 0; n < FUZZ_USER_LINES; n++)
			fuzz_rnd(&user->lines[n].rnd, z->seed,
				 FUZZ_HANDLER + i * FUZZ_USER_LINES + n);
	}
}

void fuzz_users_start(struct fuzz *z)
{
	for (unsigned int i = 0; i < FUZZ_USERS; i++)
		z->users[i].job = job_start(z->f, user_fn, &z->users[i]);
}

/* Releases all lines and interrupts. */
void fuzz_users_stop(struct fuzz *z)
{
	for (unsigned int i = 0; i < FUZZ_USERS; i++)
		WRITE_ONCE(z->users[i].job->stop, true);
	for (unsigned int i = 0; i < FUZZ_USERS; i++) {
		KUNIT_EXPECT_TRUE_MSG(z->f->test,
				      job_wait(z->users[i].job, driver_patience()),
				      "consumer %u hangs", i);
		KUNIT_EXPECT_LT(z->f->test, z->users[i].slowest_ms, driver_patience());
	}
}

/* Before removal of the chip, as consumers have to. &fuzz.chip is held for writing. */
void fuzz_users_free_irqs(struct fuzz *z)
{
	for (unsigned int i = 0; i < FUZZ_USERS; i++) {
		for (unsigned int n = 0; n < FUZZ_USER_LINES; n++) {
			ktime_t start = ktime_get();

			free_interrupt(&z->users[i].lines[n]);
			fuzz_end_step(z, "free of an interrupt", start);
		}
	}
}

/* After removal of the chip with the remaining ones. &fuzz.chip is still held. */
void fuzz_users_forget_irqs(struct fuzz *z)
{
	for (unsigned int i = 0; i < FUZZ_USERS; i++) {
		for (unsigned int n = 0; n < FUZZ_USER_LINES; n++)
			z->users[i].lines[n].irq = 0;
	}
}
