# SPDX-License-Identifier: MIT
"""The sources of tests/vectors: handmade bytes and expectations, one module for each file."""
