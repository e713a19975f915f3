# SPDX-License-Identifier: MIT
"""The package and the command run with the Python and the protobuf of this workspace."""

import subprocess
import sys

import google.protobuf

import tvix_build

version, program = sys.argv[1:]
assert version == f"{sys.version_info.major}.{sys.version_info.minor}", sys.version
assert google.protobuf.__version__.startswith("6."), google.protobuf.__file__
assert "consumer_pypi" in google.protobuf.__file__, google.protobuf.__file__

request = tvix_build.build_request(
    command_args=["/bin/true"], outputs=["out"], system="x86_64-linux"
)
assert tvix_build.check(request).canonical

result = subprocess.run(
    [program, "validate", "--input-format=binpb", "-"],
    input=request.SerializeToString(),
    stdout=subprocess.PIPE,
    check=True,
)
print(result.stdout.decode())
