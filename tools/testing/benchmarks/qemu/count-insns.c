// SPDX-License-Identifier: GPL-2.0-only
/*
 * A plugin of QEMU's emulator that counts the instructions which the guest executes. Each
 * time the guest comes to a marker, an instruction that does nothing, it prints their number
 * so far: see mark() in section.c.
 *
 * Declares what it uses of QEMU's interface for plugins itself, as distributions do not ship
 * the header.
 */

#include <inttypes.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;

enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };

typedef void (*executed)(unsigned int cpu, void *data);

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id,
					   void (*callback)(qemu_plugin_id_t id,
							    struct qemu_plugin_tb *block));
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *block, size_t index);
size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *insn, void *to, size_t length);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *block, executed callback,
					  enum qemu_plugin_cb_flags flags, void *data);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn, executed callback,
					    enum qemu_plugin_cb_flags flags, void *data);
void qemu_plugin_outs(const char *text);

EXPORT int qemu_plugin_version = 2;

static atomic_uint_least64_t total;

static void block_executed(unsigned int cpu, void *instructions)
{
	(void)cpu;
	atomic_fetch_add_explicit(&total, (uintptr_t)instructions, memory_order_relaxed);
}

static void marker_executed(unsigned int cpu, void *data)
{
	char text[32];

	(void)cpu;
	(void)data;
	snprintf(text, sizeof(text), "%" PRIu64 "\n", (uint64_t)total);
	qemu_plugin_outs(text);
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *block)
{
	/* nopl 0x47504942(%rax,%rax,1) */
	static const unsigned char marker[] = { 0x0f, 0x1f, 0x84, 0x00, 0x42, 0x49, 0x50, 0x47 };
	size_t count = qemu_plugin_tb_n_insns(block), i;
	unsigned char bytes[sizeof(marker)];

	(void)id;
	qemu_plugin_register_vcpu_tb_exec_cb(block, block_executed, QEMU_PLUGIN_CB_NO_REGS,
					     (void *)(uintptr_t)count);
	for (i = 0; i < count; i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(block, i);

		if (qemu_plugin_insn_data(insn, bytes, sizeof(bytes)) == sizeof(bytes) &&
		    !memcmp(bytes, marker, sizeof(marker)))
			qemu_plugin_register_vcpu_insn_exec_cb(insn, marker_executed,
							       QEMU_PLUGIN_CB_NO_REGS, NULL);
	}
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv)
{
	(void)info;
	(void)argc;
	(void)argv;
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	return 0;
}
