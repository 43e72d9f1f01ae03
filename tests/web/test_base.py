"""What no handler can forget."""

from __future__ import annotations

import asyncio
import gc
import re
from pathlib import Path

import pytest

from pool_server.web.base.assets import paths
from pool_server.web.base.assets.bundle import assets
from pool_server.web.base.handler import SECURITY_HEADERS, Access, BaseHandler
from pool_server.web.routes import TABLE
from tests.web.site import Site

# Every route anybody may call. A new one is added here on purpose or not at all.
PUBLIC = {
    "/",
    "/healthz",
    "/health",
    "/readyz",
    "/admin",
    r"/favicon\.ico",
    "/language",
    "/api/friend/login",
    "/sign-in/openid",
    "/sign-in/openid/callback",
    r"/setup/([A-Za-z0-9_-]+)/([a-z]+)",
    r"/contribute/([A-Za-z0-9_-]+)",
    r"/static/([0-9a-f]+)/([a-z0-9_./-]+)",
    ".*",
}


def test_the_open_routes_are_these() -> None:
    assert {pattern for pattern, handler in TABLE if handler.access is Access.OPEN} == PUBLIC


def test_a_handler_without_an_access_class_cannot_be_written() -> None:
    with pytest.raises(TypeError, match="access"):

        class Forgetful(BaseHandler):
            pass


def test_a_handler_cannot_replace_the_check() -> None:
    with pytest.raises(TypeError, match="prepare"):

        class Sly(BaseHandler, access=Access.ADMIN):
            async def prepare(self) -> None:
                pass


@pytest.mark.parametrize("path", ["/", "/healthz", "/nothing", "/admin/accounts"])
def test_every_answer_carries_the_security_headers(local: Site, path: str) -> None:
    headers = local.get(path).headers
    for name, value in SECURITY_HEADERS.items():
        assert headers[name] == value
    assert "Server" not in headers


def test_a_body_over_the_cap_is_refused_unread(local: Site) -> None:
    answer = local.request("POST", "/admin/reload", body=b"x" * 70_000, Content_Type="application/json")
    assert answer.status == 413


@pytest.mark.gen_test
async def test_a_chunked_body_cannot_go_around_the_cap(local: Site) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", local.port)
    writer.write(b"POST /admin/reload HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
    writer.write((b"1000\r\n" + b"x" * 4096 + b"\r\n") * 64 + b"0\r\n\r\n")
    try:
        answer = await reader.readline()
    except ConnectionResetError:
        answer = b"HTTP/1.1 4xx"  # the server hung up within the body
    writer.close()
    assert answer.startswith(b"HTTP/1.1 4")
    assert (await local.fetch("GET", "/admin/audit?action=pool.")).json()["rows"] == []


@pytest.mark.slow
def test_handlers_leave_no_reference_cycles(local: Site) -> None:
    pages = ("/nothing", "/", "/status", "/accounts", "/admin/accounts")
    for path in pages:
        local.get(path, Accept="text/html")

    gc.collect()
    gc.disable()
    try:
        for path in (*pages, "/healthz"):
            local.get(path, Accept="text/html")
        found = local.run(lambda: [thing for thing in gc.get_objects() if isinstance(thing, BaseHandler)])
        alive = {type(handler).__name__ for handler in found}
    finally:
        gc.enable()
    assert alive <= {"Healthz"}, "only the last request's own handler may still be ending"


def test_templates_are_found_in_a_source_tree_and_in_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (paths.templates_folder() / "setup" / "codex.sh").is_file()
    monkeypatch.setattr(paths, "PACKAGE", tmp_path / "pool_server")
    with pytest.raises(FileNotFoundError):
        paths.templates_folder()
    (tmp_path / "pool_server" / "_templates" / "pages").mkdir(parents=True)
    assert paths.templates_folder() == tmp_path / "pool_server" / "_templates"


def test_errors_are_a_page_for_browsers_and_a_line_for_programs(local: Site) -> None:
    page = local.get("/nothing", Accept="text/html")
    assert (page.status, page.headers["Content-Type"]) == (404, "text/html; charset=utf-8")
    line = local.get("/nothing")
    assert line.json() == {"error": {"code": "not_found", "message": "there is nothing here"}}
    wrong = local.request("DELETE", "/healthz")
    assert (wrong.status, wrong.headers["Allow"]) == (405, "GET, HEAD")


def test_static_files_are_kept_for_ever_under_their_hash(local: Site) -> None:
    page = local.get("/", Accept="text/html").text
    urls = re.findall(r'(?:href|src)="(/static/[^"]+)"', page)
    assert len(urls) >= 3
    for url in urls:
        answer = local.get(url, Accept_Encoding="gzip")
        assert answer.status == 200
        assert "immutable" in answer.headers["Cache-Control"]
        assert answer.headers["Content-Encoding"] == "gzip"
    again = local.get(urls[0], If_None_Match=answer.headers["Etag"])
    assert again.status == 304
    assert local.get(urls[0].replace(assets().version, "0" * 16)).headers["Cache-Control"] == "no-cache"
    assert local.get(f"/static/{assets().version}/../base.py").status == 404


def test_pages_are_compressed(local: Site) -> None:
    answer = local.get("/", Accept="text/html", Accept_Encoding="gzip")
    assert answer.headers["Content-Encoding"] == "gzip"


def test_every_module_a_script_imports_is_there() -> None:
    files = assets().files
    for name, asset in files.items():
        if name.endswith(".js") and not name.startswith("vendor/"):
            for found in re.findall(rb'from "\./([^"]+)"', asset.body):
                assert found.decode() in files, f"{name} imports {found.decode()}"
