# SPDX-License-Identifier: MIT
"""The templates for the Bazel Central Registry are complete and name what exists."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
TEMPLATES = ROOT / ".bcr"
BAZEL = ["7.x", "8.x", "9.x"]


def presubmit() -> Any:
    """Return the presubmit tasks."""
    return yaml.safe_load((TEMPLATES / "presubmit.yml").read_text())


def test_metadata_has_what_the_registry_requires() -> None:
    metadata = json.loads((TEMPLATES / "metadata.template.json").read_text())
    assert sorted(metadata) == [
        *("homepage", "maintainers", "repository", "versions", "yanked_versions"),
    ]
    assert all(maintainer["github"] for maintainer in metadata["maintainers"])
    (repository,) = metadata["repository"]
    assert metadata["homepage"] == repository.replace("github:", "https://github.com/")
    assert (metadata["versions"], metadata["yanked_versions"]) == ([], {})


def test_source_is_the_archive_of_a_tag() -> None:
    source = json.loads((TEMPLATES / "source.template.json").read_text())
    assert sorted(source) == ["integrity", "strip_prefix", "url"]
    variables = set(re.findall(r"{(\w+)}", source["url"] + source["strip_prefix"]))
    assert variables <= {"OWNER", "REPO", "TAG", "VERSION"}


def test_presubmit_covers_the_versions_of_bazel_on_linux_and_macos() -> None:
    tasks = presubmit()
    assert sorted(tasks) == ["bcr_test_module", "matrix", "tasks"]
    for part in (tasks, tasks["bcr_test_module"]):
        assert part["matrix"]["bazel"] == BAZEL
        assert {"macos", "macos_arm64", "ubuntu2404"} <= set(part["matrix"]["platform"])
        for task in part["tasks"].values():
            assert (task["bazel"], task["platform"]) == ("${{ bazel }}", "${{ platform }}")
            assert task.get("build_targets") or task.get("test_targets")


def test_presubmit_names_what_exists() -> None:
    tasks = presubmit()
    module = ROOT / tasks["bcr_test_module"]["module_path"] / "MODULE.bazel"
    assert 'bazel_dep(name = "tvix_build"' in module.read_text()
    for target in tasks["tasks"]["core"]["build_targets"]:
        package, name = target.removeprefix("@tvix_build//").split(":")
        assert f'"{name}"' in (ROOT / package / "BUILD.bazel").read_text()
