"""When a device looks for an update, so that a fleet which begins at one moment does not knock at one.

Every moment is drawn from a tenth of `check_every_s`; a server that said when to come back is not asked before.
"""

import random

from limbeck.edge.home import Record, Settings

SPREAD = 0.1
"""Of `check_every_s`: over which looks are spread."""
MOST_ASKED_S = 24 * 3600.0
"""Nobody is left alone for longer: a clock was wrong when that was written, or a server is."""
FIRST_PAUSE_S = 30.0


def asked_s(record: Record, now: float) -> float:
    """Seconds for which the server asked to be left alone; 0 when it did not, or for longer than a day."""
    left_s = record.not_before - now
    return left_s if 0 < left_s < MOST_ASKED_S else 0.0


def until_next_s(settings: Settings, record: Record, now: float) -> float:
    """Seconds until the next look: `check_every_s`, or when the server said to come back.

    Args:
        settings: of the device.
        record: as the last update left it.
        now: Unix time.

    """
    spread_s = SPREAD * settings.check_every_s
    if left_s := asked_s(record, now):
        return left_s + random.uniform(0, spread_s)
    return settings.check_every_s + random.uniform(-spread_s, spread_s)


def until_first_s(settings: Settings, record: Record, now: float, failed: int) -> float:
    """Seconds until a device without a model tries again: pauses that double, up to `check_every_s`.

    Args:
        settings: of the device.
        record: as the last update left it.
        now: Unix time.
        failed: attempts in vain, of this process.

    """
    most_s = min(settings.check_every_s, FIRST_PAUSE_S * 2 ** min(failed, 16))
    return asked_s(record, now) + random.uniform(most_s / 2, most_s)
