"""The command line: fit, validate, test, tickets, dry runs, and what is printed."""

import csv
import io
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from rich.console import Console

from lth_lightning.callbacks import estimate
from lth_lightning.callbacks.display import Display
from lth_lightning.callbacks.estimate import megabytes
from lth_lightning.cli import main
from lth_lightning.pruning import Ticket

SMALL = ["--config", "quickstart", "--trainer.max_steps", "60", "--replicates", "2", "--pruning.levels", "2"]
CONTROL = [
    "--pruning.controls",
    "[{class_path: RandomReinit, init_args: {levels: [1]}}]",
    "--pruning.save_controls",
    "true",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    logs = tmp_path_factory.mktemp("logs")
    assert main(["fit", *SMALL, *CONTROL, "--logs", str(logs)]) == 0
    return logs / "quickstart" / "version_0"


def test_the_run_ends_with_its_table_a_verdict_and_where_to_look(capsys: pytest.CaptureFixture[str], run: Path) -> None:
    assert main(["fit", "--resume", str(run)]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    header = next(line for line in lines if line.lstrip().startswith("level"))
    names = ["level", "weights", "arm", "trials", "early-stop step", "test acc % there", "test acc % at the end"]
    assert re.fullmatch(" +".join(map(re.escape, names)), header.strip())
    rows = [line for line in lines if re.search(r"^ .* (ticket|random_reinit) ", line)]
    assert len(rows) == 4
    assert "100.0%" in out
    assert any(re.match(r"(Winning tickets|No winning ticket|No verdict)\b.*\.$", line) for line in lines)
    assert f"tensorboard --logdir {run}" in out


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_a_finished_run_says_that_nothing_is_left_and_shows_no_bar(
    capsys: pytest.CaptureFixture[str], run: Path, monkeypatch: pytest.MonkeyPatch, dry: list[str]
) -> None:
    monkeypatch.delattr(Display, "start")
    assert main(["fit", "--resume", str(run), *dry]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert told.count("Nothing is left to train: 8 trainings are finished. To extend it: --pruning.levels") == 1
    assert ("test acc % at the end" in told) is not bool(dry)


def test_steps_that_take_long_are_timed_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(estimate.time, "perf_counter", lambda: now[0])

    def timed(seconds: float) -> tuple[float, float]:
        now[0] = 0.0
        mean = estimate._time(lambda: now.__setitem__(0, now[0] + seconds), estimate.TIMED, torch.device("cpu"))
        return mean, now[0] / seconds

    assert timed(0.01) == pytest.approx((0.01, 40))
    assert timed(0.6) == pytest.approx((0.6, 6))
    assert timed(50.0) == pytest.approx((50.0, 1))


def test_what_takes_its_time_is_told_on_a_terminal_until_it_ends_and_elsewhere_once() -> None:
    for is_terminal in (True, False):
        out = io.StringIO()
        display = Display(Console(file=out, force_terminal=is_terminal, width=80, highlight=False))
        for _ in range(2):
            with display.busy("Timing"):
                pass
        assert ("\x1b[2K" in out.getvalue()) is is_terminal
        assert is_terminal or out.getvalue() == "Timing\n"
        assert "Timing" in out.getvalue()


def test_without_a_terminal_there_are_lines_and_no_control_codes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["fit", *SMALL, "--pruning.levels", "1", "--pruning.controls", "[]", "--logs", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "\x1b" not in captured.out
    assert "\r" not in captured.out
    done = [line for line in captured.out.splitlines() if line.startswith("[")]
    assert [line.split("]")[0] for line in done] == ["[1/4", "[2/4", "[3/4", "[4/4"]
    assert any("replicate 1 ticket level 1: 80.2% of weights" in line for line in done)


def test_little_disk_is_not_called_none() -> None:
    shown = [megabytes(number) for number in (0, 9e5, 1e6, 2.4e9)]
    assert shown == ["less than 1 MB", "less than 1 MB", "about 1 MB", "about 2,400 MB"]


@pytest.mark.parametrize(("command", "metric"), [("test", "final_test_acc"), ("validate", "final_val_acc")])
@pytest.mark.parametrize("level", ["ticket/level_02", "random_reinit_0/level_01"])
def test_a_level_is_evaluated_to_what_its_record_says(
    capsys: pytest.CaptureFixture[str], run: Path, command: str, metric: str, level: str
) -> None:
    folder = run / "replicate_1" / level
    capsys.readouterr()
    assert main([command, "--ckpt_path", str(folder)]) == 0
    out = capsys.readouterr().out
    shown = re.search(rf"{metric.split('_', 1)[1]}\W+([\d.]+)", out)
    assert shown is not None
    result = json.loads((folder / "result.json").read_text())
    assert float(shown[1]) == pytest.approx(result[metric], abs=1e-6)
    where = (
        f"replicate 1 {folder.parent.name} level {result['level']}: {result['density']:.1%} of its weights are not 0"
    )
    assert out.splitlines()[0] == where
    assert " step " not in out, "an evaluation alone is at no step"


def test_a_checkpoint_file_of_a_level_is_evaluated_too(
    capsys: pytest.CaptureFixture[str], run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lth_lightning.callbacks.measure import Measure

    copy = tmp_path / "runs" / "quickstart" / "version_0"
    shutil.copytree(run, copy)
    (copy / "replicate_1" / "ticket" / "level_02" / "result.json").unlink()

    def stop(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Measure, "scores", stop)
        assert main(["fit", "--resume", str(copy)]) == 2
    # 60 steps are below checkpoint_every, so no last.ckpt was written; a Lightning checkpoint of the weights serves.
    folder = copy / "replicate_1" / "ticket" / "level_02"
    weights = torch.load(run / "replicate_1" / "ticket" / "level_02" / "trained.pt")["weights"]
    torch.save({"state_dict": weights, "pytorch-lightning_version": "2.6.6"}, folder / "last.ckpt")
    capsys.readouterr()
    assert main(["test", "--ckpt_path", str(folder / "last.ckpt")]) == 0
    shown = re.search(r"test_acc\W+([\d.]+)", capsys.readouterr().out)
    assert shown is not None
    record = json.loads((run / "replicate_1" / "ticket" / "level_02" / "result.json").read_text())
    assert float(shown[1]) == pytest.approx(record["final_test_acc"], abs=1e-6)


def test_a_run_of_an_older_version_whose_config_counts_epochs_between_evaluations_goes_on(
    run: Path, tmp_path: Path
) -> None:
    old = shutil.copytree(run, tmp_path / "version_0")
    (old / "run.json").unlink()  # which says that the config is as it was
    config = (old / "config.yaml").read_text()
    assert "check_val_every_n_epoch: 1" in config
    (old / "config.yaml").write_text(config.replace("check_val_every_n_epoch: 1", "check_val_every_n_epoch: 2"))
    assert main(["fit", "--resume", str(old), "--pruning.levels", "3"]) == 0


def test_a_level_of_an_older_run_that_names_a_root_of_lightnings_is_evaluated(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "version_0"
    shutil.copytree(run, copy)
    (copy / "run.json").unlink()
    config = yaml.safe_load((copy / "config.yaml").read_text())
    config["trainer"]["default_root_dir"] = "elsewhere"
    (copy / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["test", "--ckpt_path", str(copy / "replicate_1" / "ticket" / "level_02")]) == 0
    assert not Path("elsewhere").exists()


@pytest.mark.parametrize("one_file", [False, True])
def test_a_fit_starts_from_a_ticket(run: Path, tmp_path: Path, one_file: bool) -> None:
    source = run / "replicate_0" / "ticket" / "level_02"
    ticket = Ticket.load(source)
    if one_file:
        ticket.save(tmp_path / "ticket.pt")
        source = tmp_path / "ticket.pt"
    words = ["--ticket", str(source), "--pruning.controls", "[]", "--pruning.levels", "1", "--replicates", "1"]
    assert main(["fit", *SMALL, *words, "--logs", str(tmp_path / "logs")]) == 0
    found = tmp_path / "logs" / "quickstart" / "version_0"
    mask = torch.load(found / "replicate_0" / "ticket" / "level_00" / "mask.pt")
    assert all(torch.equal(part, ticket.mask[name]) for name, part in mask["mask"].items())
    assert mask["density"] == ticket.density
    weights = torch.load(found / "replicate_0" / "rewind.pt")["weights"]
    assert all(torch.equal(value, ticket.weights[name]) for name, value in weights.items())
    with (found / "results.csv").open() as file:
        remaining = [int(row["weights_remaining"]) for row in csv.DictReader(file)]
    assert remaining[0] == round(ticket.density * 50_200)
    assert remaining[1] < remaining[0]


def test_a_dry_run_says_what_would_be_and_writes_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    controls = ["--pruning.controls", "[{class_path: RandomReinit, init_args: {levels: 1-2, trials: 3}}]"]
    assert main(["fit", "--config", "quickstart", "--dry-run", "--until-density", "0.3", *controls]) == 0
    out = capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    assert "39 trainings of 1,000 steps each" in out  # 3 replicates of 7 levels, and 2 levels of 3 trials
    assert out.index("Timing a few steps") < out.index("Time: about")
    assert "Disk: about" in out
    # 19,200, 30,000 and 1,000 weights lose 20, 20 and 10%
    assert re.search(r"\b1 +80.2% +40,260 +3 +9\b", out)


@pytest.mark.parametrize("words", [["--help"], ["fit", "--help"], ["fit", "--config", "lenet", "--print_config"]])
def test_help_and_print_config_exit_with_0(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 0
    assert len(capsys.readouterr().out) > 300


def test_a_run_of_a_version_without_todays_options_goes_on(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "version_0"
    shutil.copytree(run, copy)
    config = yaml.safe_load((copy / "config.yaml").read_text())
    config["threads"] = None
    for name in ("together", "compile", "kernels"):
        del config["pruning"][name]
    (copy / "config.yaml").write_text(yaml.safe_dump(config))
    (copy / "run.json").unlink()  # which holds what config.yaml was
    assert main(["fit", "--resume", str(copy), "--pruning.levels", "3"]) == 0
    assert (copy / "replicate_1" / "ticket" / "level_03" / "result.json").exists()
    assert yaml.safe_load((copy / "config.yaml").read_text())["threads"] >= 1


@pytest.mark.parametrize("words", [["validate", "--config", "quickstart"], ["fit", "--config", "quickstart", "--nope"]])
def test_the_command_leaves_the_threads_of_its_caller_as_they_were(words: list[str]) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        main(words)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_loggers_that_number_their_files_get_a_file_each_training(tmp_path: Path) -> None:
    logger = ["--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", str(tmp_path / "theirs")]
    words = ["fit", *SMALL, "--pruning.levels", "1", "--pruning.controls", "[]", "--logs", str(tmp_path / "ours")]
    assert main([*words, *logger]) == 0
    files = list((tmp_path / "theirs").rglob("metrics.csv"))
    assert len(files) == 4
    assert len({file.read_text().count("\n") for file in files}) == 1


def test_a_flag_overrides_a_config_wherever_it_stands(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "more.yaml").write_text("pruning: {levels: 4}\n")
    flags = ["--data.batch_size", "50", "--pruning.rewind_step=3"]
    configs = ["--config", "quickstart", "-c", str(tmp_path / "more.yaml")]
    printed = []
    for words in ([*flags, *configs], [*configs, *flags], [*configs[:2], *flags, *configs[2:]]):
        with pytest.raises(SystemExit):
            main(["fit", *words, "--print_config"])
        printed.append(yaml.safe_load(capsys.readouterr().out))
    assert printed[0] == printed[1] == printed[2]
    pruning = printed[0]["pruning"]
    assert (printed[0]["data"]["init_args"]["batch_size"], pruning["levels"], pruning["rewind_step"]) == (50, 4, 3)
