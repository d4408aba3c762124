"""The search: episodes of the agent in the environment, resumable, and the reward by simulation and finetuning."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autoprivacy.data import Split
from autoprivacy.errors import UserError
from autoprivacy.policy import Policy
from autoprivacy.quantization.evaluation import Evaluator
from autoprivacy.quantization.integer_network import IntegerNetwork
from autoprivacy.search.ddpg import Agent
from autoprivacy.search.environment import LayerwiseEnvironment
from autoprivacy.search.errors import perturbation, simulated_shares
from autoprivacy.search.finetuning import FinetuneSettings, finetune, network_digest
from autoprivacy.storage import atomic_write


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        policy: the best policy, its layers' targets among it.
        exponents: its decryption error rates, 2^-exponent, one per layer.
        reward: its reward, -error as a fraction.
        latency_seconds: the sum of its layers' predicted latencies.
        history: one row per episode, for a CSV; the same for the same seed.
        seconds: time spent, over all runs that a kill separated.
    """

    policy: Policy
    exponents: list[int]
    reward: float
    latency_seconds: float
    history: list[dict[str, Any]]
    seconds: float


@dataclass(frozen=True)
class ExplorationSplits:
    """The images of the search: `finetune` to finetune with, `evaluate` to reward by; no image is in both."""

    finetune: Split
    evaluate: Split


def exploration_splits(
    train: Split, categories: int, finetune_images: int, evaluation_images: int, seed: int
) -> ExplorationSplits:
    """Draw the exploration subset from the training split: random categories (the paper: 2 of CIFAR-10's 10, 10 of
    CIFAR-100's 100) and disjoint random images of them.

    The test split takes no part in the search. Raises UserError when there are not that many categories or images.
    """
    labels = np.unique(train.labels)
    if not 1 <= categories <= len(labels):
        raise UserError(f"search categories: got {categories}; expected 1 to the {len(labels)} of the data set")
    generator = np.random.default_rng(seed)
    usable = np.flatnonzero(np.isin(train.labels, generator.choice(labels, categories, replace=False)))
    wanted = finetune_images + evaluation_images
    if finetune_images < 1 or evaluation_images < 1 or wanted > len(usable):
        raise UserError(
            f"search images: got {finetune_images} to finetune with and {evaluation_images} to evaluate on; expected "
            f"at least 1 of each and at most {len(usable)} together, which {categories} categories have"
        )
    chosen = generator.permutation(usable)[:wanted]
    return ExplorationSplits(train.take(chosen[:finetune_images]), train.take(chosen[finetune_images:]))


class FinetunedReward:
    """R = -error after finetuning with one half of the simulated errors, measured with the other half.

    The reward of a policy is a function of its deployed sets and the seed alone, so it can be cached and resumed.

    Args:
        network: the integer network.
        splits: the images to finetune with and to measure on.
        settings: of the finetuning; zero epochs measure the network as it is.
        seed: of errors, order and augmentation; the same for every policy, which compares them on equal terms.
    """

    def __init__(
        self, network: IntegerNetwork, splits: ExplorationSplits, settings: FinetuneSettings, seed: int
    ) -> None:
        if not len(splits.evaluate.labels):
            raise UserError("search: no image to evaluate on; choose categories or image numbers that leave some")
        self.network, self.splits, self.settings, self.seed = network, splits, settings, seed

    @property
    def fingerprint(self) -> str:
        """What the rewards depend on beside the policy."""
        parts = [network_digest(self.network).encode(), repr((self.settings, self.seed)).encode()]
        for split in (self.splits.finetune, self.splits.evaluate):
            parts += [split.images.tobytes(), split.labels.tobytes()]
        return hashlib.sha256(b"".join(parts)).hexdigest()

    def __call__(self, policy: Policy) -> float:
        """The reward of a policy, from -1 to 0."""
        architecture = self.network.architecture
        errors = perturbation(policy, architecture, "finetune", self.seed)
        network = finetune(self.network, self.splits.finetune, errors, self.settings, self.seed)
        residues = policy.residues(architecture)
        evaluator = Evaluator(network, residues, simulated_shares("evaluate", self.seed))
        errors = perturbation(policy, architecture, "evaluate", self.seed)
        accuracy = evaluator.accuracy(self.splits.evaluate, perturb=errors)
        return accuracy / 100 - 1


class _Search:
    """A search's progress, in memory and on disk."""

    def __init__(self, environment: LayerwiseEnvironment, agent: Agent, state_file: Path | None) -> None:
        self.environment, self.agent, self.state_file = environment, agent, state_file
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {}
        self.seconds = 0.0
        self.identity = self._identity()
        if state_file is not None and state_file.exists():
            self._resume(state_file)

    def _identity(self) -> dict[str, Any]:
        environment = self.environment
        sets = [asdict(environment.policy([e] * len(environment.names))) for e in environment.rates.exponents]
        return {
            "agent": asdict(self.agent.settings),
            "seed": self.agent.seed,
            "rates": asdict(environment.rates),
            "reward": environment.reward_of.fingerprint,
            "budget_seconds": environment.budget_seconds,
            "sets": hashlib.sha256(json.dumps(sets, sort_keys=True).encode()).hexdigest(),
        }

    def _resume(self, state_file: Path) -> None:
        state = torch.load(state_file, weights_only=True)
        different = [key for key, value in self.identity.items() if state["identity"].get(key) != value]
        if different:
            raise UserError(f"{state_file}: belongs to a search with other {different}; remove it to start afresh")
        self.agent.load_state_dict(state["agent"])
        self.environment.rewards.update(state["rewards"])
        self.history, self.best, self.seconds = state["history"], state["best"], state["seconds"]
        logging.info("search goes on after episode %d", len(self.history))

    def save(self) -> None:
        """Write the state where one was asked for; a kill leaves the old or the new one."""
        if self.state_file is None:
            return
        state = {
            "identity": self.identity,
            "agent": self.agent.state_dict(),
            "rewards": self.environment.rewards,
            "history": self.history,
            "best": self.best,
            "seconds": self.seconds,
        }
        with atomic_write(self.state_file) as stream:
            torch.save(state, stream)

    def episode(self) -> None:
        """Play one episode, let the agent learn from it and note it."""
        noise = self.agent.noise
        observation, _ = self.environment.reset()
        finished, reward = False, 0.0
        info: dict[str, Any] = {}
        while not finished:
            action = np.array([self.agent.act(observation)], np.float32)
            observation, reward, finished, _, info = self.environment.step(action)
        self.agent.finish_episode(self.environment.transitions(info["actions"], reward))
        self._note(reward, info, noise)

    def _note(self, reward: float, info: dict[str, Any], noise: float) -> None:
        latency = info["latency_seconds"]
        if not self.best or (reward, -latency) > (self.best["reward"], -self.best["latency_seconds"]):
            self.best = {"reward": reward, "latency_seconds": latency, "exponents": list(info["exponents"])}
        self.history.append(
            {
                "episode": len(self.history) + 1,
                "reward": reward,
                "latency_seconds": latency,
                "best_reward": self.best["reward"],
                "best_latency_seconds": self.best["latency_seconds"],
                "noise": noise,
                "exponents": " ".join(str(e) for e in info["exponents"]),
            }
        )

    def result(self) -> SearchResult:
        """The best of all episodes so far."""
        best = self.best
        policy = self.environment.policy(best["exponents"])
        return SearchResult(
            policy, best["exponents"], best["reward"], best["latency_seconds"], self.history, self.seconds
        )


def run_search(
    environment: LayerwiseEnvironment, agent: Agent, episodes: int, state_file: Path | None = None
) -> SearchResult:
    """Play `episodes` episodes and return the policy of the highest reward, among equals the fastest.

    After each episode the state is written to `state_file`; a search that was killed goes on from it and has the same
    history as one that was not. Raises UserError for a state file of another search.
    """
    if episodes < 1:
        raise UserError(f"search episodes: got {episodes}; expected 1 or more")
    search = _Search(environment, agent, state_file)
    while len(search.history) < episodes:
        started = time.monotonic()
        search.episode()
        search.seconds += time.monotonic() - started
        search.save()
        row, done = search.history[-1], len(search.history)
        logging.info(
            "episode %d of %d: error %.2f%%, latency %.4g s; best %.2f%%, %.4g s; %.1f minutes left",
            done,
            episodes,
            -100 * row["reward"],
            row["latency_seconds"],
            -100 * row["best_reward"],
            row["best_latency_seconds"],
            search.seconds / done * (episodes - done) / 60,
        )
    return search.result()
