# SPDX-License-Identifier: MIT
"""protoc with the Python and gRPC generators of grpcio-tools; takes protoc's arguments."""

import sys

from grpc_tools import protoc

if __name__ == "__main__":
    sys.exit(protoc.main(["protoc", *sys.argv[1:]]))
