"""A small S3 that does wrong on purpose: what the protocol of obstore needs, and one fault at a time."""

from __future__ import annotations

import hashlib
import http.server
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from urllib.parse import parse_qs, unquote, urlsplit

PAGE = 2  # names a page of a list
FAULTS = {
    "full": 507, "forbidden": 403, "slow down": 503, "broken": 500,
    "cut": 0, "flipped": 0, "lost": 0, "silent": 0, "not xml": 0,
}  # fmt: skip


class S3(http.server.ThreadingHTTPServer):
    """Buckets by path. `fault` is one of FAULTS or "" for none; `when` the methods that it befalls."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.kept: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.fault = ""
        self.when: tuple[str, ...] = ("PUT", "POST", "GET", "DELETE")
        self.asked: list[str] = []

    @property
    def options(self) -> dict[str, str]:
        """By which obstore reaches it."""
        return {
            "aws_endpoint": f"http://127.0.0.1:{self.server_port}", "aws_region": "us-east-1",
            "aws_access_key_id": "an-id", "aws_secret_access_key": "a-secret",
            "aws_virtual_hosted_style_request": "false",
        }  # fmt: skip


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: S3

    def log_message(self, format: str, *args: object) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", size: int | None = None, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if size is None else size))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle_one(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        name, query = unquote(url.path).lstrip("/"), parse_qs(url.query, keep_blank_values=True)
        self.server.asked.append(self.command)
        fault = self.server.fault if self.command in self.server.when else ""
        if status := FAULTS.get(fault, 0):
            self.answer(status, b"<Error><Code>Fault</Code><Message>of the fake</Message></Error>")
        elif fault == "silent":
            self.close_connection = True
        elif self.command == "GET" and "list-type" in query:
            self._list(name, query, fault)
        else:
            getattr(self, f"_{self.command.lower()}")(name, query, body, fault)

    do_PUT = do_POST = do_GET = do_HEAD = do_DELETE = handle_one

    def _list(self, bucket: str, query: dict[str, list[str]], fault: str) -> None:
        if fault == "not xml":
            self.answer(200, b"<html>welcome to the hotel's network</html>")
            return
        start = f"{bucket.rstrip('/')}/{query.get('prefix', [''])[0]}"
        after = query.get("continuation-token", [""])[0]
        names = sorted(one for one in self.server.kept if one.startswith(start) and one > after)
        page, more = names[:PAGE], len(names) > PAGE
        rows = "".join(
            f"<Contents><Key>{one.partition('/')[2]}</Key><Size>{len(self.server.kept[one])}</Size>"
            "<LastModified>2026-11-29T06:00:00.000Z</LastModified><ETag>x</ETag></Contents>"
            for one in page
        )
        token = f"<NextContinuationToken>{page[-1]}</NextContinuationToken>" if more else ""
        head = f"<Name>b</Name><KeyCount>{len(page)}</KeyCount><IsTruncated>{str(more).lower()}</IsTruncated>{token}"
        self.answer(200, f"<ListBucketResult>{head}{rows}</ListBucketResult>".encode())

    def _keep(self, name: str, body: bytes, fault: str) -> None:
        if fault != "lost":
            self.server.kept[name] = body[:-1] + bytes([body[-1] ^ 1]) if fault == "flipped" and body else body

    def _put(self, name: str, query: dict[str, list[str]], body: bytes, fault: str) -> None:
        if "partNumber" in query:
            self.server.parts[query["uploadId"][0]][int(query["partNumber"][0])] = body
        else:
            self._keep(name, body, fault)
        self.answer(200, ETag=f'"{hashlib.md5(body).hexdigest()}"')

    def _post(self, name: str, query: dict[str, list[str]], body: bytes, fault: str) -> None:
        if "uploads" in query:
            upload = f"u{len(self.server.parts)}"
            self.server.parts[upload] = {}
            self.answer(200, f"<R><UploadId>{upload}</UploadId></R>".encode())
            return
        if "delete" in query:
            keys = re.findall(r"<Key>(.*?)</Key>", body.decode())
            for key in keys:
                self.server.kept.pop(f"{name.rstrip('/')}/{key}", None)
            gone = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in keys)
            self.answer(200, f"<DeleteResult>{gone}</DeleteResult>".encode())
            return
        parts = self.server.parts.pop(query["uploadId"][0])
        self._keep(name, b"".join(parts[number] for number in sorted(parts)), fault)
        self.answer(200, b'<R><ETag>"x"</ETag></R>')

    def _get(self, name: str, query: dict[str, list[str]], body: bytes, fault: str) -> None:
        found = self.server.kept.get(name)
        if found is None:
            self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        if fault == "flipped":
            found = found[:-1] + bytes([found[-1] ^ 1])
        cut = found[: len(found) // 2] if fault == "cut" else found
        self.close_connection = fault == "cut"
        self.answer(200, cut, len(found), ETag='"x"', Last_Modified=formatdate(0, usegmt=True))

    _head = _get

    def _delete(self, name: str, query: dict[str, list[str]], body: bytes, fault: str) -> None:
        self.server.kept.pop(name, None)
        self.answer(204)


@contextmanager
def faulty_s3() -> Iterator[S3]:
    """One that serves for as long as the block lasts."""
    with S3() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
