# SPDX-License-Identifier: MIT
"""What the site does to pages besides MkDocs: links that end in the tree, and tables of vectors."""

from __future__ import annotations

import json
import posixpath
import re
from html import escape
from pathlib import Path
from typing import Any

LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#:]+)\)")
TABLES = "<!-- tables of vectors -->"


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Called by MkDocs: returns the page for the site."""

    def link(match: re.Match[str]) -> str:
        text, target = match.groups()
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page.file.src_uri), target))
        if files.get_file_from_path(path):
            return match.group()
        # A directory is its README, or is not on the site.
        is_page = files.get_file_from_path(f"{path}/README.md")
        return f"[{text}]({target.rstrip('/')}/README.md)" if is_page else text

    if TABLES in markdown:
        vectors = sorted(Path(config["docs_dir"], "tests/vectors").glob("*.json"))
        markdown = markdown.replace(TABLES, "\n".join(map(table, vectors)))
    return LINK.sub(link, markdown)


def table(file: Path) -> str:
    """Return the section of a file: its vectors as a table, which is collapsed."""
    content = json.loads(file.read_text("ascii"))
    about = content["about"]
    rows = "\n".join(row(vector) for vector in content["vectors"])
    return (
        f"## {file.stem}\n\n{about[0].upper()}{about[1:]}: "
        f"[{file.name}](../tests/vectors/{file.name}).\n\n"
        f"<details><summary>{len(content['vectors'])} vectors</summary><table>\n"
        f"<tr><th>name</th><th>kind</th><th>about</th><th>expected</th></tr>\n{rows}\n"
        "</table></details>\n"
    )


def row(vector: dict[str, Any]) -> str:
    """Return the row of a vector."""
    if vector["canonical"]:
        expected = "canonical"
    elif vector["valid"]:
        expected = "valid"
    else:
        expected = "; ".join(f"{code} {path}".strip() for code, path in vector["violations"])
    kind = f"{vector['kind']} {vector.get('schema', '')}".rstrip()
    texts = (vector["name"], kind, vector["about"], expected)
    return "<tr>" + "".join(f"<td>{escape(text)}</td>" for text in texts) + "</tr>"
