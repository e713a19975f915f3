// SPDX-License-Identifier: MIT
//
// A plugin of QEMU (API version 1) that prints the number of instructions that
// a process executes. The declarations are those of qemu-plugin.h, which Debian
// 12 does not have.
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
void qemu_plugin_register_vcpu_tb_trans_cb(
    plugin_id id, void (*callback)(plugin_id, struct qemu_plugin_tb*));
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb* block,
                                              int operation, void* counter,
                                              uint64_t value);
void qemu_plugin_register_atexit_cb(plugin_id id,
                                    void (*callback)(plugin_id, void*),
                                    void* data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb* block);
#define ADD 0

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

static uint64_t count;

static void translate(plugin_id id, struct qemu_plugin_tb* block) {
  (void)id;
  qemu_plugin_register_vcpu_tb_exec_inline(block, ADD, &count,
                                           qemu_plugin_tb_n_insns(block));
}

static void end(plugin_id id, void* data) {
  (void)id, (void)data;
  fprintf(stderr, "%llu\n", (unsigned long long)count);
}

__attribute__((visibility("default"))) int qemu_plugin_install(plugin_id id,
                                                               const void* info,
                                                               int argc,
                                                               char** argv) {
  (void)info, (void)argc, (void)argv;
  qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
  qemu_plugin_register_atexit_cb(id, end, NULL);
  return 0;
}
