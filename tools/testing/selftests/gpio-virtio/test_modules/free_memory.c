// SPDX-License-Identifier: GPL-2.0-only
/*
 * Finds out whether a device writes to memory that its driver has freed.
 *
 * Takes nearly all pages that are free, and fills them with a pattern that a device does not
 * write. In debugfs, below free_memory/:
 *
 *   take      write anything
 *   give      write anything: frees them
 *   pages     read: how many there are
 *   changed   read: how many bytes have changed since
 */

#include <linux/cleanup.h>
#include <linux/debugfs.h>
#include <linux/fs.h>
#include <linux/gfp.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/sched.h>
#include <linux/vmstat.h>

#define PATTERN 0x5a

static DEFINE_MUTEX(lock);
static LIST_HEAD(pages);
static unsigned long count;
static struct dentry *dir;

static void give_locked(void)
{
	struct page *page, *next;

	list_for_each_entry_safe(page, next, &pages, lru)
		__free_page(page);
	INIT_LIST_HEAD(&pages);
	count = 0;
}

static ssize_t give_write(struct file *file, const char __user *from, size_t size, loff_t *pos)
{
	guard(mutex)(&lock);
	give_locked();
	return size;
}

static const struct file_operations give_fops = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.write = give_write,
};

static ssize_t take_write(struct file *file, const char __user *from, size_t size, loff_t *pos)
{
	/* The rest is for other allocations, some of which are of adjacent pages. */
	unsigned long reserve = totalram_pages() / 16;
	struct page *page;

	guard(mutex)(&lock);
	while (global_zone_page_state(NR_FREE_PAGES) > reserve) {
		page = alloc_page(GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN);
		if (!page)
			break;
		memset(page_address(page), PATTERN, PAGE_SIZE);
		list_add(&page->lru, &pages);
		count++;
		cond_resched();
	}
	return size;
}

static const struct file_operations take_fops = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.write = take_write,
};

static int changed_get(void *data, u64 *value)
{
	struct page *page;
	unsigned int i;
	u8 *bytes;

	*value = 0;
	guard(mutex)(&lock);
	list_for_each_entry(page, &pages, lru) {
		bytes = page_address(page);
		if (!memchr_inv(bytes, PATTERN, PAGE_SIZE))
			continue;
		for (i = 0; i < PAGE_SIZE; i++)
			*value += bytes[i] != PATTERN;
		print_hex_dump(KERN_INFO, "changed: ", DUMP_PREFIX_OFFSET, 16, 1, bytes, PAGE_SIZE,
			       false);
	}
	return 0;
}
DEFINE_DEBUGFS_ATTRIBUTE(changed_fops, changed_get, NULL, "%llu\n");

static int __init free_memory_init(void)
{
	dir = debugfs_create_dir("free_memory", NULL);
	debugfs_create_file("take", 0200, dir, NULL, &take_fops);
	debugfs_create_file("give", 0200, dir, NULL, &give_fops);
	debugfs_create_ulong("pages", 0400, dir, &count);
	debugfs_create_file_unsafe("changed", 0400, dir, NULL, &changed_fops);
	return 0;
}
module_init(free_memory_init);

static void __exit free_memory_exit(void)
{
	debugfs_remove(dir);
	give_locked();
}
module_exit(free_memory_exit);

MODULE_DESCRIPTION("Watches free memory, for tests");
MODULE_LICENSE("GPL");
