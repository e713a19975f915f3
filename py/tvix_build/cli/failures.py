# SPDX-License-Identifier: MIT
"""The error of a builder."""


class FailedError(Exception):
    """A builder returned no response, and the error has been printed."""
