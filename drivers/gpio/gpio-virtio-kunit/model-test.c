// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests for the model of the virtio GPIO device
 *
 * A driver that sends arbitrary messages checks that the model follows the
 * specification (V1 to V8), and that it reports violations by drivers.
 */

#include <linux/delay.h>
#include <linux/jiffies.h>
#include <linux/scatterlist.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>

#include <kunit/test.h>
#include <kunit/virtio.h>

#include "model.h"

/* No device has this ID, so that no GPIO driver binds to it. */
#define RAW_ID		0x7ffffe

#define REQUESTQ	0
#define EVENTQ		1
#define REQUESTS	8
#define NAMES		8

struct raw_request {
	struct virtio_gpio_request out;
	u8 in[1 + NAMES];
	unsigned int len;
	bool done;
};

struct raw_event {
	struct virtio_gpio_irq_request out;
	struct virtio_gpio_irq_response in;
	bool done;
};

/* A driver that sends whatever a test tells it to. */
struct raw {
	struct kunit *test;
	struct gpio_model *g;
	struct virtio_device *vdev;
	struct virtqueue *vqs[2];
	struct raw_request requests[REQUESTS];
	struct raw_event events[REQUESTS];
	unsigned int num_requests;
	unsigned int num_events;
};

static struct raw *the_raw;

static int raw_probe(struct virtio_device *vdev)
{
	struct virtqueue_info info[] = { { "requestq" }, { "eventq" } };
	int ret;

	ret = virtio_find_vqs(vdev, the_raw->g->config.no_irq ? 1 : 2, the_raw->vqs, info,
			      NULL);
	if (!ret)
		virtio_device_ready(vdev);
	return ret;
}

static void raw_remove(struct virtio_device *vdev)
{
	virtio_reset_device(vdev);
	for (unsigned int i = 0; i < ARRAY_SIZE(the_raw->vqs) && the_raw->vqs[i]; i++) {
		while (virtqueue_detach_unused_buf(the_raw->vqs[i]))
			;
	}
	vdev->config->del_vqs(vdev);
}

static const struct virtio_device_id raw_ids[] = {
	{ RAW_ID, VIRTIO_DEV_ANY_ID },
	{ }
};

static const unsigned int raw_features[] = { VIRTIO_GPIO_F_IRQ };

static struct virtio_driver raw_driver = {
	.driver.name		= "gpio-virtio-raw",
	.id_table		= raw_ids,
	.feature_table		= raw_features,
	.feature_table_size	= ARRAY_SIZE(raw_features),
	.probe			= raw_probe,
	.remove			= raw_remove,
};

static void raw_poll(struct raw *raw)
{
	struct raw_request *request;
	struct raw_event *event;
	unsigned int len;

	while ((request = virtqueue_get_buf(raw->vqs[REQUESTQ], &len))) {
		request->len = len;
		request->done = true;
	}
	while (raw->vqs[EVENTQ] && (event = virtqueue_get_buf(raw->vqs[EVENTQ], &len)))
		event->done = true;
}

static void add(struct virtqueue *vq, void *out, size_t out_len, void *in, size_t in_len,
		void *data)
{
	struct scatterlist out_sg, in_sg, *sgs[] = { &out_sg, &in_sg };

	sg_init_one(&out_sg, out, out_len);
	sg_init_one(&in_sg, in, in_len);
	KUNIT_ASSERT_EQ(the_raw->test, 0,
			virtqueue_add_sgs(vq, sgs, 1, 1, data, GFP_KERNEL));
	virtqueue_kick(vq);
}

static struct raw_request *send_sized(struct raw *raw, u16 type, u16 line, u32 value,
				      size_t in_len)
{
	struct raw_request *request = &raw->requests[raw->num_requests++ % REQUESTS];

	request->out.type = cpu_to_le16(type);
	request->out.gpio = cpu_to_le16(line);
	request->out.value = cpu_to_le32(value);
	request->done = false;
	memset(request->in, 0xee, sizeof(request->in));
	add(raw->vqs[REQUESTQ], &request->out, sizeof(request->out), request->in, in_len,
	    request);
	raw_poll(raw);
	return request;
}

static struct raw_request *send(struct raw *raw, u16 type, u16 line, u32 value)
{
	return send_sized(raw, type, line, value, sizeof(struct virtio_gpio_response));
}

static struct raw_event *arm(struct raw *raw, u16 line)
{
	struct raw_event *event = &raw->events[raw->num_events++ % REQUESTS];

	event->out.gpio = cpu_to_le16(line);
	event->in.status = 0xee;
	event->done = false;
	add(raw->vqs[EVENTQ], &event->out, sizeof(event->out), &event->in,
	    sizeof(event->in), event);
	raw_poll(raw);
	return event;
}

static void expect_answer(struct raw *raw, struct raw_request *request, u8 status, u8 value)
{
	KUNIT_EXPECT_TRUE(raw->test, request->done);
	KUNIT_EXPECT_EQ(raw->test, request->len, 2);
	KUNIT_EXPECT_EQ(raw->test, request->in[0], status);
	KUNIT_EXPECT_EQ(raw->test, request->in[1], value);
}

static void expect_event(struct raw *raw, struct raw_event *event, int status)
{
	raw_poll(raw);
	if (status < 0) {
		KUNIT_EXPECT_FALSE(raw->test, event->done);
	} else {
		KUNIT_EXPECT_TRUE(raw->test, event->done);
		KUNIT_EXPECT_EQ(raw->test, event->in.status, status);
	}
}

/* Expects the report of a violation. */
static void expect_breach(struct raw *raw, const char *requirement)
{
	KUNIT_EXPECT_EQ(raw->test, gpio_model_breaches(raw->g, requirement), 1);
	gpio_model_forgive(raw->g);
}

static void check_model(void *data)
{
	gpio_model_check(data);
}

static struct raw *plug_raw(struct kunit *test, struct gpio_model_config config)
{
	struct raw *raw = kunit_kzalloc(test, sizeof(*raw), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, raw);
	config.id = RAW_ID;
	raw->test = test;
	raw->g = gpio_model_create(test, &config);
	KUNIT_ASSERT_NOT_NULL(test, raw->g);
	raw->vdev = kunit_virtio_device(raw->g->dev);
	the_raw = raw;
	KUNIT_ASSERT_EQ(test, 0, kunit_add_action_or_reset(test, check_model, raw->g));
	KUNIT_ASSERT_EQ(test, 0, kunit_virtio_register(raw->g->dev));
	KUNIT_ASSERT_NOT_NULL(test, raw->vqs[REQUESTQ]);
	return raw;
}

#define RAW(test, ...)	plug_raw(test, (struct gpio_model_config){ .ngpio = 4, __VA_ARGS__ })

/* Behaviour of the device */

static void v1_answers_have_all_fields(struct kunit *test)
{
	struct raw *raw = RAW(test);

	expect_answer(raw, send(raw, VIRTIO_GPIO_MSG_SET_DIRECTION, 0,
				VIRTIO_GPIO_DIRECTION_OUT), VIRTIO_GPIO_STATUS_OK, 0);
	expect_answer(raw, send(raw, VIRTIO_GPIO_MSG_SET_VALUE, 0, 1),
		      VIRTIO_GPIO_STATUS_OK, 0);
	expect_answer(raw, send(raw, VIRTIO_GPIO_MSG_GET_VALUE, 0, 0),
		      VIRTIO_GPIO_STATUS_OK, 1);
	expect_answer(raw, send(raw, VIRTIO_GPIO_MSG_GET_DIRECTION, 0, 0),
		      VIRTIO_GPIO_STATUS_OK, VIRTIO_GPIO_DIRECTION_OUT);
}

static void v2_answers_of_a_line_are_in_order(struct kunit *test)
{
	struct raw *raw = RAW(test);

	send(raw, VIRTIO_GPIO_MSG_SET_VALUE, 0, 1);
	send(raw, VIRTIO_GPIO_MSG_GET_VALUE, 0, 0);
	send(raw, VIRTIO_GPIO_MSG_GET_VALUE, 1, 0);
	KUNIT_EXPECT_NULL(test, gpio_model_in_order(raw->g, (const char * const []){
		"set 0 1", "ok set 0 1", "get 0", "ok get 0", "get 1", "ok get 1", NULL,
	}));
}

static void v3_direction_none_ends_all(struct kunit *test)
{
	struct raw *raw = RAW(test);
	struct raw_event *event;

	send(raw, VIRTIO_GPIO_MSG_SET_VALUE, 0, 1);
	send(raw, VIRTIO_GPIO_MSG_SET_DIRECTION, 0, VIRTIO_GPIO_DIRECTION_IN);
	send(raw, VIRTIO_GPIO_MSG_IRQ_TYPE, 0, VIRTIO_GPIO_IRQ_TYPE_EDGE_RISING);
	event = arm(raw, 0);
	send(raw, VIRTIO_GPIO_MSG_SET_DIRECTION, 0, VIRTIO_GPIO_DIRECTION_NONE);
	expect_event(raw, event, VIRTIO_GPIO_IRQ_STATUS_INVALID);
	KUNIT_EXPECT_EQ(test, gpio_model_line(raw->g, 0).type, VIRTIO_GPIO_IRQ_TYPE_NONE);
	KUNIT_EXPECT_EQ(test, gpio_model_line(raw->g, 0).value, 0);
}

static void v4_edges_are_latched(struct kunit *test)
{
	struct raw *raw = RAW(test);

	send(raw, VIRTIO_GPIO_MSG_IRQ_TYPE, 0, VIRTIO_GPIO_IRQ_TYPE_EDGE_RISING);
	gpio_model_rise(raw->g, 0);
	gpio_model_level(raw->g, 0, false);
	expect_event(raw, arm(raw, 0), VIRTIO_GPIO_IRQ_STATUS_VALID);
	expect_event(raw, arm(raw, 0), -1);
}

static void v4_other_edges_are_not(struct kunit *test)
{
	struct raw *raw = RAW(test);
	struct raw_event *event;

	send(raw, VIRTIO_GPIO_MSG_IRQ_TYPE, 0, VIRTIO_GPIO_IRQ_TYPE_EDGE_FALLING);
	gpio_model_level(raw->g, 0, true);
	event = arm(raw, 0);
	expect_event(raw, event, -1);
	gpio_model_level(raw->g, 0, false);
	expect_event(raw, event, VIRTIO_GPIO_IRQ_STATUS_VALID);
}

static void v4_type_none_drops_what_was_latched(struct kunit *test)
{
	struct raw *raw = RAW(test);

	send(raw, VIRTIO_GPIO_MSG_IRQ_TYPE, 0, VIRTIO_GPIO_IRQ_TYPE_EDGE_BOTH);
	gpio_model_rise(raw->g, 0);
	send(raw, VIRTIO_GPIO_MSG_IRQ_TYPE, 0, VIRTIO_GPIO_IRQ_TYPE_NONE);
	send(raw, VIRTIO_GPIO_MSG_IRQ_TYPE, 0, VIRTIO_GPIO_IRQ_TYPE_EDGE_BOTH);
	expect_event(raw, arm(raw, 0), -1);
}

static void v5_an_event_masks_the_line(struct kunit *test)
{
	struct raw *raw = RAW(test);
	struct raw_event *event;

	send(raw, VIRTIO_GPIO_MSG_IRQ_TYPE, 0, VIRTIO_GPIO_IRQ_TYPE_EDGE_RISING);
	event = arm(raw, 0);
	gpio_model_rise(raw->g, 0);
	expect_event(raw, event, VIRTIO_GPIO_IRQ_STATUS_VALID);
	gpio_model_rise(raw->g, 0);
	KUNIT_EXPECT_EQ(test, gpio_model_count(raw->g, "event 0 *"), 1);
}

static void v6_type_none_returns_the_buffer(struct kunit *test)
{
	struct raw *raw = RAW(test);
	struct raw_event *event;

	send(raw, VIRTIO_GPIO_MSG_IRQ_TYPE, 0, VIRTIO_GPIO_IRQ_TYPE_EDGE_RISING);
	event = arm(raw, 0);
	send(raw, VIRTIO_GPIO_MSG_IRQ_TYPE, 0, VIRTIO_GPIO_IRQ_TYPE_NONE);
	expect_event(raw, event, VIRTIO_GPIO_IRQ_STATUS_INVALID);
	expect_event(raw, arm(raw, 0), VIRTIO_GPIO_IRQ_STATUS_INVALID);
}

static void v6_unless_it_is_to_be_held(struct kunit *test)
{
	struct raw *raw = RAW(test);
	struct raw_event *event;

	raw->g->invalid = INVALID_HELD;
	send(raw, VIRTIO_GPIO_MSG_IRQ_TYPE, 0, VIRTIO_GPIO_IRQ_TYPE_EDGE_RISING);
	event = arm(raw, 0);
	send(raw, VIRTIO_GPIO_MSG_IRQ_TYPE, 0, VIRTIO_GPIO_IRQ_TYPE_NONE);
	expect_event(raw, event, -1);
	gpio_model_return_invalid(raw->g, 0);
	expect_event(raw, event, VIRTIO_GPIO_IRQ_STATUS_INVALID);
}

static void v7_levels_are_looked_at_when_unmasked(struct kunit *test)
{
	struct raw *raw = RAW(test);

	send(raw, VIRTIO_GPIO_MSG_IRQ_TYPE, 0, VIRTIO_GPIO_IRQ_TYPE_LEVEL_HIGH);
	gpio_model_level(raw->g, 0, true);
	expect_event(raw, arm(raw, 0), VIRTIO_GPIO_IRQ_STATUS_VALID);
	expect_event(raw, arm(raw, 0), VIRTIO_GPIO_IRQ_STATUS_VALID);
	gpio_model_level(raw->g, 0, false);
	expect_event(raw, arm(raw, 0), -1);
}

static void v8_names_are_handed_out(struct kunit *test)
{
	struct raw *raw = RAW(test, .names = "ab\0c\0\0d", .names_size = NAMES);
	struct raw_request *request = send_sized(raw, VIRTIO_GPIO_MSG_GET_NAMES, 0, 0,
						 1 + NAMES);

	KUNIT_EXPECT_TRUE(test, request->done);
	KUNIT_EXPECT_EQ(test, request->len, 1 + NAMES);
	KUNIT_EXPECT_EQ(test, request->in[0], VIRTIO_GPIO_STATUS_OK);
	KUNIT_EXPECT_MEMEQ(test, &request->in[1], "ab\0c\0\0d", NAMES);
	KUNIT_EXPECT_EQ(test, virtio_cread32(raw->vdev, 4), NAMES);
}

static void faults_are_as_asked_for(struct kunit *test)
{
	struct raw *raw = RAW(test);
	struct raw_request *request;

	gpio_model_fault(raw->g, &(struct gpio_fault){
		.type = VIRTIO_GPIO_MSG_GET_VALUE, .line = 1, .count = 1,
		.with = WITH_STATUS | WITH_VALUE | WITH_USED,
		.status = 3, .value = 7, .used = 9,
	});
	expect_answer(raw, send(raw, VIRTIO_GPIO_MSG_GET_VALUE, 0, 0),
		      VIRTIO_GPIO_STATUS_OK, 0);
	request = send(raw, VIRTIO_GPIO_MSG_GET_VALUE, 1, 0);
	KUNIT_EXPECT_EQ(test, request->len, 9);
	KUNIT_EXPECT_EQ(test, request->in[0], 3);
	KUNIT_EXPECT_EQ(test, request->in[1], 7);
	expect_answer(raw, send(raw, VIRTIO_GPIO_MSG_GET_VALUE, 1, 0),
		      VIRTIO_GPIO_STATUS_OK, 0);
}

static void silent_answers_write_nothing(struct kunit *test)
{
	struct raw *raw = RAW(test);

	gpio_model_fault(raw->g, &(struct gpio_fault){ .line = ANY_LINE, .silent = true });
	expect_answer(raw, send(raw, VIRTIO_GPIO_MSG_GET_VALUE, 0, 0), 0xee, 0xee);
}

static void held_answers_come_when_released(struct kunit *test)
{
	struct raw *raw = RAW(test);
	struct raw_request *first, *second;

	gpio_model_fault(raw->g, &(struct gpio_fault){ .line = ANY_LINE, .hold = true });
	first = send(raw, VIRTIO_GPIO_MSG_GET_VALUE, 0, 0);
	second = send(raw, VIRTIO_GPIO_MSG_GET_VALUE, 1, 0);
	KUNIT_EXPECT_FALSE(test, first->done || second->done);
	KUNIT_EXPECT_EQ(test, gpio_model_held(raw->g), 2);
	gpio_model_release(raw->g, true);
	raw_poll(raw);
	expect_answer(raw, first, VIRTIO_GPIO_STATUS_OK, 0);
	expect_answer(raw, second, VIRTIO_GPIO_STATUS_OK, 0);
	KUNIT_EXPECT_NULL(test, gpio_model_in_order(raw->g, (const char * const []){
		"get 0", "get 1", "ok get 1", "ok get 0", NULL,
	}));
}

static void held_answers_come_one_by_one(struct kunit *test)
{
	struct raw *raw = RAW(test);
	struct raw_request *requests[3];

	gpio_model_fault(raw->g, &(struct gpio_fault){ .line = ANY_LINE, .hold = true });
	for (int i = 0; i < 3; i++)
		requests[i] = send(raw, VIRTIO_GPIO_MSG_GET_VALUE, i, 0);
	gpio_model_release_one(raw->g, 1);
	raw_poll(raw);
	KUNIT_EXPECT_FALSE(test, requests[0]->done || requests[2]->done);
	expect_answer(raw, requests[1], VIRTIO_GPIO_STATUS_OK, 0);
	gpio_model_release_one(raw->g, 2);
	raw_poll(raw);
	KUNIT_EXPECT_TRUE(test, requests[0]->done && !requests[2]->done);
}

static void event_buffers_can_come_back_at_once(struct kunit *test)
{
	struct raw *raw = RAW(test);

	send(raw, VIRTIO_GPIO_MSG_IRQ_TYPE, 0, VIRTIO_GPIO_IRQ_TYPE_EDGE_RISING);
	gpio_model_fault(raw->g, &(struct gpio_fault){
		.type = ARM, .count = 1, .with = WITH_STATUS, .status = 7,
	});
	expect_event(raw, arm(raw, 0), 7);
	expect_event(raw, arm(raw, 0), -1);
}

static struct gpio_fault answer_line(struct gpio_model *g, u16 type, unsigned int line)
{
	unsigned int *asked = g->priv;

	++*asked;
	return (struct gpio_fault){ .with = WITH_VALUE, .value = line };
}

static void mutations_take_the_place_of_faults(struct kunit *test)
{
	struct raw *raw = RAW(test);
	unsigned int asked = 0;

	gpio_model_fault(raw->g, &(struct gpio_fault){ .line = ANY_LINE, .drop = true });
	raw->g->priv = &asked;
	raw->g->mutate = answer_line;
	expect_answer(raw, send(raw, VIRTIO_GPIO_MSG_GET_VALUE, 3, 0),
		      VIRTIO_GPIO_STATUS_OK, 3);
	KUNIT_EXPECT_EQ(test, asked, 1);
	raw->g->mutate = NULL;
}

/* The driver cannot know whether the device has enabled the interrupt. */
static void asks_for_no_knowledge_after_a_lie(struct kunit *test)
{
	struct raw *raw = RAW(test);

	raw->g->lied = true;
	send(raw, VIRTIO_GPIO_MSG_IRQ_TYPE, 0, VIRTIO_GPIO_IRQ_TYPE_EDGE_RISING);
	expect_answer(raw, send(raw, VIRTIO_GPIO_MSG_IRQ_TYPE, 0,
				VIRTIO_GPIO_IRQ_TYPE_EDGE_FALLING),
		      VIRTIO_GPIO_STATUS_ERR, 0);
	KUNIT_EXPECT_EQ(test, gpio_model_breaches(raw->g, ""), 0);
}

static void dropped_messages_are_not_acted_on(struct kunit *test)
{
	struct raw *raw = RAW(test);

	gpio_model_fault(raw->g, &(struct gpio_fault){ .line = ANY_LINE, .drop = true });
	send(raw, VIRTIO_GPIO_MSG_SET_VALUE, 0, 1);
	KUNIT_EXPECT_EQ(test, gpio_model_line(raw->g, 0).value, 0);
	KUNIT_EXPECT_EQ(test, gpio_model_count(raw->g, "ok *"), 0);
}

static void events_end_when_there_are_too_many(struct kunit *test)
{
	struct raw *raw = RAW(test);

	raw->g->max_events = 3;
	send(raw, VIRTIO_GPIO_MSG_IRQ_TYPE, 0, VIRTIO_GPIO_IRQ_TYPE_LEVEL_LOW);
	for (int i = 0; i < 3; i++)
		expect_event(raw, arm(raw, 0), VIRTIO_GPIO_IRQ_STATUS_VALID);
	expect_event(raw, arm(raw, 0), -1);
	raw->g->max_events = 4;
}

/* Violations that it reports */

static void notices_d1_unknown_message(struct kunit *test)
{
	struct raw *raw = RAW(test);

	expect_answer(raw, send(raw, 7, 0, 0), VIRTIO_GPIO_STATUS_ERR, 0);
	expect_breach(raw, "D1");
}

static void notices_d1_line_that_is_none(struct kunit *test)
{
	struct raw *raw = RAW(test);

	expect_answer(raw, send(raw, VIRTIO_GPIO_MSG_GET_VALUE, 4, 0),
		      VIRTIO_GPIO_STATUS_ERR, 0);
	expect_breach(raw, "D1");
}

static void notices_d1_value_that_is_none(struct kunit *test)
{
	struct raw *raw = RAW(test);

	expect_answer(raw, send(raw, VIRTIO_GPIO_MSG_SET_VALUE, 0, 2),
		      VIRTIO_GPIO_STATUS_ERR, 0);
	expect_breach(raw, "D1");
}

static void notices_d1_direction_that_is_none(struct kunit *test)
{
	struct raw *raw = RAW(test);

	expect_answer(raw, send(raw, VIRTIO_GPIO_MSG_SET_DIRECTION, 0, 3),
		      VIRTIO_GPIO_STATUS_ERR, 0);
	expect_breach(raw, "D1");
}

static void notices_d1_response_that_is_too_long(struct kunit *test)
{
	struct raw *raw = RAW(test);

	send_sized(raw, VIRTIO_GPIO_MSG_GET_VALUE, 0, 0, 3);
	expect_breach(raw, "D1");
}

static void notices_d3_type_without_the_feature(struct kunit *test)
{
	struct raw *raw = RAW(test, .no_irq = true);

	expect_answer(raw, send(raw, VIRTIO_GPIO_MSG_IRQ_TYPE, 0, 0),
		      VIRTIO_GPIO_STATUS_ERR, 0);
	expect_breach(raw, "D3");
}

static void notices_d4_interrupt_of_an_output(struct kunit *test)
{
	struct raw *raw = RAW(test);

	send(raw, VIRTIO_GPIO_MSG_SET_DIRECTION, 0, VIRTIO_GPIO_DIRECTION_OUT);
	expect_answer(raw, send(raw, VIRTIO_GPIO_MSG_IRQ_TYPE, 0,
				VIRTIO_GPIO_IRQ_TYPE_EDGE_RISING),
		      VIRTIO_GPIO_STATUS_ERR, 0);
	expect_breach(raw, "D4");
}

static void notices_d4_interrupt_made_an_output(struct kunit *test)
{
	struct raw *raw = RAW(test);

	send(raw, VIRTIO_GPIO_MSG_IRQ_TYPE, 0, VIRTIO_GPIO_IRQ_TYPE_EDGE_RISING);
	send(raw, VIRTIO_GPIO_MSG_SET_DIRECTION, 0, VIRTIO_GPIO_DIRECTION_OUT);
	expect_breach(raw, "D4");
}

static void notices_d6_type_without_none_before(struct kunit *test)
{
	struct raw *raw = RAW(test);

	send(raw, VIRTIO_GPIO_MSG_IRQ_TYPE, 0, VIRTIO_GPIO_IRQ_TYPE_EDGE_RISING);
	expect_answer(raw, send(raw, VIRTIO_GPIO_MSG_IRQ_TYPE, 0,
				VIRTIO_GPIO_IRQ_TYPE_EDGE_FALLING),
		      VIRTIO_GPIO_STATUS_ERR, 0);
	expect_breach(raw, "D6");
}

static void notices_d7_unmasked_before_enabled(struct kunit *test)
{
	struct raw *raw = RAW(test);

	expect_event(raw, arm(raw, 0), VIRTIO_GPIO_IRQ_STATUS_INVALID);
	expect_breach(raw, "D7");
}

static void notices_d8_two_buffers(struct kunit *test)
{
	struct raw *raw = RAW(test);

	send(raw, VIRTIO_GPIO_MSG_IRQ_TYPE, 0, VIRTIO_GPIO_IRQ_TYPE_EDGE_RISING);
	arm(raw, 0);
	arm(raw, 0);
	expect_breach(raw, "D8");
}

static void notices_d10_names_without_names(struct kunit *test)
{
	struct raw *raw = RAW(test);

	send(raw, VIRTIO_GPIO_MSG_GET_NAMES, 0, 0);
	expect_breach(raw, "D10");
}

static void notices_d10_wrong_size_of_the_response(struct kunit *test)
{
	struct raw *raw = RAW(test, .names = "ab\0c\0\0d", .names_size = NAMES);

	send_sized(raw, VIRTIO_GPIO_MSG_GET_NAMES, 0, 0, NAMES);
	expect_breach(raw, "D10");
}

static int raw_suite_init(struct kunit_suite *suite)
{
	return register_virtio_driver(&raw_driver);
}

static void raw_suite_exit(struct kunit_suite *suite)
{
	unregister_virtio_driver(&raw_driver);
}

static struct kunit_case cases[] = {
	KUNIT_CASE(v1_answers_have_all_fields),
	KUNIT_CASE(v2_answers_of_a_line_are_in_order),
	KUNIT_CASE(v3_direction_none_ends_all),
	KUNIT_CASE(v4_edges_are_latched),
	KUNIT_CASE(v4_other_edges_are_not),
	KUNIT_CASE(v4_type_none_drops_what_was_latched),
	KUNIT_CASE(v5_an_event_masks_the_line),
	KUNIT_CASE(v6_type_none_returns_the_buffer),
	KUNIT_CASE(v6_unless_it_is_to_be_held),
	KUNIT_CASE(v7_levels_are_looked_at_when_unmasked),
	KUNIT_CASE(v8_names_are_handed_out),
	KUNIT_CASE(faults_are_as_asked_for),
	KUNIT_CASE(silent_answers_write_nothing),
	KUNIT_CASE(held_answers_come_when_released),
	KUNIT_CASE(held_answers_come_one_by_one),
	KUNIT_CASE(event_buffers_can_come_back_at_once),
	KUNIT_CASE(mutations_take_the_place_of_faults),
	KUNIT_CASE(asks_for_no_knowledge_after_a_lie),
	KUNIT_CASE(dropped_messages_are_not_acted_on),
	KUNIT_CASE(events_end_when_there_are_too_many),
	KUNIT_CASE(notices_d1_unknown_message),
	KUNIT_CASE(notices_d1_line_that_is_none),
	KUNIT_CASE(notices_d1_value_that_is_none),
	KUNIT_CASE(notices_d1_direction_that_is_none),
	KUNIT_CASE(notices_d1_response_that_is_too_long),
	KUNIT_CASE(notices_d3_type_without_the_feature),
	KUNIT_CASE(notices_d4_interrupt_of_an_output),
	KUNIT_CASE(notices_d4_interrupt_made_an_output),
	KUNIT_CASE(notices_d6_type_without_none_before),
	KUNIT_CASE(notices_d7_unmasked_before_enabled),
	KUNIT_CASE(notices_d8_two_buffers),
	KUNIT_CASE(notices_d10_names_without_names),
	KUNIT_CASE(notices_d10_wrong_size_of_the_response),
	{ }
};

static struct kunit_suite gpio_virtio_model_suite = {
	.name		= "gpio_virtio_model",
	.suite_init	= raw_suite_init,
	.suite_exit	= raw_suite_exit,
	.test_cases	= cases,
};

kunit_test_suite(gpio_virtio_model_suite);
