"""The training loop: epochs and calls of K steps, what they report, and where a run stands, so that it can go on."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from math import nan, prod
from operator import add
from typing import Any

import numpy as np

from xpnet import random
from xpnet.data.source import Block, Cut, Samples
from xpnet.errors import NonFiniteError
from xpnet.metrics import concluded, needs_all
from xpnet.training import evaluation
from xpnet.training.callbacks import Callbacks
from xpnet.training.history import History, Stopwatch
from xpnet.training.holder import Holder
from xpnet.training.interrupt import Interrupt
from xpnet.training.progress import Screen
from xpnet.training.state import Run
from xpnet.training.step import Outcome, Step
from xpnet.world import World


@dataclass(frozen=True)
class Loop:
    """Trains what `holder` holds until the run's last epoch, a callback's wish, Ctrl-C or an error.

    A step that is exchanged on the way, by a callback, is used from the next epoch on.
    """

    holder: Holder
    run: Run
    source: Samples
    held: Samples | None
    """Samples for validation."""
    callbacks: Callbacks
    screen: Screen
    keep: Callable[[bool], None]
    """`keep(now)` is called where the run can be saved, within an epoch with False."""

    @property
    def world(self) -> World:
        """Who trains together."""
        return self.holder.step.world

    def train(self) -> History:
        """Train; return the history. NonFiniteError for a step that is not sound."""
        history = self.run.history
        history.stopped = None
        try:
            self.callbacks.begin(self.run)
            self._epochs(history)
        finally:
            over = self.holder.state.epoch >= self.run.until
            if over:
                self.holder.run = None
            self.callbacks.end(history)
        if over:
            self.keep(True)
        return history

    def _epochs(self, history: History) -> None:
        run, holder = self.run, self.holder
        with self.screen, Interrupt() as interrupt:
            while not (asked := self._asked(interrupt)) and holder.state.epoch < run.until:
                epoch = holder.state.epoch - run.first + 1
                self.screen.begin(epoch, run.until - run.first, self.source.count)
                done = self._epoch(interrupt)
                asking = self.callbacks.epoch(history) if done else []
                # a callback may have changed it, on one rank alone
                self.world.check({"the optimizer": lambda: repr(holder.step.optimizer)})
                if stops := [one for each in self.world.gather(asking) for one in each]:
                    history.stopped = history.stopped or f"{stops[0]} asked for it"
                    run.until = holder.state.epoch
                self._note(True)
            if asked:
                history.stopped = "Ctrl-C"

    def _asked(self, interrupt: Interrupt) -> bool:
        """Whether somebody asked to stop, on whatever rank."""
        interrupt.asked = self.world.any(interrupt.asked) or interrupt.asked
        return interrupt.asked

    def _epoch(self, interrupt: Interrupt) -> bool:
        """Train over the rest of the epoch's samples; return whether it was finished, and add it to the history."""
        run, n = self.run, self.source.count
        step = self._paced().on(self.source, run.batch_size if run.accumulate > 1 else None)
        cut = Cut(run.batch_size * run.accumulate, step.net.size, step.work(self.source.like))
        self.screen.advance(run.position, dict)
        world = self.world  # by itself: a source that knew this loop would keep its data until the next collection
        self.source.given_up = lambda: interrupt.asked and world.size == 1  # others wait for its batches
        self.source.share = world.share
        blocks = self.source.blocks(step.seed, self.holder.state.epoch, run.position, cut)
        for block in self.world.alike(blocks, lambda block: f"{len(block.batches)} of {block.batches.shape[1]}"):
            with self.holder:
                new = self._block(step, block)
            self.screen.advance(block.batches.size, lambda: self._means(step, run.sums, run.weights))
            if self.callbacks.stepwise:
                self.callbacks.step(self._numbers(step, new.sum(axis=1)))
            if run.position != n:
                self._note(False)
                if self._asked(interrupt):
                    return False
        if run.position != n and self._asked(interrupt):  # a source was waited for
            return False
        samples = run.position
        with self.holder:
            self._conclude(step)
        self.screen.conclude(run.history, self.holder.state.t, samples)
        return True

    def _paced(self) -> Step:
        """Return the step, its schedule told how many steps an epoch has."""
        step, state, run = self.holder.step, self.holder.state, self.run
        batch = run.batch_size * run.accumulate
        steps, done = self.source.steps(batch), -(-run.position // batch)
        whole = None if steps is None else state.t - done + (run.until - state.epoch) * steps
        optimizer = step.optimizer.paced(steps, whole)
        if optimizer is not step.optimizer:
            with self.holder as holder:
                step = holder.step = replace(step, optimizer=optimizer, compiled=None)
        return step

    def _block(self, step: Step, block: Block) -> np.ndarray:
        """Do K steps, add up what they report, and return it. NonFiniteError for the first that is not sound."""
        run, new = self.run, np.zeros((0, 0))
        with Stopwatch() as watch:
            outcome = step.many(self.holder.state, *block, partial(self._foresee, len(block.batches)))
        self.holder.state = outcome.state
        if len(outcome.sizes):
            new = self._add(step, outcome)
        run.position += len(outcome.sizes) * block.batches.shape[1]
        run.seconds += watch.seconds
        if outcome.problem is not None:
            raise NonFiniteError(outcome.problem)
        return new

    def _foresee(self, count: int) -> None:
        """Draw what comes next, after so many steps: the keys of as many, and the order of the next epoch."""
        state, seed = self.holder.state, self.holder.step.seed
        for t in range(state.t + count, state.t + 2 * count):
            random.step_key(seed, t)
        self.source.foresee(seed, state.epoch + 1)

    def _add(self, step: Step, outcome: Outcome) -> np.ndarray:
        """Add what steps report to the epoch's sums, one by one: however they are called together, to the same bits.

        Return what was added, (·, K): the numbers, each times what counts in its batch, then what counts.

        A metric that is not defined for a batch, such as ROC AUC for one of a single class, counts nothing there.
        """
        run, values, shapes = self.run, outcome.values, [(), (), *outcome.shapes]
        counts = np.full(values.shape, outcome.sizes)
        ranked = [False, False, *map(needs_all, step.metrics.values())]
        if any(ranked):
            rows = np.repeat(ranked, [prod(shape) for shape in shapes])
            counts = np.where(rows[:, None] & np.isnan(values), 0.0, counts)
        new = np.concatenate([np.where(counts == 0, 0.0, values) * counts, counts])
        after = [*run.sums, *run.weights] or [0.0] * len(new)
        for column in new.T.tolist():
            after = list(map(add, after, column))
        run.sums, run.weights, run.shapes = after[: len(values)], after[len(values) :], outcome.shapes
        return new

    def _numbers(self, step: Step, new: np.ndarray) -> dict[str, float]:
        """Return what K steps gave, of what they added up to."""
        half, rate = len(new) // 2, step.optimizer.rate(self.holder.state.t - 1)
        return {**self._means(step, new[:half], new[half:]), "learning_rate": rate}

    def _means(self, step: Step, sums: Any, weights: Any) -> dict[str, float]:
        """Return loss, gradient norm and metrics, means over batches by what counts in each, of their sums."""
        names, start, found = ("loss", "gradient_norm", *step.metrics), 0, {}
        means = [total / count if count else nan for total, count in zip(sums, weights, strict=True)]
        for name, shape in zip(names, [(), (), *self.run.shapes], strict=True):
            stop = start + prod(shape)
            mean = np.reshape(means[start:stop], shape) if shape else means[start]
            found[name] = concluded(step.metrics.get(name), mean)
            start = stop
        return found

    def _conclude(self, step: Step) -> None:
        """Count the epoch, and add it with its validation to the history."""
        run = self.run
        state = self.holder.state = self.holder.state._replace(epoch=self.holder.state.epoch + 1)
        rate, weight = step.optimizer.rate(state.t - 1), evaluation.max_weight(step, state)
        seconds = self.world.gather(run.seconds)[0]
        means = self._means(step, run.sums, run.weights)
        run.history.add(epoch=state.epoch, **means, learning_rate=rate, max_weight=weight, seconds=seconds)
        run.position, run.sums, run.weights, run.seconds = 0, [], [], 0.0
        if self.held is not None:
            scores = evaluation.score(step, state, self.held)
            run.history.add(**{f"val_{key}": value for key, value in scores.items()})

    def _note(self, now: bool) -> None:
        self.callbacks.note(self.run)
        self.keep(now)
