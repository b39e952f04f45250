"""Files themselves: how they are written, whole or not at all, and how they are read."""

import errno
import json
import os
import pickle
import re
import socket
import stat
import struct
import threading
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from forking import in_child

import xpnet as xn
from xpnet.errors import CheckpointError
from xpnet.files import storage, writer


def refuse(number):
    raise OSError(number, os.strerror(number))


def names(folder):
    return sorted(os.listdir(folder))


def put(path, content=b"new"):
    storage.write(path, [(0, content)])


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    return path


# What is there already


@pytest.mark.posix
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o666])
def test_the_mode_of_the_old_file_is_kept(path, mode):
    path.chmod(mode)
    put(path)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert path.read_bytes() == b"new"


@pytest.mark.posix
def test_what_is_private_is_private_while_it_is_written(path, tmp_path):
    path.chmod(0o600)

    def pieces():
        (part,) = set(tmp_path.iterdir()) - {path}
        assert stat.S_IMODE(part.stat().st_mode) == 0o600
        yield 0, b"secret"

    storage.write(path, pieces())
    assert path.read_bytes() == b"secret"


@pytest.mark.posix
def test_the_owner_of_the_old_file_is_kept(path, monkeypatch):
    asked = []
    monkeypatch.setattr(os, "fchown", lambda handle, user, group: asked.append((user, group)))
    put(path)
    assert asked == [(path.stat().st_uid, -1), (-1, path.stat().st_gid)]


@pytest.mark.posix
@pytest.mark.parametrize(("mode", "then"), [(0o660, 0o600), (0o664, 0o644), (0o600, 0o600)])
def test_another_group_may_not_do_what_the_old_one_might(path, monkeypatch, mode, then):
    path.chmod(mode)
    monkeypatch.setattr(os, "fchown", lambda *args: refuse(errno.EPERM))
    put(path)
    assert stat.S_IMODE(path.stat().st_mode) == then


def listed(*entries):
    """Return an access control list as Linux keeps it, of entries (kind, rights, number)."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


ANYBODY = 2**32 - 1
"""The number in entries for the owner (1), the group (4), the mask (16) and all (32); those for a user (2) have his."""


def with_a_list(path, rights):
    own, group, mask, others = rights
    entries = [(1, own, ANYBODY), (2, 6, 12345), (4, group, ANYBODY), (16, mask, ANYBODY), (32, others, ANYBODY)]
    try:
        os.setxattr(path, writer.ACL, listed(*entries))
    except (AttributeError, OSError):
        pytest.skip("there are no access control lists here")
    return os.getxattr(path, writer.ACL)


def test_who_else_may_read_the_old_file_may_read_the_new_one(path, tmp_path):
    """The mode's bits for the group are the most that anybody on the list may do: alone they would let the group in."""
    before = with_a_list(path, (6, 0, 6, 0))
    put(path)
    assert os.getxattr(path, writer.ACL) == before
    assert stat.S_IMODE(path.stat().st_mode) == 0o660


def test_where_the_list_cannot_be_kept_nobody_else_is_let_in(path, monkeypatch):
    with_a_list(path, (6, 0, 6, 4))
    monkeypatch.setattr(os, "setxattr", lambda *args: refuse(errno.EPERM))
    put(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o604


@pytest.mark.posix
def test_the_folders_list_lets_nobody_read_what_was_private(path, tmp_path):
    path.chmod(0o640)
    entries = [(1, 7, ANYBODY), (2, 7, 12345), (4, 5, ANYBODY), (16, 7, ANYBODY), (32, 5, ANYBODY)]
    try:
        os.setxattr(tmp_path, "system.posix_acl_default", listed(*entries))
    except (AttributeError, OSError):
        pytest.skip("there are no access control lists here")
    put(path)
    assert writer.ACL not in os.listxattr(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.posix
def test_a_link_stays_and_what_it_leads_to_is_replaced(path, tmp_path):
    (tmp_path / "links").mkdir()
    link, far, nothing = (tmp_path / "links" / name for name in ("link", "far", "nothing"))
    link.symlink_to(path)
    far.symlink_to(link)
    nothing.symlink_to(tmp_path / "new")
    for one, target in ((link, path), (far, path), (nothing, tmp_path / "new")):
        put(one, one.name.encode())
        assert one.is_symlink()
        assert not target.is_symlink()
        assert target.read_bytes() == one.name.encode()
    assert names(tmp_path) == ["file", "links", "new"]
    assert names(tmp_path / "links") == ["far", "link", "nothing"]


def special(folder):
    """Make what is no file: a pipe, a socket, a link to the pipe, a folder, a link that leads to itself."""
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as one:
        here = os.open(".", os.O_RDONLY)
        os.chdir(folder)  # a socket's name must be short
        try:
            one.bind("socket")
        finally:
            os.fchdir(here)
            os.close(here)
    (folder / "link").symlink_to(folder / "pipe")
    (folder / "folder").mkdir()
    (folder / "loop").symlink_to(folder / "loop")


@pytest.mark.posix
@pytest.mark.parametrize("act", [put, storage.check])
def test_what_is_no_file_is_never_replaced(tmp_path, act):
    special(tmp_path)
    before = {name: os.lstat(tmp_path / name) for name in names(tmp_path)}
    said = {
        "pipe": "it is a pipe, which no file may replace",
        "link": "it is a pipe, which no file may replace",
        "socket": "it is a socket, which no file may replace",
        "folder": "Is a directory",
        "loop": "Too many levels of symbolic links",
    }
    for name, text in said.items():
        with pytest.raises(
            CheckpointError, match=f"^cannot write {tmp_path}/{name}: {text}; what was there is untouched$"
        ):
            act(tmp_path / name)
    assert {name: os.lstat(tmp_path / name).st_ino for name in names(tmp_path)} == {
        n: s.st_ino for n, s in before.items()
    }


@pytest.mark.posix
def test_what_becomes_a_pipe_meanwhile_is_not_replaced(path):
    def pieces():
        path.unlink()
        os.mkfifo(path)
        yield 0, b"new"

    with pytest.raises(CheckpointError, match="it is a pipe"):
        storage.write(path, pieces())
    assert stat.S_ISFIFO(path.stat().st_mode)
    assert names(path.parent) == ["file"]


# Whole or not at all


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize("step", ["open", "write", "fsync", pytest.param("fcntl", marks=pytest.mark.posix), "replace"])
def test_the_old_file_stays_when_the_system_refuses(path, monkeypatch, step, number):
    def pieces():
        yield 0, b"some"
        if step == "write":
            refuse(number)
        yield 4, b"thing"

    opened = os.open
    with monkeypatch.context() as patch:
        if step == "open":
            patch.setattr(
                os, "open", lambda p, flags, *a, **k: refuse(number) if flags & os.O_EXCL else opened(p, flags, *a, **k)
            )
        elif step == "fcntl":  # where files cannot be locked, they can be written
            patch.setattr(writer.fcntl, "flock", lambda *args: refuse(number))
        elif step != "write":
            patch.setattr(os, step, lambda *args: refuse(number))
        if step == "fcntl":
            storage.write(path, pieces())
        else:
            text = f"cannot write {path}: {os.strerror(number)}; what was there is untouched"
            with pytest.raises(CheckpointError, match=f"^{re.escape(text)}$"):
                storage.write(path, pieces())
    assert path.read_bytes() == (b"something" if step == "fcntl" else b"old")
    assert names(path.parent) == ["file"]


def test_a_failing_clean_up_does_not_hide_what_failed(path, monkeypatch):
    monkeypatch.setattr(os, "replace", lambda *args: refuse(errno.EIO))
    monkeypatch.setattr(os, "unlink", lambda *args, **more: refuse(errno.EROFS))
    monkeypatch.setattr(Path, "unlink", lambda *args, **more: refuse(errno.EROFS))
    with pytest.raises(CheckpointError, match=os.strerror(errno.EIO)):
        put(path)


@pytest.mark.posix
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOENT])
def test_a_rename_whose_answer_is_lost_is_done(path, monkeypatch, number):
    """As by a network's file system, which asks again and hears that there is nothing to rename."""
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *args: (replace(*args), refuse(number)))
    put(path)
    assert path.read_bytes() == b"new"


@pytest.mark.posix
def test_a_pipe_without_a_name_is_refused_beforehand():
    """`/dev/stdout` may lead to one, and its name there is no file's."""
    reader, handle = os.pipe()
    try:
        if not os.path.exists(name := f"/dev/fd/{handle}"):
            pytest.skip("needs /dev/fd")
        text = f"cannot write {name}: it is a pipe, which no file may replace; what was there is untouched"
        with pytest.raises(CheckpointError, match=f"^{re.escape(text)}$"):
            storage.check(name)
    finally:
        os.close(reader)
        os.close(handle)


class BusyError(PermissionError):
    """As Windows says that somebody has a file open."""

    winerror = 5


@pytest.mark.parametrize("number", [5, 32])
def test_a_file_that_windows_keeps_for_a_reader_is_asked_for_again(path, monkeypatch, number):
    replace, left = os.replace, [1, 2, 3]

    def busy(*args):
        if left:
            left.pop()
            raise BusyError(errno.EACCES, "Access is denied")
        replace(*args)

    monkeypatch.setattr(BusyError, "winerror", number)
    monkeypatch.setattr(os, "replace", busy)
    put(path)
    assert (path.read_bytes(), left) == (b"new", [])
    assert names(path.parent) == ["file"]


@pytest.mark.parametrize(("number", "least"), [(5, 2), (17, 1)])
def test_but_not_for_ever_nor_where_another_thing_is_wrong(path, monkeypatch, number, least):
    asked = []

    def busy(*args):
        asked.append(args)
        raise BusyError(errno.EACCES, "Access is denied")

    monkeypatch.setattr(BusyError, "winerror", number)
    monkeypatch.setattr(os, "replace", busy)
    monkeypatch.setattr(writer, "WAIT", 0.05)
    text = f"cannot write {path}: Access is denied; what was there is untouched"
    with pytest.raises(CheckpointError, match=f"^{re.escape(text)}$"):
        put(path)
    assert (path.read_bytes(), names(path.parent)) == (b"old", ["file"])
    assert len(asked) >= least
    assert number == 5 or len(asked) == 1


@pytest.mark.posix
def test_a_part_that_somebody_else_deletes_is_no_missing_folder(path, tmp_path):
    def pieces():
        yield 0, b"new"
        (part,) = set(tmp_path.iterdir()) - {path}
        part.unlink()

    text = f"cannot write {path}: No such file or directory; what was there is untouched"
    with pytest.raises(CheckpointError, match=f"^{re.escape(text)}$"):
        storage.write(path, pieces())
    assert path.read_bytes() == b"old"


@pytest.mark.posix
def test_the_missing_folder_is_the_one_that_a_link_leads_to(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "no" / "file")
    text = f"cannot write {tmp_path}/link: No such file or directory; make the folder {tmp_path}/no first"
    with pytest.raises(CheckpointError, match=f"^{re.escape(text)}$"):
        put(tmp_path / "link")


@pytest.mark.posix
@pytest.mark.parametrize("call", ["open", "close"])
def test_a_folder_that_is_not_opened_or_closed_is_told_as_it_is(path, monkeypatch, call):
    folders, opened, closed = [], os.open, os.close

    def opens(name, *args, **more):
        if Path(name).is_dir():
            folders.append(opened(name, *args, **more) if call == "close" else refuse(errno.EMFILE))
            return folders[-1]
        return opened(name, *args, **more)

    monkeypatch.setattr(os, "open", opens)
    monkeypatch.setattr(os, "close", lambda handle: (closed(handle), handle in folders and refuse(errno.EIO)))
    if call == "open":
        with pytest.raises(CheckpointError, match=f"^{path} is written, but a power cut .*: Too many open files$"):
            put(path)
    else:
        put(path)
    assert path.read_bytes() == b"new"


@pytest.mark.posix
@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EIO])
def test_a_folder_that_is_not_synced_is_told_as_it_is(path, monkeypatch, number):
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda handle: refuse(number) if stat.S_ISDIR(os.fstat(handle).st_mode) else fsync(handle)
    )
    if number == errno.EIO:
        text = (
            f"{path} is written, but a power cut may bring back the old one: cannot sync its folder: Input/output error"
        )
        with pytest.raises(CheckpointError, match=f"^{re.escape(text)}$"):
            put(path)
    else:
        put(path)
    assert path.read_bytes() == b"new"


@pytest.mark.posix
def test_check_tells_beforehand_and_writes_nothing(tmp_path, monkeypatch):
    storage.check(tmp_path / "model")
    storage.check(str(tmp_path / "model"))
    (tmp_path / "file").touch()
    storage.check(tmp_path / "file")
    for name, text in {
        "no/model": f"No such file or directory; make the folder {tmp_path}/no first",
        "file/model": "Not a directory; what was there is untouched",
        "n" * 250: "File name too long; what was there is untouched",
    }.items():
        for act in (storage.check, put):
            with pytest.raises(CheckpointError, match=f"^cannot write {tmp_path}/{name}: {text}$"):
                act(tmp_path / name)
    monkeypatch.setattr(os, "access", lambda folder, how: folder != tmp_path)  # the super-user may do all
    with pytest.raises(CheckpointError, match=f"^cannot write {tmp_path}/model: Permission denied; "):
        storage.check(tmp_path / "model")
    assert names(tmp_path) == ["file"]


# What others left, and other writers


def old(path):
    os.utime(path, (time.time() - 10 * writer.STALE,) * 2)


@pytest.mark.posix
def test_only_parts_that_a_killed_writer_of_this_file_left_are_deleted(path, tmp_path):
    stay = ["file.part", "file.1234567.part", "file.1234567g.part", "file.12345678.parts", "other.12345678.part"]
    for name in [*stay, "file.12345678.part", "file.00000000.part"]:
        (tmp_path / name).touch()
        old(tmp_path / name)
    (tmp_path / "file.aaaaaaaa.part").touch()  # young
    (tmp_path / "file.bbbbbbbb.part").mkdir()
    os.mkfifo(tmp_path / "file.cccccccc.part")
    (tmp_path / "file.dddddddd.part").symlink_to(path)
    for letter in "bc":
        old(tmp_path / f"file.{letter * 8}.part")
    put(path)
    others = [f"file.{letter * 8}.part" for letter in "abcd"]
    assert names(tmp_path) == sorted(["file", *stay, *others])


def test_the_part_of_a_writer_that_takes_long_is_not_deleted(path, tmp_path):
    def pieces():
        yield 0, b"slow"
        (part,) = set(tmp_path.iterdir()) - {path}
        old(part)
        put(path, b"quick")
        assert part.exists()

    storage.write(path, pieces())
    assert path.read_bytes() == b"slow"
    assert names(tmp_path) == ["file"]


def test_a_clock_that_is_ahead_deletes_no_young_part(path, tmp_path, monkeypatch):
    (tmp_path / "file.12345678.part").touch()
    monkeypatch.setattr(time, "time", lambda: 2e10)
    put(path)
    assert names(tmp_path) == ["file", "file.12345678.part"]


def test_a_part_that_another_deletes_first_is_passed_over(path, tmp_path, monkeypatch):
    for letter in "abc":
        (tmp_path / f"file.{letter * 8}.part").touch()
        old(tmp_path / f"file.{letter * 8}.part")
    unlink, gone = os.unlink, []

    def first_is_gone(name, **more):
        gone.append(name)
        unlink(name, **more)
        if len(gone) == 1:
            refuse(errno.ENOENT)

    monkeypatch.setattr(os, "unlink", first_is_gone)
    put(path)
    assert names(tmp_path) == ["file"]
    assert path.read_bytes() == b"new"


def test_a_folder_that_cannot_be_listed_can_be_written(path, monkeypatch):
    monkeypatch.setattr(os, "scandir", lambda folder: refuse(errno.EACCES))
    put(path)
    assert path.read_bytes() == b"new"


def many(path, count, letter):
    for k in range(count):
        storage.write(path, [(0, letter * 1000), (1000, letter * 1000)])
        if k % 20 == 0:  # one that a killed writer left, for all to find
            left = path.with_name(f"{path.name}.{os.urandom(4).hex()}.part")
            left.touch()
            old(left)


def test_threads_that_write_one_file_all_succeed(path):
    failed = []

    def work(letter):
        try:
            many(path, 100, letter)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(letter,)) for letter in (b"a", b"b", b"c", b"d")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert path.read_bytes() in [2000 * letter for letter in (b"a", b"b", b"c", b"d")]


@pytest.mark.forks
def test_processes_that_write_one_file_all_succeed(path):
    children = [in_child(lambda letter=letter: many(path, 100, letter)) for letter in (b"a", b"b", b"c", b"d", b"e")]
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 5
    assert path.read_bytes() in [2000 * letter for letter in (b"a", b"b", b"c", b"d", b"e")]
    put(path)
    assert names(path.parent) == ["file"]


# Reading


def arrays(rows=3):
    rng = np.random.default_rng(0)
    found = {}
    for prefix in ("", "optimizer.0/", "optimizer.1/"):
        found |= {f"{prefix}0.weight": rng.random((rows, 4), dtype="float32"), f"{prefix}0.bias": np.ones(4, "float32")}
    return found | {"callback.0.best/wide": rng.random((2, 2)), "callback.0.best/none": np.zeros((0, 2))}


def same(a, b):
    return list(a) == list(b) and all(np.array_equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)


def test_what_is_written_is_read(path):
    storage.write(path, storage.encode("text ü", arrays()))
    text, found = storage.read(path)
    assert text == "text ü"
    assert same(found, arrays())
    assert same(storage.read(path)[1], arrays())
    for array in found.values():
        array += 1  # the caller's own
    assert same(storage.read(path)[1], arrays())


def test_vectors_are_read_in_one_piece(path):
    storage.write(path, storage.encode("", arrays()))
    _, found = storage.read(path)
    for prefix in ("", "optimizer.0/", "optimizer.1/"):
        parts = [found[f"{prefix}0.weight"], found[f"{prefix}0.bias"]]
        vector = storage.joined(parts)
        assert np.array_equal(vector, np.concatenate([part.reshape(-1) for part in parts]))
        assert all(np.shares_memory(vector, part) for part in parts)
        for other in (parts[::-1], [parts[0].T, parts[1]], [parts[0], np.ones(4, "float32")], parts[1:] * 2):
            copy = storage.joined(other)
            assert np.array_equal(copy, np.concatenate([part.reshape(-1) for part in other]))
            assert not np.shares_memory(copy, vector)
    assert not np.shares_memory(found["0.weight"], found["optimizer.0/0.weight"])
    assert storage.joined([]).shape == (0,)
    assert storage.joined([np.ones(2), np.ones(1)]).shape == (3,)


def test_a_file_is_never_held_twice(path):
    storage.write(path, storage.encode("", arrays(rows=1_000_000)))
    size = path.stat().st_size
    assert size > 3 * storage.BLOCK
    tracemalloc.start()
    try:
        found = storage.read(path)
        _, peak = tracemalloc.get_traced_memory()
        assert peak < 1.02 * size
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        storage.write(path, storage.encode(*found))
        assert tracemalloc.get_traced_memory()[1] - before < 0.02 * size
    finally:
        tracemalloc.stop()


def test_no_thread_is_needed(path, monkeypatch):
    def start(thread):
        raise RuntimeError("can't start new thread")

    storage.write(path, storage.encode("text", arrays()))
    before = path.read_bytes()
    monkeypatch.setattr(threading.Thread, "start", start)
    storage.write(path, storage.encode("text", arrays()))
    assert path.read_bytes() == before
    assert same(storage.read(path)[1], arrays())


def test_no_thread_is_left(path, monkeypatch):
    count = threading.active_count()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: refuse(errno.EIO))
        with pytest.raises(CheckpointError):
            storage.write(path, storage.encode("text", arrays()))
    path.write_bytes(b"".join(piece for _, piece in list(storage.plain(arrays()))[:3]))
    with pytest.raises(ValueError, match="safetensors file without"):
        storage.read(path)
    assert threading.active_count() == count


def test_a_header_that_claims_too_much_is_not_read(path):
    claimed = 10**10
    with path.open("r+b") as file:
        file.truncate(2 * claimed)  # a file with a hole: it takes no room
        file.write(claimed.to_bytes(8, "little"))
    began = time.perf_counter()
    with pytest.raises(ValueError, match=f"^its header has {claimed} bytes, more than {storage.LIMIT}$"):
        storage.read(path)
    assert time.perf_counter() - began < 5
    with path.open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(ValueError, match=r"^it is too short$"):
        storage.read(path)


@pytest.mark.parametrize("read", [storage.read, storage.tensors])
def test_a_file_that_changes_while_it_is_read_is_not_made_up(path, monkeypatch, read):
    storage.write(path, storage.encode("", arrays()) if read is storage.read else storage.plain(arrays()))
    entries = storage._entries

    def shorter(*args):
        os.truncate(path, path.stat().st_size - 8)
        return entries(*args)

    monkeypatch.setattr(storage, "_entries", shorter)
    with pytest.raises(ValueError, match=r"^it was changed while it was read$"):
        read(path)


def test_other_programs_files_must_be_sound_too(path):
    storage.write(path, storage.plain(arrays()))
    assert same(storage.tensors(path), arrays())
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])

    def said(header, body=content[8 + length :]):
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + body)
        with pytest.raises(ValueError, match=r"\w") as caught:
            storage.tensors(path)
        return str(caught.value)

    for cut in range(1, len(content), 7):
        path.write_bytes(content[:cut])
        with pytest.raises(ValueError, match=r"it is too short|does not lie where its shape says"):
            storage.tensors(path)
    assert said(header, content[8 + length :] + b"more") == "there is more in it than its header says"
    huge = {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}
    assert said({"huge": huge}) == '"huge" does not lie where its shape says'
    assert said({"none": {"dtype": "F32", "shape": None, "data_offsets": [0, 0]}}).endswith("(TypeError)")
    assert said({"many": {"dtype": [], "shape": [1], "data_offsets": [0, 4]}}).endswith("(TypeError)")


def test_arrays_that_a_file_cannot_hold_are_named(path):
    with pytest.raises(CheckpointError, match=r'^arrays are saved as float32 or float64, but "b" is float16$'):
        storage.write(path, storage.encode("", {"a": np.ones(2), "b": np.ones(2, "float16")}))
    assert path.read_bytes() == b"old"


def test_a_description_too_long_to_be_read_is_not_written(path, monkeypatch):
    monkeypatch.setattr(storage, "LIMIT", 5000)
    storage.write(path, storage.encode("x" * 3000, arrays()))
    assert storage.read(path)[0] == "x" * 3000
    with pytest.raises(CheckpointError, match=r"^the description takes \d+ bytes, a file has room for 5000$"):
        storage.write(path, storage.encode("x" * 5000, arrays()))


def test_other_files_are_told_by_their_looks(path):
    def said():
        with pytest.raises(CheckpointError) as caught:
            xn.load(path)
        with pytest.raises(ValueError, match=re.escape(str(caught.value).partition("checkpoint: ")[2])):
            storage.read(path)
        return str(caught.value).removeprefix(f"{path} is not a sound xpnet checkpoint: ")

    path.write_text("a,b,ü\n" + "1,2,3\n" * 500)
    assert said() == "it looks like text, such as a CSV file"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", b"data")
    assert said().startswith("it looks like a zip archive, as torch.save and numpy.savez write it: weights alone")
    path.write_bytes(pickle.dumps({"weight": [1.0] * 1000}))
    assert said().startswith("it looks like a pickle, which can hold code and is not read: ")
    with path.open("wb") as file:
        np.save(file, np.ones(3))
    assert said().startswith("it looks like a NumPy file: ")
    storage.write(path, storage.plain(arrays()))
    assert said() == (
        "it is a safetensors file without a description of xpnet's: "
        "weights alone come in by xpnet.interop.torch.load_weights(model, path), from safetensors"
    )
    path.write_bytes(b"")
    assert said() == "it is too short"


@pytest.mark.posix
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for read in (storage.read, storage.tensors):
        with pytest.raises(ValueError, match=r"^it is a pipe, not a file$"):
            read(tmp_path / "pipe")
