"""Made interactions: a shop that does not exist. An example and a test bed; no figure on it says anything of real shoppers."""

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveInt

from limbeck.data.sources.interactions import HELD_OUT, Taken, leave_last_out
from limbeck.data.sources.source import Source

SHELVES = (
    "bread", "fruit", "vegetables", "cheese", "milk", "eggs", "meat", "fish", "pasta", "rice", "sauces", "spices", "tea",
    "coffee", "juice", "water", "wine", "beer", "sweets", "biscuits", "nuts", "cereal", "soup", "frozen", "baking", "oil",
    "cleaning", "paper", "soap", "baby", "pets", "garden", "tools", "lamps", "books", "paint", "toys", "socks", "pans", "bags",
)  # fmt: skip
TASTE = 6
"""Numbers that describe a user's taste and a shelf."""
COMPANIONS = 3
"""Items that often follow an item."""
FOLLOWS, STAYS = 0.35, 0.35
"""How often the next item is a companion of the last one, and how often it is of a recent one's shelf."""
RECENT = 3


def shop(
    *,
    users: PositiveInt,
    items: Annotated[int, Field(ge=len(SHELVES))],
    length: PositiveInt,
    mean_extra: Annotated[float, Field(ge=0)] = 12.0,
    seed: NonNegativeInt = 0,
) -> Source:
    """Interactions drawn from tastes, shelves and companions, as `interactions` would read them from a table.

    A user has a taste [6], a shelf a place in the space of tastes, an item a shelf and a popularity (Zipf's law on its
    shelf) and three companions. The next item is a companion of the last one (35 %), of the shelf of one of the
    last three (35 %), or of a shelf that the user likes (30 %).

    Args:
        users: how many; each has 5 interactions and more.
        items: how many; they are dealt to 40 shelves.
        length: the most items of a history that a sample keeps.
        mean_extra: interactions beyond 5, on average (geometric).
        seed: of everything.

    """
    chance = np.random.default_rng(seed)
    shelf_of = np.arange(items) % len(SHELVES)
    rank = np.arange(items) // len(SHELVES)
    popularity = 1 / (rank + 2.0)
    companions = chance.integers(0, items, (items, COMPANIONS))
    likes = _softmax(2.0 * chance.normal(size=(users, TASTE)) @ chance.normal(size=(TASTE, len(SHELVES))) / TASTE**0.5)
    liked = likes.cumsum(1)
    own = [np.flatnonzero(shelf_of == shelf) for shelf in range(len(SHELVES))]
    most = max(map(len, own))
    on_shelf = np.stack([np.pad(places, (0, most - len(places)), mode="edge") for places in own])
    shares = np.stack([np.pad(popularity[places], (0, most - len(places))) for places in own])
    within = (shares / shares.sum(1, keepdims=True)).cumsum(1)
    num = 5 + chance.geometric(1 / (mean_extra + 1), users) - 1
    num = np.minimum(num, 5 + int(5 * mean_extra))
    taken = np.zeros((users, int(num.max())), np.int32)
    last = np.zeros(users, np.int64)
    for step in range(taken.shape[1]):
        how = chance.random(users) if step else np.ones(users)
        before = taken[np.arange(users), step - 1 - chance.integers(0, min(max(step, 1), RECENT), users)]
        shelf = np.where(how < FOLLOWS + STAYS, shelf_of[before], _drawn(liked, chance))
        of_shelf = on_shelf[shelf, _drawn(within[shelf], chance)]
        of_last = companions[last, chance.integers(0, COMPANIONS, users)]
        last = np.where(how < FOLLOWS, of_last, of_shelf)
        taken[:, step] = last
    is_there = np.arange(taken.shape[1]) < num[:, None]
    assert num.min() > HELD_OUT
    names = tuple(f"{SHELVES[shelf]} {place + 1}" for shelf, place in zip(shelf_of, rank, strict=True))
    return leave_last_out("shop-made", Taken(np.r_[0, num.cumsum()], taken[is_there], names), length, None)


def _softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = np.exp(scores - scores.max(1, keepdims=True))
    found: NDArray[np.float64] = shifted / shifted.sum(1, keepdims=True)
    return found


def _drawn(cumulative: NDArray[np.float64], chance: np.random.Generator) -> NDArray[np.int64]:
    """One place [B] of each row of cumulative shares [B, S]."""
    found: NDArray[np.int64] = (cumulative < chance.random((len(cumulative), 1))).sum(1)
    return np.asarray(np.minimum(found, cumulative.shape[1] - 1), np.int64)
