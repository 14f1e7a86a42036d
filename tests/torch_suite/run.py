"""torch's own tests of optimizers, run with the library's rules: `python tests/torch_suite/run.py [RULE …]`.

Debian's source package of pytorch carries the tests; only the files that are needed are kept, in a cache. Nothing of them
is part of this repository. It takes `apt-get`, `tar` with xz, and one download of 38 MB; minutes for all rules.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "optlang" / "torch-suite"
WANTED = ("test/test_optim.py", "test/optim/")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
SUITE = "trixie"
EXPECTTEST = "expecttest==0.3.0"  # what torch's test classes import


def tests() -> Path:
    """The folder with `test_optim.py`, fetched where it is not there yet."""
    folder = CACHE / SUITE / "test"
    if not (folder / "test_optim.py").exists():
        with tempfile.TemporaryDirectory(prefix="optlang-torch-suite-") as work:
            unpack(fetch(Path(work)), CACHE / SUITE)
    return folder


def fetch(work: Path) -> Path:
    """The archive of pytorch's sources, by apt with lists of its own: the system's stay as they are."""
    signed = f" [signed-by={KEYRING}]" if Path(KEYRING).exists() else ""
    mirror = os.environ.get("OPTLANG_DEBIAN", "http://deb.debian.org/debian")
    (work / "sources.list").write_text(f"deb-src{signed} {mirror} {SUITE} main\n")
    (work / "lists/partial").mkdir(parents=True)
    (work / "cache/archives/partial").mkdir(parents=True)
    options = [f"Dir::Etc::sourcelist={work}/sources.list", "Dir::Etc::sourceparts=/dev/null", f"Dir::State::lists={work}/lists",
               f"Dir::Cache={work}/cache", "APT::Sandbox::User=root"]  # fmt: skip
    apt = ["apt-get", "-q", *(word for option in options for word in ("-o", option))]
    for command in (["update"], ["source", "--download-only", "--tar-only", "pytorch"]):
        subprocess.run([*apt, *command], cwd=work, check=True, stdout=subprocess.DEVNULL)
    [archive] = work.glob("pytorch_*.orig.tar.*")
    return archive


def unpack(archive: Path, to: Path) -> None:
    """Only the tests of optimizers, without the folder that all of the archive is in."""
    with tarfile.open(archive) as sources:
        for member in sources:
            path = member.name.partition("/")[2]
            file = sources.extractfile(member) if member.isfile() and path.startswith(WANTED) else None
            if file is not None:
                (to / path).parent.mkdir(parents=True, exist_ok=True)
                (to / path).write_bytes(file.read())


def site() -> Path:
    """A folder of its own for what torch's test classes import."""
    folder = CACHE / "site"
    if not folder.exists():
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", folder, EXPECTTEST], check=True)
    return folder


def main() -> int:
    folder, log = tests(), CACHE / "log.txt"
    path = os.pathsep.join(map(str, (folder, site(), HERE)))
    environment = {**os.environ, "PYTHONPATH": path, "OPTLANG_SUITE_RULES": " ".join(sys.argv[1:])}
    command = [sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", folder, "-p", "no:cacheprovider", "-p", "plug", "-q",
               "--tb=short", "-k", "TestOptimRenewedCPU", "test_optim.py"]  # fmt: skip
    with log.open("w") as out, subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        for line in running.stdout:
            out.write(line)
            if re.match(r"FAILED|ERROR|=+ |\d+ (passed|failed)|[.sFE]+ +\[", line):
                print(line, end="", flush=True)
    print(f"everything that was said: {log}")
    return running.returncode


if __name__ == "__main__":
    sys.exit(main())
