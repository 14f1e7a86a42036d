"""torch's own tests of optimizers, run with the library's rules: `python tests/torch_suite/run.py [--modules] [--missing] [RULE …]`.

Debian's source package of pytorch carries the tests; only the files that are needed are kept, in a cache. Nothing of them
is part of this repository. It takes `apt-get`, `tar` with xz, and one download of 38 MB. All rules take 15 minutes; a run that
was broken off goes on where it was; its counts go into docs/torch-suite.json. `--modules`: the generated module of each rule in its
place, with counts in docs/torch-suite-modules.json. `--missing`: only rules that these counts do not have.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
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


def tests() -> Path:
    """The folder with `test_optim.py`, fetched where it is not there yet. Raises Unreachable."""
    folder = CACHE / SUITE
    if not (folder / "archive.txt").exists():
        with tempfile.TemporaryDirectory(prefix="optlang-torch-suite-") as work:
            try:
                archive = fetch(Path(work))
            except (OSError, subprocess.SubprocessError, ValueError) as problem:
                raise Unreachable(f"Debian's source package of pytorch, which has torch's tests, cannot be fetched: {problem}") from problem
            unpack(archive, folder)
            (folder / "archive.txt").write_text(archive.name)
    return folder / "test"


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
    folder = CACHE / "site"
    if not folder.exists():
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), EXPECTTEST]
        try:
            subprocess.run(command, check=True, timeout=300)
        except (OSError, subprocess.SubprocessError) as problem:
            raise Unreachable(f"{EXPECTTEST}, which torch's tests import, cannot be installed: {problem}") from problem
    return folder


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


def sources() -> str:
    """What the results depend on: of other sources they are not gone on with."""
    files = [p for folder in ("optlang", "library", "tests/torch_suite") for p in sorted((ROOT / folder).rglob("*"))
             if p.suffix in (".py", ".opt", ".toml")]  # fmt: skip
    return sha256(b"".join(p.read_bytes() for p in files)).hexdigest()[:16]


def all_rules(modules: bool) -> Found:
    """The results of every rule of the library, those of a run that was broken off among them; the counts as they come."""
    from optlang import library

    kept = CACHE / f"results-{'modules-' * modules}{sources()}.json"
    found: Found = json.loads(kept.read_text()) if kept.exists() else {"done": [], "outcomes": {}, "beside AdamW": []}
    waiting = [name for name in library.names() if name not in found["done"]]
    for first in range(0, len(waiting), TOGETHER):
        rules = waiting[first : first + TOGETHER]
        new, said = run(rules, modules)
        found["outcomes"].update(new["outcomes"])
        found["beside AdamW"] += new["beside AdamW"]
        found["done"] += rules
        kept.write_text(json.dumps(found))
        (OF_MODULES if modules else RESULTS).write_text(json.dumps(summary(found), indent=1) + "\n")
        print(f"{len(found['done'])} rules, {len(failures(found))} failures", flush=True)
        if failures(new):
            print(said)
    return found


def summary(found: Found) -> Found:
    """Counts for people, by rule and together, and which rules were not run."""
    from optlang import library

    by_rule = {rule: _counts(outcomes) for rule, outcomes in sorted(found["outcomes"].items())}
    reasons = Counter(o for outcomes in found["outcomes"].values() for o in outcomes.values() if o not in ("passed", "failed"))
    total = {key: sum(counts[key] for counts in by_rule.values()) for key in ("passed", "failed", "skipped")}
    return {
        "date": datetime.now(UTC).date().isoformat(), "tests": (CACHE / SUITE / "archive.txt").read_text(), "torch": version("torch"),
        "python": platform.python_version(), "machine": f"{platform.machine()}, {os.cpu_count()} cores", "rules": len(by_rule), **total,
        "why skipped": dict(reasons.most_common()), BESIDE: sorted(found["beside AdamW"]),
        "not run": sorted(set(library.names()) - set(found["done"])), "by rule": by_rule,
    }  # fmt: skip


def add_missing(modules: bool) -> Found:
    """What the tests found of rules that the committed counts do not have, added to them. Raises Unreachable."""
    from optlang import Rule, library

    file = OF_MODULES if modules else RESULTS
    kept: Found = json.loads(file.read_text())
    waiting = [name for name in library.names() if Rule(name).name not in kept["by rule"]]
    found: Found = run(waiting, modules)[0] if waiting else {"outcomes": {}, "beside AdamW": []}
    new = summary({**found, "done": library.names()})
    reasons = Counter(kept["why skipped"]) + Counter(new["why skipped"])
    sums = {key: kept[key] + new[key] for key in ("rules", "passed", "failed", "skipped")}
    beside, by_rule = sorted({*kept[BESIDE], *new[BESIDE]}), dict(sorted((kept["by rule"] | new["by rule"]).items()))
    merged = {**new, **sums, "why skipped": dict(reasons.most_common()), BESIDE: beside, "by rule": by_rule}
    file.write_text(json.dumps(merged, indent=1) + "\n")
    print(f"{len(waiting)} rules, {len(failures(found))} failures: {' '.join(waiting)}")
    return found


def _counts(outcomes: dict[str, str]) -> dict[str, int]:
    kinds = Counter(o if o in ("passed", "failed") else "skipped" for o in outcomes.values())
    return {key: kinds[key] for key in ("passed", "failed", "skipped")}


def main() -> int:
    modules, rules = "--modules" in sys.argv, [word for word in sys.argv[1:] if word not in ("--modules", "--missing")]
    try:
        if "--missing" in sys.argv:
            found = add_missing(modules)
        elif rules:
            found, said = run(rules, modules)
            print(said)
        else:
            found = all_rules(modules)
    except Unreachable as problem:
        sys.exit(str(problem))
    return 1 if failures(found) else 0


if __name__ == "__main__":
    sys.exit(main())
