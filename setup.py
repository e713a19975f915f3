# SPDX-License-Identifier: MIT
"""Builds the wheel and the source distribution with setuptools, in addition to pyproject.toml.

It generates the modules snix/** and tvix/** from proto/ with grpcio-tools, compiles the extension
with py/build_native.py, and copies the official C code of BLAKE3 to third_party/blake3, which the
source distribution contains.

A package index does not know where the repository is, so the release workflow names it in
TVIX_BUILD_REPOSITORY; the links of the README and the project's links then lead there.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import re
import runpy
import shutil
import tarfile
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from setuptools import setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

PROTO = Path("proto")
BLAKE3 = Path("third_party", "blake3")
BLAKE3_FILES = [
    *("blake3.c", "blake3.h", "blake3_dispatch.c", "blake3_impl.h", "blake3_portable.c"),
    *(f"blake3_{name}_x86-64_unix.S" for name in ("sse2", "sse41", "avx2", "avx512")),
    "blake3_neon.c",
]
BLAKE3_DEBIAN = Path("/usr/share/cargo/registry")
BLAKE3_RELEASE = "https://github.com/BLAKE3-team/BLAKE3/archive/refs/tags/1.8.2.tar.gz"
BLAKE3_SHA256 = "6b51aefe515969785da02e87befafc7fdc7a065cd3458cf1141f29267749e81f"


def with_absolute_links(readme: str, repository: str, tag: str) -> str:
    """Return the README with links to files of `repository`, the address of its web pages."""
    text = re.sub(r"(!\[[^]]*\]\()(?!https?:)", rf"\1{repository}/raw/{tag}/", readme)
    return re.sub(r"((?<!!)\[[^]]*\]\()(?!https?:|#)", rf"\1{repository}/blob/{tag}/", text)


def project_links(repository: str, tag: str) -> dict[str, str]:
    """Return the links that package indexes show beside the description."""
    return {
        "Source": repository,
        "Documentation": f"{repository}/tree/{tag}/docs",
        "Changelog": f"{repository}/blob/{tag}/CHANGELOG.md",
        "Issues": f"{repository}/issues",
    }


def index_page() -> dict[str, Any]:
    """Return the arguments of `setup` for the page of a package index."""
    readme = Path("README.md").read_text()
    repository = os.environ.get("TVIX_BUILD_REPOSITORY", "").rstrip("/")
    tag = "v" + runpy.run_path("py/tvix_build/_version.py")["__version__"]
    return {
        "long_description": with_absolute_links(readme, repository, tag) if repository else readme,
        "long_description_content_type": "text/markdown",
        "project_urls": project_links(repository, tag) if repository else {},
    }


def blake3_release() -> dict[str, bytes]:
    """Return the names and contents of the files in the C directory of the release archive."""
    with urllib.request.urlopen(BLAKE3_RELEASE) as response:
        archive = response.read()
    if hashlib.sha256(archive).hexdigest() != BLAKE3_SHA256:
        raise RuntimeError(f"{BLAKE3_RELEASE}: expected the SHA-256 {BLAKE3_SHA256}")
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        return {
            Path(member.name).name: file.read()
            for member in members
            if Path(member.name).parent.name == "c" and (file := members.extractfile(member))
        }


def blake3_files() -> dict[str, bytes]:
    """Return the official C code from the same places as bazel/blake3_repository.bzl."""
    debian = [directory / "c" for directory in BLAKE3_DEBIAN.glob("blake3-*")]
    named = os.environ.get("BLAKE3_C_DIR")
    for directory in [Path(named)] if named else debian:
        return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}
    return blake3_release()


def provide_blake3() -> None:
    """Fill third_party/blake3, unless this is a source distribution that contains it."""
    if Path("PKG-INFO").exists() and all((BLAKE3 / name).exists() for name in BLAKE3_FILES):
        return
    files = blake3_files()
    shutil.rmtree(BLAKE3, ignore_errors=True)
    BLAKE3.mkdir(parents=True)
    for name in BLAKE3_FILES:
        (BLAKE3 / name).write_bytes(files[name])


def generate_protobuf_modules(directory: Path) -> None:
    """Write the modules snix/** and tvix/**, and their stubs, to `directory`."""
    from grpc_tools import protoc

    protos = sorted(str(path) for path in PROTO.rglob("*.proto"))
    services = [path for path in protos if Path(path).name.startswith("rpc_")]
    directory.mkdir(parents=True, exist_ok=True)
    for options, files in [
        ([f"--python_out={directory}", f"--pyi_out={directory}"], protos),
        ([f"--grpc_python_out={directory}"], services),
    ]:
        if protoc.main(["protoc", f"-I{PROTO}", *options, *files]):
            raise RuntimeError("protoc failed")
    for marker in PROTO.rglob("py.typed"):
        shutil.copyfile(marker, directory / marker.relative_to(PROTO))


class BuildPy(build_py):
    """Adds the generated modules, beside the package in an editable installation."""

    def run(self) -> None:
        super().run()
        generate_protobuf_modules(Path("py") if self.editable_mode else Path(self.build_lib))


class BuildExt(build_ext):
    """Also compiles the assembly of BLAKE3, and several files at a time."""

    def build_extensions(self) -> None:
        if ".S" not in self.compiler.src_extensions:
            self.compiler.src_extensions.append(".S")
        compile_some = self.compiler.compile

        def compile_all(sources: list[str], *args: Any, **options: Any) -> list[str]:
            with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
                objects = pool.map(lambda one: compile_some([one], *args, **options), sources)
                return list(itertools.chain.from_iterable(objects))

        self.compiler.compile = compile_all
        super().build_extensions()


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parent)
    provide_blake3()
    setup(
        cffi_modules=["py/build_native.py:ffibuilder"],
        cmdclass={"build_ext": BuildExt, "build_py": BuildPy},
        options={"bdist_wheel": {"py_limited_api": "cp310"}},
        **index_page(),
    )
