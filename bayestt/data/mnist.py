"""MNIST: 60,000 training and 10,000 test images of handwritten digits, 28 x 28 grey (Y. LeCun, C. Cortes, C. Burges)."""

from bayestt.data.dataset import HELD_OUT, Dataset, split
from bayestt.data.idx import decode
from bayestt.data.source import Source, read

CLASSES = tuple("0123456789")
FILES = tuple(
    Source("MNIST/raw", name, md5, f"https://ossci-datasets.s3.amazonaws.com/mnist/{name}.gz", archive_md5)
    for name, md5, archive_md5 in (
        ("train-images-idx3-ubyte", "6bbc9ace898e44ae57da46a324031adb", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
        ("train-labels-idx1-ubyte", "a25bea736e30d166cdddb491f175f624", "d53e105ee54ea40749a09fcbcd1e9432"),
        ("t10k-images-idx3-ubyte", "2646ac647ad5339dbf082846283269ea", "9fb629c4189551a2d022fa330f9573f3"),
        ("t10k-labels-idx1-ubyte", "27ae3e4e09519cfbb04c329615203637", "ec29112dd5afa0611ce80d1b7f02629c"),
    )
)


def load(root: str | None = None) -> Dataset:
    """MNIST from `root` (torchvision's layout), else from the cache, else downloaded.

    The last 5,000 training images are for validation.
    """
    return split(*(decode(read(file, root), file.name) for file in FILES), HELD_OUT, CLASSES)
