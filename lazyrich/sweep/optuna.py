"""Optuna as a proposer of settings, by its own ask and tell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lazyrich.errors import SweepError
from lazyrich.sweep.trial import Outcome, Settings

MARK = "lazyrich"  # what the study keeps of an outcome that it was told


class Proposals:
    """Settings that an Optuna study asks for, for ``sweep``.

    With a seeded sampler the same call asks the same questions, whose answers are in the store: it continues. A study that is
    stored continues too: what it was told is proposed again, so that the results are whole, and not told twice; the sampler is
    seeded anew, for the old seed would ask what was asked before.

    Args:
        study: an ``optuna.Study``.
        space: from Optuna's trial to settings.
        value: of what the function returns, which the study optimises.
        trials: in all, with those that the study has finished.
        batch: proposed at a time.

    A sampler that has nothing left to try (a grid, brute force) ends the search before that many trials. Where the sweep is
    interrupted, the study hears of what is finished, and of the rest as failed.

    Raises:
        SweepError: for numbers below 1.

    Example::

        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
        propose = Proposals(study, lambda t: {"lr": t.suggest_float("lr", 1e-4, 1.0, log=True)}, "loss", trials=40)
        sweep(train, propose, "runs/tuned")
        study.best_params
    """

    def __init__(self, study: Any, space: Callable[[Any], Settings], value: str, trials: int, batch: int = 4) -> None:
        if trials < 1 or batch < 1:
            raise SweepError(f"got trials={trials}, batch={batch}, expected at least 1")
        if len(study.directions) != 1:
            raise SweepError(f"got a study of {len(study.directions)} objectives, expected one; optimise one value")
        self.study, self.space, self.value, self.batch = study, space, value, batch
        finished = [t for t in study.get_trials(deepcopy=False) if t.state.name == "COMPLETE" or MARK in t.user_attrs]
        self.left = max(0, trials - len(finished))
        self._again = [t.user_attrs[MARK] for t in finished if MARK in t.user_attrs]
        self._asked: list[Any] = []
        self._known: list[str] = []  # keys of what was proposed again
        if finished:
            study.sampler.reseed_rng()

    def __call__(self, outcomes: Sequence[Outcome]) -> list[Settings]:
        """Tell the study what came of the last proposals, and ask for the next."""
        if self._known and self._known != [outcome.key for outcome in outcomes]:
            raise SweepError(
                "the study was told outcomes of another function or of older code; give a new study, or name= and code= of that one"
            )
        for outcome in [] if self._known else outcomes:
            self._hear(outcome)
        again, self._again = self._again[: self.batch], self._again[self.batch :]
        self._known = [known["key"] for known in again]
        if again:
            return [known["settings"] for known in again]
        size = min(self.batch, self.left, self._untried())
        self.left -= size
        return self._ask(size)

    def _ask(self, size: int) -> list[Settings]:
        from optuna.trial import TrialState

        asked: list[Any] = []
        try:
            for _ in range(size):
                asked.append(self.study.ask())
            settings = [self._settings(one) for one in asked]
        except BaseException:
            for one in asked:
                self._tell(one, None, TrialState.FAIL)
            raise
        self._asked = asked
        return settings

    def stop(self, outcomes: Sequence[Outcome | None]) -> None:
        """The sweep was interrupted: the study is told of the last proposals what is known of them, else that they failed."""
        from optuna.trial import TrialState

        left = outcomes[len(outcomes) - len(self._asked) :]
        for outcome in left if not self._known and len(left) == len(self._asked) else []:
            if outcome is None or (outcome.status == "done" and not _number(outcome.value.get(self.value))):
                self._tell(self._asked.pop(0), None, TrialState.FAIL)
            else:
                self._hear(outcome)
        while self._asked:
            self._tell(self._asked.pop(), None, TrialState.FAIL)

    def _hear(self, outcome: Outcome) -> None:
        """What came of the proposal that waits longest."""
        from optuna.trial import TrialState

        result = None
        if outcome.status == "done":
            result = outcome.value.get(self.value)
            if result is None:
                raise SweepError(f"the function did not return '{self.value}'; it returned {', '.join(outcome.value)}")
            if not _number(result):
                raise SweepError(f"'{self.value}' is {result!r}, expected a number to tell the study")
        asked = self._asked.pop(0)
        asked.set_user_attr(MARK, {"key": outcome.key, "settings": outcome.settings})
        self._tell(asked, result, TrialState.FAIL if result is None else None)

    def _untried(self) -> int:
        """How many points a grid has left; Optuna would try some of them twice where several are asked for at a time."""
        points = getattr(self.study.sampler, "_n_min_trials", None)  # no public name tells it
        if points is None:
            return self.batch
        begun = sum(t.state.name != "WAITING" for t in self.study.get_trials(deepcopy=False))
        return max(points - begun, int(not self.study.sampler.is_exhausted(self.study)))

    def _tell(self, asked: Any, result: float | None, state: Any) -> None:
        try:
            self.study.tell(asked, result, state=state)
        except RuntimeError as error:  # what a sampler meets that stops the study once it has tried all; the result is kept
            if "Study.stop" not in str(error):
                raise
            self.left = 0

    def _settings(self, asked: Any) -> Settings:
        from optuna import TrialPruned

        try:
            return self.space(asked)
        except TrialPruned as error:
            raise SweepError(
                f"the space raised TrialPruned for Optuna's trial {asked.number}, expected settings; narrow what it suggests, or "
                f"let the function return a bad '{self.value}' for settings that are not worth a training"
            ) from error


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
