"""Devices that a machine has not are told by the flag that asks for them; machines with GPUs are simulated."""

from pathlib import Path
from typing import Any

import pytest
from lightning_fabric.accelerators import cuda, mps
from pytorch_lightning.accelerators import CPUAccelerator, CUDAAccelerator, MPSAccelerator, XLAAccelerator

from lth_lightning.cli import devices, main


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Has this machine seem to have so many GPUs, of NVIDIA or of Apple."""

    def have(kind: str, number: int) -> None:
        is_cuda, is_mps = (kind == name and number > 0 for name in ("cuda", "mps"))
        for cls, is_there in ((CUDAAccelerator, is_cuda), (MPSAccelerator, is_mps), (XLAAccelerator, False)):
            monkeypatch.setattr(cls, "is_available", staticmethod(lambda is_there=is_there: is_there))
        monkeypatch.setattr(CUDAAccelerator, "auto_device_count", staticmethod(lambda: number))
        monkeypatch.setattr(cuda, "_get_all_visible_cuda_devices", lambda: list(range(number * is_cuda)))
        monkeypatch.setattr(mps, "_get_all_available_mps_gpus", lambda: list(range(number * is_mps)))

    return have


@pytest.mark.parametrize("accelerator", ["gpu", "cuda", "mps", "tpu", CUDAAccelerator()])
def test_a_missing_kind_of_device_is_told_by_its_flag(machine: Any, accelerator: Any) -> None:
    machine("none", 0)
    line = devices.why_not(accelerator, 1, resumes=False)
    assert line is not None
    name = accelerator if isinstance(accelerator, str) else "cuda"
    assert line.startswith(f"--trainer.accelerator {name}: torch finds no such device")
    assert line.endswith("Write --trainer.accelerator cpu, or drop the flag.")


def test_a_run_that_goes_on_elsewhere_is_not_told_to_change_its_device(machine: Any) -> None:
    machine("none", 0)
    line = devices.why_not("gpu", 1, resumes=True)
    assert line is not None
    assert "Go on with the run where there is one" in line
    assert "Write" not in line


@pytest.mark.parametrize("asked", [2, "2", [1], "[1]", "0,1", 0, "0", [], -2, "many", None])
@pytest.mark.parametrize("accelerator", ["auto", "gpu", "cuda"])
def test_devices_that_a_machine_with_one_gpu_lacks(machine: Any, accelerator: str, asked: Any) -> None:
    machine("cuda", 1)
    line = devices.why_not(accelerator, asked, resumes=False)
    assert line is not None
    assert line.startswith(f"--trainer.devices {asked}: this machine has one cuda device.")
    assert "Write --trainer.devices 1" in line


def test_more_devices_than_there_are(machine: Any) -> None:
    machine("cuda", 4)
    line = devices.why_not("gpu", 5, resumes=False)
    assert line is not None
    assert "has 4 cuda devices. Write a number of 1 to 4" in line
    machine("mps", 1)
    line = devices.why_not("auto", 2, resumes=False)
    assert line is not None
    assert "one mps device" in line


@pytest.mark.parametrize("asked", [0, -1, "0", [0], [0, 1], "x", None])
def test_what_is_no_number_of_processes_on_a_cpu(machine: Any, asked: Any) -> None:
    machine("none", 0)
    for accelerator in ("auto", "cpu", CPUAccelerator()):
        line = devices.why_not(accelerator, asked, resumes=False)
        assert line is not None
        assert line.startswith(f"--trainer.devices {asked}: on a CPU")


@pytest.mark.parametrize(
    ("kind", "number", "accelerator", "asked"),
    [
        ("none", 0, "auto", 2),
        ("none", 0, "cpu", "auto"),
        ("cuda", 2, "auto", 2),
        ("cuda", 2, "gpu", [1]),
        ("cuda", 2, "cuda", -1),
        ("cuda", 2, "gpu", "0,1"),
        ("cuda", 2, "cpu", 3),
        ("mps", 1, "gpu", "auto"),
        ("mps", 1, "mps", 1),
        ("none", 0, object(), 1),
    ],
)
def test_nothing_is_said_of_what_is_there(machine: Any, kind: str, number: int, accelerator: Any, asked: Any) -> None:
    machine(kind, number)
    assert devices.why_not(accelerator, asked, resumes=False) is None


@pytest.mark.parametrize("words", [["--trainer.accelerator=gpu"], ["--trainer.devices=0"]])
@pytest.mark.parametrize("command", ["fit", "test"])
def test_a_command_says_so_in_one_line_and_writes_nothing(
    machine: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, words: list[str]
) -> None:
    machine("none", 0)
    checkpoint = tmp_path / "x.ckpt"
    checkpoint.touch()
    where = ["--logs", str(tmp_path)] if command == "fit" else ["--ckpt_path", str(checkpoint)]
    assert main([command, "--config=quickstart", *where, *words]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"lth: {words[0].replace('=', ' ')}: ")
    assert len(error.splitlines()) == 1
    assert [*tmp_path.iterdir()] == [checkpoint]
