"""One contender in a process of its own: `python -m benchmarks.worker PEER SETTINGS MODULES HIDDEN`.

On stdin come commands: `epoch` trains once, `until 0.975 30` trains until the test accuracy is reached, for at most 30
epochs, `figures` tells what the device did in an epoch. Each is answered by one line of JSON. MODULES are imported
before memory is counted; HIDDEN cannot be.
"""

import json
import os
import sys
import time
from importlib import import_module
from typing import Any

from benchmarks.device import figures
from benchmarks.settings import Settings


def status(field: str) -> int:
    """Return this process's `VmRSS` (memory now) or `VmHWM` (its peak) in bytes."""
    try:
        with open("/proc/self/status", encoding="utf-8") as file:
            return next(1024 * int(line.split()[1]) for line in file if line.startswith(field))
    except OSError:  # no /proc: the peak stands for both
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak


def forget_peak() -> None:
    """Let the peak start again from now, so that what the imports needed in passing is not in it."""
    try:
        with open("/proc/self/clear_refs", "w", encoding="utf-8") as file:
            file.write("5")
    except OSError:
        pass


def train_once(epoch: Any) -> dict[str, Any]:
    """Train one epoch; tell the seconds, the loss and the peak of memory so far."""
    begun = time.perf_counter()
    loss = epoch()
    return {"seconds": time.perf_counter() - begun, "loss": loss, "peak": status("VmHWM")}


def train_until(epoch: Any, predict: Any, settings: Settings, goal: float, most: int) -> dict[str, Any]:
    """Train until the test accuracy reaches the goal; tell the seconds of the epochs, without judging."""
    images, labels = settings.test()
    accuracy, epochs, seconds = 0.0, 0, 0.0
    while accuracy < goal and epochs < most:
        seconds += train_once(epoch)["seconds"]
        epochs, accuracy = epochs + 1, float((predict(images) == labels).mean())
    return {"epochs": epochs, "accuracy": accuracy, "training": seconds}


def main() -> None:
    """Load the peer, then do what the lines on stdin say."""
    peer, text, modules, hidden = sys.argv[1:]
    sys.modules.update(dict.fromkeys(filter(None, hidden.split(","))))  # None: importing it is an ImportError
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print does not come between the answers

    def answer(values: dict[str, Any]) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    settings = Settings.from_json(text)
    prepare = import_module(f"benchmarks.peers.{peer}").prepare
    for module in filter(None, modules.split(",")):
        import_module(module)
    forget_peak()
    baseline = status("VmRSS")
    epoch, predict = prepare(settings)
    for line in sys.stdin:
        command, *words = line.split()
        if command == "epoch":
            answer(train_once(epoch) | {"baseline": baseline})
        elif command == "until":
            answer(train_until(epoch, predict, settings, float(words[0]), int(words[1])))
        elif command == "figures":
            answer(figures(epoch))


if __name__ == "__main__":
    main()
