"""Every kind of file of a run, damaged in every way, under every command.

The outcome is one line that names the file, or the result of the undamaged run; a report, a listing or a difference
says what is damaged and shows the rest. Nothing else.
"""

import contextlib
import csv
import io
import json
import os
import random
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import load, tensors_equal

from lth_lightning import cli
from lth_lightning.report import command as readers
from lth_lightning.report import write
from lth_lightning.results.curve import MetricsFile

FIT = ["fit", "--config", "quickstart", "--model.hidden", "[16, 8]", "--replicates", "1", "--workers", "1",
       "--threads", "1", "--trainer.max_steps", "12", "--trainer.logger", "false", "--pruning.levels", "1",
       "--pruning.evaluate_every", "3", "--pruning.checkpoint_every", "3", "--pruning.rewind_step", "4",
       "--pruning.controls", "[{class_path: RandomReinit, init_args: {levels: [1]}}]"]  # fmt: skip
LEVELS = [f"replicate_0/{name}" for name in ("ticket/level_00", "ticket/level_01", "random_reinit_0/level_01")]
FINISHED = [
    "config.yaml",
    "run.json",
    "results.csv",
    "replicate_0/rewind.pt",
    *(f"{level}/{name}" for level in LEVELS for name in ("mask.pt", "result.json", "metrics.csv")),
    *(f"{level}/trained.pt" for level in LEVELS[:2]),
]
REPORTED = [name for name in FINISHED if not name.startswith(LEVELS[0])]
"""A report takes the longest, and reads all levels of an arm alike."""
INTERRUPTED = [
    *(name for name in FINISHED if "level_01" not in name),
    *(f"{LEVELS[1]}/{name}" for name in ("mask.pt", "metrics.csv", "last.ckpt")),
]


class Runs:
    """A finished run, one that was interrupted in level 1, and one of another seed; copies of them to damage."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._copies = 0
        assert call([*FIT, "--logs", str(folder / "finished")])[0] == 0
        assert call([*FIT, "--logs", str(folder / "other"), "--seed_everything", "1"])[0] == 0
        with pytest.MonkeyPatch.context() as patch:
            append = MetricsFile.append

            def stop(self: MetricsFile, row: dict[str, Any]) -> None:
                append(self, row)
                if "level_01" in str(self.path) and row["step"] == 12:
                    raise KeyboardInterrupt

            patch.setattr(MetricsFile, "append", stop)
            assert call([*FIT, "--logs", str(folder / "interrupted")])[0] == 130
        assert (self.base("interrupted") / LEVELS[1] / "last.ckpt").exists()
        self.baselines: dict[str, Any] = {}

    def base(self, name: str) -> Path:
        return self.folder / name / "quickstart" / "version_0"

    @property
    def place(self) -> Path:
        """Where the copies lie, all in the same place, so that what is said of them can be compared."""
        return self.folder / "work" / "quickstart" / "version_0"

    def copy(self, name: str) -> Path:
        shutil.rmtree(self.folder / "work", ignore_errors=True)
        shutil.copytree(self.base(name), self.place)
        return self.place


def call(words: list[str]) -> tuple[int, str, str]:
    """Exit code, output and errors of a command; what it raises is the test's failure."""
    out, err = io.StringIO(), io.StringIO()
    main = readers.main if words[0] in ("report", "ls", "diff") else cli.main
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    return code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("damage")
        patch.chdir(folder)
        chosen = [draw for draw in write.ALL if draw.__name__ in ("draw_loss", "incoming", "initializations")]
        patch.setattr(write, "ALL", chosen)  # those that read curves, masks and weights
        made = Runs(folder)
        yield made
        assert sorted(os.listdir(folder)) == ["finished", "interrupted", "other", "work"], "a command left files behind"


# Damages. Each changes a file.


def cut(path: Path, runs: Runs) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_at_line(path: Path, runs: Runs) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[: len(lines) // 2]))


def emptied(path: Path, runs: Runs) -> None:
    path.write_bytes(b"")


def zeroed_block(path: Path, runs: Runs) -> None:
    content = bytearray(path.read_bytes())
    third = len(content) // 3
    content[third : 2 * third] = bytes(third)
    path.write_bytes(content)


def zeroed_tensor(path: Path, runs: Runs) -> None:
    content = bytearray(path.read_bytes())
    place = in_tensor(path)
    content[place : place + 16] = bytes(16) if any(content[place : place + 16]) else b"\1" * 16
    path.write_bytes(content)


def flipped_bit(path: Path, runs: Runs) -> None:
    content = bytearray(path.read_bytes())
    content[in_tensor(path)] ^= 1
    path.write_bytes(content)


def in_tensor(path: Path) -> int:
    """A place in the first tensor of the network's first layer, or of its mask."""
    content = torch.load(path, weights_only=True)
    tensors = content.get("mask") or content.get("weights") or content["state_dict"]
    return path.read_bytes().index(tensors["net.fc1.weight"].contiguous().numpy().tobytes()) + 40


def other_text(path: Path, runs: Runs) -> None:
    path.write_text("To be, or not to be\n")


def no_text(path: Path, runs: Runs) -> None:
    path.write_bytes(b"\xff\xfe\x00caf\xe9: 1\n")


def bad_character(path: Path, runs: Runs) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] = 0xFF
    path.write_bytes(content)


def wrong_types(path: Path, runs: Runs) -> None:
    if path.suffix in (".pt", ".ckpt"):
        content = torch.load(path, weights_only=True)
        for key, value in content.items():
            content[key] = [1, 2] if isinstance(value, dict) else {"a": 1}
        torch.save(content, path)
    elif path.suffix == ".json":
        content = json.loads(path.read_text())
        path.write_text(json.dumps({key: [value] for key, value in content.items()}))
    else:
        path.write_text(re.sub(r"\d+", "[x]", path.read_text()))


def wrong_values(path: Path, runs: Runs) -> None:
    """Numbers that no training can have, and weights that are no numbers."""
    if path.name == "result.json":
        content = json.loads(path.read_text())
        path.write_text(json.dumps({**content, "density": -1.0}))
    elif path.name == "results.csv":
        rows = list(csv.DictReader(io.StringIO(path.read_text())))
        rows[0]["density"] = "nan"
        rows[-1]["density"] = "0"
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        path.write_text(text.getvalue())
    elif path.name in ("rewind.pt", "trained.pt"):
        content = torch.load(path, weights_only=True)
        content["weights"]["net.fc1.weight"][0, 0] = float("nan")
        torch.save(content, path)
    else:
        content = torch.load(path, weights_only=True)
        content["mask"] = {name: part.float() for name, part in content["mask"].items()}
        torch.save(content, path)


def missing(path: Path, runs: Runs) -> None:
    path.unlink()


def folder_instead(path: Path, runs: Runs) -> None:
    path.unlink()
    path.mkdir()


def anothers(path: Path, runs: Runs) -> None:
    """The same file of another level, or of another run where a run has one."""
    name = path.relative_to(runs.place).as_posix()
    source = runs.base("other") / name
    if "level_0" in name:
        level, file = name.rsplit("/", 1)
        source = runs.base("finished") / LEVELS[1 if level == LEVELS[0] else 0] / file
    if not source.exists():  # last.ckpt: that of a control
        source = path.with_name("other.ckpt")
        content = torch.load(path, weights_only=True)
        torch.save({**content, "training": {**content["training"], "arm": "random_reinit"}}, source)
        source.replace(path)
        return
    shutil.copyfile(source, path)


Damage = Callable[[Path, Runs], None]
DAMAGES: list[Damage] = [
    cut, cut_at_line, emptied, zeroed_block, zeroed_tensor, flipped_bit, other_text, no_text, bad_character,
    wrong_types, wrong_values, missing, folder_instead, anothers,
]  # fmt: skip
TENSORS = (".pt", ".ckpt")


def applies(damage: Damage, file: str) -> bool:
    """Whether such a file can be damaged so."""
    path = Path(file)
    if damage in (zeroed_tensor, flipped_bit):
        return path.suffix in TENSORS
    if damage is bad_character:
        return path.suffix not in TENSORS
    if damage is cut_at_line:
        return path.suffix in (".yaml", ".csv")
    if damage is wrong_values:
        return path.name in ("result.json", "results.csv", "rewind.pt", "trained.pt", "mask.pt")
    return True


# Commands.


@dataclass(frozen=True)
class Command:
    """What is done with a copy of a run.

    Attributes:
        source: which run.
        files: those that it is tried with.
        words: of the command line, for the copy's folder.
        result: what it has found or made, for a comparison with that of the undamaged run.
        reads: whether it shows whatever is whole.
    """

    source: str
    files: list[str]
    words: Callable[[Path], list[str]]
    result: Callable[[Path, str], Any]
    reads: bool = False


def trained(run: Path, out: str) -> Any:
    """What is final in a run's folder."""
    names = ("trained.pt", "mask.pt", "result.json", "metrics.csv", "rewind.pt", "results.csv")
    found = {path.relative_to(run).as_posix(): path for name in names for path in run.rglob(name)}
    return {name: load(path) for name, path in sorted(found.items())}


def started(run: Path, out: str) -> Any:
    return trained(run.parents[1] / "new" / "quickstart" / "version_0", out)


def said(run: Path, out: str) -> Any:
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d|\d+ (s|min|h|d)\b|now", "TIME", out)


def reported(run: Path, out: str) -> Any:
    return said(run, out), (run / "report" / "summary.csv").read_text()


LEVEL = LEVELS[1]
COMMANDS = {
    "resume": Command("interrupted", INTERRUPTED, lambda run: ["fit", "--resume", str(run)], trained),
    "extend": Command(
        "finished", FINISHED, lambda run: ["fit", "--resume", str(run), "--pruning.levels", "2"], trained
    ),
    "report": Command("finished", REPORTED, lambda run: ["report", str(run)], reported, reads=True),
    "report of an interrupted run": Command(
        "interrupted", INTERRUPTED[-3:], lambda run: ["report", str(run)], reported, reads=True
    ),
    "ls": Command("finished", FINISHED, lambda run: ["ls", str(run.parents[1])], said, reads=True),
    "diff": Command(
        "finished", FINISHED, lambda run: ["diff", str(run), str(run.parents[2] / "other")], said, reads=True
    ),
    "test": Command(
        "finished",
        [name for name in FINISHED if name.startswith(LEVEL) or "/" not in name],
        lambda run: ["test", "--ckpt_path", str(run / LEVEL)],
        said,
    ),
    "validate": Command(
        "finished",
        [f"{LEVEL}/trained.pt", "config.yaml"],
        lambda run: ["validate", "--ckpt_path", str(run / LEVEL)],
        said,
    ),
    "test of a checkpoint": Command(
        "interrupted",
        [f"{LEVEL}/last.ckpt"],
        lambda run: ["test", "--ckpt_path", str(run / LEVEL / "last.ckpt")],
        said,
    ),
    "ticket": Command(
        "finished",
        ["config.yaml", "run.json", "replicate_0/rewind.pt", f"{LEVEL}/mask.pt", f"{LEVEL}/trained.pt"],
        lambda run: [*FIT, "--pruning.levels", "0", "--pruning.controls", "[]", "--pruning.rewind_step", "0",
                     "--ticket", str(run / LEVEL), "--logs", str(run.parents[1] / "new")],
        started,
    ),
}  # fmt: skip

CASES = [
    (command, file, damage)
    for command, settings in COMMANDS.items()
    for file in settings.files
    for damage in DAMAGES
    if applies(damage, file)
    # A run of an older version has no run.json: a reader cannot know that this one had.
    if not (settings.reads and file == "run.json" and damage is missing)
]
SAMPLE = random.Random(7).sample(CASES, 14)


def _name(case: tuple[str, str, Damage]) -> str:
    return f"{case[0]}-{case[1]}-{case[2].__name__}"


@pytest.mark.parametrize("case", SAMPLE, ids=map(_name, SAMPLE))
def test_some_damages(case: tuple[str, str, Damage], runs: Runs) -> None:
    check(*case, runs)


@pytest.mark.thorough
@pytest.mark.parametrize("case", CASES, ids=map(_name, CASES))
def test_every_damage(case: tuple[str, str, Damage], runs: Runs) -> None:
    check(*case, runs)


def check(name: str, file: str, damage: Damage, runs: Runs) -> None:
    """The outcome is one of those allowed."""
    command = COMMANDS[name]
    if name not in runs.baselines:
        run = runs.copy(command.source)
        code, out, err = call(command.words(run))
        assert (code, err) == (0, "")
        runs.baselines[name] = command.result(run, out)
    run = runs.copy(command.source)
    damage(run / file, runs)
    damaged = (run / file).read_bytes() if (run / file).is_file() else None
    code, out, err = call(command.words(run))
    assert code in (0, 2), (code, err)
    assert "weights_only" not in err
    if code == 0:
        assert err == ""
        expected = runs.baselines[name]
        if isinstance(expected, dict) and damaged == ((run / file).read_bytes() if (run / file).is_file() else None):
            # Nobody needed it: it is as it was, and all others are as they should be.
            shutil.rmtree(run / file) if (run / file).is_dir() else (run / file).unlink(missing_ok=True)
            expected = {key: value for key, value in expected.items() if key != file}
        assert tensors_equal(command.result(run, out), expected), "another result, without a word"
        return
    lines = err.splitlines()
    assert lines, "an exit code alone"
    assert all(line.startswith("lth: ") for line in lines), err
    if command.reads:
        # What one file says of another is told, too.
        assert any(str(run / file) in line for line in lines), err
        assert "quickstart" in out
        if name.startswith("report"):
            assert (run / "report" / "report.html").is_file()
    else:
        assert len(lines) == 1, err
        assert Path(file).name in lines[0], err
