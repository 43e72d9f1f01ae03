"""What ships beside the program: the image's recipe names files that are there, the release's text is the changelog's,
nginx takes its file."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

from pool_server.core.settings_file import VARIABLES, load

ROOT = Path(__file__).resolve().parent.parent.parent
CONTAINER = (ROOT / "Containerfile").read_text(encoding="utf-8")
COMPOSE = (ROOT / "compose.yaml").read_text(encoding="utf-8")


def test_the_image_copies_what_is_there_and_runs_as_nobody_in_particular() -> None:
    copied = [name for line in re.findall(r"^COPY (?!--)(.*) \S+$", CONTAINER, re.MULTILINE) for name in line.split()]
    assert copied and all((ROOT / name).exists() for name in copied), copied
    assert re.search(r"^USER \d+:\d+$", CONTAINER, re.MULTILINE)
    assert "HEALTHCHECK" in CONTAINER and "/healthz" in CONTAINER
    named = set(re.findall(r"\b((?:POOL|PROXY)_[A-Z_]+)=", CONTAINER))
    assert named and named <= VARIABLES.keys()


def test_compose_mounts_what_is_there_and_names_settings_that_are() -> None:
    mounted = re.findall(r"- \./(\S+?):", COMPOSE)
    assert mounted and all((ROOT / name).exists() for name in mounted), mounted
    named = set(re.findall(r"^      ([A-Z_]+):", COMPOSE, re.MULTILINE)) - {"POOL_HOST", "POOL_UPSTREAM"}
    assert named and named <= VARIABLES.keys()
    network = re.search(r"subnet: (\S+?) ", COMPOSE)
    assert network
    assert load(ROOT / "deploy/container.toml", {}).settings.trusted_proxies == [network[1]]


def test_the_release_tells_its_section_of_the_changelog() -> None:
    section = runpy.run_path(str(ROOT / "scripts/changelog"), run_name="changelog")["section"]
    text = (
        "# Changelog\n\n## Unreleased\n\n- new\n\n## 0.2.0 - 2026-01-01\n\n### Added\n\n- two\n\n## [0.1.0]\n\n- one\n"
    )
    assert section(text, "0.2.0") == "### Added\n\n- two"
    assert section(text, "0.1.0") == "- one"
    assert section(text, "0.2") == "" == section(text, "9.9.9")


@pytest.mark.slow
def test_nginx_takes_its_recipe(tmp_path: Path) -> None:
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    if nginx is None or shutil.which("openssl") is None:
        pytest.skip("nginx or openssl is not installed")
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=x"]
    subprocess.run(
        [*made, "-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "cert")], check=True, capture_output=True
    )
    recipe = (ROOT / "deploy/nginx/pool-server.conf").read_text(encoding="utf-8")
    recipe = re.sub(r"(ssl_certificate\s+)\S+;", rf"\1{tmp_path}/cert;", recipe)
    recipe = re.sub(r"(ssl_certificate_key\s+)\S+;", rf"\1{tmp_path}/key;", recipe)
    config = tmp_path / "nginx.conf"
    config.write_text(
        f"pid {tmp_path}/pid; error_log {tmp_path}/log; events {{}}\nhttp {{ access_log off;\n{recipe}\n}}\n"
    )
    done = subprocess.run([nginx, "-t", "-c", str(config)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
