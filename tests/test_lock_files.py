"""What the image and CI install is what pyproject.toml asks for, each version by its hashes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
_RUNTIME = PROJECT["project"]["dependencies"]
WANTED = {
    "requirements.lock": _RUNTIME,
    "requirements-cluster.lock": [*_RUNTIME, *PROJECT["project"]["optional-dependencies"]["cluster"]],
    "requirements-dev.lock": [*_RUNTIME, *PROJECT["project"]["optional-dependencies"]["dev"]],
    "requirements-build.lock": [*PROJECT["build-system"]["requires"], "editables"],
}
PIN = re.compile(
    r"^(?P<name>[\w.-]+)(?:\[[\w,]+\])?==(?P<version>[\w.!+]+)(?: ; [^\\\n]+)? \\\n(?P<rest>(?:    .*\n?)+)",
    re.MULTILINE,
)


def locked(file: str) -> dict[str, list[tuple[str, str]]]:
    """Name → (version, what stands below it), of several where the platform decides."""
    found: dict[str, list[tuple[str, str]]] = {}
    for pin in PIN.finditer((ROOT / file).read_text(encoding="utf-8")):
        found.setdefault(canonicalize_name(pin["name"]), []).append((pin["version"], pin["rest"]))
    return found


@pytest.mark.parametrize("file", WANTED)
def test_every_pin_is_read_and_has_hashes(file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    pins = [pin for several in locked(file).values() for pin in several]
    assert len(pins) == len(re.findall(r"^\S+==", text, re.M)) == len(re.findall(r"^[^\s#]", text, re.M))
    for version, below in pins:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", below), version
    assert "://" not in text, "all of it is from the index"


@pytest.mark.parametrize("file", WANTED)
def test_it_is_what_the_project_asks_for(file: str) -> None:
    pins = locked(file)
    for text in WANTED[file]:
        wanted = Requirement(text)
        found = pins.get(canonicalize_name(wanted.name))
        assert found, f"{wanted.name} is not locked: scripts/lock"
        for version, _ in found:
            assert wanted.specifier.contains(version), f"{wanted.name} {version}: {wanted.specifier}: scripts/lock"


def test_nothing_is_locked_that_nobody_asks_for() -> None:
    for file in ("requirements.lock", "requirements-cluster.lock", "requirements-dev.lock"):
        direct = {name for name, pins in locked(file).items() if any("(pyproject.toml)" in below for _, below in pins)}
        assert direct == {canonicalize_name(Requirement(text).name) for text in WANTED[file]}, "scripts/lock"


def test_the_image_and_ci_take_only_what_is_locked() -> None:
    image = (ROOT / "Containerfile").read_text(encoding="utf-8")
    installs = re.findall(r"bin/pip install ([^&\n]*)", image)
    assert installs and all("--require-hashes" in one or "--no-index" in one for one in installs), installs
    assert "POOL_LOCKED=1" in (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert "--require-hashes" in (ROOT / "scripts/venv").read_text(encoding="utf-8")
