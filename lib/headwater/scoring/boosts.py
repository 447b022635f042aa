"""Score boosts that do not depend on the user: for popularity, newness and price."""

from __future__ import annotations

import numpy as np

from headwater.clock import DAY
from headwater.config import Boosts
from headwater.scoring.catalogue import Catalogue


def of_items(catalogue: Catalogue, boosts: Boosts) -> np.ndarray:
    """The boost of each item, float32 ``[items + 1]``, in standard deviations of a user's scores.

    Popularity and price count as logarithms, standardised over the catalogue; an item without a price counts as having the
    mean. Newness is 1 for an item first seen at the time of the newest event, and halves with every ``newness_days`` of age.
    """
    boost = np.zeros(len(catalogue.available))
    if boosts.popularity:
        boost += boosts.popularity * _standardised(np.log(catalogue.popular + 0.1))
    if boosts.price:
        boost += boosts.price * _standardised(np.log(np.where(catalogue.price > 0, catalogue.price, np.nan)))
    if boosts.newness:
        age = np.maximum(catalogue.until - catalogue.first_seen, 0) / DAY
        boost += boosts.newness * 0.5 ** (age / boosts.newness_days)
    return boost.astype(np.float32)


def _standardised(values: np.ndarray) -> np.ndarray:
    """Scaled to mean 0 and standard deviation 1 over the items that have a value; 0 for the others and for padding."""
    real = np.isfinite(values)
    real[0] = False
    if not real.any():
        return np.zeros_like(values)
    middle, spread = values[real].mean(), values[real].std()
    return np.where(real, (values - middle) / (spread + 1e-9), 0.0)
