"""What a data module changes in itself while a network trains: no training hands it on to the next one."""

import collections
import copy
from typing import Any

import torch
from pytorch_lightning import LightningDataModule

from lth_lightning.callbacks.attributes import look, put
from lth_lightning.callbacks.module_state import own_attributes
from lth_lightning.callbacks.plain_state import Node, Reader, opaque_parts, same
from lth_lightning.callbacks.plain_writer import LostError, Writer
from lth_lightning.callbacks.trainer import gives
from lth_lightning.data import TensorDataModule


class DataState:
    """The state of a data module at the start of a fit: its `state_dict`, and what its attributes hold.

    One data module serves all trainings of a run. One that counts its batches, say, or draws from a generator of its
    own, must do so for each training alone.

    Args:
        datamodule: after its `setup`, and before a checkpoint is loaded. This package's own change nothing.
    """

    def __init__(self, datamodule: LightningDataModule | None) -> None:
        self._datamodule = None if isinstance(datamodule, TensorDataModule) else datamodule
        self._nodes, self._held = self._read()
        self._firsts = self._shared()
        self._state: dict[str, Any] | None = None
        if self._datamodule is not None and gives(self._datamodule, "state_dict"):
            self._state = copy.deepcopy(self._datamodule.state_dict())

    def put_back(self) -> None:
        """Have the data module be as it was; of what is no plain content, that alone which is."""
        now, _ = self._read()
        for name, node in self._nodes.items():
            if name in now and same(now[name], node):
                continue
            writer = Writer({}, torch.device("cpu"))
            try:
                put(self._datamodule, name, writer.write(node, look(self._datamodule, name)))
            except LostError:
                continue
        for name, first in self._firsts.items():
            put(self._datamodule, name, look(self._datamodule, first))
        for name in now.keys() - self._nodes.keys():
            if not any(opaque_parts(now[name])):
                delattr(self._datamodule, name)
        if self._datamodule is not None and self._state is not None:
            self._datamodule.load_state_dict(self._state)

    def _shared(self) -> dict[str, str]:
        """Names of collections that an earlier attribute names, too, and that name."""
        first: dict[int, str] = {}
        found = {}
        for name in self._nodes:
            value = look(self._datamodule, name)
            if isinstance(value, (list, dict, set, collections.deque)) and first.setdefault(id(value), name) != name:
                found[name] = first[id(value)]
        return found

    def _read(self) -> tuple[dict[str, Node], list[Any]]:
        nodes: dict[str, Node] = {}
        held: list[Any] = []
        own = {} if self._datamodule is None else own_attributes(self._datamodule)
        for name, value in own.items():
            reader = Reader({id(self._datamodule): "data"}, is_glance=True)
            nodes[name] = reader.read(value)
            held += reader.held
        return nodes, held
