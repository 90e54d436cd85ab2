"""Sweeps: each cell is the run that its flags alone make; all are checked first; a stopped sweep goes on."""

import csv
import json
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from runs import advised, finished

from lth_lightning import interrupt, machine
from lth_lightning.callbacks import driver
from lth_lightning.callbacks.measure import Measure
from lth_lightning.cli import main
from lth_lightning.errors import UserError
from lth_lightning.results.run_folder import claim
from lth_lightning.sweep.cells import LONGEST, new_cells

CONFIG = {
    "seed_everything": 3,
    "threads": 1,
    "data": "Digits",
    "model": {"class_path": "LeNet300", "init_args": {"hidden": [20, 10]}},
    "trainer": {"max_steps": 20, "accelerator": "cpu"},
    "pruning": {"levels": 1, "evaluate_every": 10},
}
GRID = {"data.normalization": ["none", "half"], "model.activation": ["relu", "sigmoid"]}
CELLS = [f"normalization={n},activation={a}" for n in ("none", "half") for a in ("relu", "sigmoid")]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    Path("mine.yaml").write_text(yaml.safe_dump(CONFIG))
    Path("grid.yaml").write_text(yaml.safe_dump({**CONFIG, "sweep": GRID}, sort_keys=False))


def fit(*words: str) -> int:
    return main(["fit", "--logs", "logs", *words])


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "results.csv").open() as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def weights(run: Path) -> dict[str, Any]:
    files = sorted(run.rglob("trained.pt"))
    return {f"{file.parent.name} {key}": v for file in files for key, v in torch.load(file)["weights"].items()}


def assert_same(run: Path, other: Path) -> None:
    assert rows(run) == rows(other)
    a, b = weights(run), weights(other)
    assert a.keys() == b.keys() != set()
    assert all(torch.equal(a[key], b[key]) for key in a)


# What the cells are.


@pytest.mark.thorough
def test_each_cell_is_the_run_that_its_flags_alone_make(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--config", "grid.yaml", "--pruning.controls", "[RandomReinit]", "--workers", "1") == 0
    out = capsys.readouterr().out
    assert re.findall(r"^cell \d.*", out, re.MULTILINE) == [
        f"cell {i} of 4: {name.replace(',', ', ')}" for i, name in enumerate(CELLS, 1)
    ]
    folder = Path("logs/grid")
    assert sorted(path.name for path in folder.iterdir()) == sorted([*CELLS, "sweep.yaml"])
    for name in CELLS:
        normalization, activation = (pair.split("=")[1] for pair in name.split(","))
        config = yaml.safe_load((folder / name / "version_0" / "config.yaml").read_text())
        assert "sweep" not in config
        assert config["experiment"] == f"grid/{name}"
        assert config["data"]["init_args"]["normalization"] == normalization
        assert config["model"]["init_args"]["activation"] == activation
    flags = ["--data.normalization", "half", "--model.activation", "sigmoid", "--pruning.controls", "[RandomReinit]"]
    assert fit("--config", "mine.yaml", *flags) == 0
    assert_same(folder / CELLS[3] / "version_0", Path("logs/mine/version_0"))
    assert fit("--config", str(folder / CELLS[3] / "version_0" / "config.yaml")) == 0
    assert_same(folder / CELLS[3] / "version_1", Path("logs/mine/version_0"))


def test_the_end_shows_each_cells_accuracies(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--config", "mine.yaml", "--sweep.seed_everything", "[1, 2]", "--workers", "1") == 0
    lines = capsys.readouterr().out.splitlines()
    for seed in (1, 2):
        found = rows(Path(f"logs/mine/seed_everything={seed}/version_0"))
        first, last = (f"{float(row['final_test_acc']):.2%} at {float(row['density']):.1%}" for row in found)
        assert any(re.match(rf"seed_everything={seed} +{first} +{last} ", line) for line in lines[-4:])


def test_flags_on_the_command_line_join_those_of_the_config(capsys: pytest.CaptureFixture[str]) -> None:
    Path("one.yaml").write_text(yaml.safe_dump({**CONFIG, "sweep": {"data.normalization": ["none", "half"]}}))
    words = ["--sweep.data.batch_size", "[30, 60]", "--sweep.data.normalization=[lecun]", "--sweep.replicates=[1]"]
    assert fit("--config", "one.yaml", *words, "--dry-run") == 0
    out = capsys.readouterr().out
    assert re.findall(r"^normalization=.*?(?=  )", out, re.MULTILINE) == [
        "normalization=lecun, batch_size=30, replicates=1",
        "normalization=lecun, batch_size=60, replicates=1",
    ]


@pytest.mark.thorough
def test_a_sweep_over_networks_and_over_mappings() -> None:
    models = "[LeNet300, {class_path: LeNet300, init_args: {hidden: [9, 8], dropout: 0.5}}]"
    rates = "[{linear: 0.2, output: 0.1}, {linear: 0.5}]"
    assert fit("--config", "mine.yaml", "--sweep.model", models, "--sweep.pruning.rates", rates) == 0
    names = [f"model={m},rates={r}" for m in ("LeNet300", "LeNet300-hidden-9-8-dropout-0.5")
             for r in ("linear-0.2-output-0.1", "linear-0.5")]  # fmt: skip
    assert list(yaml.safe_load(Path("logs/mine/sweep.yaml").read_text())["cells"]) == names
    shapes = [weights(Path("logs/mine") / name / "version_0")["level_01 net.fc2.weight"].shape for name in names]
    assert shapes == [(10, 20), (10, 20), (8, 9), (8, 9)]
    assert fit("--resume", "logs/mine", "--pruning.levels", "2") == 0
    assert [rows(Path("logs/mine") / name / "version_0")[-1]["level"] for name in names] == ["2"] * 4


def test_a_second_sweep_gets_versions_of_its_own() -> None:
    words = ["--config", "mine.yaml", "--sweep.seed_everything", "[1, 2]", "--pruning.levels", "0"]
    assert fit(*words) == 0
    assert fit(*words) == 0
    folders = [path.name for path in Path("logs/mine/seed_everything=2").iterdir()]
    assert sorted(folders) == ["version_0", "version_1"]


GRIDS: list[dict[str, list[Any]]] = [
    {"pruning.rates": [{"linear": 0.2}, {"linear": -0.2}, {"conv/../*": 0.1}]},
    {"a.lr": [0.1, 1e-5], "b.lr": [1, None, True]},
    {"model.hidden": [[30, 10], [3010], ["30-10"], []]},
    {"x": ["a/b", "a b", "a:b", "..", "../../x", "ä", "A", "a", "", "version_1"]},
    {f"some.long_name_of_a_flag_{i}": ["x" * 40, "x" * 40 + "y"] for i in range(5)},
    {"controls": [[], ["RandomMask"], [{"class_path": "a.b.RandomMask", "init_args": {"levels": "1-3"}}]]},
]


@pytest.mark.parametrize("grid", GRIDS)
def test_names_of_cells_are_folders_of_their_own(grid: dict[str, list[Any]], tmp_path: Path) -> None:
    names = [cell.name for cell in new_cells("e", [], grid)]
    assert len({name.lower() for name in names}) == len(names)
    for name in names:
        assert len(name) <= LONGEST
        assert name.isascii()
        assert claim(f"e/{name}", tmp_path / "logs") == tmp_path / "logs" / "e" / name / "version_0"


# Mistakes.


@pytest.mark.parametrize(
    ("grid", "told"),
    [
        ("{data.nope: [1]}", "with --data.nope=1: Digits has no option 'nope': it takes batch_size"),
        ("{nope: [1]}", "with --nope=1: There is no option --nope"),
        ("{seed_everything: [1], data.normalization: [none, foo]}", "--seed_everything=1 --data.normalization=foo:"),
        ("{model: [LeNet300, NoNet]}", "with --model=NoNet: There is no class 'NoNet' for model: give one of"),
        ("{data.normalization: none}", "data.normalization is 'none': give a list"),
        ("{data: {normalization: none}}", "data.normalization is 'none': give a list"),
        ("{data.normalization: {}}", "data.normalization is {}: give a list"),
        ("{data.normalization: []}", "data.normalization has no values"),
        ("{data.normalization: [none, half, none]}", "data.normalization has the value 'none' twice"),
        ("{seed_everything: [1], data.batch_size: [1, '1']}", "are the same run"),
        ("{workers: [1, 2]}", "'workers' is not a setting"),
        ("{dry-run: [true]}", "'dry-run' is not a setting"),
        ("{help: [1]}", "'help' is not a setting"),
        ("{model.help: [1]}", "'model.help' is not a setting"),
        ("{pruning.levels: [1, 60]}", "with --pruning.levels=60: Level"),
        ("{pruning.rates: [{linear: 2}]}", "rate of 'linear' is 2.0"),
        ("{model.hidden: [[30, 10], [0]]}", "with --model.hidden=[0]: hidden layers of [0] units"),
        ("{trainer.devices: [1, 2]}", "with --trainer.devices=2: a sweep is made on one device"),
        ("[1]", "sweep"),
        ("3", "sweep"),
    ],
)
def test_a_mistake_in_any_cell_is_told_before_anything_is_written(
    capsys: pytest.CaptureFixture[str], grid: str, told: str
) -> None:
    before = sorted(Path().iterdir())
    assert fit("--config", "mine.yaml", "--sweep", grid) == 2
    captured = capsys.readouterr()
    assert told in captured.err
    assert captured.err.startswith("lth: ")
    assert len(captured.err.strip().splitlines()) == 1
    assert captured.out == ""
    assert sorted(Path().iterdir()) == before


def test_missing_data_are_told_before_anything_is_written(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr("torchvision.datasets.MNIST", no_network)
    assert fit("--config", "lenet", "--data.root", "none", "--sweep.seed_everything", "[1, 2]") == 2
    assert "point --data.root" in capsys.readouterr().err
    assert not Path("logs").exists()


# One after another, side by side, and later.


def test_a_dry_run_counts_the_cells_and_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(Path().iterdir())
    assert fit("--config", "grid.yaml", "--sweep.pruning.levels", "[1, 3]", "--dry-run") == 0
    out = capsys.readouterr().out
    assert sorted(Path().iterdir()) == before
    counts = re.findall(r"^normalization=\S+ activation=\S+ levels=\d +(\d+) +(\d+)$", out, re.MULTILINE)
    assert counts == [("2", "40"), ("4", "80")] * 4
    assert "8 cells, 24 trainings." in out
    assert "Time: about" in out
    assert "Disk: " in out


@pytest.fixture
def _as_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ctrl-C belongs to the command, as where a shell has started it."""
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(interrupt, "_is_ours", True)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_as_a_process_of_its_own")
def test_cells_of_one_line_are_made_side_by_side_with_the_same_bits(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 3)
    assert fit("--config", "grid.yaml") == 0
    out = capsys.readouterr().out
    assert out.startswith("3 cells side by side, CPU threads of each: 1.")
    assert len(re.findall(r"^cell \d of 4 is finished: ", out, re.MULTILINE)) == 4
    assert "[1/2]" not in out
    assert fit("--config", "grid.yaml", "--workers", "1") == 0
    assert "[1/2]" in capsys.readouterr().out
    for name in CELLS:
        folder = Path("logs/grid") / name
        assert_same(folder / "version_0", folder / "version_1")
        assert "[2/2] replicate 0 ticket level 1" in (folder / "version_0" / "output.txt").read_text()
    more = ["--sweep.model.activation", "[relu, sigmoid, tanh]", "--dry-run"]
    assert fit("--resume", "logs/grid", *more) == 0
    out = capsys.readouterr().out
    assert "4 of 6 cells are finished." in out
    assert "2 cells, 4 trainings." in out
    assert "Time: about" in out


def test_cells_that_fill_the_machine_alone_come_one_after_another(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 2)
    assert fit("--config", "mine.yaml", "--sweep.seed_everything", "[1, 2]", "--replicates", "2") == 0
    out = capsys.readouterr().out
    assert "cells side by side" not in out
    assert out.count("2 trainings side by side") == 2


def stop_at(measured: int, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Raise `error` where so many trainings have been measured."""
    scores, seen = Measure.scores, []

    def stop(*args: Any, **kwargs: Any) -> Any:
        seen.append(1)
        if len(seen) > measured:
            raise error
        return scores(*args, **kwargs)

    monkeypatch.setattr(Measure, "scores", stop)


@pytest.mark.thorough
@pytest.mark.parametrize("with_config", [False, True])
def test_a_stopped_sweep_tells_how_to_go_on_and_does(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, with_config: bool
) -> None:
    with monkeypatch.context() as patch:
        stop_at(3, patch, KeyboardInterrupt())
        assert fit("--config", "grid.yaml", "--workers", "1") == 130
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    assert advised(error) == "logs/grid"
    folder = Path("logs/grid")
    done = {path: state for name in CELLS for path, state in finished(folder / name / "version_0").items()}
    assert len(done) == 6
    assert fit(*(["--config", "grid.yaml"] if with_config else []), "--resume", "logs/grid") == 0
    out = capsys.readouterr().out
    assert "1 of 4 cells are finished." in out
    after = {path: state for name in CELLS for path, state in finished(folder / name / "version_0").items()}
    assert len(after) == 16
    assert {path: after[path] for path in done} == done
    if not with_config:
        assert fit("--config", "grid.yaml", "--experiment", "whole", "--workers", "1") == 0
        for name in CELLS:
            assert_same(folder / name / "version_0", Path("logs/whole") / name / "version_0")
        capsys.readouterr()
    assert fit("--resume", "logs/grid") == 0
    assert "4 of 4 cells are finished." in capsys.readouterr().out


@pytest.mark.thorough
def test_a_cell_alone_goes_on_and_is_extended(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--config", "mine.yaml", "--sweep.seed_everything", "[1, 2]") == 0
    assert fit("--resume", "logs/mine/seed_everything=2/version_0", "--pruning.levels", "2") == 0
    assert [len(rows(Path(f"logs/mine/seed_everything={n}/version_0"))) for n in (1, 2)] == [2, 3]
    capsys.readouterr()
    assert fit("--resume", "logs/mine", "--pruning.levels", "2") == 0
    assert "1 of 2 cells are finished." in capsys.readouterr().out
    assert [len(rows(Path(f"logs/mine/seed_everything={n}/version_0"))) for n in (1, 2)] == [3, 3]


@pytest.mark.parametrize("beside", [False, True])
def test_a_cell_that_fails_is_named_and_the_sweep_can_go_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, beside: bool
) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 2)
    claimed = driver.Driver._claimed

    def fail(self: driver.Driver, *args: Any) -> Any:
        if self.seed == 2:
            raise UserError("No.")
        return claimed(self, *args)

    words = ["--config", "mine.yaml", "--sweep.seed_everything", "[1, 2, 3]", *([] if beside else ["--workers", "1"])]
    with monkeypatch.context() as patch:
        patch.setattr(driver.Driver, "_claimed", fail)
        assert fit(*words) == 2
    error = capsys.readouterr().err
    assert "with --seed_everything=2: No." in error
    assert advised(error) == "logs/mine"
    assert len(error.strip().splitlines()) == 1
    assert fit("--resume", "logs/mine") == 0
    assert [len(rows(Path(f"logs/mine/seed_everything={n}/version_0"))) for n in (1, 2, 3)] == [2, 2, 2]


def test_a_cell_that_diverges_is_recorded_and_the_sweep_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    rate = ["--sweep.model.optimizer.init_args.lr", "[1.0e+38, 0.001]", "--model.optimizer", "torch.optim.SGD"]
    assert fit("--config", "mine.yaml", *rate, "--workers", "1") == 0
    out = capsys.readouterr().out
    assert re.search(r"^lr=1e\+38 +diverged at 100.0%", out, re.MULTILINE)
    assert [row["status"] for row in rows(Path("logs/mine/lr=1e+38/version_0"))] == ["diverged"]
    assert [row["status"] for row in rows(Path("logs/mine/lr=0.001/version_0"))] == ["ok", "ok"]
    assert fit("--resume", "logs/mine") == 0
    assert "Nothing is left to train: 2 of 2 cells are finished. To extend it:" in capsys.readouterr().out
    assert fit("--resume", "logs/mine/lr=1e+38/version_0", "--dry-run") == 0
    assert "Nothing is left to train: 1 training is finished." in capsys.readouterr().out


def edit_sweep(change: Callable[[dict[str, Any]], Any]) -> None:
    file = Path("logs/mine/sweep.yaml")
    content = yaml.safe_load(file.read_text())
    file.write_text(json.dumps(change(content)))


@pytest.mark.parametrize(
    ("change", "words", "told"),
    [
        (
            None,
            ["--resume", "logs/mine", "--sweep.data.batch_size", "[10]"],
            "varies seed_everything, but not data.batch_size",
        ),
        (None, ["--resume", "logs/mine", "--data.batch_size", "10"], "'data.init_args.batch_size' is 10 but 60"),
        (None, ["--resume", "logs/mine/seed_everything=1/version_0", "--sweep.threads", "[1]"], "drop --resume"),
        (None, ["--resume", "logs"], "is no run"),
        (lambda content: content["cells"].popitem(), ["--resume", "logs/mine"], "is damaged"),
        (lambda _: None, ["--resume", "logs/mine"], "is damaged"),
        (lambda _: {"cells": {}}, ["--resume", "logs/mine"], "is damaged"),
        (lambda _: {"cells": {"a": None}}, ["--resume", "logs/mine"], "is damaged"),
    ],
)
def test_what_cannot_go_on_is_told(
    capsys: pytest.CaptureFixture[str], change: Any, words: list[str], told: str
) -> None:
    assert fit("--config", "mine.yaml", "--sweep.seed_everything", "[1, 2]", "--pruning.levels", "0") == 0
    if change:
        edit_sweep(change)
    capsys.readouterr()
    assert fit(*words) == 2
    captured = capsys.readouterr()
    assert told in captured.err
    assert len(captured.err.strip().splitlines()) == 1


def test_a_cell_whose_run_is_gone_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--config", "mine.yaml", "--sweep.seed_everything", "[1, 2]", "--pruning.levels", "0") == 0
    shutil.rmtree("logs/mine/seed_everything=2")
    capsys.readouterr()
    assert fit("--resume", "logs/mine") == 2
    assert "seed_everything=2/version_0 is no run" in capsys.readouterr().err


@pytest.mark.thorough
def test_tickets_that_go_on_from_trained_weights_win_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    retrain = ["--sweep.pruning.retrain", "[LearningRateRewind, Rewind]", "--trainer.max_steps", "200"]
    assert fit("--config", "mine.yaml", *retrain, "--model.optimizer.init_args.lr", "0.03", "--workers", "1") == 0
    out = capsys.readouterr().out
    assert "these networks go on from trained weights" in out
    assert re.search(r"^retrain=LearningRateRewind .* no verdict$", out, re.MULTILINE)
    assert re.search(r"^retrain=Rewind .*[%e]$", out, re.MULTILINE)


@pytest.mark.thorough
def test_a_sweep_is_extended_by_values_and_none_is_forgotten(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--config", "mine.yaml", "--sweep.seed_everything", "[1, 2]", "--data.batch_size", "50") == 0
    before = finished(Path("logs/mine/seed_everything=1/version_0"))
    capsys.readouterr()
    assert fit("--resume", "logs/mine", "--sweep.seed_everything", "[2, 3]") == 0
    assert "2 of 3 cells are finished." in capsys.readouterr().out
    assert finished(Path("logs/mine/seed_everything=1/version_0")) == before
    new = yaml.safe_load(Path("logs/mine/seed_everything=3/version_0/config.yaml").read_text())
    assert (new["seed_everything"], new["data"]["init_args"]["batch_size"]) == (3, 50)
    # Another sweep of the same name, over another flag.
    assert fit("--config", "mine.yaml", "--sweep.model.activation", "[sigmoid]") == 0
    listed = yaml.safe_load(Path("logs/mine/sweep.yaml").read_text())["cells"]
    assert list(listed) == [f"seed_everything={seed}" for seed in (1, 2, 3)] + ["activation=sigmoid"]
    capsys.readouterr()
    assert fit("--resume", "logs/mine") == 0
    assert "4 of 4 cells are finished." in capsys.readouterr().out
