"""What a data module changes in itself while a network trains: no training hands it on to the next one."""

import copy
from typing import Any

from pytorch_lightning import LightningDataModule

from lth_lightning.callbacks.trainer import gives
from lth_lightning.data import TensorDataModule


class DataState:
    """The state of a data module at the start of a fit: its `state_dict`, and its plain attributes.

    Those are numbers, text and collections of such.

    One data module serves all trainings of a run. One that counts its batches, say, must count those of each alone.

    Args:
        datamodule: after its `setup`, and before a checkpoint is loaded. This package's own change nothing.
    """

    def __init__(self, datamodule: LightningDataModule | None) -> None:
        self._datamodule = None if isinstance(datamodule, TensorDataModule) else datamodule
        self._values = _plain_values(self._datamodule)
        self._state: dict[str, Any] | None = None
        if self._datamodule is not None and gives(self._datamodule, "state_dict"):
            self._state = copy.deepcopy(self._datamodule.state_dict())

    def put_back(self) -> None:
        """Have the data module be as it was."""
        for name, value in copy.deepcopy(self._values).items():
            setattr(self._datamodule, name, value)
        if self._datamodule is not None and self._state is not None:
            self._datamodule.load_state_dict(self._state)


def _plain_values(datamodule: LightningDataModule | None) -> dict[str, Any]:
    own = vars(datamodule) if datamodule is not None else {}
    # One copy of all, so that two names of one list stay two names of one.
    return copy.deepcopy({name: value for name, value in own.items() if value is not None and _is_plain(value)})


def _is_plain(value: Any) -> bool:
    """Whether it is a number or text, or a collection of such at any depth."""
    if type(value) in (list, tuple, set):
        return all(_is_plain(part) for part in value)
    if type(value) is dict:
        return all(_is_plain(part) for pair in value.items() for part in pair)
    return value is None or type(value) in (bool, int, float, str)
