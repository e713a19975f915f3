# SPDX-License-Identifier: MIT
"""Nix derivations, and the build requests that build them.

    >>> from tvix_build import nix
    >>> derivation = nix.parse(b'Derive([("out","/nix/store/'
    ...     b'2jmxwzlcr9y4rqj1mzsk6mxpmq84yj2z-x","","")],[],[],"x86_64-linux","/bin/sh",[],[])')
    >>> nix.to_build_request(derivation, nodes={}).outputs
    ['2jmxwzlcr9y4rqj1mzsk6mxpmq84yj2z-x']

A string of Nix is bytes. Here it is a str wherever the protocol has a string, with bytes that are
not UTF-8 as lone surrogates (the error handler `surrogateescape`); values of variables are bytes.
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
