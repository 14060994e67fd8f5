"""Your int8 schemes and observers.

A scheme is `def mine(quantization: Quantization) -> a quantizer of torchao's PT2E`, an observer
`def mine(*, its: settings) -> (a class of observers, the arguments of its own)`.
"""
