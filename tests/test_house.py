"""The house rules that a machine can hold: floors, sizes, plain text, and what no file may say."""

from __future__ import annotations

import ast
import functools
import re
import runpy
import socket
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import SLOW

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "pool_server"

# A module imports only what stands before it here, and within its own room; rooms in a row do not know each other.
FLOORS = (
    ("core", "language", "statusline"),
    ("http1", "storage"),
    ("providers", "dialects"),
    ("accounts", "users", "ledger", "texts", "transcripts", "telemetry"),
    ("cluster",),
    ("alerts", "simulation"),
    ("gateway", "web"),
    ("app",),
    ("demo",),
    ("cli",),
    ("__main__",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
LINES = 500
FUNCTION_LINES = 50
MODULES = 12  # in one folder, beside its __init__.py
PART_ARROWS = {"accounts": 40, "web": 40, "users": 15, "gateway": 40}  # imports between the parts of a room


@functools.cache
def tracked() -> list[Path]:
    """Files git knows or would add; without git (an unpacked archive) every file that is not generated."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode == 0:
        return [path for line in listed.stdout.splitlines() if (path := ROOT / line).is_file()]
    return [path for path in ROOT.rglob("*") if path.is_file() and not any(p.startswith(".") for p in path.parts)]


def room(path: Path) -> str:
    """`pool_server/users/identity/keys.py` → users."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@functools.cache
def modules() -> list[Path]:
    return [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]


@functools.cache
def nodes(path: Path) -> list[ast.AST]:
    """Every node of a file of the package, in the order of `ast.walk`; read once for all the tests."""
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def imported_rooms(path: Path) -> Iterator[tuple[int, str]]:
    """(line, room) of every import of the package, wherever in the file it stands."""
    for node in nodes(path):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            module = node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "pool_server" else [module]
        else:
            continue
        for name in names:
            if name.startswith("pool_server."):
                yield node.lineno, name.split(".")[1]


def module_name(path: Path) -> str:
    """`pool_server/users/__init__.py` → pool_server.users."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@functools.cache
def imported_modules() -> dict[str, set[str]]:
    """Module → the modules of the package that it imports, wherever in the file, for types only included."""
    names = {module_name(path): path for path in PACKAGE.rglob("*.py")}
    found: dict[str, set[str]] = {}
    for name, path in names.items():
        targets: set[str] = set()
        for node in nodes(path):
            if isinstance(node, ast.Import):
                targets.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                targets |= {target if target in names else str(node.module) for target in inner}
        found[name] = {target for target in targets if target in names} - {name}
    return found


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """The groups of names that reach each other (Tarjan's strongly connected components of two and more)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        order[name] = low[name] = len(order)
        stack.append(name)
        for target in sorted(arrows.get(name, ())):
            if target not in order:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], order[target])
        if low[name] == order[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in sorted(arrows):
        if name not in order:
            visit(name)
    return found


def part(name: str) -> str:
    """`pool_server.users.identity.keys` → identity; "" for a module that stands in the room itself."""
    path = ROOT.joinpath(*name.split("."))
    steps = (path if path.is_dir() else path.parent).relative_to(PACKAGE).parts
    return steps[1] if len(steps) > 1 else ""


def part_arrows(room_name: str) -> set[tuple[str, str]]:
    """(module, part) for each other part of its room that a module imports from; the room itself is one part."""
    inside = f"pool_server.{room_name}"
    return {
        (name, part(target))
        for name, targets in imported_modules().items()
        if name == inside or name.startswith(f"{inside}.")
        for target in targets
        if (target == inside or target.startswith(f"{inside}.")) and part(target) != part(name)
    }


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles(imported_modules()) == []


def test_a_circle_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}) == [["a", "b", "c"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


@pytest.mark.parametrize(("room_name", "most"), PART_ARROWS.items())
def test_parts_of_a_room_lean_on_few_others(room_name: str, most: int) -> None:
    found = part_arrows(room_name)
    assert len(found) <= most, sorted(found)


@pytest.mark.parametrize("room_name", sorted({room(path) for path in modules()}))
def test_parts_of_a_room_form_no_circle(room_name: str) -> None:
    """The room's own modules are left out: they hold the parts together, and what all parts use."""
    arrows: dict[str, set[str]] = defaultdict(set)
    for name, target in part_arrows(room_name):
        if part(name) and target:
            arrows[part(name)].add(target)
    assert circles(arrows) == []


def test_every_room_has_its_floor() -> None:
    assert {room(path) for path in modules()} <= FLOOR.keys()


def test_rooms_know_only_the_floors_below() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {target}"
        for path in modules()
        for line, target in imported_rooms(path)
        if target != room(path) and target != "__version__" and FLOOR[target] >= FLOOR[room(path)]
    ]
    assert not wrong


@pytest.mark.parametrize(
    ("rooms", "library"),
    [
        (("accounts", "users", "ledger", "providers", "dialects", "storage"), "tornado"),
        (("accounts", "users", "ledger", "providers", "dialects", "storage"), "aiohttp"),
        (("accounts", "users", "ledger", "providers", "dialects", "gateway", "web"), "lmdb"),
        (("accounts", "users", "ledger", "providers", "dialects", "storage", "gateway", "web"), "click"),
        (tuple(room for rooms in FLOORS for room in rooms if room != "storage"), "asyncpg"),
        (tuple(room for rooms in FLOORS for room in rooms if room != "telemetry"), "opentelemetry"),
    ],
)
def test_libraries_stay_at_their_edge(rooms: tuple[str, ...], library: str) -> None:
    wrong = []
    for path in modules():
        if room(path) in rooms:
            for node in nodes(path):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                wrong += [f"{path.relative_to(ROOT)}:{name}" for name in names if name.split(".")[0] == library]
    assert not wrong


def test_no_source_outgrows_its_room() -> None:
    kinds = {".py", ".js", ".css", ".html", ".sh", ".ps1"}
    long = [p for p in tracked() if p.suffix in kinds and p.read_text(encoding="utf-8").count("\n") > LINES]
    assert not long


def test_no_folder_outgrows_its_room() -> None:
    folders = Counter(path.parent for path in modules() if path.name != "__init__.py")
    assert not {folder: count for folder, count in folders.items() if count > MODULES}


def definitions(kind: type[ast.AST] | tuple[type[ast.AST], ...]) -> Iterator[tuple[str, Any]]:
    """(file, node) of every class or function of the package."""
    for path in modules():
        for node in nodes(path):
            if isinstance(node, kind):
                yield str(path.relative_to(ROOT)), node


def test_no_function_outgrows_a_screen() -> None:
    functions = definitions((ast.FunctionDef, ast.AsyncFunctionDef))
    long = [f"{file}:{n.lineno} {n.name}" for file, n in functions if n.end_lineno - n.lineno >= FUNCTION_LINES]
    assert not long


def test_a_public_class_name_means_one_thing() -> None:
    homes: dict[str, list[str]] = defaultdict(list)
    for file, node in definitions(ast.ClassDef):
        if not node.name.startswith("_"):
            homes[node.name].append(file)
    assert not {name: files for name, files in homes.items() if len(files) > 1}


def given_twice(body: list[ast.stmt]) -> list[str]:
    """The constants that a module gives a second value: whoever reads the first one is not told."""
    given: Counter[str] = Counter()
    for statement in body:
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            given.update(name.id for name in targets if isinstance(name, ast.Name) and name.id.isupper())
    return [name for name, times in given.items() if times > 1]


def test_a_constant_is_given_once() -> None:
    sources = [path for path in tracked() if path.suffix == ".py"]
    twice = {str(path): given_twice(ast.parse(path.read_text(encoding="utf-8")).body) for path in sources}
    assert {path: names for path, names in twice.items() if names} == {}
    assert given_twice(ast.parse("FEW = 64\nMOST: int = 2\nFEW = 5\n").body) == ["FEW"]


# Words the glossary has another one for: in no name of the package, or of one part of it.
NOT_SAID = {
    "": "card cards cube cubes keeper lane lanes outlook phrases promises roster shelf steady upcall vault",
    "accounts/health": "live rest rests resting view",
    "accounts/selection": "ask held live rest rests resting stand stands view",
    "gateway": "rooms",
    "ledger": "book books",
    "simulation": "live rests view",
    "users": "book books",
}
NOT_CLASSES = {"Ask", "Card", "Front", "Gone", "Lane", "Line", "Lines", "Live", "Rooms", "Stand", "Taker", "View"}


def names(path: Path) -> Iterator[str]:
    """What a file itself names: the module, its classes, functions, arguments, variables and attributes."""
    yield path.stem
    for node in nodes(path):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def parts_of(name: str) -> set[str]:
    """`_MostLanes_kept` → most, lanes, kept."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


@pytest.mark.parametrize("where", NOT_SAID)
def test_names_are_those_of_the_glossary(where: str) -> None:
    banned = set(NOT_SAID[where].split())
    said = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in modules()
        if path.is_relative_to(PACKAGE / where)
        for name in names(path)
        if (parts_of(name) if not where else {name.strip("_").lower()}) & banned
    }
    assert not said


def test_no_class_has_a_private_word_for_its_name() -> None:
    assert not {node.name for _, node in definitions(ast.ClassDef)} & NOT_CLASSES


# Module names of more than one room, and why: all others mean one thing.
SEVERAL_ROOMS = {
    "what every room has of its own": "base errors handler models ports request requests server service types",
    "one subject on several floors: its arithmetic, its command, its page": (
        "backup headroom onboarding pasted people programs reconcile score settings sign_in standing status "
        "stream_usage windows"
    ),
    "a vendor's part in each": "anthropic google openai",
    "DESIGN's word for two things that never meet": "answer answers asking live pending rules served store vendors",
}


def test_a_module_name_means_one_thing() -> None:
    rooms: dict[str, set[str]] = defaultdict(set)
    for path in modules():
        if path.name != "__init__.py":
            rooms[path.stem].add(room(path))
    several = {name for name, homes in rooms.items() if len(homes) > 1}
    assert several <= {name for names in SEVERAL_ROOMS.values() for name in names.split()}


def test_every_exception_says_that_it_is_an_error() -> None:
    raised = [
        f"{file}: {node.name}"
        for file, node in definitions(ast.ClassDef)
        if any(ast.unparse(base).endswith(("Exception", "Error")) for base in node.bases)
        and not node.name.endswith("Error")
        and not node.name.startswith("_")
    ]
    assert not raised


def test_the_page_of_evidence_is_the_tables() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "evidence"), run_name="evidence")
    assert script["PAGE"].read_text(encoding="utf-8") == script["page"](), "run scripts/evidence"


def test_the_picture_of_the_architecture_is_the_code_s() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "architecture"), run_name="architecture")
    assert script["PAGE"].read_text(encoding="utf-8") == script["page"](), "run scripts/architecture"


def texts() -> Iterator[tuple[Path, str]]:
    for path in tracked():
        raw = path.read_bytes()
        if path.suffix not in {".png", ".ico", ".woff2", ".zst", ".gz"}:
            yield path, raw.decode("utf-8")


def test_every_text_is_utf8_with_plain_line_ends() -> None:
    for path, text in texts():
        assert "\r" not in text or path.suffix == ".ps1" or "fixtures" in path.parts, path
        assert not text.startswith("\ufeff"), path
        assert not text or text.endswith("\n") or "fixtures" in path.parts, path


def test_no_file_says_what_none_may_say() -> None:
    forbidden = ["TO" + "DO", "FIX" + "ME", "XX" + "X:", "/wo" + "rk/", "registry.npm" + "js", "pypi." + "org"]
    wrong = [f"{path.relative_to(ROOT)}: {word}" for path, text in texts() for word in forbidden if word in text]
    assert not wrong


def test_templates_are_in_the_wheel_and_config_is_not_tracked() -> None:
    names = {str(path.relative_to(ROOT)) for path in tracked()}
    assert not names & {"config.toml"}
    assert {n for n in names if n.startswith(("pool/", "data/"))} <= {"pool/README.md", "data/README.md"}
    built = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert '"templates" = "pool_server/_templates"' in built
    assert '"CHANGELOG.md" = "pool_server/_templates/CHANGELOG.md"' in built


def test_the_two_commands_can_be_run() -> None:
    for name in ("scripts/serve", "scripts/demo", "scripts/test", "scripts/install-clis", ".ci/run"):
        path = ROOT / name
        assert path.stat().st_mode & 0o111, name
        shell = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("#!").split()[-1].removeprefix("/bin/")
        subprocess.run([shell, "-n", str(path)], check=True)
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_tests_cannot_leave_loopback() -> None:
    with socket.socket() as sock, pytest.raises(OSError, match="stay on loopback"):
        sock.connect(("192.0.2.1", 80))


SKIPS = """
    import pytest

    @pytest.mark.skip(reason="no browser here")
    def test_told(): pass

    def test_silent():
        pytest.skip()

    @pytest.mark.xfail(reason="known")
    def test_known(): assert False

    def test_good(): pass
"""


@pytest.mark.slow
@pytest.mark.parametrize(("require", "failed", "errors"), [("", 1, 0), ("1", 1, 2)])
def test_skips_are_told_and_fail_where_all_must_run(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, require: str, failed: int, errors: int
) -> None:
    monkeypatch.setenv("POOL_REQUIRE_ALL", require)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # of plugins, conftest.py alone is asked here
    pytester.makeconftest((ROOT / "tests/conftest.py").read_text(encoding="utf-8"))
    pytester.makepyfile(SKIPS)
    pytester.makepyfile(test_module='import pytest; pytest.importorskip("no_such_module")')
    result = pytester.run(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--continue-on-collection-errors")
    result.assert_outcomes(passed=1, xfailed=1, failed=failed, skipped=2 - errors, errors=errors)


def test_what_is_listed_as_slow_is_there() -> None:
    assert not [name for name in SLOW if not (ROOT / "tests" / name).is_file()]


UNTYPED_ROWS = 17  # of web/: functions that take or give a dict[str, Any]; typed rows bring it down, nothing raises it
DIALECT_NAMED = 43  # files of the package that name a member of `Dialect`; asking `SPECS` brings it down


def _passes_dicts(node: ast.AST) -> bool:
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    given = [one.annotation for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    return any("dict[str, Any]" in ast.unparse(one) for one in (*given, node.returns) if one is not None)


def test_no_more_functions_of_the_pages_pass_rows_without_types() -> None:
    found = [path for path in modules() if room(path) == "web" for node in nodes(path) if _passes_dicts(node)]
    assert len(found) <= UNTYPED_ROWS, Counter(str(path.relative_to(ROOT)) for path in found)


def test_no_more_files_tell_dialects_apart_by_name() -> None:
    named = [
        str(path.relative_to(ROOT))
        for path in modules()
        if any(
            isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Dialect"
            for node in nodes(path)
        )
    ]
    assert len(named) <= DIALECT_NAMED, named


def test_html_is_written_by_templates() -> None:
    start = re.compile(
        r"(?<!`)<(?:div|span|a|p|ul|ol|li|table|tr|td|th|svg|time|input|button|form|section|script|img)\b[ >]"
    )
    wrong = {
        str(path.relative_to(ROOT))
        for path in modules()
        if room(path) in ("web", "gateway", "texts")
        for node in nodes(path)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and start.search(node.value)
    }
    assert not wrong
