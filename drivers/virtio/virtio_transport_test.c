// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests of virtio over PCI and over MMIO
 *
 * User-Mode Linux emulates the registers of the devices, so that a test can make
 * them misbehave.
 */

#include <linux/completion.h>
#include <linux/cleanup.h>
#include <linux/device.h>
#include <linux/interrupt.h>
#include <linux/io.h>
#include <linux/irq.h>
#include <linux/irqdesc.h>
#include <linux/jiffies.h>
#include <linux/logic_iomem.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/panic.h>
#include <linux/pci.h>
#include <linux/platform_device.h>
#include <linux/scatterlist.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>
#include <linux/workqueue.h>

#include <kunit/test.h>

#include "../../arch/um/drivers/virt-pci.h"

/* No device has this ID, the last one of PCI. */
#define TRANSPORT_TEST_ID	0x3f

#define TRANSPORT_TEST_QUEUES	2

/* Longer than virtio_pci waits for a reset */
#define RESET_MS		20000

/* Well below that */
#define GONE_MS			3000

static const struct virtio_device_id transport_test_ids[] = {
	{ TRANSPORT_TEST_ID, VIRTIO_DEV_ANY_ID },
	{ }
};

/* Returns an interrupt of no hardware, or an error. */
static int transport_test_irq(void)
{
	int irq = irq_alloc_desc(NUMA_NO_NODE);

	if (irq > 0) {
		irq_set_chip_and_handler(irq, &dummy_irq_chip, handle_simple_irq);
		irq_clear_status_flags(irq, IRQ_NOREQUEST);
	}
	return irq;
}

/* PCI */

#define PCI_TEST_BAR_SIZE	SZ_4K
#define PCI_TEST_ISR		0x100
#define PCI_TEST_NOTIFY		0x200
#define PCI_TEST_DEVICE		0x300

/* Less than a driver reads */
#define PCI_TEST_DEVICE_LEN	2

/**
 * struct pci_test - a function of PCI
 * @um: its device in User-Mode Linux
 * @config: its configuration space
 * @regs: the registers in its BAR
 * @pci_dev: its PCI device
 * @vdev: its virtio device, while the driver is bound
 * @features: those that it offers besides VIRTIO_F_VERSION_1
 * @stuck: a reset never completes
 * @gone: it was removed by surprise: all bits read as set
 * @master_at_reset: bus mastering was enabled in the last reset
 * @reset_work: resets it
 * @suspend_work: suspends it
 * @done: either is done
 */
struct pci_test {
	struct um_pci_device um;
	u8 config[PCI_CFG_SPACE_SIZE];
	u8 regs[PCI_TEST_BAR_SIZE];
	struct pci_dev *pci_dev;
	struct virtio_device *vdev;
	u64 features;
	bool stuck;
	bool gone;
	bool master_at_reset;
	struct work_struct reset_work;
	struct work_struct suspend_work;
	struct completion done;
};

/* For probe, which has no other way to find the test. */
static struct pci_test *the_pci_test;

static struct pci_test *to_pci_test(struct um_pci_device *um)
{
	return container_of(um, struct pci_test, um);
}

static unsigned long get_bytes(const u8 *from, int size)
{
	unsigned long val = 0;

	memcpy(&val, from, size);
	return val;
}

static bool pci_test_is_master(struct pci_test *pci)
{
	return pci->config[PCI_COMMAND] & PCI_COMMAND_MASTER;
}

static unsigned long pci_test_config_read(struct um_pci_device *um,
					  unsigned int offset, int size)
{
	struct pci_test *pci = to_pci_test(um);

	if (pci->gone)
		return ULONG_MAX;
	if (offset + size > sizeof(pci->config))
		return 0;
	return get_bytes(pci->config + offset, size);
}

static void pci_test_config_write(struct um_pci_device *um, unsigned int offset,
				  int size, unsigned long val)
{
	struct pci_test *pci = to_pci_test(um);

	switch (offset) {
	case PCI_COMMAND:
		break;
	case PCI_BASE_ADDRESS_0:
		val &= ~(PCI_TEST_BAR_SIZE - 1UL);
		break;
	default:
		return;
	}
	if (!pci->gone)
		memcpy(pci->config + offset, &val, size);
}

static unsigned long pci_test_bar_read(struct um_pci_device *um, int bar,
				       unsigned int offset, int size)
{
	struct pci_test *pci = to_pci_test(um);

	if (pci->gone)
		return ULONG_MAX;
	if (offset == VIRTIO_PCI_COMMON_DF) {
		u64 features = pci->features | BIT_ULL(VIRTIO_F_VERSION_1);
		u32 select = get_bytes(pci->regs + VIRTIO_PCI_COMMON_DFSELECT, 4);

		return select < 2 ? (u32)(features >> 32 * select) : 0;
	}
	return get_bytes(pci->regs + offset, size);
}

static void pci_test_bar_write(struct um_pci_device *um, int bar,
			       unsigned int offset, int size, unsigned long val)
{
	struct pci_test *pci = to_pci_test(um);

	if (pci->gone)
		return;
	if (offset == VIRTIO_PCI_COMMON_STATUS && !val) {
		pci->master_at_reset = pci_test_is_master(pci);
		if (pci->stuck)
			return;
	}
	memcpy(pci->regs + offset, &val, size);
}

static const struct um_pci_ops pci_test_ops = {
	.cfgspace_read = pci_test_config_read,
	.cfgspace_write = pci_test_config_write,
	.bar_read = pci_test_bar_read,
	.bar_write = pci_test_bar_write,
};

static int pci_test_probe(struct virtio_device *vdev)
{
	the_pci_test->vdev = vdev;
	return 0;
}

static void pci_test_remove(struct virtio_device *vdev)
{
	virtio_reset_device(vdev);
	the_pci_test->vdev = NULL;
}

static int pci_test_freeze(struct virtio_device *vdev)
{
	virtio_reset_device(vdev);
	return 0;
}

static struct virtio_driver pci_test_driver = {
	.driver.name = "virtio_pci_test",
	.id_table = transport_test_ids,
	.probe = pci_test_probe,
	.remove = pci_test_remove,
	.freeze = pci_test_freeze,
};

static void pci_test_reset_work(struct work_struct *work)
{
	struct pci_test *pci = container_of(work, struct pci_test, reset_work);

	virtio_reset_device(pci->vdev);
	complete(&pci->done);
}

static void pci_test_suspend_work(struct work_struct *work)
{
	struct pci_test *pci = container_of(work, struct pci_test, suspend_work);

	scoped_guard(device, &pci->pci_dev->dev)
		pci->pci_dev->driver->driver.pm->suspend(&pci->pci_dev->dev);
	complete(&pci->done);
}

/* Fails if the work does not complete in time, and ends the reset. */
static void pci_test_run(struct kunit *test, struct work_struct *work, unsigned int ms)
{
	struct pci_test *pci = test->priv;

	queue_work(system_dfl_wq, work);
	if (!wait_for_completion_timeout(&pci->done, msecs_to_jiffies(ms))) {
		KUNIT_FAIL(test, "no end after %u ms", ms);
		pci->stuck = false;
		pci->gone = false;
		memset(pci->regs + VIRTIO_PCI_COMMON_STATUS, 0, 1);
	}
	flush_work(work);
	reinit_completion(&pci->done);
}

/* Bus mastering is off until a reset completes. */
static void pci_reset_never_ends(struct kunit *test)
{
	struct pci_test *pci = test->priv;

	KUNIT_ASSERT_TRUE(test, pci_test_is_master(pci));
	pci->stuck = true;
	pci_test_run(test, &pci->reset_work, RESET_MS);
	KUNIT_EXPECT_FALSE(test, pci_test_is_master(pci));

	pci->stuck = false;
	pci_test_run(test, &pci->reset_work, RESET_MS);
	KUNIT_EXPECT_FALSE(test, pci->master_at_reset);
	KUNIT_EXPECT_TRUE(test, pci_test_is_master(pci));
}

/* A resume does not enable bus mastering either. */
static void pci_reset_never_ends_in_suspend(struct kunit *test)
{
	struct pci_test *pci = test->priv;
	struct device *dev = &pci->pci_dev->dev;

	pci->stuck = true;
	pci_test_run(test, &pci->suspend_work, RESET_MS);
	KUNIT_EXPECT_FALSE(test, pci_test_is_master(pci));

	pci->stuck = false;
	pci->master_at_reset = true;
	scoped_guard(device, dev)
		KUNIT_EXPECT_EQ(test, dev->driver->pm->resume(dev), 0);
	KUNIT_EXPECT_FALSE(test, pci->master_at_reset);
	KUNIT_EXPECT_TRUE(test, pci_test_is_master(pci));
}

static void pci_reset_of_function_that_is_gone(struct kunit *test)
{
	struct pci_test *pci = test->priv;

	pci->gone = true;
	pci_test_run(test, &pci->reset_work, GONE_MS);
	pci->gone = false;
	/* Values read from the removed device were not written back. */
	KUNIT_EXPECT_TRUE(test, pci_test_is_master(pci));
}

static void pci_config_ends_early(struct kunit *test)
{
	struct pci_test *pci = test->priv;

	memset(pci->regs + PCI_TEST_DEVICE, 0x5a, 8);

	KUNIT_EXPECT_EQ(test, virtio_cread16(pci->vdev, 0), 0x5a5a);
	KUNIT_EXPECT_EQ(test, virtio_cread16(pci->vdev, 2), 0);
	KUNIT_EXPECT_EQ(test, virtio_cread32(pci->vdev, 0), 0);

	virtio_cwrite32(pci->vdev, 0, 0);
	KUNIT_EXPECT_EQ(test, pci->regs[PCI_TEST_DEVICE], 0x5a);
	virtio_cwrite16(pci->vdev, 0, 0);
	KUNIT_EXPECT_EQ(test, pci->regs[PCI_TEST_DEVICE], 0);
}

/* Binds the driver again, to a device with a feature that it did not have before. */
static void pci_test_offer(struct kunit *test, unsigned int feature)
{
	struct pci_test *pci = test->priv;
	struct device *dev = &pci->vdev->dev;

	device_release_driver(dev);
	pci->features |= BIT_ULL(feature);
	KUNIT_ASSERT_EQ(test, device_attach(dev), 1);
	KUNIT_ASSERT_TRUE(test, virtio_has_feature(pci->vdev, feature));
}

static void pci_reset_without_admin_queue(struct kunit *test)
{
	struct pci_test *pci = test->priv;

	pci_test_offer(test, VIRTIO_F_ADMIN_VQ);
	KUNIT_EXPECT_EQ(test, virtio_find_vqs(pci->vdev, 0, NULL, NULL, NULL), -EINVAL);
	virtio_reset_device(pci->vdev);
}

static void pci_admin_queue_among_others(struct kunit *test)
{
	struct pci_test *pci = test->priv;
	u8 *regs = pci->regs;

	pci_test_offer(test, VIRTIO_F_ADMIN_VQ);
	/* Without an interrupt there are no queues. */
	pci->pci_dev->irq = transport_test_irq();
	KUNIT_ASSERT_GT(test, (int)pci->pci_dev->irq, 0);
	put_unaligned_le16(1, regs + VIRTIO_PCI_COMMON_NUMQ);
	put_unaligned_le16(1, regs + VIRTIO_PCI_COMMON_ADM_Q_NUM);
	put_unaligned_le16(0, regs + VIRTIO_PCI_COMMON_ADM_Q_IDX);
	KUNIT_EXPECT_EQ(test, virtio_find_vqs(pci->vdev, 0, NULL, NULL, NULL), -EINVAL);
	put_unaligned_le16(1, regs + VIRTIO_PCI_COMMON_ADM_Q_IDX);
	/* The one with index 1 has no descriptors. */
	KUNIT_EXPECT_EQ(test, virtio_find_vqs(pci->vdev, 0, NULL, NULL, NULL), -ENOENT);
	irq_free_desc(pci->pci_dev->irq);
}

static void pci_test_cap(struct pci_test *pci, u8 at, u8 next, u8 len, u8 type,
			 u32 offset, u32 length)
{
	u8 *cap = pci->config + at;

	cap[VIRTIO_PCI_CAP_VNDR] = PCI_CAP_ID_VNDR;
	cap[VIRTIO_PCI_CAP_NEXT] = next;
	cap[VIRTIO_PCI_CAP_LEN] = len;
	cap[VIRTIO_PCI_CAP_CFG_TYPE] = type;
	put_unaligned_le32(offset, cap + VIRTIO_PCI_CAP_OFFSET);
	put_unaligned_le32(length, cap + VIRTIO_PCI_CAP_LENGTH);
}

static int pci_test_init(struct kunit *test)
{
	u8 len = sizeof(struct virtio_pci_cap);
	struct pci_test *pci;

	pci = kunit_kzalloc(test, sizeof(*pci), GFP_KERNEL);
	if (!pci)
		return -ENOMEM;
	put_unaligned_le16(PCI_VENDOR_ID_REDHAT_QUMRANET, pci->config + PCI_VENDOR_ID);
	put_unaligned_le16(0x1040 + TRANSPORT_TEST_ID, pci->config + PCI_DEVICE_ID);
	put_unaligned_le16(PCI_STATUS_CAP_LIST, pci->config + PCI_STATUS);
	put_unaligned_le16(PCI_CLASS_OTHERS << 8, pci->config + PCI_CLASS_DEVICE);
	pci->config[PCI_CAPABILITY_LIST] = 0x40;
	pci_test_cap(pci, 0x40, 0x50, len, VIRTIO_PCI_CAP_COMMON_CFG, 0, 0x100);
	pci_test_cap(pci, 0x50, 0x60, len, VIRTIO_PCI_CAP_ISR_CFG, PCI_TEST_ISR, 1);
	pci_test_cap(pci, 0x60, 0x78, sizeof(struct virtio_pci_notify_cap),
		     VIRTIO_PCI_CAP_NOTIFY_CFG, PCI_TEST_NOTIFY, 0x100);
	pci_test_cap(pci, 0x78, 0, len, VIRTIO_PCI_CAP_DEVICE_CFG, PCI_TEST_DEVICE,
		     PCI_TEST_DEVICE_LEN);
	INIT_WORK(&pci->reset_work, pci_test_reset_work);
	INIT_WORK(&pci->suspend_work, pci_test_suspend_work);
	init_completion(&pci->done);
	pci->um.ops = &pci_test_ops;

	the_pci_test = pci;
	KUNIT_ASSERT_EQ(test, um_pci_device_register(&pci->um), 0);
	test->priv = pci;
	pci->pci_dev = pci_get_device(PCI_VENDOR_ID_REDHAT_QUMRANET,
				      0x1040 + TRANSPORT_TEST_ID, NULL);
	KUNIT_ASSERT_NOT_NULL(test, pci->pci_dev);
	KUNIT_ASSERT_NOT_NULL(test, pci->vdev);
	return 0;
}

static void pci_test_exit(struct kunit *test)
{
	struct pci_test *pci = test->priv;

	if (!pci)
		return;
	if (pci->pci_dev) {
		pci_stop_and_remove_bus_device_locked(pci->pci_dev);
		pci_dev_put(pci->pci_dev);
	}
	um_pci_device_unregister(&pci->um);
}

static int pci_test_suite_init(struct kunit_suite *suite)
{
	return register_virtio_driver(&pci_test_driver);
}

static void pci_test_suite_exit(struct kunit_suite *suite)
{
	unregister_virtio_driver(&pci_test_driver);
}

static struct kunit_case pci_test_cases[] = {
	KUNIT_CASE_SLOW(pci_reset_never_ends),
	KUNIT_CASE_SLOW(pci_reset_never_ends_in_suspend),
	KUNIT_CASE(pci_reset_of_function_that_is_gone),
	KUNIT_CASE(pci_config_ends_early),
	KUNIT_CASE(pci_reset_without_admin_queue),
	KUNIT_CASE(pci_admin_queue_among_others),
	{}
};

static struct kunit_suite pci_test_suite = {
	.name = "virtio_pci",
	.suite_init = pci_test_suite_init,
	.suite_exit = pci_test_suite_exit,
	.init = pci_test_init,
	.exit = pci_test_exit,
	.test_cases = pci_test_cases,
};

/* MMIO */

#define MMIO_TEST_START		0xe0000000

/**
 * struct mmio_test - a device on the platform bus
 * @pdev: its platform device
 * @irq: its interrupt
 * @bound: the driver is bound
 * @interrupts: it has raised
 * @callbacks: calls of the driver for the last virtqueue
 * @vqs: the virtqueues of the driver
 * @buffer: the buffer of the driver in the last one
 * @status: its status
 * @features_sel: which features are read
 * @queue_sel: the queue that the registers belong to
 * @ready: queues that are in use
 * @used: address of the used ring of the last queue
 * @isr: the cause of the interrupt
 * @late: it uses a buffer of the last queue when the first one is disabled
 * @stays_ready: its queues cannot be disabled
 */
struct mmio_test {
	struct platform_device *pdev;
	int irq;

	bool bound;
	unsigned int interrupts;
	unsigned int callbacks;
	struct virtqueue *vqs[TRANSPORT_TEST_QUEUES];
	u8 buffer[16];

	u32 status;
	u32 features_sel;
	u32 queue_sel;
	bool ready[TRANSPORT_TEST_QUEUES];
	u64 used;
	u32 isr;
	bool late;
	bool stays_ready;
};

/* A region cannot be unregistered, so this one outlives the devices. */
static struct mmio_test *the_mmio_test;

static unsigned int mmio_test_queue(struct mmio_test *mmio)
{
	return min_t(u32, mmio->queue_sel, TRANSPORT_TEST_QUEUES - 1);
}

/* Uses one more buffer of the last queue, or reports that there is none. */
static void mmio_test_use(struct mmio_test *mmio)
{
	struct vring_used *used = phys_to_virt(mmio->used);

	used->idx = cpu_to_le16(le16_to_cpu(used->idx) + 1);
	mmio->isr = VIRTIO_MMIO_INT_VRING;
	mmio->interrupts++;
	generic_handle_irq_safe(mmio->irq);
}

static unsigned long mmio_test_read(void *priv, unsigned int offset, int size)
{
	struct mmio_test *mmio = the_mmio_test;

	switch (offset) {
	case VIRTIO_MMIO_MAGIC_VALUE:
		return 'v' | 'i' << 8 | 'r' << 16 | 't' << 24;
	case VIRTIO_MMIO_VERSION:
		return 2;
	case VIRTIO_MMIO_DEVICE_ID:
		return TRANSPORT_TEST_ID;
	case VIRTIO_MMIO_DEVICE_FEATURES:
		return mmio->features_sel == VIRTIO_F_VERSION_1 / 32 ?
			BIT(VIRTIO_F_VERSION_1 % 32) : 0;
	case VIRTIO_MMIO_QUEUE_NUM_MAX:
		return 4;
	case VIRTIO_MMIO_QUEUE_READY:
		return mmio->ready[mmio_test_queue(mmio)];
	case VIRTIO_MMIO_INTERRUPT_STATUS:
		return mmio->isr;
	case VIRTIO_MMIO_STATUS:
		return mmio->status;
	default:
		return 0;
	}
}

static void mmio_test_write(void *priv, unsigned int offset, int size,
			    unsigned long val)
{
	struct mmio_test *mmio = the_mmio_test;

	switch (offset) {
	case VIRTIO_MMIO_DEVICE_FEATURES_SEL:
		mmio->features_sel = val;
		break;
	case VIRTIO_MMIO_QUEUE_SEL:
		mmio->queue_sel = val;
		break;
	case VIRTIO_MMIO_QUEUE_READY:
		if (val || !mmio->stays_ready)
			mmio->ready[mmio_test_queue(mmio)] = val;
		if (!val && mmio->late && !mmio_test_queue(mmio))
			mmio_test_use(mmio);
		break;
	case VIRTIO_MMIO_QUEUE_USED_LOW:
		if (mmio_test_queue(mmio) == TRANSPORT_TEST_QUEUES - 1)
			mmio->used = val;
		break;
	case VIRTIO_MMIO_QUEUE_USED_HIGH:
		if (mmio_test_queue(mmio) == TRANSPORT_TEST_QUEUES - 1)
			mmio->used |= (u64)val << 32;
		break;
	case VIRTIO_MMIO_INTERRUPT_ACK:
		mmio->isr &= ~val;
		break;
	case VIRTIO_MMIO_STATUS:
		mmio->status = val;
		break;
	}
}

static const struct logic_iomem_ops mmio_test_ops = {
	.read = mmio_test_read,
	.write = mmio_test_write,
};

static long mmio_test_map(unsigned long offset, size_t size,
			  const struct logic_iomem_ops **ops, void **priv)
{
	*ops = &mmio_test_ops;
	return 0;
}

static const struct logic_iomem_region_ops mmio_test_region_ops = {
	.map = mmio_test_map,
};

static struct resource mmio_test_region =
	DEFINE_RES_MEM_NAMED(MMIO_TEST_START, SZ_4K, "virtio-mmio test");

static void mmio_test_callback(struct virtqueue *vq)
{
	the_mmio_test->callbacks++;
}

static int mmio_driver_probe(struct virtio_device *vdev)
{
	struct mmio_test *mmio = the_mmio_test;
	struct virtqueue_info infos[TRANSPORT_TEST_QUEUES] = {
		{ "first", mmio_test_callback },
		{ "last", mmio_test_callback },
	};
	struct virtqueue *last;
	struct scatterlist sg;
	int err;

	err = virtio_find_vqs(vdev, TRANSPORT_TEST_QUEUES, mmio->vqs, infos, NULL);
	if (err)
		return err;
	last = mmio->vqs[TRANSPORT_TEST_QUEUES - 1];
	sg_init_one(&sg, mmio->buffer, sizeof(mmio->buffer));
	virtio_device_ready(vdev);
	virtqueue_add_inbuf(last, &sg, 1, mmio->buffer, GFP_KERNEL);
	mmio->bound = true;
	return 0;
}

static void mmio_driver_remove(struct virtio_device *vdev)
{
	struct mmio_test *mmio = the_mmio_test;

	virtio_reset_device(vdev);
	virtqueue_detach_unused_buf(mmio->vqs[TRANSPORT_TEST_QUEUES - 1]);
	vdev->config->del_vqs(vdev);
	mmio->bound = false;
}

static struct virtio_driver mmio_test_driver = {
	.driver.name = "virtio_mmio_test",
	.id_table = transport_test_ids,
	.probe = mmio_driver_probe,
	.remove = mmio_driver_remove,
};

static void mmio_interrupt_while_queues_are_deleted(struct kunit *test)
{
	struct mmio_test *mmio = test->priv;

	/* It is able to. */
	mmio_test_use(mmio);
	KUNIT_EXPECT_EQ(test, mmio->callbacks, 1);

	mmio->late = true;
	platform_device_unregister(mmio->pdev);
	mmio->pdev = NULL;
	KUNIT_EXPECT_FALSE(test, mmio->bound);
	KUNIT_EXPECT_EQ(test, mmio->interrupts, 2);
	KUNIT_EXPECT_EQ(test, mmio->callbacks, 1);
}

/*
 * Of a device that says so, a message is enough. Once a kernel has warned of
 * something else, a WARN shows only with panic_on_warn.
 */
static void mmio_queue_stays_ready(struct kunit *test)
{
	struct mmio_test *mmio = test->priv;
	int warned = test_taint(TAINT_WARN);

	mmio->stays_ready = true;
	platform_device_unregister(mmio->pdev);
	mmio->pdev = NULL;
	KUNIT_EXPECT_FALSE(test, mmio->bound);
	KUNIT_EXPECT_EQ(test, test_taint(TAINT_WARN), warned);
}

static int mmio_test_init(struct kunit *test)
{
	struct mmio_test *mmio;

	mmio = kunit_kzalloc(test, sizeof(*mmio), GFP_KERNEL);
	if (!mmio)
		return -ENOMEM;
	mmio->irq = transport_test_irq();
	if (mmio->irq < 0)
		return mmio->irq;

	the_mmio_test = mmio;
	test->priv = mmio;
	mmio->pdev = platform_device_register_simple("virtio-mmio", PLATFORM_DEVID_AUTO,
						     (struct resource[]) {
			DEFINE_RES_MEM(MMIO_TEST_START, SZ_4K),
			DEFINE_RES_IRQ(mmio->irq),
		}, 2);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, mmio->pdev);
	KUNIT_ASSERT_TRUE(test, mmio->bound);
	return 0;
}

static void mmio_test_exit(struct kunit *test)
{
	struct mmio_test *mmio = test->priv;

	if (!mmio)
		return;
	if (!IS_ERR(mmio->pdev))
		platform_device_unregister(mmio->pdev);
	irq_free_desc(mmio->irq);
}

static int mmio_test_suite_init(struct kunit_suite *suite)
{
	/* From a run before. */
	if (!mmio_test_region.parent) {
		int err = logic_iomem_add_region(&mmio_test_region, &mmio_test_region_ops);

		if (err)
			return err;
	}
	return register_virtio_driver(&mmio_test_driver);
}

static void mmio_test_suite_exit(struct kunit_suite *suite)
{
	unregister_virtio_driver(&mmio_test_driver);
}

static struct kunit_case mmio_test_cases[] = {
	KUNIT_CASE(mmio_interrupt_while_queues_are_deleted),
	KUNIT_CASE(mmio_queue_stays_ready),
	{}
};

static struct kunit_suite mmio_test_suite = {
	.name = "virtio_mmio",
	.suite_init = mmio_test_suite_init,
	.suite_exit = mmio_test_suite_exit,
	.init = mmio_test_init,
	.exit = mmio_test_exit,
	.test_cases = mmio_test_cases,
};

kunit_test_suites(&pci_test_suite, &mmio_test_suite);

MODULE_DESCRIPTION("KUnit tests of virtio over PCI and over MMIO");
MODULE_LICENSE("GPL");
