# SPDX-License-Identifier: MIT
"""The C code compiles without warnings for each platform that has wheels, with the compiler of the
package `ziglang`. Python's headers are those of this machine."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TARGETS = (
    "aarch64-linux-musl",
    "aarch64-macos",
    "x86_64-linux-musl",
    "x86_64-macos",
    "x86_64-windows-gnu",
)
WINDOWS_CONFIG = """
#define MS_WINDOWS
#define MS_WIN64
#define HAVE_BUILTIN_ATOMIC 1
#define HAVE_STDDEF_H 1
#define HAVE_SYS_TYPES_H 1
#define HAVE_SYS_STAT_H 1
#define SIZEOF_LONG 4
#define SIZEOF_LONG_LONG 8
#define SIZEOF_SIZE_T 8
#define SIZEOF_VOID_P 8
#define SIZEOF_WCHAR_T 2
typedef long long Py_ssize_t;
#define HAVE_PY_SSIZE_T 1
#define PY_SSIZE_T_MAX 0x7fffffffffffffff
"""
"""What the headers need of the pyconfig.h that Python has on Windows."""

BLAKE3 = [*ROOT.parent.glob("*tvix_build_blake3/c"), *ROOT.glob("third_party/blake3")]  # Bazel's

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not importlib.util.find_spec("ziglang"), reason="needs ziglang"),
    pytest.mark.skipif(not importlib.util.find_spec("cffi"), reason="needs cffi"),
    pytest.mark.skipif(not BLAKE3, reason="needs the C code of BLAKE3"),
]


@pytest.fixture(scope="module")
def extension(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the C code that cffi makes of the extension."""
    code = tmp_path_factory.mktemp("extension") / "extension.c"
    subprocess.run([sys.executable, str(ROOT / "py" / "build_native.py"), str(code)], check=True)
    return code


def python_headers(target: str, directory: Path) -> Path:
    """Return the directory with Python's headers for a target."""
    headers = Path(sysconfig.get_path("include"))
    if "windows" not in target:
        return headers
    shutil.copytree(headers, directory / "include", ignore=shutil.ignore_patterns("internal"))
    (directory / "include" / "pyconfig.h").write_text(WINDOWS_CONFIG)
    return directory / "include"


@pytest.mark.parametrize("target", TARGETS)
def test_compiles(target: str, extension: Path, tmp_path: Path) -> None:
    sources = [*sorted((ROOT / "native").glob("*.c")), extension]
    include = [ROOT / "native", BLAKE3[0], python_headers(target, tmp_path)]
    command = [
        *(sys.executable, "-m", "ziglang", "cc", "-target", target, "-std=c11", "-c"),
        *("-Wall", "-Wextra", "-Werror", "-DPy_LIMITED_API=0x030A0000", "-o", "code.o"),
        *(f"-I{path}" for path in include),
    ]
    for source in sources:
        done = subprocess.run(
            [*command, str(source)], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
