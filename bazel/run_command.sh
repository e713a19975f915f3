#!/bin/sh
# SPDX-License-Identifier: MIT
# Runs its arguments as a command. Used by command_test.bzl.
exec "$@"
