"""Install Keycloak, the identity provider of the end-to-end tests, into `.cache`, built for `start --optimized`.

`python -m tests.counterparts.keycloak.install` needs a JDK of version 17 or later and Maven, and takes a minute or two.
It does nothing when the last run installed this very version with these very options, and two may run at once.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.counterparts.shared import locked

VERSION = "26.7.3"
SHA256 = "27a6535553c3cdcd083872ba40629efafb3475e3b758e0c6f691395561dd0f1f"
ARTIFACT = f"org.keycloak:keycloak-quarkus-dist:{VERSION}:zip"
OPTIONS = ("--db=dev-mem", "--features=resource-indicators,identity-assertion-jwt,dpop,cimd")
CACHE = Path(__file__).resolve().parents[3] / ".cache"
HOME = CACHE / f"keycloak-{VERSION}"
STAMP = HOME / ".narthex-installed"
WANTED = " ".join([SHA256, *OPTIONS])
NEEDED = "apt-get install default-jdk-headless maven && make counterparts"
JAVA = {"JAVA_OPTS_KC_HEAP": "-Xms64m -Xmx512m", "JAVA_OPTS_APPEND": "-XX:TieredStopAtLevel=1"}
"""The quick compiler alone halves the processor time of a start (14 s for 27 s), and a test run is mostly start."""


def main() -> int:
    CACHE.mkdir(exist_ok=True)
    with locked(CACHE / "keycloak.lock"):
        if installed():
            return 0
        if not has_java() or not shutil.which("mvn"):
            print(f"Keycloak needs a JDK of version 17 or later, and Maven. Debian: {NEEDED}", file=sys.stderr)
            return 1
        print(f"==> Keycloak {VERSION}, for the tests", flush=True)
        install()
    return 0


def installed() -> bool:
    return has_java() and STAMP.exists() and STAMP.read_text() == WANTED


def has_java() -> bool:
    """Is the `java` on the path of version 17 or later?"""
    if not (java := shutil.which("java")):
        return False
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', said)
    return version is not None and int(version[1]) >= 17


def install() -> None:
    """Fetch, check, unpack, build; the stamp last, so that half an installation is none."""
    archive = CACHE / f"keycloak-quarkus-dist-{VERSION}.zip"
    maven = ["mvn", "-q", "-B", "dependency:copy", f"-Dartifact={ARTIFACT}", f"-DoutputDirectory={CACHE}"]
    subprocess.run(maven, check=True, cwd=CACHE, stdin=subprocess.DEVNULL)
    if hashlib.sha256(archive.read_bytes()).hexdigest() != SHA256:
        raise SystemExit(f"{archive} is not the file that was looked at: its SHA-256 differs")
    shutil.rmtree(HOME, ignore_errors=True)
    with zipfile.ZipFile(archive) as file:
        file.extractall(CACHE)
    archive.unlink()
    build = ["bash", str(HOME / "bin" / "kc.sh"), "build", *OPTIONS]
    done = subprocess.run(build, env={**os.environ, **JAVA}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    STAMP.write_text(WANTED)


if __name__ == "__main__":
    sys.exit(main())
