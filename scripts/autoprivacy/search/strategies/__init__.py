"""The search strategies by name; what each is stands in its module. A new one is a module and a line here."""

from __future__ import annotations

from collections.abc import Callable

from autoprivacy.errors import UserError
from autoprivacy.search.problem import SearchProblem
from autoprivacy.search.strategies.agent import AgentStrategy
from autoprivacy.search.strategies.baselines3 import BaselinesStrategy
from autoprivacy.search.strategies.blind import RandomSearch, Uniform
from autoprivacy.search.strategies.dynamic_programming import DynamicProgramming
from autoprivacy.search.strategies.greedy import Greedy
from autoprivacy.search.strategies.least_latency import LeastLatency
from autoprivacy.search.strategies.strategy import Strategy, StrategySettings
from autoprivacy.search.strategies.tree_parzen import TreeParzen

PAPER = "ddpg"
STRATEGIES: dict[str, Callable[[SearchProblem, StrategySettings], Strategy]] = {
    PAPER: AgentStrategy,
    "uniform": Uniform,
    "random": RandomSearch,
    "greedy": Greedy,
    "dynamic_programming": DynamicProgramming,
    "least_latency": LeastLatency,
    "optuna": TreeParzen,
    "stable-baselines3": BaselinesStrategy,
}


def make_strategy(name: str, problem: SearchProblem, settings: StrategySettings) -> Strategy:
    """The strategy of that name; UserError for an unknown one, and where a library that it needs is missing."""
    if name not in STRATEGIES:
        raise UserError(f"search strategy {name!r}: expected one of {', '.join(STRATEGIES)}")
    return STRATEGIES[name](problem, settings)
