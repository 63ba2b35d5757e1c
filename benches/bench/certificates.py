"""The certificate of the cases with TLS, and what makes everybody speak the same.

`site` makes one for each measurement: of an authority that proxies believe, for the name that they
ask backends for. All speak TLS 1.3 with one cipher and one group, so that a difference is none of
what they chose; the group is the only one that nghttpd has.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

NAME = "bench"
CONFIGURATION = """openssl_conf = settings
[settings]
ssl_conf = ssl
[ssl]
system_default = defaults
[defaults]
Ciphersuites = TLS_AES_128_GCM_SHA256
Groups = P-256
MinProtocol = TLSv1.3
"""


def make(folder: Path) -> Path:
    """Writes `cert.pem` and `key.pem`, `ca.pem`, and `openssl.cnf` into a folder; gives the folder."""
    (folder / "openssl.cnf").write_text(CONFIGURATION)
    (folder / "names").write_text(f"subjectAltName=DNS:{NAME}\nbasicConstraints=critical,CA:FALSE\n")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    authority = ["-x509", "-days", "1", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem"]
    request = ["-subj", f"/CN={NAME}", "-keyout", "key.pem", "-out", "request.pem"]
    sign = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names"]
    for command in (
        ["req", *key, *authority],
        ["req", *key, *request],
        ["x509", "-req", "-in", "request.pem", "-days", "1", *sign, "-out", "cert.pem"],
    ):
        subprocess.run(["openssl", *command], cwd=folder, check=True, capture_output=True)
    return folder


def speaking(folder: Path | None) -> list[str]:
    """What goes before the command of a program that uses OpenSSL."""
    return [] if folder is None else ["env", f"OPENSSL_CONF={folder / 'openssl.cnf'}"]
