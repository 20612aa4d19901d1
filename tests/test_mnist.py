"""MNIST and Fashion-MNIST in torchvision's layout, on files that the tests publish."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from published import digits, idx_files, publish

from bayestt.data import fashion_mnist, mnist
from bayestt.data.dataset import scale


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("module", [mnist, fashion_mnist])
def test_the_splits_are_those_of_the_files(module: ModuleType, zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels, test_images, test_labels = arrays = digits(5_020, 30)
    publish(monkeypatch, module, idx_files(arrays), tmp_path, zipped)
    dataset = module.load(str(tmp_path))
    assert (dataset.train.images == scale(images[:20])).all() and (dataset.train.labels == labels[:20]).all()
    assert (dataset.validation.images == scale(images[20:])).all() and (dataset.validation.labels == labels[20:]).all()
    assert (dataset.test.images == scale(test_images)).all() and (dataset.test.labels == test_labels).all()
    assert dataset.classes == module.CLASSES and len(set(module.CLASSES)) == 10


@pytest.mark.parametrize("module", [mnist, fashion_mnist])
def test_a_missing_file_is_named(module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = publish(monkeypatch, module, idx_files(digits(5_002, 1)), tmp_path)
    paths[2].unlink()
    with pytest.raises(FileNotFoundError, match=rf"t10k-images-idx3-ubyte \(or its .gz\) is in none of {paths[2].parent}, "):
        module.load(str(tmp_path))


def test_a_label_that_names_no_class_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    *arrays, test_labels = digits(5_002, 3)
    publish(monkeypatch, mnist, idx_files([*arrays, np.full_like(test_labels, 10)]), tmp_path)
    with pytest.raises(ValueError, match="the test split's image 0 has label 10, expected 0 to 9"):
        mnist.load(str(tmp_path))
