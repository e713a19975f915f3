# SPDX-License-Identifier: MIT
"""The command line: `commands` has the commands; the rest reads files, checks, and writes."""
