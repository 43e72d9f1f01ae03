"""Clients of a pool whose certificate a private authority has signed: the printed lines, as a shell runs them."""

from __future__ import annotations

import os
import ssl
import subprocess
from pathlib import Path

import msgspec
import pytest

from pool_server.web.onboarding.private_authority import certificates, trust
from tests.certificates import Authority
from tests.web.site import Site


def test_the_lines_keep_the_authority_beside_those_that_are_known(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    keep, exported, _ = trust(certificates(str(authority.file)))
    home = tmp_path / "home of ada"
    home.mkdir()
    show = 'printf "%s\\n%s\\n%s\\n" "$NODE_EXTRA_CA_CERTS" "$SSL_CERT_FILE" "$CURL_CA_BUNDLE"'
    told = subprocess.run(
        ["sh", "-ec", f"{keep.text}\n{exported.text}\n{show}"],
        env={"PATH": os.environ["PATH"], "HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
    )
    alone, both, curl = told.stdout.split("\n")[:3]
    assert Path(alone).read_bytes().split() == authority.pem.split() and both == curl
    context = ssl.create_default_context(cafile=both)
    assert len(context.get_ca_certs()) >= 1 and Path(both).read_text().rstrip().endswith("-----END CERTIFICATE-----")


@pytest.mark.parametrize("text", ["", "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n", "\x00\xff"])
def test_what_is_no_certificate_is_never_shown(tmp_path: Path, text: str) -> None:
    path = Authority(tmp_path).file
    path.write_bytes(path.read_bytes() + text.encode("latin-1"))
    assert "PRIVATE" not in certificates(str(path)) and "BEGIN CERTIFICATE" in certificates(str(path))
    path.write_text(text, encoding="utf-8")
    assert certificates(str(path)) == "" and trust("") == ()
    assert certificates(str(tmp_path / "none")) == certificates(str(tmp_path)) == certificates("") == ""


def test_the_page_begins_with_them_where_an_authority_is_named(local: Site, tmp_path: Path) -> None:
    assert "private authority" not in local.get("/").text
    named = str(Authority(tmp_path).file)
    local.ctx.settings = msgspec.structs.replace(local.ctx.settings, tls_ca=named)
    page = local.get("/").text
    assert "NODE_EXTRA_CA_CERTS" in page and "Import-Certificate" in page
