"""The walk through a run's trainings: checked and planned, made one by one or side by side, and put into the table."""

import gc
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import torch
from pytorch_lightning import LightningDataModule, Trainer

from lth_lightning import resume
from lth_lightning.callbacks import checks, loggers
from lth_lightning.callbacks import trainer as trainers
from lth_lightning.callbacks.agenda import Agenda, side_by_side
from lth_lightning.callbacks.board import SummaryBoard
from lth_lightning.callbacks.crew import Crew, WorkerDiedError
from lth_lightning.callbacks.display import Display
from lth_lightning.callbacks.freshness import check_freshness
from lth_lightning.callbacks.hooks import built, seeded_hooks
from lth_lightning.callbacks.inputs import check_inputs
from lth_lightning.callbacks.joint import JointMaker
from lth_lightning.callbacks.maker import Maker
from lth_lightning.callbacks.origin import Origins, fresh_model
from lth_lightning.callbacks.peers import meet
from lth_lightning.callbacks.plan import plan_trainings
from lth_lightning.callbacks.quiet import quiet
from lth_lightning.callbacks.ranks import process_group
from lth_lightning.callbacks.samples import draw_samples, loss_of
from lth_lightning.data import Part, TensorDataModule
from lth_lightning.denormals import flushed
from lth_lightning.errors import UserError
from lth_lightning.pruning import Schedule, Ticket
from lth_lightning.results import run_folder, session
from lth_lightning.results.layers import told_of_vanished
from lth_lightning.results.record import Record, read_records, write_table
from lth_lightning.results.run_folder import CHECKPOINT, CONFIG, FROM_PYTHON
from lth_lightning.results.training import TICKET, Training
from lth_lightning.traces import during

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
        self.make_model = built(make_model, make_trainer, datamodule, seed)
        self.datamodule = datamodule
        self.seed = seed
        self.display = display
        self.workers = workers
        self.threads = threads
        self.ticket = Ticket.load(loop.ticket) if loop.ticket else None
        self._network = ""
        self.remarks: list[str] = []
        """What a user should know before the first training, a line each."""

    @quiet()
    def run(self, *, experiment: str, logs: Path, folder: Path | None, config: str) -> list[Record]:
        """Check everything that can be checked, claim a folder, and make the trainings."""
        threads = torch.get_num_threads()
        if self.workers > 1:
            torch.set_num_threads(1)  # what runs before the fork must not start the pool, which a fork does not copy
        try:
            with flushed():
                return self._claimed(experiment, logs, folder, config)
        finally:
            torch.set_num_threads(threads)

    def _claimed(self, experiment: str, logs: Path, folder: Path | None, config: str) -> list[Record]:
        trainer = self._probe()
        with meet(trainer, self.display, None if config == FROM_PYTHON else config) as peers:
            self.prepare(trainer=trainer)

            def choose() -> Path:
                return run_folder.check_run(folder) if folder else run_folder.claim(experiment, logs)

            self.folder = self.loop.folder = peers.agree(choose) if peers else choose()
            gc.freeze()  # what is imported by now stays: the collection before each training need not go through it
            try:
                with process_group(), run_folder.owned(self.folder) if trainers.is_rank_zero() else nullcontext():
                    return self._run(config, experiment)
            finally:
                gc.unfreeze()
                self.display.stop()

    def _probe(self) -> Trainer:
        """A Trainer that is looked at only."""
        return self.make_trainer(Training(0, TICKET, 0, 0, Path()))

    def prepare(self, fetch: bool = True, trainer: Trainer | None = None) -> Schedule:
        """The schedule; raises UserError for whatever is wrong with model, data, ticket or Trainer settings.

        `fetch` says that the data may be downloaded, and must be there; `trainer` has been made already.
        """
        loop, data = self.loop, self.datamodule
        model = fresh_model(self.make_model, self.seed, 0)
        self._network = type(model).__name__
        if self.ticket:
            whole, self.ticket = self.ticket, self.ticket.fitted(model, f"The ticket {loop.ticket}")
            self._is_output_new = self.ticket is not whole
        self.schedule = loop.schedule_for(model, self.ticket)
        self.plan(Path())
        checks.check_signatures(loop)
        checks.refuse_supermask(model, self.schedule, loop)
        checks.refuse_frozen_search(loop)
        checks.refuse_other_state(model, self.schedule)
        checks.refuse_no_data(model, data)
        checks.try_controls(loop, model, self.schedule, self.ticket)
        self.remarks = check_freshness(loop, self.make_model, self.seed, model, self.schedule)
        # Before a folder is claimed, and by one of all workers and ranks; these read the files in `fit`.
        if fetch and trainers.is_rank_zero():
            with seeded_hooks(self.seed, data or model):
                (data or model).prepare_data()
            if isinstance(data, TensorDataModule):
                data.setup("fit")
        check_inputs(model, data, self.seed, fetch and trainers.is_rank_zero())
        if fetch and trainers.is_rank_zero():
            samples = partial(self._samples, lambda: fresh_model(self.make_model, self.seed, 0))
            checks.try_criteria(loop, model, self.schedule, self.ticket, samples)
        trainer = trainer or self._probe()
        trainers.refuse_unfit(trainer, model, self.loop.rewind_step)
        if self.workers > 1:
            trainers.refuse_workers(trainer)
        origins = Origins(loop, self.make_model, self.seed, self.ticket, self.schedule, self._samples, loss_of(model))
        self.maker = Maker(loop, self.make_trainer, data, self.seed, origins, trainer)
        checks.refuse_for_own_networks(model, loop, self.maker)
        checks.check_optimizer(model, trainer)
        mask = {**self.schedule.dense_mask(model), **(self.ticket.mask if self.ticket else {})}
        checks.check_kernels(model, trainer, self.maker, mask)
        self.joint = JointMaker(self.maker)
        if loop.together:
            if self.workers > 1:
                raise UserError("pruning.together makes all trainings in one process: drop it, or give --workers 1.")
            self.joint.refuse(model, trainer)
        if isinstance(data, TensorDataModule):
            data.check_devices(trainer.world_size)
        self.device = trainer.strategy.root_device
        self.steps = self.maker.steps(trainer, self.maker.long_steps(trainer, model, self.display))
        if self.steps:
            self.maker.check_rewind_step(self.steps)
        self.remarks += checks.told_of_others(model, self.schedule)
        self.remarks += checks.told_of_copies(model, self.schedule)
        self.remarks += checks.told_of_grid(self.schedule, loop.grid)
        fresh = partial(fresh_model, self.make_model, self.seed, 0) if fetch and trainers.is_rank_zero() else None
        self.remarks += checks.told_of_verdict(model, data, trainer, fresh, self.seed)
        self.remarks += checks.told_of_train_accuracy(loop, data)
        self.remarks += checks.told_of_reloading(model, data, trainer)
        checks.check_steps(model, trainer, self.steps)
        return self.schedule

    def plan(self, folder: Path) -> list[Training]:
        """All trainings of the run in `folder`, finished ones too."""
        first = 0 if self.ticket else 1
        replicates = range(self.loop.first_replicate, self.loop.first_replicate + self.loop.replicates)
        return plan_trainings(folder, replicates, self.schedule.levels[-1], self.loop.controls, first)

    def _samples(self, network: "MakeModel", number: int, generator: torch.Generator) -> Any:
        return draw_samples(self.datamodule, network, number, generator, self.seed)

    def _run(self, config: str, experiment: str) -> list[Record]:
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
            # A run of the command keeps its own.
            kept = None if config == FROM_PYTHON and (self.folder / CONFIG).is_file() else config
            threads = self.threads if self.workers > 1 else torch.get_num_threads()
            self._tell_of_older()
            begun = None
            if len(self._agenda):
                begun = session.describe(self.device, threads, max(1, workers), experiment)
            session.write(self.folder, trainings, begun, kept, self.loop.retrain.trains_on)
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
        arms = [TICKET, *(control.arm for control in self.loop.controls if control.score)]
        for line in told_of_vanished(self.folder, self._table(), arms):
            self.display.tell(line)
        return self._table()

    def _tell_of_older(self) -> None:
        """Say so where a version that computed with denormal numbers began the run."""
        if len(self._agenda) and session.has_denormals(self.folder):
            self.remarks.append(
                "The run was begun by a version that computed with denormal numbers, which this one takes for zero: "
                "what it trains from here on may differ in the last bits from what that version would have."
            )

    def _begin(self, slots: int = 1) -> None:
        """Whatever has threads of its own begins here, after workers are forked."""
        self._board: SummaryBoard | None = None
        if not trainers.is_rank_zero():
            return
        if self.maker.logs:
            self._board = SummaryBoard(self.folder, self._table(), self.loop.test_curve, self.loop.first_replicate)
        self.display.note(f"run: {self.folder}")
        data = f", data: {type(self.datamodule).__name__}" if self.datamodule else ""
        self.display.note(f"network: {self._network}{data}")
        for remark in (*self.remarks, *loggers.told_of_places(loggers.own(self.maker.probe), self.folder)):
            self.display.tell(remark)
        if slots > 1:
            self.display.note(f"{slots} trainings side by side, CPU threads of each: {self.threads}")
        if self.ticket and self.ticket.rewind_step:
            self.display.tell(
                f"The ticket's weights are of step {self.ticket.rewind_step}; its training starts at step 0."
            )
        if self.ticket and self._is_output_new:
            self.display.tell("The ticket's output layer has other classes than these data: a new one, dense, is used.")
        done = len(self._records)
        if len(self._agenda):
            self.display.start(done + len(self._agenda), done, slots)
        else:
            self.display.note(resume.nothing_left(self.folder, trainings=done))

    def _make_one_by_one(self) -> None:
        self._begin()
        while training := self._agenda.take():
            with during(training):
                record = self.maker.make(training, self.display, training in self._interrupted)
            self._recorded(training, record)

    def _make_together(self) -> None:
        self._begin()
        while trainings := self._agenda.take_level():
            with during(trainings[0] if len(trainings) == 1 else f"{trainings[0]} and {len(trainings) - 1} beside it"):
                made = list(self.joint.make(trainings, self.display))
            for training, record in made:
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
