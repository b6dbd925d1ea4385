"""Files and folders that are whole or not there, whatever happens to the writer and to the disk."""

import os
import signal
import time
from pathlib import Path

import pytest

from scorefield import files
from tests.training.disk import Operations, in_a_child, limited

# The processes are forked while nothing else runs in this one.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

OLD, NEW = {"a": "old", "b/c": "old too"}, {"a": "new" * 100, "d": b"\x00\xff"}


def written(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_text(errors="replace")
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def test_what_is_written_is_there_and_nothing_else(tmp_path):
    files.write_file(tmp_path / "new" / "x.txt", "α")
    files.write_file(tmp_path / "new" / "x.txt", b"\x00")
    assert (tmp_path / "new" / "x.txt").read_bytes() == b"\x00"
    listed = files.write_folder(tmp_path / "new" / "y", OLD)
    assert listed == [tmp_path / "new" / "y" / name for name in OLD]
    assert written(tmp_path / "new" / "y") == OLD
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["x.txt", "y"]
    files.delete_folder(tmp_path / "new" / "y")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["x.txt"]


def test_a_folder_is_replaced_only_on_request(tmp_path):
    files.write_folder(tmp_path / "x", OLD)
    with pytest.raises(OSError, match="not empty") as error:
        files.write_folder(tmp_path / "x", NEW)
    assert error.value.filename == str(tmp_path / "x")
    assert written(tmp_path / "x") == OLD
    files.write_folder(tmp_path / "x", {"a": "new"}, overwrite=True)
    assert written(tmp_path / "x") == {"a": "new"}
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("there", [False, True])
def test_killed_at_any_operation_a_file_has_the_old_content_or_the_new(tmp_path, there):
    file, at, status = tmp_path / "x", 0, -signal.SIGKILL
    found = set()
    while status == -signal.SIGKILL:
        at += 1
        if there:
            files.write_file(file, "old")
        else:
            file.unlink(missing_ok=True)

        def work(at=at):
            Operations("kill", at).watch()
            files.write_file(file, "new" * 1000)

        status = in_a_child(work)
        found.add(file.read_text() if file.exists() else None)
        # The next writer, of whatever file in this folder, cleans.
        files.write_file(tmp_path / "other", "")
        assert {p.name for p in tmp_path.iterdir()} <= {"x", "other"}
    assert status == 0
    assert at > 4
    assert found == {"old" if there else None, "new" * 1000}


@pytest.mark.parametrize("there", [False, True])
def test_killed_at_any_operation_a_folder_is_the_old_one_or_the_new(tmp_path, there):
    folder, at, status = tmp_path / "x", 0, -signal.SIGKILL
    found = []
    while status == -signal.SIGKILL:
        at += 1
        if folder.exists():
            files.delete_folder(folder)
        if there:
            files.write_folder(folder, OLD)

        def work(at=at):
            Operations("kill", at).watch()
            files.write_folder(folder, {"a": "new"}, overwrite=True)

        status = in_a_child(work)
        files.clean(tmp_path)
        assert {p.name for p in tmp_path.iterdir()} <= {"x"}
        found.append(written(folder) if folder.exists() else None)
    assert status == 0
    assert at > 6
    before = OLD if there else None
    # Up to the renaming the old one, from there on the new one.
    turn = found.index({"a": "new"})
    assert found == [before] * turn + [{"a": "new"}] * (at - turn)


def test_a_deletion_that_is_killed_is_finished_by_the_next(tmp_path):
    at, status = 0, -signal.SIGKILL
    while status == -signal.SIGKILL:
        at += 1
        if not (tmp_path / "x").exists():
            files.write_folder(tmp_path / "x", OLD)

        def work(at=at):
            Operations("kill", at).watch()
            files.delete_folder(tmp_path / "x")

        status = in_a_child(work)
        files.clean(tmp_path)
        left = [p.name for p in tmp_path.iterdir()]
        assert left == ([] if at > 1 else ["x"])
        assert not left or written(tmp_path / "x") == OLD
    assert at > 3


def test_the_files_of_a_living_writer_are_left_alone(tmp_path):
    """A writer stops in the middle; another writes and cleans; the first one goes on."""
    read, write = os.pipe()

    def work():
        sync = os.fsync

        def wait(descriptor):
            os.fsync = sync
            os.write(write, b"x")
            os.kill(os.getpid(), signal.SIGSTOP)
            sync(descriptor)

        os.fsync = wait
        files.write_folder(tmp_path / "slow", {"a": "slow"})

    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    os.read(read, 1)
    os.waitpid(child, os.WUNTRACED)
    files.write_file(tmp_path / "quick", "quick")
    assert len(list(tmp_path.iterdir())) == 2
    os.kill(child, signal.SIGCONT)
    assert os.waitpid(child, 0)[1] == 0
    assert written(tmp_path) == {"quick": "quick", "slow/a": "slow"}


@pytest.mark.parametrize("host", ["00000000", files._HOST])
def test_what_nobody_has_touched_for_a_day_is_litter(tmp_path, monkeypatch, host):
    """Of a process on another host, or one whose number another process has now."""
    leftover = tmp_path / f".writing-{os.getpid()}-00000000-{host}-x"
    leftover.mkdir()
    other = tmp_path / ".writing-notes"
    other.write_text("not ours")
    files.clean(tmp_path)
    assert leftover.exists()
    begin = time.time()
    monkeypatch.setattr(time, "time", lambda: begin + 90_000)
    files.clean(tmp_path)
    assert list(tmp_path.iterdir()) == [other]


def test_what_does_not_fit_on_the_disk_changes_nothing(tmp_path):
    files.write_file(tmp_path / "file", "old")
    files.write_folder(tmp_path / "folder", OLD)

    def work():
        with pytest.raises(OSError, match="File too large") as error:
            files.write_file(tmp_path / "file", b"x" * 5000)
        assert error.value.filename == str(tmp_path / "file")
        with pytest.raises(OSError, match="File too large") as error:
            files.write_folder(tmp_path / "folder", {"a": "", "b": b"x" * 5000}, overwrite=True)
        assert error.value.filename == str(tmp_path / "folder")
        assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]

    assert limited(4096, work) == 0
    assert (tmp_path / "file").read_text() == "old"
    assert written(tmp_path / "folder") == OLD


def test_an_interrupt_leaves_nothing_behind(tmp_path, monkeypatch):
    files.write_folder(tmp_path / "x", OLD)
    for operation in ("write", "fsync", "rename"):

        def interrupted(*arguments):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(os, operation, interrupted)
            with pytest.raises(KeyboardInterrupt):
                files.write_folder(tmp_path / "x", NEW, overwrite=True)
        assert written(tmp_path) == {f"x/{name}": text for name, text in OLD.items()}


def test_a_folder_that_is_read_only_is_named(tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o555)

    def work():
        # What lies above need not be open to everyone.
        os.chdir(folder)
        if os.geteuid() == 0:
            os.setuid(65534)
        for write in (
            lambda: files.write_file(Path("x"), ""),
            lambda: files.write_folder(Path("x"), {"a": ""}),
        ):
            with pytest.raises(PermissionError) as error:
                write()
            assert error.value.filename == "x"

    assert in_a_child(work) == 0
    folder.chmod(0o755)
