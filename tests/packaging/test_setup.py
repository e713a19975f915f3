# SPDX-License-Identifier: MIT
"""setup.py has no effects when imported or for metadata, takes BLAKE3 from a verified source,
and makes links that work on a package index."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("setuptools", reason="builds the package")

ROOT = Path(__file__).parents[2]
REPOSITORY = "https://example.org/tvix-build"


@pytest.fixture(scope="module")
def setup() -> ModuleType:
    spec = importlib.util.spec_from_file_location("setup_of_tvix_build", ROOT / "setup.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def links(text: str) -> list[str]:
    """The targets of the inline links and images."""
    return [part.partition(")")[0] for part in text.split("](")[1:]]


def test_links_lead_to_the_repository(setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("TVIX_BUILD_REPOSITORY", f"{REPOSITORY}/")
    page = setup.index_page()
    relative = links((ROOT / "README.md").read_text())
    tag = "v" + setup.runpy.run_path("py/tvix_build/_version.py")["__version__"]
    expected = [
        link
        if link.startswith("https://")
        else f"{REPOSITORY}/{'raw' if link.endswith('.svg') else 'blob'}/{tag}/{link}"
        for link in relative
    ]
    assert links(page["long_description"]) == expected
    assert {link.startswith("https://") for link in relative} == {True, False}
    assert page["project_urls"]["Source"] == REPOSITORY
    assert all(url.startswith(REPOSITORY) for url in page["project_urls"].values())


def test_without_a_repository_the_readme_stays(
    setup: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("TVIX_BUILD_REPOSITORY", raising=False)
    page = setup.index_page()
    assert page["long_description"] == (ROOT / "README.md").read_text()
    assert page["project_urls"] == {}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a copy of the files that setup.py reads, without those of BLAKE3."""
    tree = tmp_path / "tree"
    for name in (
        *("LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.py"),
        *("py/blake3.LICENSE", "py/blake3.sha256", "py/tvix_build/_version.py"),
        *("docs/tvix-build.1", "tests/packaging/test_setup.py"),
        *(f"py/{name}" for name in ("build_native.py", "native.lds")),
        *(f"py/{name}.c" for name in ("byte_rows", "capsules", "pieces", "single")),
        *(f"native/{header.name}" for header in (ROOT / "native").glob("*.h")),
    ):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
        (tree / name).chmod(0o644)
    return tree


@pytest.fixture
def blake3(tree: Path) -> Path:
    """Return a directory with files whose hashes the tree requires."""
    directory = tree.parent / "c"
    directory.mkdir()
    sums = tree / "py" / "blake3.sha256"
    names = [line.split()[1] for line in sums.read_text().splitlines()]
    for name in names:
        (directory / name).write_text(name)
    digests = [f"{hashlib.sha256(name.encode()).hexdigest()}  {name}\n" for name in names]
    sums.write_text("".join(digests))
    return directory


def run_setup(tree: Path, *arguments: str, blake3: str) -> subprocess.CompletedProcess[str]:
    """Run setup.py without a network, as its proxy does not exist."""
    return subprocess.run(
        [sys.executable, "setup.py", *arguments],
        cwd=tree,
        env={**os.environ, "BLAKE3_C_DIR": blake3, "https_proxy": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_metadata_needs_no_blake3(tree: Path) -> None:
    done = run_setup(tree, "dist_info", "--output-dir", "..", blake3="/nowhere")
    assert done.returncode == 0, done.stderr
    assert not (tree / "third_party").exists()
    assert next(tree.parent.glob("*.dist-info/METADATA")).exists()


def test_source_distribution_has_the_release_its_licence_and_the_tests(
    tree: Path, blake3: Path
) -> None:
    done = run_setup(tree, "sdist", "--dist-dir", "..", blake3=str(blake3))
    assert done.returncode == 0, done.stderr
    (archive,) = tree.parent.glob("*.tar.gz")
    with tarfile.open(archive) as members:
        names = {name.partition("/")[2] for name in members.getnames()}
    assert {f"third_party/blake3/{path.name}" for path in blake3.iterdir()} <= names
    assert {"py/blake3.LICENSE", "tests/packaging/test_setup.py"} <= names


def test_source_distribution_rejects_another_version(tree: Path, blake3: Path) -> None:
    (blake3 / "blake3.c").write_text("another version")
    done = run_setup(tree, "sdist", "--dist-dir", "..", blake3=str(blake3))
    assert done.returncode != 0
    assert f"BLAKE3_C_DIR={blake3}: expected the files of https://" in done.stderr
    assert "which are missing or differ: blake3.c\n" in done.stderr


def test_without_a_network_the_error_says_what_to_do(tree: Path, blake3: Path) -> None:
    shutil.rmtree(blake3)  # No source has files with these hashes.
    done = run_setup(tree, "sdist", "--dist-dir", "..", blake3="")
    assert done.returncode != 0
    assert "cannot download https://github.com/BLAKE3-team/BLAKE3/" in done.stderr
    assert "set BLAKE3_C_DIR to the directory `c` of this release" in done.stderr


def test_a_checkout_may_use_another_version(
    setup: ModuleType, tree: Path, blake3: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree)
    monkeypatch.setenv("BLAKE3_C_DIR", str(blake3))
    (blake3 / "blake3.c").write_text("another version")
    setup.provide_blake3(release=False)
    assert Path("third_party/blake3/blake3.c").read_text() == "another version"


def test_the_same_files_are_not_written_again(
    setup: ModuleType, tree: Path, blake3: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that nothing is compiled again."""
    monkeypatch.chdir(tree)
    monkeypatch.setenv("BLAKE3_C_DIR", str(blake3))
    setup.provide_blake3(release=True)
    copy = Path("third_party/blake3/blake3.c")
    os.utime(copy, (1, 1))
    setup.provide_blake3(release=True)
    assert copy.stat().st_mtime == 1


def test_a_source_distribution_uses_its_own_files(
    setup: ModuleType, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree)
    monkeypatch.setenv("BLAKE3_C_DIR", "/nowhere")
    Path("PKG-INFO").touch()
    setup.provide_blake3(release=False)
    assert not Path("third_party").exists()
