"""Your losses: `def mine(logits_BK, batch: limbeck.objectives.Batch, *, weight: float) -> Tensor`."""
