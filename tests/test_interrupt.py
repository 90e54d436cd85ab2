"""Ctrl-C while the command starts, and once more while it ends: one line, exit code 130, never a traceback."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from runs import LTH, PATIENCE, environment

FIT = ("fit", "--trainer.max_steps", "100000", "--workers", "1")
STOPPED = "Stopped. Nothing was begun."


def interrupted_after(seconds: float, folder: Path, words: tuple[str, ...] = FIT) -> tuple[int, str]:
    """Exit code and standard error of a command that gets SIGINT so many seconds after its first line of code."""
    process = subprocess.Popen(
        [*LTH, *words], cwd=folder, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    # Before that Python itself starts, which is not this package's.
    maps = Path(f"/proc/{process.pid}/maps")
    end = time.monotonic() + PATIENCE
    while process.poll() is None and b"libtorch" not in maps.read_bytes() and time.monotonic() < end:
        time.sleep(0.002)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    return process.returncode, err


def assert_one_line(code: int, err: str) -> None:
    assert code == 130, err
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert lines[0] == STOPPED or lines[0].startswith("Stopped. Nothing is finished yet")


def test_ctrl_c_within_the_import_of_torch(tmp_path: Path) -> None:
    code, err = interrupted_after(0.05, tmp_path)
    assert_one_line(code, err)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.thorough
@pytest.mark.parametrize("tenths", range(0, 60, 2))
def test_ctrl_c_at_any_moment_of_the_start(tmp_path: Path, tenths: int) -> None:
    assert_one_line(*interrupted_after(tenths / 10, tmp_path))


@pytest.mark.parametrize("word", ["fit", "ls", "report", "diff"])
def test_before_anything_is_imported(tmp_path: Path, word: str) -> None:
    code = f"""
import os, signal, sys
from lth_lightning import __main__ as command
command._run = lambda words: os.kill(os.getpid(), signal.SIGINT)
sys.argv = ["lth", {word!r}]
command.console()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), cwd=tmp_path)
    assert (done.returncode, done.stderr.strip()) == (130, STOPPED)


def test_a_second_one_when_the_first_has_been_told_says_nothing(tmp_path: Path) -> None:
    code = """
import atexit, os, signal, sys
from lth_lightning import __main__ as command, interrupt

def run(words):
    interrupt.running()
    try:
        os.kill(os.getpid(), signal.SIGINT)
        while True:
            pass
    except KeyboardInterrupt:
        interrupt.ending(130)
        print("Stopped.", file=sys.stderr)
    atexit.register(os.kill, os.getpid(), signal.SIGINT)
    return 130

command._run = run
command.console()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), cwd=tmp_path)
    assert (done.returncode, done.stderr.strip()) == (130, "Stopped.")


def said_and_code(run: str, folder: Path) -> tuple[int, str]:
    """Exit code and standard error of a command whose work is the function `run` of this code."""
    code = f"""
import os, signal, sys, time
from lth_lightning import __main__ as command, interrupt

def press():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep({PATIENCE})

{run}
command._run = run
command.console()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), cwd=folder)
    return done.returncode, done.stderr.strip()


def test_a_second_one_before_the_first_has_been_told(tmp_path: Path) -> None:
    run = """
def run(words):
    interrupt.running()
    try:
        press()
    except KeyboardInterrupt:
        press()
"""
    assert said_and_code(run, tmp_path) == (130, "Stopped.")


def test_the_third_ends_what_does_not_end(tmp_path: Path) -> None:
    run = """
def run(words):
    interrupt.running()
    while True:
        try:
            press()
        except KeyboardInterrupt:
            continue
"""
    assert said_and_code(run, tmp_path) == (130, "Stopped.")


def test_while_python_itself_ends(tmp_path: Path) -> None:
    run = """
class Last:
    def __del__(self, kill=os.kill, process=os.getpid(), number=signal.SIGINT):
        kill(process, number)

last = Last()

def run(words):
    return 0
"""
    assert said_and_code(run, tmp_path) == (0, "")


def test_ctrl_c_is_taken_before_anything_else_is_imported() -> None:
    code = """
import sys
before = set(sys.modules)
from lth_lightning import __main__
print(*sorted(set(sys.modules) - before))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True)
    ours = {"lth_lightning", "lth_lightning.__main__", "lth_lightning.interrupt"}
    assert set(done.stdout.split()) - {"_signal", "atexit"} == ours


def test_where_ctrl_c_is_ignored_it_stays_so(tmp_path: Path) -> None:
    code = """
import os, signal, sys
from lth_lightning import __main__ as command
signal.signal(signal.SIGINT, signal.SIG_IGN)
command._run = lambda words: os.kill(os.getpid(), signal.SIGINT) or 0
command.console()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_in_a_process_that_calls_main_nothing_changes() -> None:
    from lth_lightning import interrupt

    before = signal.getsignal(signal.SIGINT)
    interrupt.running()
    interrupt.ending(130)
    assert signal.getsignal(signal.SIGINT) is before
    assert os.getpid()
