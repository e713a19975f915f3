#!/bin/sh
# SPDX-License-Identifier: MIT
# Runs its arguments as a command, for command_test.bzl.
exec "$@"
