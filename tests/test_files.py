"""A file is its old or its new content, never half of it, whatever happens while it is written."""

import contextlib
import errno
import io
import os
import pickle
import random
import threading
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch

from lth_lightning import files
from lth_lightning.errors import UserError
from lth_lightning.files import NotPlainError, read_pt, write_bytes, write_pt, write_text


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_missing_folders_are_made(tmp_path):
    write_bytes(tmp_path / "a" / "b" / "file", b"content")
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"content"
    assert names(tmp_path / "a" / "b") == ["file"]


def test_text_is_utf8_and_keeps_its_line_ends(tmp_path):
    write_text(tmp_path / "file", "θ₀\nβ\r\n")
    assert (tmp_path / "file").read_bytes() == "θ₀\nβ\r\n".encode()


def full_disk(path: Path, content: bytes) -> int:
    """Half of the content arrives."""
    with path.open("wb") as file:
        file.write(content[: len(content) // 2])
    raise OSError(errno.ENOSPC, "No space left on device")


def refused(self: Path, target: Path) -> Path:
    raise OSError(errno.EACCES, "Permission denied")


def killed(self: Path, target: Path) -> Path:
    raise KeyboardInterrupt


FAILURES: list[tuple[str, Callable[..., object], type[BaseException]]] = [
    ("write_bytes", full_disk, OSError),
    ("replace", refused, OSError),
    ("replace", killed, KeyboardInterrupt),
]
WRITERS: list[Callable[[Path], None]] = [
    lambda path: write_bytes(path, b"new content"),
    lambda path: write_text(path, "new content"),
    lambda path: write_pt(path, {"weights": torch.ones(3)}),
]


@pytest.mark.parametrize(("method", "fails", "error"), FAILURES)
@pytest.mark.parametrize("write", WRITERS, ids=["bytes", "text", "pt"])
def test_a_write_that_fails_half_way_leaves_the_old_content_and_no_temporary_file(
    tmp_path, monkeypatch, write, method, fails, error
):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with monkeypatch.context() as patch:
        patch.setattr(Path, method, fails)
        with pytest.raises(error):
            write(path)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]
    write(path)
    assert path.read_bytes() != b"old"
    assert names(tmp_path) == ["file"]


def test_a_first_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_text(tmp_path / "file", "new content")
    assert names(tmp_path) == []


def test_content_that_cannot_be_saved_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.pt"
    write_pt(path, [1])
    with pytest.raises((pickle.PicklingError, AttributeError)):
        write_pt(path, lambda: None)
    for content in (path, [1, Foreign()], {"a": {"b": numpy.float64(1)}}, Foreign):
        with pytest.raises(NotPlainError, match=r"file\.pt would hold"):
            write_pt(path, content)
    assert read_pt(path) == [1]
    assert names(tmp_path) == ["file.pt"]


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    for path in (tmp_path / "file" / "below", tmp_path / "file" / "far" / "below"):
        with pytest.raises(UserError, match=r"(file|far) cannot be a folder"):
            write_bytes(path, b"new")
    assert (tmp_path / "file").read_bytes() == b"old"


def test_a_reader_never_sees_half_a_file(tmp_path):
    path = tmp_path / "file"
    contents = [bytes([65 + n]) * 200_000 for n in range(4)]
    write_bytes(path, contents[0])
    done = threading.Event()
    seen: list[bytes] = []

    def read() -> None:
        while not done.is_set():
            seen.append(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for n in range(100):
            write_bytes(path, contents[n % 4])
    finally:
        done.set()
        reader.join()
    assert seen
    assert all(content in contents for content in seen)


def test_pt_content_comes_back_bit_for_bit_on_the_cpu(tmp_path):
    content = {
        "mask": {"a.weight": torch.tensor([[True, False]])},
        "weights": {"a.weight": torch.tensor([[0.1, -0.0, float("nan")]]), "n": torch.tensor(3)},
        "level": 3,
        "density": 0.512,
        "name": "λ",
        "list": [1, None, True],
    }
    write_pt(tmp_path / "file.pt", content)
    back = read_pt(tmp_path / "file.pt")
    assert torch.equal(back["mask"]["a.weight"], content["mask"]["a.weight"])
    bits = [c["weights"]["a.weight"].view(torch.int32) for c in (back, content)]
    assert torch.equal(*bits)
    assert back["weights"]["n"].dtype == torch.int64
    assert {k: back[k] for k in ("level", "density", "name", "list")} == {
        k: content[k] for k in ("level", "density", "name", "list")
    }
    assert names(tmp_path) == ["file.pt"]


class Foreign:
    """A class that a file of this program never holds."""


def whole() -> bytes:
    buffer = io.BytesIO()
    torch.save({"weights": torch.arange(1_000.0)}, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 64,
        b"not a torch file\n",
        whole()[:1],
        whole()[: len(whole()) // 2],
        whole()[:-1],
        pickle.dumps(Foreign(), protocol=2),
    ],
    ids=["empty", "zeros", "text", "one byte", "half", "all but one byte", "foreign class"],
)
def test_a_damaged_pt_file_is_one_line_that_names_it(tmp_path, content):
    path = tmp_path / "mask.pt"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_pt(path)
    assert str(path) in str(error.value)
    assert "damaged" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_flipped_bit_is_found_wherever_it_lies(tmp_path):
    """Or it lies where nothing reads it, such as a file's time in a zip."""
    path, content = tmp_path / "mask.pt", whole()
    found = 0
    for place in random.Random(0).sample(range(len(content)), 300):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with contextlib.suppress(UserError):
            assert torch.equal(read_pt(path)["weights"], torch.arange(1_000.0)), place
            found -= 1
        found += 1
    assert found > 200


def test_no_message_advises_to_run_what_a_file_says(tmp_path):
    path = tmp_path / "mask.pt"
    torch.save({"weights": Foreign()}, path)
    with pytest.raises(UserError, match="Foreign, which is no tensor") as error:
        read_pt(path)
    assert "weights_only" not in str(error.value)


def test_a_write_waits_for_the_disk_file_first_and_folder_last(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(files, "_put_on_disk", lambda path: seen.append((path, (tmp_path / "file").exists())))
    write_bytes(tmp_path / "file", b"content")
    (beside, before), (folder, after) = seen
    assert (beside.parent, before, folder, after) == (tmp_path, False, tmp_path, True)


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path):
    (tmp_path / "file").mkdir()
    for write in WRITERS:
        with pytest.raises(UserError, match="file is a folder where a file belongs"):
            write(tmp_path / "file")
    assert names(tmp_path) == ["file"]


def test_a_run_that_is_gone_is_not_made_anew(tmp_path):
    for path in ("run/replicate_0/rewind.pt", "run/replicate_0/ticket/level_00/mask.pt"):
        with pytest.raises(FileNotFoundError):
            write_bytes(tmp_path / path, b"content")
    assert names(tmp_path) == []
    (tmp_path / "run").mkdir()
    write_bytes(tmp_path / path, b"content")


def test_a_missing_pt_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"mask\.pt does not exist"):
        read_pt(tmp_path / "mask.pt")


def test_a_folder_is_no_pt_file(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_pt(tmp_path)
