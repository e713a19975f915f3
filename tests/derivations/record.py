# SPDX-License-Identifier: MIT
"""The command of the derivations in builds.nix: writes its arguments, environment and files to the
directory /recorded, and empty outputs."""

import json
from pathlib import Path


def strings(path: str) -> "list[str]":
    """What the kernel says of this process: NUL ends each string."""
    return Path(path).read_bytes().decode("utf-8", "surrogateescape").split("\0")[:-1]


def main() -> None:
    environment = dict(one.split("=", 1) for one in strings("/proc/self/environ"))
    here = Path.cwd()
    files = {file.name: file.read_bytes().decode() for file in here.iterdir()}
    if ".attrs.json" in files:
        outputs = json.loads(files[".attrs.json"])["outputs"]
    else:
        names = environment.get("outputs", "out").split()
        outputs = {
            name: environment[name]
            if name in environment
            else Path(environment[name + "Path"]).read_text()
            for name in names
        }
    recorded = {
        "working_dir": str(here),
        "arguments": strings("/proc/self/cmdline"),
        "environment": dict(sorted(environment.items())),
        "files": dict(sorted(files.items())),
    }
    text = json.dumps(recorded, indent=1, ensure_ascii=False)
    Path("/recorded", Path(outputs["out"]).name).write_text(text + "\n", encoding="utf-8")
    for path in outputs.values():
        Path(path).touch()


main()
