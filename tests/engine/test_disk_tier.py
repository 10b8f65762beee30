"""The disk tier: what it gives back is what it was given, or nothing, whatever happens to its files."""

import errno
import itertools
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from seamount.engine import page_files
from seamount.engine.disk_tier import DiskTier, child_key, root_key
from seamount.errors import ConfigError
from seamount.kernels.paged import PAGE

PAGE_BYTES = 777
FILE = 56 + 4 * PAGE + 32 + PAGE_BYTES
ROOT = root_key(bytes(32), "toy")


def tokens(number: int) -> list[int]:
    return [number * PAGE + place for place in range(PAGE)]


def key(number: int) -> bytes:
    return child_key(ROOT, tokens(number))


def page(number: int, size: int = PAGE_BYTES) -> Tensor:
    return torch.randint(256, (size,), dtype=torch.uint8, generator=torch.Generator().manual_seed(number))


def save(tier: DiskTier, number: int) -> bool:
    return tier.save(key(number), tokens(number), page(number))


def load(tier: DiskTier, number: int, size: int = PAGE_BYTES) -> bool:
    """Whether the page is there; that it is the right one is checked here, for all tests."""
    found = torch.full((size,), 255, dtype=torch.uint8)
    is_hit = tier.load(key(number), tokens(number), found)
    assert not is_hit or torch.equal(found, page(number, size))
    return is_hit


def file_of(directory: Path, number: int) -> Path:
    return directory / key(number).hex()[:2] / f"{key(number).hex()[2:]}.page"


def files(directory: Path, ending: str = ".page") -> list[Path]:
    return sorted(directory.glob(f"*/*{ending}"))


@pytest.fixture
def open_tier(tmp_path: Path) -> Iterator[Callable[..., DiskTier]]:
    tiers = []

    def open_tier(pages: int = 100, **options: Any) -> DiskTier:
        tiers.append(DiskTier(tmp_path / "tier", pages * FILE, PAGE_BYTES, **options))
        return tiers[-1]

    yield open_tier
    for tier in tiers:
        tier.close()


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Nothing is written before the event."""
    ready = threading.Event()
    write = page_files.PageFiles.write

    def wait_and_write(*arguments: Any) -> None:
        ready.wait()
        write(*arguments)

    monkeypatch.setattr(page_files.PageFiles, "write", wait_and_write)
    yield ready
    ready.set()


def test_a_key_depends_on_model_layout_and_every_token() -> None:
    roots = {ROOT, root_key(bytes(31) + b"1", "toy"), root_key(bytes(32), "toz")}
    keys = [child_key(root, tokens(0)) for root in sorted(roots)]
    keys += [child_key(ROOT, [*tokens(0)[:place], -1, *tokens(0)[place + 1 :]]) for place in range(PAGE)]
    keys += [child_key(key(0), tokens(0)), child_key(ROOT, [])]
    assert len(roots | set(keys)) == 3 + 3 + PAGE + 2
    assert {len(each) for each in keys} == {32}
    assert child_key(ROOT, tokens(0)) == key(0)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.lists(st.tuples(st.sampled_from(["save", "save", "load", "reopen"]), st.integers(0, 7))))
def test_a_tier_is_a_dictionary_that_forgets_what_was_used_longest_ago(
    limit: int, operations: list[tuple[str, int]]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        tier, held = DiskTier(Path(name), limit * FILE, PAGE_BYTES), OrderedDict[int, None]()
        for operation, number in operations:
            if operation == "save":
                assert save(tier, number)
                tier.flush()
                held[number] = None
                held.move_to_end(number)
                if len(held) > limit:
                    held.popitem(last=False)
            elif operation == "load":
                assert load(tier, number) == (number in held)
                if number in held:
                    held.move_to_end(number)
            else:
                tier.close()
                tier = DiskTier(Path(name), limit * FILE, PAGE_BYTES)
            assert files(Path(name)) == sorted(file_of(Path(name), each) for each in held)
            assert all((key(each) in tier) == (each in held) for each in range(8))
        tier.close()
        assert tier.statistics.pages == len(held)
        assert tier.statistics.bytes == len(held) * FILE == sum(file.stat().st_size for file in files(Path(name)))


def test_every_change_of_a_file_makes_it_a_miss_and_deletes_it(
    open_tier: Callable[..., DiskTier], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tier = open_tier()
    save(tier, 1)
    tier.flush()
    file = file_of(tmp_path / "tier", 1)
    whole = file.read_bytes()
    assert len(whole) == FILE
    flipped = [
        whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :] for place in range(len(whole))
    ]
    shortened = [whole[:length] for length in range(0, len(whole), 3)]
    torn = [whole[:length] + bytes(len(whole) - length) for length in range(0, len(whole), 3)]
    changed = [*flipped, *shortened, *torn, whole + b"\0", whole[1:], b"\0" + whole]
    for content in changed:
        file.write_bytes(content)
        assert not load(tier, 1)
        assert not file.exists()
    assert tier.statistics.corrupt == tier.statistics.misses == len(changed) == len(caplog.records)
    assert save(tier, 1)
    tier.flush()
    assert load(tier, 1)
    assert file.read_bytes() == whole


def test_a_page_under_another_name_or_with_other_tokens_is_a_miss(
    open_tier: Callable[..., DiskTier], tmp_path: Path
) -> None:
    tier = open_tier()
    save(tier, 1)
    save(tier, 2)
    tier.flush()
    os.replace(file_of(tmp_path / "tier", 1), file_of(tmp_path / "tier", 2))
    assert not load(tier, 2)
    assert not load(tier, 1)
    save(tier, 3)
    tier.flush()
    assert not tier.load(key(3), tokens(4), page(0))
    assert tier.statistics.corrupt == 2


def test_a_page_that_waits_is_served_and_its_source_is_free(
    open_tier: Callable[..., DiskTier], slow_disk: threading.Event
) -> None:
    tier, source = open_tier(), page(1)
    assert tier.save(key(1), tokens(1), source)
    source.zero_()
    assert save(tier, 1)
    assert key(1) in tier
    assert load(tier, 1)
    assert not tier.load(key(1), tokens(2), source)
    slow_disk.set()
    assert tier.flush()
    assert load(tier, 1)
    assert tier.statistics.writes == 1


def test_a_full_queue_drops_pages_and_closing_ends_in_time(
    open_tier: Callable[..., DiskTier], slow_disk: threading.Event
) -> None:
    tier = open_tier(queue_bytes=3 * PAGE_BYTES)
    assert [save(tier, number) for number in range(5)] == [True, True, True, False, False]
    assert tier.statistics.drops == 2
    assert not tier.flush(timeout=0.01)
    tier.close(timeout=0.01)
    assert not save(tier, 5)
    assert tier.statistics.drops == 2 + 2 + 1
    slow_disk.set()
    assert tier.flush()
    assert [load(tier, number) for number in range(6)] == [True] + [False] * 5


def test_closing_writes_what_waits(open_tier: Callable[..., DiskTier], slow_disk: threading.Event) -> None:
    tier = open_tier()
    for number in range(20):
        save(tier, number)
    threading.Timer(0.05, slow_disk.set).start()
    tier.close()
    assert tier.statistics.writes == 20
    again = open_tier()
    assert all(load(again, number) for number in range(20))
    assert again.statistics.hits == 20


def test_pages_of_any_dtype_come_back_and_rows_that_are_no_number_too(tmp_path: Path) -> None:
    rows = torch.linspace(-3, 3, PAGE * 6, dtype=torch.bfloat16).view(PAGE, 6)
    rows[3] = torch.nan
    tier = DiskTier(tmp_path, 1 << 20, rows.nbytes)
    tier.save(key(1), tokens(1), rows)
    tier.close()
    found = torch.zeros_like(rows)
    assert tier.load(key(1), tokens(1), found)
    assert torch.equal(found.view(torch.int16), rows.view(torch.int16))


def test_a_large_directory_stays_below_its_limit_and_keeps_what_is_new(
    open_tier: Callable[..., DiskTier], tmp_path: Path
) -> None:
    tier = open_tier(40)
    for number in range(120):
        save(tier, number)
        tier.flush()
        assert len(files(tmp_path / "tier")) <= 40
    assert all(load(tier, number) for number in range(120 - 36, 120))
    assert tier.statistics.evictions == 120 - tier.statistics.pages
    open_tier(7).close()
    assert len(files(tmp_path / "tier")) == 7
    assert all(load(tier, number) for number in range(120 - 7, 120))


def test_two_tiers_share_a_directory_and_its_limit(open_tier: Callable[..., DiskTier], tmp_path: Path) -> None:
    one, other = open_tier(6), open_tier(6)
    for number in range(30):
        save(one if number % 3 else other, number)
        one.flush()
        other.flush()
        assert load(one, number)
        assert load(other, number)
        assert len(files(tmp_path / "tier")) == min(number + 1, 6)
    file_of(tmp_path / "tier", 29).unlink()
    assert not load(one, 29)
    assert one.statistics.corrupt == other.statistics.corrupt == 0


def test_abandoned_temporary_files_go_and_others_stay(open_tier: Callable[..., DiskTier], tmp_path: Path) -> None:
    open_tier().close()
    folder = tmp_path / "tier/ab"
    folder.mkdir()
    for name, age in (("old.tmp", 3600), ("young.tmp", 0), ("old.note", 3600)):
        (folder / name).touch()
        os.utime(folder / name, (time.time() - age,) * 2)
    open_tier().close()
    assert sorted(file.name for file in folder.iterdir()) == ["old.note", "young.tmp"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_full_or_read_only_disk_is_said_once_and_pages_are_still_read(
    number: int,
    open_tier: Callable[..., DiskTier],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tier = open_tier()
    save(tier, 1)
    tier.flush()

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    for name in ("replace", "utime"):
        monkeypatch.setattr(os, name, refuse)
    for saved in (2, 3):
        save(tier, saved)
        tier.flush()
    assert not save(tier, 4)
    assert save(tier, 1)
    assert [load(tier, each) for each in range(1, 5)] == [True, False, False, False]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert os.strerror(number) in caplog.text
    assert tier.statistics.drops == 3
    assert files(tmp_path / "tier", ".tmp") == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_without_write_permission_is_read(open_tier: Callable[..., DiskTier], tmp_path: Path) -> None:
    first = open_tier()
    save(first, 1)
    first.close()
    folders = [tmp_path / "tier", file_of(tmp_path / "tier", 1).parent]
    for folder in folders:
        folder.chmod(0o500)
    tier = open_tier()
    save(tier, 2)
    tier.flush()
    assert load(tier, 1)
    assert not load(tier, 2)
    for folder in folders:
        folder.chmod(0o700)


def test_a_file_in_a_folders_place_stops_the_writing_alone(
    open_tier: Callable[..., DiskTier], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tier = open_tier()
    save(tier, 1)
    tier.flush()
    (tmp_path / "tier" / key(2).hex()[:2]).touch()
    save(tier, 2)
    tier.flush()
    assert not load(tier, 2)
    assert not load(tier, 2)
    assert load(tier, 1)
    assert not save(tier, 3)
    assert len(caplog.records) == 1


def test_a_new_directory_is_private(open_tier: Callable[..., DiskTier], tmp_path: Path) -> None:
    tier = open_tier()
    save(tier, 1)
    tier.close()
    assert (tmp_path / "tier").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("name", ["notes.txt", "ab", "seamount-pages-0"])
def test_a_directory_in_other_use_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    with pytest.raises(ConfigError, match=f"{tmp_path}.*{name}.*empty"):
        DiskTier(tmp_path, 1 << 20, PAGE_BYTES)
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_what_cannot_be_a_tier_is_refused(open_tier: Callable[..., DiskTier], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{FILE - 1} bytes.*{FILE}"):
        DiskTier(tmp_path / "small", FILE - 1, PAGE_BYTES)
    assert not (tmp_path / "small").exists()
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(ConfigError, match=r"cannot be used.*name one"):
            DiskTier(place, 1 << 20, PAGE_BYTES)
    open_tier().close()
    (tmp_path / "tier/notes.txt").touch()
    with pytest.raises(ConfigError, match=r"notes\.txt"):
        open_tier()


def test_threads_that_save_load_and_evict_never_get_a_wrong_page(open_tier: Callable[..., DiskTier]) -> None:
    tiers, failures = [open_tier(5), open_tier(5)], []

    def work(seed: int) -> None:
        try:
            for turn in range(150):
                number = (turn * 7 + seed * turn // 3) % 9
                save(tiers[turn % 2], number)
                load(tiers[(turn + seed) % 2], (number + seed) % 9)
        except BaseException as error:  # noqa: BLE001  a thread's failure is the test's
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sum(tier.statistics.hits for tier in tiers) > 0
    assert sum(tier.statistics.corrupt for tier in tiers) == 0


LARGE = 1 << 18
LIMIT = 20 * (LARGE + 1000)
WRITER = f"""
import sys, itertools
sys.path[:] = {sys.path!r} + [{str(Path(__file__).parent)!r}]
from pathlib import Path
from test_disk_tier import LARGE, LIMIT, DiskTier, key, page, tokens
tier, pages = DiskTier(Path(sys.argv[1]), LIMIT, LARGE), [page(number, LARGE) for number in range(30)]
for number in itertools.cycle(range(30)):
    tier.save(key(number), tokens(number), pages[number])
    if number % 10 == 0:
        tier.flush()
        print(number, flush=True)
"""


def test_processes_killed_while_they_write_leave_only_whole_pages(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    writers = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    for writer, lines in zip(writers, (5, 50), strict=True):
        assert writer.stdout
        assert len(list(itertools.islice(writer.stdout, lines))) == lines
        writer.send_signal(signal.SIGKILL)
        assert writer.wait() == -signal.SIGKILL
        writer.stdout.close()
    tier = DiskTier(tmp_path, LIMIT, LARGE)
    assert sum(load(tier, number, LARGE) for number in range(30)) >= 10
    assert tier.statistics.corrupt == 0
    tier.save(key(99), tokens(99), page(99, LARGE))
    tier.close()
    assert load(tier, 99, LARGE)
    assert tier.statistics.pages == len(files(tmp_path)) <= 20
