"""What ships beside the program: the image's recipe names files that are there, the release's text is the changelog's,
nginx takes its file."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from pool_server.core.settings_file import VARIABLES, load

ROOT = Path(__file__).resolve().parent.parent.parent
CONTAINER = (ROOT / "Containerfile").read_text(encoding="utf-8")
COMPOSE = (ROOT / "compose.yaml").read_text(encoding="utf-8")
CLUSTER = (ROOT / "compose.cluster.yaml").read_text(encoding="utf-8")
STORE_SECRETS = {"POOL_STORE_KEY", "POOL_STORE_PASSWORD"}  # of the environment alone
BALANCER = (ROOT / "deploy/haproxy/haproxy.cfg").read_text(encoding="utf-8")


def test_the_image_copies_what_is_there_and_runs_as_nobody_in_particular() -> None:
    copied = [name for line in re.findall(r"^COPY (?!--)(.*) \S+$", CONTAINER, re.MULTILINE) for name in line.split()]
    assert copied and all((ROOT / name).exists() for name in copied), copied
    assert re.search(r"^USER \d+:\d+$", CONTAINER, re.MULTILINE)
    assert "HEALTHCHECK" in CONTAINER and "/healthz" in CONTAINER
    named = set(re.findall(r"\b((?:POOL|PROXY)_[A-Z_]+)=", CONTAINER))
    assert named and named <= VARIABLES.keys()


def test_what_the_image_leaves_out_is_there_and_imported_by_nothing() -> None:
    places = re.findall(r"/site-packages/(\S+)", CONTAINER)
    installed = Path(sysconfig.get_path("platlib"))
    assert places and all(list(installed.glob(name)) for name in places), places
    modules = [name.removesuffix(".*.so").replace("/", ".") for name in places]
    refused = "class Refused:\n    def find_spec(self, name, *_):\n        assert name not in LEFT, name\n"
    script = f"import sys\nLEFT = {modules}\n{refused}sys.meta_path.insert(0, Refused())\n"
    script += "import pool_server.app.server, pool_server.storage.backup, zstandard, tornado.testing\n"
    script += "assert zstandard.decompress(zstandard.compress(b'x')) == b'x'\n"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def manifests() -> list[dict[str, Any]]:
    yaml = pytest.importorskip("yaml")
    text = (ROOT / "deploy/kubernetes/pool-server.yaml").read_text(encoding="utf-8")
    return list(yaml.safe_load_all(text))


@pytest.mark.parametrize("version", ["1.25", "1.31", "1.37"])
def test_kubernetes_takes_the_manifests(version: str) -> None:
    schemas = pytest.importorskip("kubernetes_validate")
    found = manifests()
    assert {one["kind"] for one in found} == {"PersistentVolumeClaim", "StatefulSet", "Service"}
    for one in found:
        schemas.validate(one, version, strict=True)
    container = next(one for one in found if one["kind"] == "StatefulSet")["spec"]["template"]["spec"]["containers"][0]
    container["readinesProbe"] = container.pop("readinessProbe")
    with pytest.raises(schemas.ValidationError, match="readinesProbe"):
        schemas.validate(next(one for one in found if one["kind"] == "StatefulSet"), version, strict=True)


def test_the_manifests_name_each_other_and_what_the_image_has() -> None:
    claim, stateful, service = manifests()
    pod = stateful["spec"]["template"]
    container = pod["spec"]["containers"][0]
    assert claim["metadata"]["name"] in {
        one["persistentVolumeClaim"]["claimName"] for one in pod["spec"]["volumes"] if "persistentVolumeClaim" in one
    }
    assert {one["name"] for one in container["volumeMounts"]} == {one["name"] for one in pod["spec"]["volumes"]}
    assert service["spec"]["selector"] == pod["metadata"]["labels"] == stateful["spec"]["selector"]["matchLabels"]
    assert stateful["spec"]["serviceName"] == service["metadata"]["name"]
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    assert f"EXPOSE {ports['http']}\n" in CONTAINER and service["spec"]["ports"][0]["targetPort"] in ports
    assert f"USER {pod['spec']['securityContext']['runAsUser']}:" in CONTAINER
    mounted = {one["mountPath"] for one in container["volumeMounts"]}
    assert set(re.findall(r"POOL_(?:DATA_)?DIR=(\S+)", CONTAINER)) <= mounted


def test_compose_mounts_what_is_there_and_names_settings_that_are() -> None:
    mounted = re.findall(r"- \./(\S+?):", COMPOSE)
    assert mounted and all((ROOT / name).exists() for name in mounted), mounted
    named = set(re.findall(r"^      ([A-Z_]+):", COMPOSE, re.MULTILINE)) - {"POOL_HOST", "POOL_UPSTREAM"}
    assert named and named <= VARIABLES.keys()
    network = re.search(r"subnet: (\S+?) ", COMPOSE)
    assert network
    assert load(ROOT / "deploy/container.toml", {}).settings.trusted_proxies == [network[1]]


def test_compose_of_several_nodes_mounts_what_is_there_and_names_settings_that_are() -> None:
    mounted = re.findall(r"\./([\w./-]+):/", CLUSTER)
    assert mounted and all((ROOT / name).exists() for name in mounted), mounted
    assert (ROOT / "deploy/postgres/roles.sh").stat().st_mode & 0o111, "the database's image sources what it cannot run"
    named = set(re.findall(r"\b((?:POOL|PUBLIC|FRIEND)_[A-Z_]+):", CLUSTER))
    assert named - {"POOL_HOST", "POOL_UPSTREAM", "POOL_OWNER_PASSWORD"} - STORE_SECRETS <= VARIABLES.keys()
    assert named >= STORE_SECRETS
    locked = re.search(r"LOCK: (\S+)", CLUSTER)
    assert locked and f" {locked[1]} " in CONTAINER
    network = re.search(r"subnet: (\S+?) ", CLUSTER)
    assert network and load(ROOT / "deploy/container.toml", {}).settings.trusted_proxies == [network[1]]


def test_the_balancer_asks_the_nodes_that_compose_starts() -> None:
    nodes = re.findall(r"^  (node-\w+):$", CLUSTER, re.MULTILINE)
    asked = re.findall(r"^  server \w+ ([\w-]+):8989", BALANCER, re.MULTILINE)
    assert len(nodes) == 3 and asked == nodes * 2  # those that reach the database, and all


@pytest.mark.slow
def test_haproxy_takes_its_recipe() -> None:
    haproxy = shutil.which("haproxy", path="/usr/sbin:/usr/bin")
    if haproxy is None:
        pytest.skip("HAProxy is not installed")
    path = ROOT / "deploy/haproxy/haproxy.cfg"
    done = subprocess.run([haproxy, "-c", "-f", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


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
