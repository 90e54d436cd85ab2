"""The walk through a run's trainings: each is prepared, fitted, measured, recorded and pruned."""

import contextlib
import shutil
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning import LightningDataModule, LightningModule, Trainer

from lth_lightning.callbacks import trainer as trainers
from lth_lightning.callbacks.board import SummaryBoard, add_hyperparameters
from lth_lightning.callbacks.controls import Start
from lth_lightning.callbacks.display import Display
from lth_lightning.callbacks.fit_watch import FitWatch
from lth_lightning.callbacks.measure import measure
from lth_lightning.callbacks.origin import Origins, fresh_model
from lth_lightning.callbacks.plan import plan_trainings
from lth_lightning.callbacks.quiet import quiet
from lth_lightning.callbacks.replay import replaying
from lth_lightning.data import StepPlan, TensorDataModule
from lth_lightning.errors import UserError
from lth_lightning.files import read_pt, write_pt, write_text
from lth_lightning.models import Classifier
from lth_lightning.pruning import Mask, Schedule, Ticket, rewind, snapshot
from lth_lightning.pruning.rewind import Weights, to_cpu
from lth_lightning.pruning.ticket import FORMAT
from lth_lightning.results import run_folder
from lth_lightning.results.record import DIVERGED, OK, Record, read_records, write_table
from lth_lightning.results.run_folder import CHECKPOINT, CONFIG, MASK, TRAINED
from lth_lightning.results.training import Training
from lth_lightning.seeding import seed_all

if TYPE_CHECKING:
    from lth_lightning.callbacks.pruning_loop import MakeModel, MakeTrainer, PruningLoop


class Driver:
    """One run of a PruningLoop: see `PruningLoop.run`, which makes it."""

    def __init__(
        self,
        loop: "PruningLoop",
        make_trainer: "MakeTrainer",
        make_model: "MakeModel",
        datamodule: LightningDataModule | None,
        *,
        seed: int,
        display: Display,
    ) -> None:
        self.loop = loop
        self.make_trainer = make_trainer
        self.make_model = make_model
        self.datamodule = datamodule
        self.seed = seed
        self.display = display
        self.ticket = Ticket.load(loop.ticket) if loop.ticket else None
        self._told: set[str] = set()

    @quiet()
    def run(self, *, experiment: str, logs: Path, folder: Path | None, config: str) -> list[Record]:
        """Check everything that can be checked, claim a folder, and make the trainings."""
        self.prepare()
        self.folder = self.loop.folder = folder or run_folder.claim(experiment, logs)
        run_folder.share(self.folder)
        try:
            with run_folder.owned(self.folder) if trainers.is_rank_zero() else nullcontext():
                return self._run(config)
        finally:
            run_folder.unshare()
            self.display.stop()
            if torch.distributed.is_initialized():
                # gloo is not cleaned up by itself and can abort at exit
                torch.distributed.destroy_process_group()

    def prepare(self, fetch: bool = True) -> Schedule:
        """The schedule; raises UserError for whatever is wrong with model, data, ticket or Trainer settings.

        `fetch` says that the data may be downloaded, and must be there.
        """
        model = fresh_model(self.make_model, self.seed, 0)
        if self.ticket:
            self.ticket.check(model, f"The ticket {self.loop.ticket}")
        self.schedule = self.loop.schedule_for(model, self.ticket)
        self.origins = Origins(self.loop, self.make_model, self.seed, self.ticket, self.schedule)
        plan_trainings(Path(), self.loop.replicates, self.schedule.levels[-1], self.loop.controls)
        if self.datamodule is None and not trainers.gives(model, "train_dataloader"):
            raise UserError("There is no data to train on: name a data module, such as --data MNIST or --data Digits.")
        # Before a folder is claimed. The other ranks read the files in `fit`, when rank 0 has fetched them.
        if self.datamodule is not None and fetch and trainers.is_rank_zero():
            self.datamodule.prepare_data()
            if isinstance(self.datamodule, TensorDataModule):
                self.datamodule.setup("fit")
        if self.loop.test_curve and not self._can_be_long(model):
            raise UserError(
                "pruning.test_curve needs one of this package's networks and data sets: drop it, or log test_loss in "
                "your module's validation_step."
            )
        trainer = self.make_trainer(Training(0, "ticket", 0, 0, Path()))
        trainers.refuse_unfit(trainer)
        if getattr(type(model), "configure_optimizers", None) is Classifier.configure_optimizers:
            _check_optimizer(model, trainer)
        if isinstance(self.datamodule, TensorDataModule):
            self.datamodule.check_devices(trainer.world_size)
        self.device = trainer.strategy.root_device
        self.logs = bool(trainer.loggers)  # none where the user has turned logging off
        self.steps = self._steps(trainer, self._long_steps(trainer, model))
        if self.steps:
            self._check_rewind_step(self.steps)
        return self.schedule

    def plan(self, folder: Path) -> list[Training]:
        """All trainings of the run in `folder`, finished ones too."""
        return plan_trainings(folder, self.loop.replicates, self.schedule.levels[-1], self.loop.controls)

    def _run(self, config: str) -> list[Record]:
        is_main = trainers.is_rank_zero()
        trainings = self.plan(self.folder)
        # Every process looks once, here: later, rank 0 may have recorded what another is about to look at.
        self._records = {record.order: record for record in read_records(self.folder)}
        planned = {training.order: training for training in trainings}
        if dropped := [order for order in self._records if order not in planned]:
            lost = Training(*dropped[0], self.folder)
            raise UserError(f"The run already holds {lost}, which this plan has not: a run can be extended, not cut.")
        pending = [training for order, training in planned.items() if order not in self._records]
        interrupted = {t for t in pending if (t.folder / CHECKPOINT).exists()}
        self._stopped = {r.order[:3]: r.level for r in self._records.values() if r.status == DIVERGED}
        self.board = SummaryBoard(self.folder, self._table()) if is_main and self.logs else None
        if is_main:
            if self.ticket and self.ticket.rewind_step:
                self._tell(
                    f"The ticket's weights are of step {self.ticket.rewind_step}; its training starts at step 0."
                )
            write_text(self.folder / CONFIG, config)
            self.display.note(f"run: {self.folder}")
            self.display.start(len(trainings), len(trainings) - len(pending))
        for training in pending:
            if self._is_stopped(training):
                if is_main:
                    self.display.skip(1)
                continue
            record = self._train(training, resume=training in interrupted)
            if record.status == DIVERGED:
                self._stopped[training.line] = training.level
        self.display.stop()
        if self.board:
            self.board.close()
        if not is_main:
            return []
        # Also where nothing was left to train: a kill may have come between the last result.json and the table.
        write_table(self.folder, self._table())
        # At the end: at the start another rank of a run that goes on may be writing already.
        run_folder.tidy(self.folder)
        return self._table()

    def _table(self) -> list[Record]:
        """All finished trainings, in the order of the table."""
        return [self._records[order] for order in sorted(self._records)]

    def _is_stopped(self, training: Training) -> bool:
        """Whether its arm, or the ticket arm that its mask comes from, diverged at an earlier level."""
        lines = (training.line, training.ticket(0).line)
        return any(line in self._stopped and self._stopped[line] < training.level for line in lines)

    def _train(self, training: Training, resume: bool) -> Record:
        is_main = trainers.is_rank_zero()
        model = self.origins.fresh(training.replicate)
        start = self.origins.start(training, model)
        rewind(model, start.weights, start.mask)
        trainer = self.make_trainer(training)
        long_steps = self._long_steps(trainer, model)
        checkpoint = training.folder / CHECKPOINT
        if not resume:
            if is_main:
                self._clear(training.folder)
                self.origins.write_mask(training, start.mask)
            checkpoint = self.origins.checkpoint_at(start, training, trainer)
        logger = None
        if is_main and self.logs:
            purge = read_pt(checkpoint)["global_step"] + 1 if resume else None
            logger = trainers.logger_for(training.run, training.version, purge)
        trainers.adopt(
            trainer,
            self.loop,
            logger,
            evaluate_every=self.loop.evaluate_every,
            long_steps=long_steps,
            keep_display=not self.display.has_bars,
        )
        steps = self._steps(trainer, long_steps)
        self.display.begin(training, self.origins.density(start.mask), steps)
        watch = self.loop.begin(training, start, self.seed, self.display, long_steps is not None)
        use_checkpoint = resume or start.step > 0
        with _clean_interrupts(trainer):
            with self._ordered(training, trainer, model, long_steps):
                trainer.fit(model, datamodule=self.datamodule, ckpt_path=str(checkpoint) if use_checkpoint else None)
            if not is_main:
                (training.replicate_folder / f".start_{trainer.global_rank}.ckpt").unlink(missing_ok=True)
            if not watch.diverged:
                self._check_length(training, trainer, start, steps)
                self._evaluate_last_step(training, trainer, model, watch)
            if unknown := self.loop.unknown_metrics(trainer):
                self._tell(
                    f"Of what the module logs ({', '.join(unknown)}) nothing is called val_loss or val_acc: "
                    "the results will have empty cells."
                )
            return self._finish(training, trainer, model, watch, start.mask)

    def _check_length(self, training: Training, trainer: Trainer, start: Start, steps: int | None) -> None:
        done = trainer.global_step
        if start.step == 0 and training.is_ticket and training.level == 0:
            # Where epochs limit a training its steps are known only now.
            self._check_rewind_step(done)
        if steps is not None and done < steps and not 0 < (trainer.max_epochs or 0) <= trainer.current_epoch:
            raise UserError(
                f"{training} ended at step {done} of {steps}: a callback stopped it, but trainings of a run have "
                "their full length. Drop that callback."
            )

    def _evaluate_last_step(
        self, training: Training, trainer: Trainer, model: LightningModule, watch: FitWatch
    ) -> None:
        """An ordinary module's last step need not be an evaluation's."""
        if watch.last.get("step") == trainer.global_step:
            return
        if trainers.gives(model, "validation_step") and trainers.gives(self.datamodule or model, "val_dataloader"):
            trainer.loggers = []
            seed_all(training.seed(self.seed, "last"))
            trainer.validate(model, datamodule=self.datamodule, verbose=False)
        self.loop.evaluated(trainer, model)

    def _finish(
        self,
        training: Training,
        trainer: Trainer,
        model: LightningModule,
        watch: FitWatch,
        mask: Mask,
    ) -> Record:
        """Measure, write what the next level needs, record; result.json last."""
        steps = trainer.global_step
        final: Weights = snapshot(model, "cpu")
        seed = training.seed(self.seed, "measure")
        scores = measure(trainer, model, self.datamodule, watch, train_accuracy=self.loop.train_accuracy, seed=seed)
        record = Record(
            replicate=training.replicate,
            arm=training.arm,
            trial=training.trial,
            level=training.level,
            status=DIVERGED if watch.diverged else OK,
            weights=self.schedule.total,
            weights_remaining=self.origins.remaining(mask),
            density=self.origins.density(mask),
            steps=steps,
            seconds=round(self.loop.seconds, 3),
            **scores,
        )
        if trainer.is_global_zero:
            if training.is_ticket or self.loop.save_controls:
                content: dict[str, Any] = {"format": FORMAT, "weights": final}
                if self.loop.save_early_stop and watch.early_stop_weights:
                    content["early_stop_weights"] = to_cpu(watch.early_stop_weights)
                write_pt(training.folder / TRAINED, content)
            if training.is_ticket and training.level < self.schedule.levels[-1] and not watch.diverged:
                following = training.ticket(training.level + 1)
                self.origins.write_mask(following, self.origins.pruned(following))
            if self.board:
                add_hyperparameters(training, record)
            record.write(training.folder)
            (training.folder / CHECKPOINT).unlink(missing_ok=True)
            self._records[record.order] = record
            write_table(training.run, self._table())
            if self.board:
                self.board.add(record)
            self.display.end(record, training)
        # The others wait until the files that they will read are there.
        trainer.strategy.barrier()
        return record

    @staticmethod
    def _clear(folder: Path) -> None:
        """Remove what a process killed before its first checkpoint left, but not the mask."""
        if folder.exists():
            for path in folder.iterdir():
                if path.name != MASK:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()

    # How a training is fed.

    def _long_steps(self, trainer: Trainer, model: LightningModule) -> int | None:
        """The training's steps where it takes long batches; None where it takes ordinary ones."""
        if not self._can_be_long(model):
            return None
        flag = trainers.wants_ordinary_batches(trainer)
        model.use_long_batches(flag is None)  # type: ignore[operator]
        if flag is not None:
            self._tell(f"trainer.{flag} needs Lightning's automatic optimization: one step a batch, which is slower.")
            return None
        assert isinstance(self.datamodule, TensorDataModule)
        return trainers.total_steps(trainer, self.datamodule.steps_per_epoch)

    def _can_be_long(self, model: LightningModule) -> bool:
        """Whether the module can run many steps in one batch, and the data module cut such batches."""
        return hasattr(model, "use_long_batches") and isinstance(self.datamodule, TensorDataModule)

    @staticmethod
    def _steps(trainer: Trainer, long_steps: int | None) -> int | None:
        """The training's steps where they are known before it."""
        return long_steps or (trainer.max_steps if trainer.max_steps > 0 else None)

    def _check_rewind_step(self, steps: int) -> None:
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
        plan = None
        if long_steps is not None:
            cuts = (self.loop.rewind_step,) if self.loop.rewind_step else ()
            plan = StepPlan(long_steps, self.loop.evaluate_every, seed, cuts)
        if isinstance(self.datamodule, TensorDataModule):
            self.datamodule.follow(plan, with_test=self.loop.test_curve)
        return nullcontext() if plan else replaying(self.datamodule or model, trainer, seed)

    def _tell(self, text: str) -> None:
        if text not in self._told and trainers.is_rank_zero():
            self._told.add(text)
            self.display.note(text)


def _check_optimizer(model: LightningModule, trainer: Trainer) -> None:
    """Make the optimizer of a throwaway model, so that a wrong setting is told before anything is written."""
    try:
        made: Any = model.configure_optimizers()
        optimizer: torch.optim.Optimizer = made["optimizer"]
    except (ValueError, TypeError) as error:
        raise UserError(f"The optimizer or its schedule does not work: {error}") from None
    if trainer.gradient_clip_val and "mixed" in str(trainer.precision) and optimizer.defaults.get("fused"):
        raise UserError(
            "Lightning clips no gradients of a fused optimizer under mixed precision: "
            "set --model.optimizer.init_args.fused false."
        )


@contextlib.contextmanager
def _clean_interrupts(trainer: Trainer) -> Iterator[None]:
    """Ctrl-C stays a KeyboardInterrupt, and no process that was started for a further device outlives this one."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except BaseException as error:
        if trainer.strategy.launcher is not None:
            trainer.strategy.launcher.kill(signal.SIGTERM)
        if isinstance(error, SystemExit) and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            # Lightning turns Ctrl-C into exit 1 and leaves the signal ignored.
            signal.signal(signal.SIGINT, before)
            raise KeyboardInterrupt from None
        raise
