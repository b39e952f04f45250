"""Where ranks wait for each other, and for no longer than makes sense: a rank that fails, leaves or stalls is named.

Every operation of MPI on all ranks is preceded by a barrier that is asked again and again whether it is over; in
between a rank reads the notes of others. So none waits for one that never comes, and MPI's own calls, in which nothing
could be heard, find all ranks there.
"""

import atexit
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

PATIENCE = 10.0
"""Seconds that an error waits for the same one on all other ranks."""
GRACE = 1.0
"""Seconds for which a barrier may still turn out to be over after a rank was heard to have failed or left."""
GLANCE = 0.01
"""Seconds between looks at the notes of others."""
SPIN, LONG = 200, 1.0
"""Times that a barrier is asked at once, before others are let at the processor; seconds until they come first."""

FAILED, SOUND, LEFT, WAITING = "failed", "sound", "left", "waiting"


class Meeting:
    """The ranks of a communicator, which meet, and tell each other what keeps them from it."""

    def __init__(self, comm: Any, timeout: float) -> None:
        self.comm, self.notes, self.timeout = comm, comm.Dup(), timeout
        self.others = [rank for rank in range(comm.size) if rank != comm.rank]
        self.heard: dict[tuple[str, int], dict[int, str]] = {}
        """By kind and number the notes of each rank."""
        self._sent: list[Any] = []
        self._failures = self._calls = self._answered = 0
        self._what = ["the end of the program"]
        self._agreed: BaseException | None = None
        self._hook = sys.excepthook
        sys.excepthook = self._uncaught
        atexit.register(self._leave)

    # Meeting

    def meet(self) -> None:
        """Return when all ranks have come here; end them all if one cannot, or does not within the timeout."""
        self._calls += 1
        request, asked = self.comm.Ibarrier(), 0
        start = look = time.monotonic()
        heard = None
        while not request.Test():
            if (asked := asked + 1) < SPIN:
                continue
            now = time.monotonic()
            time.sleep(0 if now - start < LONG else GLANCE / 10)
            if now - look > GLANCE:
                look, absent = now, self._absent()
                heard = heard or (now if absent else None)
                if heard and now - heard > GRACE:
                    self._without(absent, now - heard)
                if now - start > self.timeout:
                    self._end(self._missing())

    def _absent(self) -> dict[int, str]:
        """Return which ranks cannot come, and why."""
        self._listen()
        left = self.heard.get((LEFT, 0), {})
        failed = self.heard.get((FAILED, self._failures + 1), {})
        ended = dict.fromkeys(left, f"ended its program while others wait for it in {self._what[-1]}")
        return ended | {rank: f"failed: {text}" for rank, text in failed.items() if rank not in left}

    def _without(self, absent: dict[int, str], waited: float) -> None:
        """Let a rank that failed know that this one did not; end them all, unless it does."""
        number = self._failures + 1
        failed = list(self.heard.get((FAILED, number), {}))
        if failed and self._answered < number:
            self._answered = number
            self._tell(SOUND, number, "", failed)
        if not failed or waited > PATIENCE:
            self._end("; ".join(f"rank {rank} {what}" for rank, what in absent.items()))

    def _missing(self) -> str:
        """Say which ranks did not come, by asking those who did to say so."""
        self._tell(WAITING, self._calls, "", self.others)
        end = time.monotonic() + GRACE
        while time.monotonic() < end:
            self._listen()
            time.sleep(GLANCE)
        absent = [rank for rank in self.others if rank not in self.heard.get((WAITING, self._calls), {})]
        return (
            f"rank {' and rank '.join(map(str, absent))} did not come to {self._what[-1]} within {self.timeout:g} s: "
            "all ranks must call it alike; XPNET_WORLD_TIMEOUT sets the seconds"
        )

    # Errors

    @contextmanager
    def together(self, what: str) -> Iterator[None]:
        """The context of what all ranks do. An error that all of them meet alike goes up, any other ends them all."""
        self._what.append(what)
        try:
            yield
        except BaseException as error:
            text = "".join(traceback.format_exception_only(error)).strip()[:1000]
            if not self._all_failed(text):
                self._end("".join(traceback.format_exception(error)).rstrip(), f"in {what}")
            self._agreed = error
            raise
        finally:
            self._what.pop()

    def _all_failed(self, text: str) -> bool:
        """Whether all other ranks say that they failed in the same way."""
        self._failures += 1
        number, end = self._failures, time.monotonic() + PATIENCE
        self._tell(FAILED, number, text, self.others)
        while time.monotonic() < end:
            self._listen()
            alike = self.heard.get((FAILED, number), {})
            if len(alike) == len(self.others):
                return set(alike.values()) <= {text}
            if self.heard.get((SOUND, number)) or self.heard.get((LEFT, 0)):
                return False
            time.sleep(GLANCE)
        return False

    # Notes

    def _tell(self, kind: str, number: int, text: str, ranks: list[int]) -> None:
        self._sent = [request for request in self._sent if not request.Test()]
        self._sent += [self.notes.isend((kind, number, text), dest=rank) for rank in ranks]

    def _listen(self) -> None:
        """Read what others have to say."""
        from mpi4py import MPI

        status = MPI.Status()
        while self.notes.iprobe(status=status):
            kind, number, text = self.notes.recv(source=status.source)
            self.heard.setdefault((kind, number), {})[status.source] = text

    # Ends

    def _end(self, text: str, where: str = "") -> NoReturn:
        """Say why, and end all ranks."""
        say(f"xpnet: rank {self.comm.rank} ends all {self.comm.size} ranks{where and f', it failed {where}'}: {text}")
        self.comm.Abort(1)
        raise SystemExit(1)

    def _uncaught(self, kind: type[BaseException], error: BaseException, trace: Any) -> None:
        """Say what nobody caught, and end all ranks: the others would wait for this one."""
        if error is self._agreed and self.comm.rank:
            time.sleep(GRACE)  # the first rank says it for all
        self._hook(kind, error, trace)
        say(f"xpnet: rank {self.comm.rank} ends all {self.comm.size} ranks")
        self.comm.Abort(1)

    def _leave(self) -> None:
        """Tell the others that this rank's program is over."""
        self._tell(LEFT, 0, "", self.others)


def say(text: str) -> None:
    """Write to stderr, if there is one."""
    try:
        print(text, file=sys.stderr, flush=True)
    except (AttributeError, OSError, ValueError):
        return
