"""torch's own tests of optimizers, run with the library's rules: `python tests/torch_suite/run.py [--modules] [RULE …]`.

Debian's source package of pytorch carries the tests; only the files that are needed are kept, in a cache. Nothing of them
is part of this repository. It takes `apt-get`, `tar` with xz, and one download of 38 MB. Without a RULE, those that
docs/torch-suite.json does not have as they are now; the counts go in there as they come. `--modules`: the generated module of each
rule in its place, with counts in docs/torch-suite-modules.json.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(ROOT), str(HERE.parent)]

from marks import changed, mark_of  # noqa: E402

from optlang import Rule, library  # noqa: E402

RESULTS = ROOT / "docs" / "torch-suite.json"
OF_MODULES = ROOT / "docs" / "torch-suite-modules.json"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "optlang" / "torch-suite"
WANTED = ("test/test_optim.py", "test/optim/")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
SUITE = "trixie"
EXPECTTEST = "expecttest==0.3.0"  # what torch's test classes import
TOGETHER = 10  # rules in one process
BESIDE = "in a route with AdamW for vectors"
Found = dict[str, Any]


class Unreachable(Exception):
    """torch's tests cannot be had here."""


# --------------------------------------------------------------------------------------------------- torch's tests


def whole(folder: Path, make: Callable[[Path, Path], None], why: str) -> Path:
    """A folder that others find whole or not at all, for two processes may ask at once: `make` gets its place, and one to work in.
    Raises Unreachable with the reason."""
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="made-", dir=folder.parent) as work:
            made = Path(work) / "whole"
            try:
                make(made, Path(work))
            except (OSError, subprocess.SubprocessError, ValueError) as problem:
                raise Unreachable(f"{why}: {problem}") from problem
            with contextlib.suppress(OSError):  # another was quicker
                made.rename(folder)
    return folder


def tests() -> Path:
    """The folder with `test_optim.py`, fetched where it is not there yet. Raises Unreachable."""
    folder = CACHE / SUITE
    if folder.exists() and not (folder / "archive.txt").exists():
        shutil.rmtree(folder)  # half of it, left by an earlier state of this program

    def make(made: Path, work: Path) -> None:
        archive = fetch(work)
        unpack(archive, made)
        (made / "archive.txt").write_text(archive.name)

    return whole(folder, make, "Debian's source package of pytorch, which has torch's tests, cannot be fetched") / "test"


def fetch(work: Path) -> Path:
    """The archive of pytorch's sources, by apt with lists of its own: the system's stay as they are."""
    signed = f" [signed-by={KEYRING}]" if Path(KEYRING).exists() else ""
    mirror = os.environ.get("OPTLANG_DEBIAN", "http://deb.debian.org/debian")
    (work / "sources.list").write_text(f"deb-src{signed} {mirror} {SUITE} main\n")
    (work / "lists/partial").mkdir(parents=True)
    (work / "cache/archives/partial").mkdir(parents=True)
    options = [f"Dir::Etc::sourcelist={work}/sources.list", "Dir::Etc::sourceparts=/dev/null", f"Dir::State::lists={work}/lists",
               f"Dir::Cache={work}/cache", "APT::Sandbox::User=root", "Acquire::Retries=1", "Acquire::http::Timeout=20"]  # fmt: skip
    apt = ["apt-get", "-q", *(word for option in options for word in ("-o", option))]
    for command in (["update"], ["source", "--download-only", "--tar-only", "pytorch"]):
        subprocess.run([*apt, *command], cwd=work, check=True, timeout=300, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
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
    """A folder of its own for what torch's test classes import. Raises Unreachable."""

    def make(made: Path, work: Path) -> None:
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(made), EXPECTTEST]
        subprocess.run(command, check=True, timeout=300)

    return whole(CACHE / "site", make, f"{EXPECTTEST}, which torch's tests import, cannot be installed")


# ------------------------------------------------------------------------------------------------------------ runs


def run(rules: Sequence[str], modules: bool = False) -> tuple[Found, str]:
    """What the tests found of some rules, or of their `modules`, and everything that was said. Raises Unreachable."""
    folder = tests()
    path = os.pathsep.join(map(str, (ROOT, folder, site(), HERE)))
    with tempfile.TemporaryDirectory(prefix="optlang-torch-suite-") as work:
        results, settings = Path(work) / "results.json", Path(work) / "pytest.ini"
        settings.write_text("[pytest]\n")  # not ours
        environment = {**os.environ, "PYTHONPATH": path, "OPTLANG_SUITE_RULES": " ".join(rules), "OPTLANG_SUITE_RESULTS": str(results)}
        environment |= {"OPTLANG_SUITE_MODULES": "1"} if modules else {}
        command = [sys.executable, "-m", "pytest", "-c", str(settings), "--rootdir", str(folder), "-p", "no:cacheprovider", "-p", "plug",
                   "-q", "--tb=short", "-k", "TestOptimRenewedCPU", "test_optim.py"]  # fmt: skip
        done = subprocess.run(command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if not results.exists():
            raise RuntimeError(f"torch's tests did not run to their end:\n{done.stdout[-4000:]}")
        return json.loads(results.read_text()), done.stdout


def failures(found: Found) -> list[str]:
    return [test for outcomes in found["outcomes"].values() for test, outcome in outcomes.items() if outcome == "failed"]


def ask(modules: bool) -> list[str]:
    """Asks the rules that the counts do not have as they are now, and writes the counts as they come: the tests that failed."""
    file = OF_MODULES if modules else RESULTS
    rows: Found = json.loads(file.read_text())["by rule"] if file.exists() else {}
    waiting = changed(library.names(), {row["rule"]: row["mark"] for row in rows.values()})
    failed = []
    for first in range(0, len(waiting), TOGETHER):
        rules = waiting[first : first + TOGETHER]
        found, said = run(rules, modules)
        for rule in rules:
            name = Rule(rule).name
            rows[name] = row_of(rule, found["outcomes"][name], name in found["beside AdamW"])
        file.write_text(json.dumps(summary(rows), indent=1) + "\n")
        failed += failures(found)
        print(f"{len(rows)} rules, {len(failed)} failures", *[said] * bool(failures(found)), flush=True)
    return failed


def row_of(rule: str, outcomes: dict[str, str], beside: bool) -> Found:
    """What is kept of a rule; skipped tests by their reasons."""
    kinds = Counter(outcome.partition(" on Rule")[0] for outcome in outcomes.values())
    passed, failed = kinds.pop("passed", 0), kinds.pop("failed", 0)
    found = {"passed": passed, "failed": failed, "skipped": dict(kinds)}
    return {"rule": rule, "mark": mark_of(rule), "date": today(), BESIDE: beside, **found}


def today() -> str:
    return datetime.now(UTC).date().isoformat()


def summary(rows: Found) -> Found:
    """Counts for people, by rule and together, and which rules were not run."""
    reasons: Counter[str] = sum((Counter(row["skipped"]) for row in rows.values()), Counter())
    return {
        "date": today(), "tests": (CACHE / SUITE / "archive.txt").read_text(), "torch": version("torch"),
        "python": platform.python_version(), "machine": f"{platform.machine()}, {os.cpu_count()} cores", "rules": len(rows),
        **{key: sum(row[key] for row in rows.values()) for key in ("passed", "failed")}, "skipped": reasons.total(),
        "why skipped": dict(reasons.most_common()), BESIDE: sorted(name for name, row in rows.items() if row[BESIDE]),
        "not run": sorted(set(library.names()) - {row["rule"] for row in rows.values()}), "by rule": dict(sorted(rows.items())),
    }  # fmt: skip


def main() -> int:
    modules, rules = "--modules" in sys.argv, [word for word in sys.argv[1:] if word != "--modules"]
    try:
        if not rules:
            return 1 if ask(modules) else 0
        found, said = run(rules, modules)
        print(said)
        return 1 if failures(found) else 0
    except Unreachable as problem:
        sys.exit(str(problem))


if __name__ == "__main__":
    sys.exit(main())
