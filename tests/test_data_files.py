"""Original files, tiny here: every layout in which they come, and every way in which they are wrong."""

import gzip
import io
import pickle
import struct
import tarfile
import urllib.error
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lth_lightning.data import CIFAR10, MNIST, FashionMNIST
from lth_lightning.errors import UserError

IDX = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


class SmallMNIST(MNIST):
    pool_size, test_size, first_class = 20, 10, None


class SmallFashion(FashionMNIST):
    pool_size, test_size, first_class = 20, 10, None


class SmallCIFAR10(CIFAR10):
    pool_size, test_size = 20, 6


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def mnist_arrays() -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    return [
        draw.integers(0, 256, (20, 28, 28)),
        np.arange(20) % 10,
        draw.integers(0, 256, (10, 28, 28)),
        np.arange(10)[::-1],
    ]


def write_mnist(
    folder: Path, name: Callable[[str], str] = str, pack: Callable[[bytes], bytes] = bytes
) -> dict[str, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for original, array in zip(IDX, mnist_arrays(), strict=True):
        paths[original] = folder / name(original)
        paths[original].write_bytes(pack(idx(array)))
    return paths


def mnist(root: Path, cls: type[MNIST] = SmallMNIST) -> MNIST:
    data = cls(str(root), batch_size=4, validation_size=5, download=False)
    data.prepare_data()
    data.setup("fit")
    return data


def assert_mnist(data: MNIST) -> None:
    pool_images, pool_labels, test_images, test_labels = mnist_arrays()
    assert np.array_equal(data.test.images.squeeze(1).numpy(), test_images)
    assert np.array_equal(data.test.labels.numpy(), test_labels)
    found = torch.cat([data.train.images, data.val.images]).squeeze(1).numpy()
    labels = torch.cat([data.train.labels, data.val.labels]).numpy()
    assert sorted(map(bytes, found)) == sorted(map(bytes, pool_images.astype(np.uint8)))
    known = {bytes(image): label for image, label in zip(pool_images.astype(np.uint8), pool_labels, strict=True)}
    assert [known[bytes(image)] for image in found] == labels.tolist()


@pytest.mark.parametrize("folder", ["MNIST/raw", "MNIST", "."])
@pytest.mark.parametrize(
    ("name", "pack"),
    [
        (str, bytes),
        (lambda name: f"{name}.gz", gzip.compress),
        (lambda name: name.replace("-idx", ".idx"), bytes),
        (lambda name: name.replace("-idx", ".idx") + ".gz", gzip.compress),
        (lambda name: f"{name}.gz", bytes),  # a browser unpacked it on the way
    ],
    ids=["plain", "gz", "dotted", "dotted-gz", "gz-in-name-only"],
)
def test_mnist_is_read_from_every_layout(folder: str, name: Callable, pack: Callable, tmp_path: Path) -> None:
    write_mnist(tmp_path / folder, name, pack)
    assert_mnist(mnist(tmp_path))


def test_debians_fashion_mnist_is_read_from_its_own_folder(tmp_path: Path) -> None:
    write_mnist(tmp_path / "fashion-mnist", lambda name: f"{name}.gz", gzip.compress)
    assert_mnist(mnist(tmp_path / "fashion-mnist", SmallFashion))


def test_torchvisions_layout_goes_before_files_in_the_root(tmp_path: Path) -> None:
    write_mnist(tmp_path / "MNIST" / "raw")
    for path in write_mnist(tmp_path).values():
        path.write_bytes(b"not this one")
    assert_mnist(mnist(tmp_path))


def test_files_are_read_without_prepare_data(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    data = SmallMNIST(str(tmp_path), batch_size=4, validation_size=5)
    data.setup("fit")
    assert_mnist(data)


def test_the_other_mnists_files_are_noticed(tmp_path: Path) -> None:
    class Strict(SmallMNIST):
        first_class = 3  # the files have two zeros

    write_mnist(tmp_path)
    with pytest.raises(UserError, match="train-labels-idx1-ubyte"):
        mnist(tmp_path, Strict)


def spoil_magic(content: bytes) -> bytes:
    return b"\x01" + content[1:]


def spoil_count(content: bytes) -> bytes:
    return content[:4] + struct.pack(">I", 7) + content[8:]


@pytest.mark.parametrize("victim", IDX)
@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: content[:6],
        lambda content: b"",
        spoil_magic,
        spoil_count,
        lambda content: gzip.compress(content)[:-10],
        lambda content: gzip.compress(content)[:20] + b"rubbish" * 9,
    ],
    ids=["short", "long", "header", "empty", "magic", "count", "gzip-cut", "gzip-rubbish"],
)
def test_a_damaged_idx_file_is_named_in_one_line(victim: str, spoil: Callable, tmp_path: Path) -> None:
    path = write_mnist(tmp_path)[victim]
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(UserError) as error:
        mnist(tmp_path)
    assert str(path) in str(error.value)
    assert "delete it" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_label_above_nine_is_refused(tmp_path: Path) -> None:
    path = write_mnist(tmp_path)["t10k-labels-idx1-ubyte"]
    path.write_bytes(idx(np.full(10, 10)))
    with pytest.raises(UserError, match="labels outside 0 to 9"):
        mnist(tmp_path)


@pytest.mark.parametrize("cls", [MNIST, FashionMNIST, CIFAR10])
def test_missing_files_name_the_root_and_the_three_ways(cls: type, tmp_path: Path) -> None:
    data = cls(str(tmp_path), download=False)
    for ask in (data.prepare_data, lambda: data.setup("fit")):
        with pytest.raises(UserError) as error:
            ask()
        message = str(error.value)
        assert str(tmp_path) in message
        assert "\n" not in message
        assert all(way in message for way in ("download", "copy", "--data.root"))


@pytest.mark.parametrize("cls", [MNIST, FashionMNIST, CIFAR10])
@pytest.mark.parametrize(
    "raised",
    [
        urllib.error.URLError("no route"),
        RuntimeError("Error downloading\nfrom every mirror"),
        PermissionError("read-only"),
    ],
    ids=["url", "runtime", "os"],
)
def test_a_failed_download_is_the_same_error(
    cls: type, raised: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision import datasets

    def fail(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(datasets, cls.__name__, fail)
    with pytest.raises(UserError) as error:
        cls(str(tmp_path)).prepare_data()
    assert str(tmp_path) in str(error.value)
    assert "--data.root" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("cls", "name"), [(SmallMNIST, "MNIST"), (SmallFashion, "FashionMNIST")])
def test_files_are_downloaded_into_the_root_once(
    cls: type, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision import datasets

    calls = []

    def fetch(root: str, download: bool) -> None:
        assert download
        calls.append(root)
        write_mnist(Path(root) / name / "raw")

    monkeypatch.setattr(datasets, name, fetch)
    for _ in range(2):
        data = cls(str(tmp_path), batch_size=4, validation_size=5)
        data.prepare_data()
        data.setup("fit")
    assert calls == [str(tmp_path)]
    assert_mnist(data)


def cifar_arrays() -> dict[str, tuple[np.ndarray, list[int]]]:
    draw = np.random.default_rng(1)
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    sizes = [4] * 5 + [6]
    return {
        name: (draw.integers(0, 256, (size, 3072)).astype(np.uint8), draw.integers(0, 10, size).tolist())
        for name, size in zip(names, sizes, strict=True)
    }


def python2_pickle(data: np.ndarray, labels: list[int]) -> bytes:
    """The official files' opcodes: protocol 2 as Python 2 wrote it, with byte strings and old NumPy names."""

    def string(content: bytes) -> bytes:
        return b"T" + struct.pack("<i", len(content)) + content

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    dtype = b"cnumpy\ndtype\n(" + string(b"u1") + number(0) + number(1) + b"tR("
    dtype += number(3) + string(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(" + number(0) + b"t" + string(b"b") + b"tR("
    shape = b"(" + b"".join(map(number, data.shape)) + b"t"
    array += number(1) + shape + dtype + b"I00\n" + string(data.tobytes()) + b"tb"
    items = string(b"data") + array + string(b"labels") + b"(" + b"".join(map(number, labels)) + b"l"
    return b"\x80\x02}(" + items + b"u."


def python3_pickle(data: np.ndarray, labels: list[int]) -> bytes:
    return pickle.dumps({b"data": data, b"labels": labels, b"batch_label": b"one"}, protocol=4)


def binary(data: np.ndarray, labels: list[int]) -> bytes:
    return np.concatenate([np.array(labels, np.uint8)[:, None], data], axis=1).tobytes()


def write_cifar(folder: Path, form: Callable, ending: str = "", pack: Callable = bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, arrays in cifar_arrays().items():
        (folder / f"{name}{ending}").write_bytes(pack(form(*arrays)))


def write_archive(path: Path, folder: str, form: Callable, ending: str = "", leave_out: str = "") -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, arrays in reversed(cifar_arrays().items()):
            if name == leave_out:
                continue
            content = form(*arrays)
            member = tarfile.TarInfo(f"{folder}/{name}{ending}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def cifar(root: Path) -> CIFAR10:
    data = SmallCIFAR10(str(root), batch_size=4, validation_size=5, download=False)
    data.prepare_data()
    data.setup("fit")
    return data


def assert_cifar(data: CIFAR10) -> None:
    arrays = cifar_arrays()
    test_images, test_labels = arrays.pop("test_batch")
    assert np.array_equal(data.test.images.numpy(), test_images.reshape(-1, 3, 32, 32))
    assert data.test.labels.tolist() == test_labels
    known = {
        bytes(image): label for images, labels in arrays.values() for image, label in zip(images, labels, strict=True)
    }
    found = {
        bytes(image.numpy()): int(label)
        for part in (data.train, data.val)
        for image, label in zip(part.images, part.labels, strict=True)
    }
    assert found == known


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("folder", "form", "ending", "pack"),
    [
        ("cifar-10-batches-py", python2_pickle, "", bytes),
        ("cifar-10-batches-py", python3_pickle, "", bytes),
        (".", python2_pickle, "", bytes),
        (".", python2_pickle, ".gz", gzip.compress),
        ("cifar-10-batches-bin", binary, ".bin", bytes),
        ("cifar-10-batches-bin", binary, ".bin.gz", gzip.compress),
        (".", binary, ".bin", bytes),
    ],
)
def test_cifar10_is_read_from_every_layout(
    folder: str, form: Callable, ending: str, pack: Callable, tmp_path: Path
) -> None:
    write_cifar(tmp_path / folder, form, ending, pack)
    assert_cifar(cifar(tmp_path))


@pytest.mark.parametrize(
    ("version", "folder", "form", "ending"),
    [
        ("python", "cifar-10-batches-py", python2_pickle, ""),
        ("binary", "cifar-10-batches-bin", binary, ".bin"),
    ],
)
def test_cifar10_is_read_from_its_archives(
    version: str, folder: str, form: Callable, ending: str, tmp_path: Path
) -> None:
    write_archive(tmp_path / f"cifar-10-{version}.tar.gz", folder, form, ending)
    assert_cifar(cifar(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [f"cifar-10-{version}.tar.gz"]


def test_a_damaged_archive_is_named_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "cifar-10-python.tar.gz"
    write_archive(path, "cifar-10-batches-py", python2_pickle)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"rubbish" * 100, b""):
        path.write_bytes(content)
        with pytest.raises(UserError) as error:
            cifar(tmp_path)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)


def test_an_archive_without_one_batch_is_refused(tmp_path: Path) -> None:
    write_archive(tmp_path / "cifar-10-python.tar.gz", "x", python2_pickle, leave_out="data_batch_3")
    with pytest.raises(UserError, match="no data_batch_3"):
        cifar(tmp_path)


class Harmful:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("harm"),))


DATA, LABELS = np.zeros((4, 3072), np.uint8), [0, 1, 2, 3]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"rubbish",
        python2_pickle(DATA, LABELS)[:-100],
        pickle.dumps([1, 2]),
        pickle.dumps({b"data": DATA}),
        python3_pickle(DATA[:3], LABELS),
        python3_pickle(DATA.astype(np.float32), LABELS),
        python3_pickle(DATA, LABELS[:3]),
        python3_pickle(DATA, [0, 1, 2, 10]),
        python3_pickle(DATA, [0, 1, 2, -1]),
        python3_pickle(DATA, [0, 1, 2, 2**70]),
        python3_pickle(DATA, [0, 1, 2, "cat"]),
    ],
    ids=[
        "empty",
        "rubbish",
        "cut",
        "list",
        "no-labels",
        "rows",
        "type",
        "labels",
        "label-10",
        "negative",
        "huge",
        "text",
    ],
)
def test_a_damaged_pickle_is_named_in_one_line(content: bytes, tmp_path: Path) -> None:
    write_cifar(tmp_path / "cifar-10-batches-py", python2_pickle)
    path = tmp_path / "cifar-10-batches-py" / "data_batch_2"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        cifar(tmp_path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_pickle_cannot_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_cifar(tmp_path, python2_pickle)
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({b"data": Harmful(), b"labels": LABELS}))
    with pytest.raises(UserError, match="data_batch_1"):
        cifar(tmp_path)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("spoil", [lambda content: content[:-1], lambda content: b"\x0a" + content[1:]])
def test_a_damaged_binary_batch_is_named_in_one_line(spoil: Callable, tmp_path: Path) -> None:
    write_cifar(tmp_path, binary, ".bin")
    path = tmp_path / "test_batch.bin"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(UserError, match=r"test_batch\.bin"):
        cifar(tmp_path)
