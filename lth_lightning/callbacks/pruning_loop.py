"""PruningLoop: the options of a run, and what it does within each fit."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from lth_lightning.callbacks import loggers
from lth_lightning.callbacks.checkpoint_io import own_checkpoint, save_own
from lth_lightning.callbacks.controls import Control
from lth_lightning.callbacks.data_state import DataState
from lth_lightning.callbacks.display import Display
from lth_lightning.callbacks.driver import Driver
from lth_lightning.callbacks.epochs import begin_epochs_within, end_batches
from lth_lightning.callbacks.evaluated import Evaluated
from lth_lightning.callbacks.fit_watch import FitWatch
from lth_lightning.callbacks.generators import Generator, held_generators, seed_evaluation_loaders, seed_own
from lth_lightning.callbacks.hooks import builds_layers
from lth_lightning.callbacks.measure import load_built
from lth_lightning.callbacks.metrics import VAL_COLUMNS, forget, numbers, unknown_line
from lth_lightning.callbacks.module_state import CHANGED, ModuleState, users_callbacks
from lth_lightning.callbacks.retraining import Retraining, Rewind
from lth_lightning.callbacks.start import Start
from lth_lightning.callbacks.trainer import (
    gives,
    is_rank_zero,
    learning_rates,
    parameter_groups,
    refuse_no_optimizer,
    refuse_schedules,
    share_buffers,
)
from lth_lightning.errors import UserError
from lth_lightning.files import plain_copy, write_pt
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

MOST_WITHOUT_STEP = 2000
"""Batches; more than any accumulation has."""


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
        exclude: name patterns of layers that are never pruned, such as '["*shortcut*"]'; a * needs the quotes.
        score: which weights go.
        one_shot: cut every level from level 0's trained weights (LTH Fig. 4) instead of from the level before.
        grid: for one-shot, the falling densities of levels 1, 2, …; without it, those of iterative pruning. They are
            those of the layers with the largest rate; one with half that rate loses half the fraction (LTH app. G.4).
        rewind_step: the step k that survivors go back to; 0 is the initialization. Level 0 trains from step 0, the
            others from k (arXiv 1903.01611).
        retrain: what a pruned network is trained from: Rewind, LearningRateRewind or FineTune.
        pruned: what pruned weights become: zero; init, frozen at their values of the rewind point; zero_if_shrunk, zero
            where training has moved them towards zero, else frozen like that (arXiv 1905.01067).
        controls: what to train beside the tickets.
        replicates: independent repetitions of everything.
        first_replicate: the number of the first of them. Replicate 3 is the same in a run that begins with it as in one
            of six: a study can be made in several runs, on several machines, which `lth report` puts together.
        ticket: a level's folder or a ticket.pt that level 0 starts from.
        evaluate_every: optimizer steps between evaluations (LTH: 100).
        checkpoint_every: optimizer steps between checkpoints of the training at hand, for --resume.
        test_curve: also evaluate the test set every `evaluate_every` steps.
        train_accuracy: also compute accuracy on the training set, at early stop and at the end. By default where that
            is one pass over it, with this package's data sets, and not with loaders of your own.
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
        first_replicate: int = 0,
        ticket: str | None = None,
        evaluate_every: int = 100,
        checkpoint_every: int = 500,
        test_curve: bool = False,
        train_accuracy: bool | None = None,
        save_controls: bool = False,
        save_early_stop: bool = False,
        together: bool = False,
        compile: bool = False,
        kernels: Kernels = "masked",
    ) -> None:
        for name, value in {"evaluate_every": evaluate_every, "checkpoint_every": checkpoint_every}.items():
            if value < 1:
                raise UserError(f"pruning.{name} is {value}: give 1 step or more.")
        for name in rates:
            if not isinstance(name, str):
                raise UserError(
                    f"pruning.rates has {name!r} for a name: give a kind (linear, conv, output) or a pattern."
                )
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
        self.first_replicate = first_replicate
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

    def measures_train(self, datamodule: LightningDataModule | None) -> bool:
        """Whether accuracy on the training set is computed."""
        # A loader of somebody's own may augment, or never end.
        return hasattr(datamodule, "train_eval_dataloader") if self.train_accuracy is None else self.train_accuracy

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
        self,
        training: Training,
        start: Start,
        mask: Mask,
        seed: int,
        display: Display,
        long_batches: bool,
        resume: bool = False,
    ) -> FitWatch:
        """Get ready for the fit of `training` from `start`, `mask` kept, and return what will be known of it.

        `resume` says that it goes on from its own checkpoint.
        """
        self._training = training
        self._start = start
        self._mask = mask
        self._seed = seed
        self._display = display
        self._long_batches = long_batches
        self._is_fresh = not resume
        self._evaluated = Evaluated()
        self._saved_step = self._logged = start.step
        self.learning_rates = []
        self._seconds = 0.0
        self._began = time.monotonic()
        self._metrics = MetricsFile(training.folder / METRICS, self.test_curve)
        if start.steps == 0:
            self._metrics.cut(0)  # there is no fit that would begin it
        self._frozen: list[str] | None = None
        self._data_state = DataState(None)
        self._goes_on = self._has_begun = False
        self._is_checkpoint_due = self._is_rewind_step = False
        self.watch = FitWatch()
        # A fit that is resumed from its last step's checkpoint never starts, so `on_train_start` sets nothing.
        self._detach: Callable[[], None] = lambda: None
        self._handles: list[RemovableHandle] = []
        self._module_generators: list[Generator] = []
        return self.watch

    @property
    def seconds(self) -> float:
        """Wall time of the training so far, its earlier sessions up to their last checkpoint counted in."""
        return self._seconds + time.monotonic() - self._began

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # Behind the callbacks that the module brings: whatever they do to the weights, the mask comes after it.
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        trainer.callbacks = [*(c for c in callbacks if c is not self), self]  # type: ignore[attr-defined]
        if stage == "fit":
            datamodule: LightningDataModule | None = trainer.datamodule  # type: ignore[attr-defined]
            self._data_state = DataState(datamodule)
            self._watch_restoring(trainer)

    def _watch_restoring(self, trainer: Trainer) -> None:
        """Know what a fit's module and callbacks are like before a checkpoint is loaded, and what that changes."""
        connector = trainer._checkpoint_connector
        restore = connector._restore_modules_and_callbacks

        def restore_modules(*args: Any, **kwargs: Any) -> None:
            if trainer.state.fn != "fit":
                restore(*args, **kwargs)
                return
            self._module_state = ModuleState(trainer)
            restore(*args, **kwargs)
            self._module_state.loaded()

        connector._restore_modules_and_callbacks = restore_modules  # type: ignore[method-assign]

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._goes_on = self._module_state.take(checkpoint)

    def _restore(self) -> None:
        for phrase in self._module_state.restore():
            self._display.tell(
                f"{phrase}, which a checkpoint cannot hold: where a training goes on from its middle, that begins anew."
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_fresh and builds_layers(pl_module):
            load_built(pl_module, self._start.weights)  # Lightning has called `setup` once more
        # Rank 0's mask is everybody's. The weights need no such care: DistributedDataParallel sends rank 0's.
        self._mask = trainer.strategy.broadcast(self._mask)
        self.keeper = MaskKeeper(pl_module, self._mask, trainer.strategy.broadcast(self._start.pruned))
        # A user's own module may clip gradients by their norm, in any of its hooks.
        self._detach = self.keeper.attach(trainer.optimizers, gradients=not self._long_batches)
        self._parameters = dict(pl_module.named_parameters())
        if self._frozen is not None:
            # What a hook of an earlier epoch has frozen or thawed, as checkpoints of older versions say it.
            for name, parameter in pl_module.named_parameters():
                parameter.requires_grad_(name not in self._frozen)
        if self.retrain.uses_rates:
            # At each step: by the end of a fit the schedule has moved once more, to a rate that no step had.
            self._handles = [o.register_step_pre_hook(lambda *_: self._note_rates(trainer)) for o in trainer.optimizers]
        if self._start.learning_rates:
            trainer.strategy.lr_scheduler_configs = []
            for group, rate in zip(parameter_groups(trainer), self._start.learning_rates, strict=True):
                group["lr"] = rate
        refuse_no_optimizer(trainer)
        refuse_schedules(trainer, self.evaluate_every)
        self._module_state.loaders_made()
        begin_epochs_within(trainer, self, self._restore if self._goes_on else None)
        # The module's hooks are called after this callback's.
        masks = self.keeper.mask_weights if gives(pl_module, "on_train_batch_end") else lambda: None
        end_batches(trainer, masks, lambda: self._batch_ended(trainer, pl_module), self._goes_on)
        self._step = trainer.global_step
        self._batches_without_step = 0
        self._module_generators = held_generators(pl_module)
        if trainer.is_global_zero and not self._metrics.has_begun:
            self._metrics.cut(0)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        # Dropout and the like: from names, so that a resumed fit draws what an uninterrupted one draws.
        assert self._training is not None
        if not self._has_begun:
            self._has_begun = True
            self._module_state.begun()
        draws = ("step", trainer.global_step, batch_idx, trainer.global_rank)
        seed_all(self._training.seed(self._seed, *draws))
        seed_own(self._module_generators, self._training.seed(self._seed, "own", *draws))
        if self._is_fresh:
            self._is_fresh = False
            self._check_start(trainer, pl_module)
        self.keeper.mask_weights()  # the module's hooks for the batch before came after this callback's

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # The module's own hook follows: it draws the same in a fit that is resumed at this epoch.
        assert self._training is not None
        seed_all(self._training.seed(self._seed, "epoch start", trainer.current_epoch))

    def _check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raise UserError where something has changed the weights that this training was to start from."""
        if not trainer.is_global_zero:
            return
        for name, parameter in pl_module.named_parameters():
            wanted = self._start.weights.get(name)
            if not isinstance(wanted, Tensor) or wanted.shape != parameter.shape:
                continue  # a part of a layer
            wanted = wanted.to("cpu", parameter.dtype)
            if name in self._start.mask:
                pruned = self._start.pruned.get(name, torch.zeros(()))
                wanted = torch.where(self._start.mask[name].cpu(), wanted, pruned.to("cpu", parameter.dtype))
            if not torch.equal(parameter.detach().cpu(), wanted):
                raise UserError(
                    f"Something changes '{name}' when a fit begins, such as {type(pl_module).__name__}.on_fit_start: a "
                    "ticket could not start from its own weights. Initialize in __init__, setup or configure_model."
                )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert self._training is not None
        step = trainer.global_step
        # Optimizers may have ways of their own to move weights, and modules their own hooks.
        self.keeper.mask_weights()
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if isinstance(loss, Tensor):
            loss = loss.float().mean() if loss.dim() else loss
            # Lightning gives the loss that it differentiates, which is divided by the batches of an accumulation.
            share = trainer.accumulate_grad_batches if pl_module.automatic_optimization else 1
            self.watch.batch(loss * share, len(batch[1]) if self._long_batches else 1)
        # Batches that are accumulated for step k + 1 end at step k as well: its own is the first.
        if step != self._step and self._training.is_ticket and self._training.level == 0:
            if step == self.rewind_step:
                self._is_rewind_step = True
            elif self._step < self.rewind_step < step:
                raise UserError(
                    f"Step {self.rewind_step}, which pruning.rewind_step names, lies within a batch: this module makes "
                    f"{step - self._step} optimizer steps a batch. Name a multiple of that."
                )
        self._batches_without_step = self._batches_without_step + 1 if step == self._step else 0
        if self._batches_without_step == MOST_WITHOUT_STEP:
            raise UserError(
                f"{MOST_WITHOUT_STEP:,} batches have made no optimizer step that Lightning counts, so this training "
                "would not end: have training_step step the optimizers that self.optimizers() gives, not others."
            )
        if not self._long_batches and trainer.is_global_zero:
            self._display.step(step)
        if not trainer.enable_validation and step != self._step and step % self.evaluate_every == 0:
            self._interval_ended(trainer, pl_module)
        self._step = step

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit":
            self.keeper.mask_weights()
            share_buffers(trainer, pl_module)
            forget(trainer)
            self._evaluated.begin()

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if trainer.state.fn == "fit" and batch_idx == dataloader_idx == 0:
            self._evaluated.first_batch(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit":
            return
        seed_evaluation_loaders(trainer.val_dataloaders, self._seed)  # for the next one
        if not self._evaluated.are_parameters_of(pl_module):
            raise UserError(
                "A callback or a hook evaluates other weights than those that are trained, such as an average of them: "
                "the run's numbers would not be of the weights that it keeps. Drop it."
            )
        self._interval_ended(trainer, pl_module)

    def are_last_evaluated(self, model: LightningModule) -> bool:
        """Whether the last evaluation of the fit was of the weights and buffers that `model` has."""
        return self._evaluated.is_of(model)

    def _refuse_other_parameters(self, model: LightningModule) -> None:
        """Raise UserError where the network has other parameters than when its fit began: they would not be masked."""
        now = dict(model.named_parameters())
        for name in {**self._parameters, **now}:
            if self._parameters.get(name) is not now.get(name):
                raise UserError(
                    f"'{name}' was added, removed or replaced by another parameter while {type(model).__name__} "
                    "trained: a run masks and rewinds the parameters that a network begins with. Make all in "
                    "__init__, setup or configure_model, and change values in place."
                )

    def _interval_ended(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self._training is not None
        self._refuse_other_parameters(pl_module)
        self.evaluated(trainer, pl_module)
        if self.watch.diverged:
            trainer.should_stop = True
        # A checkpoint holds no gradients: none within an accumulation.
        elif (
            trainer.global_step - self._saved_step >= self.checkpoint_every
            and not trainer.fit_loop._should_accumulate()
        ):
            self._is_checkpoint_due = True

    def _batch_ended(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save what is to be saved of this step, now that all hooks of its batch and evaluation have run."""
        assert self._training is not None
        if self._is_rewind_step:
            self._is_rewind_step = False
            self._save_rewind_point(trainer, pl_module)
        if self._is_checkpoint_due:
            self._is_checkpoint_due = False
            self._saved_step = trainer.global_step
            self._logged = loggers.last_logged(trainer)
            more = {CHANGED: self._module_state.content()}
            if why := save_own(trainer, self._training.folder / CHECKPOINT, self._training.identity, more):
                self._display.tell(f"An interrupted training will begin anew, since {why}")

    @property
    def logged(self) -> list[str]:
        """What an evaluation of a fit records, besides the training loss."""
        return [*VAL_COLUMNS, *(TEST_COLUMNS if self.test_curve else ())]

    def evaluated(
        self, trainer: Trainer, pl_module: LightningModule, found: Mapping[str, float | None] | None = None
    ) -> dict[str, float | int | None]:
        """Record the evaluation that the trainer has just made, or the training loss alone where it makes none.

        `found` is what was logged in an evaluation that was made apart from the fit.
        """
        train_loss = self.watch.train_loss()
        if found is None:
            *values, train = numbers(trainer, self.logged, train_loss)
            found = dict(zip(self.logged, values, strict=True))
            lacks = trainer.enable_validation and any(found[name] is None for name in VAL_COLUMNS)
            if lacks and trainer.is_global_zero and (line := unknown_line(trainer, VAL_COLUMNS)):
                self._display.tell(line)
        else:
            train = numbers(trainer, (), train_loss)[0]
        metrics = {"train_loss": train, **found}
        row = self.watch.evaluation(trainer.global_step, metrics, lambda: snapshot(pl_module))
        if trainer.is_global_zero:
            self._metrics.append(row)
            self._display.step(trainer.global_step, row)
        return row

    def _save_rewind_point(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the weights of step k and the state of Lightning's loops and schedules; the optimizer's if asked."""
        training = self._training
        assert training is not None
        path = training.replicate_folder / REWIND
        checkpoint = {**own_checkpoint(trainer), CHANGED: self._module_state.content(of_rewind_point=True)}
        if trainer.is_global_zero:
            checkpoint = plain_copy(path, checkpoint)
            # Not the checkpoint's, which the module and callbacks may have changed.
            weights: Weights = snapshot(pl_module, "cpu")
            del checkpoint["state_dict"]
            kept = {callback.state_key for callback in users_callbacks(trainer)}
            states = checkpoint["callbacks"]
            checkpoint["callbacks"] = {key: state for key, state in states.items() if key in kept}
            if not self.retrain.optimizer_state:
                for state in checkpoint["optimizer_states"]:
                    state["state"] = {}
            content = {"format": FORMAT, "weights": weights, "step": self.rewind_step, "seed": self._seed}
            write_pt(path, {**content, "replicate": training.replicate, "trainer": checkpoint})

    def _note_rates(self, trainer: Trainer) -> None:
        self.learning_rates = learning_rates(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._detach()
        for handle in self._handles:
            handle.remove()
        self.put_back_data()

    def put_back_data(self) -> None:
        """Have the data module be as it was when the last fit began."""
        self._data_state.put_back()

    def state_dict(self) -> dict[str, Any]:
        state = {**self.watch.state_dict(), "seconds": self.seconds, "learning_rates": self.learning_rates}
        return {**state, "metrics": self._metrics.text, loggers.LOGGED: self._logged}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._seconds = state_dict["seconds"]
        self.learning_rates = state_dict.get("learning_rates", [])  # an older version's checkpoint has none
        self._frozen = state_dict.get("frozen")  # only an older version's has this
        self.watch.load_state_dict(state_dict)
        if is_rank_zero():
            self._restore_metrics(state_dict.get("metrics"))

    def _restore_metrics(self, text: str | None) -> None:
        """Have metrics.csv hold what it held at the checkpoint."""
        if text is not None:
            self._metrics.restore(text)
            return
        # An older version's checkpoint does not say.
        last = int(self.watch.last.get("step") or 0)
        self._metrics.cut(last)
        if last and not self._metrics.text.splitlines()[-1].startswith(f"{last},"):
            raise UserError(
                f"{self._metrics.path} lacks rows up to step {last}: remove last.ckpt beside it, and --resume makes "
                "that training anew."
            )
