# SPDX-License-Identifier: MIT
"""Prints the digests of the Remote Execution actions of requests, for the command `show`."""

from __future__ import annotations

from collections.abc import Sequence

from tvix_build._core.report import MessageType, ValidationError, in_words
from tvix_build.builders import BuilderError
from tvix_build.builders.messages import read_request
from tvix_build.builders.reapi import DigestFunction, DigestTable, Property, lower
from tvix_build.builders.reapi.builder import add_shell, digest_table_path
from tvix_build.castore import CastoreStore, MissingError
from tvix_build.cli.terminal import Monitor, printable, stdout_console
from tvix_build.records import Batch


class Actions:
    """Prints the digest of the action of each request.

    Args:
        function: the name of the digest function.
        castore: the directory of the castore store of the inputs.
        properties: name, value and constraint of each platform property.
        kind: the type of the requests.
    """

    def __init__(
        self,
        function: str,
        castore: str,
        properties: Sequence[tuple[str, str, str | None]],
        kind: MessageType,
    ) -> None:
        self._castore = CastoreStore(castore, create=False)
        chosen = DigestFunction[function.upper()]
        self._table = DigestTable(chosen, digest_table_path(self._castore, chosen))
        self._properties = [Property(*one) for one in properties]
        self._schema = kind.schema
        self._console = stdout_console()
        self._monitor = Monitor(quiet=True)

    def show(self, batch: Batch, i: int, /) -> bool:
        """Print the digest of record i, and return whether it has an action."""
        name = batch.name(i)
        try:
            request = read_request(batch.record(i), self._schema).message
            shell = add_shell(self._castore) if request.constraints.provide_bin_sh else None
            lowered = lower(
                request, self._castore, self._table, shell=shell, properties=self._properties
            )
        except ValidationError as error:
            for line in in_words(error):
                self._monitor.error(f"{name}: {line}")
        except (BuilderError, MissingError) as error:
            self._monitor.error(f"{name}: {error}")
        else:
            digest = lowered.digest
            self._console.say(f"{digest.hash}/{digest.size_bytes}  {printable(name)}")
            return True
        return False

    def __enter__(self) -> Actions:
        return self

    def __exit__(self, *_: object) -> None:
        self._table.close()
        self._castore.close()
