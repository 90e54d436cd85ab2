"""What training changes besides weights, optimizers and loops: a training that goes on from its middle needs it all.

Lightning's checkpoints hold parameters, persistent buffers, optimizers, schedulers and where the loops stand. They do
not hold the attributes that a module, a callback or a data module counts in, which parts are in eval mode or frozen,
and the running means of `self.log(…, on_epoch=True)`.
"""

from collections.abc import Iterator, Mapping
from types import FunctionType, MethodType
from typing import Any

import torch
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint, ProgressBar
from pytorch_lightning.trainer.connectors.logger_connector.result import _Metadata, _ResultMetric, _Sync
from torchmetrics import Metric

from lth_lightning.callbacks.attributes import attributes_of, look, module_attributes, put
from lth_lightning.callbacks.generators import flattened
from lth_lightning.callbacks.plain_state import ENDLESS, Node, Reader, opaque_parts, same
from lth_lightning.callbacks.plain_writer import LostError, Writer
from lth_lightning.data import TensorDataModule

CHANGED = "lth_changed"
"""Key of our own checkpoints, and of the trainer's part of a rewind point."""

_BARE = frozenset(vars(LightningModule())) | frozenset(vars(LightningDataModule()))
LIGHTNINGS_OWN = _BARE - {"training"} | {"_hparams_initial", "_hparams_name"}
REDUCTIONS: dict[str, Any] = {"mean": torch.mean, "sum": torch.sum, "max": torch.max, "min": torch.min}
BUILTIN_REDUCTIONS: dict[str, Any] = {"builtin sum": sum, "builtin max": max, "builtin min": min}

Attributes = dict[str, dict[str, Node]]
"""By part of the training, such as `module` or `module.head`, and name."""


def users_callbacks(trainer: Trainer) -> list[Callback]:
    """Callbacks of the user's own, less those that only look on."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return [c for c in callbacks if _is_users(type(c)) and not isinstance(c, (Checkpoint, ProgressBar))]


def _is_users(kind: type) -> bool:
    of_run = any(base.__module__.startswith("lth_lightning.") for base in kind.__mro__)
    return not of_run and kind.__module__.partition(".")[0] not in ("pytorch_lightning", "lightning")


def own_attributes(holder: Any) -> dict[str, Any]:
    """What a module, data module or callback holds, less what is Lightning's and its state dict's."""
    is_module = isinstance(holder, torch.nn.Module)
    found = module_attributes(holder) if is_module else attributes_of(holder)
    left_out: frozenset[str] = frozenset()
    if isinstance(holder, (LightningModule, LightningDataModule)):
        # Lightning makes hyperparameters where it looks for some and there are none.
        left_out = LIGHTNINGS_OWN if found.get("_hparams") else LIGHTNINGS_OWN | {"_hparams"}
    elif isinstance(holder, Metric):
        left_out = frozenset({"_device", "_dtype"})
    elif type(holder).__module__.startswith("lth_lightning.pruning."):
        return {"training": holder.training}  # a kernel's layer: the rest is made of its weights
    return {name: value for name, value in found.items() if name not in left_out}


class ModuleState:
    """Knows how a fit began, and so what has changed since: in its module, and the user's callbacks and data.

    Made after `setup` and `configure_model`, and before a checkpoint is loaded.

    Args:
        trainer: whose fit is about to begin.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._first, self._held = self._glance()
        self._first_grads = self._grads()
        self._start, self._start_grads = self._first, self._first_grads
        self._begun = self._opaque_parts(self._first)
        self._users: Attributes = {}
        self._saved: Mapping[str, Any] | None = None

    def loaded(self) -> None:
        """Note what the user's own hooks have restored of a checkpoint: they know better."""
        now, _ = self._glance()
        reader, parts = Reader(self._known()), dict(self._parts())
        for part, name in self._changes(now, self._first):
            self._users.setdefault(part, {})[name] = reader.read(look(parts[part], name))

    def loaders_made(self) -> None:
        """Note how the training data begin; what is known of already stays."""
        now, held = self._glance()
        new = {part: nodes for part, nodes in now.items() if part not in self._first}
        self._first.update(new)
        self._held += held

    def begun(self) -> None:
        """Note what the hooks that begin a fit have made: those of the next fit make it again."""
        now, held = self._glance()
        self._begun |= self._opaque_parts(now)
        self._held += held
        if self._saved is None:  # else `restore` has noted it
            self._start, self._start_grads = now, self._grads()

    def content(self, of_rewind_point: bool = False) -> dict[str, Any]:
        """All that has changed, as plain content; to be called on all ranks, each of which has its own.

        For another training that goes on from here, a ticket's, what the hooks that begin a fit have set is left out:
        they set it anew, perhaps by the ticket's mask.
        """
        now, _ = self._glance()
        before, grads_before = (self._start, self._start_grads) if of_rewind_point else (self._first, self._first_grads)
        reader, parts = Reader(self._known()), dict(self._parts())
        attributes: Attributes = {}
        dropped: dict[str, list[str]] = {}
        lost: list[str] = []
        for part, name in self._changes(now, before):
            if name not in now[part]:
                dropped.setdefault(part, []).append(name)
                continue
            attributes.setdefault(part, {})[name] = reader.read(look(parts[part], name))
        for part, nodes in now.items():
            for name, node in nodes.items():
                new = (o for o in opaque_parts(node) if o[3] == ENDLESS or o[1:] not in self._begun)
                if (opaque := next(new, None)) is not None:
                    lost.append(_keeps(parts[part], name, opaque[1]))
        grads = {name: grad for name, grad in self._grads().items() if grads_before.get(name) != grad}
        own = {"attributes": attributes, "dropped": dropped, "requires_grad": grads, "lost": lost, **self._results()}
        own["of_rewind_point"] = of_rewind_point
        if not of_rewind_point:
            own["since_start"] = list(self._changes(now, self._start))
        if self._trainer.world_size == 1:
            return {"ranks": [own]}
        ranks: list[Any] = [None] * self._trainer.world_size
        torch.distributed.all_gather_object(ranks, own)
        return {"ranks": ranks}

    def take(self, checkpoint: Mapping[str, Any]) -> bool:
        """Take a loaded checkpoint's content, for `restore`; whether it has any. An older version's has none."""
        ranks = checkpoint.get(CHANGED, {}).get("ranks", [])
        self._saved = ranks[min(self._trainer.global_rank, len(ranks) - 1)] if ranks else None
        return self._saved is not None

    def restore(self) -> list[str]:
        """Have everything be as it was at the checkpoint; what was not kept of it, a phrase each.

        To be called when all hooks that begin a fit have run, and before the first batch.
        """
        if self._saved is None:
            return []
        saved, (now, held) = self._saved, self._glance()
        self._held += held
        self._start, self._start_grads = now, self._grads()
        things, device = {name: thing for thing, name in self._things()}, self._trainer.strategy.root_device
        parts = dict(self._parts())
        lost: list[str] = list(saved["lost"])
        for part, nodes in () if saved["of_rewind_point"] else self._first.items():
            # A hook that has run again may also have changed what had not changed.
            for name, node in nodes.items():
                if part in parts and (name not in now[part] or not same(now[part][name], node)):
                    self._write(Writer(things, device), parts[part], name, node)
        for source in (saved["attributes"], self._users):
            writer = Writer(things, device)
            for part, nodes in source.items():
                # Another kernel's layers have other parts.
                for name, node in nodes.items() if part in parts else ():
                    lost += self._write(writer, parts[part], name, node)
        for part, names in saved["dropped"].items():
            for name in names if part in parts else ():
                vars(parts[part]).pop(name, None)
        for name, parameter in self._trainer.lightning_module.named_parameters():
            first = parameter.requires_grad
            if not saved["of_rewind_point"]:
                first = self._first_grads.get(name, first)
            parameter.requires_grad_(saved["requires_grad"].get(name, first))
        self._restore_results(saved)
        self._note_start(saved)
        return list(dict.fromkeys(lost))

    def _note_start(self, saved: Mapping[str, Any]) -> None:
        """Have a rewind point that is still to come leave out what it would have without the interruption.

        What hooks have set now, of weights that were trained already, is not what they set then, and is put back.
        """
        if "since_start" not in saved:
            return
        changed = set(saved["since_start"])
        now, held = self._glance()
        self._held += held
        for part, nodes in now.items():
            start = self._start.setdefault(part, {})
            for name, node in nodes.items():
                if (part, name) not in changed:
                    start[name] = node
                elif name in start and same(start[name], node):
                    del start[name]

    @staticmethod
    def _write(writer: Writer, holder: Any, name: str, node: Node) -> list[str]:
        """Set an attribute; what cannot be, as a phrase."""
        try:
            put(holder, name, writer.write(node, look(holder, name)))
        except LostError as error:
            return [_keeps(holder, name, str(error))]
        return []

    # What there is.

    def _parts(self) -> Iterator[tuple[str, Any]]:
        """Everything that has attributes, by name."""
        trainer = self._trainer
        for name, module in trainer.lightning_module.named_modules():
            yield f"module.{name}" if name else "module", module
        for index, callback in enumerate(users_callbacks(trainer)):
            # One that has a `state_dict` says by it all that is to be kept.
            if type(callback).state_dict is Callback.state_dict:
                yield f"callback {index} {type(callback).__qualname__}", callback
        datamodule: LightningDataModule | None = trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(datamodule, TensorDataModule):
            return
        if datamodule is not None:
            yield "data", datamodule
        for index, loader in enumerate(flattened(trainer.fit_loop._combined_loader)):
            for name in ("dataset", "sampler", "batch_sampler", "collate_fn"):
                thing = getattr(loader, name, None)
                if hasattr(thing, "__dict__") and not isinstance(thing, (type, FunctionType, MethodType)):
                    yield f"loader {index} {name}", thing

    def _things(self) -> Iterator[tuple[Any, str]]:
        """What is named where it is held, since it is kept elsewhere or is no state."""
        trainer = self._trainer
        yield trainer, "trainer"
        for name, module in trainer.lightning_module.named_modules():
            yield module, f"module.{name}"
        for name, parameter in trainer.lightning_module.named_parameters():
            yield parameter, f"parameter.{name}"
        for name, module in trainer.lightning_module.named_modules():
            for key, buffer in module._buffers.items():
                if key not in module._non_persistent_buffers_set:
                    yield buffer, f"buffer.{name}.{key}"
        wrapped = trainer.strategy._lightning_optimizers
        configs = [config.scheduler for config in trainer.lr_scheduler_configs]
        kinds = {"callback": trainer.callbacks, "logger": trainer.loggers, "optimizer": trainer.optimizers}  # type: ignore[attr-defined]
        for kind, things in {**kinds, "wrapped": wrapped, "scheduler": configs, "data": [trainer.datamodule]}.items():  # type: ignore[attr-defined]
            for index, thing in enumerate(things):
                if thing is not None:
                    yield thing, f"{kind} {index}"

    def _known(self) -> dict[int, str]:
        return {id(thing): name for thing, name in self._things()}

    def _glance(self) -> tuple[Attributes, list[Any]]:
        """All attributes as nodes, and the objects that must live as long as these."""
        known, held = self._known(), []
        found: Attributes = {}
        for part, holder in self._parts():
            found[part] = {}
            inside = {other: name for other, name in known.items() if other != id(holder)}
            for name, value in own_attributes(holder).items():
                reader = Reader(inside, is_glance=True)
                found[part][name] = reader.read(value)
                held += reader.held
        return found, held

    @staticmethod
    def _changes(now: Attributes, before: Attributes) -> Iterator[tuple[str, str]]:
        for part, nodes in now.items():
            first = before.get(part, {})
            for name in {**first, **nodes}:
                if name not in nodes or name not in first or not same(first[name], nodes[name]):
                    yield part, name

    @staticmethod
    def _opaque_parts(found: Attributes) -> set[Node]:
        return {opaque[1:] for nodes in found.values() for node in nodes.values() for opaque in opaque_parts(node)}

    def _grads(self) -> dict[str, bool]:
        return {name: value.requires_grad for name, value in self._trainer.lightning_module.named_parameters()}

    # What `self.log` adds up.

    def _results(self) -> dict[str, Any]:
        connector = self._trainer._logger_connector
        results = []
        for key, result in self._trainer.fit_loop.epoch_loop._results.items():
            meta = result.meta
            operation = next(
                (n for n, fn in {**REDUCTIONS, **BUILTIN_REDUCTIONS}.items() if fn is meta.reduce_fx), None
            )
            if operation is None or (not result.is_tensor and meta.metric_attribute is None):
                continue
            results.append(
                {
                    "key": key,
                    "is_tensor": result.is_tensor,
                    "reduce": operation,
                    "should": meta.sync.should,
                    "op": meta.sync.op,
                    "rank_zero_only": meta.sync.rank_zero_only,
                    "meta": {name: getattr(meta, name) for name in META},
                    "state": {name: _on_cpu(getattr(result, name, None)) for name in STATE if hasattr(result, name)},
                }
            )
        shown = {name: _plain(getattr(connector, f"_{name}")) for name in SHOWN}
        return {"results": results, **shown, "first": connector._first_loop_iter, "hook": connector._current_fx}

    def _restore_results(self, saved: Mapping[str, Any]) -> None:
        trainer = self._trainer
        connector, loop = trainer._logger_connector, trainer.fit_loop.epoch_loop
        device = trainer.strategy.root_device
        metrics = dict(trainer.lightning_module.named_modules())
        loop._results.clear()
        for item in saved["results"]:
            meta = _Metadata(**item["meta"], reduce_fx={**REDUCTIONS, **BUILTIN_REDUCTIONS}[item["reduce"]])
            meta.sync = _Sync(
                fn=trainer.strategy.reduce,
                _should=item["should"],
                rank_zero_only=item["rank_zero_only"],
                _op=item["op"],
            )
            result = _ResultMetric(meta, item["is_tensor"])
            for name, value in item["state"].items():
                setattr(result, name, value)
            if not item["is_tensor"]:
                result.value = metrics[item["meta"]["metric_attribute"]]
            loop._results[item["key"]] = result.to(device)
        for name in SHOWN:
            setattr(connector, f"_{name}", dict(saved[name]))
        connector._first_loop_iter = saved["first"]
        connector._current_fx = saved["hook"]


META = (
    *("fx", "name", "prog_bar", "logger", "on_step", "on_epoch", "enable_graph", "add_dataloader_idx"),
    *("dataloader_idx", "metric_attribute"),
)
STATE = ("value", "cumulated_batch_size", "_forward_cache", "_computed", "has_reset", "_update_count")
SHOWN = ("callback_metrics", "logged_metrics", "progress_bar_metrics")


def _keeps(holder: Any, name: str, kind: str) -> str:
    return f"{type(holder).__name__} keeps '{name}' ({kind.rpartition('.')[2]})"


def _on_cpu(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone()
    return value if isinstance(value, (int, float, bool)) else None


def _plain(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _on_cpu(value) for name, value in metrics.items()}
