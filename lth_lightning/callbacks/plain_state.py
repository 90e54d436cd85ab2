"""What objects hold, as plain content that any machine reads safely."""

import collections
import contextlib
import enum
import pickle
import random
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lth_lightning.callbacks.attributes import attributes_of, module_attributes, type_name

Node = Any
"""None, a bool, number or string; or a tuple that says first what kind of thing it holds."""

ATOMS = (type(None), bool, int, float, str)
COLLECTIONS: dict[type, str] = {
    kind: kind.__name__
    for kind in (list, tuple, set, frozenset, collections.deque, dict, collections.OrderedDict, collections.Counter)
}
LARGE_BYTES = 1 << 23
"""Tensors of more are taken to be unchanged as long as torch has counted no change of them."""
DEEPEST = 100
"""Objects within objects that are followed, such as those of a linked list: Python's own stack ends at 1,000 calls."""
MANY = 10_000
"""Collections of more entries are compared by which entries they have, not by what those hold."""
NOT_OPENED = {
    *sys.stdlib_module_names,
    *("torch", "numpy", "pandas", "pyarrow", "pytorch_lightning", "lightning", "lightning_fabric", "torchmetrics"),
    *("tqdm", "rich", "wandb", "mlflow", "tensorboard", "matplotlib", "PIL"),
}
"""Packages whose objects are not taken apart by their attributes: only their authors know what those mean."""
OPENED = ("torch.utils.data.", "queue", "types", "argparse", "collections", "__main__", "dataclasses")
"""Modules of these packages whose objects are."""


class Reader:
    """Reads objects into plain nodes.

    Numbers, strings, tensors, arrays and collections of them are held as they are. So are the states of random
    generators, of whatever has a `state_dict`, and of a user's own objects, attribute by attribute. Anything else is
    opaque: a node names its type alone.

    Args:
        known: names of things that belong to the training, by id: they are named, and not read.
        is_glance: the nodes are for `same` and for this process: what is large is not copied.
    """

    def __init__(self, known: Mapping[int, str], is_glance: bool = False) -> None:
        self._known, self._is_glance = known, is_glance
        self._numbers: dict[int, int] = {}
        self._alive: list[Any] = []
        self._depth = 0
        self.held: list[Any] = []
        """Objects that nodes tell apart by their ids, so that no other gets one of these."""

    def read(self, value: Any) -> Node:
        """The node of `value`. An object that was read before is referred to."""
        if type(value) in ATOMS:
            return value
        if (name := self._known.get(id(value))) is not None:
            return ("known", name)
        if (number := self._numbers.get(id(value))) is not None:
            return ("same", number)
        number = self._numbers[id(value)] = len(self._numbers)
        self._alive.append(value)
        if self._depth == DEEPEST:
            self.held.append(value)
            return ("opaque", type_name(value), id(value), ENDLESS)
        self._depth += 1
        try:
            return self._read(value, number)
        except Exception:  # it is somebody else's class, whose methods may raise whatever they like
            return self._opaque(value)
        finally:
            self._depth -= 1

    def _read(self, value: Any, number: int) -> Node:
        if isinstance(value, Tensor):
            return self._tensor(value, number)
        if isinstance(value, numpy.ndarray):
            return self._array(value, number)
        if isinstance(value, numpy.generic):
            return ("scalar", value.dtype.str, value.item()) if type(value.item()) in ATOMS else self._opaque(value)
        if isinstance(value, enum.Enum):
            return ("enum", type(value).__qualname__, value.name)
        if type(value) is complex:
            return ("complex", value.real, value.imag)
        if type(value) in (bytes, bytearray):
            return ("bytes", number, type(value).__name__, bytes(value).decode("latin-1"))
        if type(value) is torch.dtype:
            return ("dtype", str(value).removeprefix("torch."))
        if isinstance(value, Path):
            return ("path", str(value))
        if (state := _generator_state(value)) is not None:
            return ("random", number, type_name(value), self.read(state))
        if isinstance(value, (list, tuple, set, frozenset, dict, collections.deque)):
            return self._collection(value, number)
        if isinstance(value, nn.Module):
            return ("module", number, type_name(value), self._module(value))
        if isinstance(value, DataLoader):
            return self._opaque(value)  # its data set is a thing of its own; its iterator's place is asked elsewhere
        if not isinstance(value, type) and callable(getattr(type(value), "load_state_dict", None)):
            return ("state", number, type_name(value), self.read(value.state_dict()))
        if _is_opened(value):
            attributes = attributes_of(value)
            return ("object", number, type_name(value), {name: self.read(part) for name, part in attributes.items()})
        return self._opaque(value)

    def _tensor(self, value: Tensor, number: int) -> Node:
        if type(value) not in (Tensor, nn.Parameter) or value.layout != torch.strided or value.is_quantized:
            return self._opaque(value)
        if value.is_meta:
            return self._opaque(value)
        is_leaf = value.requires_grad and value.is_leaf
        here = value.detach()
        mark: int | str | None = None
        if self._is_glance:
            if value.numel() * value.element_size() > LARGE_BYTES:
                mark = f"{id(value)} {value._version} {value.data_ptr()}"
                self.held.append(value)
            else:
                here = here.to("cpu", copy=True).resolve_conj().resolve_neg()
                mark = _checksum(here.contiguous().reshape(-1).view(torch.uint8).numpy())
        else:
            here = here.to("cpu", copy=True)
        return ("tensor", number, here, value.device.type, is_leaf, mark)

    def _array(self, value: Any, number: int) -> Node:
        if type(value) is not numpy.ndarray or value.dtype.kind not in "biufc" or value.dtype.itemsize > 16:
            return self._opaque(value)
        if value.nbytes > LARGE_BYTES and self._is_glance:
            flat = numpy.ascontiguousarray(value).reshape(-1).view(numpy.uint8)
            whole = flat[: flat.size // 8 * 8].view(numpy.uint64)
            return ("array", number, value, f"{int(whole.sum())} {_checksum(flat[::97])}")
        try:
            copied = torch.from_numpy(value.copy())
        except TypeError:  # a type that torch has not, such as 16-byte floats
            return self._opaque(value)
        mark = _checksum(value) if self._is_glance else None
        return ("array", number, copied, mark)

    def _collection(self, value: Any, number: int) -> Node:
        kind = COLLECTIONS.get(type(value), "")
        if self._is_glance and len(value) > MANY:
            entries = [*value, *value.values()] if isinstance(value, dict) else list(value)
            self.held += [value, entries]
            return ("many", number, type_name(value), id(value), hash(tuple(map(id, entries))))
        entries = [[key, part] for key, part in value.items()] if isinstance(value, dict) else list(value)
        if isinstance(value, (set, frozenset)):
            entries.sort(key=lambda entry: (type(entry).__name__, repr(entry)))
        if isinstance(value, dict):
            read: list[Node] = [[self.read(key), self.read(part)] for key, part in entries]
        else:
            read = [self.read(entry) for entry in entries]
        limit = value.maxlen if isinstance(value, collections.deque) else None
        return ("collection", number, kind, type_name(value), read, limit)

    def _module(self, module: nn.Module) -> Node:
        found: dict[str, Node] = {}
        for name, part in module.named_modules():
            tensors = {**part._parameters, **part._buffers}
            own = {key: value for key, value in tensors.items() if value is not None} | module_attributes(part)
            found[name] = {key: self.read(value) for key, value in own.items()}
        return found

    def _opaque(self, value: Any) -> Node:
        self.held.append(value)
        return _opaque(value) if self._is_glance else ("opaque", type_name(value), 0, 0)


def same(first: Node, second: Node) -> bool:
    """Whether two nodes of glances say the same."""
    if type(first) is not type(second):
        return False
    if isinstance(first, (tuple, list)):
        if len(first) != len(second):
            return False
        if isinstance(first, tuple) and first[0] == second[0] and first[0] in ("tensor", "array"):
            one, other = first[2], second[2]
            return bool(one.shape == other.shape and one.dtype == other.dtype and first[3:] == second[3:])
        return all(same(one, other) for one, other in zip(first, second, strict=True))
    if isinstance(first, dict):
        return list(first) == list(second) and all(same(part, second[key]) for key, part in first.items())
    if isinstance(first, float):
        return first == second or (first != first and second != second)
    return bool(first == second)


def opaque_parts(node: Node) -> Iterator[Node]:
    """The opaque nodes in `node`."""
    if isinstance(node, tuple) and node[0] == "opaque":
        yield node
    elif isinstance(node, (tuple, list)):
        for part in node:
            yield from opaque_parts(part)
    elif isinstance(node, dict):
        for part in node.values():
            yield from opaque_parts(part)


def _generator_state(value: Any) -> Any:
    readers: dict[type, Callable[[Any], Any]] = {
        torch.Generator: lambda made: made.get_state(),
        random.Random: lambda made: made.getstate(),
        numpy.random.Generator: lambda made: made.bit_generator.state,
        numpy.random.RandomState: lambda made: made.get_state(legacy=False),
    }
    reader = readers.get(type(value))
    return reader(value) if reader else None


def _checksum(array: Any) -> int:
    return zlib.crc32(numpy.ascontiguousarray(array).reshape(-1).view(numpy.uint8).data) if array.size else 0


def _is_opened(value: Any) -> bool:
    kind = type(value)
    # A number or text of a user's own class is in none of its attributes.
    if isinstance(value, (type, int, float, complex, str, bytes)) or not (
        hasattr(value, "__dict__") or hasattr(kind, "__slots__")
    ):
        return False
    whole = kind.__module__
    return whole.partition(".")[0] not in NOT_OPENED or whole.startswith(OPENED)


ENDLESS = -1
"""Content of what moves on whenever it is used, and cannot tell where it is."""


def _opaque(value: Any) -> Node:
    """Its type, which object it is, and what it holds, where that is little and can be told."""
    kind, content = type(value), 0
    if isinstance(value, Tensor):
        content = 0 if value.is_inference() else value._version
    elif hasattr(kind, "__next__") and kind.__module__ != "_io":
        content = ENDLESS
    elif kind.__module__.partition(".")[0] == "pandas" or not (hasattr(value, "__dict__") or callable(value)):
        with contextlib.suppress(Exception):  # most of what is left cannot be pickled
            is_small = max(sys.getsizeof(value), getattr(value, "nbytes", 0)) < LARGE_BYTES
            content = zlib.crc32(pickle.dumps(value)) if is_small else 0
    return ("opaque", type_name(value), id(value), content)
