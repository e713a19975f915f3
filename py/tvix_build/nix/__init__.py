# SPDX-License-Identifier: MIT
"""Parses Nix derivations, and makes build requests from them.

    >>> from tvix_build import nix
    >>> derivation = nix.parse(b'Derive([("out","/nix/store/'
    ...     b'2jmxwzlcr9y4rqj1mzsk6mxpmq84yj2z-x","","")],[],[],"x86_64-linux","/bin/sh",[],[])')
    >>> nix.to_build_request(derivation, nodes={}).outputs
    ['2jmxwzlcr9y4rqj1mzsk6mxpmq84yj2z-x']

Strings of Nix are bytes. In this module, values of variables are bytes, and all other strings are
str, where lone surrogates represent bytes that are not UTF-8 (error handler `surrogateescape`).
"""

from tvix_build._core.names import set_public_module
from tvix_build.nix.derivation import Derivation, DerivationError, Lookup, Output
from tvix_build.nix.directory import DerivationDirectory
from tvix_build.nix.environment import omitted_options
from tvix_build.nix.requests import to_build_request
from tvix_build.nix.text import parse, unparse

__all__ = [
    "Derivation",
    "DerivationDirectory",
    "DerivationError",
    "Lookup",
    "Output",
    "omitted_options",
    "parse",
    "to_build_request",
    "unparse",
]

set_public_module(globals())
