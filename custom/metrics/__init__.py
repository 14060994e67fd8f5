"""Your metrics: `def mine(logits_NK, labels_N) -> scores_N`, one score per sample; their mean is the quality."""
