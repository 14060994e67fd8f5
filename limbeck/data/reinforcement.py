"""A policy that learned by reinforcement: proximal policy optimization (Schulman et al. 2017, arXiv:1707.06347).

Compact and seeded, for the classic-control tasks of gymnasium in CPU minutes. Actor and critic are two networks of the
zoo's `mlp`, so that the actor is a checkpoint like any other. Legend: E environments, T steps, F features, K actions.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt

from limbeck.components import Component
from limbeck.data.worlds import opened
from limbeck.params import Beta, Section, Share

if TYPE_CHECKING:
    from torch import Tensor, nn

LONGEST_STEP = 0.5
"""Norm to which gradients are clipped."""


class PPO(Section):
    """Its settings.

    Attributes:
        width, depth: of actor and critic, hidden layers as in `{use: mlp}`.
        steps: decisions, of all environments together.
        hold: for how many moments a decision stands while it learns (Mnih et al. 2015 skip frames so): chance then
            goes farther, far enough to meet a reward that is rare. What it learned decides anew at every moment.
        environments: played side by side.
        horizon: steps of each between two updates.
        epochs: passes over what was played, per update.
        batch_size: of a pass, in steps.
        lr: Adam's at the beginning; it falls to 0 in a straight line.
        discount: gamma of later rewards.
        smoothing: lambda of the generalized advantages (Schulman et al. 2016, eq. 16).
        clip: how far the ratio of probabilities may leave 1 (eq. 7).
        entropy: weight of the policy's entropy (eq. 9), which keeps it trying.

    """

    width: PositiveInt
    depth: PositiveInt
    steps: PositiveInt
    hold: PositiveInt
    environments: PositiveInt
    horizon: PositiveInt
    epochs: PositiveInt
    batch_size: PositiveInt
    lr: PositiveFloat
    discount: Beta
    smoothing: Beta
    clip: Share
    entropy: Annotated[float, Field(ge=0)]


class Learned:
    """The actor, and the normalization [F] that its observations get."""

    def __init__(self, settings: PPO, actor: "nn.Module", mean: NDArray[np.float32], std: NDArray[np.float32]) -> None:
        self.settings, self.actor, self.mean, self.std = settings, actor, mean, std

    def answers(self, observations_EF: NDArray[Any]) -> NDArray[np.float32]:
        """Logits [E, K] of its action distribution."""
        import torch

        with _one_thread(), torch.inference_mode():
            logits: NDArray[np.float32] = self.actor(torch.from_numpy((observations_EF - self.mean) / self.std)).numpy()
        return logits

    def save(self, folder: Path, shape: tuple[int, ...], classes: tuple[str, ...]) -> None:
        """Write it as a checkpoint, for `teacher: {use: checkpoint}`."""
        from limbeck import checkpoint

        model = Component.model_validate({"use": "mlp", "width": self.settings.width, "depth": self.settings.depth})
        mean, std = (tuple(float(value) for value in values) for values in (self.mean, self.std))
        spec = checkpoint.Spec(model=model, shape=shape, dtype="float32", classes=classes, mean=mean, std=std)
        checkpoint.save(folder, spec, {f"body.{name}": value for name, value in self.actor.state_dict().items()})


def learn(environment: str, settings: PPO, seed: int) -> Learned:
    """Train a policy; the same seed gives the same bits.

    Raises:
        DataError: see `worlds.opened`.

    """
    import torch

    with _one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _Learning(environment, settings, seed).run()


class _Learning:
    """One training: environments that go on, actor, critic."""

    def __init__(self, environment: str, settings: PPO, seed: int) -> None:
        import torch

        self.settings, self.chance = settings, np.random.default_rng(seed)
        self.envs = [opened(environment) for _ in range(settings.environments)]
        self.seen = np.stack([env.reset(seed=seed + i)[0] for i, env in enumerate(self.envs)]).astype(np.float32)
        num_features, num_actions = self.seen.shape[1], int(self.envs[0].action_space.n)
        self.mean, self.std = self._look_round(num_actions)
        self.actor = _network(num_features, num_actions, settings, gain=0.01)
        self.critic = _network(num_features, 1, settings, gain=1.0)
        self.optimizers = [
            torch.optim.Adam(net.parameters(), lr=settings.lr, eps=1e-5) for net in (self.actor, self.critic)
        ]

    def run(self) -> Learned:
        """Play and learn by turns."""
        settings = self.settings
        turns = max(1, settings.steps // (settings.environments * settings.horizon))
        for turn in range(turns):
            for optimizer in self.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = settings.lr * (1 - turn / turns)
            self._improve(*self._experience())
        for env in self.envs:
            env.close()
        return Learned(settings, self.actor.eval(), self.mean, self.std)

    def _look_round(self, num_actions: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean and spread of what random actions meet, per feature, over one horizon."""
        met = []
        for _ in range(self.settings.horizon):
            met.append(self.seen.copy())
            self._act(self.chance.integers(num_actions, size=len(self.envs)))
        values = np.concatenate(met)
        return values.mean(0), np.maximum(values.std(0), 1e-3)

    def _act(self, actions_E: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.bool_], list[Any]]:
        """One decision of each: rewards [E], whose episode is over [E], and the last observation of those cut off by time."""
        rewards, over = np.zeros(len(self.envs), np.float32), np.zeros(len(self.envs), bool)
        cut_off: list[Any] = []
        for index, env in enumerate(self.envs):
            for _ in range(self.settings.hold):
                seen, reward, terminated, truncated, _ = env.step(int(actions_E[index]))
                rewards[index] += reward
                if terminated or truncated:
                    over[index] = True
                    break
            if truncated and not terminated:
                cut_off.append((index, seen))
            self.seen[index] = env.reset()[0] if over[index] else seen
        return rewards, over, cut_off

    def _scaled(self, observations: NDArray[Any]) -> "Tensor":
        import torch

        return torch.from_numpy((observations - self.mean) / self.std)

    def _experience(self) -> tuple["Tensor", ...]:
        """Play one horizon: observations, actions, their log-probabilities, advantages and returns, all [T * E, ...]."""
        import torch

        settings = self.settings
        observations, actions, chances, values, rewards, overs = [], [], [], [], [], []
        with torch.no_grad():
            for _ in range(settings.horizon):
                inputs = self._scaled(self.seen)
                told = self.actor(inputs).log_softmax(1)
                drawn = torch.multinomial(told.exp(), 1)
                observations.append(inputs)
                actions.append(drawn[:, 0])
                chances.append(told.gather(1, drawn)[:, 0])
                values.append(self.critic(inputs)[:, 0])
                reward, over, cut_off = self._act(drawn[:, 0].numpy())
                for index, last in cut_off:  # time ran out, the task did not end: what would have followed counts
                    reward[index] += settings.discount * self.critic(self._scaled(last[None].astype(np.float32))).item()
                rewards.append(torch.from_numpy(reward))
                overs.append(torch.from_numpy(over).float())
            following = self.critic(self._scaled(self.seen))[:, 0]
        advantages, advantage = [], torch.zeros(len(self.envs))
        for value, reward_E, over_E in zip(reversed(values), reversed(rewards), reversed(overs), strict=True):
            surprise = reward_E + settings.discount * following * (1 - over_E) - value
            advantage = surprise + settings.discount * settings.smoothing * (1 - over_E) * advantage
            advantages.append(advantage)
            following = value
        flat = [torch.cat(parts) for parts in (observations, actions, chances, advantages[::-1], values)]
        return (*flat[:4], flat[3] + flat[4])

    def _improve(
        self, observations: "Tensor", actions: "Tensor", before: "Tensor", advantages: "Tensor", returns: "Tensor"
    ) -> None:
        """Several passes over what was played: the clipped objective (eq. 7) and the critic's squared error."""
        import torch
        from torch.nn import functional

        settings = self.settings
        for _ in range(settings.epochs):
            for rows in torch.split(torch.randperm(len(actions)), settings.batch_size):
                told = self.actor(observations[rows]).log_softmax(1)
                ratio = (told.gather(1, actions[rows][:, None])[:, 0] - before[rows]).exp()
                gain = advantages[rows]
                gain = (gain - gain.mean()) / (gain.std(correction=0) + 1e-8)
                bounded = ratio.clamp(1 - settings.clip, 1 + settings.clip)
                entropy = -(told.exp() * told).sum(1).mean()
                loss = -torch.minimum(ratio * gain, bounded * gain).mean() - settings.entropy * entropy
                error = functional.mse_loss(self.critic(observations[rows])[:, 0], returns[rows])
                for net, optimizer, value in zip(
                    (self.actor, self.critic), self.optimizers, (loss, error), strict=True
                ):
                    optimizer.zero_grad()
                    value.backward()
                    torch.nn.utils.clip_grad_norm_(net.parameters(), LONGEST_STEP)
                    optimizer.step()


def _network(num_features: int, num_outputs: int, settings: PPO, *, gain: float) -> "nn.Module":
    """Layers as `{use: mlp}` has them, under its names, orthogonal at the start; `gain` is the head's."""
    from torch import nn

    widths = [num_features, *(settings.width,) * settings.depth]
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    head = nn.Linear(widths[-1], num_outputs)
    for layer in (*layers, head):
        if isinstance(layer, nn.Linear):
            nn.init.orthogonal_(layer.weight, gain if layer is head else 2**0.5)
            nn.init.zeros_(layer.bias)

    class Policy(nn.Sequential):
        """`layers` and `head`."""

    policy = Policy()
    policy.add_module("layers", nn.Sequential(*layers))
    policy.add_module("head", head)
    return policy


@contextmanager
def _one_thread() -> Iterator[None]:
    """How many threads add up is part of the bits."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
