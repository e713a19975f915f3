# SPDX-License-Identifier: MIT
"""The rule for shell tests that is built into Bazel 4.2.3."""

sh_test = native.sh_test
