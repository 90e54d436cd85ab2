"""What a report says of how a run was made."""

import shlex
from collections.abc import Iterator
from typing import Any

from lth_lightning.report.page import RunFacts
from lth_lightning.report.runs import Run
from lth_lightning.report.style import percent
from lth_lightning.results.run_folder import CONFIG, is_from_python
from lth_lightning.results.summary import ranges
from lth_lightning.results.training import TICKET
from lth_lightning.results.winning import sentences


def facts(run: Run) -> RunFacts:
    """Settings, state, versions and time of a run, and the command that repeats it."""
    paths = [folder / CONFIG for folder in run.folders]
    has_config = bool(run.config)
    return RunFacts(
        name=run.name,
        state=_state(run),
        result=sentences(run.records, run.trains_on) if run.records else (),
        facts=list(_facts(run)),
        config=paths[0].read_text(errors="replace") if has_config else "",
        command=" && ".join(f"lth fit --config {shlex.quote(str(path))}" for path in paths) if has_config else "",
        is_from_python=is_from_python(run.folder),
    )


def _state(run: Run) -> str:
    done, planned = len(run.records), run.planned
    if planned is None:
        return f"{done:,} trainings finished" + (", others begun" if run.unfinished else "")
    if done >= planned:
        return f"finished: {done:,} trainings"
    word = "stopped by divergence" if run.diverged and not run.unfinished else "not finished"
    return f"{'running' if run.is_owned else word}: {done:,} of {planned:,} trainings"


def _facts(run: Run) -> Iterator[tuple[str, str]]:
    yield ("folder" if len(run.folders) == 1 else "folders"), ", ".join(map(str, run.folders))
    if network := run.setting("model"):
        yield "network", _with(run, "model", network, ("hidden", "activation", "dropout", "init_sd", "width"))
    if data := run.setting("data"):
        yield "data", _with(run, "data", data, ("batch_size", "normalization", "augmentation"))
    if optimizer := run.setting("model.optimizer"):
        yield "optimizer", _with(run, "model.optimizer", optimizer, ("lr", "momentum", "weight_decay"))
    if schedule := run.setting("model.lr_scheduler"):
        yield "learning-rate schedule", _with(run, "model.lr_scheduler", schedule, ("warmup_steps", "milestones"))
    if run.records:
        steps = sorted({record.steps for record in run.records})
        yield "steps of a training", f"{steps[0]:,}" if len(steps) == 1 else f"{steps[0]:,} to {steps[-1]:,}"
        tickets = {r.level: r.density for r in run.records if r.arm == TICKET}
        if tickets:
            last = max(tickets)
            yield "levels", f"{ranges(sorted(tickets))}, down to {percent(tickets[last])} of the weights"
        numbers = sorted({record.replicate for record in run.records})
        yield "replicates", str(len(numbers)) + (f" ({ranges(numbers)})" if numbers[0] or run.parts else "")
    if controls := list(_controls(run)):
        yield "controls", "; ".join(controls)
    if pruning := list(_pruning(run)):
        yield "pruning", ", ".join(pruning)
    if "seed_everything" in run.settings:
        yield "seed", str(run.setting("seed_everything"))
    yield from _sessions(run)
    if seconds := sum(record.seconds or 0 for record in run.records):
        yield "time", f"{_duration(seconds)}, the sum of all trainings' wall times"


def _with(run: Run, key: str, name: str, parts: tuple[str, ...]) -> str:
    values = {part: run.setting(f"{key}.{part}") for part in parts}
    told = [
        f"{part.replace('_', ' ')} {_text(value)}" for part, value in values.items() if value not in (None, 0, "none")
    ]
    return name + (f" ({', '.join(told)})" if told else "")


def _text(value: object) -> str:
    return "-".join(map(str, value)) if isinstance(value, list) else str(value)


def _controls(run: Run) -> Iterator[str]:
    for arm in run.arms[1:] if run.arms[:1] == [TICKET] else run.arms:
        rows = run.table[run.table.arm == arm]
        trials = rows.trial.nunique()
        levels = sorted(set(rows.level))
        where = f"{arm} at level{'s' if len(levels) > 1 else ''} {ranges(levels)}"
        yield where + (f", {trials} trials" if trials > 1 else "")


def _pruning(run: Run) -> Iterator[str]:
    if not run.config:
        return
    rates = {k.removeprefix("pruning.rates."): v for k, v in run.settings.items() if k.startswith("pruning.rates.")}
    kind = "one-shot" if run.setting("pruning.one_shot") else "iterative"
    yield f"{kind}, {run.setting('pruning.score')}, {run.setting('pruning.scope')}"
    if rates:
        yield "rates " + ", ".join(f"{name} {rate}" for name, rate in rates.items())
    yield f"{run.setting('pruning.retrain', 'Rewind')} to step {run.setting('pruning.rewind_step')}"
    if run.setting("pruning.pruned", "zero") != "zero":
        yield f"pruned weights: {run.setting('pruning.pruned')}"


def _sessions(run: Run) -> Iterator[tuple[str, str]]:
    sessions = run.plan.get("sessions", [])
    if not sessions:
        yield "versions", "not recorded"
        return
    yield "begun", str(sessions[0].get("started", "")).replace("T", " ").replace("+00:00", " UTC")
    versions = {
        ", ".join(f"{name} {number}" for name, number in (s.get("versions") or {}).items()): None for s in sessions
    }
    yield "versions", "; then ".join(versions)
    yield "machine", "; then ".join(dict.fromkeys(_machine(s) for s in sessions))


def _machine(session: dict[str, Any]) -> str:
    device, platform, workers, threads = (session.get(key) for key in ("device", "platform", "workers", "threads"))
    return f"{device}, {platform}, {workers} side by side, CPU threads of each: {threads}"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
