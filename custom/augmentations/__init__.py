"""Your augmentations: `def mine(*, strength: float) -> limbeck.data.augment.Augment` (docs/components.md)."""
