"""PruningLoop: the options of a run, and what it does within each fit."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from lth_lightning.callbacks.controls import Control
from lth_lightning.callbacks.display import Display
from lth_lightning.callbacks.driver import Driver
from lth_lightning.callbacks.fit_watch import FitWatch
from lth_lightning.callbacks.retraining import Retraining, Rewind
from lth_lightning.callbacks.start import Start
from lth_lightning.callbacks.trainer import learning_rates, parameter_groups
from lth_lightning.errors import UserError
from lth_lightning.files import write_pt
from lth_lightning.pruning import Criterion, Magnitude, Mask, MaskKeeper, Schedule, Ticket, Weights, snapshot
from lth_lightning.pruning.allocation import Scope
from lth_lightning.pruning.frozen import Pruned
from lth_lightning.pruning.schedule import PAPER_RATES
from lth_lightning.pruning.ticket import FORMAT
from lth_lightning.results.curve import TEST_COLUMNS, MetricsFile
from lth_lightning.results.record import Record
from lth_lightning.results.run_folder import CHECKPOINT, FROM_PYTHON, METRICS, REWIND
from lth_lightning.results.training import Training
from lth_lightning.seeding import seed_all

MakeTrainer = Callable[[Training], Trainer]
MakeModel = Callable[[], LightningModule]
Kernels = Literal["masked", "compact", "csr"]


class PruningLoop(Callback):
    """Finds tickets: train, prune, rewind, train again; and trains the controls beside them.

    During a fit it keeps the mask applied, records the curve, takes the rewind and early-stop snapshots and
    checkpoints. By its method `run` it is the driver too: a fresh Trainer and model for each training.

    Args:
        levels: rounds of pruning after level 0, the dense network.
        until_density: instead of `levels`, go to the first level at or below this density, such as 0.036.
        rates: fraction of what is left that goes each round, by kind (conv, linear, output) and name pattern
            (LTH Fig. 2). A kind without a rate is not pruned.
        scope: pools of one layer each, or one global pool.
        exclude: name patterns of layers that are never pruned, such as `*shortcut*`.
        score: which weights go.
        one_shot: cut every level from level 0's trained weights (LTH Fig. 4) instead of from the level before.
        grid: for one-shot, the densities of levels 1, 2, …; without it, those of iterative pruning.
        rewind_step: the step k that survivors go back to; 0 is the initialization. Level 0 trains from step 0, the
            others from k (arXiv 1903.01611).
        retrain: what a pruned network is trained from: Rewind, LearningRateRewind or FineTune.
        pruned: what pruned weights become: zero; init, frozen at their values of the rewind point; zero_if_shrunk, zero
            where training has moved them towards zero, else frozen like that (arXiv 1905.01067).
        controls: what to train beside the tickets.
        replicates: independent repetitions of everything. On the command line also `--replicates`.
        ticket: a level's folder or a ticket.pt that level 0 starts from. On the command line also `--ticket`.
        evaluate_every: optimizer steps between evaluations (LTH: 100).
        checkpoint_every: optimizer steps between checkpoints of the training at hand, for --resume.
        test_curve: also evaluate the test set every `evaluate_every` steps.
        train_accuracy: also compute accuracy on the training set, at early stop and at the end.
        save_controls: keep the controls' trained weights too.
        save_early_stop: keep the weights of the early-stop step too.
        together: train all replicates and arms of a level at once, as one batched model. For a GPU, and for networks
            without batch norm and dropout; each step is that of each alone to float rounding, which training amplifies.
        compile: compile the network with torch.compile, once for all trainings; for a GPU and the larger networks.
        kernels: how pruned Linear layers compute. masked: as dense ones, with zeros; compact: without dead units and
            inputs; csr: sparse matrix products of the survivors, on a CPU. The results are equal to float rounding;
            layers that would gain nothing stay masked (README, "What does sparsity buy?").
    """

    def __init__(
        self,
        levels: int = 15,
        until_density: float | None = None,
        rates: dict[str, float] = PAPER_RATES,
        scope: Scope = "layer",
        exclude: list[str] | None = None,
        score: Criterion = Magnitude(),  # noqa: B008  stateless
        one_shot: bool = False,
        grid: list[float] | None = None,
        rewind_step: int = 0,
        retrain: Retraining = Rewind(),  # noqa: B008  stateless
        pruned: Pruned = "zero",
        controls: list[Control] | None = None,
        replicates: int = 1,
        ticket: str | None = None,
        evaluate_every: int = 100,
        checkpoint_every: int = 500,
        test_curve: bool = False,
        train_accuracy: bool = True,
        save_controls: bool = False,
        save_early_stop: bool = False,
        together: bool = False,
        compile: bool = False,
        kernels: Kernels = "masked",
    ) -> None:
        for name, value in {"evaluate_every": evaluate_every, "checkpoint_every": checkpoint_every}.items():
            if value < 1:
                raise UserError(f"pruning.{name} is {value}: give 1 step or more.")
        if rewind_step < 0:
            raise UserError(f"pruning.rewind_step is {rewind_step}: give 0, the initialization, or a later step.")
        if retrain.optimizer_state and rewind_step == 0:
            raise UserError("At step 0 an optimizer has no state to go back to: give pruning.rewind_step a later step.")
        if pruned != "zero" and kernels != "masked":
            raise UserError(
                f"pruning.kernels {kernels} leave pruned weights out: use masked, or set pruning.pruned zero."
            )
        self.levels = levels
        self.until_density = until_density
        self.rates = dict(rates)
        self.scope = scope
        self.exclude = list(exclude or [])
        self.score = score
        self.one_shot = one_shot
        self.grid = grid
        self.rewind_step = rewind_step
        self.retrain = retrain
        self.pruned = pruned
        self.controls = list(controls or [])
        self.replicates = replicates
        self.ticket = ticket
        self.evaluate_every = evaluate_every
        self.checkpoint_every = checkpoint_every
        self.test_curve = test_curve
        self.train_accuracy = train_accuracy
        self.save_controls = save_controls
        self.save_early_stop = save_early_stop
        self.together = together
        self.compile = compile
        self.kernels = kernels
        self.folder: Path | None = None
        self.learning_rates: list[float] = []
        self._training: Training | None = None

    def run(
        self,
        make_trainer: MakeTrainer,
        make_model: MakeModel,
        datamodule: LightningDataModule | None = None,
        *,
        seed: int = 0,
        experiment: str = "run",
        logs: str | Path = "lightning_logs",
        folder: str | Path | None = None,
        config: str = FROM_PYTHON,
        display: Display | None = None,
        workers: int = 1,
        threads: int = 1,
    ) -> list[Record]:
        """Make every training of the run that is not finished, and return the table's rows.

        Args:
            make_trainer: a fresh Trainer for a training, which carries `replicate`, `arm` (`ticket`, or a control's
                name such as `random_reinit`), `trial`, `level`, `run`, the run's folder, and `folder`, its own; its
                `label` is arm and trial in one, and as text it reads `replicate 0 random_reinit_0 level 3`. It is
                asked once more before the run has a folder, for a Trainer that is looked at only. In loggers given to
                the Trainer each training is a run of its own; what else depends on the training, such as tags, is set
                here: `lambda training: Trainer(max_steps=500, logger=WandbLogger(tags=[training.arm]))`.
            make_model: a fresh, freshly initialized module.
            datamodule: used for all trainings; None where the module has its own loaders.
            seed: what all draws of the run come from.
            experiment: the run's folder is `logs/<experiment>/version_N`.
            logs: where runs are kept.
            folder: a run to go on with, instead of a new one: one that was started from Python, with the same options,
                or with more levels, replicates or controls. `lth report`, `ls` and `diff` read such a run; `lth test`
                needs a config, or --model and --data, and `lth fit --resume` refuses it.
            config: what to save as config.yaml; a run that goes on keeps its own where none is given.
            display: where progress is shown.
            workers: trainings made side by side on the CPU, each in a forked process: what `make_trainer` and
                `make_model` change in this process's memory meanwhile is not seen here. Linux only.
            threads: CPU threads of each of several workers; more than one only where this process has not yet used
                more than one itself.

        Raises:
            UserError: a setting that cannot work, before anything is written.
        """
        display = display or Display()
        driver = Driver(
            self, make_trainer, make_model, datamodule, seed=seed, display=display, workers=workers, threads=threads
        )
        return driver.run(
            experiment=experiment, logs=Path(logs), folder=Path(folder) if folder else None, config=config
        )

    def steps_of(self, training: Training, steps: int) -> int:
        """Optimizer steps that `training` makes, where one of the whole length has `steps`.

        Of a control at most: only its `start` knows whether it begins at step 0 or at the rewind step.
        """
        own, first = self.retrain.steps, self.rewind_step
        if training.is_ticket:
            return steps if training.level == 0 else own or steps - first
        control = self.control_of(training)
        return steps if control.steps is None else control.steps

    def control_of(self, training: Training) -> Control:
        """The control that a training belongs to, which is no ticket's."""
        return next(control for control in self.controls if control.arm == training.arm)

    @property
    def lines(self) -> int:
        """Arms of all replicates: as many trainings as can be made side by side."""
        return self.replicates * (1 + sum(control.trials for control in self.controls))

    def schedule_for(self, model: LightningModule, ticket: Ticket | None = None) -> Schedule:
        """Survivors of each pool at each level; raises UserError where a level would take nothing or everything."""
        return Schedule.of(
            model,
            self.levels,
            until_density=self.until_density,
            rates=self.rates,
            scope=self.scope,
            exclude=self.exclude,
            one_shot=self.one_shot,
            grid=self.grid,
            start=ticket.mask if ticket else None,
        )

    # One fit. The driver calls `begin`; Lightning calls the hooks.

    def begin(
        self, training: Training, start: Start, mask: Mask, seed: int, display: Display, long_batches: bool
    ) -> FitWatch:
        """Get ready for the fit of `training` from `start`, `mask` kept, and return what will be known of it."""
        self._training = training
        self._start = start
        self._mask = mask
        self._seed = seed
        self._display = display
        self._long_batches = long_batches
        self._saved_step = start.step
        self.learning_rates = []
        self._seconds = 0.0
        self._began = time.monotonic()
        self._metrics = MetricsFile(training.folder / METRICS, self.test_curve)
        if start.steps == 0:
            self._metrics.cut(0)  # there is no fit that would begin it
        self.watch = FitWatch()
        # A fit that is resumed from its last step's checkpoint never starts, so `on_train_start` sets nothing.
        self._detach: Callable[[], None] = lambda: None
        self._handles: list[RemovableHandle] = []
        return self.watch

    @property
    def seconds(self) -> float:
        """Wall time of the training so far, its earlier sessions up to their last checkpoint counted in."""
        return self._seconds + time.monotonic() - self._began

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Rank 0's mask is everybody's. The weights need no such care: DistributedDataParallel sends rank 0's.
        self._mask = trainer.strategy.broadcast(self._mask)
        self.keeper = MaskKeeper(pl_module, self._mask, trainer.strategy.broadcast(self._start.pruned))
        self._detach = self.keeper.attach(trainer.optimizers)
        if self.retrain.uses_rates:
            # At each step: by the end of a fit the schedule has moved once more, to a rate that no step had.
            self._handles = [o.register_step_pre_hook(lambda *_: self._note_rates(trainer)) for o in trainer.optimizers]
        if self._start.learning_rates:
            trainer.strategy.lr_scheduler_configs = []
            for group, rate in zip(parameter_groups(trainer), self._start.learning_rates, strict=True):
                group["lr"] = rate
        self._step = trainer.global_step
        if trainer.is_global_zero:
            self._metrics.cut(trainer.global_step)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        # Dropout and the like: from names, so that a resumed fit draws what an uninterrupted one draws.
        assert self._training is not None
        draws = ("step", trainer.global_step, batch_idx, trainer.global_rank)
        seed_all(self._training.seed(self._seed, *draws))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert self._training is not None
        step = trainer.global_step
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if isinstance(loss, Tensor):
            self.watch.batch(loss, len(batch[1]) if self._long_batches else 1)
        # Batches that are accumulated for step k + 1 end at step k as well: its own is the first.
        if step != self._step and self._training.is_ticket and self._training.level == 0 and step == self.rewind_step:
            self._save_rewind_point(trainer)
        if not self._long_batches and trainer.is_global_zero:
            self._display.step(step)
        if not trainer.enable_validation and step != self._step and step % self.evaluate_every == 0:
            self._interval_ended(trainer, pl_module)
        self._step = step

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit":
            self._interval_ended(trainer, pl_module)

    def _interval_ended(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self._training is not None
        self.evaluated(trainer, pl_module)
        if self.watch.diverged:
            trainer.should_stop = True
        # A checkpoint holds no gradients: none within an accumulation.
        elif (
            trainer.global_step - self._saved_step >= self.checkpoint_every
            and not trainer.fit_loop._should_accumulate()
        ):
            self._saved_step = trainer.global_step
            trainer.save_checkpoint(self._training.folder / CHECKPOINT)

    def evaluated(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, float | int | None]:
        """Record the evaluation that the trainer has just made, or the training loss alone where it makes none."""
        names = ["val_loss", "val_acc", *(TEST_COLUMNS if self.test_curve else ())]
        values = [trainer.callback_metrics.get(name) for name in names]
        known = [i for i, value in enumerate(values) if value is not None]
        train_loss = self.watch.train_loss()
        device = trainer.strategy.root_device  # the module's own is the CPU once the fit has ended
        stack = [torch.as_tensor(values[i]).float().to(device) for i in known]
        if train_loss is not None:
            stack.append(train_loss.float().to(device))
        # One transfer for all; the mean over ranks gives every rank the same numbers, and the same decisions.
        together = torch.stack(stack) if stack else torch.zeros(0)
        if trainer.world_size > 1:
            together = trainer.strategy.reduce(together, reduce_op="mean")
        numbers = together.tolist()
        metrics: dict[str, float | None] = dict.fromkeys(["train_loss", *names])
        metrics |= {names[i]: number for i, number in zip(known, numbers, strict=False)}
        if train_loss is not None:
            metrics["train_loss"] = numbers[-1]
        row = self.watch.evaluation(trainer.global_step, metrics, lambda: snapshot(pl_module))
        if trainer.is_global_zero:
            self._metrics.append(row)
            self._display.step(trainer.global_step, row)
        return row

    @staticmethod
    def unknown_metrics(trainer: Trainer) -> list[str]:
        """What the module logs, where none of it has a name that is recorded."""
        logged = {name for name in trainer.callback_metrics if name not in ("step", "epoch")}
        return [] if logged & {"val_loss", "val_acc", *TEST_COLUMNS} else sorted(logged)

    def _save_rewind_point(self, trainer: Trainer) -> None:
        """Keep the weights of step k and the state of Lightning's loops and schedules; the optimizer's if asked."""
        training = self._training
        assert training is not None
        path = training.replicate_folder / ".rewind.ckpt"
        trainer.save_checkpoint(path)
        if trainer.is_global_zero:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
            path.unlink()
            weights: Weights = checkpoint.pop("state_dict")
            checkpoint["callbacks"] = {}
            if not self.retrain.optimizer_state:
                for state in checkpoint["optimizer_states"]:
                    state["state"] = {}
            content = {"format": FORMAT, "weights": weights, "step": self.rewind_step, "seed": self._seed}
            write_pt(training.replicate_folder / REWIND, {**content, "trainer": checkpoint})

    def _note_rates(self, trainer: Trainer) -> None:
        self.learning_rates = learning_rates(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._detach()
        for handle in self._handles:
            handle.remove()

    def state_dict(self) -> dict[str, Any]:
        return {**self.watch.state_dict(), "seconds": self.seconds, "learning_rates": self.learning_rates}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._seconds = state_dict["seconds"]
        self.learning_rates = state_dict.get("learning_rates", [])  # an older version's checkpoint has none
        self.watch.load_state_dict(state_dict)
