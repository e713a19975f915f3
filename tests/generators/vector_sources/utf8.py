# SPDX-License-Identifier: MIT
"""Strings must be UTF-8 in every field, even if they are overwritten; bytes need not be."""

from __future__ import annotations

from vector_sources.parts import (
    ARGS,
    SYSTEM,
    args,
    build_request,
    constraints,
    env,
    inputs,
    outputs,
    ro_paths,
    symlink,
)
from vector_sources.topic import BUILD, BUILD_REQUEST, Topic
from wire import blob

TOPIC = Topic("utf8", BUILD_REQUEST, "strings that are UTF-8 and strings that are not")


def _utf8_vectors() -> None:
    good = {
        "two_least": ("U+0080", b"\xc2\x80"),
        "two_greatest": ("U+07FF", b"\xdf\xbf"),
        "three_least": ("U+0800", b"\xe0\xa0\x80"),
        "below_surrogates": ("U+D7FF", b"\xed\x9f\xbf"),
        "above_surrogates": ("U+E000", b"\xee\x80\x80"),
        "noncharacter": ("U+FFFF", b"\xef\xbf\xbf"),
        "four_least": ("U+10000", b"\xf0\x90\x80\x80"),
        "four_greatest": ("U+10FFFF", b"\xf4\x8f\xbf\xbf"),
        "bom": ("U+FEFF", b"\xef\xbb\xbf"),
        "long": ("U+20AC after 4000 bytes of ASCII", b"a" * 4000 + b"\xe2\x82\xac"),
    }
    bad = {
        "continuation": ("continuation byte 80 without a lead byte", b"\x80"),
        "bf": ("continuation byte bf without a lead byte", b"\xbf"),
        "c0_80": ("overlong encoding of NUL", b"\xc0\x80"),
        "c1_bf": ("overlong encoding of U+007F", b"\xc1\xbf"),
        "e0_9f_bf": ("overlong encoding of U+07FF", b"\xe0\x9f\xbf"),
        "f0_8f": ("overlong encoding of U+FFFF", b"\xf0\x8f\xbf\xbf"),
        "surrogate_first": ("surrogate U+D800", b"\xed\xa0\x80"),
        "surrogate_last": ("surrogate U+DFFF", b"\xed\xbf\xbf"),
        "surrogate_pair": ("surrogate pair in six bytes", b"\xed\xa0\xbd\xed\xb8\x80"),
        "110000": ("U+110000, above the last code point", b"\xf4\x90\x80\x80"),
        "f5": ("lead byte f5, which is invalid", b"\xf5\x80\x80\x80"),
        "f8": ("lead byte f8 of a five-byte sequence, which is invalid", b"\xf8\x88\x80\x80\x80"),
        "fe": ("byte fe, which is invalid", b"\xfe"),
        "ff": ("byte ff, which is invalid", b"\xff"),
        "two_cut": ("first byte of two, then the end", b"\xc3"),
        "three_cut": ("first two bytes of three, then the end", b"\xe2\x82"),
        "four_cut": ("first three bytes of four, then the end", b"\xf0\x9f\x98"),
        "two_then_ascii": ("first byte of two, then a letter", b"\xc3a"),
        "four_then_ascii": ("first three bytes of four, then a letter", b"\xf0\x9f\x98a"),
        "three_many": ("a superfluous continuation byte", b"\xe2\x82\xac\x80"),
        "after_ascii": ("byte ff as the 17th byte", b"a" * 16 + b"\xff"),
        "after_long_ascii": (
            "a truncated character after 4000 bytes of ASCII",
            b"a" * 4000 + b"\xe2\x82",
        ),
        "block_edge": ("a truncated character after 63 bytes of ASCII", b"a" * 63 + b"\xc3"),
    }
    for label, (about, value) in good.items():
        TOPIC.canonical(f"utf8_{label}", about, args(b"a" + value + b"b"))
        TOPIC.canonical(f"utf8_{label}_alone", about, args(value))
    for label, (about, value) in bad.items():
        TOPIC.malformed(f"utf8_bad_{label}", about, args(value))
        TOPIC.malformed(f"utf8_bad_{label}_between", about, args(b"a" + value + b"b"))
    for place, data in (
        ("output", ARGS + outputs(b"\xff")),
        ("env_key", ARGS + env(b"\xff")),
        ("system", ARGS + constraints(blob(1, b"\xff"))),
        ("ro_path", ARGS + constraints(SYSTEM, ro_paths(b"/\xff"))),
        ("overwritten_env_key", ARGS + blob(3, blob(1, b"\xff"), blob(1, "A"))),
        ("overwritten_system", ARGS + constraints(blob(1, b"\xff"), SYSTEM)),
        ("merged_system", ARGS + constraints(blob(1, b"\xff")) + constraints(SYSTEM)),
        ("split_character", args(b"\xe2\x82", b"\xac")),
    ):
        TOPIC.malformed(f"utf8_bad_in_{place}", f"not UTF-8: {place.replace('_', ' ')}", data)
    TOPIC.malformed(
        "utf8_bad_in_build",
        "not UTF-8: argument in the request of a Build",
        build_request(args(b"\xff")),
        kind=BUILD,
    )


_utf8_vectors()
TOPIC.canonical(
    "bytes_need_no_utf8",
    "values of variables, names and targets need not be UTF-8",
    ARGS + env("A", b"\xff\xc0\x80") + inputs(symlink(b"\xed\xa0\x80", b"\xf4\x90\x80\x80")),
)
