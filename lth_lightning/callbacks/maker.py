"""How one training is made: prepared, fitted, measured, pruned, recorded."""

import shutil
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from pytorch_lightning import LightningDataModule, LightningModule, Trainer

from lth_lightning.callbacks import loggers
from lth_lightning.callbacks import trainer as trainers
from lth_lightning.callbacks.board import add_hyperparameters
from lth_lightning.callbacks.display import Display
from lth_lightning.callbacks.fit_watch import FitWatch
from lth_lightning.callbacks.gradient_masks import GradientMasks
from lth_lightning.callbacks.hooks import seeded_hooks
from lth_lightning.callbacks.measure import Measure
from lth_lightning.callbacks.origin import Origins
from lth_lightning.callbacks.ranks import clean_interrupts
from lth_lightning.callbacks.replay import replaying
from lth_lightning.callbacks.start import Start
from lth_lightning.data import StepPlan, TensorDataModule
from lth_lightning.errors import UserError
from lth_lightning.files import write_pt
from lth_lightning.machine import give_back_memory
from lth_lightning.pruning import Mask, MaskKeeper, rewind, snapshot
from lth_lightning.pruning.compact import compact_
from lth_lightning.pruning.csr import csr_
from lth_lightning.pruning.mask import check_pruned
from lth_lightning.pruning.rewind import Weights, to_cpu
from lth_lightning.pruning.ticket import FORMAT
from lth_lightning.results.curve import shortest
from lth_lightning.results.record import DIVERGED, OK, Record
from lth_lightning.results.run_folder import CHECKPOINT, MASK, TRAINED
from lth_lightning.results.training import Training
from lth_lightning.seeding import derive_seed

if TYPE_CHECKING:
    from lth_lightning.callbacks.pruning_loop import MakeTrainer, PruningLoop


class Maker:
    """Makes trainings of a run, each with a fresh model and Trainer.

    Args:
        loop: the options.
        make_trainer: a fresh Trainer for a training.
        datamodule: used for all trainings; None where the module has its own loaders.
        seed: what all draws of the run come from.
        origins: what each training starts from.
        probe: a Trainer of `make_trainer`, which is looked at only. TensorBoard is written where it has a logger.
    """

    def __init__(
        self,
        loop: "PruningLoop",
        make_trainer: "MakeTrainer",
        datamodule: LightningDataModule | None,
        seed: int,
        origins: Origins,
        probe: Trainer,
    ) -> None:
        self.loop = loop
        self.make_trainer = make_trainer
        self.datamodule = datamodule
        self.seed = seed
        self.origins = origins
        self.probe = probe
        self.logs = bool(probe.loggers)

    def make(self, training: Training, display: Display, resume: bool) -> Record:
        """Make `training`, or with `resume` go on from its checkpoint. Its files are whole when this returns."""
        give_back_memory()
        is_main = trainers.is_rank_zero()
        model = self.origins.fresh(training.replicate)
        start = self.origins.start(training, model)
        trainer = self.make_trainer(training)
        for line in trainers.told_of_shared(trainer, self.probe, self.loop):
            display.tell(line)
        # Before the weights come: those that were trained with 64 bits would lose half of them.
        trainer.strategy.precision_plugin.convert_module(model)
        rewind(model, start.weights, start.mask, start.pruned)
        mask = self.shrink(model, start.mask)
        if self.loop.compile:
            # In place, and not the LightningModule, whose `self.log` cannot be compiled: names in state dicts stay.
            model.net.compile()  # type: ignore[union-attr]
        step = self.origins.interrupted_step(training) if resume else None
        if start.steps:
            trainers.set_end(trainer, start.step + start.steps)
        long_steps = self.long_steps(trainer, model, display)
        checkpoint = training.folder / CHECKPOINT
        if not resume:
            if is_main:
                self.begin(training, start.mask)
            checkpoint = self.origins.checkpoint_at(start, training, trainer, model)
            if not start.optimizer_state:
                trainers.keep_fresh_optimizers(trainer)
        elif is_main and not (training.folder / MASK).exists():
            self.origins.write_mask(training, start.mask)
        logger = None
        logged = None if step is None else loggers.logged_until(checkpoint, step)
        if self.logs:  # of other ranks it writes nothing, but a module may ask for it
            logger = loggers.logger_for(training.run, training.version, None if logged is None else logged + 1)
        named = loggers.runs_of(loggers.own(trainer), training, self.origins.density(start.mask), logged)
        if long_steps is None:
            trainer.callbacks.append(GradientMasks(self.loop))  # type: ignore[attr-defined]
        trainers.adopt(
            trainer,
            self.loop,
            logger,
            evaluate_every=self.loop.evaluate_every,
            long_steps=long_steps,
            keep_display=not display.has_bars,
        )
        steps = 0 if start.steps == 0 else self.steps(trainer, long_steps)
        display.begin(str(training), self.origins.density(start.mask), steps)
        watch = self.loop.begin(training, start, mask, self.seed, display, long_steps is not None, resume)
        use_checkpoint = resume or start.step > 0
        with (
            clean_interrupts(trainer),
            trainers.without_driver_checks(),
            named,
            seeded_hooks(self.seed, self.datamodule, model),
        ):
            with self._ordered(training, trainer, model, long_steps):
                if steps != 0:
                    trainer.fit(
                        model, datamodule=self.datamodule, ckpt_path=str(checkpoint) if use_checkpoint else None
                    )
            if not is_main:
                (training.replicate_folder / f".start_{trainer.global_rank}.ckpt").unlink(missing_ok=True)
            if not watch.diverged:
                self.check_length(training, trainer, start, steps)
            record = self._finish(training, trainer, model, watch, start, mask, display)
            self.loop.put_back_data()
            return record

    def shrink(self, model: LightningModule, mask: Mask) -> Mask:
        """Have `model` compute by the kernels that were asked for; the mask of what is left for a MaskKeeper."""
        if self.loop.kernels == "compact":
            return compact_(model, mask)
        return csr_(model, mask) if self.loop.kernels == "csr" else mask

    def check_length(self, training: Training, trainer: Trainer, start: Start, steps: int | None) -> None:
        """Raise UserError where a fit that has not diverged ended before its last step."""
        done = trainer.global_step
        if done == start.step and steps != 0:
            raise UserError(
                f"{training} made no step: the train loader gave no batch (a drop_last with fewer samples than one "
                "holds?), or training_step steps other optimizers than those that self.optimizers() gives."
            )
        if start.step == 0 and training.is_ticket and training.level == 0:
            # Where epochs limit a training its steps are known only now.
            self.check_rewind_step(done)
        has_all_epochs = 0 < (trainer.max_epochs or 0) <= trainer.current_epoch
        if not has_all_epochs and (steps is None or done < steps):
            end = f"step {done} of {steps}" if steps else f"epoch {trainer.current_epoch} of {trainer.max_epochs}"
            raise UserError(
                f"{training} ended at {end}: a callback stopped it, but trainings of a run have their full length. "
                "Drop that callback."
            )

    def _finish(
        self,
        training: Training,
        trainer: Trainer,
        model: LightningModule,
        watch: FitWatch,
        start: Start,
        mask: Mask,
        display: Display,
    ) -> Record:
        """Measure, write what the next level needs, record."""
        steps = trainer.global_step
        # The module's last hooks, too, may have moved what is pruned.
        MaskKeeper(model, mask, start.pruned).mask_weights()
        trainers.share_buffers(trainer, model)
        final: Weights = snapshot(model, "cpu")
        measure = Measure(
            trainer,
            model,
            self.datamodule,
            train_accuracy=self.loop.measures_train(self.datamodule),
            seed=training.seed(self.seed, "measure"),
            display=display,
        )
        if not watch.diverged:
            self._evaluate_last_step(trainer, model, watch, final, measure)
        scores = measure.scores(watch, final)
        record = self.record(training, watch, start.mask, steps, self.loop.seconds, scores)
        for weights in () if watch.diverged else (final, watch.early_stop_weights or {}):
            check_pruned(weights, start.mask, start.pruned, str(training))
        if trainer.is_global_zero:
            self.write(training, record, final, watch)
        # The others wait until the files that they will read are there.
        trainer.strategy.barrier()
        return record

    def _evaluate_last_step(
        self, trainer: Trainer, model: LightningModule, watch: FitWatch, final: Weights, measure: Measure
    ) -> None:
        """Have the last evaluation be of the weights that are kept.

        An ordinary module's last step need not be an evaluation's, and a callback may change the weights after it.
        """
        is_evaluated = watch.last.get("step") == trainer.global_step
        # Rank 0 decides for all: an evaluation that one of them leaves out would keep the others waiting.
        if trainer.strategy.broadcast(is_evaluated and self.loop.are_last_evaluated(model)):
            return
        names = self.loop.logged
        found = measure.validation(final, names) if measure.validates() else dict.fromkeys(names)
        if is_evaluated:
            watch.last = {**watch.last, **{name: shortest(value) for name, value in found.items()}}
        else:
            self.loop.evaluated(trainer, model, found)

    def record(
        self, training: Training, watch: FitWatch, mask: Mask, steps: int, seconds: float, scores: dict[str, Any]
    ) -> Record:
        """The row of a finished training."""
        return Record(
            replicate=training.replicate,
            arm=training.arm,
            trial=training.trial,
            level=training.level,
            status=DIVERGED if watch.diverged else OK,
            weights=self.origins.schedule.total,
            weights_remaining=self.origins.remaining(mask),
            density=self.origins.density(mask),
            steps=steps,
            seconds=round(seconds, 3),
            **scores,
        )

    def write(self, training: Training, record: Record, final: Weights, watch: FitWatch) -> None:
        """Keep what a finished training leaves behind: weights, the next level's mask, and last its result.json."""
        if self.loop.save_controls or self.origins.searches(training):
            content: dict[str, Any] = {"format": FORMAT, "weights": final, **training.identity, "seed": self.seed}
            if self.loop.learning_rates:
                content["learning_rates"] = self.loop.learning_rates
            if self.loop.save_early_stop and watch.early_stop_weights:
                content["early_stop_weights"] = to_cpu(watch.early_stop_weights)
            write_pt(training.folder / TRAINED, content)
        if training.is_ticket and training.level < self.origins.schedule.levels[-1] and not watch.diverged:
            following = training.ticket(training.level + 1)
            self.origins.write_mask(following, self.origins.pruned(following))
        if self.logs:
            add_hyperparameters(training, record)
        record.write(training.folder)
        (training.folder / CHECKPOINT).unlink(missing_ok=True)

    def begin(self, training: Training, mask: Mask) -> None:
        """Begin `training` in its folder: what a process killed before its first checkpoint left goes."""
        if training.folder.exists():
            for path in training.folder.iterdir():
                if path.name != MASK:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.origins.write_mask(training, mask)

    # How a training is fed.

    def long_steps(self, trainer: Trainer, model: LightningModule, display: Display) -> int | None:
        """The training's steps where it takes long batches; None where it takes ordinary ones."""
        if not self.can_be_long(model):
            return None
        flag = trainers.wants_ordinary_batches(trainer)
        model.use_long_batches(flag is None)  # type: ignore[operator]
        if flag is not None:
            display.tell(f"trainer.{flag} needs Lightning's automatic optimization: one step a batch, which is slower.")
            return None
        assert isinstance(self.datamodule, TensorDataModule)
        return trainers.total_steps(trainer, self.datamodule.steps_per_epoch)

    def can_be_long(self, model: LightningModule) -> bool:
        """Whether the module can run many steps in one batch, and the data module cut such batches."""
        return hasattr(model, "use_long_batches") and isinstance(self.datamodule, TensorDataModule)

    @staticmethod
    def steps(trainer: Trainer, long_steps: int | None) -> int | None:
        """The training's steps where they are known before it."""
        return long_steps or (trainer.max_steps if trainer.max_steps > 0 else None)

    def check_rewind_step(self, steps: int) -> None:
        """Raise UserError where a training of so many steps has no step to rewind to."""
        if 0 < steps <= self.loop.rewind_step:
            raise UserError(
                f"pruning.rewind_step is {self.loop.rewind_step}, but a training has {steps} steps: "
                "rewind to an earlier one."
            )

    def _ordered(
        self, training: Training, trainer: Trainer, model: LightningModule, long_steps: int | None
    ) -> AbstractContextManager[None]:
        """Within it, the training's batches come in an order that depends on its seed and step alone."""
        seed = training.seed(self.seed, "data")
        own_seed = derive_seed(self.seed, training.replicate, "own generators")
        plan = None
        if long_steps is not None:
            cuts = (self.loop.rewind_step,) if self.loop.rewind_step else ()
            plan = StepPlan(long_steps, self.loop.evaluate_every, seed, cuts)
        if isinstance(self.datamodule, TensorDataModule):
            self.datamodule.follow(plan, with_test=self.loop.test_curve)
        return nullcontext() if plan else replaying(self.datamodule or model, trainer, seed, own_seed)
