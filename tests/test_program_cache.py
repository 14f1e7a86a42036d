"""Programs, functions and kernels that are kept on disk: the same as those that are made anew, and never of another text."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from stepping import program

import optlang
from optlang import library, loading
from optlang.backends.cache import programs, sealed_files
from optlang.backends.cpp.kernel_cache import Kernel
from optlang.backends.cpp.kernels import CppFunctions
from optlang.backends.kernels import functions
from optlang.backends.torch.code import CellCode
from optlang.backends.torch.functions import generated
from optlang.errors import OptError, Source
from optlang.ir import Program, Routing
from optlang.ir.serialization import from_json, to_json
from optlang.runtime.cases import CompileOptions

HALVES = "rule Halves { w' = w/2 }"
QUARTERS = "rule Quarters { w' = w/4 }"
SCRIPT = """
import sys, torch, optlang
w = torch.nn.Parameter(torch.ones(5))
w.grad = torch.ones(5)
optlang.load("adamw")([w]).step()
seldom = {
    "lark", "optlang.front.parser", "optlang.lower", "optlang.simplify", "optlang.printing.rule_text",
    "optlang.runtime.steps.differentiable", "optlang.runtime.checkpoints.foreign", "optlang.runtime.steps.operators",
    "optlang.backends.torch.compiling", "optlang.backends.torch.staged", "optlang.backends.torch.writer", "optlang.backends.cpp.source",
    "optlang.backends.torch.decided", "optlang.analysis.zero_gradient", "optlang.runtime.evaluating",
}
assert not seldom & set(sys.modules), seldom & set(sys.modules)
"""
MAKES = """
import sys
from optlang import Rule
from optlang.simplify import simplify
simplify(Rule("prodigy").program, "fast")
print(*{name.split(".")[1] for name in sys.modules if name.startswith("optlang.")})
import torch, optlang
w = torch.nn.Parameter(torch.ones(5, 5))
w.grad = torch.ones(5, 5)
optlang.load("adafactor", backend="cpp", state="int8")([w]).step()
print(*{name.split(".")[2] for name in sys.modules if name.startswith("optlang.backends.")})
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "optlang"


def nothing() -> Program:
    raise AssertionError("it was made again")


def read(text: str, name: str = "<text>") -> Program | Routing:
    return optlang.Rule.from_source(Source(text, name)).program


@pytest.mark.parametrize("name", library.names())
def test_a_program_comes_back_as_it_was(name: str) -> None:
    found = optlang.Rule(name).program
    assert from_json(to_json(found)) == found


def test_numbers_keep_all_digits() -> None:
    found = program("rule R { hyper lr = 0.1 in (0, inf) w' = w - lr*0.1*g - 1e-45*g + 16777217*g }")
    assert from_json(to_json(found)) == found


def test_what_is_kept_is_not_made_again(cache: Path) -> None:
    source = Source(HALVES)
    made = programs.lowered(source, None, lambda: read(HALVES))
    assert programs.lowered(source, None, nothing) == made
    assert isinstance(made, Program) and programs.simplified(made, "safe") == programs.simplified(made, "safe")
    assert len(list(cache.glob("rule-*.json"))) == len(list(cache.glob("simple-*.json"))) == 1
    for other in (Source(QUARTERS), Source(HALVES, "another.opt")):
        with pytest.raises(AssertionError):
            programs.lowered(other, None, nothing)
    with pytest.raises(AssertionError):
        programs.lowered(source, "Halves", nothing)


def test_an_import_that_has_changed_is_read_again(cache: Path, tmp_path: Path) -> None:
    parts, text = tmp_path / "parts.opt", "from parts import part\nrule R { w' = part(w) }"
    source = Source(text, str(tmp_path / "r.opt"))
    found = []
    for factor in (2, 4):
        parts.write_text(f"def part(x) = x/{factor}\n", encoding="utf-8")
        found.append(programs.lowered(source, None, lambda: read(text, source.name)))
    assert found[0] != found[1] and programs.lowered(source, None, nothing) == found[1]


def test_an_import_that_is_missing_has_its_message(cache: Path) -> None:
    with pytest.raises(OptError, match="there is no file `nowhere.opt`"):
        optlang.loads("from nowhere import part\nrule R { w' = part(w) }")


@pytest.mark.parametrize("way", ["half", "another's", "of zeros"])
def test_a_damaged_file_is_made_again(way: str, cache: Path) -> None:
    source = Source(HALVES)
    made = programs.lowered(source, None, lambda: read(HALVES))
    [kept] = cache.glob("rule-*.json")
    programs.lowered(Source(QUARTERS), None, lambda: read(QUARTERS))
    [other] = set(cache.glob("rule-*.json")) - {kept}
    whole = kept.read_bytes()
    kept.write_bytes({"half": whole[: len(whole) // 2], "another's": other.read_bytes(), "of zeros": bytes(len(whole))}[way])
    with pytest.raises(AssertionError):
        programs.lowered(source, None, nothing)
    assert programs.lowered(source, None, lambda: read(HALVES)) == made and kept.read_bytes() == whole


def test_whole_files_of_another_form_are_made_again(cache: Path) -> None:
    source = Source(HALVES)
    made = programs.lowered(source, None, lambda: read(HALVES))
    [kept] = cache.glob("rule-*.json")
    for text in ("", "[]", "[" * 100_000, "[[], {}]", '[[["add", [7], null, null]], {}]', '[[], {"cases": [1]}]'):
        sealed_files.store(text.encode(), kept)
        assert programs.lowered(source, None, lambda: read(HALVES)) == made


def test_a_full_disk_keeps_nothing_and_changes_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(sealed_files, "store", full)
    assert programs.lowered(Source(HALVES), None, lambda: read(HALVES)) == read(HALVES)
    assert not list(cache.glob("*.json"))


def test_the_oldest_are_forgotten(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed_files, "MOST", 3)
    monkeypatch.setattr(sealed_files, "EVERY", 1)
    texts = [f"rule R {{ w' = w/{n} }}" for n in range(2, 9)]
    for place, text in enumerate(texts):
        programs.lowered(Source(text), None, lambda text=text: read(text))  # type: ignore[misc]
        [new] = [kept for kept in cache.glob("rule-*.json") if kept.stat().st_mtime > 1e9]
        os.utime(new, (place, place))
    assert len(list(cache.glob("rule-*.json"))) == 3
    for text in texts[-3:]:
        programs.lowered(Source(text), None, nothing)


def test_a_wrong_text_is_told_every_time(cache: Path) -> None:
    for _ in range(2):
        with pytest.raises(OptError, match="wrong"):
            optlang.loads("rule R { w' = wrong }")
    assert not list(cache.glob("*.json"))


def test_a_new_process_neither_reads_nor_simplifies(cache: Path) -> None:
    source = library.find("adamw")
    w = torch.nn.Parameter(torch.ones(5))
    w.grad = torch.ones(5)
    loading._compiled.__wrapped__(source.text, source.name, (), None, CompileOptions())([w]).step()
    subprocess.run([sys.executable, "-c", SCRIPT], check=True, cwd=Path(__file__).parent.parent, timeout=600)


def test_what_is_kept_depends_on_all_files_that_make_it(cache: Path) -> None:
    found = subprocess.run([sys.executable, "-c", MAKES], capture_output=True, text=True, check=True).stdout.splitlines()
    of_programs, of_functions = (set(line.split()) for line in found)
    assert "lower" in of_programs and not of_programs & set(programs.LEFT_OUT)
    assert {"cpp", "kernels", "torch"} <= of_functions and not of_functions & set(programs.BESIDE)


def fresh(name: str, **options: str) -> Any:
    """A class that shares no function with others."""
    source = library.find(name)
    return loading._compiled.__wrapped__(source.text, source.name, (), None, CompileOptions("cpp", **options))


def stepped(cls: Any) -> tuple[list[torch.Tensor], list[CellCode], list[Kernel]]:
    """Weights after three steps, and the functions and kernels that took them."""
    torch.manual_seed(0)
    given = [torch.nn.Parameter(torch.randn(shape)) for shape in ((6, 5), (3,), (4, 4))]
    optimizer = cls(given)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.stack([(w**3).sum() for w in given]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    for _ in range(3):
        optimizer.step(closure)
    made = [case.executable(case.settings.defaults)[1]._functions for case in optimizer.cases]
    codes = [code for some in made for code in some._codes.values()]
    return given, codes, [kernel.kernel for some in made for kernel in some._kernels.values()]


def never(*_: object) -> Any:
    raise AssertionError("it was made again")


@pytest.mark.parametrize(("name", "options"), [("adamw", {"state": "int8"}), ("adafactor", {}), ("prodigy", {}), ("oasis", {})])
def test_a_kept_kernel_is_the_one_that_would_be_made(
    name: str, options: dict[str, str], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    weights, codes, kernels = stepped(fresh(name, **options))
    monkeypatch.setattr(functions, "generated", lambda key, *others: made.append(key[0]) or generated(key, *others))
    monkeypatch.setattr(CppFunctions, "_render", never)
    again = stepped(fresh(name, **options))
    assert set(made) <= {"init"}  # first values of states are no kernel's
    assert kernels and again[2] == kernels and all(map(torch.equal, again[0], weights))
    for old, new in zip(codes, again[1], strict=True):
        left = [{key: value for key, value in vars(code).items() if key != "write"} | {"text": code.text} for code in (old, new)]
        assert left[0] == left[1]


@pytest.mark.parametrize("content", [b"", b"[]", b"[[], [0], [], {}]", b"{}", b'[[["w", [], null, null]], [0], [], {"name": 1}]'])
def test_a_function_or_kernel_of_another_form_is_made_again(content: bytes, cache: Path) -> None:
    cls, whole = fresh("adamw"), {}
    weights, _, kernels = stepped(cls)
    for file in [*cache.glob("code-*.json"), *cache.glob("text-*.json")]:
        whole[file] = file.read_bytes()
        sealed_files.store(content, file)
    again = stepped(fresh("adamw"))
    assert len(whole) == 2 and again[2] == kernels and all(map(torch.equal, again[0], weights))
    damaged = next(iter(whole))
    damaged.write_bytes(whole[damaged][:-1])
    assert stepped(fresh("adamw"))[2] == kernels and {file: file.read_bytes() for file in whole} == whole


def test_other_files_of_backends_make_functions_anew(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stepped(fresh("adamw"))
    monkeypatch.setattr(programs, "_backends", lambda: "others")
    monkeypatch.setattr(CppFunctions, "_render", never)
    with pytest.raises(AssertionError, match="made again"):
        stepped(fresh("adamw"))
