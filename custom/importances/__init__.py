"""Your pruning criteria: `def mine() -> torch_pruning.importance.Importance`."""
