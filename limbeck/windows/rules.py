"""What an intake goes by, as types and ranges. Values stand in a file alone: nothing here has a default."""

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from limbeck.params import Quality, Section, Share


class PoisonRules(Section):
    """When labels contradict the teacher en masse.

    Attributes:
        confident_above: a label contradicts the teacher where its probability of another class is above this.
        significance: of the tests of one window taken together: how often chance alone may set an honest one aside.
        max_excess: by how much the share of contradictions may exceed the one on validation.
        max_class_excess: likewise, among the samples of one class.

    """

    confident_above: Quality
    significance: Share
    max_excess: Quality
    max_class_excess: Quality


class WindowRules(Section):
    """What becomes a window, and what is set aside.

        settle_s: 60             # an entry in which nothing changed for so long is whole
        max_mb: 2000             # of an entry, unpacked
        max_samples: 200000
        min_samples: 50
        max_per_device: 200      # of uploaded samples in one window
        max_repeated: 0.5
        max_unusable: 0.1
        range_margin: 0.5        # of the width of the training split's range
        min_spread: 0.1
        min_confidence: 0.8      # of a teacher's label
        poison: {confident_above: 0.9, significance: 0.001, max_excess: 0.15, max_class_excess: 0.4}
        bootstrap: 2000
        seed: 0

    Attributes:
        settle_s: an entry is taken once nothing in it has changed for so long.
        max_mb: an entry that is larger, unpacked, is set aside.
        max_samples: likewise for one of more samples.
        min_samples: a window with fewer is set aside; uploaded samples wait until there are so many.
        max_per_device: of one device's uploaded samples, the newest so many go into a window.
        max_repeated: share of samples that data/, earlier windows or the window itself hold already.
        max_unusable: share of samples that cannot be read, are not finite or out of range.
        range_margin: how far a value may lie outside of the training split's range of its channel, as a share of the width.
        min_spread: how much a window's samples differ from each other, as a share of how much training samples do.
        min_confidence: below it, a teacher's answer is no label.
        poison: see `PoisonRules`.
        bootstrap: resamples of a label-free estimate.
        seed: of them.

    """

    settle_s: NonNegativeFloat
    max_mb: PositiveInt
    max_samples: PositiveInt
    min_samples: PositiveInt
    max_per_device: PositiveInt
    max_repeated: Quality
    max_unusable: Quality
    range_margin: NonNegativeFloat
    min_spread: NonNegativeFloat
    min_confidence: Quality
    poison: PoisonRules
    bootstrap: PositiveInt
    seed: NonNegativeInt

    @property
    def max_bytes(self) -> int:
        """`max_mb` in bytes."""
        return self.max_mb * 1_000_000
