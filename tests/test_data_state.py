"""What a data module changes in itself during a training is put back."""

from typing import Any

import pytorch_lightning as pl

from lth_lightning.callbacks.data_state import DataState


class Counts(pl.LightningDataModule):
    """A number that it does not tell of, and a list that its `state_dict` holds."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.seen: list[int] = []

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seen = list(state_dict["seen"])


def test_numbers_and_the_state_dict_are_put_back() -> None:
    data = Counts()
    state = DataState(data)
    for _ in range(2):
        data.count += 3
        data.seen.append(1)
        state.put_back()
        assert (data.count, data.seen) == (0, [])


def test_collections_are_put_back_and_stay_one_where_they_were_one() -> None:
    data: Any = Counts()
    data.pool = [1, 2]
    data.alias = data.pool
    data.table = {"a": [0.5]}
    state = DataState(data)
    for _ in range(2):
        data.pool.append(3)
        data.table["a"].append(1.5)
        state.put_back()
        assert (data.pool, data.table) == ([1, 2], {"a": [0.5]})
        assert data.alias is data.pool


def test_a_run_without_a_data_module_has_nothing_to_put_back() -> None:
    DataState(None).put_back()
