"""Your metrics: `def mine(logits_NK, labels_N) -> scores_N`, one score per sample; their mean is the quality.

One that plays instead is marked `@limbeck.evaluation.played` and takes (answers, world, split); see `episode_return` there.
"""
