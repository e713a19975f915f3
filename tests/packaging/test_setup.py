# SPDX-License-Identifier: MIT
"""setup.py can be imported without effects, and makes links that work on a package index."""

from __future__ import annotations

import importlib.util
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
