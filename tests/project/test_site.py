# SPDX-License-Identifier: MIT
"""The site that Bazel built is complete: links and images have targets, and no other host is
used."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

SITE = Path(__file__).parents[2] / "docs" / "site"

pytestmark = pytest.mark.skipif(not SITE.exists(), reason="needs the site that Bazel built")


class References(HTMLParser):
    """What a page links to and what it loads, as (tag, address)."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [(tag, value) for key, value in attrs if key in ("href", "src") and value]


def test_links_lead_somewhere_and_nothing_is_loaded_from_afar() -> None:
    pages = sorted(SITE.rglob("*.html"))
    assert SITE / "docs" / "python.html" in pages
    for page in pages:
        if page.name == "404.html":  # It has the addresses of a site at a root.
            continue
        for tag, address in References(page).found:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                assert tag == "a", f"{page}: {address}"
            elif parts.path:
                assert (page.parent / unquote(parts.path)).exists(), f"{page}: {address}"


def test_pages_are_made_of_the_sources() -> None:
    assert "tvixb_context_new" in (SITE / "docs" / "c.html").read_text()
    assert "unknown_field environment_vars[0]" in (SITE / "docs" / "vectors.html").read_text()
    python = (SITE / "docs" / "python.html").read_text()
    assert "Return the canonical encoding of a message" in python
    assert 'id="tvix_build.ViolationCode.SIZE_OVERFLOW"' in python
