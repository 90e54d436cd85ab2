"""YAML that would never end: values within values without end, or that grow with each alias."""

from typing import Any

import yaml

from lth_lightning.errors import UserError

DEEPEST, MOST = 50, 100_000
"""Levels of values within values, and values in all."""


def check_nesting(text: str, where: str) -> None:
    """Raise UserError for a YAML `text` that is nested too deep, contains itself, or has too many values.

    Text that is no YAML at all is left to those who read it. `where` names it in the error.
    """
    try:
        root = yaml.compose(text, yaml.SafeLoader)
        sizes: dict[int, int] = {}
        too_large = root is not None and _size(root, sizes, 0) > MOST
    except RecursionError:
        too_large = True
    except (yaml.YAMLError, ValueError):
        return
    if too_large:
        raise UserError(
            f"{where} is nested more than {DEEPEST} levels deep, or has more than {MOST:,} values: no config has."
        )


def _size(node: Any, sizes: dict[int, int], depth: int) -> int:
    """Values below `node`, those of an alias counted wherever it stands; raises RecursionError where it is too deep."""
    if depth > DEEPEST:
        raise RecursionError
    if id(node) not in sizes:
        parts = [part for pair in node.value for part in (pair if isinstance(pair, tuple) else [pair])]
        parts = [] if isinstance(node, yaml.ScalarNode) else parts
        sizes[id(node)] = 1 + sum(_size(part, sizes, depth + 1) for part in parts)
    return sizes[id(node)]
