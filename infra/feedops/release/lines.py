"""Lines of the function's log, as an operator reads and filters them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from feedrank.decisions.record import RECORD

Line = Mapping[str, Any]
Kind = Literal["all", "requests", "decisions", "errors"]
TOP = 5  # items of a decision that are shown
SERVER_ERROR = 500
SERIOUS = {"WARNING", "ERROR", "CRITICAL"}


def parse(text: str) -> Line | None:
    """None for a line that is no JSON object, such as the emulator's own."""
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) else None


def is_request(line: Line) -> bool:
    return line.get("message") == "request" and "status" in line


def is_decision(line: Line) -> bool:
    return line.get("record") == RECORD


def is_failed_invocation(line: Line) -> bool:
    """Lambda's own report of a timeout or of a crash."""
    record = line.get("record")
    return (
        line.get("type") == "platform.report"
        and isinstance(record, dict)
        and record.get("status", "success") != "success"
    )


def is_error(line: Line) -> bool:
    if is_request(line):
        return bool(line["status"] >= SERVER_ERROR)
    return is_failed_invocation(line) or line.get("level") in SERIOUS


@dataclass(frozen=True, slots=True)
class Filter:
    """`status` is a status such as 422, or a class of them such as 5xx; empty for any. `user` is
    the id of a decision's user, or its hash: request lines name none."""

    kind: Kind = "all"
    status: str = ""
    slower_than_ms: float = 0.0
    user: str = ""
    request_id: str = ""
    since: str = ""  # ISO 8601, UTC

    def accepts(self, line: Line) -> bool:
        if not self._is_of_the_kind(line):
            return False
        if self.since and time_of(line) and time_of(line) < self.since:
            return False
        if self.status and not _has_status(line, self.status):
            return False
        if self.slower_than_ms and not line.get("latency_ms", 0.0) > self.slower_than_ms:
            return False
        if self.user and not (is_decision(line) and self.user in _users(line)):
            return False
        return not self.request_id or line.get("request_id") == self.request_id

    def _is_of_the_kind(self, line: Line) -> bool:
        match self.kind:
            case "requests":
                return is_request(line)
            case "decisions":
                return is_decision(line)
            case "errors":
                return is_error(line)
            case _:
                return is_request(line) or is_decision(line) or is_error(line)


def _has_status(line: Line, status: str) -> bool:
    return is_request(line) and str(line["status"]).startswith(status.removesuffix("xx"))


def _users(line: Line) -> set[str]:
    return {str(line[key]) for key in ("user_id", "user_hash") if line.get(key) is not None}


def time_of(line: Line) -> str:
    """ISO 8601, UTC; empty where the line has none."""
    return str(line.get("timestamp") or line.get("time") or "")


def shown(line: Line) -> str:
    clock = time_of(line)[11:23]
    if is_request(line):
        return f"{clock} {_request(line)}"
    if is_decision(line):
        return f"{clock} {_decision(line)}"
    if is_failed_invocation(line):
        record = line["record"]
        return f"{clock} Lambda: {record['status']}, request {record.get('requestId', '')}"
    reason = line.get("exception_name") or line.get("errorMessage") or ""
    return f"{clock} {line.get('level', '')} {line.get('message', '')} {reason}".rstrip()


def _request(line: Line) -> str:
    parts = [f"{line['status']} {line.get('route', '')}", f"{line.get('latency_ms', 0.0):.1f} ms"]
    if "items" in line:
        parts.append(f"{line['items']} items")
    parts.append(f"request {line.get('request_id', '')}")
    if line.get("cold_start"):
        parts.append("cold start")
    if line.get("degraded"):
        parts.append(f"degraded: {', '.join(line['degraded'])}")
    if line.get("error"):
        parts.append(": ".join(filter(None, [line["error"], line.get("reason", "")])))
    return ", ".join(parts)


def _decision(line: Line) -> str:
    """The best items, in the order of their ranks; dropped ones have none."""
    ranked = sorted(
        (rank, item, score)
        for rank, item, score in zip(line["ranks"], line["item_ids"], line["scores"], strict=True)
        if rank is not None
    )
    best = ", ".join(f"{item} ({score:.4g})" for _, item, score in ranked[:TOP])
    more = f" and {len(ranked) - TOP} more" if len(ranked) > TOP else ""
    user = line.get("user_id")
    name = f"user {user}" if user is not None else f"user hash {line.get('user_hash')}"
    return f"{name}: {best}{more}; {line['model_version']}, request {line['request_id']}"
