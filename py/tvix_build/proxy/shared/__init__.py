# SPDX-License-Identifier: MIT
"""What the client and the proxy share: services, addresses, channel options and checks. No module
here imports grpcio."""
