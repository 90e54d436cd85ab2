"""The LightningCLI whose `fit` is a run of a PruningLoop."""

import os
import re
from argparse import ArgumentError
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from jsonargparse import Namespace
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor

import lth_lightning.callbacks
import lth_lightning.data
import lth_lightning.models
import lth_lightning.pruning  # noqa: F401  importing these gives their classes short names in YAML
from lth_lightning import arguments, interrupt, machine, resume, sweep
from lth_lightning.callbacks import PruningLoop, loggers
from lth_lightning.callbacks.display import Display
from lth_lightning.callbacks.driver import Driver
from lth_lightning.callbacks.estimate import describe
from lth_lightning.callbacks.hooks import built, seeded_hooks
from lth_lightning.callbacks.measure import WeightsHolder
from lth_lightning.callbacks.origin import fresh_model
from lth_lightning.callbacks.trainer import leave_no_files, numbers_files
from lth_lightning.cli import devices
from lth_lightning.cli.code import check_code
from lth_lightning.cli.explain import explained
from lth_lightning.cli.messages import did_you_mean, own_error, plain
from lth_lightning.cli.values import check_values
from lth_lightning.data import TensorDataModule
from lth_lightning.errors import UserError
from lth_lightning.models import Classifier
from lth_lightning.place import place_of
from lth_lightning.pruning import weight_layers
from lth_lightning.pruning.rewind import check_fits
from lth_lightning.pruning.ticket import check_finite, read_format
from lth_lightning.results import Training, layers_table, results_table, verdict
from lth_lightning.results.run_folder import TRAINED
from lth_lightning.seeding import derive_seed, seed_all

SESSION_OPTIONS = ("resume", "dry_run", "layers", "workers", "config", "sweep")
"""Options of one call of the command: not part of the experiment, so not in config.yaml."""


IN_HELP = ("help", "pruning", "model", "data", "trainer")
"""The first option of each group that `--help` lists: the package's own before the Trainer's, which fill screens."""


class LTHCLI(LightningCLI):
    """`lth fit|validate|test`: every class and option from YAML and flags."""

    def __init__(self, args: Sequence[str], only_check: bool = False) -> None:
        self._words = list(args)
        self._only_check = only_check
        # No abbreviations: `--pruning.level 3` must not pass for `--pruning.levels 3`.
        strict = {"exit_on_error": False, "allow_abbrev": False}
        super().__init__(
            args=arguments.set_length(args),
            seed_everything_default=0,
            save_config_callback=None,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            trainer_defaults={
                "devices": 1,
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "enable_checkpointing": False,
            },
            parser_kwargs={
                **strict,
                # Without it, the usage of `--help` has a line for each option.
                **{name: {**strict, "usage": f"lth {name} [options]"} for name in self.subcommands()},
            },
        )

    @classmethod
    def of_cell(cls, args: Sequence[str], only_check: bool) -> "LTHCLI":
        """A run of a sweep, which is made, or checked alone; raises UserError for a mistake of the words' too."""
        try:
            return cls(args, only_check)
        except (ArgumentError, MisconfigurationException) as error:
            raise UserError(plain(str(error))) from None

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        evaluation = {"model", "dataloaders", "datamodule", "weights_only"}
        return {
            "fit": {
                "model",
                "train_dataloaders",
                "val_dataloaders",
                "datamodule",
                "ckpt_path",
                "weights_only",
            },
            "validate": evaluation,
            "test": evaluation,
        }

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_class_arguments(PruningLoop, "pruning")
        parser.add_argument(
            "--experiment",
            type=str | None,
            default=None,
            help="Name of the run's folder; the config's by default.",
        )
        parser.add_argument(
            "--threads",
            type=int | None,
            default=None,
            help="CPU threads of each training; by default the cores are shared out. Equal counts give equal bits.",
        )
        parser.add_argument(
            "--workers",
            type=int | None,
            default=None,
            help="Trainings side by side on a CPU, each in its own process; by default as many as fit, and 1 where the "
            "module or the data are your own.",
        )
        parser.add_argument("--logs", type=str, default=arguments.DEFAULT_LOGS, help="Folder that runs are kept in.")
        parser.add_argument(
            "--resume",
            type=str | None,
            default=None,
            help="Folder of a run (…/version_N), or of a sweep, to finish or extend.",
        )
        parser.add_argument(
            "--sweep",
            type=dict[str, Any] | None,
            default=None,
            help="Flags and lists of their values: a run of each combination. Also --sweep.FLAG '[…]'.",
        )
        parser.add_argument(
            "--dry_run",
            type=bool,
            nargs="?",
            const=True,
            default=False,
            help="Say what a run would do, and train nothing.",
        )
        parser.add_argument(
            "--layers",
            type=bool,
            nargs="?",
            const=True,
            default=False,
            help="At the end, list the density of each layer at each level.",
        )
        for name in ("num_classes", "shape"):
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")
        for short, long in arguments.ALIASES.items():
            if "_" not in short:
                action = next(action for action in parser._actions if action.dest == long.removeprefix("--"))
                action.help = f"{action.help} Also {short}."
        parser._action_groups = sorted(parser._action_groups, key=_place_in_help)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        try:
            self.config = parser.parse_args(args)
        except ArgumentError as error:
            unknown = re.match(r"unrecognized arguments: (\S+)", str(error))
            if not args or args[0] not in self.subcommands():
                raise
            told = did_you_mean(unknown[1], args[0], self._parser(args[0])) if unknown else None
            raise UserError(told or explained(str(error), args, self._parser(args[0]))) from None
        except UnicodeDecodeError:
            raise UserError("A file that the command line names is no UTF-8 text: give a YAML file.") from None
        except RecursionError:
            raise UserError("The options are nested without end: no config is like that.") from None

    def _parse_ckpt_path(self) -> None:
        """Do nothing: a checkpoint's hyperparameters would override flags in silence."""

    def _set_seed(self) -> None:
        # Every draw of a run is seeded by name; nothing global is needed.
        seed = self._get(self.config, "seed_everything")
        if isinstance(seed, bool):
            raise UserError("seed_everything is what all draws of a run come from: give an integer.")

    def _run_subcommand(self, subcommand: str) -> None:
        interrupt.running()
        if self._is_sweep:
            sweep.run(self, self._words)
        else:
            super()._run_subcommand(subcommand)

    def instantiate_classes(self) -> None:
        check_values(self.config[self.subcommand])
        self._is_sweep = self.subcommand == "fit" and sweep.is_asked(self.config["fit"])
        if self._is_sweep:
            return  # its cells do
        # Until it is known whether workers will be forked: a fork does not copy torch's pool of threads.
        self._default_threads = torch.get_num_threads()
        torch.set_num_threads(1)
        check_code(self._parser(self.subcommand), self.config[self.subcommand])
        # What a data module draws when it is made is the same in every session of a run.
        seed_all(derive_seed(self.config[self.subcommand]["seed_everything"], "data module"))
        self.config_init = self._instantiate_all()
        self._init = self.config_init[self.subcommand]
        self.datamodule = self._init.get("data")
        self.model = self._init.get("model")
        if self.subcommand != "fit":
            torch.set_num_threads(self._init["threads"] or self._default_threads)
        # `fit` makes a fresh Trainer for each training; only the class is asked for its method.
        self.trainer: Any = self.trainer_class if self.subcommand == "fit" else self._make_trainer()

    def _instantiate(self) -> Namespace:
        """Fresh objects of everything in the config. The Trainer's group stays a namespace."""
        return self._instantiate_all()[str(self.subcommand)]

    def _instantiate_all(self) -> Namespace:
        try:
            return self.parser.instantiate(self.config)
        except (ValueError, ModuleNotFoundError) as error:
            # What a class's own `__init__` raised says more than the parser's list of types that did not fit.
            raise own_error(error) from None

    def _make_trainer(self, training: Training | None = None) -> pl.Trainer:
        options = self._instantiate()["trainer"]
        try:
            trainer: pl.Trainer = self.trainer_class(**options)
        except (MisconfigurationException, ImportError, ValueError, TypeError, RuntimeError) as error:
            why = devices.why_not(options["accelerator"], options["devices"], bool(self._init.get("resume")))
            raise UserError(why or f"The trainer's settings do not work: {error}") from None
        return trainer

    def _make_model(self) -> pl.LightningModule:
        return self._instantiate()["model"]

    def fit(self, model: pl.LightningModule, datamodule: pl.LightningDataModule | None = None) -> None:
        """The whole run."""
        options = self._init["trainer"]
        if options["max_steps"] == -1 and options["max_epochs"] is None:
            raise UserError("A training needs an end: set --trainer.max_steps or --trainer.max_epochs.")
        loggers.refuse_one_run(self.config[self.subcommand]["trainer"]["logger"])
        display = Display(has_bars=not (options["enable_progress_bar"] or options["enable_model_summary"]))
        loop: PruningLoop = self._init["pruning"]
        seed: int = self._init["seed_everything"]
        folder = self._init["resume"] and Path(self._init["resume"])
        if folder:
            resume.check(folder, self.resolved())
        workers = self._share_out(model, datamodule, loop, display)
        if self._only_check or self._init["dry_run"]:
            self.driver = Driver(
                loop, self._make_trainer, self._make_model, datamodule, seed=seed, display=display, workers=workers
            )
            if self._only_check:
                self.driver.prepare(fetch=False)
            else:
                describe(self.driver, display, folder)
            return
        config = self.resolved()
        try:
            records = loop.run(
                self._make_trainer,
                self._make_model,
                datamodule,
                seed=seed,
                experiment=self._init["experiment"],
                logs=self._init["logs"],
                folder=folder,
                config=config,
                display=display,
                workers=workers,
                threads=self._init["threads"] or 1,
            )
        finally:
            if loop.folder:
                resume.remember(loop.folder)
        if records:
            display.console.print(results_table(records, loop.retrain.trains_on))
            if self._init["layers"] and loop.folder:
                for table in layers_table(loop.folder, records):
                    display.console.print(table)
            display.note(verdict(records, loop.retrain.trains_on))
            curves = "" if options["logger"] is False else f"Curves: tensorboard --logdir {loop.folder}   "
            display.note(f"{curves}Table: {loop.folder}/results.csv")
            display.note(f"Figures and verdicts on one page: lth report {loop.folder}")

    def _share_out(self, model: pl.LightningModule, data: Any, loop: PruningLoop, display: Display) -> int:
        """The number of workers. Settles the threads, too: config.yaml names them, since the results' bits depend."""
        trainer = self._make_trainer()
        self.world_size = trainer.world_size
        self.room: tuple[int | None, int | None, int] | None = None
        workers, threads = self._init["workers"], self._init["threads"]
        is_named = threads is not None or "OMP_NUM_THREADS" in os.environ
        if threads is None and is_named:
            threads = self._default_threads
        if trainer.world_size > 1 or trainer.strategy.root_device.type != "cpu":
            workers = workers or 1
            torch.set_num_threads(threads or self._default_threads)
        else:
            # One batched model; Lightning's own bars and many loggers are for one process; and what somebody's own
            # module and data need of the memory is not known.
            is_known = isinstance(model, Classifier) and isinstance(data, TensorDataModule)
            if loop.together or not display.has_bars or numbers_files(trainer) or not is_known:
                workers = workers or 1
            each = machine.bytes_of_training(model, data, loop.evaluate_every)
            self.room = workers, threads, each
            workers, threads = machine.share_out(loop.lines, each, workers, threads)
            self.config[self.subcommand]["threads"] = self._init["threads"] = threads
            if threads > 1 and not is_known and not is_named and not self._only_check:
                display.tell(f"CPU threads: {threads}. A small network may train faster with one: --threads 1.")
            # Workers set their own.
            torch.set_num_threads(threads if workers == 1 else 1)
        return workers

    def resolved(self) -> str:
        """The config as YAML with which `lth fit --config` repeats the run."""
        config = self.config[self.subcommand].clone()
        if config.get("experiment") is None:
            config["experiment"] = self._init["experiment"] = arguments.experiment_of(self._words) or "run"
        content = yaml.safe_load(self._parser(self.subcommand).dump(config, skip_unset=False, skip_validation=True))
        return yaml.safe_dump({k: v for k, v in content.items() if k not in SESSION_OPTIONS}, sort_keys=False)

    def validate(
        self, model: pl.LightningModule, datamodule: Any, ckpt_path: str | None = None, verbose: bool = True
    ) -> None:
        self._evaluate("validate", model, datamodule, ckpt_path, verbose)

    def test(
        self, model: pl.LightningModule, datamodule: Any, ckpt_path: str | None = None, verbose: bool = True
    ) -> None:
        self._evaluate("test", model, datamodule, ckpt_path, verbose)

    def _evaluate(self, name: str, model: pl.LightningModule, datamodule: Any, path: str | None, verbose: bool) -> None:
        """Evaluate a level's trained weights, a `trained.pt`, or a Lightning checkpoint."""
        if path is None:
            raise UserError(arguments.SAY_WHAT.format(name))
        file = Path(path) / TRAINED if Path(path).is_dir() else Path(path)
        seed: int = self._init["seed_everything"]
        make_model = built(self._make_model, lambda _: self._make_trainer(), datamodule, seed)
        # What a module draws when it is made, such as a split of its data, is what the run's replicate drew.
        model = fresh_model(make_model, seed, int(place_of(file.parent.resolve()).get("replicate", 0)))
        if file.name == TRAINED and not file.exists():
            raise UserError(
                f"{file} does not exist: the level is not finished, or it is a control's, whose weights are kept with "
                "pruning.save_controls alone."
            )
        weights: dict[str, Tensor] = {}
        if file.suffix != ".ckpt":  # a Lightning checkpoint is given to the module by Lightning
            weights = read_format(file, ("weights",))["weights"]
            check_fits(model, weights, str(file))
            check_finite(weights, (), file)
            self.trainer.callbacks.append(WeightsHolder(weights))
            path = None
        _tell_level(file.parent, model, weights)
        leave_no_files(self.trainer)
        try:
            with seeded_hooks(seed, datamodule, model):
                getattr(self.trainer, name)(model, datamodule=datamodule, ckpt_path=path, verbose=verbose)
        except RuntimeError as error:
            if "Error(s) in loading state_dict" not in str(error):
                raise
            raise UserError(f"{file} does not fit this network: {error}") from None


def _tell_level(folder: Path, model: pl.LightningModule, weights: Mapping[str, Tensor]) -> None:
    """One line on which level of a run is evaluated, and how sparse `weights` are; none where it is no level's."""
    place = place_of(folder.resolve())
    if "level" not in place:
        return
    # From what is evaluated, and not from what another file says of it.
    values = [weights[layer.name] for layer in weight_layers(model) if layer.name in weights]
    size = sum(value.numel() for value in values)
    left = (
        f": {sum(int(value.count_nonzero()) for value in values) / size:.1%} of its weights are not 0" if size else ""
    )
    Display().tell(f"replicate {place['replicate']} {folder.resolve().parent.name} level {place['level']}{left}")


def _place_in_help(group: Any) -> int:
    names = [action.dest.partition(".")[0] for action in group._group_actions[:1]]
    return IN_HELP.index(names[0]) if names and names[0] in IN_HELP else len(IN_HELP)
