# SPDX-License-Identifier: MIT
"""What the client and the door share: services, addresses, checks. Needs no package but grpcio, and
that only where something is sent."""
