"""run.json: what a run consists of, and the sessions that made it."""

import json
import platform
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning
import torch
from loop_helpers import go

import lth_lightning
from lth_lightning.callbacks import LearningRateRewind, RandomReinit, Rewind
from lth_lightning.errors import UserError
from lth_lightning.report.runs import read
from lth_lightning.results import Training, session

LOOP: dict[str, Any] = {"rates": {"linear": 0.2, "output": 0.1}, "evaluate_every": 10}
PLAN = [Training(replicate, "ticket", 0, level, Path()) for replicate in range(2) for level in (0, 1)]


def content(run: Path) -> Any:
    return json.loads((run / "run.json").read_text())


def test_the_plan_has_the_levels_of_each_arm_and_trial(tmp_path: Path) -> None:
    controls = [
        Training(replicate, "noise", trial, level, Path())
        for replicate in range(2)
        for trial in (0, 1)
        for level in (3, 1)
    ]
    session.write(tmp_path, PLAN + controls, None)
    arms = {"ticket": [0, 1], "noise_0": [1, 3], "noise_1": [1, 3]}
    said = {"first_replicate": 0, "replicates": 2, "arms": arms, "trains_on": False, "sessions": []}
    assert content(tmp_path) == {"format": 1, **said, "configs": []}
    assert session.read(tmp_path) == {**said, "configs": []}
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_session_says_with_what_it_was_made_and_nothing_private(tmp_path: Path) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    told = session.describe(torch.device("cpu"), threads=3, workers=2, experiment="mine")
    assert before <= datetime.fromisoformat(told.pop("started")) <= datetime.now(UTC)
    assert told == {
        "versions": {
            "lth_lightning": lth_lightning.__version__,
            "torch": str(torch.__version__),
            "python": platform.python_version(),
            "pytorch_lightning": pytorch_lightning.__version__,
        },
        "device": "cpu",
        "platform": platform.platform(),
        "threads": 3,
        "workers": 2,
        "denormals": "zero",
        "experiment": "mine",
    }
    session.write(tmp_path, PLAN, told)
    assert platform.node() not in re.split(r'[\s",:]+', (tmp_path / "run.json").read_text())


def test_a_gpu_is_called_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"NVIDIA {device}")
    assert session.describe(torch.device("cuda", 1), 1, 1, "mine")["device"] == "NVIDIA cuda:1"


def test_sessions_follow_one_another_and_the_plan_is_the_latest(tmp_path: Path) -> None:
    for number in range(3):
        session.write(tmp_path, PLAN[: 2 + number], {"number": number})
    session.write(tmp_path, PLAN, None)
    assert session.read(tmp_path)["sessions"] == [{"number": 0}, {"number": 1}, {"number": 2}]
    assert session.read(tmp_path)["replicates"] == 2


def test_a_run_of_an_older_version_has_none(tmp_path: Path) -> None:
    assert session.read(tmp_path) == {}


WHOLE = {"format": 1, "replicates": 1, "arms": {"ticket": [0]}, "sessions": []}
DAMAGED = [
    b"",
    b"{",
    b"\xff\xfe",
    b"[]",
    b"null",
    json.dumps(WHOLE).encode()[:-9],
    *(json.dumps({key: value for key, value in WHOLE.items() if key != name}).encode() for name in list(WHOLE)[1:]),
    *(
        json.dumps({**WHOLE, **part}).encode()
        for part in ({"replicates": "2"}, {"arms": [0]}, {"arms": {"ticket": 3}}, {"arms": {"ticket": ["0"]}},
                     {"arms": {"ticket": []}}, {"sessions": {}}, {"sessions": ["today"]})
    ),
]  # fmt: skip


@pytest.mark.parametrize("damaged", DAMAGED)
def test_a_damaged_file_is_one_line_and_the_next_session_replaces_it(tmp_path: Path, damaged: bytes) -> None:
    (tmp_path / "run.json").write_bytes(damaged)
    with pytest.raises(UserError, match="is damaged") as error:
        session.read(tmp_path)
    assert str(error.value).startswith(str(tmp_path / "run.json"))
    assert "\n" not in str(error.value)
    session.write(tmp_path, PLAN, {"number": 7})
    assert session.read(tmp_path)["arms"] == {"ticket": [0, 1]}
    assert session.read(tmp_path)["sessions"] == [{"number": 7}]


def test_a_config_that_has_changed_since_is_told_wherever_a_kill_came(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    for text in ("seed: 1\n", "seed: 1\nlevels: 2\n"):
        session.write(tmp_path, PLAN, None, text)
        assert session.read_config(tmp_path) == config.read_text() == text
    config.write_text("seed: 1\n")  # a kill before the new one was written
    assert session.read_config(tmp_path) == "seed: 1\n"
    for damaged in ("", "seed: 1", "seed: 2\n"):
        config.write_text(damaged)
        with pytest.raises(UserError, match=r"config\.yaml is damaged: it is not what the run was made with"):
            session.read_config(tmp_path)
    (tmp_path / "run.json").unlink()
    assert session.read_config(tmp_path) == "seed: 2\n"


def test_a_newer_format_says_so(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"format": 3}')
    with pytest.raises(UserError, match="has format 3, this version reads format 2: update"):
        session.read(tmp_path)


def test_a_run_writes_its_plan_and_a_session_for_each_time_that_there_was_something_to_train(tmp_path: Path) -> None:
    settings = {**LOOP, "levels": 1, "replicates": 2}
    go(tmp_path, settings)
    run = tmp_path / "run" / "version_0"
    first = session.read(run)
    assert first["replicates"] == 2
    assert first["arms"] == {"ticket": [0, 1]}
    assert [made["workers"] for made in first["sessions"]] == [1]
    assert [made["threads"] for made in first["sessions"]] == [torch.get_num_threads()]

    go(tmp_path, settings, folder=run)
    assert session.read(run) == first

    go(tmp_path, {**settings, "controls": [RandomReinit(levels=[1], trials=2)]}, folder=run)
    extended = session.read(run)
    assert extended["arms"] == {"ticket": [0, 1], "random_reinit_0": [1], "random_reinit_1": [1]}
    assert len(extended["sessions"]) == 2
    assert extended["sessions"][0] == first["sessions"][0]


def test_a_damaged_file_does_not_stop_a_run_that_goes_on(tmp_path: Path) -> None:
    settings = {**LOOP, "levels": 1}
    go(tmp_path, settings)
    run = tmp_path / "run" / "version_0"
    (run / "run.json").write_text("{")
    go(tmp_path, {**settings, "levels": 2}, folder=run)
    assert session.read(run)["arms"] == {"ticket": [0, 1, 2]}
    assert len(session.read(run)["sessions"]) == 1


def test_that_tickets_train_on_is_known_of_a_run_started_from_python(tmp_path: Path) -> None:
    for name, retrain, trains_on in (("reset", Rewind(), False), ("on", LearningRateRewind(), True)):
        go(tmp_path / name, {"levels": 1, "retrain": retrain}, steps=2)
        run = tmp_path / name / "run" / "version_0"
        assert session.read(run)["trains_on"] is trains_on
        assert read(run, name).trains_on is trains_on
