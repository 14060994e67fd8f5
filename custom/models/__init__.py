"""Your networks: `def my_model(shape, num_classes, *, width: int) -> torch.nn.Module`.

`shape` is that of one preprocessed sample ([C, H, W] or [F]); give every activation a module of its own.
"""
