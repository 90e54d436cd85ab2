"""A process that has imported everything once and forks for each run, so that a run costs no start.

Reads a JSON line a run, {"words": [...], "kill": [n, when] or null}, and answers with {"status": ..., "writes": [...]}:
the exit status, negative for a signal, and the names of the files that were written. `kill` sends SIGKILL to the run in
its n-th write, counted from 0: "half" way through the file, or "after" it is in its place.
"""

import json
import os
import signal
import sys
import traceback
from pathlib import Path

from lth_lightning import cli, files
from lth_lightning.results.curve import MetricsFile


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def child(words: list[str], kill: tuple[int, str] | None, log: int) -> int:
    whole_file, row = files.write_bytes, MetricsFile.append
    count = 0

    def begins(name: str, half: bytes, path: Path, mode: str) -> bool:
        """Count a write; at the fatal one leave half of it and die, or say that the end is to be after it."""
        nonlocal count
        os.write(log, f"{name}\n".encode())
        count += 1
        if kill is None or count - 1 != kill[0]:
            return False
        if kill[1] == "half":
            with path.open(mode) as file:
                file.write(half)
            die()
        return True

    def write_bytes(path: Path, content: bytes, make_folder: bool = True) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        fatal = begins(path.name, bytes(content)[: len(content) // 2], beside, "wb")
        whole_file(path, content, make_folder)
        if fatal:
            die()

    def append(self: MetricsFile, values: dict) -> None:
        fatal = begins("row", b"100,0.", self.path, "ab")
        row(self, values)
        if fatal:
            die()

    files.write_bytes, MetricsFile.append = write_bytes, append
    return cli.main(words)


def run(words: list[str], kill: tuple[int, str] | None) -> dict[str, object]:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(reading)
            os.dup2(2, 1)  # the answers' stream is not the run's
            status = child(words, kill, writing)
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as log:
        writes = log.read().split("\n")[:-1]
    return {"status": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), "writes": writes}


if __name__ == "__main__":
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(run(asked["words"], asked["kill"])), flush=True)
