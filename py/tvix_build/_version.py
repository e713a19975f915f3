# SPDX-License-Identifier: MIT
"""The project's version: the wheel, the command line and the tests read it here."""

__version__ = "0.1.0"
