"""What a fake provider keeps: files, batches, stored responses … each account knows its own alone, as at a real one."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

from aiohttp import web

from pool_server.demo.fake_upstream import Call

Json = dict[str, Any]

# path (without the fake's prefix) → what is made there, as (collection, id prefix)
_MAKES = (
    (r"/v1/files", "files", "file-"),
    (r"/v1/uploads", "uploads", "upload_"),
    (r"/v1/uploads/[^/]+/complete", "files", "file-"),
    (r"/v1/batches", "batches", "batch_"),
    (r"/v1/messages/batches", "batches", "msgbatch_"),
    (r"/v1/conversations", "conversations", "conv_"),
    (r"/v1/vector_stores", "vector_stores", "vs_"),
    (r"/v1/containers", "containers", "cntr_"),
    (r"/v1/videos(/[^/]+/remix|/edits|/extensions)?", "videos", "video_"),
    (r"/v1\w*/cachedContents", "cachedContents", "c"),
    (r"/v1\w*/models/[^/]+:(batchGenerateContent|asyncBatchEmbedContent)", "batches", "b"),
    (r"/v1\w*/models/[^/]+:predictLongRunning", "operations", "op"),
    (r"/upload/v1\w*/files", "files", "f"),
)
_LISTS = re.compile(r"/v1\w*/(?:messages/)?(files|batches|vector_stores|containers|videos|cachedContents)")
_COLLECTIONS = "files|uploads|batches|responses|conversations|vector_stores|containers|videos|cachedContents|operations"
_NAMES = re.compile(rf"/v1\w*/(?:messages/|models/[^/]+/)?({_COLLECTIONS})/([^/:]+)")


class Keeper:
    """Answers the calls around kept things. `kept` maps (account, collection) to ids in the order they were made;
    `calls` counts what arrived."""

    def __init__(self, *, page: int = 100) -> None:
        self.kept: dict[tuple[str, str], list[str]] = {}
        self.calls: list[Call] = []
        self._page = page
        self._numbers = itertools.count(1)

    def make(self, account: str, collection: str, prefix: str = "x") -> str:
        """A new id of the account's, as if made elsewhere."""
        ident = f"{prefix}{next(self._numbers):04d}"
        self.kept.setdefault((account, collection), []).append(ident)
        return ident

    def answer(self, call: Call) -> web.Response | None:
        """The answer to a call that is about kept things, None for others."""
        account = call.account or ""
        path = "/" + call.path.split("/", 2)[2]
        google = call.vendor == "gemini"
        if call.method == "POST":
            for pattern, collection, prefix in _MAKES:
                if re.fullmatch(pattern, path):
                    self.calls.append(call)
                    return self._made(account, path, collection, prefix, google)
        listed = _LISTS.fullmatch(path)
        if listed is not None and call.method == "GET":
            self.calls.append(call)
            return self._list(account, listed[1], call, google)
        named = _NAMES.match(path)
        if named is None:
            return None
        self.calls.append(call)
        return self._one(account, named[1], named[2], call, google)

    def _made(self, account: str, path: str, collection: str, prefix: str, google: bool) -> web.Response:
        ident = self.make(account, collection, prefix)
        name = f"{'models/m/' if collection == 'operations' else ''}{collection}/{ident}"
        if google:
            one: Json = {"name": name}
            return web.json_response({"file": one} if path.startswith("/upload") else one)
        if path.endswith("/complete"):
            return web.json_response({"id": "upload_x", "status": "completed", "file": {"id": ident}})
        return web.json_response({"id": ident, "object": collection})

    def _list(self, account: str, collection: str, call: Call, google: bool) -> web.Response:
        ids = self.kept.get((account, collection), [])
        query = dict(part.split("=", 1) for part in call.query.split("&") if "=" in part)
        if google:
            start, size = int(query.get("pageToken", 0)), min(int(query.get("pageSize", self._page)), self._page)
            body: Json = {"operations" if collection == "batches" else collection: [
                {"name": f"{collection}/{ident}"} for ident in ids[start : start + size]
            ]}  # fmt: skip
            if start + size < len(ids):
                body["nextPageToken"] = str(start + size)
            return web.json_response(body)
        after = query.get("after") or query.get("after_id")
        start = ids.index(after) + 1 if after in ids else 0
        size = min(int(query.get("limit", self._page)), self._page)
        page = ids[start : start + size]
        return web.json_response(
            {
                "object": "list",
                "data": [{"id": ident, "object": collection} for ident in page],
                "first_id": page[0] if page else None,
                "last_id": page[-1] if page else None,
                "has_more": start + size < len(ids),
            }
        )

    def _one(self, account: str, collection: str, ident: str, call: Call, google: bool) -> web.Response:
        ids = self.kept.get((account, collection), [])
        if ident not in ids:
            shape: Json = {"error": {"message": f"{ident} not found", "type": "invalid_request_error", "code": 404}}
            if call.vendor == "claude":
                shape = {"type": "error", "error": {"type": "not_found_error", "message": f"{ident} not found"}}
            return web.json_response(shape, status=404)
        if call.method == "DELETE":
            ids.remove(ident)
            return web.json_response({} if google else {"id": ident, "deleted": True})
        body: Json = {"name": f"{collection}/{ident}"} if google else {"id": ident, "object": collection}
        if collection == "batches" and not google:
            body["output_file_id"] = f"file-of-{ident}"
            if body["output_file_id"] not in self.kept.setdefault((account, "files"), []):
                self.kept[account, "files"].append(body["output_file_id"])
        return web.json_response(body | {"echo": json.dumps({"path": call.path})})
