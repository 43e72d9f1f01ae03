"""The SDKs' own suites (openai-python, anthropic-sdk-python), directly against a mock vendor and through the pool.

    python benchmarks/sdk_suites.py [--sdk openai|anthropic] [--work DIR] [--failures] [--all]

Of the tests whose calls a friend should have, every one that passes directly is to pass through the pool, and none of
those that act on the vendor's whole account or that nobody serves here. The suites come from the packages' source
distributions (pip), in an environment of their own; the mock answers each call with an example of the type the SDK
expects.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

from aiohttp import web

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.rig import free_port, process
from pool_server.core.models import Usage
from pool_server.demo import wire

TESTS = (
    "pytest",
    "pytest-asyncio",
    "pytest-timeout",
    "respx",
    "time-machine",
    "dirty-equals",
    "inline-snapshot",
    "http-snapshot",
)
NEEDED = (*TESTS, "standardwebhooks", "nest-asyncio", "rich", "httpx-aiohttp", "numpy", "trio")
PLUGIN = Path(__file__).resolve().parent / "suites"
TEST_S = 20  # a test that takes longer waits for something that never comes, and has failed
USAGE = Usage(input=3, output=2, known=True)
# Whose calls are whose: the vendors' API references. A test belongs to the strictest family of its calls.
REFUSED = re.compile(
    r"(/v1)?/(organizations?|projects|fine_tuning|evals|assistants|threads|skills|chatkit|audio/voices"
    r"|audio/voice_consents|realtime/(client_secrets|sessions|transcription_sessions)|agents|environments|vaults"
    r"|memory_stores|deployments|deployment_runs|dreams|tunnels|user_profiles|sessions|webhook_endpoints"
    r"|webhook_event_types|safety|compliance|realtime/translations/client_secrets)(/|$)"
)
SERVED = re.compile(
    r"(/v1)?/(chat/completions|completions|responses|embeddings|images|audio/(speech|transcriptions|translations)"
    r"|moderations|models|content_provenance_checks|files|uploads|batches|conversations|vector_stores|containers"
    r"|videos|messages|complete|realtime/calls)(/|$)"
)


class Mock:
    """A vendor that says to each call what the suite's plugin told it to."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, str], dict[str, Any]] = {}

    def application(self) -> web.Application:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_put("/tell", self._tell)
        app.router.add_get("/v1/realtime", self._beside)
        app.router.add_route("*", "/{path:.*}", self._answer)
        return app

    async def _tell(self, request: web.Request) -> web.Response:
        told = await request.json()
        self._told[told["method"], plain(told["path"])] = told
        return web.Response()

    async def _beside(self, request: web.Request) -> web.WebSocketResponse:
        """The socket beside a call, which the pool joins to count what the call uses."""
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.receive()
        return socket

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if request.method == "GET" and plain(request.path) == "/models":  # the pool asks for it on its own, too
            return web.json_response({"object": "list", "data": [MODEL | {"id": one} for one in LISTED], **ENDS})
        told = self._told.get((request.method, plain(request.raw_path.partition("?")[0])))
        if told is None:
            return web.json_response({"error": {"message": "nobody told", "type": "invalid_request_error"}}, status=404)
        if told["type"] == "text/event-stream":
            return web.Response(body=events(request.path, told["json"], body), content_type="text/event-stream")
        if told["type"] == "application/json":
            return web.json_response(told["json"])
        if not told["type"]:
            return web.Response(status=204)
        return web.Response(body=told["text"].encode(), content_type=told["type"])


MODEL = {"object": "model", "type": "model", "created": 1, "owned_by": "mock", "display_name": "m"}
MODEL |= {"created_at": "2026-01-02T03:04:05Z"}
LISTED = ("model_id", "gpt-4o-mini", "gpt-6-astra", "gpt-5.4")  # what the suites ask for by name
ENDS = {"has_more": False, "first_id": LISTED[0], "last_id": LISTED[-1]}
FINAL = {
    "/images/generations": "image_generation.completed",
    "/images/edits": "image_edit.completed",
    "/audio/transcriptions": "transcript.text.done",
}


def plain(path: str) -> str:
    return path.removeprefix("/v1")


def events(path: str, item: Any, body: bytes) -> bytes:
    """A stream of this vendor's call: a whole one where it is a model's answer, else one event."""
    if path.endswith("/chat/completions"):
        return b"".join(wire.chat_events("1", "m", ["a"], USAGE))
    if path.endswith("/responses"):
        return b"".join(wire.responses_events("resp_1", "m", ["a"], USAGE))
    if path.endswith("/messages"):
        return b"".join(wire.messages_events("1", "m", ["a"], USAGE))
    if last := FINAL.get(plain(path)):
        text = json.dumps({**item, "type": last, "text": "a", "usage": None})
        return f"event: {last}\ndata: {text}\n\n".encode()
    name = item.get("type", "") if isinstance(item, dict) else ""
    head = f"event: {name}\n" if name and "/complete" in path else ""
    return f"{head}data: {json.dumps(item)}\n\n".encode() + (b"" if head else b"data: [DONE]\n\n")


@contextlib.contextmanager
def mock_vendor(port: int) -> Iterator[None]:
    loop, ready = asyncio.new_event_loop(), Event()

    async def begin() -> web.AppRunner:
        runner = web.AppRunner(Mock().application(), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        ready.set()
        return runner

    def run() -> None:
        runner = loop.run_until_complete(begin())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())

    thread = Thread(target=run)
    thread.start()
    ready.wait(10)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def suite(sdk: str, work: Path) -> Path:
    """The unpacked source distribution of the SDK that is installed here, beside an environment for its tests."""
    import importlib.metadata

    version = importlib.metadata.version(sdk)
    folder = work / f"{sdk}-{version}"
    if not folder.exists():
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", sdk, "-d", str(work)]
        subprocess.run([*command, f"{sdk}=={version}"], check=True)
        with tarfile.open(next(work.glob(f"{sdk}-{version}.tar.gz"))) as archive:
            archive.extractall(work, filter="data")
    if not (work / "venv" / sdk).exists():
        subprocess.run([sys.executable, "-m", "venv", str(work / "venv")], check=True)
        pip = [str(work / "venv/bin/pip"), "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, f"{sdk}[aiohttp]=={version}", *NEEDED], check=True)
        (work / "venv" / sdk).touch()
    return folder


def run_suite(sdk: str, work: Path, base: str, mock: str, which: str) -> dict[str, dict[str, Any]]:
    """Each test's outcome and calls, by its name."""
    folder, report = suite(sdk, work), work / "report.json"
    report.unlink(missing_ok=True)
    env = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    env |= {"TEST_API_BASE_URL": base, "SUITE_MOCK": mock, "SUITE_PACKAGE": sdk, "SUITE_REPORT": str(report)}
    env |= {"PYTHONPATH": str(PLUGIN), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [str(work / "venv/bin/python"), "-m", "pytest", "-q", "-p", "plugin", "--tb=line", "-Wdefault"]
    command += ["-oaddopts=", f"--timeout={TEST_S}", "--durations=20", "--continue-on-collection-errors", "-k", which]
    with (work / f"{sdk}.log").open("wb") as log:
        subprocess.run([*command, "tests/api_resources"], cwd=folder, env=env, stdout=log, check=False)
    found: dict[str, dict[str, Any]] = json.loads(report.read_text())
    return found


def family(calls: list[list[str]]) -> str:
    paths = [path for _, path in calls]
    if any(REFUSED.match(path) for path in paths) or any(m == "DELETE" and "/models/" in path for m, path in calls):
        return "refused"
    if not paths:
        return "no call"
    return "served" if all(SERVED.match(path) for path in paths) else "unserved"


def write_pool(folder: Path, mock: str) -> None:
    (folder / "pool").mkdir()
    for name in ("openai_mock", "claude_mock"):
        path = folder / "pool" / f"{name}.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps({"api_key": f"sk-mock-{name}"}))
    (folder / "config.toml").write_text(f'[upstreams]\nopenai = "{mock}"\nclaude = "{mock}"\n')


def compare(sdk: str, work: Path, failures: bool, which: str) -> bool:
    """Prints one suite's figures; whether they are as they should be."""
    port, pool_port = free_port(), free_port()
    mock, pool = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{pool_port}"
    prefix = "/v1" if sdk == "openai" else ""
    with mock_vendor(port), tempfile.TemporaryDirectory() as folder:
        write_pool(Path(folder), mock)
        direct = run_suite(sdk, work, mock + prefix, mock, which)
        command = [sys.executable, "-m", "pool_server", "serve", "--listen", f"127.0.0.1:{pool_port}"]
        command += ["--config", f"{folder}/config.toml"]
        env = {"POOL_DIR": f"{folder}/pool", "POOL_DATA_DIR": f"{folder}/data"}
        os.environ.update(env)
        with process(command, core=0, port=pool_port, log=Path(folder) / "log"):
            through = run_suite(sdk, work, pool + prefix, mock, which)
    table: dict[str, Counter[str]] = {}
    wrong: list[str] = []
    for name, one in direct.items():
        kind, other = family(one["calls"]), through.get(name, {"outcome": "missing", "why": ""})
        counts = table.setdefault(kind, Counter())
        passes, passes_here = one["outcome"] == "passed", other["outcome"] == "passed"
        counts.update(tests=1, direct=passes, pool=passes and passes_here)
        if passes and passes_here != (kind in ("served", "no call")):
            wrong.append(f"{kind}: {name}\n    {one['calls']}\n    {other['why'][-400:]}")
    print(f"{sdk}: family, tests, pass directly, of these through the pool")
    for kind, counts in sorted(table.items()):
        print(f"  {kind:10} {counts['tests']:5} {counts['direct']:5} {counts['pool']:5}")
    print(f"  {len(wrong)} are not as they should be")
    if failures:
        print("\n".join(wrong))
    return not wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sdk", choices=["openai", "anthropic"], help="one of them alone")
    default = Path("~/.cache/pool-suites").expanduser()
    parser.add_argument("--work", type=Path, default=default, help="where the suites and their environment are kept")
    parser.add_argument("--failures", action="store_true", help="also what failed")
    parser.add_argument(
        "--all", action="store_true", help="with every client of the SDK, not the synchronous one alone"
    )
    asked = parser.parse_args()
    which = "" if asked.all else "loose and not Async"
    asked.work.mkdir(parents=True, exist_ok=True)
    sdks = [asked.sdk] if asked.sdk else ["openai", "anthropic"]
    good = [compare(sdk, asked.work, asked.failures, which) for sdk in sdks]
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
