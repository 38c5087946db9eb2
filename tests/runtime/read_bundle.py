"""Reads a bundle as a container does, and prints what its golden requests become: the SHA-256 of
each model input, and the scores. Run by more than one Python."""

import hashlib
import json
import sys
from pathlib import Path

from feedrank.bundle.layout import GOLDEN
from feedrank.domain import Query
from feedrank.model.load import load_model
from feedrank.settings import Settings

bundle, cache = sys.argv[1:]
settings = Settings.from_environment({"MODEL_URI": bundle, "MODEL_CACHE_DIR": cache})
model = load_model(bundle, "", settings)
requests = []
for case in json.loads((Path(bundle) / GOLDEN).read_bytes())["cases"]:
    sent = model.candidates.read(case.get("features", {}), len(case["item_ids"]))
    query = Query(case["user_id"], case["item_ids"], case["context"], case["time_s"], sent)
    inputs = model.matrix.build(query, model.features.look_up(query))
    hashes = {
        name: [str(tensor.dtype), tensor.shape, hashlib.sha256(tensor.tobytes()).hexdigest()]
        for name, tensor in inputs.items()
    }
    requests.append({"inputs": hashes, "scores": model.engine.score(inputs).tolist()})
print(json.dumps({"python": sys.version_info[:2], "requests": requests}))
