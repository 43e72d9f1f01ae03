"""Ids whose usage counts once, however often their results are fetched: stored responses and batch jobs."""

from __future__ import annotations

import re

_FETCHED = re.compile(
    r"/messages/batches/(?P<batch>[^/]+)/results"
    r"|/v1(?:alpha|beta)\d*/(?P<job>batches/[^/:]+)"
    r"|/(?P<file>files/[^/:]+)(?:/content|:download)"
    r"|/(?:responses|chat/completions)/(?P<response>[^/]+)"
)
_MAKES = ("/batches", ":batchGenerateContent", ":asyncBatchEmbedContent")


def makes_batch(method: str, path: str) -> bool:
    """Whether a call makes a batch job, whose usage comes with its results."""
    return method == "POST" and path.endswith(_MAKES)


def identity(method: str, path: str, response_id: str, *, stored: bool) -> str:
    """The id that a call's usage counts for, "" where it counts for itself: a GET's from its path, a POST's from its
    answer where that can be fetched again (`stored`) or is a batch's."""
    if method == "GET":
        found = _FETCHED.search(path)
        whole = found is not None and found.end() == len(path)
        return next((value for value in found.groups() if value), "") if found is not None and whole else ""
    return response_id if method == "POST" and (stored or makes_batch(method, path)) else ""
