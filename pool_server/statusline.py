"""The status line in a shell: what was last told, at once; what is told now, fetched beside it for the next time.

A CLI draws its status bar many times a minute and waits for the command, so this module imports next to nothing: the
answer is kept as plain text under the user's cache folder, and a process of its own fetches a fresh one.
"""

import os
import sys
import time

FRESH_S = 15.0  # what is younger is not fetched again
STALE_S = 600.0  # what is older is not shown as if it were true
PATIENCE_S = 2.0
LARGEST = 4096  # bytes of a line that is kept
USUAL = "http://127.0.0.1:8989"


class LineSource:
    """Where the pool is, the key for it ("" = none), which provider is asked for ("" = all), and the file that keeps
    the line. POOL_URL and POOL_KEY come first; Claude Code hands its own two variables to its status line. An address
    and a key are a pair: a key goes to no address but the one it was set with."""

    def __init__(self, environ: dict[str, str], provider: str = "") -> None:
        names = ("POOL_URL", "POOL_KEY"), ("ANTHROPIC_BASE_URL", "ANTHROPIC_AUTH_TOKEN")
        pairs = [(environ.get(url, ""), environ.get(key, "")) for url, key in names]
        url, key = next((pair for pair in pairs if pair[0]), ("", environ.get("POOL_KEY", "")))
        self.url = (url or USUAL).rstrip("/")
        self.key = key
        self.provider = provider
        folder = environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
        name = digest(f"{self.url}\n{self.key}\n{provider}".encode(errors="surrogateescape"))
        self.file = os.path.join(folder, "pool-server", f"statusline-{name:016x}")


def digest(text: bytes) -> int:
    """FNV-1a, 64 bits: a name for a file, without loading a library for it."""
    found = 0xCBF29CE484222325
    for byte in text:
        found = (found ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return found


def kept(file: str, now: float) -> tuple[str, float]:
    """The line that is kept and its age in seconds; ("", inf) without one."""
    try:
        with open(file, encoding="utf-8") as found:
            return found.read(LARGEST).strip(), max(0.0, now - os.fstat(found.fileno()).st_mtime)
    except (OSError, ValueError):
        return "", float("inf")


def fetch(place: LineSource) -> str:
    """What the pool says now, and keeps it. Raises OSError and ValueError, in one line, when it cannot be had."""
    import urllib.error
    import urllib.parse
    import urllib.request

    class Stay(urllib.request.HTTPRedirectHandler):
        """The key is for this address alone."""

        def redirect_request(self, *args: object) -> None:
            return None

    query = f"?provider={urllib.parse.quote(place.provider)}" if place.provider else ""
    request = urllib.request.Request(f"{place.url}/api/statusline{query}")
    if not place.url.startswith(("http://", "https://")):
        raise ValueError("POOL_URL is no http or https address")
    if place.key:
        request.add_header("Authorization", f"Bearer {place.key}")
    try:
        with urllib.request.build_opener(Stay).open(request, timeout=PATIENCE_S) as answer:
            line = str(answer.read(LARGEST).decode()).partition("\n")[0]
    except urllib.error.HTTPError as error:
        with error:
            raise OSError(f"the pool at {place.url} answers {error.code}") from None
    line = "".join(char for char in line if char.isprintable())
    os.makedirs(os.path.dirname(place.file), mode=0o700, exist_ok=True)
    beside = f"{place.file}.{os.getpid()}"
    with open(beside, "w", encoding="utf-8") as made:
        made.write(line + "\n")
    os.replace(beside, place.file)
    return line


def _fetch_beside(provider: str) -> None:
    """Starts a process that fetches the line for the next time; nobody waits for it."""
    import subprocess

    command = [
        sys.executable,
        "-m",
        "pool_server",
        "statusline",
        "--fetch",
        *(["--provider", provider] if provider else []),
    ]
    nothing = subprocess.DEVNULL
    subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True)


def show(provider: str = "", *, only_fetch: bool = False) -> str:
    """The line to print. Without one that is kept the pool is asked and waited for, at most PATIENCE_S a step."""
    place = LineSource(dict(os.environ), provider)
    line, age = kept(place.file, time.time())
    if not only_fetch and line and age < STALE_S:
        if age > FRESH_S:
            os.utime(place.file)  # one fetch at a time, however often the bar is drawn
            _fetch_beside(provider)
        return line
    try:
        return fetch(place)
    except (OSError, ValueError) as error:
        if only_fetch and line:
            os.utime(place.file, (time.time(), time.time() - age))  # no younger than it is
        return f"pool: {error}" if isinstance(error, ValueError) else f"pool: no answer from {place.url}"


def tell(line: str) -> None:
    """Prints the line and ends the process at once: taking the interpreter apart costs as much as all of this."""
    try:
        print(line, flush=True)
    except OSError:  # nobody reads it any more
        os._exit(1)
    os._exit(0)


def asked(words: list[str]) -> str | None:
    """The provider that plain arguments ask for ("" = all); None where the full command has to read them."""
    match words:
        case []:
            return ""
        case ["--provider", provider]:
            return provider
    return None
