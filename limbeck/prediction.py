"""What networks answer, and their scores on prepared data."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from limbeck.data.prepared import SplitName
from limbeck.evaluation import Scorer, Scores
from limbeck.models.parallel import Workers, num_parts


def predict(model: nn.Module, x: NDArray[np.generic], batch_size: int = 64) -> NDArray[np.float32]:
    """A model's logits [N, K] for raw samples [N, ...], in evaluation mode, fp32, batch by batch, as many at once as torch has threads."""
    was_training = model.training
    model.eval()
    first = next(model.parameters(), None)
    device = first.device if first is not None else torch.device("cpu")

    def inputs(start: int, count: int) -> Tensor:
        return torch.from_numpy(np.array(x[start : start + count])).to(device)

    def answer(start: int) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = model(inputs(start, batch_size)).float().cpu().numpy()
        return logits

    with torch.inference_mode():
        num_batches = math.ceil(len(x) / batch_size)
        together = num_parts(model, inputs(0, batch_size), min(torch.get_num_threads(), num_batches))
        run = Workers(together).map if together > 1 else map
        logits = list(run(answer, range(0, len(x), batch_size)))
    model.train(was_training)
    return np.concatenate(logits)


class NetworkScorer(Scorer):
    """A metric on prepared data, for networks too."""

    def of_model(self, model: nn.Module, split: SplitName = "validation") -> Scores:
        """The scores of a network."""
        return self(lambda x: predict(model, x), split)

    def quality(self, model: nn.Module, split: SplitName = "validation") -> float:
        """The mean of a network's scores."""
        return float(self.of_model(model, split).mean())
