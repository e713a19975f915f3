# SPDX-License-Identifier: MIT
"""The hand-made sources of tests/vectors: bytes and expectations, a module per file."""
