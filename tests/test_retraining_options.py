"""The options of retraining, frozen weights and controls on the command line, on --resume and beside `together`."""

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from loop_helpers import RATES, equal, go, level, load, pruned_by_magnitude, rows

from lth_lightning import resume
from lth_lightning.callbacks import (
    FineTune,
    LearningRateRewind,
    Noise,
    RandomMask,
    RandomPruning,
    Rewind,
    Rewound,
    SearchedAnew,
)
from lth_lightning.cli import main
from lth_lightning.errors import UserError

QUICK = ["fit", "--config", "quickstart", "--trainer.max_steps", "30", "--replicates", "1", "--workers", "1"]
QUICK += ["--pruning.levels", "1", "--pruning.controls", "[]", "--model.hidden", "[12, 8]"]


def complaint(capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    """The one line that the command says."""
    capsys.readouterr()
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    logs = tmp_path_factory.mktemp("logs")
    assert main([*QUICK, "--logs", str(logs)]) == 0
    return logs / "quickstart" / "version_0"


def without_new_options(run: Path, copied: Path) -> Path:
    shutil.copytree(run, copied)
    config = yaml.safe_load((copied / "config.yaml").read_text())
    for name in ("retrain", "pruned"):
        del config["pruning"][name]
    (copied / "config.yaml").write_text(yaml.safe_dump(config))
    (copied / "run.json").unlink()  # it holds a checksum of what config.yaml was
    return copied


def test_a_run_of_a_version_without_these_options_goes_on(run: Path, tmp_path: Path) -> None:
    older = without_new_options(run, tmp_path / "version_0")
    assert main(["fit", "--resume", str(older), "--pruning.levels", "2"]) == 0
    assert main(["fit", "--resume", str(older), "--pruning.controls", "[Reshuffle]"]) == 0
    arms = {(row["arm"], row["level"]) for row in rows(older / "results.csv")}
    assert arms == {("ticket", n) for n in "012"} | {("reshuffle", n) for n in "12"}


@pytest.mark.parametrize("older", [False, True], ids=["of this version", "of an older one"])
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--pruning.retrain", "LearningRateRewind"], "pruning.retrain"),
        (["--pruning.retrain", "FineTune", "--pruning.retrain.steps", "5"], "pruning.retrain"),
        (
            ["--pruning.retrain.optimizer_state", "true", "--pruning.rewind_step", "3"],
            "'pruning.retrain.init_args.optimizer_state' is True but False",
        ),
        (["--pruning.pruned", "init"], "'pruning.pruned' is 'init' but 'zero'"),
    ],
)
def test_other_retraining_is_refused_on_resume(
    capsys: pytest.CaptureFixture[str], run: Path, tmp_path: Path, words: list[str], told: str, older: bool
) -> None:
    folder = without_new_options(run, tmp_path / "version_0") if older else run
    assert told in complaint(capsys, ["fit", "--resume", str(folder), *words])


CONTROLS = [
    "Rewound",
    "{class_path: Rewound, init_args: {steps: 0, name: supermask}}",
    "{class_path: RandomReinit, init_args: {keep_signs: true, levels: [1]}}",
    "Reshuffle",
    "{class_path: SignedConstant, init_args: {keep_signs: true, steps: 5}}",
    "SurvivorReinit",
    "{class_path: Noise, init_args: {sd: 0.5, trials: 2}}",
    "{class_path: Noise, init_args: {sd: 1}}",
    "{class_path: SignFlips, init_args: {fraction: 0.25}}",
    "ShuffledMask",
    "{class_path: SearchedAnew, init_args: {score: Random, levels: '1-1'}}",
    "RandomPruning",
]


def test_controls_are_given_by_name_and_their_arms_have_folders(tmp_path: Path) -> None:
    words = [*QUICK, "--logs", str(tmp_path), "--pruning.controls", f"[{', '.join(CONTROLS)}]"]
    assert main(words) == 0
    run = tmp_path / "quickstart" / "version_0"
    arms = ["rewound", "supermask", "random_reinit_same_signs", "reshuffle", "signed_constant_same_signs"]
    arms += ["survivor_reinit", "noise_0.5", "noise_1", "sign_flips_0.25", "shuffled_mask", "searched_anew"]
    arms += ["random_pruning"]
    steps = {"supermask": "0", "signed_constant_same_signs": "5"}
    found = rows(run / "results.csv")
    assert {row["arm"] for row in found} == {*arms, "ticket"}
    assert all(row["steps"] == steps.get(row["arm"], "30") for row in found)
    folders = {path.name for path in (run / "replicate_0").iterdir() if path.is_dir()}
    assert folders == {"ticket", "noise_0.5_1", *(f"{arm}_0" for arm in arms)}
    # The config repeats the run, and extends it.
    before = (run / "results.csv").read_bytes()
    assert main(["fit", "--resume", str(run)]) == 0
    assert (run / "results.csv").read_bytes() == before


def test_retraining_is_given_by_name(tmp_path: Path) -> None:
    words = [*QUICK, "--logs", str(tmp_path), "--pruning.pruned", "zero_if_shrunk"]
    retrain = ["--pruning.retrain", "FineTune", "--pruning.retrain.steps", "7"]
    assert main([*words, *retrain, "--pruning.retrain.learning_rate", "0.01"]) == 0
    run = tmp_path / "quickstart" / "version_0"
    assert [row["steps"] for row in rows(run / "results.csv")] == ["30", "7"]
    assert main(["fit", "--resume", str(run), "--pruning.levels", "2"]) == 0
    assert [row["steps"] for row in rows(run / "results.csv")] == ["30", "7", "7"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--pruning.controls", "[Noise]"], "sd"),
        (["--pruning.controls", "[{class_path: Noise, init_args: {sd: 0}}]"], "sd=0"),
        (["--pruning.controls", "[{class_path: Noise, init_args: {sd: .nan}}]"], "sd is not a number"),
        (["--pruning.controls", "[{class_path: SignFlips, init_args: {fraction: 2}}]"], "fraction=2"),
        (["--pruning.controls", "[{class_path: Rewound, init_args: {steps: -1}}]"], "steps=-1"),
        (["--pruning.controls", "[{class_path: Rewound, init_args: {name: a/b}}]"], "a/b"),
        (["--pruning.controls", "[{class_path: Rewound, init_args: {name: ticket}}]"], "ticket"),
        (["--pruning.controls", "[Rewound, Rewound]"], "rewound"),
        (["--pruning.controls", "[{class_path: SearchedAnew, init_args: {levels: [2]}}]"], "level 2"),
        (
            ["--pruning.levels", "3", "--pruning.controls", "[{class_path: SearchedAnew, init_args: {levels: [2]}}]"],
            "searches its own masks",
        ),
        (["--pruning.retrain", "FineTune"], "steps"),
        (["--pruning.retrain", "FineTune", "--pruning.retrain.steps", "0"], "steps=0"),
        (["--pruning.retrain.optimizer_state", "true"], "rewind_step"),
        (["--pruning.retrain", "Rewound"], "Rewound"),
        (["--pruning.pruned", "gone"], "gone"),
        (["--pruning.pruned", "init", "--pruning.kernels", "csr"], "pruning.kernels csr"),
        (["--pruning.pruned", "init", "--pruning.controls", "[SearchedAnew]"], "searches its own masks"),
    ],
)
def test_a_mistake_is_told_in_one_line_before_anything_is_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str], told: str
) -> None:
    assert told in complaint(capsys, [*QUICK, *words, "--logs", str(tmp_path)])
    assert not list(tmp_path.iterdir())


Change = Callable[[dict[str, Any]], Any]


# What --resume may not change of a control that has been trained: all but levels and trials.
@pytest.mark.parametrize(
    ("before", "after", "refused"),
    [
        ({"steps": 0}, {"steps": None}, True),
        ({"steps": 0}, {}, True),
        ({"steps": None}, {"steps": 0}, True),
        ({}, {"steps": None, "name": None, "keep_signs": False}, False),
        ({"keep_signs": True}, {"keep_signs": False}, True),
        ({"steps": 5, "levels": [1]}, {"steps": 5, "levels": "all", "trials": 3}, False),
        ({"steps": 5}, {"steps": 6}, True),
    ],
)
def test_a_controls_length_cannot_change_on_resume(
    tmp_path: Path, before: dict[str, Any], after: dict[str, Any], refused: bool
) -> None:
    def config(settings: dict[str, Any]) -> str:
        control = {"class_path": "lth_lightning.callbacks.RandomReinit", "init_args": settings}
        return yaml.safe_dump({"pruning": {"levels": 2, "until_density": None, "replicates": 1, "controls": [control]}})

    (tmp_path / "config.yaml").write_text(config(before))
    if refused:
        with pytest.raises(UserError, match="RandomReinit differs") as error:
            resume.check(tmp_path, config(after))
        assert "\n" not in str(error.value)
    else:
        resume.check(tmp_path, config(after))


TOGETHER = {"levels": 2, "rates": RATES, "evaluate_every": 10, "together": True}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"retrain": LearningRateRewind()}, "rewinds to step 0"),
        ({"retrain": FineTune(5)}, "rewinds to step 0"),
        ({"rewind_step": 5, "retrain": Rewind(optimizer_state=True)}, "rewinds to step 0"),
        ({"rewind_step": 5}, "rewinds to step 0"),
        ({"pruned": "init"}, "prunes to zero"),
        ({"pruned": "zero_if_shrunk"}, "prunes to zero"),
        ({"controls": [Rewound(steps=0)]}, "one length"),
        ({"controls": [RandomMask(), Noise(1, steps=5)]}, "one length"),
    ],
)
def test_together_refuses_in_one_line_what_it_cannot_do(tmp_path: Path, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told) as error:
        go(tmp_path, {**TOGETHER, **settings})
    assert "\n" not in str(error.value)
    assert "pruning.together" in str(error.value)
    assert not list(tmp_path.iterdir())


def test_together_serves_the_controls_of_the_whole_length(tmp_path: Path) -> None:
    controls = [Noise(0.5), SearchedAnew(), RandomPruning()]
    go(tmp_path / "together", {**TOGETHER, "controls": copy.deepcopy(controls), "save_controls": True})
    go(tmp_path / "alone", {**TOGETHER, "together": False, "controls": controls, "save_controls": True})
    runs = [tmp_path / name / "run" / "version_0" for name in ("together", "alone")]
    keys = [[(r["arm"], r["level"], r["steps"], r["weights_remaining"]) for r in rows(x / "results.csv")] for x in runs]
    assert keys[0] == keys[1]
    by_name = {"net.fc1.weight": 0.2, "net.fc2.weight": 0.2, "net.output.weight": 0.1}
    ours = runs[0]
    first = load(level(ours, 0) / "trained.pt")["weights"]
    mask = pruned_by_magnitude(load(level(ours, 0) / "mask.pt")["mask"], first, by_name)
    assert equal(load(level(ours, 1, "searched_anew_0") / "mask.pt")["mask"], mask)
    mask = pruned_by_magnitude(mask, load(level(ours, 1, "searched_anew_0") / "trained.pt")["weights"], by_name)
    assert equal(load(level(ours, 2, "searched_anew_0") / "mask.pt")["mask"], mask)
    for arm in ("noise_0.5_0", "searched_anew_0", "random_pruning_0"):
        both = [load(level(run, 1, arm) / "trained.pt")["weights"] for run in runs]
        assert all(torch.allclose(both[0][name], both[1][name], atol=1e-4) for name in both[0])
