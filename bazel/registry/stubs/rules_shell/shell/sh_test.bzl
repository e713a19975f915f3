# SPDX-License-Identifier: MIT
"""The rule for shell tests that is built into Bazel 7."""

sh_test = native.sh_test
