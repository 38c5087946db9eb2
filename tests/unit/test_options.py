from typing import Any

import pytest

from feedmodel.demo.options import TrainOptions
from feedmodel.errors import OptionsError


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"users": 9}, "users must be at least 10, not 9"),
        ({"items": 199}, "items must be at least 200, not 199"),
        ({"interactions": 1_999}, "interactions must be at least 2,000, not 1,999"),
        ({"epochs": 0}, "epochs must be at least 1, not 0"),
        ({"batch_size": 1}, "batch_size must be at least 2, not 1"),
        ({"patience": 0}, "patience must be at least 1, not 0"),
        ({"seed": -1}, "seed must be from 0 to 4,294,967,295, not -1"),
        ({"learning_rate": 0.0}, "learning_rate must be a positive number, not 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be a positive number, not nan"),
        ({"network": "cnn"}, "network must be deep_mlp or two_tower, not 'cnn'"),
        ({"experiment": " "}, "experiment must have a name"),
        (
            {"registered_name": "feed/ranker"},
            (
                "registered_name can't be 'feed/ranker': "
                "MLflow allows no space and none of / : . @ % and quotes"
            ),
        ),
        (
            {"alias": "v2"},
            (
                "alias can't be 'v2': it may hold letters, digits, - and _, "
                "but latest and v1, v2, ... are reserved by MLflow"
            ),
        ),
    ],
)
def test_a_wrong_option_is_named_with_its_limits(option: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsError) as error:
        TrainOptions(**option)
    assert str(error.value) == message


def test_all_wrong_options_are_named_at_once() -> None:
    with pytest.raises(OptionsError, match=r"users .*; epochs .*; seed "):
        TrainOptions(users=1, epochs=0, seed=-5)


@pytest.mark.parametrize("alias", ["production", "latest_2", "v2-beta", "A_1"])
def test_an_alias_may_contain_mlflows_reserved_words(alias: str) -> None:
    assert TrainOptions(alias=alias).alias == alias
