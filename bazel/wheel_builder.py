# SPDX-License-Identifier: MIT
"""Write a wheel with the given files, metadata from pyproject.toml, and fixed dates and modes."""

from __future__ import annotations

import argparse
import base64
import hashlib
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

EPOCH = (1980, 1, 1, 0, 0, 0)


def with_extra(requirement: str, extra: str) -> str:
    """Return a requirement with the condition that an extra is requested."""
    name, _, marker = requirement.partition(";")
    condition = f"({marker.strip()}) and " if marker else ""
    return f'{name.strip()}; {condition}extra == "{extra}"'


def metadata_lines(project: dict[str, Any], version: str) -> Iterator[str]:
    """Return the header of METADATA from the table [project]."""
    yield "Metadata-Version: 2.4"
    yield f"Name: {project['name']}"
    yield f"Version: {version}"
    yield f"Summary: {project['description']}"
    for author in project.get("authors", []):
        yield f"Author: {author['name']}"
    yield f"License-Expression: {project['license']}"
    yield "License-File: LICENSE"
    if "keywords" in project:
        yield "Keywords: " + ",".join(project["keywords"])
    for classifier in project.get("classifiers", []):
        yield f"Classifier: {classifier}"
    for label, url in project.get("urls", {}).items():
        yield f"Project-URL: {label}, {url}"
    yield f"Requires-Python: {project['requires-python']}"
    for requirement in project["dependencies"]:
        yield f"Requires-Dist: {requirement}"
    for extra, requirements in project.get("optional-dependencies", {}).items():
        yield f"Provides-Extra: {extra}"
        for requirement in requirements:
            yield f"Requires-Dist: {with_extra(requirement, extra)}"
    yield "Description-Content-Type: text/markdown"


def wheel_lines(tag: str) -> Iterator[str]:
    """Return the lines of WHEEL."""
    yield "Wheel-Version: 1.0"
    yield "Generator: tvix-build"
    yield "Root-Is-Purelib: false"
    yield f"Tag: {tag}"


def script_lines(project: dict[str, Any]) -> Iterator[str]:
    """Return the lines of entry_points.txt."""
    yield "[console_scripts]"
    for name, target in project.get("scripts", {}).items():
        yield f"{name} = {target}"


def text(lines: Iterator[str]) -> bytes:
    """Return lines as the contents of a file."""
    return "".join(line + "\n" for line in lines).encode()


def record_line(path: str, contents: bytes) -> str:
    """Return the line of RECORD for a file."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(contents).digest()).rstrip(b"=").decode()
    return f"{path},sha256={digest},{len(contents)}\n"


def write_wheel(output: Path, files: dict[str, bytes], record: str) -> None:
    """Write the files in the given order, then RECORD at the path `record`."""
    listing = (
        "".join(record_line(path, contents) for path, contents in files.items()) + f"{record},,\n"
    )
    with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, contents in {**files, record: listing.encode()}.items():
            info = zipfile.ZipInfo(path, EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3  # Unix, so that the mode counts
            info.external_attr = (0o100755 if path.endswith(".so") else 0o100644) << 16
            archive.writestr(info, contents)


def main() -> None:
    """Build the wheel that the arguments describe; PATH=FILE puts FILE at PATH."""
    parser = argparse.ArgumentParser(description=__doc__, fromfile_prefix_chars="@")
    for option in ("--output", "--pyproject", "--readme", "--licence"):
        parser.add_argument(option, type=Path, required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("--tag", required=True)
    parser.add_argument("files", nargs="*", metavar="PATH=FILE")
    arguments = parser.parse_args()
    project = tomllib.loads(arguments.pyproject.read_text())["project"]
    info = f"{project['name'].replace('-', '_')}-{arguments.version}.dist-info"
    header = text(metadata_lines(project, arguments.version))
    files = {
        path: Path(file).read_bytes()
        for path, _, file in (entry.partition("=") for entry in arguments.files)
    }
    files[f"{info}/METADATA"] = header + b"\n" + arguments.readme.read_bytes()
    files[f"{info}/WHEEL"] = text(wheel_lines(arguments.tag))
    files[f"{info}/entry_points.txt"] = text(script_lines(project))
    files[f"{info}/licenses/LICENSE"] = arguments.licence.read_bytes()
    write_wheel(arguments.output, files, f"{info}/RECORD")


if __name__ == "__main__":
    main()
