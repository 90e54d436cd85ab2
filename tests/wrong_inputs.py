"""Wrong inputs of `lth fit`, made from its own parser: a new flag is in here by itself."""

import json
from collections.abc import Iterator
from typing import Any

from jsonargparse import ArgumentParser

from lth_lightning.callbacks.quiet import quiet
from lth_lightning.cli import LTHCLI

QUICK = ("--config", "quickstart", "--trainer.max_steps", "2", "--replicates", "1", "--pruning.levels", "1")
NO_CONTROLS = ("--pruning.controls", "[]")

VALUES = (
    "", " ", "null", "true", "0", "-1", "1e9", "0.5", ".nan", "-.inf", "99999999999999999999999", "[]", "{}", "[[]]",
    "{1: 2}", "ü∀𝄞", "x" * 300, "a b", "../..", "-", "--", "[", "*", "&a [*a]", "!!python/name:os.system", "os.system",
    "[" * 60 + "]" * 60, '{"class_path": "os.system", "init_args": {"command": "touch called"}}', "\udcff",
    "2026-01-01",
)  # fmt: skip
"""Of no type, of each type, out of any range, of the wrong shape, of other alphabets, empty, huge and harmful."""

EACH = 5
"""Values that a flag is given: neighbours in turn, so that all flags together see all of them many times."""

SKIPPED = ("help", "config", "print_config", "trainer.callbacks.help")


def flags() -> list[str]:
    """Every flag of `fit`, those of the classes that quickstart names too."""
    return [*dict.fromkeys(_flags())]


class _Only(LTHCLI):
    """Parses, and makes nothing."""

    def instantiate_classes(self) -> None:
        pass

    def _run_subcommand(self, subcommand: str) -> None:
        pass


def _flags() -> Iterator[str]:
    from lth_lightning import arguments

    with quiet():
        cli = _Only(arguments.prepare(["fit", *QUICK]))
    parser, config = cli._parser("fit"), cli.config["fit"]
    for action in parser._actions:
        if action.dest in SKIPPED or not action.option_strings or action.dest.endswith(".help"):
            continue
        yield action.dest
        value = config.get(action.dest)
        if hasattr(value, "class_path"):
            yield from (f"{action.dest}.{key}" for key in _arguments(value.class_path))
    for key in ("optimizer", "lr_scheduler"):
        yield f"model.{key}.lr" if key == "optimizer" else f"model.{key}"


def _arguments(class_path: str) -> list[str]:
    from pydoc import locate

    parser = ArgumentParser(exit_on_error=False)
    added: list[Any] = parser.add_class_arguments(locate(class_path), fail_untyped=False)
    return [key for key in added if key not in ("shape", "num_classes")]


def some_values(number: int) -> list[str]:
    """Those of the flag of that number."""
    return [VALUES[(number * EACH + index) % len(VALUES)] for index in range(EACH)]


def words(flag: str, value: str) -> list[str]:
    """A command with that flag."""
    return ["fit", *QUICK, *(() if flag == "pruning.controls" else NO_CONTROLS), f"--{flag}={value}"]


CHOSEN: list[list[str]] = [
    ["--ticket", ""],
    ["--ticket="],
    ["--resume", ""],
    ["--pruning.rates", "{1: 0.2}"],
    ["--pruning.controls", json.dumps([{"class_path": "RandomReinit", "init_args": {"name": "N" * 300}}])],
    ["--pruning.controls", json.dumps([{"class_path": "RandomReinit", "init_args": {"trials": 10**9}}])],
    ["--trainer.accumulate_grad_batches", "0"],
    ["--trainer.accumulate_grad_batches", "-2"],
    ["--trainer.gradient_clip_val", "-1"],
    ["--model.optimizer", "LBFGS"],
    ["--model.optimizer", "SparseAdam"],
    ["--model.lr_scheduler", "StepLR", "--model.lr_scheduler.step_size", "0"],
    ["--model.lr_scheduler", '{class_path: OneCycleLR, init_args: {max_lr: 0.1, total_steps: 1}}'],
    ["--model", "{class_path: Supermask, init_args: {network: {class_path: Supermask}}}", "--pruning.levels", "0"],
    ["--data", "TensorDataModule"],
    ["--data.normalization", "{mean: [.nan], std: [1.0]}"],
    ["--data.normalization", "{mean: [0.5], std: [.inf]}"],
    ["--model.hidden", "[1000000000000]"],
    ["--model.hidden", "[99999999999999999999]"],
    ["--model.init_sd", ".inf"],
    ["--threads", "1000000000"],
    ["--workers", "1000000000"],
    ["--replicates", "1000000000"],
    ["--replicates", "1000000000", "--dry-run"],
    ["--pruning.rates", "[" * 3000 + "]" * 3000],
    ["--pruning.rates", "&a {linear: *a}"],
    ["--experiment", "\udcff"],
    ["--experiment", "x" * 300],
    ["--trainer.val_check_interval", "00:00:01:00"],
    ["--trainer.val_check_interval", "{minutes: 1}"],
    ["--trainer.check_val_every_n_epoch", "2"],
    ["--logs", "a\0b"],
    ["--trainer.default_root_dir", "elsewhere"],
    ["--model.optimizer", "os.system"],
    ["--config", "-x"],
    ["--data.batch_size", "null"],
    ["--model.dropout", "null"],
]  # fmt: skip
"""Whatever else the flags are, each of these is a mistake."""
