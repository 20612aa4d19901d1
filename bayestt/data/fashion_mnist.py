"""Fashion-MNIST: 60,000 training and 10,000 test images of clothes, 28 x 28 grey (H. Xiao, K. Rasul, R. Vollgraf), and a small part.

The small part is a file of this package (MIT, its licence lies beside it), so that the main job runs with nothing to find or to download.
"""

import hashlib
import lzma
from importlib import resources
from pathlib import Path

import numpy as np

from bayestt.data.dataset import HELD_OUT, Dataset, split
from bayestt.data.idx import decode, encode
from bayestt.data.source import Source, read, verified

CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
FILES = tuple(
    Source(
        folder="FashionMNIST/raw",
        name=name,
        md5=md5,
        url=f"http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/{name}.gz",
        archive_md5=archive_md5,
        installed="/usr/share/datasets/fashion-mnist",  # Debian's dataset-fashion-mnist
    )
    for name, md5, archive_md5 in (
        ("train-images-idx3-ubyte", "f4a8712d7a061bf5bd6d2ca38dc4d50a", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        ("train-labels-idx1-ubyte", "9018921c3c673c538a1fc5bad174d6f9", "25c81989df183df01b3e8a0aad5dffbe"),
        ("t10k-images-idx3-ubyte", "8181f5470baa50b63fa0f6fddb340f0a", "bef4ecab320f06d8554ea6380940ec79"),
        ("t10k-labels-idx1-ubyte", "15d484375f8d13e6eb1aabb0c3f46965", "bb300cfdad3c16e7a12a480ee83cd310"),
    )
)
EMBEDDED = resources.files("bayestt.data") / "fashion_mnist_small.xz"
EMBEDDED_SHA256 = "749d280f130d44851195bb627cd5b4a60e825a30931f68327679922e141b99a0"
EMBEDDED_TRAIN, EMBEDDED_TEST, EMBEDDED_HELD_OUT = 10_000, 2_000, 1_000


def load(root: str | None = None) -> Dataset:
    """Fashion-MNIST from `root` (torchvision's layout), else Debian's package, else the cache, else downloaded.

    The last 5,000 training images are for validation.
    """
    return split(*(decode(read(file, root), file.name) for file in FILES), HELD_OUT, CLASSES)


def small() -> Dataset:
    """The embedded part: the first 10,000 training images, the last 1,000 of them for validation, and the first 2,000 test images."""
    try:
        content = lzma.decompress(EMBEDDED.read_bytes())
    except lzma.LZMAError as fault:
        raise ValueError(f"{EMBEDDED} is truncated or altered: found {fault}, expected a whole xz file: install bayestt again") from fault
    rows = decode(verified(content, f"sha256:{EMBEDDED_SHA256}", str(EMBEDDED)), str(EMBEDDED))
    labels, images = rows[:, 0], rows[:, 1:].reshape(-1, 28, 28).transpose(0, 2, 1)
    first = slice(EMBEDDED_TRAIN)
    last = slice(EMBEDDED_TRAIN, None)
    return split(images[first], labels[first], images[last], labels[last], EMBEDDED_HELD_OUT, CLASSES)


def embed(root: str | None, path: Path) -> str:
    """Write the embedded part of the full set at `root`, as `small` reads it; returns its SHA-256, taken before compression.

    The file is an xz of one IDX matrix, a row an image: label, then pixels column by column (4 % smaller than row by row).
    """
    train_images, train_labels, test_images, test_labels = (decode(read(file, root), file.name) for file in FILES)
    images = np.concatenate([train_images[:EMBEDDED_TRAIN], test_images[:EMBEDDED_TEST]])
    labels = np.concatenate([train_labels[:EMBEDDED_TRAIN], test_labels[:EMBEDDED_TEST]])
    content = encode(np.column_stack([labels, images.transpose(0, 2, 1).reshape(len(images), -1)]))
    path.write_bytes(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME))
    return hashlib.sha256(content).hexdigest()
