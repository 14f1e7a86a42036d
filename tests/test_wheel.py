"""The wheel: built, installed somewhere else, and used from there. A checkout would hide a file that is left out."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def built(kind: str, out: Path) -> Path:
    command = [sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    [path] = out.glob("optlang_rules-*")
    return path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built("wheel", tmp_path_factory.mktemp("wheel"))


def test_the_source_archive_holds_what_its_pages_link_to(tmp_path: Path) -> None:
    with tarfile.open(built("sdist", tmp_path)) as archive:
        names = {Path(*Path(name).parts[1:]).as_posix() for name in archive.getnames()}
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(links) > 10
    missing = [link for link in links if link not in names and not any(name.startswith(f"{link}/") for name in names)]
    assert missing == []


def test_it_holds_grammar_library_and_types(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    library = {str(p.relative_to(ROOT)) for p in (ROOT / "library").rglob("*.opt")}
    assert {f"optlang/_data/{name}" for name in library | {"grammar/opt.lark", "grammar/opt.tables.json"}} <= set(names)
    assert "optlang/py.typed" in names
    assert not [name for name in names if name.startswith(("tests", "examples"))]


def test_it_works_where_it_is_installed(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    script = f"""
import optlang, torch
assert optlang.__file__.startswith({str(target)!r}), optlang.__file__
p = torch.nn.Parameter(torch.ones(3))
optimizer = optlang.load("lion", backend="reference")([p], lr=0.5)
p.sum().backward()
optimizer.step()
assert p.tolist() == [0.5] * 3, p
assert "class Lion" in optlang.build("lion")
assert optlang.check("rule A {{ w' = w - gg }}")[0].code == "N02"
from optlang.cli import main
assert main([]) == 2
"""
    environment = {**os.environ, "PYTHONPATH": str(target)}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [page] = re.findall(r"on one page:\n(.*)", done.stdout)  # the help says where it lies
    assert Path(page).is_file() and Path(page).is_relative_to(target)
