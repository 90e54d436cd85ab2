"""The processes of a run on several devices: how they meet, and how each notices that another has ended."""

import contextlib
import errno
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from pytorch_lightning import Trainer
from pytorch_lightning.strategies.launchers import _MultiProcessingLauncher

from lth_lightning import resume
from lth_lightning.callbacks.crew import WorkerDiedError
from lth_lightning.callbacks.display import Display
from lth_lightning.callbacks.trainer import is_rank_zero
from lth_lightning.errors import UserError

GRACE = 5.0
"""Seconds that a process has to end by itself, once it was told to or has lost another."""

_POLL = 0.05
_STOPPED = {signal.SIGINT: (130, "Stopped."), signal.SIGTERM: (143, "Terminated.")}
_present: "list[Peers]" = []

Settings = dict[str, Any]
"""What a process was asked to do, by flag."""

_DECIDING = (
    "seed_everything",
    "trainer.max_steps",
    "trainer.max_epochs",
    "trainer.accumulate_grad_batches",
    "trainer.gradient_clip_val",
    "trainer.precision",
    "trainer.limit_train_batches",
    "trainer.limit_val_batches",
    "trainer.limit_test_batches",
)
"""Flags beside those of pruning, model and data that decide what is computed, and how often."""


def present() -> "Peers | None":
    """Those of the run that this process makes now; None where it makes it alone."""
    return _present[-1] if _present else None


@contextlib.contextmanager
def meet(trainer: Trainer, display: Display, config: str | None = None) -> Iterator["Peers | None"]:
    """Within it the processes of a run, of which `trainer` tells, know of each other; None where there is one alone.

    `config` is this process's config.yaml; None for a run from Python. All must be asked for the same.

    Raises:
        UserError: the settings of the Trainer are not those by which the processes were started, or a process has
            other settings than process 0.
        WorkerDiedError: another process has ended before its time.
    """
    if trainer.world_size == 1 or isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
        if not is_rank_zero():
            raise UserError(
                "Several processes were started, and the Trainer wants one: set --trainer.devices to the processes of "
                "a node, --trainer.num_nodes, and --trainer.strategy ddp."
            )
        yield None
        return
    peers = Peers(trainer, display, settings_of(config) if config else {})
    _present.append(peers)
    try:
        peers.begin()
        yield peers
        peers.send({"done": True})
    except UserError as error:
        peers.send({"error": str(error)})
        if peers.rank and peers.heard(str(error)):
            raise SystemExit(2) from None  # process 0 tells it
        raise
    except Exception as error:
        if _is_of_a_collective(error) and peers.has_lost(GRACE):
            raise WorkerDiedError(peers.loss) from None
        raise
    except BaseException:
        peers.send({"error": "it was told to stop."})
        raise
    finally:
        _present.remove(peers)
        peers.close()


def settings_of(config: str) -> Settings:
    """The settings in `config`, a config.yaml, that decide what all processes of a run compute.

    Files and folders may lie elsewhere on another machine, and what is no number or word may look different in another
    process: an object by its address, a set by its order.
    """
    found = {}
    for key, value in resume.flat(yaml.safe_load(config)).items():
        decides = key in _DECIDING or key.startswith(("pruning.", "model.", "data."))
        if key == "data.init_args.root" or not decides:
            continue
        if key.startswith("pruning.") and isinstance(value, list):
            value = json.dumps(value, default=str)
        is_word = isinstance(value, str) and not Path(value).is_absolute() and " at 0x" not in value
        if is_word or isinstance(value, (bool, int, float)):
            found[key] = value
    return found


def difference(mine: Settings, theirs: Any, rank: int) -> str:
    """A line on the first setting in which process `rank`, with `theirs`, differs from process 0; empty for none."""
    for key, here in mine.items():
        there = theirs.get(key, here) if isinstance(theirs, dict) else here
        if there != here:
            return (
                f"Process {rank} has other settings than process 0: {key.replace('.init_args', '')} is {there!r} in "
                f"process {rank}, and {here!r} in process 0. Start all processes of a run with the same settings."
            )
    return ""


class Peers:
    """The processes of one run, as one of them sees them.

    Process 0 listens where Lightning's process group will, until all are there; each of the others connects to it and
    hears which folder is the run's. The connections stay: their end is the sign that a process has ended. Whatever
    waits here can be interrupted, and where PyTorch waits, which hears no signal, a thread ends the process.
    """

    def __init__(self, trainer: Trainer, display: Display, settings: Settings) -> None:
        launcher: Any = trainer.strategy.launcher
        environment = launcher.cluster_environment
        try:
            environment.validate_settings(num_devices=launcher.num_processes, num_nodes=launcher.num_nodes)
        except ValueError as error:
            raise UserError(" ".join(str(error).split())) from None
        self.rank, self.size, self.nodes = trainer.global_rank, trainer.world_size, launcher.num_nodes
        self.host, self.port = environment.main_address, environment.main_port
        self._settings = {"the number of processes": self.size, **settings}
        self._difference = ""
        self.loss = ""
        """What is known of a process that has ended before its time."""
        self.started: list[subprocess.Popen[bytes]] = []
        """Those that this one has started."""
        self._each = self.size // self.nodes
        self._is_alone_on_node = not environment.creates_processes_externally
        self._display = display
        self._folder: Path | None = None
        self._others: dict[socket.socket, _Other] = {}
        self._is_complete = self._is_closed = False
        self._errors: list[str] = []
        self._deadline: float | None = None
        self._stopped_by: int | None = None
        self._selector = selectors.DefaultSelector()
        self._listener: socket.socket | None = None
        self._wakeup: tuple[socket.socket, socket.socket] | None = None
        self._lock = threading.RLock()

    def begin(self) -> None:
        """Listen, and wait for all that somebody else has to start; or connect to the process that does."""
        # What later Trainers of this process, and those that Lightning starts, go by.
        os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = self.host, str(self.port)
        if self.rank == 0:
            self._listener = self._listen()
            self._selector.register(self._listener, selectors.EVENT_READ)
        else:
            self._add(self._connect(), 0)
            # One that process 0 has started was given its own command line.
            self.send({"rank": self.rank, "settings": {} if self._is_alone_on_node else self._settings})
        if threading.current_thread() is threading.main_thread():
            self._wakeup = socket.socketpair()
            for end in self._wakeup:
                end.setblocking(False)
            signal.set_wakeup_fd(self._wakeup[1].fileno(), warn_on_full_buffer=False)
            self._selector.register(self._wakeup[0], selectors.EVENT_READ)
        threading.Thread(target=self._watch, name="lth-peers", daemon=True).start()
        # Before anything is checked: of two that meet one mistake, the later would wait for the other for ever.
        step = self._each if self._is_alone_on_node else 1
        self._wait_for(range(step, self.size, step), patience=2.0)

    def agree(self, choose: Callable[[], Path]) -> Path:
        """The run's folder, which process 0 chooses."""
        if self.rank == 0:
            folder = choose()
            with self._lock:
                self._folder = folder.resolve()
                self.send({"folder": str(self._folder)})
            return folder
        while self._folder is None:
            self._pause()
        if not self._folder.is_dir():
            raise UserError(f"{self._folder} is not there: the processes of a run need --logs on a disk of all nodes.")
        return self._folder

    def wait_for_all(self) -> None:
        """Return when all processes are there, and process 0 has let go of the port."""
        self._wait_for(range(1, self.size), patience=60.0)
        while not self._is_complete:
            self._pause()

    def send(self, message: dict[str, Any]) -> None:
        """Tell all others, or from another than process 0, that one."""
        with self._lock:
            for connection in self._others:
                self._send(connection, message)

    def heard(self, error: str) -> bool:
        """Whether process 0 tells the same error, which it may be about to meet."""
        return self._until(lambda: error in self._errors or self._is_closed, GRACE) and error in self._errors

    def has_lost(self, seconds: float) -> bool:
        """Whether another process has ended, or does so within some seconds."""
        return self._until(lambda: bool(self.loss), seconds)

    def close(self) -> None:
        """Let go of everything: what the others do from now on does not matter here."""
        with self._lock:
            self._is_closed = True
            if self._wakeup:
                signal.set_wakeup_fd(-1)
            for each in (*self._others, *(self._wakeup or ()), *([self._listener] if self._listener else [])):
                each.close()

    # Meeting.

    def _listen(self) -> socket.socket:
        store = _store_of_torchrun()
        port = 0 if store else self.port
        host = "" if self.nodes > 1 or store else self.host
        end = time.monotonic() + GRACE  # a run before this one may be about to let go of it
        while True:
            try:
                listener = socket.create_server((host, port))
                break
            except OSError as error:
                if error.errno != errno.EADDRINUSE or time.monotonic() > end:
                    raise UserError(
                        f"The processes of the run cannot meet at {self.host}:{self.port} ({error.strerror or error}): "
                        "set MASTER_ADDR and MASTER_PORT to this machine and a free port."
                    ) from None
            time.sleep(_POLL)
        if store:
            store.set(_key(), str(listener.getsockname()[1]))
        return listener

    def _connect(self) -> socket.socket:
        store = _store_of_torchrun()
        begun, is_told = time.monotonic(), False
        while True:
            if time.monotonic() - begun > 2 * GRACE and not is_told:
                is_told = True
                self.tell(f"Waiting for process 0 of {self.size} at {self.host}:{self.port}.")
            if store is None or store.check([_key()]):
                port = int(store.get(_key())) if store else self.port
                with contextlib.suppress(OSError):
                    return socket.create_connection((self.host, port), timeout=2.0)
            time.sleep(_POLL)

    def _wait_for(self, ranks: Collection[int], patience: float) -> None:
        """Have process 0 wait for these, and say so after some seconds."""
        begun, is_told = time.monotonic(), self.rank != 0
        while self.rank == 0 and (missing := set(ranks) - self._here()):
            if not is_told and time.monotonic() - begun > patience:
                is_told = True
                self.tell(self._waiting(missing))
            if gone := [process for process in self.started if process.poll() is not None]:
                self._lose(f"A process that this one started has ended with exit code {gone[0].returncode}.")
            self._pause()
        if self._difference:
            raise UserError(self._difference)

    def _waiting(self, missing: set[int]) -> str:
        if self._is_alone_on_node and self.nodes > 1:
            nodes = sorted({rank // self._each for rank in missing})
            host = socket.gethostname() if self.host in ("127.0.0.1", "localhost") else self.host
            return (
                f"Waiting for {len(nodes)} of {self.nodes} nodes: start the same command on each, with "
                f"MASTER_ADDR={host} MASTER_PORT={self.port} and NODE_RANK={' or '.join(map(str, nodes))} set."
            )
        return f"Waiting for {len(missing)} of {self.size} processes, which meet at {self.host}:{self.port}."

    def tell(self, text: str) -> None:
        """A line for the person, from any process."""
        # Not on standard output: what goes into a file there is seen when the run ends.
        print(f"{f'process {self.rank}: ' if self.rank else ''}{text}", file=sys.stderr, flush=True)

    def _here(self) -> set[int]:
        with self._lock:
            return {other.rank for other in self._others.values() if other.rank is not None}

    def _pause(self) -> None:
        if self.loss:
            raise WorkerDiedError(self.loss)
        time.sleep(_POLL)

    @staticmethod
    def _until(holds: Callable[[], bool], seconds: float) -> bool:
        end = time.monotonic() + seconds
        while not holds() and time.monotonic() < end:
            time.sleep(_POLL)
        return holds()

    # The thread.

    def _watch(self) -> None:
        while not self._is_closed:
            try:
                ready = [key.fileobj for key, _ in self._selector.select(0.1)]
            except (OSError, ValueError):
                return
            with self._lock:
                if self._is_closed:
                    return
                for source in ready:
                    self._read(source)
                if self._deadline is not None and time.monotonic() > self._deadline:
                    self._end()

    def _read(self, source: Any) -> None:
        if source is self._listener:
            with contextlib.suppress(OSError):
                self._add(self._listener.accept()[0], None)
        elif self._wakeup and source is self._wakeup[0]:
            for number in source.recv(64):
                self._signalled(number)
        elif source in self._others:
            self._receive(source)

    def _add(self, connection: socket.socket, rank: int | None) -> None:
        connection.settimeout(GRACE)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        with self._lock:
            self._others[connection] = _Other(rank)
            self._selector.register(connection, selectors.EVENT_READ)

    def _receive(self, connection: socket.socket) -> None:
        other = self._others[connection]
        try:
            part = connection.recv(65536)
        except OSError:
            part = b""
        if not part:
            del self._others[connection]
            self._selector.unregister(connection)
            connection.close()
            if other.rank is not None and not other.is_done:
                self._lose(f"Process {other.rank} of {self.size} has ended{f': {other.error}' if other.error else '.'}")
            return
        *lines, other.rest = (other.rest + part).split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError):  # a stranger
                self._understand(connection, other, json.loads(line))

    def _understand(self, connection: socket.socket, other: "_Other", message: dict[str, Any]) -> None:
        if self.rank == 0 and isinstance(message.get("rank"), int):
            other.rank = message["rank"]
            self._difference = self._difference or difference(self._settings, message.get("settings"), other.rank)
            if self._folder:
                self._send(connection, {"folder": str(self._folder)})
            if self._here() >= set(range(1, self.size)):
                # Torch's own server follows at this port.
                assert self._listener is not None
                self._selector.unregister(self._listener)
                self._listener.close()
                self._listener, self._is_complete = None, True
                self.send({"complete": True})
        elif "folder" in message:
            self._folder = Path(message["folder"])
        elif "complete" in message:
            self._is_complete = True
        elif "error" in message:
            other.error = str(message["error"])
            self._errors.append(other.error)
        elif "lost" in message:
            self._lose(str(message["lost"]))
        elif "done" in message:
            other.is_done = True

    @staticmethod
    def _send(connection: socket.socket, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # its end is noticed where it is read
            connection.sendall(json.dumps(message).encode() + b"\n")

    def _lose(self, loss: str) -> None:
        with self._lock:
            if not self.loss:
                self.loss = loss
                self._deadline = self._deadline or time.monotonic() + GRACE
                if self.rank == 0:
                    self.send({"lost": loss})

    def _signalled(self, number: int) -> None:
        handler = signal.getsignal(number)
        ours = handler is signal.default_int_handler or getattr(handler, "__module__", "").startswith("lth_lightning")
        if number in _STOPPED and ours and self._stopped_by is None:
            self._stopped_by = number
            self._deadline = time.monotonic() + GRACE

    def _end(self) -> None:
        """End this process: it waits for another in a way that nothing else ends. Files are whole at any moment."""
        with contextlib.suppress(Exception):
            self._display.stop()
        for process in self.started:
            process.kill()
        if self._stopped_by is None:
            code, text = 2, f"lth: {f'process {self.rank}: ' if self.rank else ''}{self.loss}"
        else:
            code, text = _STOPPED[signal.Signals(self._stopped_by)]
            text = "" if self.rank else f"\n{text}"
        if text:
            os.write(2, f"{text} {resume.advice(self._folder)}\n".encode())
        os._exit(code)


class _Other:
    """What is known of another process."""

    def __init__(self, rank: int | None) -> None:
        self.rank = rank
        self.is_done = False
        self.error = ""
        self.rest = b""


def _store_of_torchrun() -> Any:
    """What all processes under torchrun can read and write, where it is torchrun's own; None elsewhere."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    from torch.distributed.rendezvous import rendezvous

    return next(iter(rendezvous("env://")))[0]


def _key() -> str:
    return f"lth_port_{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"


def _is_of_a_collective(error: Exception) -> bool:
    """Whether it can be what PyTorch raises where another process is gone."""
    if isinstance(error, torch.distributed.DistError):
        return True
    signs = ("gloo", "NCCL", "onnection closed by peer")
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)
