# SPDX-License-Identifier: MIT
"""The cffi builder of tvix_build._native. The interface consists of the marked parts of HEADERS and
SOURCES.

setuptools calls `ffibuilder` (cffi_modules in setup.py). Bazel runs this file as a program, which
writes the C code of the extension to the file in the argument, and compiles that file itself.
"""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path
from typing import Any

import cffi

ROOT = Path(__file__).parents[1]
HEADERS = [
    ROOT / "native" / f"{name}.h"
    for name in ("tvix_build", "arrow", "files", "mounts", "references")
]
SOURCES = [ROOT / "py" / f"{name}.c" for name in ("byte_rows", "capsules", "pieces", "single")]
MODULE = "tvix_build._native"
LIMITED_API = ("Py_LIMITED_API", "0x030A0000")  # Python 3.10
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))  # It has no limited API.
BLAKE3 = ["blake3.c", "blake3_dispatch.c", "blake3_portable.c"]  # for any processor
HARDENED = [
    "-Wl,-z,relro",
    "-Wl,-z,now",
    "-Wl,-z,noexecstack",
    "-Wl,--version-script=py/native.lds",
]
BEGIN, END = "/* cffi: begin */", "/* cffi: end */"


def declarations(header: str) -> str:
    """Return the part between the marks, without the attributes that cffi does not support."""
    marked = header.partition(BEGIN)[2].partition(END)
    if not marked[1]:
        raise ValueError(f"expected {BEGIN} and {END}")
    return marked[0].replace("TVIXB_API ", "")


def make_builder(**options: Any) -> cffi.FFI:
    """Return a builder of the extension. The options are those of setuptools.Extension."""
    builder = cffi.FFI()
    for file in [*HEADERS, *SOURCES]:
        builder.cdef(declarations(file.read_text()))
    code = "".join(f'#include "{header.name}"\n' for header in HEADERS)
    code += "".join(source.read_text() for source in SOURCES)
    builder.set_source(MODULE, code, py_limited_api=not FREE_THREADED, **options)
    return builder


def blake3_of(platform: str) -> list[str]:
    """Return the official C code of BLAKE3 for a platform, such as `macosx-11.0-arm64`."""
    if platform.endswith(("-x86_64", "-amd64")):
        system = "windows_gnu" if platform.startswith("win") else "unix"
        levels = ("avx2", "avx512", "sse2", "sse41")
        return [*BLAKE3, *(f"blake3_{level}_x86-64_{system}.S" for level in levels)]
    if platform.endswith(("-aarch64", "-arm64")):
        return [*BLAKE3, "blake3_neon.c"]
    return BLAKE3


def ffibuilder() -> cffi.FFI:
    """Return the builder with all files for setuptools. Paths are relative to the project root."""
    blake3 = Path("third_party", "blake3")
    platform = sysconfig.get_platform()
    sources = [*Path("native").glob("*.c"), *(blake3 / name for name in blake3_of(platform))]
    depends = [*Path("native").glob("*.h"), *Path("py").glob("*.c"), blake3 / "blake3_impl.h"]
    return make_builder(
        # setup.py compiles several files at a time, so those that take longest come first.
        sources=sorted(map(str, sources), key=lambda source: ("schemas_" not in source, source)),
        depends=sorted(map(str, depends)),
        include_dirs=["native", str(blake3)],
        define_macros=[] if FREE_THREADED else [LIMITED_API],
        extra_compile_args=[
            "-std=c11",
            "-O3",
            "-g0",
            "-fvisibility=hidden",
            "-fstack-protector-strong",
            "-U_FORTIFY_SOURCE",
            "-D_FORTIFY_SOURCE=2",
        ],
        extra_link_args=HARDENED if platform.startswith("linux") else [],
    )


if __name__ == "__main__":
    make_builder().emit_c_code(sys.argv[1])
