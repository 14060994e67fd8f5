"""When a window has drifted, as types and ranges; the values stand in a file. Nothing here has a default."""

from typing import Annotated

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from limbeck.params import Section, Share


class StreamRules(Section):
    """River's detectors, which say *where* in a window something changed. They have no vote.

    Attributes:
        adwin_delta: confidence of ADWIN's cuts; smaller finds less.
        adwin_every: samples from one look at the window to the next.
        page_hinkley_delta: change per sample that is borne.
        page_hinkley_threshold: accumulated change that is none any more, in units of the stream.
        page_hinkley_forgetting: how much of the accumulated change each sample keeps.
        min_samples: none is reported before.

    """

    adwin_delta: Share
    adwin_every: PositiveInt
    page_hinkley_delta: NonNegativeFloat
    page_hinkley_threshold: PositiveFloat
    page_hinkley_forgetting: Annotated[float, Field(gt=0, le=1)]
    min_samples: PositiveInt


class DriftRules(Section):
    """When a window differs from the reference, and when that asks for an action.

        level: 0.01
        min_samples: 100
        min_kinds: 2
        cool_down_hours: 12
        max_samples: 2000
        max_pairs: 300
        permutations: 1999
        bins: 10
        streams:
          adwin_delta: 0.002
          adwin_every: 32
          page_hinkley_delta: 0.005
          page_hinkley_threshold: 25
          page_hinkley_forgetting: 0.9999
          min_samples: 30

    Attributes:
        level: the most false alarms, as a share of windows in which nothing moved; p-values are corrected to keep it.
        min_samples: a smaller window is not judged.
        min_kinds: so many independent sources of evidence have to move, see `limbeck.drift.trigger`.
        cool_down_hours: after an action none is asked for again so soon.
        max_samples: of reference and window each, taken by seed; bounds time and memory, and how small a drift is found.
        max_pairs: likewise for MMD, whose time and memory grow with the square.
        permutations: the most per test; no p-value is below 1 / (permutations + 1). Where a window has so many tests that none
            of them could then be below the level, they are as many as it takes.
        bins: of the population stability index.
        streams: where something changed.

    """

    level: Share
    min_samples: Annotated[int, Field(ge=20)]
    min_kinds: Annotated[int, Field(ge=2, le=4)]
    cool_down_hours: NonNegativeFloat
    max_samples: Annotated[int, Field(ge=20)]
    max_pairs: Annotated[int, Field(ge=20)]
    permutations: Annotated[int, Field(ge=99)]
    bins: Annotated[int, Field(ge=2)]
    streams: StreamRules
