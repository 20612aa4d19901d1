"""Data sets that a test makes and publishes itself, in the place of the real ones."""

import gzip
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType

import numpy as np
import pytest

from bayestt.data.idx import encode


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def publish(monkeypatch: pytest.MonkeyPatch, module: ModuleType, contents: Sequence[bytes], root: Path, zipped: bool = False) -> list[Path]:
    """Put a data set's files under a root, and their checksums into the module that loads them; from nowhere else can it get them."""
    files, paths = [], []
    for file, content in zip(module.FILES, contents, strict=True):
        path = root / file.folder / (f"{file.name}.gz" if zipped else file.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(content) if zipped else content)
        files.append(replace(file, md5=md5(content), url="http://127.0.0.1:1/nothing.gz", installed=None))
        paths.append(path)
    monkeypatch.setattr(module, "FILES", tuple(files))
    monkeypatch.setenv("XDG_CACHE_HOME", str(root / "cache"))
    return paths


def digits(train: int, test: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Images (mostly black) and labels like MNIST's, in the order of its files."""
    random = np.random.default_rng(seed)
    images, labels = np.zeros((train + test, 28, 28), np.uint8), random.integers(0, 10, train + test, np.uint8)
    images[:, 3, 5], images[:, 20, 9] = random.integers(0, 256, (2, train + test))
    return images[:train], labels[:train], images[train:], labels[train:]


def idx_files(arrays: Sequence[np.ndarray]) -> list[bytes]:
    return [encode(array) for array in arrays]


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a server of the folder's files, on this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(folder)))
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
