"""One history, typed by hand or looked up, and the list that the model makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from headwater.config import Topn
from headwater.errors import UsageError
from headwater.models.ranker import Ranker
from headwater.models.variety import Variety
from headwater.schemas import EVENT_TYPES, VERBS
from headwater.scoring.candidates import Candidates
from headwater.scoring.reasons import decisive_events


@dataclass(frozen=True)
class Answer:
    """``items``: dicts of rank, item_id, title, score, reason; ``unknown``: ids that could not be used."""

    items: list[dict[str, Any]]
    unknown: list[str]


def parse(history: str) -> list[tuple[str, str]]:
    """``"view:A click:B"`` as (event type, item id) pairs; raises UsageError naming the word that is none."""
    events = []
    for word in history.split():
        kind, colon, item = word.partition(":")
        if not colon or not item or kind not in VERBS:
            raise UsageError(f"--history: {word!r} is not TYPE:ITEM with a type of {', '.join(VERBS)}")
        events.append((kind, item))
    return events


def recommend(ranker: Ranker, catalog: pd.DataFrame, events: list[tuple[str, str]], topn: Topn) -> Answer:
    """A list of available items for a history, with scores and reasons.

    ``catalog`` has item_id, item_idx, title, available. An item counts as unknown where the catalogue lacks it or the
    model has not been trained on it; without any known item the list is empty.
    """
    index = dict(zip(catalog["item_id"], catalog["item_idx"], strict=True))
    known = [(kind, item) for kind, item in events if 0 < index.get(item, 0) <= ranker.n_items]
    unknown = sorted({item for _, item in events} - {item for _, item in known})
    if not known:
        return Answer([], unknown)
    by_index = catalog.set_index("item_idx")
    allowed = torch.zeros(ranker.n_items + 1, dtype=torch.bool)
    live = by_index.index[by_index["available"].fillna(True).astype(bool) & ~by_index["item_id"].isin(topn.deny)]
    allowed[torch.from_numpy(np.asarray(live[live <= ranker.n_items], dtype=np.int64))] = True
    items, types = ranker.pad(
        [[index[item] for _, item in known]], [[EVENT_TYPES.index(kind) + 1 for kind, _ in known]]
    )
    seen = torch.tensor(sorted({index[item] for _, item in known}) if topn.exclude_seen else [], dtype=torch.int64)
    with torch.inference_mode():
        scores, best = Candidates(ranker, allowed).lists(
            items, types, (torch.zeros_like(seen), seen), topn.n, Variety.of(topn)
        )
        places = decisive_events(ranker, best, items, types)
    listed = []
    found = zip(best[0].tolist(), scores[0].tolist(), places[0].tolist(), strict=True)
    for rank, (item, score, place) in enumerate(found, 1):
        if item == 0:
            break
        reason = "fits what you did" if ranker.transitions is None else "popular lately"
        if place >= 0:
            verb, title = VERBS[EVENT_TYPES[int(types[0, place]) - 1]], _title(by_index, int(items[0, place]))
            reason = f"because you {verb} {title}"
        listed.append(
            {
                "rank": rank,
                "item_id": by_index.at[item, "item_id"],
                "title": _title(by_index, item),
                "score": round(score, 4),
                "reason": reason,
            }
        )
    return Answer(listed, unknown)


def table(answer: Answer) -> str:
    """The answer as text for a terminal; control characters of titles are shown as spaces."""
    lines = [f"{row['rank']:>3}  {row['score']:>8.3f}  {row['title']}  ({row['reason']})" for row in answer.items]
    if answer.unknown:
        lines.append(f"unknown items, left out: {', '.join(answer.unknown)}")
    if not answer.items:
        lines.append("no list: none of these items is known to the model")
    return "\n".join("".join(c if c.isprintable() else " " for c in line) for line in lines)


def _title(catalog: pd.DataFrame, item: int) -> str:
    row = catalog.loc[item]
    return str(row["title"] if isinstance(row["title"], str) and row["title"] else row["item_id"])
