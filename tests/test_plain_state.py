"""What objects hold is read as plain content and written back into objects."""

import argparse
import collections
import enum
import io
import itertools
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import pandas
import pytest
import torch
from torch import nn

from lth_lightning.callbacks.plain_state import ENDLESS, Reader, opaque_parts, same
from lth_lightning.callbacks.plain_writer import LostError, Writer


class Phase(enum.Enum):
    WARM, COLD = 1, 2


class Pair(NamedTuple):
    first: int
    second: list[int]


class OwnList(list[int]):
    pass


@dataclass
class Meter:
    values: list[float] = field(default_factory=list)
    other: Any = None


class Slotted:
    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


def stored(value: Any) -> Any:
    """The node of `value` from a file that `torch.load` takes for plain."""
    file = io.BytesIO()
    torch.save(Reader({}).read(value), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def written(value: Any, there: Any = None) -> Any:
    return Writer({}, torch.device("cpu")).write(stored(value), there)


def glance(value: Any) -> Any:
    return Reader({}, is_glance=True).read(value)


VALUES: list[Any] = [
    None, True, 3, 2**80, float("nan"), "text", 1 + 2j, b"\x00\xff", bytearray(b"ab"), torch.float16, Path("/a/b"),
    [1, [2, "tensor"]], ["tensor", 1, 2], (1, (2,)), {1, "a"}, frozenset({3}), {"a": [1], (1, 2): {}, "tensor": 3},
    collections.deque([1, 2], maxlen=4), collections.Counter("aab"), collections.OrderedDict(b=1, a=2),
    numpy.float32(0.1), numpy.int64(3), numpy.arange(6).reshape(2, 3), numpy.zeros((0, 2)), numpy.array(True),
    torch.arange(4).view(2, 2), torch.tensor(1.5), torch.zeros(0), torch.ones(2, dtype=torch.bfloat16),
    torch.tensor([True]), torch.tensor([1 + 2j]),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_plain_values_come_back(value: Any) -> None:
    made = written(value)
    assert type(made) is type(value)
    assert same(glance(made), glance(value))
    assert getattr(made, "maxlen", None) == getattr(value, "maxlen", None)


def test_no_two_of_them_are_taken_for_the_same() -> None:
    for one, other in itertools.combinations(VALUES, 2):
        assert not same(glance(one), glance(other)), (one, other)
    order = torch.arange(9)
    assert not same(glance(order), glance(order.flip(0)))


def test_what_is_one_object_stays_one() -> None:
    inner = [1]
    loop: list[Any] = [inner, inner]
    loop.append(loop)
    made = written(loop)
    assert made[0] is made[1]
    assert made[2] is made
    weights = torch.ones(2)
    first, second = written([weights, weights])
    assert first is second


def test_objects_are_changed_in_place() -> None:
    meter, there = Meter([1.0], other=Slotted()), Meter(other=Slotted())
    meter.other.count = 4
    kept = there.other
    assert written(meter, there) is there
    assert (there.values, there.other.count, there.other is kept) == ([1.0], 4, True)
    assert written(Phase.COLD, Phase.WARM) is Phase.COLD
    assert written(Pair(1, [2]), Pair(0, [])) == Pair(1, [2])
    own = OwnList()
    assert written(OwnList([1, 2]), own) is own
    assert own == [1, 2]
    ready = collections.defaultdict(list, a=[1])
    assert written(ready, collections.defaultdict(list))["b"] == []


def test_generators_go_on() -> None:
    kinds = [
        (lambda: torch.Generator().manual_seed(1), lambda made: torch.rand(1, generator=made).item()),
        (lambda: random.Random(1), lambda made: made.gauss(0, 1)),
        (lambda: numpy.random.default_rng(1), lambda made: made.random()),
        (lambda: numpy.random.RandomState(1), lambda made: made.randn()),
    ]
    for make, draw in kinds:
        used = make()
        draw(used)
        there = make()
        assert not same(glance(used), glance(there))
        assert draw(written(used, there)) == draw(used)


def test_modules_that_nobody_registered_and_what_has_a_state_dict() -> None:
    hidden, there = [nn.BatchNorm1d(2)], [nn.BatchNorm1d(2)]
    hidden[0](torch.randn(4, 2))
    hidden[0].eval()
    nn.init.normal_(hidden[0].weight)
    layer = written(hidden, there)[0]
    assert layer is there[0]
    assert not layer.training
    assert all(torch.equal(one, layer.state_dict()[name]) for name, one in hidden[0].state_dict().items())
    optimizers = [torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0) for _ in range(2)]
    schedules = [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5) for optimizer in optimizers]
    optimizers[0].step()
    schedules[0].step()
    written(schedules[0], schedules[1])
    assert schedules[1].last_epoch == 1


@pytest.mark.parametrize(
    "value", [iter([1]), (n for n in "ab"), io.StringIO("a"), object(), Meter()], ids=lambda value: type(value).__name__
)
def test_what_cannot_be_made_anew_is_lost_where_there_is_none(value: Any) -> None:
    with pytest.raises(LostError):
        written([value])
    assert isinstance(value, Meter) or list(opaque_parts(glance([value])))


def test_what_is_large_is_looked_at_but_not_copied() -> None:
    large = torch.zeros(3_000_000)
    before = glance(large)
    assert before[2].data_ptr() == large.data_ptr()
    assert same(before, glance(large))
    large[5] = 1
    assert not same(before, glance(large))
    array = numpy.zeros(3_000_000)
    before = glance(array)
    array[5] = 1
    assert not same(before, glance(array))
    many = list(range(20_000))
    before = glance(many)
    many[7] = 20_001
    assert not same(before, glance(many))
    assert written(many) == many


class Odd:
    """Whose methods are as unhelpful as Python allows."""

    def __init__(self) -> None:
        self.count = 0

    def __repr__(self) -> str:
        raise RuntimeError

    def __getattr__(self, name: str) -> Any:
        raise KeyError(name)


class Unlisted(dict[str, int]):
    def items(self) -> Any:
        raise RuntimeError


class Link:
    def __init__(self, following: Any) -> None:
        self.following = following


def linked(number: int) -> Any:
    link: Any = None
    for _ in range(number):
        link = Link(link)
    return link


def nested_lists(number: int) -> list[Any]:
    return [nested_lists(number - 1)] if number else []


class Whole(int):
    """A number of a class of its own."""


class Words(str):
    """A text of a class of its own."""


class Rights(enum.Flag):
    READ, WRITE = 1, 2


ODD: dict[str, Any] = {
    "set of odd objects": {Odd(), Odd()},
    "dict that cannot be listed": Unlisted(a=1),
    "nested tensor": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    "long chain": linked(2000),
    "deep list": nested_lists(500),
    "other byte order": numpy.arange(5).astype(numpy.arange(5).dtype.newbyteorder()),
}


@pytest.mark.parametrize("value", ODD.values(), ids=ODD)
def test_odd_objects_are_read_as_far_as_they_can_be(value: Any) -> None:
    first, second = glance(value), glance(value)
    assert same(first, second)
    assert any(True for _ in opaque_parts(first))
    stored(value)


def test_what_lies_too_deep_is_told_whether_or_not_it_has_changed() -> None:
    assert any(opaque[3] == ENDLESS for opaque in opaque_parts(glance(linked(2000))))
    assert not any(True for _ in opaque_parts(glance(linked(90))))
    there = linked(90)
    there.following.count = 1
    assert same(glance(written(linked(90), there)), glance(linked(90)))


def appended(table: pandas.DataFrame) -> None:
    table.loc[len(table)] = [3.0]


CHANGED_IN_PLACE: dict[str, tuple[Any, Any]] = {
    "table": (pandas.DataFrame({"loss": [1.0]}), appended),
    "column": (pandas.Series([1.0]), lambda column: column.__setitem__(0, 2.0)),
    "array of objects": (numpy.array([1, None], dtype=object), lambda array: array.__setitem__(0, 2)),
    "array of texts": (numpy.array(["a", "b"]), lambda array: array.__setitem__(0, "c")),
    "sparse tensor": (torch.eye(2).to_sparse(), lambda tensor: tensor.mul_(2)),
    "namespace": (argparse.Namespace(best=1), lambda names: setattr(names, "best", 2)),
    "UserDict": (collections.UserDict(best=1), lambda names: names.update(best=2)),
}


@pytest.mark.parametrize(("value", "change"), CHANGED_IN_PLACE.values(), ids=CHANGED_IN_PLACE)
def test_what_changes_in_place_is_seen(value: Any, change: Any) -> None:
    first = glance(value)
    assert same(first, glance(value))
    change(value)
    assert not same(first, glance(value))


@pytest.mark.parametrize("value", [Whole(3), Words("a"), Rights.READ | Rights.WRITE], ids=str)
def test_values_of_classes_of_their_own_are_not_taken_for_what_is_there(value: Any) -> None:
    there = type(value)(0) if isinstance(value, int | enum.Enum) else type(value)()
    assert not same(glance(value), glance(there))
    lost = any(True for _ in opaque_parts(glance(value)))
    if not lost:
        with pytest.raises(LostError):
            written(value, there)
