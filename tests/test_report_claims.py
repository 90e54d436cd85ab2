"""The file of claims: that it is whole, that it names what exists, and that the shipped configs make what it needs."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from config_helpers import NAMES, header
from report_runs import write_run

from lth_lightning.callbacks import Control
from lth_lightning.cli import main
from lth_lightning.report.claims import Claim, claims, matching, settings_of
from lth_lightning.report.measures import MEASURES, TRANSFORMS, quantity_of
from lth_lightning.report.runs import Run, read
from lth_lightning.report.weights import quantities
from lth_lightning.results.record import COLUMNS
from lth_lightning.results.run_folder import CONFIG

NETWORKS = {"lenet": "L", "conv": "C", "vgg19": "V", "resnet20": "R"}


def names(claim: Claim) -> set[str]:
    """The experiments that it compares."""
    ends = [claim.check["of"], claim.check.get("to", {})]
    return {claim.experiment, *(end["experiment"] for end in ends if "experiment" in end)}


@pytest.mark.parametrize("claim", claims(), ids=lambda claim: f"{claim.claim}-{claim.experiment}")
def test_a_claim_is_written_as_the_file_says(claim: Claim, tmp_path: Path) -> None:
    check = dict(claim.check)
    measure, quantity = quantity_of(check)
    assert [name for name in MEASURES if name in check] == [measure]
    keys = {
        "compare": {"as"},
        "extreme": {"find", "give", "as", "between", "reach"},
        "share": {"want", "between", "reach"},
        "until": {"want", "give", "between", "reach"},
        "trend": {"between", "reach"},
    }
    assert set(check) <= {measure, "of", "to"} | keys[measure]
    write_run(tmp_path / "version_0", levels=[0])
    of_weights = quantities(read(tmp_path / "version_0", "run")).columns
    assert quantity in COLUMNS or quantity in of_weights
    for end in (check["of"], check.get("to", check["of"])):
        assert set(end) <= {"arm", "density", "experiment", "where"}
        assert end["arm"] in arms()
        settings_of(end.get("experiment", claim.experiment), end.get("where"))
    if measure in ("share", "until"):
        assert check["to"]["density"] == 1
        assert check["want"] in ("lower", "higher")
    if measure == "compare":
        assert "density" in check["of"]
        assert (check["as"] in TRANSFORMS) == ("to" in check) or check["as"] == "times"
    low, high = claim.accept
    assert low is not None or high is not None
    if low is not None and high is not None:
        assert low < high
    if claim.paper is not None:
        assert low is None or low <= claim.paper
        assert high is None or claim.paper <= high


def arms() -> set[str]:
    """Names of the arms that the shipped controls make, and those of the noise that the paper has."""
    found, kinds = {"ticket", "noise_0.5", "noise_1", "noise_2", "noise_3"}, [Control]
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        found.add(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind.__name__).lower())
    return found


def test_every_claim_that_a_config_names_is_in_the_file_and_the_other_way_round() -> None:
    in_configs = {claim for name in NAMES for claim in header(name).claims.split(", ")} - {"none"}
    assert {claim.claim for claim in claims()} - {"accuracy"} == in_configs


def test_a_claims_name_says_which_network_it_is_about() -> None:
    for claim in claims():
        if re.fullmatch(r"[LCVR]\d+", claim.claim):
            assert all(
                NETWORKS[re.match(r"lenet|conv|vgg19|resnet20", name)[0]] == claim.claim[0] for name in names(claim)
            )


@pytest.mark.parametrize("name", [name for name in NAMES if header(name).claims != "none"])
def test_the_runs_of_a_config_bear_on_the_claims_that_it_names(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--config", name, "--print_config"])
    config = yaml.safe_load(capsys.readouterr().out)
    cells = list(cells_of(config))
    for wanted in header(name).claims.split(", "):
        mine = [claim for claim in claims() if claim.claim == wanted]
        bearing = [claim for claim in mine for end in ends(claim) if matching(cells, end)]
        assert bearing, wanted
        steps = {settings_of(claim.experiment)["steps"] for claim in bearing}
        assert config["trainer"]["max_steps"] in steps


def ends(claim: Claim) -> Iterator[dict[str, Any]]:
    for end in (claim.check["of"], claim.check.get("to", {})):
        yield settings_of(end.get("experiment", claim.experiment), end.get("where"))


def cells_of(config: dict[str, Any]) -> Iterator[Run]:
    """The config's run, or those of its sweep, without results."""
    grid = config.get("sweep") or {}
    assert len(grid) <= 1
    for flag, values in grid.items() or [("", [None])]:
        for value in values:
            run = Run(Path(), name="", config=config, records=[], curves=None)
            if flag:
                key = flag.replace("init_args.", "")
                for old in [old for old in run.settings if old == key or old.startswith(f"{key}.")]:
                    del run.settings[old]
                run.settings.update(
                    {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value}
                )
            yield run


def test_a_run_with_another_setting_bears_on_nothing(tmp_path: Path) -> None:
    lenet = settings_of("lenet")
    own = {"pruning.rates": {"linear": 0.2, "output": 0.1}, "model.init_args.optimizer": optimizer(0.0012)}
    write_run(tmp_path / "a" / "version_0", config=own | {"model.init_args.hidden": [300, 100]})
    assert matching([read(tmp_path / "a" / "version_0", "a")], lenet)
    for number, other in enumerate(
        (
            {"model.init_args.optimizer": optimizer(0.01)},
            {"pruning.rates": {"linear": 0.5, "output": 0.1}},
            {"pruning.one_shot": True},
            {"pruning.rewind_step": 500},
            {"pruning.pruned": "init"},
            {"pruning.retrain": {"class_path": "lth_lightning.callbacks.FineTune"}},
            {"model.init_args.activation": "sigmoid"},
            {"data.class_path": "lth_lightning.data.FashionMNIST"},
        )
    ):
        folder = tmp_path / f"b{number}" / "version_0"
        write_run(folder, config=own | {"model.init_args.hidden": [300, 100]} | other)
        assert not matching([read(folder, "b")], lenet), other


def test_a_run_without_a_config_bears_on_nothing(tmp_path: Path) -> None:
    write_run(tmp_path / "version_0")
    (tmp_path / "version_0" / CONFIG).write_text("# started from Python, so there is no config\n")
    run = read(tmp_path / "version_0", "run")
    assert not any(matching([run], settings_of(claim.experiment)) for claim in claims())


def optimizer(lr: float) -> dict[str, Any]:
    return {"class_path": "torch.optim.Adam", "init_args": {"lr": lr}}
