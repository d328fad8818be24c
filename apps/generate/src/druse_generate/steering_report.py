"""What steering cost and came to, and the crystals that it could not reward."""

from collections.abc import Sequence
from typing import Any

from druse_generate.generating import Draw


def steering_report(draws: Sequence[Draw]) -> dict[str, Any]:
    """Numbers of rewards and gradients asked for, the mean reward, and how many crystals have none; failed ones aside.

    The mean is over the crystals that have a reward; null if none has.
    """
    found, missing = _rewards(draws)
    return {
        "rewards_asked_for": sum(draw.rewards for draw in draws),
        "gradients_asked_for": sum(draw.gradients for draw in draws),
        "mean_reward": sum(found) / len(found) if found else None,
        "crystals_without_reward": missing,
    }


def missing_rewards(draws: Sequence[Draw], name: str) -> str:
    """A sentence if some crystals have no reward; empty otherwise.

    Args:
        draws: of the run.
        name: of the reward.

    Raises:
        ValueError: if there are crystals, and none has one.
    """
    found, missing = _rewards(draws)
    if not missing:
        return ""
    if not found:
        raise ValueError(
            f"{name} gave none of the {missing} crystals a reward that is a finite number: correct it, or steer by "
            "another one, in another folder"
        )
    return (
        f"{missing} of {missing + len(found)} crystals have no reward, since {name} gave no finite number for any of "
        "their particles: the mean reward leaves them out; take more particles, or let it give a low number instead"
    )


def _rewards(draws: Sequence[Draw]) -> tuple[list[float], int]:
    """The rewards of crystals, and how many have none."""
    rewards = [draw.reward for draw in draws if draw.crystal is not None]
    found = [reward for reward in rewards if reward is not None]
    return found, len(rewards) - len(found)
