/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Fixture of the KUnit tests of virtio GPIO drivers
 *
 * A test plugs a device in, acts as a kernel consumer of its lines, and checks
 * the log of the device. This is a complete test:
 *
 *	static void d9_value_before_direction(struct kunit *test)
 *	{
 *		struct fixture *f = plug(test);
 *
 *		line_get(f, 3, GPIOD_OUT_HIGH);
 *		EXPECT_LOG(f, "set 3 1", "direction 3 out");
 *	}
 *
 * When a test ends, its lines and interrupts are released and the device is
 * unplugged. The test also fails if the driver has violated a rule of virtio or
 * of the GPIO device, or if the kernel has printed a warning. If a driver hangs,
 * so that neither the device nor the test makes progress, a watchdog fails the
 * test and frees the driver, and the next test runs.
 */
#ifndef _GPIO_VIRTIO_FIXTURE_H
#define _GPIO_VIRTIO_FIXTURE_H

#include <linux/array_size.h>
#include <linux/completion.h>
#include <linux/gpio/consumer.h>
#include <linux/gpio/driver.h>
#include <linux/interrupt.h>
#include <linux/kmsg_dump.h>
#include <linux/workqueue.h>

#include <kunit/test.h>
#include <kunit/virtio.h>

#include "model.h"

#define REQUESTQ	0
#define EVENTQ		1

/**
 * struct fixture - a test and its device
 * @test: the test
 * @g: the device as the test controls it
 * @vdev: the device as the driver has it
 * @gdev: the chip that the driver has registered, %NULL if it has not
 * @hung: the driver has hung
 */
struct fixture {
	struct kunit *test;
	struct gpio_model *g;
	struct virtio_device *vdev;
	struct gpio_device *gdev;
	bool hung;
	/* private: */
	struct delayed_work watchdog;
	unsigned int steps;
	unsigned int watched;
	struct kmsg_dump_iter log_start;
};

/**
 * struct irq_user - a consumer of an interrupt
 * @f: the test
 * @line: the line that the interrupt belongs to
 * @irq: its number
 * @count: number of calls of the handler
 * @in_handler: called by the handler
 * @requested: request_irq() has succeeded, and free_irq() was not called
 */
struct irq_user {
	struct fixture *f;
	unsigned int line;
	int irq;
	atomic_t count;
	void (*in_handler)(struct irq_user *user);
	bool requested;
	bool in_task;
};

/**
 * struct job - a function that runs in another thread
 * @f: the test
 * @fn: the function
 * @arg: for @fn
 * @ret: return value of @fn
 * @stop: tells a loop in @fn to end
 * @done: @fn has returned
 * @task: the thread
 */
struct job {
	struct fixture *f;
	int (*fn)(struct job *job);
	void *arg;
	int ret;
	bool stop;
	struct completion done;
	struct task_struct *task;
};

int fixture_init(struct kunit *test);

/* The device */
struct fixture *plug_only(struct kunit *test, const struct gpio_model_config *config);
struct fixture *plug_config(struct kunit *test, const struct gpio_model_config *config);
struct fixture *prepare_config(struct kunit *test, const struct gpio_model_config *config);
void plug_prepared(struct fixture *f);
void unplug_device(struct fixture *f);
void replug(struct fixture *f, const struct gpio_model_config *config);
void unbind_driver(struct fixture *f);
void shut_down(struct fixture *f);
int bind_driver(struct fixture *f);
bool find_chip(struct fixture *f);
void put_chip(struct fixture *f);
int freeze(struct fixture *f);
int freeze_to_idle(struct fixture *f);
int restore(struct fixture *f);

/* Plugs a device with eight lines in; the driver has to bind to it. */
#define plug(test)		plug_with(test, .ngpio = 8)
/* The same with members of struct gpio_model_config. */
#define plug_with(test, ...)	plug_config(test, &(struct gpio_model_config){ __VA_ARGS__ })
/* Creates the device without plugging it in, so that faults can be added before. */
#define prepare(test, ...)	prepare_config(test, &(struct gpio_model_config){ __VA_ARGS__ })

/* Adds a fault with members of struct gpio_fault. */
#define fault(f, ...)		gpio_model_fault((f)->g, &(struct gpio_fault){ __VA_ARGS__ })

/* Lines */
struct gpio_desc *line_get(struct fixture *f, unsigned int line, enum gpiod_flags flags);
void line_put(struct fixture *f, struct gpio_desc *desc);
struct gpio_desc *line_desc(struct fixture *f, unsigned int line);

/* Interrupts */
struct irq_user *irq_user(struct fixture *f, unsigned int line);
int irq_request(struct irq_user *user, unsigned long flags);
struct irq_user *irq_get(struct fixture *f, unsigned int line, unsigned long flags);
struct irq_user *irq_get_threaded(struct fixture *f, unsigned int line,
				  unsigned long flags);
void irq_put(struct irq_user *user);

/* Threads */
struct job *job_start(struct fixture *f, int (*fn)(struct job *job), void *arg);
bool job_wait(struct job *job, unsigned int ms);
void job_sleeps(struct job *job);
void job_kill(struct job *job);

/* The kernel log since the test began */
unsigned int log_count(struct fixture *f, const char *pattern);
unsigned int log_count_device(struct fixture *f);
unsigned int kernel_splats(struct fixture *f);

/* Time after which a driver has given up: module parameter patience_ms. */
unsigned int driver_patience(void);

/* The log of the device */
bool wait_for_log(struct fixture *f, const char *pattern, unsigned int count);
void expect_in_order(struct fixture *f, const char * const *patterns);
void expect_count(struct fixture *f, unsigned int count, const char *pattern);

/* They wait for two seconds at most, and end the test on a timeout. */
void assert_soon(struct fixture *f, unsigned int count, const char *pattern);
void assert_irqs(struct irq_user *user, int count);

/* Lines that match are in the log in this order, others between them. */
#define EXPECT_LOG(f, ...)	\
	expect_in_order(f, (const char * const []){ __VA_ARGS__, NULL })

#endif /* _GPIO_VIRTIO_FIXTURE_H */
