"""A ticket travels in one file, and says so when it does not fit."""

import platform
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import lth_lightning
from lth_lightning.errors import UserError
from lth_lightning.pruning import Schedule, Ticket, snapshot
from lth_lightning.pruning.ticket_path import WHAT


def network(hidden: int = 6, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, 3))


@pytest.fixture
def ticket() -> Ticket:
    model = network(seed=1)
    model(torch.randn(4, 5))  # running statistics that are not a new network's
    weights = snapshot(model)
    schedule = Schedule.of(model, 2)
    mask = schedule.dense_mask(model)
    for level in (1, 2):
        mask = schedule.prune(level, mask, weights, weights)
    return Ticket(
        mask, weights, 2, schedule.density(2), rewind_step=100, seed=7, experiment="lenet", config="seed: 7\n"
    )


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def test_a_ticket_comes_back_from_one_file(tmp_path, ticket):
    ticket.save(tmp_path / "ticket.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["ticket.pt"]
    back = Ticket.load(str(tmp_path / "ticket.pt"))
    assert same(back.mask, ticket.mask)
    assert same(back.weights, ticket.weights)
    for name in ("level", "density", "rewind_step", "seed", "experiment", "config", "versions"):
        assert getattr(back, name) == getattr(ticket, name), name
    assert all(part.dtype == torch.bool for part in back.mask.values())


def plain(value: Any) -> bool:
    if isinstance(value, dict):
        return type(value) is dict and all(type(key) is str and plain(part) for key, part in value.items())
    return type(value) in (str, int, float, torch.Tensor)


def test_the_file_holds_what_is_promised_in_plain_types(tmp_path, ticket):
    ticket.save(tmp_path / "ticket.pt")
    content = torch.load(tmp_path / "ticket.pt", weights_only=True)
    keys = "format mask weights level density rewind_step seed experiment config versions"
    assert set(content) == set(keys.split())
    assert content["format"] == 1
    assert content["versions"] == {
        "lth_lightning": lth_lightning.__version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }
    assert plain(content)


def test_the_weights_are_not_masked(tmp_path, ticket):
    # Another mask may be tried on them.
    ticket.save(tmp_path / "ticket.pt")
    weights = Ticket.load(tmp_path / "ticket.pt").weights
    assert all((weights[name][~part] != 0).all() for name, part in ticket.mask.items())


def test_a_loaded_ticket_gives_another_network_the_weights_and_the_zeros(tmp_path, ticket):
    ticket.save(tmp_path / "ticket.pt")
    model = network(seed=2)
    Ticket.load(tmp_path / "ticket.pt").apply(model)
    for name, value in model.state_dict().items():
        expected = ticket.weights[name]
        if name in ticket.mask:
            expected = torch.where(ticket.mask[name], expected, 0.0)
        assert torch.equal(value, expected), name


def level_folder(tmp_path: Path, ticket: Ticket, arm: str = "ticket", config: str | None = "seed: 7\n") -> Path:
    """A run as the design lays it out."""
    run = tmp_path / "logs" / "lenet" / "version_0"
    replicate = run / "replicate_0"
    folder = replicate / (arm if arm == "ticket" else f"{arm}_0") / "level_02"
    folder.mkdir(parents=True)
    mask = {"format": 1, "mask": ticket.mask, "level": 2, "density": ticket.density}
    torch.save({**mask, "replicate": 0, "arm": arm, "trial": 0}, folder / "mask.pt")
    torch.save({"format": 1, "weights": ticket.weights, "step": 100, "seed": 7}, replicate / "rewind.pt")
    if config is not None:
        (run / "config.yaml").write_text(config)
    return folder


def test_a_levels_folder_is_a_ticket(tmp_path, ticket):
    back = Ticket.load(level_folder(tmp_path, ticket))
    assert same(back.mask, ticket.mask)
    assert same(back.weights, ticket.weights)
    for name in ("level", "density", "rewind_step", "seed", "experiment", "config"):
        assert getattr(back, name) == getattr(ticket, name), name
    back.save(tmp_path / "ticket.pt")
    assert same(Ticket.load(tmp_path / "ticket.pt").mask, ticket.mask)


@pytest.mark.parametrize(
    ("where", "path"), [("", "."), ("..", "level_02"), ("../..", "ticket/level_02"), ("..", "../ticket/level_02/")]
)
def test_a_levels_folder_may_be_named_from_anywhere(tmp_path, monkeypatch, ticket, where, path):
    monkeypatch.chdir(level_folder(tmp_path, ticket) / where)
    back = Ticket.load(path)
    assert back.experiment == "lenet"
    assert back.config == "seed: 7\n"
    assert same(back.weights, ticket.weights)


def test_a_levels_folder_without_its_runs_config_is_a_ticket(tmp_path, ticket):
    assert Ticket.load(level_folder(tmp_path, ticket, config=None)).config == ""


def refusal(load: Any) -> str:
    with pytest.raises(UserError) as error:
        load()
    text = str(error.value)
    assert "\n" not in text
    return text


def test_a_controls_folder_is_no_ticket(tmp_path, ticket):
    folder = level_folder(tmp_path, ticket, arm="random_reinit")
    text = refusal(lambda: Ticket.load(folder))
    assert "'random_reinit'" in text
    assert "ticket/" in text


def test_a_folder_without_a_mask_is_no_ticket(tmp_path):
    assert "holds no ticket" in refusal(lambda: Ticket.load(tmp_path))


def test_a_levels_folder_that_was_copied_alone_says_what_a_ticket_consists_of(tmp_path, ticket):
    folder = level_folder(tmp_path, ticket)
    copy = tmp_path / "level_02"
    shutil.copytree(folder, copy)
    text = refusal(lambda: Ticket.load(copy))
    assert text.startswith(f"{copy} has a mask and no weights")
    for part in (str(copy.parents[1] / "rewind.pt"), "A ticket is a level's folder within its run", "Ticket.save"):
        assert part in text
    (folder.parents[1] / "rewind.pt").unlink()
    assert str(folder.parents[1] / "rewind.pt") in refusal(lambda: Ticket.load(folder))


@pytest.mark.parametrize("path", ["/level_02", "/ticket/level_02", "/replicate_0/ticket/level_02"])
def test_a_copy_right_below_the_root_is_refused_as_others(tmp_path, ticket, monkeypatch, path):
    folder = level_folder(tmp_path, ticket)
    monkeypatch.setattr(Path, "resolve", lambda _: Path(path))
    assert "no weights that it starts from" in refusal(lambda: Ticket.load(folder))


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ("logs", "has no mask.pt. {what}"),
        ("logs/lenet", "has no mask.pt. {what} Name a level, such as {level}."),
        ("logs/lenet/version_0", "has no mask.pt. {what} Name a level, such as {level}."),
        ("logs/lenet/version_0/replicate_0", "has no mask.pt. {what} Name a level, such as {level}."),
        ("logs/lenet/version_0/replicate_0/ticket", "has no mask.pt. {what} Name a level, such as {level}."),
        ("logs/lenet/version_0/replicate_0/ticket/level_07", "does not exist. {what} Name a level, such as {level}."),
        ("logs/lenet/version_0/replicate_0/ticket/level_02/mask.pt", "weights, level, density. {what} Name {level}."),
        (
            "logs/lenet/version_0/replicate_0/ticket/level_02/trained.pt",
            "mask, weights, level, density. {what} Name {level}.",
        ),
        ("logs/lenet/version_0/replicate_0/ticket/level_02/result.json", "{what} Name {level}."),
        (
            "logs/lenet/version_0/replicate_0/rewind.pt",
            "mask, weights, level, density. {what} Name a level, such as {level}.",
        ),
        ("logs/lenet/version_0/config.yaml", "{what} Name a level, such as {level}."),
        ("empty", "has no mask.pt. {what}"),
        ("sent", "has no mask.pt. {what} Name {sent}."),
        ("sent/state.pt", "lacks one of format, mask, weights, level, density. {what}"),
    ],
)
def test_a_path_that_is_no_ticket_says_what_one_is_and_which_is_near(tmp_path, ticket, named, told):
    level = level_folder(tmp_path, ticket)
    (level / "result.json").write_text("{}")
    torch.save({"format": 1, "weights": ticket.weights, "level": 2}, level / "trained.pt")
    (tmp_path / "empty").mkdir()
    (tmp_path / "sent").mkdir()
    ticket.save(tmp_path / "sent/ticket.pt")
    torch.save(ticket.weights, tmp_path / "sent/state.pt")
    text = refusal(lambda: Ticket.load(tmp_path / named))
    assert text.startswith(str(tmp_path / named))
    assert text.endswith(told.format(what=WHAT, level=level, sent=tmp_path / "sent/ticket.pt"))


def test_a_missing_file_is_named(tmp_path):
    assert "no.pt does not exist" in refusal(lambda: Ticket.load(tmp_path / "no.pt"))


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_ticket_is_named(tmp_path, ticket, part):
    path = tmp_path / "ticket.pt"
    ticket.save(path)
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    text = refusal(lambda: Ticket.load(path))
    assert str(path) in text
    assert "damaged" in text


@pytest.mark.parametrize("name", ["mask.pt", "../../rewind.pt"])
def test_a_damaged_file_of_a_level_is_named(tmp_path, ticket, name):
    folder = level_folder(tmp_path, ticket)
    (folder / name).write_bytes(b"not what it was")
    text = refusal(lambda: Ticket.load(folder))
    assert Path(name).name in text
    assert "damaged" in text


@pytest.mark.parametrize("number", [0, 2, None, "1"])
def test_another_format_is_refused(tmp_path, ticket, number):
    path = tmp_path / "ticket.pt"
    ticket.save(path)
    torch.save({**torch.load(path), "format": number}, path)
    text = refusal(lambda: Ticket.load(path))
    assert f"format {number}" in text
    assert "reads format 1" in text


@pytest.mark.parametrize(
    "content", [[1, 2], {"format": 1}, {"format": 1, "weights": {}, "step": 0, "seed": 0}, torch.ones(3), 3]
)
def test_another_kind_of_file_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "other.pt")
    text = refusal(lambda: Ticket.load(tmp_path / "other.pt"))
    assert "no file of this kind" in text
    assert "mask, weights, level, density" in text


def test_a_network_of_other_names_is_refused_and_unchanged(ticket):
    model = nn.Sequential(nn.Linear(5, 6), nn.Linear(6, 3))
    before = snapshot(model)
    text = refusal(lambda: ticket.apply(model))
    assert "'1.weight' has shape (6,) there and (3, 6) here" in text
    assert same(before, snapshot(model))


def test_a_network_with_more_is_refused(ticket):
    model = network()
    model.append(nn.Linear(3, 3))
    assert "it has no '4.weight'" in refusal(lambda: ticket.check(model))


def test_a_network_with_less_is_refused(ticket):
    assert "'3.weight' is not in it" in refusal(lambda: ticket.check(network()[:3]))


def test_other_shapes_are_refused_by_the_first(ticket):
    text = refusal(lambda: ticket.check(network(hidden=8), "The ticket t.pt"))
    assert text.startswith(
        "The ticket t.pt does not fit this network: '0.weight' has shape (6, 5) there and (8, 5) here"
    )


def test_a_mask_of_another_name_is_refused(ticket):
    ticket.mask["9.weight"] = torch.ones(1, dtype=torch.bool)
    assert "it masks '9.weight'" in refusal(lambda: ticket.check(network()))


def test_a_mask_of_another_shape_is_refused(ticket):
    ticket.mask["3.weight"] = ticket.mask["3.weight"].T
    text = refusal(lambda: ticket.check(network()))
    assert "mask of '3.weight' has shape (6, 3), not (3, 6)" in text


def test_a_fitting_network_is_left_alone_by_a_check(ticket):
    model = network(seed=5)
    before = snapshot(model)
    ticket.check(model)
    assert same(before, snapshot(model))
