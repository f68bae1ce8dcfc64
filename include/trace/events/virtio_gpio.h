/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Trace events of the virtio GPIO driver.
 */

#undef TRACE_SYSTEM
#define TRACE_SYSTEM virtio_gpio

#if !defined(_TRACE_VIRTIO_GPIO_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_VIRTIO_GPIO_H

#include <linux/device.h>
#include <linux/tracepoint.h>
#include <uapi/linux/virtio_gpio.h>

#define show_virtio_gpio_type(type)					\
	__print_symbolic(type,						\
		{ VIRTIO_GPIO_MSG_GET_DIRECTION,	"get_direction" }, \
		{ VIRTIO_GPIO_MSG_SET_DIRECTION,	"set_direction" }, \
		{ VIRTIO_GPIO_MSG_GET_VALUE,		"get_value" },	\
		{ VIRTIO_GPIO_MSG_SET_VALUE,		"set_value" },	\
		{ VIRTIO_GPIO_MSG_IRQ_TYPE,		"irq_type" })

/* The last one is the driver's: the device has not written a valid status. */
#define show_virtio_gpio_status(status)					\
	__print_symbolic(status,					\
		{ VIRTIO_GPIO_IRQ_STATUS_INVALID,	"invalid" },	\
		{ VIRTIO_GPIO_IRQ_STATUS_VALID,		"valid" },	\
		{ 0xff,					"odd" })

/* A request about a line is put into the requestq. */
TRACE_EVENT(virtio_gpio_request,
	    TP_PROTO(const struct device *dev, u16 gpio, u32 type, u32 value),
	    TP_ARGS(dev, gpio, type, value),
	    TP_STRUCT__entry(__string(dev, dev_name(dev))
			     __field(u16, gpio)
			     __field(u32, type)
			     __field(u32, value)),
	    TP_fast_assign(__assign_str(dev);
			   __entry->gpio = gpio;
			   __entry->type = type;
			   __entry->value = value;),
	    TP_printk("%s gpio=%u type=%s value=%u", __get_str(dev),
		      __entry->gpio, show_virtio_gpio_type(__entry->type),
		      __entry->value)
);

/*
 * A request is answered, with a value or with a negative errno. The latency is
 * what the caller has waited: since it had the request, which may have waited
 * for room in the requestq, or for the device to be restored.
 */
TRACE_EVENT(virtio_gpio_response,
	    TP_PROTO(const struct device *dev, u16 gpio, u32 type, int ret,
		     s64 latency_us),
	    TP_ARGS(dev, gpio, type, ret, latency_us),
	    TP_STRUCT__entry(__string(dev, dev_name(dev))
			     __field(u16, gpio)
			     __field(u32, type)
			     __field(int, ret)
			     __field(s64, latency_us)),
	    TP_fast_assign(__assign_str(dev);
			   __entry->gpio = gpio;
			   __entry->type = type;
			   __entry->ret = ret;
			   __entry->latency_us = latency_us;),
	    TP_printk("%s gpio=%u type=%s ret=%d latency_us=%lld",
		      __get_str(dev), __entry->gpio,
		      show_virtio_gpio_type(__entry->type), __entry->ret,
		      __entry->latency_us)
);

/* The event buffer of a line has come back from the device. */
TRACE_EVENT(virtio_gpio_event,
	    TP_PROTO(const struct device *dev, u16 gpio, u8 status),
	    TP_ARGS(dev, gpio, status),
	    TP_STRUCT__entry(__string(dev, dev_name(dev))
			     __field(u16, gpio)
			     __field(u8, status)),
	    TP_fast_assign(__assign_str(dev);
			   __entry->gpio = gpio;
			   __entry->status = status;),
	    TP_printk("%s gpio=%u status=%s", __get_str(dev), __entry->gpio,
		      show_virtio_gpio_status(__entry->status))
);

/* The event buffer of a line is handed to the device: the line can interrupt. */
TRACE_EVENT(virtio_gpio_arm,
	    TP_PROTO(const struct device *dev, u16 gpio),
	    TP_ARGS(dev, gpio),
	    TP_STRUCT__entry(__string(dev, dev_name(dev))
			     __field(u16, gpio)),
	    TP_fast_assign(__assign_str(dev);
			   __entry->gpio = gpio;),
	    TP_printk("%s gpio=%u", __get_str(dev), __entry->gpio)
);

/* The driver resets the device, for the @attempt-th time in a row. */
TRACE_EVENT(virtio_gpio_reset,
	    TP_PROTO(const struct device *dev, u32 attempt),
	    TP_ARGS(dev, attempt),
	    TP_STRUCT__entry(__string(dev, dev_name(dev))
			     __field(u32, attempt)),
	    TP_fast_assign(__assign_str(dev);
			   __entry->attempt = attempt;),
	    TP_printk("%s attempt=%u", __get_str(dev), __entry->attempt)
);

#endif /* _TRACE_VIRTIO_GPIO_H */

/* This part must be outside protection */
#include <trace/define_trace.h>
