"""The section ``topn``: what a list may hold, how it is picked, and the groups of users with rules of their own."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from headwater.config.sections import Days, Positive, Section

ItemAction = Literal["view", "click", "add_to_cart", "purchase", "rating"]
VarietyRule = Literal["mmr", "dpp", "calibrated"]
Text = Annotated[str, Field(min_length=1)]
Names = tuple[Text, ...]

LEAVING_OUT = ("deny", "deny_categories", "categories")
"""The keys of ``Topn`` and ``Strategy`` that leave items out of lists by their names."""


class FurtherList(Section):
    """One kind of further list beside a user's Top-N."""

    kind: Literal["because", "new", "category"]
    n: Positive = 10
    count: Positive = 1
    days: Days = 30

    @model_validator(mode="after")
    def _sets_what_its_kind_reads(self) -> FurtherList:
        if self.kind == "new" and self.count > 1:
            raise ValueError("there is one list of kind new, so its count is 1")
        if self.kind != "new" and "days" in self.model_fields_set:
            raise ValueError(f"days has no effect with kind {self.kind}; only new reads it")
        return self


class Exclusion(Section):
    """Actions of a user that keep an item out of their lists, for some days or, without ``days``, for ever."""

    event_types: tuple[ItemAction, ...] = Field(min_length=1)
    days: Days | None = None


class Repeat(Section):
    """How the score of an item rises if the user bought it before, when ``exclude_seen`` is off."""

    weight: Annotated[float, Field(ge=0)] = 2.0
    event_types: tuple[ItemAction, ...] = Field(default=("purchase",), min_length=1)
    days: Days = 7


class Boosts(Section):
    """Amounts added to item scores, in units of the spread of a user's scores; negative amounts are subtracted."""

    popular_share: Annotated[float, Field(ge=0)] = 0.8
    popularity: float = 0.0
    price: float = 0.0
    newness: float = 0.0
    newness_days: Days = 30


class Explore(Section):
    """List places for randomly drawn items with few events."""

    share: Annotated[float, Field(ge=0, le=0.3)] = 0.0
    events: Annotated[float, Field(gt=0)] = 5.0
    items: Positive = 1_000


class When(Section):
    """The condition for membership in a group: every key that is set must hold."""

    min_events: Annotated[int, Field(ge=0)] = 0
    max_events: Annotated[int, Field(ge=0)] | None = None
    min_days_away: Annotated[float, Field(ge=0)] = 0.0
    category: str = ""
    min_share: Annotated[float, Field(gt=0, le=1)] = 0.5

    @model_validator(mode="after")
    def _can_hold(self) -> When:
        if self.max_events is not None and self.min_events > self.max_events:
            raise ValueError(
                f"no user has min_events {self.min_events} or more and max_events {self.max_events} or fewer"
            )
        return self


class Strategy(Section):
    """A group of users and the keys of ``Topn`` that differ for them; keys that are not set are inherited."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    when: When
    variety: VarietyRule | None = None
    variety_weight: Annotated[float, Field(ge=0, lt=1)] | None = None
    candidates: Positive | None = None
    max_per_category: Annotated[int, Field(ge=0)] | None = None
    deny: Names | None = None
    deny_categories: Names | None = None
    categories: Names | None = None
    boosts: Boosts | None = None
    explore: Explore | None = None


class Because(Section):
    """The reason for an item by the type of the event behind it; {} stands for the title of the event's item."""

    view: Text = "because you viewed {}"
    search: Text = "because you searched for {}"
    click: Text = "because you clicked {}"
    add_to_cart: Text = "because you put {} in your cart"
    purchase: Text = "because you bought {}"
    rating: Text = "because you rated {}"


class Wording(Section):
    """The texts of reasons and headings, in the language of the site.

    ``again`` stands for the title where an event was with the listed item itself. In ``category``, {} stands for the name of the
    category, or what ``categories`` calls it. A list's heading is the reason of its items, except ``new_heading``.
    """

    because: Because = Because()
    again: Text = "it before"
    history: Text = "fits what you did so far"
    category: Text = "popular in {}"
    popular: Text = "popular lately"
    explore: Text = "seen by few so far"
    new: Text = "new in the catalogue"
    new_heading: Text = "New for you"
    categories: dict[str, Text] = {}

    def because_of(self, event_type: str, title: str | None) -> str:
        """The reason for an item by an event with the item called ``title``, None if that is the same item."""
        text: str = getattr(self.because, event_type)
        return text.replace("{}", self.again if title is None else title)

    def popular_in(self, category: str) -> str:
        """The reason for a popular item of a category."""
        return self.category.replace("{}", self.categories.get(category, category))


class Topn(Section):
    n: Positive = 10
    index: Literal["exact", "faiss"] = "exact"
    exclude_seen: bool = True
    exclude: tuple[Exclusion, ...] = ()
    repeat: Repeat = Repeat()
    max_repeats: Annotated[int, Field(ge=0)] = 0
    batch_users: Positive = 1_024
    use_gpu: bool | Literal["auto"] = "auto"
    variety: VarietyRule = "mmr"
    variety_weight: Annotated[float, Field(ge=0, lt=1)] = 0.35
    candidates: Positive = 40
    sections: tuple[FurtherList, ...] = ()
    wording: Wording = Wording()
    deny: Names = ()
    deny_categories: Names = ()
    categories: Names = ()
    max_per_category: Annotated[int, Field(ge=0)] = 0
    titled_only: bool = False
    disliked_rating: float | None = 2.5
    category_separator: str = "|"
    boosts: Boosts = Boosts()
    newcomers: Annotated[float, Field(ge=0, le=1)] = 0.0
    explore: Explore = Explore()
    strategies: tuple[Strategy, ...] = ()
    popular_half_life_days: Days = 7
    max_age_days: Days | None = None

    @model_validator(mode="after")
    def _excludes_once(self) -> Topn:
        if self.exclude_seen and self.exclude:
            raise ValueError("exclude has no effect with exclude_seen, which leaves out every item ever seen")
        if self.exclude_seen and self.max_repeats:
            raise ValueError("max_repeats has no effect with exclude_seen, which leaves out every item ever seen")
        return self

    @model_validator(mode="after")
    def _indexes_one_catalogue(self) -> Topn:
        own = any(getattr(strategy, name) for strategy in self.strategies for name in LEAVING_OUT)
        if self.index == "faiss" and own:
            raise ValueError(
                "index faiss holds one catalogue for all users; groups with deny, deny_categories or categories need index exact"
            )
        return self

    @field_validator("strategies")
    @classmethod
    def _names_a_group_once(cls, value: tuple[Strategy, ...]) -> tuple[Strategy, ...]:
        names = [strategy.name for strategy in value]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two groups are called {twice[0]!r}")
        return value

    @property
    def lists_newcomers(self) -> bool:
        """Whether lists have places for items that the model was not trained on."""
        rules = [self.explore, *(strategy.explore for strategy in self.strategies if strategy.explore)]
        return bool(self.sections) or self.newcomers > 0 or any(rule.share > 0 for rule in rules)

    def of_group(self, strategy: Strategy) -> Topn:
        """These rules with the group's changes; items denied to everybody stay denied. In a section that the group sets in part,
        the other keys are inherited."""
        changes = {name: getattr(strategy, name) for name in Strategy.model_fields if name not in ("name", "when")}
        for name, value in changes.items():
            if isinstance(value, Section):
                given = {key: getattr(value, key) for key in value.model_fields_set}
                changes[name] = getattr(self, name).model_copy(update=given)
        return self.model_copy(update={name: value for name, value in changes.items() if value is not None})
