"""The text of an mmdet config, which is Python, read as data: assigned literals and `dict(...)`; nothing is run."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

_LONGEST = 4_000_000
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


class _UnknownError(Exception):
    """An expression that is no data."""


def parse_config(text: Any) -> dict[str, Any]:
    """The names that the text assigns, as far as their values are data; {} for what is no Python.

    Understood are numbers and their arithmetic, strings, lists, tuples, dictionaries, `dict(key=value)`, and names that
    were assigned before. Anything else (calls, imports, indexing) is left out, with the entry that holds it.

    Example:
        >>> parse_config("norm = dict(type='BN'); model = dict(norm=norm, ratio=1. / 16., size=open('x'))")
        {'norm': {'type': 'BN'}, 'model': {'norm': {'type': 'BN'}, 'ratio': 0.0625}}
    """
    if not isinstance(text, str) or len(text) > _LONGEST:
        return {}
    try:
        statements = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    found: dict[str, Any] = {}
    for statement in statements:
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target = statement.targets[0]
            if isinstance(target, ast.Name):
                try:
                    found[target.id] = _value(statement.value, found)
                except (_UnknownError, RecursionError, ArithmeticError):
                    found.pop(target.id, None)
    return found


def _value(node: ast.expr, known: dict[str, Any]) -> Any:
    match node:
        case ast.Constant():
            return node.value
        case ast.Name() if node.id in known:
            return known[node.id]
        case ast.List() | ast.Tuple():
            items = [_value(item, known) for item in node.elts]
            return items if isinstance(node, ast.List) else tuple(items)
        case ast.Dict():
            pairs = [(_value(key, known), value) for key, value in zip(node.keys, node.values, strict=True) if key]
            return _table([(key, value) for key, value in pairs if isinstance(key, str)], known)
        case ast.Call(func=ast.Name(id="dict"), args=[]):
            return _table([(keyword.arg, keyword.value) for keyword in node.keywords if keyword.arg], known)
        case ast.UnaryOp(op=ast.USub()):
            return -_number(node.operand, known)
        case ast.BinOp() if type(node.op) in _ARITHMETIC:
            return _ARITHMETIC[type(node.op)](_number(node.left, known), _number(node.right, known))
    raise _UnknownError


def _table(pairs: list[tuple[str, ast.expr]], known: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        try:
            found[key] = _value(value, known)
        except _UnknownError:
            continue
    return found


def _number(node: ast.expr, known: dict[str, Any]) -> int | float:
    value = _value(node, known)
    if type(value) not in (int, float):
        raise _UnknownError
    return value
