"""Ctrl-C and SIGTERM: exit codes, what is said, what is left in the terminal, and going on afterwards."""

import contextlib
import fcntl
import os
import pty
import signal
import subprocess
import termios
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from runs import LTH, PATIENCE, Process, Starter, advised, assert_same_run, environment, finished, wait_for
from user_parts import STALL

pytestmark = pytest.mark.thorough

CONFIG = {
    "seed_everything": 4,
    "data": {"class_path": "user_parts.Blobs", "init_args": {"validation_size": 100}},
    "model": {"class_path": "LeNet300", "init_args": {"hidden": [40, 20], "dropout": 0.3}},
    "trainer": {"max_steps": 1500, "accelerator": "cpu"},
    "pruning": {"levels": 2, "evaluate_every": 50, "checkpoint_every": 100},
}

SHOW_CURSOR, HIDE_CURSOR = "\x1b[?25h", "\x1b[?25l"


class Terminal:
    """`lth` in a pseudo-terminal of its own, as its foreground job."""

    def __init__(self, words: list[str], folder: Path) -> None:
        self.master, slave = pty.openpty()
        self.settings = termios.tcgetattr(slave)
        self.slave = slave
        self.popen = subprocess.Popen(
            [*LTH, *words],
            cwd=folder,
            env=environment(TERM="xterm", COLUMNS="120", LINES="40"),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        self._parts: list[bytes] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while part := os.read(self.master, 65536):
                self._parts.append(part)

    @property
    def text(self) -> str:
        return b"".join(self._parts).decode(errors="replace")

    def press_ctrl_c(self) -> None:
        os.write(self.master, b"\x03")

    def end(self) -> int:
        """The exit code, once all output is read."""
        code = self.popen.wait(PATIENCE)
        self.settings_after = termios.tcgetattr(self.slave)
        os.close(self.slave)
        self._reader.join(PATIENCE)
        return code

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait(PATIENCE)


@dataclass
class Story:
    """One run, stopped four times in different ways and resumed each time by the line that was printed."""

    run: Path
    whole: Path
    terminated: Process
    pressed: Terminal
    interrupted: Process
    in_evaluation: Process
    repeated: bool


@pytest.fixture(scope="module")
def starter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starter]:
    starter = Starter(tmp_path_factory.mktemp("signals"))
    yield starter
    starter.stop()


@pytest.fixture(scope="module")
def story(starter: Starter) -> Story:
    config = str(starter.config("told", CONFIG))
    starter.finish("fit", "--config", config)
    run, levels = starter.run("told", 1), starter.run("told", 1) / "replicate_0/ticket"

    terminated = starter.start("fit", "--config", config)
    assert terminated.wait_for((levels / "level_00/last.ckpt").exists), terminated.err
    terminated.send(signal.SIGTERM)
    terminated.end()

    pressed = Terminal(["fit", "--resume", advised(terminated.err)], starter.folder)
    try:
        assert wait_for((levels / "level_01/last.ckpt").exists, pressed.popen), pressed.text
        pressed.press_ctrl_c()
        pressed.end()
    finally:
        pressed.kill()
    done = finished(run)

    # The last checkpoint is of the last step, so what follows is the evaluation.
    mark = starter.folder / "in_test"
    in_evaluation = starter.start("fit", "--resume", advised(pressed.text), **{STALL: str(mark)})
    assert in_evaluation.wait_for(mark.exists), in_evaluation.err
    in_evaluation.send(signal.SIGTERM)
    in_evaluation.end()

    interrupted = starter.start("fit", "--resume", advised(in_evaluation.err))
    assert interrupted.wait_for((levels / "level_02/last.ckpt").exists), interrupted.err
    interrupted.send(signal.SIGINT)
    interrupted.end()

    starter.finish("fit", "--resume", advised(interrupted.err))
    after = finished(run)
    repeated = {path: after[path] for path in done} != done
    return Story(run, starter.run("told"), terminated, pressed, interrupted, in_evaluation, repeated)


def test_sigterm_within_a_level_exits_with_143(story: Story) -> None:
    assert story.terminated.end() == 143


def test_sigterm_within_the_evaluation_after_a_fit_exits_with_143(story: Story) -> None:
    assert story.in_evaluation.end() == 143


def test_sigint_within_a_level_exits_with_130(story: Story) -> None:
    assert story.interrupted.end() == 130


@pytest.mark.parametrize("stopped", ["terminated", "interrupted", "in_evaluation"])
def test_a_stopped_run_says_in_one_line_how_to_go_on(story: Story, stopped: str) -> None:
    process: Process = getattr(story, stopped)
    lines = process.err.strip().splitlines()
    assert len(lines) == 1, process.err
    assert lines[0].endswith(f"lth fit --resume {story.run}")


def test_ctrl_c_in_a_terminal_exits_with_130_and_the_line(story: Story) -> None:
    assert story.pressed.popen.returncode == 130
    assert "Traceback" not in story.pressed.text
    last_lines = story.pressed.text.strip().splitlines()[-2:]  # the very last may be an escape sequence alone
    assert any("lth fit --resume" in line for line in last_lines)


def test_ctrl_c_leaves_the_terminal_as_it_was(story: Story) -> None:
    text = story.pressed.text
    assert HIDE_CURSOR in text
    assert text.rindex(SHOW_CURSOR) > text.rindex(HIDE_CURSOR)
    assert story.pressed.settings_after == story.pressed.settings


def test_a_run_stopped_four_times_ends_like_one_that_was_not(story: Story) -> None:
    assert_same_run(story.run, story.whole)
    assert not story.repeated
