"""The benchmarks compare what they say: equal evaluations, masks that hold, and clocks that see all of a level."""

import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.data import DataLoader
from torchvision import transforms

from benchmarks import images, loops, memory, sparsity, step, together, workers
from benchmarks.data import RandomMNIST
from benchmarks.level import Clock, level
from benchmarks.task import Timing, masks, network, spread, start_at, threads
from lth_lightning.data import Split
from lth_lightning.pruning import Ticket

pytestmark = pytest.mark.thorough


class LittleMNIST(RandomMNIST):
    """300 images to train on, 100 to validate, 50 to test."""

    pool_size, test_size = 400, 50

    def __init__(self) -> None:
        super().__init__(validation_size=100)


class LearnableMNIST(LittleMNIST):
    """The label is the row that is white."""

    def _load(self) -> tuple[Split, Split]:
        splits = super()._load()
        for split in splits:
            split.images.zero_()
            for image, label in zip(split.images, split.labels, strict=True):
                image[0, label] = 255
        return splits


STEPS = 200
LOOPS: dict[str, Callable[[RandomMNIST, Ticket, int], Timing]] = {
    "level": level,
    "bare": loops.bare,
    "plain": loops.plain,
    "matched": lambda data, ticket, steps: loops.plain(data, ticket, steps, matched=True),
    "ordinary": loops.lightning_module,
}


@pytest.fixture(scope="module")
def ticket() -> Ticket:
    return start_at(0.8)


@pytest.fixture(scope="module")
def data() -> LearnableMNIST:
    made = LearnableMNIST()
    made.setup()
    return made


@pytest.fixture(scope="module")
def timings(data: LearnableMNIST, ticket: Ticket) -> dict[str, Timing]:
    return {name: loop(data, ticket, STEPS) for name, loop in LOOPS.items()}


def test_every_loop_validates_as_often_as_a_level(timings: dict[str, Timing]) -> None:
    assert {name: timing.validations for name, timing in timings.items()} == dict.fromkeys(LOOPS, STEPS // 100)


def test_the_plain_loop_tests_along_the_way_unless_it_is_matched(timings: dict[str, Timing]) -> None:
    assert (timings["plain"].tests, timings["matched"].tests) == (STEPS // 100, 0)


def test_a_shorter_last_interval_is_evaluated_by_the_level_and_by_the_loops_beside_it(
    data: LearnableMNIST, ticket: Ticket
) -> None:
    counts = {name: LOOPS[name](data, ticket, 101).validations for name in ("level", "bare", "plain")}
    assert counts == {"level": 2, "bare": 2, "plain": 2}


@pytest.mark.parametrize("name", LOOPS)
def test_pruned_weights_are_zero_at_the_end_and_the_others_have_moved(
    name: str, timings: dict[str, Timing], ticket: Ticket
) -> None:
    start = network(ticket).state_dict()
    assert set(timings[name].weights) == set(start)
    for layer, mask in masks(ticket).items():
        weights = timings[name].weights[layer]
        assert not weights[~mask].any()
        # A pixel that is black in every image moves nothing; the white rows' weights move.
        assert (weights != start[layer])[mask].float().mean() > 0.3


@pytest.mark.parametrize("name", LOOPS)
def test_every_loop_learns(name: str, timings: dict[str, Timing], data: LearnableMNIST, ticket: Ticket) -> None:
    net = network(ticket)
    net.load_state_dict(timings[name].weights)
    assert cross_entropy(net(data.normalize(data.test.images)), data.test.labels) < 0.1


def test_the_mask_leaves_the_asked_part_of_each_layer_and_1_leaves_all() -> None:
    ticket = start_at(0.8)
    assert [int(part.sum()) for part in ticket.mask.values()] == [188_160, 24_000, 800]
    assert ticket.density == 0.8
    assert all(part.all() for part in start_at(1.0).mask.values())


def test_a_plain_loops_images_are_those_of_the_data_module(data: LearnableMNIST) -> None:
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize([0.1307], [0.3081])])
    (batch,) = DataLoader(loops.PILImages(data.test, transform), batch_size=50)
    assert torch.equal(batch[0], data.normalize(data.test.images))
    assert torch.equal(batch[1], data.test.labels)


def test_the_clock_sees_every_part_and_no_part_is_longer_than_the_level(data: LearnableMNIST, ticket: Ticket) -> None:
    clock = Clock()
    timing = level(data, ticket, 500, clock=clock)
    parts = clock.seconds
    assert min(parts.values()) > 0
    assert parts["checkpoints"] < parts["evaluations"] < parts["fit"]
    assert parts["fit"] + parts["measure"] < timing.seconds


def test_shares_grow_with_the_steps_but_for_what_comes_once_a_level() -> None:
    clock = Clock()
    clock.seconds = {"fit": 6.0, "evaluations": 3.0, "checkpoints": 1.0, "measure": 2.0}
    timing = Timing(seconds=10.0, steps=100, validations=1, tests=0, weights={})
    assert clock.shares(timing, 100) == pytest.approx(((2 + 2) / 10, 2 / 10))
    assert clock.shares(timing, 1000) == pytest.approx(((20 + 2) / 64, 2 / 64))


def test_threads_are_set_and_put_back() -> None:
    before = torch.get_num_threads()
    with threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_step_prints_a_line_a_pair_and_a_ratio_a_loop(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(step, "RandomMNIST", LittleMNIST)
    options = "--steps 100 --plain-steps 100 --pairs 1 --plain-threads 1"
    monkeypatch.setattr(sys, "argv", ["step", *options.split()])
    step.main()
    lines = capsys.readouterr().out.splitlines()
    times = [[float(cell) for cell in line.split()[2:]] for line in lines if line.startswith("pair ")]
    assert [len(row) for row in times] == [7]
    ratios = {line.split()[2]: float(line.split()[3]) for line in lines if line.startswith("  level / ")}
    ours, *others = times[0]
    assert list(ratios) == ["bare", "bare-zero", "bare-own", "plain", "matched", "ordinary"]
    assert list(ratios.values()) == pytest.approx([ours / other for other in others], rel=0.01, abs=0.001)
    assert sum(line.startswith("share of a level of") for line in lines) == 2


def test_a_spread_is_the_median_with_the_least_and_the_greatest() -> None:
    assert spread([3.0, 1.0, 2.5, 2.0]) == "2.250 (1.000-3.000)"


def test_step_refuses_steps_that_end_between_two_evaluations(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["step", "--steps", "150"])
    with pytest.raises(SystemExit):
        step.main()
    assert "multiple of 100" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_resident_memory_is_the_kernels() -> None:
    found = memory.resident(os.getpid())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    assert found["VmHWM"] == pytest.approx(peak, rel=0.05)
    assert found["RssAnon"] < found["VmRSS"] <= found["VmHWM"]
    assert 0 < found["Pss"] <= found["VmRSS"] * 1.01
    assert memory.resident(2**22 + 1) == {}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_family_of_a_process_is_what_it_has_started() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as child:
        found = memory.family(os.getpid())
        child.kill()
    assert found[0] == os.getpid()
    assert child.pid in found


def test_sizes_are_summed_by_name_and_seconds_are_of_a_level(tmp_path: Path) -> None:
    for number in range(3):
        folder = tmp_path / f"level_{number:02d}"
        folder.mkdir()
        (folder / "mask.pt").write_bytes(bytes(10))
        (folder / f"events.out.{number}").write_bytes(bytes(3))
        (folder / "result.json").write_text(json.dumps({}))
        os.utime(folder / "result.json", (0, 100 + 2 * number))
    assert memory.sizes(tmp_path) == {"mask.pt": 30, "events": 9, "result.json": 6}
    assert memory.seconds_a_level(tmp_path) == 2.0


def test_only_the_lightning_loop_pays_for_what_lightnings_import_changes(
    monkeypatch: pytest.MonkeyPatch, data: LearnableMNIST, ticket: Ticket
) -> None:
    seen: dict[str, set[str | None]] = {}
    handle = register_optimizer_step_post_hook(lambda *_: values.add(os.environ.get(name)))
    name = "PYTORCH_NVML_BASED_CUDA_CHECK"
    monkeypatch.setenv(name, "1")
    for loop in ("bare", "plain", "matched", "ordinary"):
        values = seen[loop] = set()
        LOOPS[loop](data, ticket, 2)
    handle.remove()
    assert seen == {"bare": {"0"}, "plain": {"0"}, "matched": {"0"}, "ordinary": {"1"}}
    assert os.environ[name] == "1"


def test_workers_compares_a_run_with_itself_and_the_plain_loop(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(workers, "RandomMNIST", LittleMNIST)
    monkeypatch.setattr(workers, "threads", lambda count: threads(1))  # this process goes on to fork
    monkeypatch.setattr(
        sys, "argv", ["workers", *["--steps", "100", "--plain-steps", "100", "--pairs", "1", "--workers", "2"]]
    )
    workers.main()
    lines = capsys.readouterr().out.splitlines()
    (times,) = ([float(cell) for cell in line.split()[2:]] for line in lines if line.startswith("pair "))
    alone, beside, plain = times
    ratios = [float(line.rsplit("  ", 1)[1].split()[0]) for line in lines if line.startswith(("  one", "  plain"))]
    assert ratios == pytest.approx([alone / beside, plain / alone, plain / beside], rel=0.02, abs=0.01)


@pytest.mark.parametrize(
    ("benchmark", "options"),
    [
        (together, "--members 1 2 --steps 3 --pairs 1"),
        (sparsity, "--beyond 2 --steps 2 --rounds 1"),
        (images, "--network Conv2 --steps 2 --plain-steps 2 --pairs 1 --threads 1"),
    ],
)
def test_the_others_run_at_a_tiny_scale(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], benchmark: ModuleType, options: str
) -> None:
    monkeypatch.setattr(sys, "argv", [benchmark.__name__, *options.split()])
    benchmark.main()
    assert re.search(r"\d\.\d\dx?", capsys.readouterr().out)
