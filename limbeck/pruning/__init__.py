"""Structured pruning: whole channels go, and what depends on them follows.

    importances   how much a channel matters
    cutting       what goes together, how wide each layer stays, the cut
    aims          how far: a share of channels, a budget of MACs, a measured latency

docs/pruning.md tells how to use it.
"""

from limbeck.pruning.aims import P95, Losses, Step, prune_
from limbeck.pruning.cutting import cuts_of
from limbeck.pruning.importances import IMPORTANCES

__all__ = ["IMPORTANCES", "P95", "Losses", "Step", "cuts_of", "prune_"]
