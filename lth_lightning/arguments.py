"""What is done to the command line's words before the parser sees them."""

import contextlib
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from lth_lightning.errors import UserError
from lth_lightning.files import read_whole
from lth_lightning.nesting import check_nesting
from lth_lightning.results import run_folder, session
from lth_lightning.shipped import config_folder, config_names
from lth_lightning.words import check_empty, yaml_error

ALIASES = {
    "--replicates": "--pruning.replicates",
    "--first-replicate": "--pruning.first_replicate",
    "--until-density": "--pruning.until_density",
    "--until_density": "--pruning.until_density",
    "--ticket": "--pruning.ticket",
    "--dry-run": "--dry_run",
}
"""Short names of options that people type often."""

LEVELS, DENSITY = "--pruning.levels", "--pruning.until_density"

PATHS = ("--config", "-c", "--resume", "--logs", "--pruning.ticket", "--ckpt_path", "--data.root")
"""Options whose value is a file or a folder."""

SAY_WHAT = "Say what to {}: --ckpt_path and a level's folder of a run, or a checkpoint file."

DEFAULT_CONFIG = "quickstart"

DEFAULT_LOGS = "lightning_logs"


def prepare(arguments: Sequence[str]) -> list[str]:
    """Resolve short names of options and configs, and put a run's own config in front where one is named.

    Raises UserError for a config that is neither a file nor a shipped one's name, or a run that is none.
    """
    check_empty(arguments)
    words = [alias(word) for word in arguments]
    for word in words:
        _check_word(word)
    words = _joined(words)
    # `--config=x` as two words
    words = [
        part for word in words for part in (word.split("=", 1) if word.startswith(("--config=", "-c=")) else [word])
    ]
    at = [index for index, word in enumerate(words[:-1]) if word in ("--config", "-c")]
    configs = [part for index in at for part in ("--config", _config(words[index + 1]))]
    rest = [word for index, word in enumerate(words) if index not in at and index - 1 not in at]
    # In front: a flag overrides a config, wherever it stands.
    words = [*rest[:1], *configs, *rest[1:]]
    command = words[0] if words else ""
    own = _own_config(command, words)
    if own:
        return [command, "--config", as_word(own), *words[1:]]
    if command in ("validate", "test") and not _names_model(words):
        if path := value_of("--ckpt_path", words):
            read_whole(Path(path))
            raise UserError(f"{path} lies in no run: name its model and data by --config, or by --model and --data.")
        raise UserError(SAY_WHAT.format(command))
    if command == "fit":
        if not _names_model(words):
            words = [command, "--config", _config(DEFAULT_CONFIG), *words[1:]]
        return _with_folder_of_logger(words)
    return words


def _names_model(words: Sequence[str]) -> bool:
    """Whether the words name a config, a model's class, or ask for help: `--model.hidden` changes another's model."""
    names = ("--config", "-c", "--model", "--model.class_path", "--help", "-h")
    return any(word.partition("=")[0] in names or word.startswith(("--model.help", "--help")) for word in words)


def _with_folder_of_logger(words: list[str]) -> list[str]:
    """A logger that asks for a folder gets that of the runs, where it is named alone: `--trainer.logger CSVLogger`."""
    name = (value_of("--trainer.logger", words) or "").rpartition(".")[2]
    is_told = any(word.startswith(("--trainer.logger.save_dir", "--resume")) for word in words)
    if is_told or name not in ("CSVLogger", "TensorBoardLogger"):
        return words
    of_files = [content["logs"] for _, content in configs_of(words) if content.get("logs")]
    logs = value_of("--logs", words) or (of_files or [DEFAULT_LOGS])[-1]
    return [*words, f"--trainer.logger.save_dir={logs}"]


def set_length(words: Sequence[str]) -> list[str]:
    """`words`, of which the last that says how far a run goes is followed: --pruning.levels, or --until-density.

    The schedule follows the density where it knows both, so that levels would change nothing. Raises UserError where
    flags give both.
    """
    flags = {"levels": value_of(LEVELS, words), "until_density": value_of(DENSITY, words)}
    flags = {name: value for name, value in flags.items() if value not in (None, "null")}
    if len(flags) == 2:
        raise UserError("Give --pruning.levels or --until-density, not both.")
    of_files = (content.get("pruning") for _, content in reversed(configs_of(words)))
    for known in (flags, *(found for found in of_files if isinstance(found, dict))):
        if known.get("until_density") is not None:
            break
        if "levels" in known:
            return [*words, f"{DENSITY}=null"]
    return list(words)


def configs_of(words: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """The config files that the words name, and what each holds: nothing where it cannot be read."""
    found = []
    for file in (after for word, after in pairwise(words) if word == "--config"):
        content = None
        with contextlib.suppress(OSError, ValueError, yaml.YAMLError, RecursionError):
            content = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
        found.append((file, content if isinstance(content, dict) else {}))
    return found


def refuse_environment(environment: Mapping[str, str]) -> None:
    """Raise UserError for a variable that would be an option elsewhere: it is no part of a run's config.yaml."""
    if environment.get("JSONARGPARSE_DEFAULT_ENV", "").lower() == "true":
        raise UserError("lth takes no options from the environment: unset JSONARGPARSE_DEFAULT_ENV.")
    for name in environment:
        if found := re.fullmatch(r"(?:LTH|PL)_(?:FIT|TEST|VALIDATE)__(\w+)", name):
            flag = found[1].lower().replace("__", ".")
            raise UserError(f"lth takes no options from the environment: unset {name}, and give --{flag}.")


def alias(word: str) -> str:
    """`word`, with an option's short name made long."""
    name, equals, value = word.partition("=")
    if name.startswith("--sweep."):
        # The parser would take the dots of the second such option for a tree's.
        name = "--sweep." + name.removeprefix("--sweep.").replace(".", "/")
    return ALIASES.get(name, name) + equals + value


def _joined(words: list[str]) -> list[str]:
    """`--resume -folder` as one word where there is such a folder: the parser would take its name for an option."""
    joined: list[str] = []
    for word in words:
        if joined and joined[-1] in PATHS and word.startswith("-") and Path(word).exists():
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def as_word(path: Path) -> str:
    """`path` as a word of a command line: one that begins with '-' would be taken for an option."""
    return f"./{path}" if str(path).startswith("-") else str(path)


def _check_word(word: str) -> None:
    try:
        word.encode()
    except UnicodeEncodeError:
        raise UserError(f"{word!a} is no UTF-8 text: give its name in UTF-8.") from None
    check_nesting(word.partition("=")[2] if word.startswith("--") else word, f"{word[:30]}…")


def _config(name: str) -> str:
    if Path(name).is_file():
        try:
            text = Path(name).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{name} is no YAML: {error}") from None
        check_nesting(text, name)
        if trouble := yaml_error(text):
            raise UserError(f"{name} is no YAML: {trouble}.")
        content = yaml.safe_load(text)
        if content is None:
            raise UserError(f"{name} is empty: give settings such as 'pruning: {{levels: 3}}', or drop it.")
        if not isinstance(content, dict):
            raise UserError(f"{name} is no config: give names and values, such as 'pruning: {{levels: 3}}'.")
        return as_word(Path(name))
    shipped = config_folder() / f"{name}.yaml"
    if shipped.is_file():
        return str(shipped)
    kind = name.partition("/")[0]
    known = config_names(kind if f"{kind}/…" in config_names().split(", ") else "")
    raise UserError(f"There is no config '{name}': give a YAML file, or one of {known}.")


def value_of(option: str, words: Sequence[str]) -> str | None:
    """The last value of `--option value` or `--option=value` in `words`."""
    value = None
    for index, word in enumerate(words):
        if word == option and index + 1 < len(words):
            value = words[index + 1]
        elif word.startswith(option + "="):
            value = word.partition("=")[2]
    return value


def experiment_of(words: Sequence[str]) -> str | None:
    """The stem of the first config file, which names the experiment where nothing else does: later ones change it."""
    config = next((after for word, after in pairwise(words) if word in ("--config", "-c")), None)
    return Path(config).stem if config else None


def _first_run(folder: Path) -> Path:
    """`folder`, or the first run of the sweep that it holds."""
    if not (folder / run_folder.SWEEP).is_file():
        return folder
    name, cell = next(iter(read_sweep(folder)["cells"].items()))
    return folder / str(name) / str(cell["run"])


def read_sweep(folder: Path) -> dict[str, Any]:
    """The sweep.yaml in `folder`: `experiment`, and `cells`, by name the `run` and the `values`."""
    file = folder / run_folder.SWEEP
    with contextlib.suppress(yaml.YAMLError, UnicodeDecodeError, LookupError, TypeError, AttributeError):
        content: dict[str, Any] = yaml.safe_load(file.read_text())
        if content["cells"] and all({"run", "values"} <= {*cell} for cell in content["cells"].values()):
            return {"experiment": content["experiment"], "cells": content["cells"]}
    raise UserError(f"{file} is damaged: go on with each run by itself (--resume …/version_N).")


def _own_config(command: str, words: Sequence[str]) -> Path | None:
    """The config.yaml of the run that the words go on with (--resume) or look into (--ckpt_path, a level)."""
    if command == "fit" and (folder := value_of("--resume", words)):
        run = run_folder.check_run(_first_run(Path(folder)))
        if run_folder.is_from_python(run):
            raise UserError(
                f"{run} was started from Python: go on with it there, by PruningLoop.run(…, folder='{run}') with the "
                "same options, model and data."
            )
        return _checked(run)
    if command in ("validate", "test") and (path := value_of("--ckpt_path", words)):
        if not Path(path).exists():
            raise UserError(f"{path} does not exist: give a level's folder of a run, or a checkpoint file.")
        if Path(path).is_dir():
            return _config_of(run_folder.run_of(Path(path)), words)
        # A file of a level, such as its last.ckpt; any other checkpoint needs a --config.
        try:
            run = run_folder.run_of(Path(path).parent)
        except UserError:
            return None
        return None if run_folder.is_from_python(run) else _checked(run)
    return None


def _config_of(run: Path, words: Sequence[str]) -> Path | None:
    """The run's config.yaml; None where it was started from Python, and the words name a model or a config."""
    if not run_folder.is_from_python(run):
        return _checked(run)
    if any(word in ("--config", "-c") or word.startswith("--model") for word in words):
        return None
    raise UserError(f"{run} was started from Python: name its model and data by --config, or by --model and --data.")


def _checked(run: Path) -> Path:
    """The config.yaml of a run; raises UserError where it is damaged."""
    path = run / run_folder.CONFIG
    try:
        content = yaml.safe_load(session.read_config(run))
    except (yaml.YAMLError, RecursionError, ValueError):
        content = ""
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: how the run was made is not known. Put it back as it was.")
    return path
