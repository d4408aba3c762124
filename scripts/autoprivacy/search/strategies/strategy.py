"""What a search strategy is: it proposes levels and is given their rewards.

A strategy is a function of the problem, its settings and the rewards so far: everything random comes from the seed. So
a search that was killed goes on by telling a fresh strategy its past, and no strategy writes a state of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from autoprivacy.errors import UserError
from autoprivacy.search.problem import SearchProblem


@dataclass(frozen=True)
class StrategySettings:
    """What every strategy is given.

    Attributes:
        evaluations: how often it will be asked at most.
        seed: of everything random.
        warm_up: proposals at random before a strategy that learns begins to.
        allowed_loss: of accuracy against no errors at all, a fraction: policies that lose no more are as good as each
            other, and the fastest of them is wanted. None wants the highest reward.
    """

    evaluations: int
    seed: int
    warm_up: int = 20
    allowed_loss: float | None = None

    def __post_init__(self) -> None:
        if self.evaluations < 1 or self.warm_up < 0 or self.seed < 0 or not 0 <= (self.allowed_loss or 0) < 1:
            raise UserError(
                f"search: {self}; expected 1 or more evaluations, warm_up, seed of 0 or more, a loss of 0 to below 1"
            )


class Proposal(NamedTuple):
    """Levels to be evaluated.

    Attributes:
        levels: one per coordinate of the problem.
        probe: evaluate them as they are, also beyond the budget: a measurement. Otherwise the latency constraint
            brings them within the budget first.
    """

    levels: list[int]
    probe: bool = False


class Trial(NamedTuple):
    """Levels as they were evaluated, and their reward."""

    levels: list[int]
    reward: float


class Strategy(Protocol):
    """Proposes levels; `ask` and `tell` take turns."""

    def ask(self) -> Proposal | None:
        """The next proposal; None when there is nothing left to propose."""

    def tell(self, trial: Trial) -> None:
        """What became of the last proposal."""


Script = Generator[Proposal, Trial, None]


class ScriptedStrategy(ABC):
    """A strategy that is a plan: a generator that yields proposals and gets their trials.

    Attributes:
        expected: how many proposals are still expected, the present one among them, where the plan knows; None
            where it may take all evaluations.
    """

    def __init__(self, problem: SearchProblem, settings: StrategySettings) -> None:
        self.problem, self.settings = problem, settings
        self.expected: int | None = None
        self._script = self.script()
        self._next: Proposal | None = next(self._script, None)

    @abstractmethod
    def script(self) -> Script:
        """The plan; it may end before all evaluations are used."""

    def ask(self) -> Proposal | None:
        """What the plan proposes now; None at its end."""
        return self._next

    def tell(self, trial: Trial) -> None:
        """Go on with the plan."""
        try:
            self._next = self._script.send(trial)
        except StopIteration:
            self._next = None
