"""Structured pruning: whole channels go, and what depends on them follows; or whole blocks.

    importances   how much a channel matters
    cutting       what goes together, how wide each layer stays, the cut
    blocks        what a block matters, and networks without some
    aims          how far: a share of channels or blocks, a budget of MACs, a measured latency

docs/pruning.md tells how to use it.
"""

from limbeck.pruning.aims import P95, Step, prune_
from limbeck.pruning.blocks import JUDGES, Losses
from limbeck.pruning.cutting import cut_spec
from limbeck.pruning.importances import IMPORTANCES

__all__ = ["IMPORTANCES", "JUDGES", "P95", "Losses", "Step", "cut_spec", "prune_"]
