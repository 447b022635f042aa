"""Why an item stands in a list: the past event whose item is most like it, or the fallback's own reason."""

from __future__ import annotations

import torch
from pyspark.sql import Column
from pyspark.sql import functions as F
from torch import Tensor

from headwater.schemas import EVENT_TYPES

VERBS = {
    "view": "viewed",
    "click": "clicked",
    "add_to_cart": "put in your cart",
    "purchase": "bought",
    "rating": "rated",
}


def closest_events(items: Tensor, history: Tensor, vectors: Tensor) -> Tensor:
    """For each listed item the position of the past event whose item vector has the highest cosine with it.

    ``items`` int64 ``[batch, n]``, ``history`` int64 ``[batch, seq]`` (0 is padding, left), ``vectors`` ``[items, dim]``.
    Returns int64 ``[batch, n]``, positions in ``history``; of equal cosines the latest event wins. A user without
    history gets position ``seq - 1``, which is padding.
    """
    unit = torch.nn.functional.normalize(vectors, dim=1)
    likeness = unit[items] @ unit[history].transpose(1, 2)  # [batch, n, seq]
    likeness = likeness.masked_fill((history == 0).unsqueeze(1), -torch.inf)
    latest_first = likeness.flip(2)
    return history.shape[1] - 1 - latest_first.argmax(dim=2)


def reason(because_type: Column, because_title: Column) -> Column:
    """One short sentence a row; without a past event behind it, the row is a popular one."""
    verb = F.create_map(*(F.lit(part) for pair in VERBS.items() for part in pair))
    because = F.concat(F.lit("because you "), F.try_element_at(verb, because_type), F.lit(" "), because_title)
    return F.coalesce(because, F.lit("popular lately"))


def type_name(because_type: Column) -> Column:
    """The event type behind a model's type index; null for padding."""
    names = F.array(*(F.lit(name) for name in EVENT_TYPES))
    return F.when(because_type > 0, F.try_element_at(names, because_type))
