"""Whether and what moved between a reference (the old validation samples) and a window of new ones.

    two_samples   tests of arrays, each with a valid p-value
    streams       where in a stream the mean changed
    signals       what of samples, networks and devices' reports is compared
    trigger       which of it counts, and when it asks for an action
    moved         the report: what moved, in words, figures and a picture
    rules         the values all of it needs

docs/drift.md tells how to use it.
"""

from limbeck.drift.moved import Moved, Report, picture
from limbeck.drift.rules import DriftRules
from limbeck.drift.signals import Signals, signals_of
from limbeck.drift.trigger import detect

__all__ = ["DriftRules", "Moved", "Report", "Signals", "detect", "picture", "signals_of"]
