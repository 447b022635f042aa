"""Users' actions on the lists they were shown: the list that an action answers, and its reward."""

from headwater.feedback.answers import drop_known, known_in_span, new_answers, since_first_list
from headwater.feedback.attribution import attribute, with_served_list
from headwater.feedback.rewards import reward
from headwater.feedback.selection import collected_after, count_and_newest, holdout_cut, unknown_to_model, with_replay

__all__ = [
    "attribute",
    "collected_after",
    "count_and_newest",
    "drop_known",
    "holdout_cut",
    "known_in_span",
    "new_answers",
    "reward",
    "since_first_list",
    "unknown_to_model",
    "with_replay",
    "with_served_list",
]
