"""Where ranks wait for each other, and for no longer than makes sense: a rank that fails, leaves or stalls is named.

Every operation of MPI on all ranks is preceded by a barrier that is asked again and again whether it is over; in
between a rank reads the notes of others. So none waits for one that never comes, and MPI's own calls, in which nothing
could be heard, find all ranks there.

Barriers are counted, and a note says how many its rank came to: who hears it knows whether the present one can end.
"""

import atexit
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, NoReturn, TypeVar

from xpnet.errors import DataError

T = TypeVar("T")

PATIENCE = 10.0
"""Seconds that an error waits for the same one on all other ranks, which may be at work and hear nothing."""
GRACE = 1.0
"""Seconds in which one rank says for all why they end, and in which ranks that wait say so."""
GLANCE = 0.01
"""Seconds between looks at the notes of others."""
SPIN, LONG = 200, 1.0
"""Times that a barrier is asked at once, before others are let at the processor; seconds until they come first."""
HEARD = 0.2
"""Seconds in which the launcher reads what a rank said, before it is told to end all of them."""
TAG = 32767
"""Of notes: the highest that every MPI has."""

FAILED, SOUND, LEFT, WAITING = "failed", "sound", "left", "waiting"


class Note(NamedTuple):
    """What a rank tells others."""

    calls: int
    """The barriers that it came to."""
    kind: str = ""
    """Of an error."""
    text: str = ""


class Meeting:
    """The ranks of a communicator, which meet, and tell each other what keeps them from it. All make it together."""

    def __init__(self, comm: Any, timeout: float) -> None:
        self.comm = self.notes = comm
        self.timeout = timeout
        self.others = [rank for rank in range(comm.size) if rank != comm.rank]
        self.heard: dict[tuple[str, int], dict[int, Note]] = {}
        """By what they say, and its number, the notes of ranks."""
        self._sent: list[Any] = []
        self._failures = self._calls = self._asked = self._answered = 0
        self._what = ["the making of a model"]
        self._agreed: int | None = None
        """Which error went up on all ranks."""
        self._hook = sys.excepthook
        sys.excepthook = self._uncaught
        self.meet()
        self.comm, self.notes = comm.Dup(), comm.Dup()
        atexit.register(self._leave)

    # Meeting

    def meet(self) -> None:
        """Return when all ranks have come here; end them all if one cannot, or does not within the timeout."""
        self._calls += 1
        request, asked = self.comm.Ibarrier(), 0
        start = look = time.monotonic()
        while not request.Test():
            if (asked := asked + 1) < SPIN:
                continue
            now = time.monotonic()
            time.sleep(0 if now - start < LONG else GLANCE / 10)
            if now - look > GLANCE:
                look = now
                self._heed()
                if now - start > self.timeout:
                    self._ask(request)

    def gather(self, value: T) -> list[T]:
        """Return what each rank has, in their order. DataError, on all of them, if they do not do the same."""
        self.meet()
        came: list[tuple[str, T]] = self.comm.allgather((self._what[-1], value))
        for rank, (what, _) in enumerate(came):
            if what != came[0][0]:
                raise DataError(f"all ranks must do the same: rank 0 is in {came[0][0]}, rank {rank} in {what}")
        return [one for _, one in came]

    def _heed(self) -> None:
        """Answer those that cannot come, or wait as well; end all ranks where there is nothing to wait for."""
        self._listen()
        left = [rank for rank, note in self._of(LEFT, 0).items() if note.calls < self._calls]
        if left:
            text = f"{named(left)} ended its program while others wait for it in {self._what[-1]}"
            self._end(text, min(rank for rank in range(self.comm.size) if rank not in left))
        number = self._failures + 1
        failed = [rank for rank, note in self._of(FAILED, number).items() if note.calls < self._calls]
        if failed and self._answered < number:
            self._answered = number
            self._tell(SOUND, number, failed)
        if self._of(WAITING, self._calls):
            self._wait_aloud()

    def _wait_aloud(self) -> None:
        """Tell others that this rank has come to where they wait."""
        if self._asked < self._calls:
            self._asked = self._calls
            self._tell(WAITING, self._calls, self.others)

    def _ask(self, request: Any) -> None:
        """End all ranks, and name those that did not come: who did says so, when it is asked."""
        self._wait_aloud()
        end = time.monotonic() + GRACE
        while time.monotonic() < end:
            self._listen()
            time.sleep(GLANCE)
        came = [self.comm.rank, *self._of(WAITING, self._calls)]
        absent = [rank for rank in self.others if rank not in came]
        if absent and not request.Test():
            self._end(
                f"{named(absent)} kept others waiting in {self._what[-1]} for {self.timeout:g} s: all ranks must call "
                "the same, and none may stall; XPNET_WORLD_TIMEOUT sets the seconds",
                min(came),
            )

    # Errors

    @contextmanager
    def together(self, what: str) -> Iterator[None]:
        """The context of what all ranks do, and end together. An error of all of them goes up, any other ends them."""
        self._what.append(what)
        try:
            yield
            self.gather(None)
        except BaseException as error:
            if not self._all_failed(error):
                say("".join(traceback.format_exception(error)).rstrip())
                self._end(f"it failed in {what}: {line(error)}", self.comm.rank)
            self._agreed = id(error)
            raise
        finally:
            self._what.pop()

    def _all_failed(self, error: BaseException) -> bool:
        """Whether all other ranks say that they failed in the same way, at the same place.

        One that came to a barrier more is out of step: its next would be taken for that of others.
        """
        self._failures += 1
        number, own, end = self._failures, Note(self._calls, type(error).__name__, line(error)), time.monotonic()
        if not isinstance(error, KeyboardInterrupt):  # which may come from anywhere, and at no time on all
            end += PATIENCE
            self._tell(FAILED, number, self.others, own)
        while time.monotonic() < end:
            self._listen()
            failed = self._of(FAILED, number)
            if len(failed) == len(self.others):
                return all(note[:2] == own[:2] for note in failed.values())
            if self._of(SOUND, number) or self._of(LEFT, 0).keys() - failed.keys():
                return False
            time.sleep(GLANCE)
        return False

    # Notes

    def _of(self, what: str, number: int) -> dict[int, Note]:
        return self.heard.get((what, number), {})

    def _tell(self, what: str, number: int, ranks: list[int], note: Note | None = None) -> None:
        self._sent = [request for request in self._sent if not request.Test()]
        said = (what, number, note or Note(self._calls))
        self._sent += [self.notes.isend(said, dest=rank, tag=TAG) for rank in ranks]

    def _listen(self) -> None:
        """Read what others have to say."""
        from mpi4py import MPI

        status = MPI.Status()
        while self.notes.iprobe(tag=TAG, status=status):
            what, number, note = self.notes.recv(source=status.source, tag=TAG)
            self.heard.setdefault((what, number), {})[status.source] = note

    # Ends

    def _end(self, text: str, speaker: int) -> NoReturn:
        """End all ranks; one of those that know why says it."""
        if self.comm.rank != speaker:
            time.sleep(GRACE)
        end(self.comm, text)

    def _uncaught(self, kind: type[BaseException], error: BaseException, trace: Any) -> None:
        """Say what nobody caught, and end all ranks: the others would wait for this one."""
        if id(error) == self._agreed and self.comm.rank:
            time.sleep(GRACE)  # the first rank says it for all
        self._hook(kind, error, trace)
        end(self.comm, error)

    def _leave(self) -> None:
        """Tell the others that this rank's program is over."""
        from mpi4py import MPI

        if not MPI.Is_finalized():
            self._tell(LEFT, 0, self.others)


def end(comm: Any, why: str | BaseException) -> NoReturn:
    """Say why, and end all ranks."""
    text = line(why) if isinstance(why, BaseException) else why
    say(f"xpnet: rank {comm.rank} ends all {comm.size} ranks: {text}")
    with suppress(AttributeError, OSError, ValueError):
        sys.stdout.flush()  # or what the program printed is lost
    time.sleep(HEARD)
    comm.Abort(1)
    raise SystemExit(1)


def line(error: BaseException) -> str:
    """Return an error's kind and the first line of its text."""
    text = "".join(traceback.format_exception_only(error)).strip()
    return (text.splitlines() or [type(error).__name__])[0][:1000]


def named(ranks: list[int]) -> str:
    """Return ranks as text."""
    return "rank " + " and rank ".join(map(str, ranks))


def say(text: str) -> None:
    """Write to stderr, if there is one."""
    try:
        print(text, file=sys.stderr, flush=True)
    except (AttributeError, OSError, ValueError):
        return
