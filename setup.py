# SPDX-License-Identifier: MIT
"""Builds the wheel and the source distribution with setuptools, in addition to pyproject.toml.

It generates the modules reapi/**, snix/**, tvix/** and tvix_build/plan/v1/** from proto/ with
grpcio-tools, and compiles the extension with py/build_native.py and the official C code of BLAKE3
in third_party/blake3. A source distribution contains that code, of the release whose files have the
hashes in py/blake3.sha256. In a checkout, the commands that need the code copy or download it.

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
import sysconfig
import tarfile
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from setuptools import setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist
from setuptools.errors import SetupError

PROTO = Path("proto")
BLAKE3 = Path("third_party", "blake3")
BLAKE3_SUMS = Path("py", "blake3.sha256")  # of the release, as sha256sum writes it
BLAKE3_DEBIAN = Path("/usr/share/cargo/registry")
BLAKE3_RELEASE = "https://github.com/BLAKE3-team/BLAKE3/archive/refs/tags/1.8.2.tar.gz"


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


def blake3_sums() -> dict[str, str]:
    """Return the names of the files of BLAKE3 that the builds need, and their hashes."""
    lines = BLAKE3_SUMS.read_text().splitlines()
    return {name: digest for digest, name in (line.split() for line in lines)}


def unusable_files(files: dict[str, bytes], *, release: bool) -> list[str]:
    """Return the names of missing files and, with `release`, of those with another hash."""
    return [
        name
        for name, digest in blake3_sums().items()
        if name not in files or (release and hashlib.sha256(files[name]).hexdigest() != digest)
    ]


def download_blake3() -> dict[str, bytes]:
    """Return the names and contents of the files in the C directory of the release archive."""
    try:
        with urllib.request.urlopen(BLAKE3_RELEASE) as response:
            archive = response.read()
    except OSError as error:
        raise SetupError(
            f"cannot download {BLAKE3_RELEASE}: {error}; "
            "set BLAKE3_C_DIR to the directory `c` of this release"
        ) from error
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        return {
            Path(member.name).name: file.read()
            for member in members
            if Path(member.name).parent.name == "c" and (file := members.extractfile(member))
        }


def find_blake3(*, release: bool) -> dict[str, bytes]:
    """Return the files of the directory in BLAKE3_C_DIR, else of the first usable source."""
    named = os.environ.get("BLAKE3_C_DIR")
    debian = [directory / "c" for directory in BLAKE3_DEBIAN.glob("blake3-*")]
    for directory in [Path(named)] if named else [BLAKE3, *debian]:
        paths = [directory / name for name in blake3_sums()]
        files = {path.name: path.read_bytes() for path in paths if path.exists()}
        unusable = unusable_files(files, release=release)
        if not unusable:
            return files
        if named:
            raise SetupError(
                f"BLAKE3_C_DIR={named}: expected the files of {BLAKE3_RELEASE}, "
                f"which are missing or differ: {', '.join(unusable)}"
            )
    files = download_blake3()
    if unusable := unusable_files(files, release=True):
        raise SetupError(
            f"{BLAKE3_RELEASE}: expected the hashes of {BLAKE3_SUMS}, "
            f"found others for {', '.join(unusable)}"
        )
    return files


def provide_blake3(*, release: bool) -> None:
    """Fill third_party/blake3, unless this is a source distribution. With `release`, only the files
    of the release are usable."""
    if Path("PKG-INFO").exists():
        return
    files = find_blake3(release=release)
    BLAKE3.mkdir(parents=True, exist_ok=True)
    for name in blake3_sums():
        path = BLAKE3 / name
        if not path.exists() or path.read_bytes() != files[name]:  # else nothing to compile again
            path.write_bytes(files[name])


def generate_protobuf_modules(directory: Path) -> None:
    """Write the modules reapi/**, snix/**, tvix/** and tvix_build/plan/v1/**, and their stubs, to
    `directory`."""
    from grpc_tools import protoc

    protos = sorted(str(path) for path in PROTO.rglob("*.proto"))
    # Modules of grpcio-tools have no types, and the types of tvix_build are complete.
    services = [
        path
        for path in protos
        if Path(path).name.startswith("rpc_") and "tvix_build" not in Path(path).parts
    ]
    directory.mkdir(parents=True, exist_ok=True)
    for options, files in [
        ([f"--python_out={directory}", f"--pyi_out={directory}"], protos),
        ([f"--grpc_python_out={directory}"], services),
    ]:
        if protoc.main(["protoc", f"-I{PROTO}", *options, *files]):
            raise RuntimeError("protoc failed")
    # Type checkers see these stubs as part of the package, whose types are complete.
    for stub in (directory / "tvix_build").rglob("*_pb2.pyi"):
        stub.write_text(stub.read_text().replace("_Mapping]", "_Mapping[str, object]]"))
    for marker in PROTO.rglob("py.typed"):
        shutil.copyfile(marker, directory / marker.relative_to(PROTO))


class BuildPy(build_py):
    """Adds the generated modules, beside the package in an editable installation."""

    def run(self) -> None:
        super().run()
        generate_protobuf_modules(Path("py") if self.editable_mode else Path(self.build_lib))


class Sdist(sdist):
    """Adds the release of BLAKE3."""

    def run(self) -> None:
        provide_blake3(release=True)
        super().run()


class BuildExt(build_ext):
    """Also compiles the assembly of BLAKE3, and several files at a time."""

    def run(self) -> None:
        provide_blake3(release=False)
        super().run()

    def build_extensions(self) -> None:
        if ".S" not in self.compiler.src_extensions:
            self.compiler.src_extensions.append(".S")
        compile_some = self.compiler.compile

        def compile_all(sources: list[str], *args: Any, **options: Any) -> list[str]:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                objects = pool.map(lambda one: compile_some([one], *args, **options), sources)
                return list(itertools.chain.from_iterable(objects))

        self.compiler.compile = compile_all
        super().build_extensions()


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parent)
    free_threaded = sysconfig.get_config_var("Py_GIL_DISABLED")  # It has no limited API.
    setup(
        cffi_modules=["py/build_native.py:ffibuilder"],
        cmdclass={"build_ext": BuildExt, "build_py": BuildPy, "sdist": Sdist},
        options={} if free_threaded else {"bdist_wheel": {"py_limited_api": "cp310"}},
        **index_page(),
    )
