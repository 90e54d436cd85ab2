"""`lth --help`: at once, and true."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from runs import environment

from lth_lightning import __version__
from lth_lightning.cli import LTHCLI, main
from lth_lightning.report import command
from lth_lightning.shipped import config_folder, config_names
from lth_lightning.usage import COMMANDS, EXAMPLES, READERS, usage


def told(*words: str) -> tuple[str, set[str]]:
    """What `lth` with these words prints, and the packages that it has imported by then."""
    code = (
        "import atexit, sys; from lth_lightning.__main__ import console; atexit.register(lambda: "
        "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)); console()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, env=environment(), check=True
    )
    return done.stdout, set(done.stderr.split())


@pytest.mark.parametrize("word", ["--help", "-h", "--version"])
def test_help_and_version_do_not_import_torch(word: str) -> None:
    out, imported = told(word)
    assert out == (f"lth {__version__}\n" if word == "--version" else usage())
    assert "lth_lightning" in imported
    assert not imported & {"torch", "pytorch_lightning", "numpy", "jsonargparse", "rich", "yaml"}


def test_every_command_is_told_and_no_other() -> None:
    assert set(COMMANDS) == {*LTHCLI.subcommands(), *READERS}
    block = usage().partition("commands:\n")[2].partition("\n\n")[0]
    assert [line.split()[0] for line in block.splitlines()] == list(COMMANDS)


def test_every_shipped_config_is_told() -> None:
    told = re.split(r",\s+", usage().partition("configs:\n")[2].strip())
    assert told == [*_stems(config_folder()), "followups/…", "paper/…", "seeds/…"]
    assert config_names().split(", ") == told
    assert config_names("seeds").split(", ") == [f"seeds/{name}" for name in _stems(config_folder() / "seeds")]


def _stems(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.iterdir() if path.suffix == ".yaml")


def test_the_text_fits_into_a_terminal() -> None:
    assert max(map(len, usage().splitlines())) <= 80


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the examples' runs are: …/version_0 with a level 7, and two in lightning_logs/lenet."""
    place = tmp_path_factory.mktemp("examples")
    short = ["--trainer.max_steps", "2", "--pruning.levels", "7", "--replicates", "1", "--pruning.controls", "[]"]
    assert main(["fit", "--config", "quickstart", *short, "--logs", str(place / "logs")]) == 0
    (place / "logs" / "quickstart").rename(place / "…")
    for version in ("version_0", "version_1"):
        lenet = place / "lightning_logs" / "lenet" / version
        lenet.mkdir(parents=True)
        for name in ("config.yaml", "run.json", "results.csv"):
            shutil.copy(place / "…" / "version_0" / name, lenet)
    return place


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_works(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], example: str
) -> None:
    monkeypatch.chdir(place)
    program, *words = shlex.split(example)
    assert program == "lth"
    if words[0] == "fit" and not {"--help", "--print_config", "--dry-run"} & set(words):
        words.append("--dry-run")
    if {"--help", "--print_config"} & set(words):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 0
    else:
        assert (command.main if words[0] in READERS else main)(words) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert len(captured.out) > 100


def test_no_words_at_all_show_the_usage_and_fail() -> None:
    done = subprocess.run([sys.executable, "-m", "lth_lightning"], capture_output=True, text=True, env=environment())
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == usage()


def test_a_word_that_is_no_command_is_told_at_once() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lth_lightning", "lss"], capture_output=True, text=True, env=environment()
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "lth: There is no command 'lss': give one of fit, validate, test, report, ls, diff.\n"


READING = ("files", "seeding", "results", "results.curve", "report.listing", "report.difference", "report.command")


@pytest.mark.parametrize("module", READING)
def test_what_reads_run_folders_does_not_import_torch(module: str) -> None:
    code = f"import sys, lth_lightning.{module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True)
    imported = set(done.stdout.split())
    assert not imported & {"torch", "pytorch_lightning", "torchvision", "jsonargparse"}
    if not module.startswith("report.") or module == "report.command":
        assert not imported & {"numpy", "pandas", "matplotlib"}


@pytest.mark.parametrize("words", [("ls",), ("diff", "lenet/version_0", "lenet/version_1")], ids=lambda words: words[0])
def test_listing_and_comparing_runs_do_not_import_torch(place: Path, words: tuple[str, ...]) -> None:
    code = (
        "import sys; from lth_lightning.report.command import main; assert main(sys.argv[1:]) == 0; "
        "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    paths = [f"lightning_logs/{word}" for word in words[1:]]
    done = subprocess.run(
        [sys.executable, "-c", code, words[0], *paths],
        capture_output=True, text=True, env=environment(), check=True, cwd=place,
    )  # fmt: skip
    assert "lenet" in done.stdout
    assert not set(done.stderr.split()) & {"torch", "pytorch_lightning", "torchvision", "jsonargparse", "matplotlib"}
