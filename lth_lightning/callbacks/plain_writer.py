"""The way back from plain content into the objects that are there."""

import collections
import enum
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from lth_lightning.callbacks.attributes import attributes_of, look, put, type_name
from lth_lightning.callbacks.plain_state import COLLECTIONS, Node


class LostError(Exception):
    """Plain content cannot make an object of this type anew, and there is none in its place."""


class Writer:
    """Puts what a Reader has read back into objects.

    Args:
        known: the things that nodes name.
        device: where tensors go that were not on the CPU.
    """

    def __init__(self, known: Mapping[str, Any], device: torch.device) -> None:
        self._things, self._device = known, device
        self._made: dict[int, Any] = {}

    def write(self, node: Node, there: Any = None) -> Any:
        """What `node` says; `there` is what is in its place now.

        Collections, tensors and arrays are made anew. Objects are changed in place, since nothing else can make one.

        Raises:
            LostError: what is there is no object of the kind that was read.
        """
        if not isinstance(node, tuple):
            return node
        made = getattr(self, f"_{node[0]}")(node, there)
        if node[0] in ("tensor", "array", "bytes"):
            self._made[node[1]] = made
        return made

    def _same(self, node: Node, there: Any) -> Any:
        if node[1] not in self._made:
            raise LostError("object")
        return self._made[node[1]]

    def _tensor(self, node: Node, there: Any) -> Any:
        value: Tensor = node[2]
        if node[3] != "cpu":
            value = value.to(there.device if isinstance(there, Tensor) else self._device)
        if node[5] is None or isinstance(node[5], int):
            value = value.clone()
        return value.requires_grad_(bool(node[4]))

    def _array(self, node: Node, there: Any) -> Any:
        return node[2].numpy().copy() if isinstance(node[2], Tensor) else node[2]

    def _scalar(self, node: Node, there: Any) -> Any:
        return numpy.dtype(node[1]).type(node[2])

    def _enum(self, node: Node, there: Any) -> Any:
        members = type(there).__members__ if isinstance(there, enum.Enum) else {}
        # Several flags at once have no name that is a member's.
        if type(there).__qualname__ != node[1] or node[2] not in members:
            raise LostError(node[1])
        return members[node[2]]

    def _complex(self, node: Node, there: Any) -> Any:
        return complex(node[1], node[2])

    def _bytes(self, node: Node, there: Any) -> Any:
        content = node[3].encode("latin-1")
        return bytearray(content) if node[2] == "bytearray" else content

    def _dtype(self, node: Node, there: Any) -> Any:
        return getattr(torch, node[1])

    def _path(self, node: Node, there: Any) -> Any:
        return Path(node[1])

    def _known(self, node: Node, there: Any) -> Any:
        if node[1] not in self._things:
            raise LostError(node[1])
        return self._things[node[1]]

    def _random(self, node: Node, there: Any) -> Any:
        self._check(node[2], there)
        self._made[node[1]] = there
        state = self.write(node[3])
        if isinstance(there, torch.Generator):
            there.set_state(state)
        elif isinstance(there, random.Random):
            there.setstate(state)
        elif isinstance(there, numpy.random.RandomState):
            there.set_state(state)
        else:
            there.bit_generator.state = state
        return there

    def _collection(self, node: Node, there: Any) -> Any:
        _, number, kind, name, entries, limit = node
        new = self._empty(kind, name, limit, there)
        if kind not in ("tuple", "frozenset"):
            self._made[number] = new
        if isinstance(new, dict):
            pairs = {}
            for key_node, part in entries:
                key = self.write(key_node)
                pairs[key] = self.write(part, there.get(key) if isinstance(there, dict) else None)
            new.clear()
            new.update(pairs)
            return new
        olds = list(there) if isinstance(there, (list, tuple, collections.deque)) else []
        values = [self.write(part, olds[i] if i < len(olds) else None) for i, part in enumerate(entries)]
        if kind in ("tuple", "frozenset"):
            made = self._made[number] = tuple(values) if kind == "tuple" else frozenset(values)
            return made
        if kind == "" and isinstance(there, (tuple, frozenset)):
            kind_there: Any = type(there)
            return kind_there._make(values) if hasattr(kind_there, "_make") else kind_there(values)
        new.clear()
        new.update(values) if isinstance(new, set) else new.extend(values)
        return new

    def _empty(self, kind: str, name: str, limit: int | None, there: Any) -> Any:
        if kind == "deque":
            return collections.deque(maxlen=limit)
        if kind:
            return next(made for made, other in COLLECTIONS.items() if other == kind)()
        self._check(name, there)  # of a class of its own: what is there is changed
        return there

    def _many(self, node: Node, there: Any) -> Any:
        return there

    def _module(self, node: Node, there: Any) -> Any:
        self._check(node[2], there)
        self._made[node[1]] = there
        parts = dict(there.named_modules())
        for name, attributes in node[3].items():
            if name not in parts:
                raise LostError(node[2])
            for key, part in attributes.items():
                put(parts[name], key, self.write(part, look(parts[name], key)))
        return there

    def _state(self, node: Node, there: Any) -> Any:
        self._check(node[2], there)
        self._made[node[1]] = there
        there.load_state_dict(self.write(node[3]))
        return there

    def _object(self, node: Node, there: Any) -> Any:
        self._check(node[2], there)
        self._made[node[1]] = there
        for name in set(attributes_of(there)) - set(node[3]):
            object.__delattr__(there, name)
        for name, part in node[3].items():
            put(there, name, self.write(part, look(there, name)))
        return there

    def _opaque(self, node: Node, there: Any) -> Any:
        self._check(node[1], there)
        return there

    @staticmethod
    def _check(name: str, there: Any) -> None:
        if type_name(there) != name:
            raise LostError(name)
