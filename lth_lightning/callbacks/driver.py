"""The walk through a run's trainings: checked and planned, made one by one or side by side, and put into the table."""

import copy
import gc
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import torch
from pytorch_lightning import LightningDataModule, LightningModule, Trainer

from lth_lightning.callbacks import trainer as trainers
from lth_lightning.callbacks.agenda import Agenda, side_by_side
from lth_lightning.callbacks.board import SummaryBoard
from lth_lightning.callbacks.crew import Crew, WorkerDiedError
from lth_lightning.callbacks.display import Display
from lth_lightning.callbacks.joint import ELEMENTWISE, JointMaker
from lth_lightning.callbacks.maker import Maker
from lth_lightning.callbacks.origin import Origins, fresh_model
from lth_lightning.callbacks.peers import meet
from lth_lightning.callbacks.plan import plan_trainings
from lth_lightning.callbacks.quiet import quiet
from lth_lightning.callbacks.ranks import process_group
from lth_lightning.callbacks.samples import draw_samples
from lth_lightning.data import Part, TensorDataModule
from lth_lightning.errors import UserError
from lth_lightning.files import write_text
from lth_lightning.models import Classifier, Supermask
from lth_lightning.pruning import Schedule, Ticket
from lth_lightning.results import run_folder, session
from lth_lightning.results.record import Record, read_records, write_table
from lth_lightning.results.run_folder import CHECKPOINT, CONFIG, FROM_PYTHON
from lth_lightning.results.training import Training

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
        workers: int = 1,
        threads: int = 1,
    ) -> None:
        if workers < 1 or threads < 1:
            raise UserError(f"workers is {workers} and threads {threads}: give 1 or more of each.")
        self.loop = loop
        self.make_trainer = make_trainer
        self.make_model = make_model
        self.datamodule = datamodule
        self.seed = seed
        self.display = display
        self.workers = workers
        self.threads = threads
        self.ticket = Ticket.load(loop.ticket) if loop.ticket else None

    @quiet()
    def run(self, *, experiment: str, logs: Path, folder: Path | None, config: str) -> list[Record]:
        """Check everything that can be checked, claim a folder, and make the trainings."""
        threads = torch.get_num_threads()
        if self.workers > 1:
            torch.set_num_threads(1)  # what runs before the fork must not start the pool, which a fork does not copy
        try:
            return self._claimed(experiment, logs, folder, config)
        finally:
            torch.set_num_threads(threads)

    def _claimed(self, experiment: str, logs: Path, folder: Path | None, config: str) -> list[Record]:
        trainer = self._probe()
        with meet(trainer, self.display) as peers:
            self.prepare(trainer=trainer)

            def choose() -> Path:
                return run_folder.check_run(folder) if folder else run_folder.claim(experiment, logs)

            self.folder = self.loop.folder = peers.agree(choose) if peers else choose()
            gc.freeze()  # what is imported by now stays: the collection before each training need not go through it
            try:
                with process_group(), run_folder.owned(self.folder) if trainers.is_rank_zero() else nullcontext():
                    return self._run(config)
            finally:
                gc.unfreeze()
                self.display.stop()

    def _probe(self) -> Trainer:
        """A Trainer that is looked at only."""
        return self.make_trainer(Training(0, "ticket", 0, 0, Path()))

    def prepare(self, fetch: bool = True, trainer: Trainer | None = None) -> Schedule:
        """The schedule; raises UserError for whatever is wrong with model, data, ticket or Trainer settings.

        `fetch` says that the data may be downloaded, and must be there; `trainer` has been made already.
        """
        model = fresh_model(self.make_model, self.seed, 0)
        if self.ticket:
            whole, self.ticket = self.ticket, self.ticket.fitted(model, f"The ticket {self.loop.ticket}")
            self._is_output_new = self.ticket is not whole
        self.schedule = self.loop.schedule_for(model, self.ticket)
        self.plan(Path())
        if isinstance(model, Supermask) and (self.schedule.levels[-1] > 0 or self.loop.kernels != "masked"):
            raise UserError(
                "A Supermask learns its mask in one training: set --pruning.levels 0, and drop pruning.kernels."
            )
        if self.loop.pruned != "zero" and any(control.score for control in self.loop.controls):
            raise UserError(
                "A control that searches its own masks prunes to zero: drop it, or set pruning.pruned zero."
            )
        if self.datamodule is None and not trainers.gives(model, "train_dataloader"):
            raise UserError("There is no data to train on: name a data module, such as --data MNIST or --data Digits.")
        if self.datamodule is None and fetch and self.workers > 1:
            model.prepare_data()  # lest all workers download at once
        # Before a folder is claimed. The other ranks read the files in `fit`, when rank 0 has fetched them.
        if self.datamodule is not None and fetch and trainers.is_rank_zero():
            self.datamodule.prepare_data()
            if isinstance(self.datamodule, TensorDataModule):
                self.datamodule.setup("fit")
        scores = [self.loop.score, *(control.score for control in self.loop.controls if control.score)]
        if fetch and trainers.is_rank_zero() and (number := max(score.samples for score in scores)):
            self._samples(number, torch.Generator())  # not only once level 0 is trained
        trainer = trainer or self._probe()
        trainers.refuse_unfit(trainer)
        if self.workers > 1:
            trainers.refuse_workers(trainer)
        # No logger where the user has turned logging off.
        origins = Origins(self.loop, self.make_model, self.seed, self.ticket, self.schedule, self._samples)
        self.maker = Maker(self.loop, self.make_trainer, self.datamodule, self.seed, origins, bool(trainer.loggers))
        if self.loop.test_curve and not self.maker.can_be_long(model):
            raise UserError(
                "pruning.test_curve needs one of this package's networks and data sets: drop it, or log test_loss in "
                "your module's validation_step."
            )
        if self.loop.compile and not isinstance(model, Classifier):
            raise UserError("pruning.compile is for this package's networks: compile your own module's inside it.")
        if getattr(type(model), "configure_optimizers", None) is Classifier.configure_optimizers:
            _check_optimizer(model, trainer)
        self._check_kernels(model, trainer)
        if self.loop.retrain.uses_rates and not (model.automatic_optimization or isinstance(model, Classifier)):
            raise UserError(
                "FineTune holds the learning rate, and a module that steps its own schedules would move it."
            )
        self.joint = JointMaker(self.maker)
        if self.loop.together:
            if self.workers > 1:
                raise UserError("pruning.together makes all trainings in one process: drop it, or give --workers 1.")
            self.joint.refuse(model, trainer)
        if isinstance(self.datamodule, TensorDataModule):
            self.datamodule.check_devices(trainer.world_size)
        self.device = trainer.strategy.root_device
        self.steps = self.maker.steps(trainer, self.maker.long_steps(trainer, model, self.display))
        if self.steps:
            self.maker.check_rewind_step(self.steps)
        return self.schedule

    def _check_kernels(self, model: LightningModule, trainer: Trainer) -> None:
        """Raise UserError where the network, its optimizer or the device does not go with pruning.kernels."""
        kernels = self.loop.kernels
        if kernels == "csr" and (trainer.strategy.root_device.type != "cpu" or trainer.precision != "32-true"):
            raise UserError("pruning.kernels csr is for CPUs, in float32: set --trainer.accelerator cpu, or drop it.")
        if kernels == "masked":
            return
        made: Any = model.configure_optimizers()
        optimizer: Any = made.get("optimizer") if isinstance(made, dict) else made
        if type(optimizer).__name__ not in ELEMENTWISE:
            raise UserError(
                f"pruning.kernels {kernels} needs one optimizer that moves each weight by itself, such as Adam, and "
                f"configure_optimizers gives {type(optimizer).__name__}: use masked."
            )
        if kernels == "compact" and any(group.get("weight_decay") for group in optimizer.param_groups):
            raise UserError(
                "pruning.kernels compact leaves dead weights as they are, and weight decay would not: use another."
            )
        mask = self.schedule.dense_mask(model)
        self.maker.shrink(copy.deepcopy(model), {**mask, **self.ticket.mask} if self.ticket else mask)

    def plan(self, folder: Path) -> list[Training]:
        """All trainings of the run in `folder`, finished ones too."""
        first = 0 if self.ticket else 1
        return plan_trainings(folder, self.loop.replicates, self.schedule.levels[-1], self.loop.controls, first)

    def _samples(self, number: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        return draw_samples(self.datamodule or self.make_model(), number, generator)

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
        self._interrupted = {training for training in pending if (training.folder / CHECKPOINT).exists()}
        workers = min(self.workers, len({training.line for training in pending}))
        if workers > 1 or self.loop.together:
            pending.sort(key=side_by_side)
        self._agenda = Agenda(pending, self._records.values())
        if is_main:
            if config != FROM_PYTHON or not (self.folder / CONFIG).is_file():  # a run of the command keeps its own
                write_text(self.folder / CONFIG, config)
            threads = self.threads if self.workers > 1 else torch.get_num_threads()
            begun = session.describe(self.device, threads, max(1, workers)) if len(self._agenda) else None
            session.write(self.folder, trainings, begun, self.loop.retrain.trains_on)
        if self.loop.together:
            self._make_together()
        elif workers > 1:
            self._make_side_by_side(workers)
        else:
            if self.workers > 1:
                torch.set_num_threads(self.threads)  # nobody is forked
            self._make_one_by_one()
        self.display.stop()
        if self._board:
            self._board.close()
        if not is_main:
            return []
        # Also where nothing was left to train: a kill may have come between the last result.json and the table.
        write_table(self.folder, self._table())
        # At the end: at the start another rank of a run that goes on may be writing already.
        run_folder.tidy(self.folder)
        return self._table()

    def _begin(self, slots: int = 1) -> None:
        """Whatever has threads of its own begins here, after workers are forked."""
        self._board: SummaryBoard | None = None
        if not trainers.is_rank_zero():
            return
        if self.maker.logs:
            self._board = SummaryBoard(self.folder, self._table())
        self.display.note(f"run: {self.folder}")
        if slots > 1:
            self.display.note(f"{slots} trainings side by side, CPU threads of each: {self.threads}")
        if self.ticket and self.ticket.rewind_step:
            self.display.tell(
                f"The ticket's weights are of step {self.ticket.rewind_step}; its training starts at step 0."
            )
        if self.ticket and self._is_output_new:
            self.display.tell("The ticket's output layer has other classes than these data: a new one, dense, is used.")
        done = len(self._records)
        self.display.start(done + len(self._agenda), done, slots)

    def _make_one_by_one(self) -> None:
        self._begin()
        while training := self._agenda.take():
            self._recorded(training, self.maker.make(training, self.display, training in self._interrupted))

    def _make_together(self) -> None:
        self._begin()
        while trainings := self._agenda.take_level():
            for training, record in self.joint.make(trainings, self.display):
                self._recorded(training, record)

    def _make_side_by_side(self, workers: int) -> None:
        if isinstance(self.datamodule, TensorDataModule):
            # Once: the workers are forked and share it.
            for part in get_args(Part):
                self.datamodule.resident(part, self.device)
        with Crew(self.maker.make, workers, self.threads, self.display) as crew:
            self._begin(slots=workers)
            while True:
                while crew.idle() and (training := self._agenda.take()):
                    crew.give(training, resume=training in self._interrupted)
                if not crew.busy():
                    break
                for finished in crew.wait():
                    self._recorded(*finished)
        if crew.deaths and len(self._agenda):
            raise WorkerDiedError(crew.deaths[0])

    def _recorded(self, training: Training, record: Record, slot: int = 0) -> None:
        """Put a finished training into the table, and show it."""
        self._records[record.order] = record
        stopped = self._agenda.finished(record)
        if not trainers.is_rank_zero():
            return
        write_table(self.folder, self._table())
        if self._board:
            self._board.add(record)
        if stopped:
            self.display.skip(stopped)
        self.display.end(record, training, slot)

    def _table(self) -> list[Record]:
        """All finished trainings, in the order of the table."""
        return [self._records[order] for order in sorted(self._records)]


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
