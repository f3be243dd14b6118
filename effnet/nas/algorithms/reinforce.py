"""Reinforcement learning of a policy over the decisions, as in MnasNet."""

from collections.abc import Sequence

import numpy as np

from effnet.nas.history import Trained
from effnet.nas.spaces.genomes import Batch, as_genome, generator, in_order, next_generation
from effnet.nas.spaces.space import Decision, Genome, Space

# Proximal policy optimization (Schulman et al. 2017, arXiv 1707.06347): steps on each generation, the range of the
# ratio of probabilities, the rate of Adam, and the weight of the entropy.
_STEPS, _CLIP, _RATE, _ENTROPY = 3, 0.2, 0.1, 0.02
# The baseline of the reward is a moving average of this weight on the past; advantages are in standard deviations.
_PAST, _MOST_ADVANTAGE = 0.9, 2.0
_DRAWS = 200


def propose_reinforce(history: Sequence[Trained], space: Space, *, number: int, seed: int) -> list[Genome]:
    """Return genomes drawn from a policy that was trained on the generations so far, again if one has no network.

    The policy has independent probabilities for each decision, where MnasNet (Tan et al. 2019, arXiv 1807.11626) has a
    recurrent network: a few dozen decisions need none. It is trained again from the history at each call.
    """
    batch, generation = Batch(history, space), next_generation(history)
    chances = np.exp(_log_softmax(_policy(in_order(history), space.decisions)))
    cumulated = np.cumsum(chances, axis=1)
    for slot in range(number):
        rng = generator(seed, generation, slot)
        drawn = (rng.random((_DRAWS, len(chances), 1)) * cumulated[:, -1:] > cumulated).sum(axis=2)
        if not any(batch.takes(as_genome(row)) for row in drawn) and not batch.takes_random(rng):
            break
    return batch.chosen


def _policy(history: Sequence[Trained], decisions: Sequence[Decision]) -> np.ndarray:
    """Return the logits of each decision's choices, a row a decision; minus infinity where there is no choice."""
    counts = np.array([len(decision.choices) for decision in decisions])
    logits = np.where(np.arange(counts.max()) < counts[:, None], 0.0, -np.inf)
    first, second, step = np.zeros_like(logits), np.zeros_like(logits), 0
    usual, rewards = None, []
    for generation in sorted({trained.generation for trained in history}):
        part = [trained for trained in history if trained.generation == generation]
        reward = np.array([trained.score for trained in part])
        rewards += reward.tolist()
        usual = reward.mean() if usual is None else usual
        spread = max(float(np.std(rewards)), 1e-9)
        advantage = np.clip((reward - usual) / spread, -_MOST_ADVANTAGE, _MOST_ADVANTAGE)
        usual = _PAST * usual + (1 - _PAST) * reward.mean()
        taken = np.array([trained.genome for trained in part])[:, :, None] == np.arange(counts.max())
        before = _log_softmax(logits)
        for _ in range(_STEPS):
            step += 1
            slope = _slope(logits, before, taken, advantage)
            first, second = 0.9 * first + 0.1 * slope, 0.99 * second + 0.01 * slope**2
            corrected = first / (1 - 0.9**step), second / (1 - 0.99**step)
            logits = logits + _RATE * corrected[0] / (np.sqrt(corrected[1]) + 1e-8)
    return logits


def _slope(logits: np.ndarray, before: np.ndarray, taken: np.ndarray, advantage: np.ndarray) -> np.ndarray:
    """Return the gradient of the clipped objective and of the entropy with respect to the logits.

    `taken` says which choice every network of a generation has: network x decision x choice.
    """
    logs = _log_softmax(logits)
    chances = np.exp(logs)
    finite = np.where(np.isfinite(logs), logs, 0.0)
    ratio = np.exp(np.where(taken, finite - np.where(np.isfinite(before), before, 0.0), 0.0).sum(axis=(1, 2)))
    clipped = np.where(advantage > 0, ratio > 1 + _CLIP, ratio < 1 - _CLIP)
    weight = np.where(clipped, 0.0, ratio * advantage) / len(advantage)
    entropy = -(chances * finite).sum(axis=1, keepdims=True)
    slope: np.ndarray = (weight[:, None, None] * (taken - chances)).sum(axis=0) - _ENTROPY * chances * (
        finite + entropy
    )
    return slope


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    logs: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return logs
