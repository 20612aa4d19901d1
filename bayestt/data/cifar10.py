"""CIFAR-10: 50,000 training and 10,000 test images of animals and vehicles, 3 x 32 x 32 (A. Krizhevsky, 2009)."""

import io
import pickle

import numpy as np

from bayestt.data.dataset import HELD_OUT, Dataset, split
from bayestt.data.source import Source, read

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FILES = tuple(
    Source(
        folder="cifar-10-batches-py",
        name=name,
        md5=md5,
        url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        archive_md5="c58f30108f718f92721af3b95e74349a",
    )
    for name, md5 in (
        ("data_batch_1", "c99cafc152244af753f735de768cd75f"),
        ("data_batch_2", "d4bba439e000b95fd0a9bffe97cbabec"),
        ("data_batch_3", "54ebc095f3ab1f0389bbae665268c751"),
        ("data_batch_4", "634d18415352ddfa80567beed471001a"),
        ("data_batch_5", "482c414d41f54cd18b22e5b47cb7c3cb"),
        ("test_batch", "40351d587109b95175f43aff81a1287e"),
    )
)
NAMES = {  # all that a batch may name: what it takes to put an array of plain numbers together
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],  # wherever this version of numpy keeps it
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


def load(root: str | None = None) -> Dataset:
    """CIFAR-10 from `root` (torchvision's layout), else from the cache, else downloaded.

    The last 5,000 training images are for validation.
    """
    *train, (test_images, test_labels) = (_decode(read(file, root), file.name) for file in FILES)
    images, labels = zip(*train, strict=True)
    return split(np.concatenate(images), np.concatenate(labels), test_images, test_labels, HELD_OUT, CLASSES)


def _decode(content: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The images, uint8 (n, 3, 32, 32), and labels (n,) in a batch, which is a pickle of Python 2."""
    try:
        batch = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    except pickle.UnpicklingError as fault:
        raise ValueError(f"{name} is no CIFAR-10 batch ({fault}): put the published file in its place") from fault
    return batch[b"data"].reshape(-1, 3, 32, 32), np.array(batch[b"labels"])


class _Unpickler(pickle.Unpickler):
    """Reads a pickle that names nothing but arrays, so that nothing a file says is ever executed."""

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in NAMES:
            raise pickle.UnpicklingError(f"it names {module}.{name}, expected nothing but arrays, lists and strings")
        return NAMES[module, name]
