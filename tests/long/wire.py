"""Strategies for parts of HTTP requests that no sane client sends. SECRET marks a caller's texts,
which must appear neither in an error nor in a log line."""

from hypothesis import strategies as st

SECRET = "SECRET-b7f1"
PATHS = ["/predict", "/health", "/metrics", "/model", "/", "/docs", "/openapi.json"]
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "SECRET-b7f1"]
NAMES = ["accept", "accept-encoding", "authorization", "content-type", "content-encoding", "cookie",
         "expect", "forwarded", "if-none-match", "origin", "range", "upgrade", "user-agent",
         "x-amzn-trace-id", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto",
         "x-http-method-override", "x-request-id"]  # fmt: skip
TOKEN = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
LATIN = st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f")


def secret(texts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return texts.map(lambda text: SECRET + text)


names = st.sampled_from(NAMES) | secret(st.text(TOKEN, max_size=8)).map(str.lower)
values = st.just(SECRET) | secret(st.text(LATIN, max_size=40).map(str.strip))
headers = st.dictionaries(names, values, max_size=6)
queries = st.dictionaries(secret(st.text(max_size=8)), secret(st.text(max_size=20)), max_size=3)
bodies = st.binary(max_size=60).map(lambda data: SECRET.encode() + data) | st.just(b"")
paths = st.sampled_from(PATHS) | secret(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
).map(lambda text: f"/{text}")
