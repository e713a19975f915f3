# SPDX-License-Identifier: MIT
"""The engine: the only modules that load the C extension, and the types that they return."""
