# SPDX-License-Identifier: MIT
"""PyInfo under another name: a .bzl file cannot re-export a built-in symbol under the same name."""

NativePyInfo = PyInfo
