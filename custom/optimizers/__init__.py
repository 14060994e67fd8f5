"""Your optimizers: `def mine(parameters, lr, weight_decay, *, momentum: float) -> torch.optim.Optimizer`."""
