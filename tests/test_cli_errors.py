"""A user's mistake: one line that says what to change, exit code 2, no traceback, nothing written."""

import shutil
from pathlib import Path

import pytest
import torch

from lth_lightning.cli import main

QUICK = ["fit", "--config", "quickstart", "--trainer.max_steps", "40", "--replicates", "1", "--pruning.controls", "[]"]


def complaint(capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    """The one line on standard error of a command that must fail with exit code 2."""
    assert main(words) == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("lth: ")
    assert "Traceback" not in captured.out + captured.err
    return lines[0]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--model", "NoSuchNet"], "'NoSuchNet' for model: give one of Conv2"),
        (["--data", "NoSuchData"], "'NoSuchData' for data: give one of CIFAR10, Digits"),
        (["--pruning.score", "NoSuchScore"], "'NoSuchScore' for score: give one of GraSP, LargeFinalSameSign"),
        (["--pruning.controls", "[NoSuchControl]"], "'NoSuchControl' for controls: give one of Noise, RandomMask"),
        (["--model", "no_such_file.Net"], "no_such_file"),
        (["--model.hiden", "[3]"], "'hiden'"),
        (["--pruning.rates", "{'*nothing*': 0.1}"], "'*nothing*' matches no weight"),
        (["--pruning.exclude", "['*nothing*']"], "'*nothing*' matches no weight"),
        (["--pruning.rates", "{linear: 1.0}"], "rate of 'linear' is 1.0"),
        (["--pruning.rates", "{linear: 0}"], "rate of 'linear' is 0"),
        (["--pruning.rates", "{linear: -0.2}"], "rate of 'linear' is -0.2"),
        (["--pruning.levels", "60"], "'net.fc1.weight' (2 weights left, rate 0.2); the schedule can go to level 40"),
        (["--pruning.levels", "-1"], "number of levels is -1"),
        (["--until-density", "0"], "density to go to is 0"),
        (["--pruning.one_shot", "true", "--pruning.grid", "[0.5, 0.00001]"], "Level 2 would take everything"),
        (["--pruning.grid", "[0.5]"], "set one_shot to true"),
        (["--pruning.scope", "global"], "A global pool has one rate"),
        (["--pruning.scope", "galactic"], "pruning.scope"),
        (["--replicates", "0"], "number of replicates is 0"),
        (["--pruning.controls", "[{class_path: RandomReinit, init_args: {levels: [99]}}]"], "ends at level 15"),
        (["--pruning.controls", "[{class_path: RandomReinit, init_args: {levels: some}}]"], "give 'all'"),
        (["--pruning.controls", "[RandomMask, RandomMask]"], "Two arms are called 'random_mask'"),
        (["--pruning.rewind_step", "40"], "a training has 40 steps"),
        (["--pruning.rewind_step", "-1"], "rewind_step is -1"),
        (["--pruning.evaluate_every", "0"], "evaluate_every is 0"),
        (["--trainer.max_stepz", "3"], "max_stepz"),
        (["--trainer.max_steps", "many"], "trainer.max_steps"),
        (["--trainer.max_steps", "0"], "A training of 0 steps"),
        (["--trainer.max_steps", "-1"], "needs an end"),
        (["--trainer.max_steps", "-5"], "--trainer.max_steps is -5: give 1 or more."),
        (["--trainer.max_epochs", "-3"], "--trainer.max_epochs is -3: give 1 or more."),
        (["--trainer.accelerator", "tpu"], "--trainer.accelerator tpu: torch finds no such device on this machine"),
        (["--trainer.accelerator", "gqu"], "Write one of auto, gpu, cpu, cuda, mps, tpu"),
        (["--trainer.accelerator", "cpu", "--trainer.devices", "[0]"], "Write --trainer.devices 1"),
        (["--trainer.devices", "2", "--trainer.strategy", "ddp_spawn"], "use --trainer.strategy=ddp"),
        (["--trainer.devices", "2", "--trainer.strategy", "ddp_fork"], "use --trainer.strategy=ddp"),
        (["--trainer.val_check_interval", "5"], "set --pruning.evaluate_every"),
        (["--trainer.fast_dev_run", "true"], "fast_dev_run"),
        (["--data.batch_size", "0"], "batch_size is 0"),
        (["--data.normalization", "foo"], "unit_l2"),
        (["--model.optimizer", "NoSuchOptimizer"], "NoSuchOptimizer"),
        (["--model.optimizer.init_args.lr", "-1"], "Invalid learning rate: -1"),
        (["--trainer.precision", "17"], "trainer.precision"),
        (["--trainer.max_time", "00:00:01:00"], "drop EarlyStopping and trainer.max_time"),
        (["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val_loss"], "drop EarlyStopping"),
        (["--trainer.overfit_batches", "1"], "trainer.overfit_batches"),
        (["--trainer.barebones", "true", "--trainer.logger", "false"], "trainer.barebones"),
        (["--trainer.limit_train_batches", "0"], "A training of 0 steps"),
        (["--threads", "-1"], "--threads is -1"),
        (["--pruning.level", "3"], "--pruning.level"),
        (["--seed_everything", "true"], "give an integer"),
        (["--experiment", "a/../b"], "cannot name an experiment"),
        (["--ticket", "nowhere.pt"], "nowhere.pt does not exist"),
        (["--ticket", "."], "holds no ticket"),
        (["--resume", "."], "is no run"),
        (["--resume", "nowhere"], "is no run"),
        (["--model", "VGG19"], "pools"),
    ],
)
def test_a_mistake_is_told_in_one_line_and_writes_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, options: list[str], told: str
) -> None:
    assert told in complaint(capsys, [*QUICK, *options])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "fit"),
        (["fly"], "choose from 'fit', 'validate', 'test'"),
        (["fit", "--config", "no_such"], "or one of conv2, conv4, conv6, lenet, lenet_fashion, quickstart"),
        (["fit", "--model", "LeNet300", "--trainer.max_steps", "3"], "no data to train on"),
        (["test", "--ckpt_path", "nowhere"], "nowhere does not exist"),
        (["test", "--ckpt_path", "."], "is no level of a run"),
        (["test", "--config", "quickstart"], "Say what to test"),
        (["test", "--config", "quickstart", "--ckpt_path", __file__], "no file of this kind"),
    ],
)
def test_a_wrong_command_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str], told: str
) -> None:
    assert told in complaint(capsys, words)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_data_root_without_a_network_names_the_three_ways(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr("torchvision.datasets.MNIST", no_network)
    line = complaint(capsys, ["fit", "--config", "lenet", "--data.root", str(tmp_path / "none")])
    assert "Name or service not known" in line
    for way in ("download", "copy the original files", "point --data.root"):
        assert way in line
    assert list(tmp_path.iterdir()) == []


def test_a_broken_yaml_file_is_told_in_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("model: [unclosed")
    assert "broken.yaml" in complaint(capsys, ["fit", "--config", "broken.yaml"])


def test_a_results_folder_that_cannot_be_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "--logs" in complaint(capsys, [*QUICK, "--logs", "file"])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    logs = tmp_path_factory.mktemp("logs")
    assert main([*QUICK, "--pruning.levels", "1", "--logs", str(logs)]) == 0
    return logs / "quickstart" / "version_0"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--trainer.max_steps", "50"], "'trainer.max_steps' is 50 but 40"),
        (["--data.batch_size", "30"], "'data.init_args.batch_size' is 30 but 60"),
        (["--pruning.rewind_step", "10"], "'pruning.rewind_step' is 10 but 0"),
        (["--seed_everything", "1"], "'seed_everything' is 1 but 0"),
        (["--pruning.levels", "0"], "can be extended, not cut"),
    ],
)
def test_resume_with_another_config_names_what_differs(
    capsys: pytest.CaptureFixture[str], run: Path, options: list[str], told: str
) -> None:
    before = (run / "config.yaml").read_bytes()
    assert told in complaint(capsys, ["fit", "--resume", str(run), *options])
    assert (run / "config.yaml").read_bytes() == before


def test_a_ticket_of_another_network_names_the_first_mismatch(capsys: pytest.CaptureFixture[str], run: Path) -> None:
    ticket = str(run / "replicate_0" / "ticket" / "level_01")
    line = complaint(capsys, [*QUICK, "--ticket", ticket, "--model.hidden", "[30, 10]"])
    assert "'net.fc1.weight' has shape (300, 64) there and (30, 64) here" in line


def test_a_damaged_ticket_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "ticket.pt").write_bytes(b"not a ticket")
    assert "damaged" in complaint(capsys, [*QUICK, "--ticket", "ticket.pt"])


def test_a_control_without_weights_cannot_be_tested_and_says_why(capsys: pytest.CaptureFixture[str], run: Path) -> None:
    copy = run.parent / "version_9"
    shutil.copytree(run, copy)
    level = copy / "replicate_0" / "ticket" / "level_01"
    (level / "trained.pt").unlink()
    assert "pruning.save_controls" in complaint(capsys, ["test", "--ckpt_path", str(level)])
    shutil.rmtree(copy)


def test_a_damaged_result_is_told_on_resume(capsys: pytest.CaptureFixture[str], run: Path) -> None:
    copy = run.parent / "version_8"
    shutil.copytree(run, copy)
    (copy / "replicate_0" / "ticket" / "level_01" / "result.json").write_text('{"replicate": 0')
    assert "is damaged: delete it" in complaint(capsys, ["fit", "--resume", str(copy)])
    shutil.rmtree(copy)


def test_a_full_disk_ends_with_one_line_and_keeps_the_run_readable(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lth_lightning.callbacks import maker

    write = maker.write_pt

    def full(path: Path, content: object) -> None:
        if "level_01" in str(path) and path.name == "trained.pt":
            raise OSError(28, "No space left on device", str(path))
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(maker, "write_pt", full)
        assert main([*QUICK, "--pruning.levels", "2", "--logs", "logs"]) == 2
    error = capsys.readouterr().err.strip()
    assert "No space left on device" in error
    assert "lth fit --resume" in error
    assert len(error.splitlines()) == 1
    run = tmp_path / "logs" / "quickstart" / "version_0"
    assert (run / "results.csv").read_text().count("\n") == 2
    torch.load(run / "replicate_0" / "ticket" / "level_00" / "trained.pt", weights_only=True)
    assert main(["fit", "--resume", str(run)]) == 0
    assert (run / "results.csv").read_text().count("\n") == 4
