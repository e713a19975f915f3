# SPDX-License-Identifier: MIT
"""Reads and writes files of records."""
