"""One way to write a file: whole or not at all, where a link leads to, with the mode and the owner of the one before.

The pieces go to `NAME.xxxxxxxx.part` in the same folder, which takes the old file's place when it is safe on the disk.
A writer holds a lock on its part, so that no other takes it for one that a killed program left behind.
"""

import errno
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

from xpnet.errors import CheckpointError

try:
    import fcntl
except ImportError:  # Windows, which lets nobody delete an open file
    fcntl = None  # type: ignore[assignment]

PATH = str | os.PathLike[str]
STALE = 600.0
"""Seconds after which a part that nobody holds is one that a killed program left behind."""
KINDS = {stat.S_IFIFO: "pipe", stat.S_IFCHR: "device", stat.S_IFBLK: "device", stat.S_IFSOCK: "socket"}
UNSYNCED = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EACCES, errno.EPERM}
"""How a system says that folders cannot be synced there."""
BUSY, WAIT = (5, 32), 2.0
"""How Windows says that somebody has a file open, a reader or a scanner; seconds for which it is asked again."""
ACL = "system.posix_acl_access"
"""Under which name Linux keeps who else than owner, group and all may read and write a file."""


def write(path: PATH, pieces: Iterable[tuple[int, Any]]) -> None:
    """Write pieces (place, bytes) to a file: the old one stays until the new one is whole. CheckpointError if not."""
    with _told(path):
        target, before = _target(path)
        with _part(target, before) as (part, file):
            _sweep(target, os.fstat(file.fileno()).st_mtime)
            for place, piece in pieces:
                file.seek(place)
                file.write(piece)
            file.flush()
            if before is not None:
                _keep(file, before, target)
            os.fsync(file.fileno())
            if fcntl is None:
                file.close()  # Windows renames no open file
            _target(path)  # it may have become a pipe or a folder meanwhile
            try:
                _replace(part, target)
            except OSError:
                if not _is_there(file, target):  # a server may have done it, and its answer was lost
                    raise
    _sync(path, target.parent)


def write_text(path: PATH, text: str) -> None:
    """Write a text, such as a result as JSON, in the same way."""
    write(path, [(0, text.encode())])


def check(path: PATH) -> None:
    """Raise now the CheckpointError that `write` would raise later: no folder, no right to write. Writes nothing."""
    with _told(path):
        target, _ = _target(path)
        with suppress(FileNotFoundError):
            _admit(os.stat(path))  # /dev/stdout may lead to a pipe, which has no name
        with suppress(FileNotFoundError):
            os.lstat(_name(target))  # the name may be too long
        target.parent.stat()
        if not os.access(target.parent, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@contextmanager
def _told(path: PATH) -> Iterator[None]:
    """Turn the system's errors into CheckpointError: all of them come before the old file is replaced."""
    try:
        yield
    except OSError as error:
        folder = next((one for one in (Path(path).parent, _folder(path)) if not os.path.lexists(one)), None)
        missing = error.errno == errno.ENOENT and folder is not None
        rest = f"make the folder {folder} first" if missing else "what was there is untouched"
        raise CheckpointError(f"cannot write {path}: {error.strerror or error}; {rest}") from None


def _folder(path: PATH) -> Path:
    """Return the folder that a path leads to, by way of its links."""
    return Path(os.path.realpath(path)).parent


def _target(path: PATH) -> tuple[Path, os.stat_result | None]:
    """Return the file that a path leads to, and what is known of the one there now; OSError if it is no file."""
    target = Path(os.path.realpath(path))
    try:
        before = os.lstat(target)
    except FileNotFoundError:
        return target, None
    if stat.S_ISLNK(before.st_mode):
        with suppress(FileNotFoundError):
            os.stat(target)  # which says so of links that lead in a circle
        raise OSError(errno.EIO, "it is a link that cannot be followed")
    _admit(before)
    return target, before


def _admit(found: os.stat_result) -> None:
    """Raise OSError for what is no file."""
    kind = stat.S_IFMT(found.st_mode)
    if kind == stat.S_IFDIR:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if kind != stat.S_IFREG:
        raise OSError(errno.EINVAL, f"it is a {KINDS.get(kind, 'special file')}, which no file may replace")


def _name(target: Path) -> Path:
    return target.with_name(f"{target.name}.{os.urandom(4).hex()}.part")


@contextmanager
def _part(target: Path, before: os.stat_result | None) -> Iterator[tuple[Path, IO[bytes]]]:
    """Make the part, hold it, and delete it unless it was renamed. What will be private is so from the first byte."""
    part, mode = _name(target), 0o666 if before is None else 0o600
    try:
        file = open(part, "xb", opener=partial(os.open, mode=mode))  # noqa: SIM115
    except FileExistsError:  # another's
        raise
    except BaseException:  # Ctrl-C, when it was just made
        _leave(part)
        raise
    try:
        _hold(file.fileno())
        yield part, file
    finally:
        try:
            with suppress(OSError):
                file.close()
        finally:
            _leave(part)


def _leave(part: Path) -> None:
    """Delete a part, if it is still there and that can be done."""
    with suppress(OSError):
        os.unlink(part)


def _replace(part: Path, target: Path) -> None:
    """Rename a file: Windows refuses that while somebody has one of the two open, so there it is tried for a while."""
    end = time.monotonic() + WAIT
    while True:
        try:
            return os.replace(part, target)
        except PermissionError as error:
            if getattr(error, "winerror", None) not in BUSY or time.monotonic() > end:
                raise
            time.sleep(0.01)


def _is_there(file: IO[bytes], target: Path) -> bool:
    """Whether an open file is the one at a path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(target))
    except (OSError, ValueError):  # ValueError: it was closed, on Windows
        return False


def _hold(handle: int) -> bool:
    """Lock an open file for as long as it is open; False if another has it, or files cannot be locked here."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (AttributeError, OSError):
        return False
    return True


def _keep(file: IO[bytes], before: os.stat_result, target: Path) -> None:
    """Give the new file mode and owner of the old one, where permitted; nobody may read it who could not before."""
    handle, mode = file.fileno(), before.st_mode & 0o777
    if not hasattr(os, "fchown"):
        return
    with suppress(OSError):
        os.fchown(handle, before.st_uid, -1)
    try:
        os.fchown(handle, -1, before.st_gid)
    except OSError:
        mode = mode & 0o707 | (mode & 0o007) << 3  # another group may do what all may do
    if not _keep_list(handle, target):
        mode &= 0o707  # what stood there for the group was the most that anybody on the list may do
    with suppress(OSError):
        os.fchmod(handle, mode)


def _keep_list(handle: int, target: Path) -> bool:
    """Give the new file the old one's access control list (Linux), none if it had none; False if that is refused."""
    try:
        found = os.getxattr(target, ACL)
    except (AttributeError, OSError):  # no list, or no such thing here
        with suppress(AttributeError, OSError):
            os.removexattr(handle, ACL)  # the folder's
        return True
    try:
        os.setxattr(handle, ACL, found)
    except OSError:
        return False
    return True


def _sweep(target: Path, now: float) -> None:
    """Delete the parts of this file that killed programs left behind: old, and held by nobody. Never an error.

    `now` is by the clock that dates files, which may be a server's.
    """
    ours = re.compile(re.escape(target.name) + r"\.[0-9a-f]{8}\.part")
    with suppress(OSError), os.scandir(target.parent) as entries:
        for left in entries:
            with suppress(OSError):  # its writer may finish at any moment
                if ours.fullmatch(left.name) and left.is_file(follow_symlinks=False):
                    old = now - left.stat(follow_symlinks=False).st_mtime > STALE
                    if old and _left_behind(left.path):
                        os.unlink(left.path)


def _left_behind(path: str) -> bool:
    if fcntl is None:
        return True
    with open(path, "r+b", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK)) as file:
        return _hold(file.fileno())


def _sync(path: PATH, folder: Path) -> None:
    """See to it that a rename survives a power cut, where a folder can be synced; CheckpointError says what is true."""
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            with suppress(OSError):
                os.close(handle)
    except OSError as error:
        if error.errno not in UNSYNCED:
            text = f"but a power cut may bring back the old one: cannot sync its folder: {error.strerror or error}"
            raise CheckpointError(f"{path} is written, {text}") from None
