"""Trainings of one level made together, as one batched model: for a GPU, which one small network leaves idle."""

import gc
import time
from collections.abc import Sequence
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from lth_lightning.callbacks import loggers
from lth_lightning.callbacks import trainer as trainers
from lth_lightning.callbacks.display import Display
from lth_lightning.callbacks.fit_watch import FitWatch
from lth_lightning.callbacks.maker import Maker
from lth_lightning.callbacks.measure import of_the_curve
from lth_lightning.callbacks.ranks import clean_interrupts
from lth_lightning.callbacks.retraining import Rewind
from lth_lightning.callbacks.start import Start
from lth_lightning.data import EvalBatches, JointOrders, StepPlan, TensorDataModule
from lth_lightning.errors import UserError
from lth_lightning.models import Classifier
from lth_lightning.models.joint import JointClassifier
from lth_lightning.models.stack import can_stack, stack_masks
from lth_lightning.pruning import MaskKeeper, Weights, rewind
from lth_lightning.pruning.mask import is_elementwise
from lth_lightning.results.curve import TEST_COLUMNS, MetricsFile, shortest
from lth_lightning.results.record import Record
from lth_lightning.results.run_folder import METRICS
from lth_lightning.results.training import Training


class JointMaker:
    """Makes several trainings in one fit. A training that is interrupted begins anew: a level has no checkpoints.

    Args:
        maker: knows how one is made.
    """

    def __init__(self, maker: Maker) -> None:
        self._maker = maker
        self.most = 0
        """How many at once have turned out to fit into memory; 0 as long as all have."""

    def refuse(self, model: LightningModule, trainer: Trainer) -> None:
        """Raise UserError where trainings together would not be what each is alone."""
        maker, why = self._maker, None
        if not isinstance(model, Classifier) or not isinstance(maker.datamodule, TensorDataModule):
            why = "it takes this package's networks and data sets"
        elif own := _own_hook(type(model)):
            why = f"{type(model).__name__} has its own {own}"
        elif reason := can_stack(model.net):
            why = f"this network's trainings would not be what each is alone ({reason})"
        elif maker.datamodule.augmentation != "none":
            why = "it does not augment"
        elif maker.loop.compile:
            why = "it does not compile"
        elif maker.loop.kernels != "masked":
            why = "its kernels are the masked ones"
        elif maker.loop.rewind_step or type(maker.loop.retrain) is not Rewind:
            why = "it rewinds to step 0 alone"
        elif maker.loop.pruned != "zero":
            why = "it prunes to zero alone"
        elif any(control.steps is not None for control in maker.loop.controls):
            why = "its trainings are of one length"
        elif flag := trainers.wants_ordinary_batches(trainer):
            why = f"trainer.{flag} needs a step a batch"
        elif flag := trainers.evaluates_a_part(trainer):
            why = f"it evaluates whole parts of the data set, whatever trainer.{flag} says"
        elif loggers.own(trainer):
            why = "a logger would get nothing: it logs to the run's TensorBoard alone"
        elif trainer.world_size > 1:
            why = "it takes one device"
        elif trainer.precision not in ("32-true", "bf16-mixed"):
            why = f"it does not train in {trainer.precision}"
        elif reason := _mixes_members(model):
            why = reason
        if why:
            raise UserError(f"pruning.together cannot serve here, for {why}: drop pruning.together.")

    def make(self, trainings: Sequence[Training], display: Display) -> list[tuple[Training, Record]]:
        """Make trainings of one level, in groups where they do not fit into the device's memory together."""
        made: list[tuple[Training, Record]] = []
        while len(made) < len(trainings):
            group = trainings[len(made) :][: self.most or None]
            try:
                made += self._make(group, display)
                continue
            except torch.OutOfMemoryError as error:
                reason = str(error).partition(". ")[0]
            # Here and not above: the error holds on to all that was allocated.
            gc.collect()
            torch.cuda.empty_cache()
            if len(group) == 1:
                raise UserError(f"Not even one training fits into the device's memory ({reason}): use a larger one.")
            self.most = len(group) // 2
            display.tell(f"{len(group)} trainings at once do not fit into the device's memory: {self.most} at a time.")
        return made

    def _make(self, trainings: Sequence[Training], display: Display) -> list[tuple[Training, Record]]:
        maker, loop = self._maker, self._maker.loop
        data = maker.datamodule
        assert isinstance(data, TensorDataModule)
        members: list[Classifier] = []
        starts: list[Start] = []
        for training in trainings:
            member = maker.origins.fresh(training.replicate)
            assert isinstance(member, Classifier)
            start = maker.origins.start(training, member)
            # Nobody knows before what a control of somebody's own starts from.
            if start.step or start.steps is not None or start.learning_rates or start.pruned:
                raise UserError(
                    f"pruning.together cannot make {training}, which is no training of the whole length from step 0: "
                    "start a new run without pruning.together, or without that control."
                )
            rewind(member, start.weights, start.mask)
            maker.begin(training, start.mask)
            members.append(member)
            starts.append(start)
        trainer = maker.make_trainer(trainings[0])
        device = trainer.strategy.root_device
        images, labels = data.resident("train", device)
        model = JointClassifier(members, images, labels, graph=True)
        steps = trainers.total_steps(trainer, data.steps_per_epoch)
        watch = JointWatch(maker, trainings, starts, display)
        trainers.adopt(
            trainer,
            watch,
            None,
            evaluate_every=loop.evaluate_every,
            long_steps=steps,
            keep_display=not display.has_bars,
        )
        what = f"{len(trainings)} trainings at once, level {trainings[0].level}"
        display.begin(what, maker.origins.density(starts[0].mask), steps, trainings=len(trainings))
        plans = [StepPlan(steps, loop.evaluate_every, t.seed(maker.seed, "data")) for t in trainings]
        size = data.eval_batch_size
        parts = {part: EvalBatches(*data.resident(part, device), size) for part in ("train", "val", "test")}
        validation = [parts["val"], parts["test"]] if loop.test_curve else [parts["val"]]
        with clean_interrupts(trainer), trainers.without_driver_checks():
            trainer.fit(model, JointOrders(labels.cpu(), data.batch_size, plans), validation)
        if not watch.all_diverged:
            maker.check_length(trainings[0], trainer, starts[0], steps)
        # Lightning has moved it to the CPU.
        model.to(device).eval()
        with trainer.precision_plugin.forward_context():
            return watch.finish(model, parts)


class JointWatch(Callback):
    """What PruningLoop does within a fit, for each of several trainings that are made in it."""

    def __init__(self, maker: Maker, trainings: Sequence[Training], starts: Sequence[Start], display: Display) -> None:
        self._maker = maker
        self._trainings = trainings
        self._starts = starts
        self._display = display
        self._began = time.monotonic()
        test_curve = maker.loop.test_curve
        self._names = ("train_loss", "val_loss", "val_acc", *(TEST_COLUMNS if test_curve else ()))
        self._watches = [FitWatch() for _ in trainings]
        self._files = [MetricsFile(training.folder / METRICS, test_curve) for training in trainings]
        self._loggers = [loggers.logger_for(t.run, t.version, None) for t in trainings] if maker.logs else []
        self._best: dict[str, Tensor] = {}
        self._ended: dict[int, Weights] = {}
        self._losses = torch.zeros(0)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        MaskKeeper(pl_module, stack_masks([start.mask for start in self._starts])).attach(trainer.optimizers)
        self._best = {name: value.detach().clone() for name, value in pl_module.named_parameters()}
        for file in self._files:
            file.cut(0)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._losses = outputs["losses"]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, JointClassifier)
        # One transfer for all.
        columns = [self._losses, *(numbers for pair in pl_module.validation for numbers in pair)]
        table = torch.stack([column.float() for column in columns], dim=1).tolist()
        improved: list[int] = []
        rows = []
        for index, (watch, numbers) in enumerate(zip(self._watches, table, strict=True)):
            if watch.diverged:
                continue
            before = watch.early_stop
            metrics = dict(zip(self._names, numbers, strict=True))
            row = watch.evaluation(trainer.global_step, metrics, dict)
            if watch.early_stop is not before:
                improved.append(index)
            if watch.diverged:
                # It goes on with the others, to no purpose; what is kept of it is of this step.
                self._ended[index] = {
                    n: value.detach()[index].to("cpu", copy=True) for n, value in pl_module.named_parameters()
                }
            rows.append(row)
            self._files[index].append(row)
            if self._loggers:
                shown = {name: value for name, value in row.items() if name != "step" and value is not None}
                self._loggers[index].log_metrics(shown, trainer.global_step)
        if improved:
            where = torch.tensor(improved, device=pl_module.device)
            for name, value in pl_module.named_parameters():
                self._best[name].index_copy_(0, where, value.detach().index_select(0, where))
        if self.all_diverged:
            trainer.should_stop = True
        self._display.step(trainer.global_step, rows[0] if rows else None)

    @property
    def all_diverged(self) -> bool:
        """Whether no training is left that goes on."""
        return all(watch.diverged for watch in self._watches)

    def finish(self, model: JointClassifier, parts: dict[str, EvalBatches]) -> list[tuple[Training, Record]]:
        """Measure all, and write each."""
        maker = self._maker
        final = _on_cpu(model)
        scores = {"final": self._scores(model, parts)}
        parameters = dict(model.named_parameters())
        with torch.no_grad():
            for name, value in self._best.items():
                parameters[name].copy_(value)
        early = _on_cpu(model)
        scores["early_stop"] = self._scores(model, parts)
        seconds = (time.monotonic() - self._began) / len(self._trainings)
        made = []
        for index, (training, start, watch) in enumerate(
            zip(self._trainings, self._starts, self._watches, strict=True)
        ):
            numbers = of_the_curve(watch)
            has = {"final": not watch.diverged, "early_stop": watch.early_stop_weights is not None}
            for point, columns in scores.items():
                if has[point]:
                    numbers |= {f"{point}_{name}": shortest(values[index]) for name, values in columns.items()}
            if has["early_stop"]:
                watch.early_stop_weights = _member(early, index)
            step = watch.last.get("step")
            record = maker.record(training, watch, start.mask, int(step or 0), seconds, numbers)
            if self._loggers:
                self._loggers[index].finalize("success")
            weights = self._ended.get(index) or _member(final, index)
            maker.write(training, record, weights, watch)
            made.append((training, record))
        return made

    def _scores(self, model: JointClassifier, parts: dict[str, EvalBatches]) -> dict[str, list[float]]:
        test_loss, test_acc = model.evaluate(parts["test"])
        found = {"test_loss": test_loss.tolist(), "test_acc": test_acc.tolist()}
        if self._maker.loop.measures_train(self._maker.datamodule):
            found["train_acc"] = model.evaluate(parts["train"])[1].tolist()
        return found


def _own_hook(kind: type[Classifier]) -> str | None:
    """What a network's class does otherwise than every Classifier, by its name."""
    own = kind.__mro__[: kind.__mro__.index(Classifier)]
    names = [name for base in own for name in vars(base) if not name.startswith("_") and hasattr(Classifier, name)]
    return next(iter(names), None)


def _mixes_members(model: Classifier) -> str | None:
    made: Any = model.configure_optimizers()
    optimizer: torch.optim.Optimizer = made["optimizer"]
    if not is_elementwise(optimizer):  # a member of a stack would not move as it would alone
        return f"{type(optimizer).__name__} may move a weight by what others do"
    if len(optimizer.param_groups) > 1:
        # They may be told apart by their shapes, and those of a stack are others.
        return "its optimizer has several groups of parameters"
    return None


def _on_cpu(model: JointClassifier) -> Weights:
    return {name: value.detach().cpu().clone() for name, value in model.named_parameters()}


def _member(weights: Weights, index: int) -> Weights:
    return {name: value[index].clone() for name, value in weights.items()}
