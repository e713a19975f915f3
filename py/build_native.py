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
HEADERS = [ROOT / "native" / f"{name}.h" for name in ("tvix_build", "arrow", "files")]
SOURCES = [ROOT / "py" / f"{name}.c" for name in ("byte_rows", "capsules", "pieces", "single")]
MODULE = "tvix_build._native"
LIMITED_API = ("Py_LIMITED_API", "0x030A0000")  # Python 3.10
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))  # It has no limited API.
# The official C code of BLAKE3, and that for one kind of processor.
BLAKE3 = ["blake3.c", "blake3_dispatch.c", "blake3_portable.c"]
BLAKE3_OF_PLATFORM = {
    "linux-x86_64": [
        f"blake3_{name}_x86-64_unix.S" for name in ("avx2", "avx512", "sse2", "sse41")
    ],
    "linux-aarch64": ["blake3_neon.c"],
}
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


def ffibuilder() -> cffi.FFI:
    """Return the builder with all files for setuptools. Paths are relative to the project root."""
    blake3 = Path("third_party", "blake3")
    special = BLAKE3_OF_PLATFORM.get(sysconfig.get_platform(), [])
    sources = [*Path("native").glob("*.c"), *(blake3 / name for name in [*BLAKE3, *special])]
    depends = [*Path("native").glob("*.h"), *Path("py").glob("*.c"), blake3 / "blake3_impl.h"]
    return make_builder(
        sources=sorted(map(str, sources)),
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
        extra_link_args=[
            "-Wl,-z,relro",
            "-Wl,-z,now",
            "-Wl,-z,noexecstack",
            "-Wl,--version-script=py/native.lds",
        ],
    )


if __name__ == "__main__":
    make_builder().emit_c_code(sys.argv[1])
