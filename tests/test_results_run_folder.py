"""A run owns its folder: two runs never share one, and what is no run is told so."""

import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path
from threading import Barrier as ThreadBarrier

import pytest

from lth_lightning.errors import UserError
from lth_lightning.results import Record, Training
from lth_lightning.results import run_folder as folders
from lth_lightning.results.run_folder import check_run, claim, finished, run_of, tidy

fork = multiprocessing.get_context("fork")


def test_versions_count_up(tmp_path):
    claimed = [claim("lenet", tmp_path / "logs") for _ in range(12)]
    assert claimed == [tmp_path / "logs" / "lenet" / f"version_{n}" for n in range(12)]
    assert all(folder.is_dir() for folder in claimed)
    assert claim("conv2", tmp_path / "logs").name == "version_0"


def test_a_version_follows_the_highest_as_a_number_and_gaps_stay(tmp_path):
    for name in ("version_2", "version_10", "version_x", "version_", "my_version_99", "version_11.bak"):
        (tmp_path / "lenet" / name).mkdir(parents=True)
    assert claim("lenet", tmp_path).name == "version_11"


def test_the_root_is_lightning_logs_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert claim("lenet") == Path("lightning_logs/lenet/version_0")
    assert (tmp_path / "lightning_logs" / "lenet" / "version_0").is_dir()


def _claim_at_once(root: Path, barrier: Barrier, results: "multiprocessing.queues.Queue[str]") -> None:
    barrier.wait(timeout=180)
    for _ in range(5):
        results.put(claim("lenet", root).name)


def test_processes_that_claim_at_once_get_different_folders(tmp_path):
    barrier, results = fork.Barrier(6), fork.Queue()
    processes = [fork.Process(target=_claim_at_once, args=(tmp_path, barrier, results)) for _ in range(6)]
    for process in processes:
        process.start()
    claimed = [results.get(timeout=180) for _ in range(30)]
    for process in processes:
        process.join(timeout=180)
    assert sorted(claimed, key=lambda name: int(name.split("_")[1])) == [f"version_{n}" for n in range(30)]


def test_threads_that_claim_at_once_get_different_folders(tmp_path):
    barrier = ThreadBarrier(8)

    def work(_: int) -> list[Path]:
        barrier.wait(timeout=180)
        return [claim("lenet", tmp_path) for _ in range(10)]

    with ThreadPoolExecutor(8) as pool:
        claimed = [folder for part in pool.map(work, range(8)) for folder in part]
    assert len(set(claimed)) == 80
    assert all(folder.is_dir() for folder in claimed)


@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_a_folder_that_cannot_be_written_is_one_line_that_says_what_to_do(tmp_path, below):
    (tmp_path / "file").write_text("no folder")
    root = tmp_path / "file" / below
    with pytest.raises(UserError) as error:
        claim("lenet", root)
    text = str(error.value)
    assert str(root / "lenet") in text
    assert "--logs" in text
    assert "\n" not in text


def test_an_experiment_that_is_a_file_cannot_be_written(tmp_path):
    (tmp_path / "lenet").write_text("no folder")
    with pytest.raises(UserError, match="cannot be written"):
        claim("lenet", tmp_path)


@pytest.mark.parametrize("name", ["lenet", "lenet-300.v2", "a_b+c", "3", "...", "a/b", "lenet/lr=0.1,hidden=300-100"])
def test_plain_names_and_paths_of_them_are_experiments(tmp_path, name):
    assert claim(name, tmp_path) == tmp_path / name / "version_0"


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a b",
        "a/../b",
        "a/.",
        "a//b",
        "a/version_0",
        "../other",
        "/other",
        "a\\b",
        "x\n",
        "*",
        "a:b",
        "lenet/",
    ],
)
def test_other_names_are_refused_and_nothing_is_made(tmp_path, name):
    root = tmp_path / "logs"
    with pytest.raises(UserError, match="cannot name an experiment"):
        claim(name, root)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["x" * 300, "a/" + "x" * 300])
def test_a_name_that_the_file_system_does_not_take_leaves_nothing_behind(tmp_path, name):
    with pytest.raises(UserError, match="cannot be written"):
        claim(name, tmp_path / "new" / "logs")
    assert os.listdir(tmp_path) == []


def test_a_run_has_a_config(tmp_path):
    with pytest.raises(UserError, match=r"is no run.*config\.yaml"):
        check_run(tmp_path)
    with pytest.raises(UserError, match="is no run"):
        check_run(tmp_path / "missing")
    (tmp_path / "config.yaml").write_text("")
    assert check_run(tmp_path) == tmp_path


def test_a_level_belongs_to_the_run_three_folders_up(tmp_path, monkeypatch):
    level = tmp_path / "version_0" / "replicate_0" / "ticket" / "level_03"
    level.mkdir(parents=True)
    with pytest.raises(UserError, match="no level of a run"):
        run_of(level)
    (tmp_path / "version_0" / "config.yaml").write_text("")
    assert run_of(level) == (tmp_path / "version_0").resolve()
    with pytest.raises(UserError, match="no level of a run"):
        run_of(level.parent)
    with pytest.raises(UserError, match="no level of a run"):
        run_of(Path("/"))
    monkeypatch.chdir(level)
    assert run_of(Path(".")) == (tmp_path / "version_0").resolve()


def test_a_training_is_finished_once_its_result_exists(tmp_path):
    training = Training(0, "ticket", 0, 1, tmp_path)
    assert not finished(training)
    training.folder.mkdir(parents=True)
    (training.folder / "mask.pt").write_bytes(b"")
    assert not finished(training)
    Record(0, "ticket", 0, 1, "ok", 10, 8, 0.8, 5).write(training.folder)
    assert finished(training)
    assert not finished(training.ticket(2))


def test_tidying_takes_what_killed_processes_left_and_nothing_else(tmp_path):
    stay = [
        "config.yaml",
        "results.csv",
        "replicate_0/rewind.pt",
        "replicate_0/ticket/level_00/result.json",
        "replicate_0/ticket/level_00/trained.pt",
        "replicate_0/ticket/level_00/metrics.csv",
        "replicate_0/ticket/level_01/mask.pt",
        "replicate_0/ticket/level_01/last.ckpt",
    ]
    go = [
        ".results.csv.123.tmp",
        "replicate_0/.rewind.ckpt",
        "replicate_0/.start_1.ckpt",
        "replicate_0/ticket/level_00/last.ckpt",
        "replicate_0/ticket/level_00/.trained.pt.99.tmp",
    ]
    for name in (*stay, *go):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    tidy(tmp_path)
    tidy(tmp_path)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == set(stay)


def test_a_run_has_one_owner_at_a_time(tmp_path):
    with folders.owned(tmp_path), pytest.raises(UserError, match="Another process is at work"), folders.owned(tmp_path):
        pass
    with folders.owned(tmp_path):
        pass
