"""Names of items in, names of items out: what a shop's application asks of a model that answers histories.

    with Agent("home") as agent:
        shop = Shop(agent.manifest.classes, agent.manifest.shape[0])
        history = shop.history(["tea 1", "bread 4", "milk 2"])
        suggested = shop.best(agent.predict(history.codes), 10, without=["milk 2"])

No user is known to the device or to the model: whoever has a history has an answer. Legend: L length, K items.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from limbeck.edge import EdgeError

PADDING = 0


class History(NamedTuple):
    """A history as the model takes it: codes [1, L] int32, how many items it holds, how many the catalogue does not know."""

    codes: NDArray[np.int32]
    num_items: int
    num_unknown: int


class Shop:
    """The catalogue of a model.

    Args:
        items: its K classes, in their order.
        length: L.

    Raises:
        EdgeError: an item stands in it twice.

    """

    def __init__(self, items: Sequence[str], length: int) -> None:
        self.items, self.length = tuple(items), length
        self._places = {name: place for place, name in enumerate(self.items)}
        if len(self._places) < len(self.items):
            raise EdgeError(f"the catalogue names {len(self.items)} items, only {len(self._places)} different ones.")

    def history(self, items: Iterable[str]) -> History:
        """What was taken, the oldest first; the newest L that the catalogue knows are kept.

        Items that it does not know (newer than the model, or misspelt) are left out and counted. Where none is left all is
        padding: a history that the model answers by what is taken most, whoever asks; `num_items` is 0 then.

        Raises:
            EdgeError: a single text, or something that is no text, stands in the place of names.

        """
        names = list(items)
        if isinstance(items, str) or any(not isinstance(name, str) for name in names):
            raise EdgeError(f"a history is a list of the names of items, the oldest first; found {items!r:.80}.")
        known = [self._places[name] + 1 for name in names if name in self._places]
        codes_1L = np.full((1, self.length), PADDING, np.int32)
        newest = known[-self.length :]
        codes_1L[0, self.length - len(newest) :] = newest
        return History(codes_1L, len(newest), len(names) - len(known))

    def best(self, logits_1K: NDArray[Any], num: int, without: Iterable[str] = ()) -> list[str]:
        """The `num` items of the largest logits, the best first, less some (what lies in the basket, what is sold out).

        Raises:
            EdgeError: the logits are not one answer over this catalogue.

        """
        if logits_1K.shape != (1, len(self.items)):
            raise EdgeError(
                f"expected one answer over {len(self.items)} items, found logits of shape {logits_1K.shape}."
            )
        barred = {self._places[name] for name in without if name in self._places}
        order = np.argsort(-logits_1K[0], kind="stable")
        return [self.items[place] for place in order.tolist() if place not in barred][:num]
