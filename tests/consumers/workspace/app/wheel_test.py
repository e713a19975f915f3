# SPDX-License-Identifier: MIT
"""The wheel builds here, too, and has what it has at home."""

import sys
import zipfile

files = zipfile.ZipFile(sys.argv[1]).namelist()
for file in ("tvix_build/_native.abi3.so", "tvix/build/protos/build_pb2.py"):
    assert file in files, f"no {file} in {files}"
