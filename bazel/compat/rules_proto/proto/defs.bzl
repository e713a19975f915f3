# SPDX-License-Identifier: MIT
"""The protobuf rules that Bazel 4.2.3 has built in."""

load(":native.bzl", "NativeProtoInfo")

ProtoInfo = NativeProtoInfo
proto_lang_toolchain = native.proto_lang_toolchain
proto_library = native.proto_library
