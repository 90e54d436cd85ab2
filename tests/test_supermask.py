"""Supermask: masks are drawn and learned, weights are not, and a run takes it like any other network."""

from pathlib import Path
from typing import Any

import pytest
import torch
from loop_helpers import SHAPE, StopAt, StoppedError, assert_same, equal, go, level, load, rows, tiny
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.nn.functional import cross_entropy

from lth_lightning.cli import main
from lth_lightning.errors import UserError
from lth_lightning.models import Classifier, Conv2, Conv4, Conv6, LeNet300, Supermask
from lth_lightning.pruning import Ticket, weight_layers


def one_layer(shape: tuple[int, int, int], num_classes: int) -> Classifier:
    """Logits = images @ weight.T + bias: few enough numbers to compute by hand."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], num_classes))
    return Classifier(net, num_classes)


def small(**arguments: Any) -> Supermask:
    return Supermask(lambda shape, num_classes: tiny(), SHAPE, **arguments)


def spread_scores(model: Supermask, seed: int = 0) -> None:
    """Scores of all sizes, so that probabilities differ."""
    generator = torch.Generator().manual_seed(seed)
    for score in model.scores:
        score.data.copy_(2.0 * torch.randn(score.shape, generator=generator))


@pytest.mark.parametrize("rescale", [False, True])
def test_the_gradient_is_that_of_the_mask_times_the_slope_of_the_sigmoid(rescale: bool) -> None:
    torch.manual_seed(0)
    model = Supermask(one_layer, (1, 1, 4), 3, rescale=rescale).double()
    spread_scores(model)
    weight, bias = (parameter.detach() for parameter in model.net.parameters())
    images, labels = torch.randn(5, 1, 1, 4, dtype=torch.double), torch.tensor([0, 2, 1, 1, 0])
    x, p = images.flatten(1), torch.sigmoid(model.scores[0].detach())
    torch.manual_seed(7)
    logits = model(images)
    cross_entropy(logits, labels).backward()
    torch.manual_seed(7)
    drawn = (torch.rand(3, 4, dtype=torch.double) < p).double()
    assert 0 < drawn.sum() < 12
    factor = 12 / drawn.sum() if rescale else torch.tensor(1.0)
    assert torch.allclose(logits, x @ (weight * drawn * factor).T + bias)
    # d loss / d logits = (softmax - one-hot) / n; times x: d loss / d effective weight.
    to_effective = ((torch.softmax(logits.detach(), 1) - torch.eye(3)[labels]) / 5).T @ x
    to_mask = to_effective * weight * factor
    if rescale:
        # effective = w m 12 / sum(m): each m also moves the factor of all, by -12 / sum(m)^2.
        to_mask = to_mask - (to_effective * weight * drawn).sum() * 12 / drawn.sum() ** 2
    assert torch.allclose(model.scores[0].grad, to_mask * p * (1 - p))


def test_a_weight_is_there_as_often_as_its_probability_says() -> None:
    model = Supermask(one_layer, (1, 1, 4), 3)
    spread_scores(model)
    model.net[1].weight.data.fill_(1.0)
    model.net[1].bias.data.zero_()
    # Images that are unit vectors show the effective weights.
    units, count = torch.eye(4).view(4, 1, 1, 4), 4000
    torch.manual_seed(1)
    seen = torch.stack([model(units).detach().T for _ in range(count)])
    assert set(seen.unique().tolist()) == {0.0, 1.0}
    p = torch.sigmoid(model.scores[0].detach())
    assert (seen.mean(0) - p).abs().max() < 5 * 0.5 / count**0.5


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.8])
def test_every_weight_starts_at_the_initial_probability(probability: float) -> None:
    model = small(initial_probability=probability)
    for score in model.scores:
        assert torch.allclose(torch.sigmoid(score), torch.tensor(probability))


@pytest.mark.parametrize("is_training", [True, False])
def test_rescaling_keeps_the_sum_of_equal_weights(is_training: bool) -> None:
    model = Supermask(one_layer, (1, 1, 40), 5, rescale=True, initial_probability=0.3).train(is_training)
    model.net[1].weight.data.fill_(0.25)
    model.net[1].bias.data.zero_()
    logits = model(torch.ones(1, 1, 1, 40))
    # 200 weights of 0.25, whichever of them are left.
    assert logits.sum().item() == pytest.approx(200 * 0.25, rel=1e-5)
    assert len(logits.unique()) > 1


def test_a_layer_that_lost_everything_gives_its_bias() -> None:
    model = Supermask(one_layer, (1, 1, 4), 3, rescale=True, evaluation="threshold", initial_probability=0.1).eval()
    assert torch.equal(model(torch.ones(2, 1, 1, 4)), model.net[1].bias.expand(2, 3))


def test_signed_constants_are_the_standard_deviation_of_the_layer_with_the_signs_of_the_weights() -> None:
    torch.manual_seed(3)
    drawn = dict(tiny().named_parameters())
    torch.manual_seed(3)
    model = small(signed_constant=True)
    for name in ("net.fc1.weight", "net.fc2.weight", "net.output.weight"):
        values = drawn[name].detach().flatten().tolist()
        mean = sum(values) / len(values)
        deviation = (sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5
        expected = torch.tensor([deviation if value > 0 else -deviation for value in values])
        assert torch.allclose(model.get_parameter(name).flatten(), expected)


def test_training_moves_scores_and_nothing_else() -> None:
    torch.manual_seed(0)
    model = small(
        optimizer=lambda p: torch.optim.SGD(p, lr=10.0, momentum=0.9, weight_decay=0.1, fused=True),
    )
    before = {name: value.clone() for name, value in model.state_dict().items()}
    made: Any = model.configure_optimizers()
    optimizer = made["optimizer"]
    for _ in range(5):
        optimizer.zero_grad()
        cross_entropy(model(torch.randn(20, *SHAPE)), torch.randint(10, (20,))).backward()
        optimizer.step()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"scores.0", "scores.1", "scores.2"}


@pytest.mark.parametrize("evaluation", ["sample", "threshold"])
def test_an_evaluation_is_of_the_network_under_the_mask_whatever_was_drawn_before(evaluation: Any) -> None:
    model = small(evaluation=evaluation).eval()
    spread_scores(model)
    images = torch.randn(6, *SHAPE)
    torch.manual_seed(1)
    first = model(images)
    state = torch.get_rng_state()
    assert torch.equal(model(images), first)
    assert torch.equal(torch.get_rng_state(), state)
    network = tiny()
    network.load_state_dict({name: value for name, value in model.state_dict().items() if name.startswith("net.")})
    for name, part in model.mask().items():
        network.get_parameter(name).data.mul_(part)
    assert torch.allclose(first, network(images))


def test_the_sampled_mask_follows_the_probabilities_and_the_threshold_halves_them() -> None:
    model = Supermask(LeNet300)
    spread_scores(model)
    sampled = model.mask()
    model.evaluation = "threshold"
    for (name, part), score in zip(model.mask().items(), model.scores, strict=True):
        assert torch.equal(part, score > 0)
        p = torch.sigmoid(score.detach())
        for low, high in [(0.0, 0.2), (0.4, 0.6), (0.8, 1.0)]:
            among = (low <= p) & (p < high)
            noise = 5 * 0.5 / int(among.sum()) ** 0.5
            assert sampled[name][among].double().mean().item() == pytest.approx(p[among].mean().item(), abs=noise)


@pytest.mark.parametrize("network", [LeNet300, Conv2, Conv4, Conv6])
def test_the_mask_of_each_network_of_the_paper_fits_that_network(network: type[Classifier]) -> None:
    shape = (3, 8, 8)
    model = Supermask(network, shape, 4, signed_constant=True, rescale=True)
    plain = network(shape=shape, num_classes=4)
    layers = weight_layers(plain)
    assert [(name, part.numel()) for name, part in model.mask().items()] == [(la.name, la.size) for la in layers]
    assert [(la.name, la.kind) for la in weight_layers(model)] == [(la.name, la.kind) for la in layers]
    cross_entropy(model(torch.randn(2, *shape)), torch.tensor([1, 3])).backward()
    assert all(score.grad is not None and score.grad.abs().sum() > 0 for score in model.scores)
    weights = {name: value for name, value in model.state_dict().items() if name.startswith("net.")}
    Ticket(model.mask(), weights, level=0, density=0.5).apply(plain)
    assert torch.equal(plain.get_parameter(layers[0].name) != 0, model.mask()[layers[0].name])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"network": lambda shape, num_classes: nn.Linear(3, 3)}, "cannot mask a Linear"),
        ({"network": lambda shape, num_classes: Supermask(LeNet300)}, "cannot mask a Supermask"),
        ({"network": lambda shape, num_classes: Classifier(nn.Flatten(), 10)}, "no Linear or Conv weight"),
        ({"initial_probability": 1.0}, "between 0 and 1"),
        ({"evaluation": "mean"}, "use sample or threshold"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as refusal:
        Supermask(**{"network": LeNet300, **arguments})
    assert "\n" not in str(refusal.value)


# In a run.

WORDS = ["--data", "Digits", "--model", "Supermask", "--model.network", "LeNet300"]


@pytest.mark.parametrize("options", [[], ["--model.signed_constant", "true", "--model.rescale", "true"]])
def test_a_run_learns_a_mask_of_untrained_weights(tmp_path: Path, options: list[str]) -> None:
    words = [*WORDS, *options, "--pruning.levels", "0", "--trainer.max_steps", "400", "--logs", str(tmp_path)]
    assert main(["fit", *words]) == 0
    run = tmp_path / "run" / "version_0"
    [row] = rows(run / "results.csv")
    assert row["status"] == "ok"
    assert float(row["final_test_acc"]) > 0.8
    # Without the scores.
    assert int(row["weights"]) == 64 * 300 + 300 * 100 + 100 * 10
    trained, start = load(level(run, 0) / "trained.pt")["weights"], load(run / "replicate_0" / "rewind.pt")["weights"]
    frozen = [name for name in trained if not name.startswith("scores.")]
    assert len(frozen) == 6
    assert equal({name: trained[name] for name in frozen}, {name: start[name] for name in frozen})
    events = EventAccumulator(str(level(run, 0))).Reload()
    densities = events.Scalars("mask_density")
    assert [event.step for event in densities] == [100, 200, 300, 400]
    model = Supermask(LeNet300, SHAPE)
    model.load_state_dict(trained)
    ones = sum(int(part.sum()) for part in model.mask().values())
    assert densities[-1].value == pytest.approx(ones / int(row["weights"]), abs=1e-6)


def test_a_config_of_a_run_evaluates_and_repeats_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model.network.hidden", "[16,8]", "--pruning.levels", "0", "--trainer.max_steps", "40"]
    words = [*WORDS, *options, "--logs", str(tmp_path)]
    assert main(["fit", *words]) == 0
    run = tmp_path / "run" / "version_0"
    assert main(["test", "--ckpt_path", str(level(run, 0))]) == 0
    assert main(["fit", "--resume", str(run)]) == 0
    assert main(["fit", "--config", str(run / "config.yaml")]) == 0
    assert_same(tmp_path / "run" / "version_1", run)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "Supermask"], "network"),
        (["--model", "Supermask", "--model.network", "torch.nn.Linear"], "Linear"),
        ([*WORDS, "--pruning.together", "true"], "pruning.together"),
    ],
)
def test_the_command_refuses_what_cannot_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    common = ["--data", "Digits", "--pruning.levels", "0", "--trainer.max_steps", "10", "--logs", str(tmp_path)]
    assert main(["fit", *common, *options]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert message in line
    assert not list(tmp_path.iterdir())


def test_kernels_that_leave_weights_out_are_refused(tmp_path: Path) -> None:
    model = small()
    mask = {"net.fc1.weight": torch.ones(16, 64, dtype=torch.bool)}
    mask["net.fc1.weight"][:, :40] = False
    Ticket(mask, model.state_dict(), level=1, density=0.5).save(tmp_path / "ticket.pt")
    settings = {"levels": 0, "kernels": "compact", "ticket": str(tmp_path / "ticket.pt")}
    with pytest.raises(UserError, match=r"pruning\.kernels"):
        go(tmp_path / "logs", settings, model=small)


def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    settings = {"levels": 0, "evaluate_every": 5, "checkpoint_every": 5, "train_accuracy": False}
    go(tmp_path / "whole", settings, steps=30, model=small)
    with pytest.raises(StoppedError):
        go(tmp_path / "cut", settings, steps=30, model=small, callbacks=lambda training: [StopAt(15)])
    run = tmp_path / "cut" / "run" / "version_0"
    assert (level(run, 0) / "last.ckpt").exists()
    go(tmp_path / "cut", settings, steps=30, model=small, folder=run)
    assert_same(run, tmp_path / "whole" / "run" / "version_0")
