"""`benchmarks/gpu.sh` on a machine without a GPU, with stand-ins for the commands that it calls."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.sh"

STAND_IN = """#!/usr/bin/env bash
echo "$(basename "$0") $*" >>"{calls}"
{body}
"""
FITS = """
while [ $# -gt 0 ]; do
  case $1 in
    --experiment) name=$2 ;;
    --logs) logs=$2 ;;
    --resume) exit 0 ;;
  esac
  shift
done
mkdir -p "$logs/$name/version_0"
for file in config.yaml results.csv run.json; do echo "$name" >"$logs/$name/version_0/$file"; done
[ "$name" != figure5_conv4 ]  # as one that was stopped
"""


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    """What the stand-ins were called with, a line each."""
    file = tmp_path / "calls.txt"
    for name, body in {"pytest": "", "python": "", "lth": FITS, "nvidia-smi": "echo a GPU"}.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(STAND_IN.format(calls=file, body=body))
        path.chmod(0o755)
    return file


def call(tmp_path: Path, seconds: int) -> None:
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    command = [str(SCRIPT), str(tmp_path), str(tmp_path / "out"), str(seconds)]
    subprocess.run(command, env={**os.environ, "PATH": path}, check=True, timeout=180, capture_output=True)


def test_it_makes_each_step_once_and_goes_on_with_what_was_stopped(tmp_path: Path, calls: Path) -> None:
    call(tmp_path, 1000)
    first = calls.read_text().splitlines()
    assert first[1] == "pytest -m gpu -n 0"
    assert sum("benchmarks.together" in line for line in first) == 4
    assert sum("benchmarks.images" in line for line in first) == 13
    fits = [line for line in first if line.startswith("lth")]
    assert [line.split("--experiment ")[1].split()[0] for line in fits] == [
        "figure5_conv2", "figure5_conv4", "figure5_conv6", "late_rewinding_resnet20"
    ]  # fmt: skip
    assert first[-4:] == fits, "tests and ratios come first"
    kept = tmp_path / "out" / "results"
    assert (kept / "figure5_conv2" / "results.csv").read_text() == "figure5_conv2\n"
    calls.unlink()
    call(tmp_path, 1000)
    again = [line for line in calls.read_text().splitlines() if not line.startswith("nvidia-smi")]
    assert again == [f"lth fit --resume {tmp_path}/out/logs/figure5_conv4/version_0"]


def test_without_time_it_begins_nothing(tmp_path: Path, calls: Path) -> None:
    call(tmp_path, 0)
    assert calls.read_text().splitlines() == ["nvidia-smi -L"]
