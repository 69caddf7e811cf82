"""Optuna as a proposer of settings, by its own ask and tell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lazyrich.errors import SweepError
from lazyrich.sweep.trial import Outcome, Settings


class Proposals:
    """Settings that an Optuna study asks for, for ``sweep``.

    With a seeded sampler the same call asks the same questions, whose answers are in the store: it continues.

    Args:
        study: an ``optuna.Study``.
        space: from Optuna's trial to settings.
        value: of what the function returns, which the study optimises.
        trials: in all.
        batch: proposed at a time.

    A sampler that has nothing left to try (a grid, brute force) ends the search before that many trials.

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
        self.study, self.space, self.value, self.left, self.batch = study, space, value, trials, batch
        self._asked: list[Any] = []

    def __call__(self, outcomes: Sequence[Outcome]) -> list[Settings]:
        """Tell the study what came of the last proposals, and ask for the next."""
        from optuna.trial import TrialState

        for asked, outcome in zip(self._asked, outcomes, strict=True):
            if outcome.status == "done" and outcome.value.get(self.value) is None:
                raise SweepError(f"the function did not return '{self.value}'; it returned {', '.join(outcome.value)}")
            result = outcome.value[self.value] if outcome.status == "done" else None
            if result is not None and (isinstance(result, bool) or not isinstance(result, (int, float))):
                raise SweepError(f"'{self.value}' is {result!r}, expected a number to tell the study")
            self._tell(asked, result, TrialState.FAIL if result is None else None)
        size = min(self.batch, self.left)
        self.left -= size
        self._asked = [self.study.ask() for _ in range(size)]
        return [self._settings(asked) for asked in self._asked]

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
