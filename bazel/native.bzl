# SPDX-License-Identifier: MIT
"""Compiler options of the C code, for every configuration, also in workspaces that depend on this one."""

C_COPTS = [
    "-std=c11",
    "-Wall",
    "-Wextra",
    "-fvisibility=hidden",
] + select({
    str(Label("//bazel:sanitized")): [
        "-O1",
        "-g",
        "-fno-omit-frame-pointer",
    ],
    "//conditions:default": [
        "-O3",
        "-fstack-protector-strong",
        "-U_FORTIFY_SOURCE",
        "-D_FORTIFY_SOURCE=2",
    ],
})

C_LINKOPTS = select({
    "@platforms//os:linux": [
        "-Wl,-z,relro",
        "-Wl,-z,now",
        "-Wl,-z,noexecstack",
    ],
    "//conditions:default": [],
})

# CPU levels to test in addition to the best one of the machine (native/cpu.h).
LEVELS = [
    "avx2",
    "plain",
]
