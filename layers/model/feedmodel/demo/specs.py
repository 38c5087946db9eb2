"""The demo's feature specs: 15 features as one input, or 14 as two."""

from dataclasses import dataclass

from feedrank.features.spec import Feature, FeatureSpec, Input, UnknownItems

# The best guess at an unknown item's probability is the mean, which is above most items.
UNKNOWN_ITEMS: UnknownItems = "last"


@dataclass(frozen=True, slots=True)
class Priors:
    """What to expect of a user or an item without a history."""

    ctr: float
    dwell_s: float
    device: str
    age_days: float


def demo_features(prior: Priors) -> tuple[Feature, ...]:
    """The 15 features in their order, each with its default.

    An interaction is an item shown, clicked or not. `item_popularity` is log(1 + clicks),
    `user_days_active` counts different days (UTC), dwell times are in seconds per click. An unknown
    item has the average age: as a new one it would outrank most of the catalogue.
    """
    return (
        Feature("user_historical_ctr", "user", prior.ctr),
        Feature("user_avg_dwell_time", "user", prior.dwell_s),
        Feature("user_interaction_count", "user"),
        Feature("user_days_active", "user"),
        Feature("item_ctr", "item", prior.ctr),
        Feature("item_avg_dwell_time", "item", prior.dwell_s),
        Feature("item_popularity", "item"),
        Feature("item_age_days", "item", prior.age_days),
        Feature("hour_of_day", "context", expression="hour"),
        Feature("day_of_week", "context", expression="weekday"),
        *(
            Feature(
                f"device_{name}", "context", float(name == prior.device), f"equals(device, {name})"
            )
            for name in ("mobile", "desktop", "tablet")
        ),
        Feature("user_item_previous_interactions", "pair"),
        Feature("is_weekend", "context", expression="is_weekend"),
    )


def deep_mlp_spec(prior: Priors) -> FeatureSpec:
    return FeatureSpec((Input("features", "item", demo_features(prior)),), UNKNOWN_ITEMS)


def two_tower_spec(prior: Priors) -> FeatureSpec:
    """The user tower reads user and context, once a request; the item tower reads items alone.

    There is no pair feature: with it, an item's vector could not be precomputed.
    """
    features = demo_features(prior)
    of_user = tuple(f for f in features if f.source in {"user", "context"})
    of_item = tuple(f for f in features if f.source == "item")
    return FeatureSpec(
        (Input("user_features", "request", of_user), Input("item_features", "item", of_item)),
        UNKNOWN_ITEMS,
    )
