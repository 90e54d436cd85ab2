"""No thread or process that trains or evaluates computes with denormal numbers."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from loop_helpers import OwnModule, SmallData, make_trainer, tiny
from runs import environment

from lth_lightning.callbacks import PruningLoop
from lth_lightning.cli import main
from lth_lightning.data import Digits
from lth_lightning.denormals import are_flushed, flushed

SMALL = 2.0**-127
"""A denormal number."""

LARGE = 300 * 784
"""Entries of a tensor that several threads share."""


def denormal(tensor: torch.Tensor) -> int:
    """How many entries are denormal, by their bits: exponent 0, mantissa not."""
    bits = tensor.detach().contiguous().view(torch.int32)
    return int(((bits & 0x7F800000 == 0) & (bits & 0x7FFFFF != 0)).sum())


@pytest.fixture(autouse=True)
def kept() -> Iterator[None]:
    """The tests' own flag is off, as a user's is, and off again after a run."""
    assert not are_flushed()
    yield
    assert not are_flushed()


def test_denormals_are_counted_by_their_bits() -> None:
    assert denormal(torch.tensor([0.0, SMALL, -SMALL, 2.0**-126, 1.0, 1e-45])) == 3


def test_the_flag_is_set_and_put_back() -> None:
    with flushed():
        assert are_flushed()
        with flushed():
            pass
        assert are_flushed()
        assert denormal(torch.full((8,), 2.0**-126) * 0.5) == 0
    assert denormal(torch.full((8,), 2.0**-126) * 0.5) == 8


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_it_is_put_back_whatever_torch_makes_by_default(dtype: torch.dtype) -> None:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device("meta"), flushed():
            with flushed():
                pass
            assert are_flushed()
        assert not are_flushed()
    finally:
        torch.set_default_dtype(before)


def moments(trainer: pl.Trainer) -> list[torch.Tensor]:
    states = trainer.optimizers[0].state.values()
    return [part for state in states for name, part in state.items() if name != "step" and part is not None]


class Watch(pl.Callback):
    """Makes an optimizer's moments denormal before a step, writes how many are so after it, and what is elsewhere."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        for moment in moments(trainer):
            moment.fill_(SMALL)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        # Where a gradient is exactly zero, a moment is the denormal one times a factor.
        assert moments(trainer)
        self.note(train=sum(map(denormal, moments(trainer))))

    def on_validation_batch_end(self, *_: Any) -> None:
        self.note(validate=not are_flushed())

    def on_test_batch_end(self, *_: Any) -> None:
        self.note(test=not are_flushed())

    def note(self, **seen: Any) -> None:
        found: list[bool] = []
        thread = threading.Thread(target=lambda: found.append(are_flushed()))
        thread.start()
        thread.join()
        seen |= {"pool": denormal(torch.full((LARGE,), 2.0**-126) * 0.5), "thread": found[0]}
        with (self.folder / "seen.jsonl").open("a") as file:
            file.write(json.dumps(seen) + "\n")


def seen(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "seen.jsonl").read_text().splitlines()]


def check(folder: Path) -> None:
    lines = seen(folder)
    assert {name for line in lines for name in line} >= {"train", "validate", "test", "pool", "thread"}
    assert all(line["pool"] == 0 and line["thread"] for line in lines)
    assert not any(line.get(name, 0) for line in lines for name in ("train", "validate", "test"))


LOOP: dict[str, Any] = {"levels": 1, "rates": {"linear": 0.5, "output": 0.1}, "evaluate_every": 10, "replicates": 2}


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("module", [tiny, OwnModule])
def test_no_moment_is_denormal_after_a_step(tmp_path: Path, workers: int, module: Callable[[], Any]) -> None:
    loop = PruningLoop(**LOOP)
    run = loop.run(
        lambda training: make_trainer(20, [Watch(tmp_path)]),
        module,
        SmallData() if module is OwnModule else Digits(),
        logs=tmp_path,
        workers=workers,
    )
    assert len(run) == 4
    check(tmp_path)


def test_without_the_flag_the_watch_sees_them() -> None:
    """That is, the counts above could fail."""
    weight = torch.nn.Parameter(torch.ones(8))
    optimizer = torch.optim.Adam([weight], fused=True)
    weight.grad = torch.zeros(8)
    optimizer.step()
    optimizer.state[weight]["exp_avg"].fill_(SMALL)
    optimizer.step()
    assert denormal(optimizer.state[weight]["exp_avg"]) == 8
    with flushed():
        optimizer.state[weight]["exp_avg"].fill_(SMALL)
        optimizer.step()
    assert denormal(optimizer.state[weight]["exp_avg"]) == 0


def test_nor_in_any_thread_of_the_command(tmp_path: Path) -> None:
    """Torch's pool of threads begins after the flag is set; it copies it."""
    watch = f"--trainer.callbacks test_denormals.Watch --trainer.callbacks.folder {tmp_path}"
    words = (
        "fit --config quickstart --pruning.levels 0 --replicates 1 --trainer.max_steps 20 --pruning.evaluate_every 10 "
        f"--threads 2 --workers 1 --pruning.controls [] --logs {tmp_path} {watch}"
    )
    level = tmp_path / "quickstart" / "version_0" / "replicate_0" / "ticket" / "level_00"
    for arguments in (words, f"test --ckpt_path {level} {watch}"):
        command = [sys.executable, "-m", "lth_lightning", *arguments.split()]
        done = subprocess.run(
            command, env=environment(OMP_NUM_THREADS="2"), cwd=tmp_path, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr
        check(tmp_path)
    assert "test" in seen(tmp_path)[-1]


def test_a_run_that_an_older_version_began_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "fit --config quickstart --pruning.levels 0 --replicates 1 --trainer.max_steps 20 --pruning.controls []"
    assert main([*words.split(), "--logs", str(tmp_path)]) == 0
    run = tmp_path / "quickstart" / "version_0"
    assert "denormal" not in "".join(capsys.readouterr())
    content = json.loads((run / "run.json").read_text())
    assert content["sessions"][0].pop("denormals") == "zero"
    (run / "run.json").write_text(json.dumps(content))
    assert main(["fit", "--resume", str(run)]) == 0
    assert "denormal" not in "".join(capsys.readouterr()), "nothing was left to train"
    assert main(["fit", "--resume", str(run), "--pruning.levels", "1"]) == 0
    assert "The run was begun by a version that computed with denormal numbers" in "".join(capsys.readouterr())
