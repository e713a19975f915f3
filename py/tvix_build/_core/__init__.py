# SPDX-License-Identifier: MIT
"""The engine: the only modules that load the C extension, and the types of what they return."""
