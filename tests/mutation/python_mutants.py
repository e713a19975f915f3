# SPDX-License-Identifier: MIT
"""Generates mutants of Python source from its syntax tree.

OPERATORS describes the operators. They do not change annotations, f-strings (whose parts have no
position before Python 3.12), docstrings and other strings.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import accumulate, pairwise

from mutation.mutant import Mutant, describe, one_line

OPERATORS = {
    "boundary": "`<` becomes `<=` and the reverse; the same for `>`",
    "equality": "`==`, `is` and `in` become their negation and the reverse",
    "connective": "`and` becomes `or` and the reverse",
    "arithmetic": "a binary operator becomes its counterpart, also where it assigns",
    "negation": "`not` is removed",
    "constant": "a number is one more or one less, a boolean the other",
    "never": "the condition of an `if` or `while`, or of a conditional expression, is false",
    "always": "the condition of an `if`, a conditional expression or a comprehension is true",
    "removed": "a call, an assignment to a member, `raise`, `yield` or a jump is removed",
    "returned": "a function returns None",
    "extreme": "`min` becomes `max` and the reverse, `any` becomes `all` and the reverse",
    "unsorted": "what is sorted keeps its order",
    "keyword": "a keyword argument that passes a variable of its name on is removed",
}

_SWAPS = {
    "boundary": {"<": "<=", "<=": "<", ">": ">=", ">=": ">"},
    "equality": {
        **{"==": "!=", "!=": "==", "is": "is not", "is not": "is"},
        **{"in": "not in", "not in": "in"},
    },
    "arithmetic": {
        **{"+": "-", "-": "+", "*": "//", "/": "*", "//": "*", "%": "//"},
        **{"<<": ">>", ">>": "<<", "&": "|", "|": "&", "^": "|"},
    },
}
_EXTREMES = {"min": "max", "max": "min", "any": "all", "all": "any"}
# The longest first.
_SYMBOL = re.compile(r"is\s+not|not\s+in|is|in|//|<<|>>|\*\*|[<>=!]=|[-+*/%@&|^<>]")
_COMMENT = re.compile(r"#[^\n]*")

_Change = tuple[str, str, int, int, str]  # operator, about, begin, end, replacement


def mutants_of_python(file: str, source: str) -> list[Mutant]:
    """Return the mutants of a Python file in source order. Their names may repeat."""
    module = _Module(source)
    return sorted(
        (
            Mutant(file, f"{scope}: {operator}: {about}", module.line(begin), begin, end, text)
            for scope, (operator, about, begin, end, text) in module.changes()
        ),
        key=lambda mutant: (mutant.begin, mutant.end, mutant.name),
    )


class _Module:
    """A source file and its tree, with positions in characters."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.tree = ast.parse(source)
        self.lines = source.splitlines(keepends=True)
        self.starts = [0, *accumulate(len(line) for line in self.lines)]

    def line(self, position: int) -> int:
        return self.source.count("\n", 0, position) + 1

    def position(self, line: int, column: int) -> int:
        """Return the position in characters of a line and a column in UTF-8 bytes."""
        text = self.lines[line - 1].encode()[:column].decode()
        return self.starts[line - 1] + len(text)

    def span(self, node: ast.expr | ast.stmt | ast.keyword) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        begin = self.position(node.lineno, node.col_offset)
        return begin, self.position(node.end_lineno, node.end_col_offset)

    def text(self, node: ast.expr | ast.stmt | ast.keyword) -> str:
        begin, end = self.span(node)
        return self.source[begin:end]

    def changes(self) -> Iterator[tuple[str, _Change]]:
        """Yield all changes, with the qualified name of the function or class around them."""
        return self.walk(self.tree, "", "module")

    def walk(self, node: ast.AST, scope: str, kind: str) -> Iterator[tuple[str, _Change]]:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            scope = f"{scope}.{node.name}" if scope else node.name
            kind = "class" if isinstance(node, ast.ClassDef) else "function"
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns", "format_spec", "bases"):
                continue
            children = value if isinstance(value, list) else [value]
            for child in children:
                if not isinstance(child, ast.AST) or isinstance(child, ast.JoinedStr):
                    continue
                if isinstance(child, ast.If) and "TYPE_CHECKING" in self.text(child.test):
                    continue
                for change in self.changes_at(child, node, kind):
                    yield scope, change
                yield from self.walk(child, scope, kind)

    def changes_at(self, node: ast.AST, parent: ast.AST, kind: str) -> Iterator[_Change]:
        """Yield the changes of a node."""
        if isinstance(node, ast.Compare):
            operands = [node.left, *node.comparators]
            for left, right in pairwise(operands):
                yield from self.swapped(node, left, right)
        elif isinstance(node, ast.BoolOp):
            word, other = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
            for left, right in pairwise(node.values):
                begin, end = self.found(left, right, re.compile(rf"\b{word}\b"))
                yield self.change("connective", node, begin, end, other)
        elif isinstance(node, ast.BinOp):
            of_strings = any(
                isinstance(side, _STRINGS) and _is_string(side) for side in (node.left, node.right)
            )
            of_types = isinstance(node.op, ast.BitOr) and kind == "module"
            if not of_strings and not of_types:
                yield from self.swapped(node, node.left, node.right)
        elif isinstance(node, ast.AugAssign):
            yield from self.swapped(node, node.target, node.value)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            begin, _ = self.span(node)
            yield self.change("negation", node, begin, begin + len("not"), "")
        elif isinstance(node, ast.Constant):
            begin, end = self.span(node)
            around = parent if isinstance(parent, (ast.expr, ast.keyword)) else node
            for text in _other_constants(node.value):
                yield self.change("constant", around, begin, end, text)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield from self.calls(node, node.func)
        if isinstance(parent, ast.Call) and isinstance(node, ast.keyword) and _passes_on(node):
            begin, end = self.span(node)
            # Without this, a comma would be left.
            comma = re.compile(r"\s*,").match(self.source, end)
            yield self.change("keyword", parent, begin, comma.end() if comma else end, "")
        if isinstance(node, (ast.If, ast.IfExp, ast.While)):
            yield from self.condition(node.test, always=not isinstance(node, ast.While))
        if isinstance(node, ast.comprehension):
            for test in node.ifs:
                yield from self.condition(test, never=False)
        if isinstance(node, ast.stmt):
            yield from self.statements(node, kind)

    def change(
        self,
        operator: str,
        around: ast.expr | ast.stmt | ast.keyword,
        begin: int,
        end: int,
        text: str,
    ) -> _Change:
        """Return a change, described by the expression around it."""
        return (
            operator,
            describe(self.source, self.span(around), begin, end, text),
            begin,
            end,
            text,
        )

    def found(self, left: ast.expr, right: ast.expr, pattern: re.Pattern[str]) -> tuple[int, int]:
        """Return the place of a pattern between two operands."""
        begin, end = self.span(left)[1], self.span(right)[0]
        gap = _COMMENT.sub(lambda match: " " * len(match[0]), self.source[begin:end])
        match = pattern.search(gap)
        assert match, gap
        return begin + match.start(), begin + match.end()

    def swapped(
        self, around: ast.expr | ast.AugAssign, left: ast.expr, right: ast.expr
    ) -> Iterator[_Change]:
        begin, end = self.found(left, right, _SYMBOL)
        symbol = " ".join(self.source[begin:end].split())
        for operator, swaps in _SWAPS.items():
            if symbol in swaps:
                yield self.change(operator, around, begin, end, swaps[symbol])

    def calls(self, node: ast.Call, function: ast.Name) -> Iterator[_Change]:
        begin, end = self.span(function)
        if function.id in _EXTREMES:
            yield self.change("extreme", node, begin, end, _EXTREMES[function.id])
        if function.id == "sorted":
            begin, end = self.span(node)
            yield self.change("unsorted", node, begin, end, f"list({self.text(node.args[0])})")

    def condition(
        self, test: ast.expr, *, never: bool = True, always: bool = True
    ) -> Iterator[_Change]:
        begin, end = self.span(test)
        written = self.source[begin:end]
        if never:
            yield "never", one_line(written), begin, end, f"(False and ({written}))"
        if always:
            yield "always", one_line(written), begin, end, f"(True or ({written}))"

    def statements(self, node: ast.stmt, kind: str) -> Iterator[_Change]:
        begin, end = self.span(node)
        if isinstance(node, ast.Return):
            value = node.value
            if value and not (isinstance(value, ast.Constant) and value.value is None):
                first, last = self.span(value)
                yield "returned", one_line(self.text(value)), first, last, "None"
        elif _is_removable(node, kind):
            yield "removed", one_line(self.source[begin:end]), begin, end, "pass"


_STRINGS = (ast.Constant, ast.JoinedStr)


def _is_string(node: ast.Constant | ast.JoinedStr) -> bool:
    return isinstance(node, ast.JoinedStr) or isinstance(node.value, (str, bytes))


def _passes_on(node: ast.keyword) -> bool:
    """Return whether a keyword argument is a variable with its name."""
    return isinstance(node.value, ast.Name) and node.value.id == node.arg


def _is_removable(node: ast.stmt, kind: str) -> bool:
    if isinstance(node, ast.Expr):  # Docstrings and `...` are constants.
        return not isinstance(node.value, ast.Constant)
    if isinstance(node, ast.Assign):
        return all(isinstance(target, (ast.Attribute, ast.Subscript)) for target in node.targets)
    if isinstance(node, ast.AnnAssign):
        return node.value is not None and isinstance(node.target, ast.Attribute)
    return kind == "function" and isinstance(
        node, (ast.AugAssign, ast.Raise, ast.Break, ast.Continue, ast.Delete)
    )


def _other_constants(value: object) -> list[str]:
    if isinstance(value, bool):
        return [repr(not value)]
    if isinstance(value, int):
        return [repr(value + 1), repr(value - 1)] if value else ["1"]
    return []
