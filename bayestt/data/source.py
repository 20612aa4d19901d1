"""Published files: found in a folder, an installed package or the cache, else downloaded once; read only when their bytes are right."""

import gzip
import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path

import pooch


@dataclass(frozen=True)
class Source:
    """One published file: its place in torchvision's layout, the MD5 of its unzipped bytes, and the archive that brings it.

    The archive at `url` is the file's .gz, or a .tar.gz with `folder`/`name` in it; its own MD5 is `archive_md5`.
    `installed` is the folder where a Debian package puts the file or its .gz.
    """

    folder: str
    name: str
    md5: str
    url: str
    archive_md5: str
    installed: str | None = None


def read(source: Source, root: str | None = None) -> bytes:
    """The verified bytes of a file, unzipped: from `root` (torchvision's layout, gz or not), else installed, else cached or downloaded.

    FileNotFoundError: it is nowhere and cannot be downloaded. ValueError: the file that was found is truncated or altered.
    """
    cache = Path(pooch.os_cache("bayestt"))
    roots = [Path(root).expanduser() / source.folder] if root else []
    installed = [Path(source.installed)] if source.installed else []
    folders = [*roots, *installed, cache / source.folder]
    path = _find(source, folders) or _download(source, folders)
    return verified(_unzipped(path), f"md5:{source.md5}", str(path))


def verified(content: bytes, checksum: str, name: str) -> bytes:
    """The same bytes, if their checksum (algorithm:hexadecimal) is the expected one; `name` is what the ValueError calls their file."""
    algorithm, _, expected = checksum.partition(":")
    found = hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()
    if found != expected:
        raise ValueError(
            f"{name} is truncated or altered: its {algorithm} is {found} for {len(content)} bytes, expected {expected}: "
            "delete it and get it again"
        )
    return content


def _find(source: Source, folders: list[Path]) -> Path | None:
    """The first of the places that has the file or its .gz."""
    places = (folder / name for folder in folders for name in (source.name, f"{source.name}.gz"))
    return next((place for place in places if place.is_file()), None)


def _download(source: Source, folders: list[Path]) -> Path | None:
    """Bring the archive into the last folder, the cache; a tar is unpacked beside itself."""
    archive = source.url.rpartition("/")[2]
    unpack = pooch.Untar([f"{source.folder}/{source.name}"], extract_dir="..") if archive.endswith(".tar.gz") else None
    try:
        pooch.retrieve(source.url, f"md5:{source.archive_md5}", archive, folders[-1], processor=unpack, progressbar=True)
    except OSError as fault:  # those of the network included
        raise FileNotFoundError(
            f"{source.name} (or its .gz) is in none of {', '.join(map(str, folders))}, and {source.url} could not be downloaded "
            f"({type(fault).__name__}): go online, or set root (data_root=... in a run) to a folder with {source.folder}/{source.name}"
        ) from fault
    except ValueError as fault:
        expected_and_found = str(fault).partition(". ")[0]
        raise ValueError(
            f"{source.url} sent an altered file ({expected_and_found}): "
            f"try again, or set root to a folder with the published {source.folder}/{source.name}"
        ) from fault
    return _find(source, folders)


def _unzipped(path: Path) -> bytes:
    """A file's content, out of its .gz where it is one."""
    if path.suffix != ".gz":
        return path.read_bytes()
    try:
        return gzip.decompress(path.read_bytes())
    except (EOFError, gzip.BadGzipFile, zlib.error) as fault:
        raise ValueError(
            f"{path} is truncated or altered: found {fault}, expected a whole gzip file: delete it and get it again"
        ) from fault
