"""Your int8 schemes: `def mine(*, is_qat: bool, reduce_range: bool) -> a quantizer of torchao's PT2E`."""
