# SPDX-License-Identifier: MIT
"""The Java rules that Bazel 4.2.3 has built in."""

java_binary = native.java_binary
java_import = native.java_import
java_library = native.java_library
java_runtime = native.java_runtime
java_test = native.java_test
java_toolchain = native.java_toolchain
