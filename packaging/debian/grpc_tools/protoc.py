# SPDX-License-Identifier: MIT
"""Runs Debian's protoc in place of that of grpcio-tools, whose version in Debian 12 is too old."""

from __future__ import annotations

import subprocess

PLUGIN = "--plugin=protoc-gen-grpc_python=/usr/bin/grpc_python_plugin"


def main(arguments: list[str]) -> int:
    """Run protoc, whose name is the first argument, and return its exit status."""
    return subprocess.run([arguments[0], PLUGIN, *arguments[1:]]).returncode
