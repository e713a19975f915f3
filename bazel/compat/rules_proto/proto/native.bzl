# SPDX-License-Identifier: MIT
"""ProtoInfo under another name: a .bzl file cannot re-export a built-in under its own."""

NativeProtoInfo = ProtoInfo
