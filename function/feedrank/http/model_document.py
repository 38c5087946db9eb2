"""The OpenAPI document of the model that serves: its ids, context, candidate features, outputs and
range in the schemas, and examples that it can rank."""

from collections.abc import Mapping
from typing import Any

from feedrank.domain import MAX_ID, MAX_ID_LENGTH
from feedrank.features.context_keys import TIMESTAMP
from feedrank.model.load import Model

Json = dict[str, Any]
IDS: Mapping[str, Json] = {
    "number": {"type": "integer", "minimum": 0, "maximum": MAX_ID},
    "text": {"type": "string", "minLength": 1, "maxLength": MAX_ID_LENGTH},
}
A_TIME = "2026-11-22T20:15:00Z"
A_TEXT = "a text"
SUMMARIES = {
    "plain": "Five items",
    "context": "In a context, at a given time",
    "features": "With what is known of each item",
    "explain": "With the outputs that each score is made of",
}


def of_model(document: Json, model: Model, max_items: int, *, closed: bool) -> Json:
    """The document, with what this model reads and gives. `closed` where it refuses another context
    key. The document itself stays as it is."""
    components = document["components"]
    changed = {
        "PredictRequest": _request(components["schemas"], model, max_items, closed=closed),
        **_response(components["schemas"], model),
    }
    document = {
        **document,
        "components": {**components, "schemas": {**components["schemas"], **changed}},
    }
    predict = document["paths"]["/predict"]["post"]
    predict = {
        **predict,
        "requestBody": _with_examples(
            predict["requestBody"], request_examples(model, min(5, max_items))
        ),
        "responses": {
            **predict["responses"],
            "200": _with_examples(
                predict["responses"]["200"],
                _response_examples(_examples(predict["responses"]["200"]), model),
            ),
        },
    }
    paths = {**document["paths"], "/predict": {**document["paths"]["/predict"], "post": predict}}
    return {**document, "paths": paths}


def request_examples(model: Model, items: int) -> Json:
    """Requests that the model ranks, by name."""
    ids = [example_id(model, 1_001 + at) for at in range(items)]
    examples: dict[str, Json] = {
        "plain": {"user_id": example_id(model, 123, "user"), "item_ids": ids}
    }
    context = {key: _context_text(key, entry) for key, entry in model.context.schema().items()}
    examples["context"] = {**examples["plain"], "context": context}
    if features := model.candidates.example(items):
        examples["features"] = {**examples["plain"], "features": features}
    if model.spec.outputs:
        examples["explain"] = {**examples["plain"], "explain": True}
    return {name: {"summary": SUMMARIES[name], "value": value} for name, value in examples.items()}


def example_id(model: Model, number: int, what: str = "item") -> int | str:
    return f"{what}-{number}" if model.spec.ids == "text" else number


def _request(schemas: Json, model: Model, max_items: int, *, closed: bool) -> Json:
    request = schemas["PredictRequest"]
    properties = dict(request["properties"])
    id_ = IDS[model.spec.ids]
    user = {key: value for key, value in properties["user_id"].items() if key != "anyOf"}
    properties["user_id"] = {**user, **id_}
    properties["item_ids"] = {**properties["item_ids"], "items": id_, "maxItems": max_items}
    context = {**properties["context"], "properties": model.context.schema()}
    properties["context"] = {**context, "additionalProperties": False} if closed else context
    properties["features"] = {
        **properties["features"],
        "properties": model.candidates.schema(max_items),
        "additionalProperties": False,
    }
    return {**request, "properties": properties}


def _response(schemas: Json, model: Model) -> Json:
    """The response's schemas that depend on the model."""
    id_, spec = IDS[model.spec.ids], model.spec
    prediction = schemas["Prediction"]
    score: Json = {"type": "number", "description": "Exact as a 32-bit float; it may be any finite"}
    if spec.range:
        low, high = spec.range
        score |= {"minimum": low, "maximum": high}
        score["description"] = "Exact as a 32-bit float: a predicted probability of engagement"
    of_item = {**prediction["properties"], "item_id": _titled(prediction, "item_id", id_)}
    of_item["score"] = {"title": "Score", **score}
    outputs = of_item.pop("outputs")
    if spec.outputs:
        one = {"type": ["number", "null"]}
        named = dict.fromkeys(spec.output_names, one)
        of_item["outputs"] = {
            **outputs, "type": "object", "properties": named, "additionalProperties": False
        }  # fmt: skip
    unknown, response = schemas["Unknown"], schemas["PredictResponse"]
    items = {**unknown["properties"]["items"], "items": id_}
    return {
        "Prediction": {**prediction, "properties": of_item},
        "Unknown": {**unknown, "properties": {**unknown["properties"], "items": items}},
        "PredictResponse": {
            **response,
            "properties": {**response["properties"], "user_id": _titled(response, "user_id", id_)},
        },
    }


def _titled(schema: Json, name: str, id_: Json) -> Json:
    return {"title": schema["properties"][name].get("title", name), **id_}


def _context_text(key: str, schema: Json) -> str:
    """A text that the key may have."""
    if key == TIMESTAMP:
        return A_TIME
    texts = schema.get("enum") or schema.get("examples") or [A_TEXT]
    return str(texts[0])


def _response_examples(examples: Json, model: Model) -> Json:
    return {
        name: {**example, "value": _as_answered(example["value"], model)}
        for name, example in examples.items()
    }


def _as_answered(response: Json, model: Model) -> Json:
    outputs = dict.fromkeys(model.spec.output_names, 0.5)
    predictions = [
        {**each, "item_id": example_id(model, each["item_id"])}
        | ({"outputs": outputs} if outputs else {})
        for each in response["predictions"]
    ]
    response = {
        **response,
        "user_id": example_id(model, response["user_id"], "user"),
        "predictions": predictions,
    }
    if unknown := response.get("unknown"):
        items = [example_id(model, item) for item in unknown["items"]]
        response["unknown"] = {**unknown, "items": items}
    return response


def _examples(part: Json) -> Json:
    (media,) = part["content"].values()
    examples: Json = media["examples"]
    return examples


def _with_examples(part: Json, examples: Json) -> Json:
    ((mime, media),) = part["content"].items()
    return {**part, "content": {mime: {**media, "examples": examples}}}
