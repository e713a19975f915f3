# SPDX-License-Identifier: MIT
"""How the C code is compiled: options that hold in every configuration and in consumers too."""

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

C_LINKOPTS = [
    "-Wl,-z,relro",
    "-Wl,-z,now",
    "-Wl,-z,noexecstack",
]

# Levels of CPUs to test as well, besides the best one that the machine has (native/cpu.h).
LEVELS = [
    "avx2",
    "plain",
]
