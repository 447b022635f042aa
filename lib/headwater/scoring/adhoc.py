"""Recommendations for one history, typed by hand or looked up."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass
from typing import Any

import pandas as pd

from headwater.config import Wording
from headwater.errors import UsageError
from headwater.schemas import EVENT_TYPES, STEP_TYPES
from headwater.scoring.scorer import Scorer
from headwater.text import printable


@dataclass(frozen=True)
class Answer:
    """``items``: dicts of rank, item_id, title, score, reason; ``unknown``: ids that could not be used; ``any_known``: whether
    the catalogue has any item of the history."""

    items: list[dict[str, Any]]
    unknown: list[str]
    any_known: bool


def parse(history: str) -> list[tuple[str, str]]:
    """``"view:A click:B"`` as (event type, item id) pairs; an id with a blank is in double quotes (``view:"A B"``). Raises
    UsageError that names the word which is no such pair, or the text if a quote is not closed."""
    events = []
    for word in _words(history):
        kind, colon, item = word.partition(":")
        if not colon or not item or kind not in STEP_TYPES:
            raise UsageError(f"--history: {word!r} is not TYPE:ITEM with a type of {', '.join(STEP_TYPES)}")
        events.append((kind, item))
    return events


def _words(text: str) -> list[str]:
    reader = shlex.shlex(text, posix=True, punctuation_chars="")
    reader.whitespace_split, reader.quotes, reader.escape, reader.commenters = True, '"', "", ""
    try:
        return list(reader)
    except ValueError:
        raise UsageError(f'--history: a " in {text!r} is not closed') from None


def events(user: pd.DataFrame, catalog: pd.DataFrame) -> list[tuple[str, str]]:
    """The (event type, item id) pairs of a user's row (``Scorer.lists``), oldest first."""
    names = dict(zip(catalog["item_idx"], catalog["item_id"], strict=True))
    items, types = user["item_idx"].iloc[0], user["event_type"].iloc[0]
    return [(kind, names[item]) for kind, item in zip(types, items, strict=True)]


def row(events: list[tuple[str, str]], catalog: pd.DataFrame, at: float) -> pd.DataFrame:
    """Events, all ``at`` the same time (epoch seconds), as a user's row for the scorer, without items missing from the
    catalogue."""
    index = dict(zip(catalog["item_id"], catalog["item_idx"], strict=True))
    known = [(kind, index[item]) for kind, item in events if item in index]
    return pd.DataFrame(
        {
            "user_id": [""],
            "item_idx": [[item for _, item in known]],
            "event_type": [[kind for kind, _ in known]],
            "at": [[at] * len(known)],
            "value": [[math.nan] * len(known)],
            "seen_items": [sorted({item for _, item in known})],
        }
    )


def recommend(scorer: Scorer, user: pd.DataFrame, catalog: pd.DataFrame) -> list[dict[str, Any]]:
    """The Top-N of one user (a row as ``Scorer.lists`` takes it), as dicts of rank, item_id, title, score, reason.

    ``catalog`` has item_id, item_idx, title. Without any event the list is empty.
    """
    if not len(user["item_idx"].iloc[0]):
        return []
    names = catalog.set_index("item_idx")
    titles = names["title"].where(names["title"].fillna("") != "", names["item_id"])
    listed = scorer.lists(user)
    listed = listed[listed["section"] == 0]
    return [
        {
            "rank": place["rank"],
            "item_id": names.at[place["item_idx"], "item_id"],
            "title": str(titles.at[place["item_idx"]]),
            "score": round(place["score"], 4),
            "reason": _reason(place, titles, scorer.topn.wording),
        }
        for place in listed.to_dict("records")
    ]


def _reason(place: dict[Any, Any], titles: pd.Series, wording: Wording) -> str:
    because = place["because_idx"]
    if not because:
        return str(place["otherwise"])
    title = None if because == place["item_idx"] else str(titles.at[because])
    return wording.because_of(EVENT_TYPES[place["because_type"] - 1], title)


def unknown(events: list[tuple[str, str]], catalog: pd.DataFrame, n_items: int) -> list[str]:
    """The items of a history that are missing from the catalogue or newer than a model of ``n_items`` items, ascending."""
    trained = set(catalog.loc[catalog["item_idx"] <= n_items, "item_id"])
    return sorted({item for _, item in events} - trained)


def table(answer: Answer) -> str:
    """The answer as text for a terminal; control characters of titles are shown as spaces."""
    lines = [f"{row['rank']:>3}  {row['score']:>8.3f}  {row['title']}  ({row['reason']})" for row in answer.items]
    if answer.unknown:
        lines.append(f"items that the model does not know: {', '.join(answer.unknown)}")
    if not answer.items:
        empty = (
            "the rules in topn exclude every item" if answer.any_known else "none of these items is in the catalogue"
        )
        lines.append(f"no list: {empty}")
    return "\n".join(printable(line) for line in lines)
