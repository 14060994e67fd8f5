"""Several networks that answer as one: the logarithm of the weighted mean of their probabilities.

Averaging probabilities is the deep ensemble (Lakshminarayanan, Pritzel and Blundell 2017, Simple and Scalable
Predictive Uncertainty Estimation using Deep Ensembles, section 2.4), one of the two means that Hinton, Vinyals and
Dean (2015, section 1) distil. Unlike a mean of logits it does not listen more to the member whose logits are larger.
Legend: B batch, K classes, M members.
"""

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from limbeck.checkpoint import Spec
from limbeck.errors import CheckpointError

Whole = TypeVar("Whole", bound=nn.Module)


class Ensemble(nn.Module):
    """Members that take raw samples, each with its own preprocessing, behind a body's input [B, C, H, W] or [B, F]."""

    log_weights_M: Tensor

    def __init__(self, members: list[nn.Module], weights: list[float]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        shares = torch.tensor(weights, dtype=torch.float64)
        self.register_buffer("log_weights_M", (shares / shares.sum()).log().float(), persistent=False)

    def forward(self, samples: Tensor) -> Tensor:
        """[B, C, H, W] or [B, F], raw values -> log mean probabilities [B, K], which are logits."""
        raw = samples.permute(0, 2, 3, 1) if samples.dim() == 4 else samples
        logs = [
            member(raw).float().log_softmax(1) + self.log_weights_M[index] for index, member in enumerate(self.members)
        ]
        return torch.stack(logs).logsumexp(0)


def ensemble(
    shape: tuple[int, ...], num_classes: int, *, members: list[dict[str, Any]], weights: list[float]
) -> nn.Module:
    """The members' checkpoints' specs, one after the other, with a relative weight each."""
    from limbeck.models import build

    specs = [Spec.model_validate(member) for member in members]
    assert all(len(spec.classes) == num_classes for spec in specs), "members answer the same classes"
    return Ensemble([build(spec) for spec in specs], weights)


def spec_of(members: list[Spec], weights: list[float]) -> Spec:
    """The spec of an ensemble's own checkpoint: raw samples go through to members that normalize for themselves."""
    first = members[0]
    return Spec.model_validate(
        {
            "model": {
                "use": "ensemble",
                "members": [member.model_dump(mode="json") for member in members],
                "weights": weights,
            },
            "shape": first.shape,
            "dtype": first.dtype,
            "classes": first.classes,
            "mean": (0.0,),
            "std": (1.0,),
        }
    )


def member_of(spec: Spec, network: Whole, number: int) -> tuple[Spec, Whole]:
    """One member of an ensemble, counted from 1, with its weights and its own preprocessing.

    Raises:
        CheckpointError: it has fewer, or is none.

    """
    specs = spec.model.keywords["members"] if spec.model.use == "ensemble" else []
    if number > len(specs):
        found = f"the teacher has {len(specs)} members" if specs else "the teacher is one network"
        raise CheckpointError(
            f"student.model.member is {number}; {found}. "
            + (
                f"Choose one from 1 to {len(specs)}."
                if specs
                else "Leave member out, or take teacher: {use: ensemble}."
            )
        )
    member: Any = network.get_submodule(f"body.members.{number - 1}")
    return Spec.model_validate(specs[number - 1]), member
