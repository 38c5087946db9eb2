"""Makes the files beside it: rankers of LightGBM and XGBoost as onnxmltools converts them, and what
the libraries themselves score. Run in an environment of its own, with

    lightgbm==4.7.0 xgboost-cpu==3.2.0 onnxmltools==1.16.0 skl2onnx==1.20.0 onnx==1.23.2
    numpy==2.4.6 pandas scikit-learn==1.9.1
"""

from pathlib import Path

import numpy as np
import onnx
import pandas as pd
from lightgbm import LGBMRanker
from numpy.typing import NDArray
from onnxmltools import convert_lightgbm, convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType
from xgboost import XGBRanker, XGBRegressor

HERE = Path(__file__).parent
USERS, ITEMS, SHOWN = 30, 80, 12
COLUMNS = ["age", "ctr", "price", "popularity", "hour", "retrieval"]
INPUT = [("x", FloatTensorType([None, len(COLUMNS)]))]
RANDOM = np.random.default_rng(7)


def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Some cells are empty."""
    users = pd.DataFrame({"user_id": range(USERS), "age": RANDOM.integers(18, 80, USERS) * 1.0})
    users["ctr"] = RANDOM.random(USERS).round(4)
    items = pd.DataFrame({"item_id": range(ITEMS), "price": RANDOM.gamma(3, 4, ITEMS).round(2)})
    items["popularity"] = RANDOM.lognormal(2, 1.5, ITEMS)
    users.loc[3, "age"] = items.loc[5, "price"] = items.loc[7, "popularity"] = np.nan
    return users, items


def requests(users: list[int], items: int) -> pd.DataFrame:
    """A list of items for each user."""
    impressions = pd.DataFrame(
        [(user, item) for user in users for item in RANDOM.choice(items, SHOWN, replace=False)],
        columns=["user_id", "item_id"],
    )
    impressions["timestamp"] = 1_790_000_000 + impressions["user_id"] * 7_211
    impressions["retrieval"] = RANDOM.random(len(impressions)).round(4)
    return impressions


def matrix(
    impressions: pd.DataFrame, users: pd.DataFrame, items: pd.DataFrame
) -> NDArray[np.float32]:
    """What nobody knows is NaN."""
    rows = impressions.merge(users, how="left").merge(items, how="left")
    rows["hour"] = rows["timestamp"] // 3_600 % 24
    return rows[COLUMNS].to_numpy(np.float32)


def relevance(x: NDArray[np.float32]) -> NDArray[np.int64]:
    """0 to 3, not without noise."""
    age, ctr, price, popularity, hour, retrieval = np.nan_to_num(x, nan=9.0).T
    worth = 0.03 * age * ctr - 0.05 * price + np.log1p(popularity) + (hour > 17) + 2 * retrieval
    worth += RANDOM.normal(0, 0.5, len(x))
    return np.digitize(worth, np.quantile(worth, [0.5, 0.75, 0.9]))


def main() -> None:
    users, items = tables()
    impressions = requests([*range(USERS)] * 20, ITEMS)
    x = matrix(impressions, users, items)
    y, of_user = relevance(x), impressions["user_id"].to_numpy()
    order = np.argsort(of_user, kind="stable")
    x, y, of_user = x[order], y[order], of_user[order]

    light = LGBMRanker(n_estimators=12, num_leaves=7, random_state=1, verbose=-1)
    light.fit(x, y, group=np.unique(of_user, return_counts=True)[1])
    extreme = XGBRanker(n_estimators=12, max_depth=3, objective="rank:ndcg", random_state=1)
    extreme.fit(x, y, qid=of_user)

    ranker = HERE / "ranker.json"
    extreme.get_booster().save_model(ranker)
    regressor = XGBRegressor()  # onnxmltools converts it; a ranker it takes for a classifier
    regressor.load_model(ranker)
    ranker.unlink()
    of_light = convert_lightgbm(light.booster_, "trees", INPUT, target_opset=15)
    onnx.save(of_light, HERE / "lightgbm.onnx")
    of_extreme = convert_xgboost(regressor, "trees", INPUT, target_opset=15)
    onnx.save(of_extreme, HERE / "xgboost.onnx")

    others = requests([*range(USERS), 9_999], ITEMS + 3)
    of_others = matrix(others, users, items)
    scores = others.assign(lightgbm=light.predict(of_others), xgboost=extreme.predict(of_others))
    for name, frame in {"users": users, "items": items, "scores": scores}.items():
        frame.to_csv(HERE / f"{name}.csv", index=False)


if __name__ == "__main__":
    main()
