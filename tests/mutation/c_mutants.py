# SPDX-License-Identifier: MIT
"""Generates mutants of C source from its tokens.

Works on tokens instead of a syntax tree, because some functions and tables of the core are macros,
which only a preprocessed tree contains, and a mutant must be a change of the file. Distinguishes
binary from unary `*` and `&` by the spaces of clang-format.

OPERATORS describes the operators.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from mutation.mutant import Mutant, describe, one_line

OPERATORS = {
    "boundary": "`<` becomes `<=` and the reverse; the same for `>`",
    "equality": "`==` becomes `!=` and the reverse",
    "connective": "`&&` becomes `||` and the reverse",
    "arithmetic": "a binary operator, or one that assigns, becomes its counterpart",
    "negation": "`!` is removed",
    "constant": "a number is one more or one less, a character the next one, a boolean the other",
    "never": "the condition of an `if` is false",
    "always": "the condition of an `if` is true",
    "removed": "a call, an assignment, `break` or `continue` is removed",
    "member": "a member of a table's row is removed, so that it is zero",
}

_TOKEN = re.compile(
    r"(?P<space>(?:\s|\\\n)+|//[^\n]*|/\*.*?\*/)"
    r'|(?P<string>"(?:\\.|[^"\\])*")'
    r"|(?P<char>'(?:\\.|[^'\\])+')"
    r"|(?P<number>\.?\d(?:[eEpP][-+]|[\w.])*)"
    r"|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<operator>->|\+\+|--|<<=|>>=|\.\.\.|##|[-+*/%&|^<>=!]=|&&|\|\||<<|>>|.)",
    re.DOTALL,
)
_DIRECTIVE = re.compile(r"^[ \t]*#[ \t]*(\w+)((?:\\\n|[^\n])*)", re.MULTILINE)
_MACRO = re.compile(r"[ \t]*(\w+)(\([^)]*\))?")
_INTEGER = re.compile(r"(0[xX][0-9a-fA-F]+|\d+)([uUlL]*)")

_SWAPS = {
    "boundary": {"<": "<=", "<=": "<", ">": ">=", ">=": ">"},
    "equality": {"==": "!=", "!=": "=="},
    "connective": {"&&": "||", "||": "&&"},
    "arithmetic": {
        **{"+": "-", "-": "+", "*": "/", "/": "*", "%": "/", "<<": ">>", ">>": "<<"},
        **{"&": "|", "|": "&", "^": "|", "+=": "-=", "-=": "+=", "*=": "/=", "/=": "*="},
        **{"|=": "=", "&=": "=", "^=": "|=", "<<=": ">>=", ">>=": "<<="},
    },
}
_ASSIGNMENTS = {"=", "+=", "-=", "*=", "/=", "%=", "|=", "&=", "^=", "<<=", ">>="}
_KEYWORDS = {"if", "for", "while", "switch", "return", "sizeof", "case", "else", "do", "goto"}
_CONDITIONAL = {"if", "for", "while"}
_CLAUSE_ENDS = {";", "{", "}", ",", "&&", "||", "?", ":", "return"}
_BRACKETS = {"(": ")", "[": "]", "{": "}"}

Kind = Literal["function", "table", "type", "outside"]


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    begin: int  # in the file

    @property
    def end(self) -> int:
        return self.begin + len(self.text)


@dataclass(frozen=True)
class _Block:
    """What an opening brace begins: the kind of its block."""

    kind: Kind
    scope: str


class _Unit:
    """The tokens of a file without directives, or of the body of a macro, with their nesting."""

    def __init__(self, source: str, tokens: list[_Token]) -> None:
        self.source, self.tokens = source, tokens
        self.match: dict[int, int] = {}  # an opening bracket to the closing one and the reverse
        self.parent: list[int | None] = []  # the bracket around a token
        open_brackets: list[int] = []
        for i, token in enumerate(tokens):
            if token.text in _BRACKETS.values() and open_brackets:
                begin = open_brackets.pop()
                self.match[begin], self.match[i] = i, begin
            self.parent.append(open_brackets[-1] if open_brackets else None)
            if token.text in _BRACKETS:
                open_brackets.append(i)

    def text(self, i: int) -> str:
        """Return the text of a token; an empty string beyond the ends."""
        return self.tokens[i].text if 0 <= i < len(self.tokens) else ""

    def is_call(self, i: int) -> bool:
        """Return whether a token opens the arguments of a call."""
        name = self.tokens[i - 1] if i else None
        return self.text(i) == "(" and bool(
            name and name.kind == "name" and name.text not in _KEYWORDS
        )

    def ends_condition(self, i: int) -> bool:
        """Return whether a token closes the parentheses of `if`, `for` or `while`."""
        begin = self.match.get(i)
        if self.text(i) != ")" or begin is None:
            return False
        return self.text(begin - 1) in _CONDITIONAL

    def spaced(self, i: int) -> bool:
        """Return whether a token has white space on both sides, like a binary operator."""
        token = self.tokens[i]
        return self.source[token.begin - 1].isspace() and self.source[token.end].isspace()

    def clause(self, i: int) -> tuple[int, int]:
        """Return the begin and end of the smallest meaningful expression around a token."""
        while (p := self.parent[i]) is not None and (self.text(p) == "[" or self.is_call(p)):
            i = p
        first = last = i
        while first and self.text(first - 1) not in {*_CLAUSE_ENDS, "(", "["}:
            if self.ends_condition(first - 1):
                break
            first = self.match.get(first - 1, first - 1)
        last = self.match.get(i, i) if self.text(i) in _BRACKETS else i
        while self.text(last + 1) not in {*_CLAUSE_ENDS, ")", "]", ""}:
            last += 1
            if self.text(last) in _BRACKETS:
                last = self.match.get(last, last)
        return self.tokens[first].begin, self.tokens[last].end


def mutants_of_c(file: str, source: str) -> list[Mutant]:
    """Return the mutants of a C file in source order. Their names may repeat."""
    conditions: list[tuple[int, bool]] = []  # whether the code from here on is only for AVX-512
    units: list[tuple[_Unit, str | None]] = []
    blank = list(source)
    nesting: list[bool] = []
    for directive in _DIRECTIVE.finditer(source):
        word, rest = directive.groups()
        for i in range(directive.start(), directive.end()):
            blank[i] = "\n" if source[i] == "\n" else " "
        if word in ("if", "ifdef", "ifndef"):
            nesting.append("AVX512" in rest and "!" not in rest and word != "ifndef")
        elif word in ("else", "elif") and nesting:
            nesting[-1] = word == "elif" and "AVX512" in rest
        elif word == "endif" and nesting:
            nesting.pop()
        elif word == "define" and (macro := _MACRO.match(rest)):
            body = source[: directive.end()]
            tokens = _tokens(body, directive.start(2) + macro.end())
            units.append((_Unit(source, tokens), macro[1]))
        conditions.append((directive.end(), any(nesting)))
    units.insert(0, (_Unit(source, _tokens("".join(blank), 0)), None))

    found = []
    for unit, macro_name in units:
        blocks = _macro_blocks(unit, macro_name) if macro_name else _blocks(unit)
        for operator, scope, about, begin, end, text in _changes(unit, blocks):
            avx512 = "avx512" in file
            for start, needs_avx512 in conditions:
                if start <= begin:
                    avx512 = needs_avx512 or "avx512" in file
            line = source.count("\n", 0, begin) + 1
            name = f"{scope}: {operator}: {about}"
            found.append(Mutant(file, name, line, begin, end, text, avx512))
    return sorted(found, key=lambda mutant: (mutant.begin, mutant.end, mutant.name))


def _tokens(source: str, begin: int) -> list[_Token]:
    return [
        _Token(str(match.lastgroup), match[0], match.start())
        for match in _TOKEN.finditer(source, begin)
        if match.lastgroup != "space"
    ]


def _macro_blocks(unit: _Unit, name: str) -> list[_Block]:
    """Return the block around each token of a macro body."""
    return [_Block("function", name)] * len(unit.tokens)


def _blocks(unit: _Unit) -> list[_Block]:
    """Return the block around each token of a file."""
    outside = _Block("outside", "")
    blocks, stack, begin, rows = [], [outside], 0, [0]
    for i, token in enumerate(unit.tokens):
        if token.text == "}" and len(stack) > 1:
            stack.pop()
            rows.pop()
            begin = i + 1
        blocks.append(stack[-1])
        if token.text == "{":
            stack.append(_opened(stack[-1], unit, begin, i, rows))
            rows.append(0)
            begin = i + 1
        elif token.text == ";" or (token.text == "," and stack[-1].kind == "table"):
            begin = i + 1
    return blocks


def _opened(outer: _Block, unit: _Unit, begin: int, brace: int, rows: list[int]) -> _Block:
    """Return what a brace after a header begins."""
    header = unit.tokens[begin:brace]
    texts = [token.text for token in header]
    if outer.kind == "function" or outer.kind == "type":
        return outer
    if outer.kind == "table":
        if not texts:
            rows[-1] += 1
            return _Block("table", f"{outer.scope}[{rows[-1]}]")
        written = one_line(unit.source[header[0].begin : header[-1].begin]).strip()
        return _Block("table", f"{outer.scope}{written}")
    if '"C"' in texts:
        return outer
    if "=" in texts:
        end = texts.index("=")
        while end and texts[end - 1] == "]":
            end = unit.match[begin + end - 1] - begin
        first = end - 1
        if texts[first] == ")":
            first = unit.match[begin + first] - begin - 1
        return _Block("table", one_line(unit.source[header[first].begin : header[end - 1].end]))
    if ")" in texts:
        close = len(texts) - 1 - texts[::-1].index(")")
        return _Block("function", texts[unit.match[begin + close] - begin - 1])
    return _Block("type", "")


_Change = tuple[str, str, str, int, int, str]  # operator, scope, about, begin, end, replacement


def _changes(unit: _Unit, blocks: list[_Block]) -> Iterator[_Change]:
    for i, block in enumerate(blocks):
        if block.kind in ("function", "table") and not _in_assertion(unit, i):
            for operator, clause, begin, end, text in _changes_at(unit, blocks, i):
                about = one_line(unit.source[clause[0] : clause[1]])
                if operator not in ("never", "always", "removed", "member"):
                    about = describe(unit.source, clause, begin, end, text)
                yield operator, block.scope, about, begin, end, text


def _in_assertion(unit: _Unit, i: int) -> bool:
    """Return whether a token is in the condition of a _Static_assert."""
    p = unit.parent[i]
    return p is not None and (unit.text(p - 1) == "_Static_assert" or _in_assertion(unit, p))


def _changes_at(
    unit: _Unit, blocks: list[_Block], i: int
) -> Iterator[tuple[str, tuple[int, int], int, int, str]]:
    """Yield the changes that begin at a token: operator, clause, begin, end, replacement."""
    token, source = unit.tokens[i], unit.source
    for operator, swaps in _SWAPS.items():
        if token.text in swaps and _is_binary(unit, i):
            yield operator, unit.clause(i), token.begin, token.end, swaps[token.text]
    if token.text == "!":
        yield "negation", unit.clause(i), token.begin, token.end, ""
    for text in _other_constants(unit, blocks, i):
        yield "constant", unit.clause(i), token.begin, token.end, text
    if token.text == "if" and unit.text(i + 1) == "(" and i + 1 in unit.match:
        begin, end = unit.tokens[i + 1].end, unit.tokens[unit.match[i + 1]].begin
        for operator, prefix in (("never", "0 && ("), ("always", "1 || (")):
            yield operator, (begin, end), begin, end, f"{prefix}{source[begin:end]})"
    if blocks[i].kind == "function" and (after := _removable_statement(unit, i)):
        yield "removed", (token.begin, after), token.begin, after, ";"
    if blocks[i].kind == "table" and token.text == "." and unit.text(i - 1) in ("{", ","):
        last = i + 1
        while unit.text(last + 1) not in (",", ")", "}"):
            last += 1
            last = unit.match.get(last, last) if unit.text(last) in _BRACKETS else last
        has_rows = any(unit.text(k) == "{" for k in range(i, last))
        if not has_rows:
            end = unit.tokens[last].end
            behind = unit.tokens[last + 1].end if unit.text(last + 1) == "," else end
            yield "member", (token.begin, end), token.begin, behind, ""


def _is_binary(unit: _Unit, i: int) -> bool:
    """Return whether an operator is binary: clang-format then puts spaces around it."""
    if i == 0 or i + 1 == len(unit.tokens) or not unit.spaced(i):
        return False
    before = unit.tokens[i - 1]
    ends_operand = before.kind in ("name", "number", "char") or before.text in (")", "]")
    return ends_operand and before.text not in _KEYWORDS


def _other_constants(unit: _Unit, blocks: list[_Block], i: int) -> list[str]:
    token, before = unit.tokens[i], unit.text(i - 1)
    designates = (unit.text(i + 1), unit.text(i + 2)) == ("]", "=") and blocks[i].kind == "table"
    if before == "case" or designates:
        return []
    if token.text in ("true", "false"):
        return ["false" if token.text == "true" else "true"]
    if token.kind == "char" and len(token.text) == 3:
        return [repr(chr(ord(token.text[1]) + 1))]
    if token.kind == "number" and (integer := _INTEGER.fullmatch(token.text)):
        digits, suffix = integer.groups()
        is_octal = digits.isdigit() and digits.startswith("0")
        value = int(digits, 8 if is_octal else 0)
        others = [value + 1, value - 1] if value else [1]
        return [(f"{n:#x}" if digits[1:2] in ("x", "X") else f"{n}") + suffix for n in others]
    return []


def _removable_statement(unit: _Unit, i: int) -> int | None:
    """Return the end of the statement that begins with a token; None if it cannot be removed."""
    before, token, after = unit.text(i - 1), unit.tokens[i], unit.text(i + 1)
    begins = before in (";", "{", "}", "else", "do") or (unit.ends_condition(i - 1))
    p = unit.parent[i]
    if not begins or (p is not None and unit.text(p) == "("):
        return None
    removable = (
        token.text in ("break", "continue")
        or (token.text == "*" and not unit.spaced(i))
        or (
            token.kind == "name"
            and token.text not in _KEYWORDS
            and (after in ("(", ".", "->", "[") or after in _ASSIGNMENTS)
        )
    )
    if not removable:
        return None
    last = i
    while unit.text(last) not in (";", "{", "}", ""):
        last = unit.match.get(last, last) + 1 if unit.text(last) in ("(", "[") else last + 1
        if unit.text(last) == "{":  # of a compound literal
            last = unit.match.get(last, last) + 1
    return unit.tokens[last].end if unit.text(last) == ";" else None
