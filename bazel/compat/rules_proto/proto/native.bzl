# SPDX-License-Identifier: MIT
"""ProtoInfo under another name: a .bzl file cannot re-export a built-in symbol under the same name."""

NativeProtoInfo = ProtoInfo
