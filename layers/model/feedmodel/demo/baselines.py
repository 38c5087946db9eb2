"""The demo's model beside baselines and the known best, which only a synthetic feed has."""

from dataclasses import dataclass, fields

from feedmodel.training.evaluation import Clicks, Quality, Reliability, Scores, Slates, reliability
from feedrank.domain import BoolArray, IntArray


@dataclass(frozen=True, slots=True)
class Evaluation:
    random: Quality
    popularity: Quality  # items by their clicks so far
    click_rate: Quality  # items by their smoothed click rate so far
    unknown_items: Quality  # the model, where some items are unknown
    unknown_users: Quality  # the model, where every user is unknown
    model: Quality
    known_best: Quality  # the probability that the clicks were drawn from
    reliability: Reliability  # the model's
    interactions: int
    slates: int  # with at least one click

    def rankings(self) -> dict[str, Quality]:
        """In the order of what they know, from nothing to everything."""
        return {
            "random": self.random,
            "popularity": self.popularity,
            "click rate": self.click_rate,
            "unknown items": self.unknown_items,
            "unknown users": self.unknown_users,
            "model": self.model,
            "known best": self.known_best,
        }

    @property
    def way_from_popularity(self) -> float:
        """How much of the way in NDCG@10 from popularity (0) to the known best (1)."""
        return self._way_from(self.popularity)

    @property
    def way_from_click_rate(self) -> float:
        """The same from the click rate, which is harder to beat."""
        return self._way_from(self.click_rate)

    def metrics(self) -> dict[str, float]:
        """As `test/<ranking>/<metric>`: MLflow groups by what stands before a slash."""
        flat = {
            f"test/{name.replace(' ', '_')}/{field.name}": value
            for name, quality in self.rankings().items()
            for field in fields(quality)
            if (value := getattr(quality, field.name)) is not None
        }
        return flat | {
            "test/way_to_known_best/from_popularity": self.way_from_popularity,
            "test/way_to_known_best/from_click_rate": self.way_from_click_rate,
        }

    def _way_from(self, baseline: Quality) -> float:
        return (self.model.ndcg_at_10 - baseline.ndcg_at_10) / (
            self.known_best.ndcg_at_10 - baseline.ndcg_at_10
        )


@dataclass(frozen=True, slots=True)
class WithUnknown:
    """The model's scores, (interactions,) each, where ids are unknown, and which items were."""

    users: Scores
    items: Scores
    unknown_items: BoolArray


def evaluate(
    slate: IntArray,
    clicked: Clicks,
    *,
    model: Scores,
    with_unknown: WithUnknown,
    popularity: Scores,
    click_rate: Scores,
    probability: Scores,
) -> Evaluation:
    """All (interactions,); rows of equal `slate` were shown together.

    Unknown items are ranked behind all others, as in the demo's spec.
    """
    slates = Slates(slate, clicked)
    return Evaluation(
        random=slates.quality(slates.noise),
        popularity=slates.quality(popularity),
        click_rate=slates.quality(click_rate),
        unknown_items=slates.quality(
            with_unknown.items, are_probabilities=True, last=with_unknown.unknown_items
        ),
        unknown_users=slates.quality(with_unknown.users, are_probabilities=True),
        model=slates.quality(model, are_probabilities=True),
        known_best=slates.quality(probability, are_probabilities=True),
        reliability=reliability(clicked, model),
        interactions=len(clicked),
        slates=int(slates.with_click.sum()),
    )
