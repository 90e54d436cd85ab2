"""A config names code: which of it is called, and which commands never call any."""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from lth_lightning.cli import main
from lth_lightning.report import command

QUICK = ["fit", "--config", "quickstart", "--trainer.max_steps", "2", "--replicates", "1", "--pruning.controls", "[]"]
LEVEL = "quickstart/version_0/replicate_0/ticket/level_00"

PARTS = """
from collections.abc import Callable, Iterable
from typing import Any

import torch

from lth_lightning.models import LeNet300


def adam(params: Iterable) -> torch.optim.Adam:
    return torch.optim.Adam(params)


def maker(lr: float) -> Callable[[Iterable], torch.optim.SGD]:
    return lambda params: torch.optim.SGD(params, lr=lr)


def decay(epoch: int) -> float:
    return 0.5


def silent(epoch):
    open("called", "w").close()
    return 0.5


def nothing(epoch) -> None:
    open("called", "w").close()


class Net(LeNet300):
    def __init__(self, untyped=None, any_: Any = None, act: Callable = torch.tanh, **kwargs: Any) -> None:
        super().__init__(**kwargs)
"""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "code_parts.py").write_text(PARTS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "code_parts", raising=False)


def named(path: str, **init_args: Any) -> str:
    return json.dumps({"class_path": path, "init_args": init_args})


SYSTEM = {"class_path": "os.system", "init_args": {"command": "touch called"}}
POPEN = {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", "called"]}}
CALL = {"class_path": "subprocess.call", "dict_kwargs": {"args": ["touch", "called"]}}
LAMBDA_LR = "torch.optim.lr_scheduler.LambdaLR"

PLACES = {
    "optimizer": ["--model.optimizer", "{}"],
    "lr_scheduler": ["--model.lr_scheduler", "{}"],
    "model": ["--model", "{}"],
    "network": ["--pruning.levels", "0", "--model", "Supermask", "--model.network", "{}"],
    "data": ["--data", "{}"],
    "callbacks": ["--trainer.callbacks", "[{}]"],
    "logger": ["--trainer.logger", "{}"],
    "loggers": ["--trainer.logger", "[{}]"],
    "strategy": ["--trainer.strategy", "{}"],
    "plugins": ["--trainer.plugins", "[{}]"],
    "profiler": ["--trainer.profiler", "{}"],
    "accelerator": ["--trainer.accelerator", "{}"],
    "score": ["--pruning.score", "{}"],
    "retrain": ["--pruning.retrain", "{}"],
    "controls": ["--pruning.controls", "[{}]"],
    "score of a control": ["--pruning.controls", '[{{"class_path": "Searched", "init_args": {{"score": {}}}}}]'],
    "learning rate": ["--model.optimizer", '{{"class_path": "torch.optim.Adam", "init_args": {{"lr": {}}}}}'],
    "schedule": [
        "--model.lr_scheduler",
        f'{{{{"class_path": "{LAMBDA_LR}", "init_args": {{{{"lr_lambda": {{}}}}}}}}}}',
    ],
    "schedules": [
        "--model.lr_scheduler",
        f'{{{{"class_path": "{LAMBDA_LR}", "init_args": {{{{"lr_lambda": [{{}}]}}}}}}}}',
    ],
    "an object": [
        "--trainer.strategy",
        '{{"class_path": "pytorch_lightning.strategies.DDPStrategy", "init_args": {{"ddp_comm_state": {}}}}}',
    ],
    "untyped": ["--model", '{{"class_path": "code_parts.Net", "init_args": {{"untyped": {}}}}}'],
    "any": ["--model", '{{"class_path": "code_parts.Net", "init_args": {{"any_": {}}}}}'],
    "a callable": ["--model", '{{"class_path": "code_parts.Net", "init_args": {{"act": {}}}}}'],
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "code",
    [SYSTEM, *(pytest.param(code, marks=pytest.mark.thorough) for code in (POPEN, CALL))],
    ids=lambda code: code["class_path"],
)
def test_no_command_is_run_wherever_a_config_names_one(
    capsys: pytest.CaptureFixture[str], place: str, code: dict[str, Any]
) -> None:
    flag, value = PLACES[place][-2:]
    words = [*QUICK, *PLACES[place][:-2], flag, value.format(json.dumps(code)), "--dry-run"]
    assert main(words) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert {path.name for path in Path().iterdir()} <= {"code_parts.py", "__pycache__"}


@pytest.mark.parametrize(
    "value",
    ["os._exit", "builtins.exit", "code_parts.silent", "code_parts.nothing"],
)
def test_a_function_that_does_not_say_what_it_gives_is_not_handed_over(
    capsys: pytest.CaptureFixture[str], value: str
) -> None:
    assert main([*QUICK, "--model.lr_scheduler", named(LAMBDA_LR, lr_lambda=value), "--dry-run"]) == 2
    assert "annotate" in capsys.readouterr().err
    assert not Path("called").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["--model.optimizer", "code_parts.adam"],
        ["--model.optimizer", named("code_parts.maker", lr=0.1)],
        ["--model.lr_scheduler", named(LAMBDA_LR, lr_lambda="code_parts.decay")],
        ["--model", named("code_parts.Net", act="torch.relu")],
    ],
)
def test_a_function_that_gives_what_is_asked_for_is_called(words: list[str]) -> None:
    assert main([*QUICK, "--pruning.levels", "0", *words]) == 0


def test_neither_fit_nor_test_nor_validate_runs_a_command_of_a_run_that_somebody_sent(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main([*QUICK, "--pruning.levels", "0", "--logs", "."]) == 0
    config = Path("quickstart/version_0/config.yaml")
    content = yaml.safe_load(config.read_text())
    content["model"]["init_args"]["optimizer"] = SYSTEM
    config.write_text(yaml.safe_dump(content))
    config.with_name("run.json").unlink()  # it holds a checksum of what config.yaml was
    calls = [
        ["fit", "--resume", "quickstart/version_0"],
        ["fit", "--resume", "quickstart/version_0", "--dry-run"],
        ["fit", "--config", str(config)],
        ["fit", "--config", str(config), "--sweep.seed_everything", "[1, 2]"],
        ["test", "--ckpt_path", LEVEL],
        ["validate", "--ckpt_path", LEVEL],
    ]
    for words in calls:
        capsys.readouterr()
        assert main(words) == 2
        assert "os.system" in capsys.readouterr().err
    assert not Path("called").exists()


def test_ls_report_diff_and_ticket_import_nothing_that_a_config_names() -> None:
    assert main([*QUICK, "--pruning.levels", "1", "--logs", "."]) == 0
    Path("trap.py").write_text("open('called', 'w').close()\n")
    config = Path("quickstart/version_0/config.yaml")
    content = yaml.safe_load(config.read_text())
    content["model"]["init_args"]["optimizer"] = {"class_path": "trap.Trap"}
    content["trainer"]["logger"] = {"class_path": "trap.Trap", "init_args": {}}
    config.write_text(yaml.safe_dump(content))
    config.with_name("run.json").unlink()  # it holds a checksum of what config.yaml was
    shutil.copytree("quickstart", "copy")
    for words in (
        ["ls", "."],
        ["report", "quickstart/version_0"],
        ["diff", "quickstart/version_0", "copy/version_0"],
    ):
        assert command.main(words) == 0
    level = LEVEL.replace("level_00", "level_01")
    assert main([*QUICK, "--pruning.levels", "0", "--ticket", level, "--logs", "other"]) == 0
    assert not Path("called").exists()
    assert "trap" not in sys.modules
    assert os.path.isdir("other/quickstart/version_0")
