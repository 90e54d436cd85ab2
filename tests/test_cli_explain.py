"""A mistake is told by the flag or file that it is in, in plain words, with what to write instead."""

from pathlib import Path

import pytest

from lth_lightning.arguments import prepare, set_length
from lth_lightning.cli import main
from lth_lightning.errors import UserError
from lth_lightning.report import command
from lth_lightning.words import yaml_error

QUICK = ["fit", "--config", "quickstart"]
OWN = """
import torch
import pytorch_lightning as pl

class TinyConv(pl.LightningModule):
    def __init__(self, width: int = 3):
        super().__init__()

class Plain:
    pass
"""
FILES = {
    "own_shapes.py": OWN,
    "needs_more.py": "import no_such_package\n",
    "misspelt.yaml": "pruning: {level: 3}\n",
    "part.yaml": "pruning: {levels: 3}\n",
    "wrong.yaml": "pruning: {levels: x}\n",
    "nested.yaml": "data: {init_args: {batch_size: many}}\n",
    "empty.yaml": "",
    "comment.yaml": "# nothing\n",
    "list.yaml": "- a\n",
    "star.yaml": "pruning:\n  exclude: [*fc1*]\n",
    "open.yaml": "pruning:\n  grid: [0.5\n  levels: 3\n",
    "logger.yaml": "trainer: {logger: CSVLogger}\n",
}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def complaint(capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    run = command.main if words[0] in ("ls", "report", "diff") else main
    assert run(words) == 2
    err = capsys.readouterr().err
    assert len(err.strip().splitlines()) == 1, err
    assert sorted(path.name for path in Path().iterdir() if path.name != "__pycache__") == sorted(FILES)
    return err.removeprefix("lth: ").strip()


EXPLAINED = [
    ("--until-density 0.02 --pruning.levels 3", "Give --pruning.levels or --until-density, not both."),
    ("--trainer.logger CSVLoger", "--trainer.logger: there is no class 'CSVLoger': did you mean CSVLogger?"),
    ("--trainer.callbacks [ModelCheckpoin]", "did you mean ModelCheckpoint?"),
    ("--config logger.yaml", "logger.yaml: trainer.logger: CSVLogger asks for save_dir"),
    ("--trainer.logger.save_dir x", "a setting of no class: name the class before it, by --trainer.logger."),
    ("--pruning.exclude [*fc1*]", """a name that begins with * needs quotes: write '["*fc1*"]'."""),
    ("--pruning.exclude *fc1*", """write '["*fc1*"]'."""),
    ("--config star.yaml", """star.yaml is no YAML: a name that begins with * needs quotes in line 2"""),
    ("--pruning.controls [RandomReinit", "--pruning.controls is no YAML: the closing ] is missing."),
    ("--pruning {levels:3", "--pruning is no YAML: the closing } is missing."),
    ("--sweep.model.activation [relu", "the closing ] is missing."),
    ("--config open.yaml", "open.yaml is no YAML: the closing ] of the [ in line 2 is missing."),
    ("--pruning.controls RandomReinit", "takes a list, such as '[RandomReinit]', not 'RandomReinit'."),
    ("--pruning.retrain FineTune", "FineTune asks for steps: add --pruning.retrain.steps 500."),
    ("--config misspelt.yaml", "misspelt.yaml: there is no option 'pruning.level': did you mean pruning.levels?"),
    ("--pruning {level:\t3}", "There is no option 'pruning.level': did you mean pruning.levels?"),
    ("--config empty.yaml", "empty.yaml is empty"),
    ("--config comment.yaml", "comment.yaml is empty"),
    ("--config list.yaml", "list.yaml is no config: give names and values"),
    ("--config wrong.yaml", "wrong.yaml: pruning.levels takes a whole number, not 'x'."),
    ("--config nested.yaml", "nested.yaml: data.batch_size takes a whole number, not 'many'."),
    ("--model own_shapes.Plain", "own_shapes.Plain is a class, but a subclass of LightningModule is asked for."),
    ("--data own_shapes.TinyConv", "is a subclass of LightningModule, but a subclass of LightningDataModule is asked"),
    ("--model own_shape.TinyConv", "but there is no own_shape.py in this folder ("),
    ("--model own_shapes.TinyCon", "there is no TinyCon in own_shapes: did you mean own_shapes.TinyConv?"),
    ("--model needs_more.Net", "--model: needs_more imports no_such_package, which is not installed."),
    ("--model own_shapes.TinyConv --model.wide 3", "TinyConv has no option 'wide': did you mean width? It takes"),
    ("--model.lr 0.1", "LeNet300 has no option 'lr': did you mean optimizer.lr? It takes shape"),
    ("--model.optimizer.lrr 1", "Adam has no option 'lrr': did you mean lr? It takes lr, betas"),
    ("--data.batch_siz 3", "Digits has no option 'batch_siz': did you mean batch_size?"),
    ("--data.batch_size x", "--data.batch_size takes a whole number, not 'x'."),
    ("--model.optimizer.lr x", "--model.optimizer.lr takes a number, not 'x'."),
    ("--model.activation=", "--model.activation is empty (an unset shell variable?)"),
    ("--pruning.levels x", "--pruning.levels takes a whole number, not 'x'."),
    ("--pruning.until_density x", "--pruning.until_density takes a number, not 'x'."),
    ("--pruning.save_controls maybe", "--pruning.save_controls takes true or false, not 'maybe'."),
    ("--data.normalization raw", "such as '{mean: [0], std: [0.00392156862745098]}' for raw pixels of 0 to 255"),
    ("--pruning.scope galactic", "--pruning.scope takes layer or global, not 'galactic'."),
    ("--pruning.rates 3", "--pruning.rates takes names and values, such as '{linear: 0.2}', not '3'."),
    ("--pruning.levels", "--pruning.levels lacks its value"),
    ("--seed 3", "did you mean --seed_everything?"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "told"), EXPLAINED, ids=[options for options, _ in EXPLAINED])
def test_a_mistake_of_fit(capsys: pytest.CaptureFixture[str], options: str, told: str) -> None:
    assert told in complaint(capsys, [*QUICK, *options.split(" "), "--dry-run"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("fit --config part.yaml", "or a whole config first, such as --config lenet --config part.yaml."),
        ("fit --model.dropout 0.3 --model Conv2", "--model.dropout is a setting of no class: name the class before it"),
        ("test --ckpt_path list.yaml", "list.yaml is damaged or no file of this kind"),
        ("report x --density 20", "There is no option --density: did you mean --densities? See `lth report --help`."),
        ("report x --output=y", "did you mean --out? See `lth report --help`."),
        ("ls --folder x", "There is no option --folder: see `lth ls --help`."),
        ("ls a b", "'b' is one argument too many: see `lth ls --help`."),
    ],
)
def test_a_mistake_of_a_command(capsys: pytest.CaptureFixture[str], words: str, told: str) -> None:
    assert told in complaint(capsys, words.split())


EMPTY = (
    *("--pruning.levels", "--pruning.controls", "--config", "--model", "--data", "--logs", "--trainer.max_steps"),
    "--resume",
)


@pytest.mark.parametrize(
    "words",
    [
        *(["fit", option, ""] for option in EMPTY),
        *(["fit", f"{option}="] for option in EMPTY),
        *(["fit", "--pruning.controls+", ""], ["fit", "--sweep.seed_everything", ""], ["test", "--ckpt_path", ""]),
        *(["fit", ""], ["ls", ""], ["report", ""], ["diff", ".", ""], ["report", "x", "--out", ""]),
    ],
    ids=" ".join,
)
def test_what_is_empty_is_told_as_that(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    line = complaint(capsys, words)
    assert "is empty (" in line
    assert "an unset shell variable?" in line
    assert words[-1].partition("=")[0] in line


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("['*a*', *b*]", "needs quotes: write '['*a*', \"*b*\"]'"),
        ("{*fc1*: 0.1}", "needs quotes: write '{\"*fc1*\": 0.1}'"),
        ("{a: [1", "the closing ] is missing"),
        ("a: 1\nb: {c: 2\nd: 3\n", "the closing } of the { in line 2 is missing"),
        ('"open', "a closing quote is missing"),
        ("a: b: c", "mapping values are not allowed here"),
        ("\0", "special characters are not allowed"),
    ],
)
def test_what_is_wrong_with_yaml(text: str, told: str) -> None:
    error = yaml_error(text)
    assert error is not None
    assert told in error
    assert "unicode string" not in error


@pytest.mark.parametrize("text", ["[1, 2]", "'*'", "a: {b: '*c'}", "2 * 3", "", "&a [1, 2]", "[&a 1, *a]"])
def test_what_is_yaml_is_not_complained_about(text: str) -> None:
    assert yaml_error(text) is None


@pytest.mark.parametrize(
    ("files", "flags", "followed"),
    [
        ([{"levels": 5, "until_density": 0.5}], [], "density"),
        ([{"levels": 5, "until_density": 0.5}], ["--pruning.levels", "2"], "levels"),
        ([{"levels": 5, "until_density": 0.5}, {"levels": 2}], [], "levels"),
        ([{"levels": 5}, {"until_density": 0.5}], [], "density"),
        ([{"levels": 5}], ["--until-density", "0.5"], "density"),
        ([{"until_density": 0.5}], ["--pruning.levels=2", "--until-density", "null"], "levels"),
        ([{"until_density": 0.5}], [], "density"),
    ],
)
def test_the_last_that_says_how_far_a_run_goes_is_followed(
    tmp_path: Path, files: list[dict[str, float]], flags: list[str], followed: str
) -> None:
    words = list(QUICK)
    for number, pruning in enumerate(files):
        path = tmp_path / f"{number}.yaml"
        path.write_text(f"pruning: {pruning}\n")
        words += ["--config", str(path)]
    words = prepare([*words, *flags])
    more = ["--pruning.until_density=null"] if followed == "levels" else []
    assert set_length(words) == [*words, *more]


def test_levels_are_followed_over_a_density_in_the_config(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "part.yaml").write_text("pruning: {until_density: 0.5}\ntrainer: {max_steps: 2}\n")
    words = [*QUICK, "--config", "part.yaml", "--pruning.controls", "[]", "--replicates", "1", "--dry-run"]
    assert main([*words, "--pruning.levels", "2"]) == 0
    assert "3 trainings of 2 steps each" in capsys.readouterr().out


def test_both_lengths_in_flags_are_refused() -> None:
    with pytest.raises(UserError, match="not both"):
        set_length(["fit", "--pruning.until_density=0.5", "--pruning.levels=1"])


@pytest.mark.parametrize(("options", "folder"), [([], "lightning_logs"), (["--logs", "mine"], "mine")])
def test_a_logger_named_alone_logs_into_the_folder_of_runs(options: list[str], folder: str) -> None:
    words = prepare([*QUICK, "--trainer.logger", "CSVLogger", *options])
    assert words[-1] == f"--trainer.logger.save_dir={folder}"
    own = [*QUICK, "--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", "x"]
    assert prepare(own)[-1] == "x"
    assert not any("save_dir" in word for word in prepare([*QUICK, "--trainer.logger", "WandbLogger"]))


def test_the_readmes_logger_works_as_typed(tmp_path: Path) -> None:
    short = ["--trainer.max_steps", "2", "--pruning.levels", "0", "--replicates", "1", "--pruning.controls", "[]"]
    words = [*QUICK, *short, "--trainer.logger", "CSVLogger", "--logs", "logs"]
    assert main(words) == 0
    assert len(list((tmp_path / "logs/quickstart/version_0/csv").rglob("metrics.csv"))) == 1
    assert command.main(["ls", "logs"]) == 0
    assert main(["fit", "--resume", "logs/quickstart/version_0", "--pruning.levels", "1"]) == 0


def test_help_begins_with_the_packages_own_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    text = capsys.readouterr().out
    assert text.startswith("usage: lth fit [options]\n")
    assert text.index("--pruning.levels") < text.index("--model ") < text.index("--trainer.max_steps")
    for short in ("--until-density", "--replicates", "--ticket", "--dry-run"):
        assert f"Also {short}." in " ".join(text.split())
    assert "'[\"*shortcut*\"]'" in " ".join(text.split())


def test_the_resume_line_is_a_path_as_it_was_given(tmp_path: Path) -> None:
    from lth_lightning import resume

    assert resume.advice(tmp_path).endswith(f"lth fit --resume {tmp_path}")
    assert resume.advice(Path("logs/x/version_0")).endswith("lth fit --resume logs/x/version_0")
