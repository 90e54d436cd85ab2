"""Worker processes: several trainings side by side on a CPU, each with its own few threads.

Two processes of one thread do nearly twice the work of one of two threads, for networks as small as the paper's. The
workers are forked, so they share the libraries and the data set's tensors with this process, and nothing that makes a
model or a trainer has to be pickled.
"""

import contextlib
import ctypes
import faulthandler
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection, wait

import torch

from lth_lightning import traces
from lth_lightning.callbacks.display import Display
from lth_lightning.errors import UserError
from lth_lightning.results.record import Record
from lth_lightning.results.training import Training

Make = Callable[[Training, Display, bool], Record]
"""Makes a training, or goes on with one from its checkpoint, and shows its progress on the display it is given."""

_SHOW_EVERY = 0.1
"""Seconds between two signs of life of a worker, evaluations aside."""


class WorkerDiedError(UserError):
    """A worker process ended by itself; what it did not finish can be resumed."""


class Crew:
    """`size` workers, each of which makes one training at a time. Leaving the context ends them at once.

    Args:
        make: makes a training.
        size: processes.
        threads: of each. More than one needs a parent that has used one alone: a fork does not copy a thread pool.
        display: where the workers' progress is shown, and what they print.
    """

    def __init__(self, make: Make, size: int, threads: int, display: Display) -> None:
        self.deaths: list[str] = []
        """What is known of each worker that ended by itself."""
        self._display = display
        self._workers: list[_Worker] = []
        try:
            for slot in range(size):
                self._workers.append(_Worker(make, slot, threads))
        except BaseException as error:
            self.__exit__(type(error))
            raise

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        for worker in self._workers:
            worker.stop(at_once=error is not None)
        for worker in self._workers:
            worker.join()
            self._show(worker.rest())
            worker.close()

    def idle(self) -> bool:
        """Whether some worker has nothing to do."""
        return any(worker.alive and worker.training is None for worker in self._workers)

    def busy(self) -> bool:
        """Whether some worker makes a training."""
        return any(worker.training is not None for worker in self._workers)

    def give(self, training: Training, resume: bool) -> None:
        """Have an idle worker make `training`."""
        next(worker for worker in self._workers if worker.alive and worker.training is None).give(training, resume)

    def wait(self) -> Iterator[tuple[Training, Record, int]]:
        """Wait for what happens next, and show it; gives the trainings that are finished, and their workers' slots.

        Raises what a worker's training raised.
        """
        sources = {source: worker for worker in self._workers for source in worker.sources}
        for source in wait(list(sources)):
            worker = sources[source]  # type: ignore[index]  # what came out went in
            if source not in worker.sources:  # it has ended meanwhile, and all that it said is read
                continue
            if source is worker.printed:
                self._show(worker.read_lines())
                continue
            try:
                kind, *content = worker.connection.recv()
            except (EOFError, OSError):
                self._show(worker.ended())
                self.deaths.append(worker.obituary())
                self._display.note(self.deaths[-1])
                worker.training = None
                continue
            if kind == "error":
                self._show(worker.rest())
                pickled, text, brief = content
                error = pickle.loads(pickled)
                traces.add_work(error, worker.training)
                error.__cause__ = WorkersError(text, brief)
                raise error
            if kind == "record" and worker.training:
                training, worker.training = worker.training, None
                yield training, content[0], worker.slot
            elif kind == "begin":
                self._display.begin(*content, slot=worker.slot)  # type: ignore[misc]
            elif kind == "step":
                self._display.step(*content, slot=worker.slot)  # type: ignore[misc]
            elif kind == "tell":
                self._display.tell(content[0])

    def _show(self, lines: Iterator[str]) -> None:
        for line in lines:
            self._display.say(line)


class _Worker:
    """The parent's side of a worker."""

    def __init__(self, make: Make, slot: int, threads: int) -> None:
        context = multiprocessing.get_context("fork")
        self.slot = slot
        self.training: Training | None = None
        self.alive = True
        self.connection, theirs = context.Pipe()
        self.printed, printer = context.Pipe(duplex=False)
        self._text = b""
        self._last_line = ""
        ends = (self.connection, self.printed)
        self._process = context.Process(target=_work, args=(make, theirs, printer, ends, threads, os.getpid()))
        self._process.start()
        theirs.close()
        printer.close()
        self.sources: tuple[Connection, ...] = ends

    def give(self, training: Training, resume: bool) -> None:
        self.training = training
        self._last_line = ""
        with contextlib.suppress(BrokenPipeError):  # it has died, which its connection's end will tell
            self.connection.send((training, resume))

    def read_lines(self) -> Iterator[str]:
        """The whole lines that it has printed since."""
        content = os.read(self.printed.fileno(), 65536)
        if not content:  # its end
            self.sources = tuple(source for source in self.sources if source is not self.printed)
        yield from self._lines(content or b"\n")

    def _lines(self, content: bytes) -> Iterator[str]:
        *lines, self._text = (self._text + content).split(b"\n")
        for line in lines:
            if text := line.decode(errors="replace").rstrip():
                if not self._last_line.startswith("Fatal Python error"):  # what follows it is where
                    self._last_line = text
                yield text

    def ended(self) -> Iterator[str]:
        """The process has ended; its last lines."""
        self.alive = False
        self._process.join()
        yield from self.rest()
        self.sources = ()

    def rest(self) -> Iterator[str]:
        """What it has printed so far, an open line too."""
        # Not to the end of the file: a process that the worker has started may still hold it open.
        while self.printed in self.sources and self.printed.poll():
            yield from self.read_lines()
        if self._text:
            yield from self._lines(b"\n")

    def obituary(self) -> str:
        code = self._process.exitcode or 0
        how = f"was ended by {_name(-code)}" if code < 0 else f"ended with exit code {code}"
        if -code == signal.SIGKILL:
            how += " (where memory is short, fewer --workers need less)"
        words = f"Its last words: {self._last_line}" if self._last_line else "It printed nothing"
        work = f"that made {self.training}" if self.training else "that had nothing to do"
        return f"The process {work} {how}. {words}."

    def stop(self, at_once: bool) -> None:
        if at_once:
            self._process.terminate()
        else:
            with contextlib.suppress(OSError):
                self.connection.send(None)

    def join(self) -> None:
        # Not Process.join with a timeout: it waits for a pipe that processes of the worker's have inherited.
        end = time.monotonic() + 5
        while self._process.is_alive() and time.monotonic() < end:
            time.sleep(0.002)
        if self._process.is_alive():
            self._process.kill()
        self._process.join()

    def close(self) -> None:
        self.connection.close()
        self.printed.close()


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class WorkersError(Exception):
    """Shows, above an error that a worker sent, where in the worker it arose.

    Args:
        text: the worker's traceback.
        brief: the same, as far as it is of the user's own code.
    """

    def __init__(self, text: str, brief: str) -> None:
        super().__init__(text)
        self.brief = brief

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


# From here on: in the worker.


def _work(
    make: Make,
    connection: Connection,
    printer: Connection,
    inherited: tuple[Connection, ...],
    threads: int,
    parent: int,
) -> None:
    for end in inherited:
        end.close()
    _die_with(parent)
    # The terminal sends Ctrl-C to every process; the parent decides what it means. A handler rather than SIG_IGN, which
    # processes that this one starts would inherit.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for descriptor in (1, 2):
        os.dup2(printer.fileno(), descriptor)
    sys.stdout = sys.stderr = os.fdopen(1, "w", buffering=1, closefd=False)
    # A crash of native code has last words, too. A Lightning fit of the parent has taken the handlers away without
    # faulthandler's knowledge, so it would not set them again.
    faulthandler.disable()
    faulthandler.enable(sys.stderr)
    # In a thread: torch's pool of threads, where it was at work before the fork, is not here, and the thread that was
    # forked would wait for it forever. OpenMP gives a new thread a new pool.
    work = threading.Thread(target=_make_what_comes, args=(make, connection, threads), name="trainings")
    work.start()
    work.join()


def _make_what_comes(make: Make, connection: Connection, threads: int) -> None:
    torch.set_num_threads(threads)
    display = _Messenger(connection)
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        if task is None:
            return
        training, resume = task
        try:
            record = make(training, display, resume)
        except BaseException as error:
            connection.send(("error", _pickled(error), traceback.format_exc(), traces.brief(error)))
            return
        connection.send(("record", record))


def _die_with(parent: int) -> None:
    """Have the system end this process when its parent ends, however that ends."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)


def _pickled(error: BaseException) -> bytes:
    # Not by the connection's own pickler, by which a tensor would stay here and be fetched from a process that is gone.
    try:
        content = pickle.dumps(error)
        if isinstance(pickle.loads(content), BaseException):
            return content
    except Exception:  # an exception class whose __init__ does not take what it is unpickled with
        pass
    return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))


class _Messenger(Display):
    """What a worker has for a display: tells the parent, which has the real one."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(enabled=False)
        self._connection = connection
        self._shown = 0.0

    def tell(self, text: str) -> None:
        self._connection.send(("tell", text))

    def begin(self, what: str, density: float, steps: int | None, slot: int = 0, trainings: int = 1) -> None:
        self._connection.send(("begin", what, density, steps))

    def step(self, step: int, row: Mapping[str, float | int | None] | None = None, slot: int = 0) -> None:
        if row or time.monotonic() - self._shown > _SHOW_EVERY:
            self._shown = time.monotonic()
            self._connection.send(("step", step, row))
