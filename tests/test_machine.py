"""How many workers, of how many threads, fit into the machine."""

import random
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from loop_helpers import OwnModule, tiny
from torch import Tensor, nn

from lth_lightning import machine
from lth_lightning.data import Digits

GIB = 2**30


@pytest.fixture(autouse=True)
def _no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def give(monkeypatch: pytest.MonkeyPatch, cores: int, memory: int | None) -> None:
    monkeypatch.setattr(machine, "cores", lambda: cores)
    monkeypatch.setattr(machine, "free_bytes", lambda: memory)


def test_workers_left_open_fit_into_lines_cores_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(0)
    for _ in range(2000):
        lines, cores, each = draw.randint(1, 20), draw.randint(1, 64), draw.randint(1, 3 * GIB)
        memory = draw.choice([None, 0, 1, draw.randint(0, 10 * GIB), draw.randint(0, 500 * GIB)])
        threads = draw.choice([None, 1, 2, 3, 8, 100])
        give(monkeypatch, cores, memory)
        workers, settled = machine.share_out(lines, each, None, threads)
        case = (lines, cores, each, memory, threads, workers, settled)
        assert 1 <= workers <= lines, case
        assert workers == 1 or workers * settled <= cores, case
        assert workers == 1 or memory is None or workers * each <= memory, case
        if threads is None:
            assert 1 <= settled <= cores, case
            assert workers * settled <= cores, case
        else:
            assert settled == threads, case
        # One worker more would not fit: nothing is left lying that could be used.
        room = [workers + 1 <= lines, (workers + 1) * (threads or 1) <= cores]
        room.append(memory is None or (workers + 1) * each <= memory)
        assert not all(room), case


@pytest.mark.parametrize("cores", [1, 2, 3, 7, 16])
@pytest.mark.parametrize("workers", [1, 2, 5, 40])
def test_a_number_of_workers_that_is_given_is_kept(monkeypatch: pytest.MonkeyPatch, cores: int, workers: int) -> None:
    give(monkeypatch, cores, 1)
    for threads in (None, 1, 4):
        found, settled = machine.share_out(100, GIB, workers, threads)
        assert found == workers
        assert settled == (threads or max(1, cores // workers))


def test_fewer_lines_than_cores_leave_each_more_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, 16, None)
    assert machine.share_out(3, GIB) == (3, 5)
    assert machine.share_out(1, GIB) == (1, 16)
    assert machine.share_out(16, GIB) == (16, 1)
    assert machine.share_out(16, GIB, threads=4) == (4, 4)


def test_workers_that_the_plan_has_no_lines_for_take_no_threads_from_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    give(monkeypatch, 16, None)
    assert machine.share_out(2, GIB, workers=16) == (2, 8)


def test_elsewhere_than_on_linux_there_is_one_worker_unless_more_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, 8, None)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "platform", "darwin")
        found = machine.share_out(4, GIB), machine.share_out(4, GIB, workers=2)
    assert found == ((1, 8), (2, 4))


# What the system says.


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("max 100000", 6),
        ("400000 100000", 4),
        ("250000 100000", 2),
        ("50000 100000", 1),  # half a core is one process's
        ("1600000 100000", 6),
        ("30000 10000\n", 3),
    ],
)
def test_a_containers_quota_of_cores_counts(cgroup: Path, quota: str, cores: int) -> None:
    (cgroup / "cpu.max").write_text(quota)
    assert machine.cores() == cores


def test_without_a_quota_the_cores_are_those_that_the_process_may_use(cgroup: Path) -> None:
    assert machine.cores() == 6


def test_a_containers_limit_of_memory_counts(cgroup: Path) -> None:
    (cgroup / "memory.current").write_text("400\n")
    (cgroup / "memory.max").write_text("1000\n")
    assert machine.free_bytes() == 600
    (cgroup / "memory.max").write_text(f"{2**60}\n")
    available = machine.free_bytes()
    assert available is not None
    assert 2**20 < available < 2**50


@pytest.mark.parametrize("limit", ["max\n", None])
def test_without_a_limit_the_systems_free_memory_counts(cgroup: Path, limit: str | None) -> None:
    if limit:
        (cgroup / "memory.max").write_text(limit)
        (cgroup / "memory.current").write_text("400\n")
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    total = int(lines["MemTotal"].split()[0]) * 1024
    available = machine.free_bytes()
    assert available is not None
    assert 0.01 * total < available <= total


# What a worker needs.


def weights(model: nn.Module) -> int:
    return sum(value.numel() * value.element_size() for value in model.state_dict().values())


def test_a_worker_needs_room_for_activations_of_a_step_and_of_an_evaluation() -> None:
    model = tiny()  # layers of 16, 8 and 10 outputs
    small = machine.bytes_of_training(model, Digits(batch_size=10, eval_batch_size=50), 1)
    assert small > machine.BASE_BYTES + weights(model)
    more_steps = machine.bytes_of_training(model, Digits(batch_size=1010, eval_batch_size=50), 1)
    assert more_steps - small >= 1000 * (16 + 8 + 10) * 4
    wider = machine.bytes_of_training(model, Digits(batch_size=10, eval_batch_size=1050), 1)
    assert wider - small >= 1000 * (64 + 16) * 4 / 2
    longer = machine.bytes_of_training(model, Digits(batch_size=10, eval_batch_size=50), 101)
    assert longer - small >= 100 * 10 * 64 * 4


def test_to_look_at_a_model_changes_nothing_of_it() -> None:
    model = OwnModule()
    model.stem = nn.Sequential(nn.BatchNorm2d(1), model.stem)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    machine.bytes_of_training(model, Digits(), 100)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())


class TakesTheBatch(OwnModule):
    def forward(self, batch: Any) -> Tensor:
        images, _ = batch
        return super().forward(images)


class TakesTwo(OwnModule):
    def forward(self, images: Tensor, labels: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(images)


class TakesADict(OwnModule):
    def forward(self, batch: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        return super().forward(batch["images"])


class Asserts(OwnModule):
    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[-1] == 32
        return super().forward(x)


class Headless(OwnModule):
    forward = None  # type: ignore[assignment]


@pytest.mark.parametrize("kind", [OwnModule, TakesTheBatch, TakesTwo, TakesADict, Asserts, Headless])
@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")
def test_of_a_module_that_takes_something_else_the_weights_are_known(kind: type[OwnModule]) -> None:
    model = kind()  # for images of 6 x 6, not 8 x 8
    assert machine.bytes_of_training(model, Digits(), 100) >= machine.BASE_BYTES + weights(model)
    assert not any(module._forward_hooks for module in model.modules())
    assert model.training


def test_of_data_of_somebodys_own_nothing_is_asked() -> None:
    model = OwnModule()
    assert machine.bytes_of_training(model, object(), 100) >= machine.BASE_BYTES + weights(model)
    assert machine.bytes_of_training(model, None, 100) == machine.bytes_of_training(model, object(), 1)


class WithExtraState(OwnModule):
    def get_extra_state(self) -> Any:
        return {"epoch": 3}

    def set_extra_state(self, state: Any) -> None:
        pass


def test_state_that_is_no_tensor_is_not_counted() -> None:
    assert machine.bytes_of_training(WithExtraState(), None, 1) >= machine.BASE_BYTES + weights(OwnModule())
