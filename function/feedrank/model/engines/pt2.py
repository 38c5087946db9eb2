"""PyTorch's archive of an exported program, checked before PyTorch sees it.

`torch.export.load` turns text of the archive into code: shape expressions go through sympy's
`eval`, guards and names into generated source, operators are looked up by name, tree
specifications import modules, sample inputs are unpickled. So each text must match the grammar of
its field, and sample inputs and stack traces, which serving doesn't need, are removed. PyTorch gets
a new archive of what passed, so it reads nothing that was not checked.

PyTorch's own operators and its reader of tensors are trusted.
"""

import io
import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

from feedrank.bundle.documents import Rule, read
from feedrank.bundle.layout import TORCH_MODEL
from feedrank.errors import BundleError
from feedrank.model.engines.pt2_schema import PAYLOADS, PROGRAM

MODEL = "models/model.json"
CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
TENSORS = re.compile(r"data/(weights/weight|constants/tensor)_\d{1,7}")
MARKERS: Mapping[str, re.Pattern[bytes]] = {
    "archive_format": re.compile(rb"pt2"),
    "archive_version": re.compile(rb"0"),
    "byteorder": re.compile(rb"little"),
    ".data/version": re.compile(rb"\d{1,3}\n?"),
    ".data/serialization_id": re.compile(rb"\d{1,80}"),
}
UNUSED = ("data/sample_inputs/model.pt",)  # a pickle


def checked_archive(file: Path | io.BytesIO) -> io.BytesIO:
    """An archive that PyTorch may load. Raises BundleError if the file is not an archive of a
    program, or holds more than a program and its tensors."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name, content in _checked_records(file).items():
            archive.writestr(f"model/{name}", content)
        for name in UNUSED:
            archive.writestr(f"model/{name}", b"")
    written.seek(0)
    return written


def _checked_records(file: Path | io.BytesIO) -> dict[str, bytes]:
    records = _records(file)
    for name, marker in MARKERS.items():
        if not marker.fullmatch(records.get(name, b"")):
            raise BundleError(f"{TORCH_MODEL}: {name} is missing or not known")
    for name in CONFIGS:
        records[name] = _checked(records, name, PAYLOADS)
    records[MODEL] = _checked(records, MODEL, PROGRAM)
    return records


def _records(file: Path | io.BytesIO) -> dict[str, bytes]:
    records: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            root = entries[0].filename.partition("/")[0]
            if sum(entry.file_size for entry in entries) > archive.start_dir:
                raise BundleError(f"{TORCH_MODEL}: its records overlap")
            for entry in entries:
                name = entry.filename.removeprefix(f"{root}/")
                if not _is_known(name) or name in records or entry.compress_type:
                    raise BundleError(
                        f"{TORCH_MODEL}: holds {name[:100]!r}, which no program needs"
                    )
                if name not in UNUSED:
                    records[name] = archive.read(entry)
    except (OSError, ValueError, LookupError, RuntimeError, zipfile.BadZipFile) as error:
        raise BundleError(f"{TORCH_MODEL}: not an archive of torch.export: {error}") from error
    return records


def _is_known(name: str) -> bool:
    known = (*MARKERS, *CONFIGS, MODEL, *UNUSED)
    return name in known or TENSORS.fullmatch(name) is not None


def _checked(records: Mapping[str, bytes], name: str, rule: Rule) -> bytes:
    if name not in records:
        raise BundleError(f"{TORCH_MODEL}: lacks {name}")
    return json.dumps(read(records[name], f"{TORCH_MODEL}: {name}", rule)).encode()
