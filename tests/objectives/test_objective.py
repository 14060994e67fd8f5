import torch

from limbeck.objectives import Batch, on_head


def test_a_frozen_body_stays_in_evaluation_while_its_head_trains() -> None:
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 3), torch.nn.Dropout(0.5)).train()
    seen = []
    on_head(lambda m, _: seen.extend(part.training for part in m.children()) or torch.zeros(()), "1")(
        model, Batch(torch.zeros(2, 4), torch.tensor([0, 2]), None)
    )
    assert seen == [False, True, False]
