# SPDX-License-Identifier: MIT
"""Derivations in a directory like /nix/store, made without Nix."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tvix_build.nix import Derivation, Output, unparse


def store_path(name: str) -> str:
    """Return a store path with a hash that depends on the name."""
    digest = hashlib.sha256(name.encode()).hexdigest()[:32].replace("e", "z")
    return f"/nix/store/{digest}-{name}"


@dataclass(frozen=True)
class MadeStore:
    """A directory like /nix/store."""

    directory: Path

    def file(self, path: str) -> Path:
        """Return the file of a store path."""
        return self.directory / os.path.basename(path)

    def source(self, name: str, text: str) -> str:
        """Write a source, and return its store path."""
        path = store_path(name)
        self.file(path).write_text(text)
        return path

    def derivation(
        self,
        name: str,
        script: str,
        *,
        inputs: Mapping[str, tuple[str, ...]] | Iterable[str] = (),
        sources: Iterable[str] = (),
        outputs: Mapping[str, Output] | None = None,
        builder: str = "/bin/sh",
        drv_name: str | None = None,
    ) -> str:
        """Write a derivation whose command is a script of the shell, and return its store path.

        Args:
            name: the name of the only output, `out`, unless `outputs` are given.
            inputs: the input derivations, with their outputs; by default, `out`.
            drv_name: the name of the file; by default, `name` and .drv.
        """
        if not isinstance(inputs, Mapping):
            inputs = dict.fromkeys(inputs, ("out",))
        if outputs is None:
            outputs = {"out": Output(store_path(name))}
        path = store_path(drv_name or f"{name}.drv")
        derivation = Derivation(
            outputs=outputs,
            input_derivations=dict(sorted(inputs.items())),
            input_sources=tuple(sorted(sources)),
            system=f"{os.uname().machine}-linux",
            builder=builder,
            arguments=("-euc", script),
            environment={one: output.path.encode() for one, output in outputs.items()},
        )
        self.file(path).write_bytes(unparse(derivation))
        return path
