"""CIFAR-10's batches, on files that the tests make; a batch that would execute something is refused before it can."""

import io
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from published import publish

from bayestt.data import cifar10
from bayestt.data.dataset import scale


class Intruder:
    """Unpickled in good faith, this creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


class Python2Pickler(pickle._Pickler):
    """Writes bytes as the strings that Python 2 had."""

    def save_string(self, content: bytes) -> None:
        self.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)

    dispatch = {**pickle._Pickler.dispatch, bytes: save_string}


def batch(images: np.ndarray, labels: list[int]) -> bytes:
    """A batch as it was published: by Python 2, numpy's function under its old name."""
    content = io.BytesIO()
    Python2Pickler(content, protocol=2).dump({b"data": images, b"labels": labels})
    return content.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def test_the_intruder_is_real(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Intruder(tmp_path / "touched"), protocol=2))
    assert (tmp_path / "touched").exists()


def test_the_splits_are_those_of_the_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (6, 1_002, 3_072), np.uint8)
    labels = random.integers(0, 10, (6, 1_002))
    publish(monkeypatch, cifar10, [batch(*pair) for pair in zip(images, labels.tolist(), strict=True)], tmp_path)
    dataset = cifar10.load(str(tmp_path))
    train_images, train_labels = scale(images[:5].reshape(-1, 3, 32, 32)), labels[:5].reshape(-1)
    assert (dataset.train.images == train_images[:10]).all() and (dataset.train.labels == train_labels[:10]).all()
    assert (dataset.validation.images == train_images[10:]).all() and (dataset.validation.labels == train_labels[10:]).all()
    assert (dataset.test.images == scale(images[5].reshape(-1, 3, 32, 32))).all() and (dataset.test.labels == labels[5]).all()
    assert dataset.classes[:2] == ("airplane", "automobile")


def test_a_batch_that_executes_something_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even with a checksum that vouches for it."""
    intruder = pickle.dumps({b"data": Intruder(tmp_path / "touched"), b"labels": []}, protocol=2)
    publish(monkeypatch, cifar10, [intruder] * 6, tmp_path)
    with pytest.raises(ValueError, match=r"data_batch_1 is no CIFAR-10 batch \(it names .*, expected nothing but arrays, .*: put the"):
        cifar10.load(str(tmp_path))
    assert not (tmp_path / "touched").exists()


def test_a_batch_with_another_checksum_is_not_even_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = publish(monkeypatch, cifar10, [batch(np.zeros((1, 3_072), np.uint8), [0])] * 6, tmp_path)
    paths[3].write_bytes(pickle.dumps(Intruder(tmp_path / "touched")))
    with pytest.raises(ValueError, match=f"{paths[3]} is truncated or altered: its md5 is .*, expected "):
        cifar10.load(str(tmp_path))
    assert not (tmp_path / "touched").exists()
