"""Published files are found where they should be, downloaded once from a real server, and refused when a byte is wrong."""

import gzip
import re
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from published import md5, served

from bayestt.data.source import Source, read

CONTENT = b"what the authors published" * 100
NOWHERE = "http://127.0.0.1:1/file.gz"  # nobody listens on port 1
SOURCE = Source("Name/raw", "file", md5(CONTENT), NOWHERE, md5(gzip.compress(CONTENT)))
on_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "home" / "bayestt"


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("place", ["root", "installed", "cache"])
def test_a_file_is_found_gz_or_not(tmp_path: Path, cache: Path, place: str, zipped: bool) -> None:
    folder = {"root": tmp_path / "root" / "Name/raw", "installed": tmp_path / "debian", "cache": cache / "Name/raw"}[place]
    put(folder / ("file.gz" if zipped else "file"), gzip.compress(CONTENT) if zipped else CONTENT)
    source = replace(SOURCE, installed=str(tmp_path / "debian"))
    assert read(source, str(tmp_path / "root")) == CONTENT
    if place != "root":
        assert read(source) == CONTENT


def test_the_root_goes_before_the_cache(tmp_path: Path, cache: Path) -> None:
    put(cache / "Name/raw/file", b"altered")
    put(tmp_path / "Name/raw/file", CONTENT)
    assert read(SOURCE, str(tmp_path)) == CONTENT


def test_a_file_that_is_nowhere_says_where_it_was_looked_for(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        read(replace(SOURCE, installed="/debian"), str(tmp_path / "root"))
    for told in (tmp_path / "root/Name/raw", "/debian", cache / "Name/raw", NOWHERE, "ConnectionError", "go online, or set root"):
        assert str(told) in str(caught.value)


@pytest.mark.parametrize("change", [lambda whole: whole[:-1], lambda whole: b"X" + whole[1:], lambda whole: whole + b"X"])
def test_an_altered_file_is_refused(tmp_path: Path, change) -> None:
    altered = change(CONTENT)
    path = put(tmp_path / "Name/raw/file", altered)
    told = f"{path} is truncated or altered: its md5 is {md5(altered)} for {len(altered)} bytes, expected {SOURCE.md5}: delete it"
    with pytest.raises(ValueError, match=re.escape(told)):
        read(SOURCE, str(tmp_path))


@on_one_folder
@given(st.data())
def test_an_altered_gz_is_refused_or_holds_the_right_bytes(tmp_path: Path, data: st.DataObject) -> None:
    """A byte of gzip's header (a time, say) may differ: Debian's do."""
    whole = bytearray(gzip.compress(CONTENT))
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    path = put(tmp_path / "Name/raw/file.gz", bytes(whole))
    try:
        assert read(SOURCE, str(tmp_path)) == CONTENT
    except ValueError as fault:
        assert str(fault).startswith(f"{path} is truncated or altered: ")


@on_one_folder
@given(st.integers(0, len(gzip.compress(CONTENT)) - 1))
def test_a_truncated_gz_is_refused(tmp_path: Path, length: int) -> None:
    path = put(tmp_path / "Name/raw/file.gz", gzip.compress(CONTENT)[:length])
    with pytest.raises(ValueError, match=re.escape(f"{path} is truncated or altered: ")):
        read(SOURCE, str(tmp_path))


def test_a_gz_is_downloaded_once(tmp_path: Path, cache: Path) -> None:
    archive = put(tmp_path / "published/file.gz", gzip.compress(CONTENT))
    with served(tmp_path / "published") as address:
        source = replace(SOURCE, url=f"{address}/file.gz", archive_md5=md5(archive.read_bytes()))
        assert read(source) == CONTENT
    assert (cache / "Name/raw/file.gz").is_file()
    assert read(source) == CONTENT  # the server is gone


def test_a_tar_is_downloaded_once_for_all_its_files(tmp_path: Path) -> None:
    names = ("first", "second")
    with tarfile.open(tmp_path / "all.tar.gz", "w:gz") as tar:
        for name in names:
            tar.add(put(tmp_path / name, name.encode()), f"Name/{name}")
    archive_md5 = md5((tmp_path / "all.tar.gz").read_bytes())
    with served(tmp_path) as address:
        first, second = (Source("Name", name, md5(name.encode()), f"{address}/all.tar.gz", archive_md5) for name in names)
        assert read(first) == b"first"
    assert read(second) == b"second"  # the server is gone


def test_an_altered_download_is_refused_and_not_kept(tmp_path: Path, cache: Path) -> None:
    sent = put(tmp_path / "file.gz", gzip.compress(CONTENT)[:-1])
    told = f"/file.gz sent an altered file .*{SOURCE.archive_md5} but got {md5(sent.read_bytes())}.: try again, or set root"
    with served(tmp_path) as address, pytest.raises(ValueError, match=told):
        read(replace(SOURCE, url=f"{address}/file.gz"))
    assert not list((cache / "Name/raw").iterdir())


def test_a_missing_download_is_told(tmp_path: Path) -> None:
    with served(tmp_path) as address, pytest.raises(FileNotFoundError, match=r"could not be downloaded \(HTTPError\): go online"):
        read(replace(SOURCE, url=f"{address}/absent.gz"))
