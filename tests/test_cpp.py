"""The C++ backend beside the reference: every library rule, number types, memory in any order, threads, and trouble with compilers."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import counts
import numpy as np
import pytest
import random_rules
import torch
from hypothesis import given, settings
from stepping import is_ambiguous, program, shapes_for
from torch import Tensor
from torch_pairs import Pair, tensors

import optlang
from optlang import ir, philox
from optlang.analysis import live_states
from optlang.backends.cache import sealed_files
from optlang.backends.cpp import BACKEND, source
from optlang.backends.cpp.kernels import CppFunctions
from optlang.backends.cpp.source import header
from optlang.backends.kernels import build
from optlang.backends.kernels import functions as kernel_functions
from optlang.backends.repeated.library import pointer

LIBRARY = sorted(p.stem for p in (Path(__file__).parent.parent / "library").rglob("*.opt") if p.stem != "std")
SHAPES = ((3, 4), (5,), (1,), (), (0,), (2, 3, 2, 2), (130, 257))
BY_TORCH = {  # products of matrices, windows, quantiles
    "adamcm", "adamuon", "apollo", "apollomini", "cautiousdecaymuon", "conda", "corefrozen", "dctadamw", "dion", "fira", "frugal",
    "frugalcolumns", "galore", "graftedshampoo", "liontopk", "marsshampoo", "marsshampooexact", "muon", "muonpolarexpress", "muonwithadamw",
    "normuon", "normuonwithadamw", "onlinesubspacedescent", "psgdkron", "scion", "shampoo", "soap", "splus", "subspacemomentum", "trion",
    "trustregionspectral",
}  # fmt: skip
ADAMW = optlang.Rule("adamw").program


def functions(executable: Any) -> CppFunctions:
    found: CppFunctions = executable._functions
    return found


def kernels(executable: Any) -> list[Any]:
    """The kernels that an executable has made."""
    return [kernel for kernel in functions(executable)._kernels.values() if kernel is not None]


def pair(rule: ir.Program, given: list[Tensor], **settings: Any) -> Pair:
    return Pair(rule, given, executable=BACKEND.compile(rule, "safe"), **settings)


@pytest.mark.parametrize("name", [name for name in LIBRARY if not is_ambiguous(optlang.Rule(name).program)])
def test_library(name: str) -> None:
    """Step by step from the same stored numbers, in float32, the largest on two threads."""
    made: Any = optlang.Rule(name).program
    for case in made.cases if isinstance(made, ir.Routing) else [made]:
        rule = live_states.without_dead(case.program if isinstance(made, ir.Routing) else case)
        both = pair(rule, tensors(shapes_for(rule, SHAPES)))
        both.threads = 2
        for _ in range(3):
            both.step()
        ways = {both.ours.way(cell.index).backend for cell in both.taken.cells}
        assert (ways == {"cpp"}) == (name not in BY_TORCH or rule.name == "AdamW")


def test_how_many_rules_are_not_stepped_by_cpp() -> None:
    """As the README counts them; the others are, see `test_library`."""
    assert set(LIBRARY) >= BY_TORCH and len(BY_TORCH) == counts.by_torch()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["adamw", "lion", "lamb"])
def test_number_types(name: str, dtype: torch.dtype) -> None:
    both = pair(optlang.Rule(name).program, tensors(SHAPES, dtype))
    for _ in range(3):
        both.step()
    assert kernels(both.ours)


def test_number_types_side_by_side() -> None:
    given = [*tensors(SHAPES), *tensors(SHAPES, torch.bfloat16, 1), *tensors(SHAPES, torch.float64, 2)]
    both = pair(ADAMW, given)
    both.tolerance = 3e-6
    for _ in range(2):
        both.step()
    assert len(kernels(both.ours)) == 3


LAYOUTS = {
    "transposed": lambda: tensors([(40, 30)])[0].T,
    "every other": lambda: tensors([(40, 30)])[0][::2, ::3],
    "channels last": lambda: tensors([(4, 3, 8, 8)])[0].to(memory_format=torch.channels_last),
    "a part of another": lambda: tensors([(100,)])[0][13:77],
}


@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_memory_in_any_order(layout: str, name: str) -> None:
    weights = LAYOUTS[layout]()
    around = weights._base
    outside = None if around is None else around.clone()
    both = pair(optlang.Rule(name).program, [weights, *tensors([(7,)])])
    for _ in range(3):
        both.step()
    if around is not None and outside is not None:
        outside.as_strided(weights.shape, weights.stride(), weights.storage_offset()).copy_(weights)
        assert torch.equal(around, outside), "what is not part of the parameter is left alone"


def test_a_gradient_in_another_order() -> None:
    p = torch.nn.Parameter(tensors([(30, 20)])[0])
    q = torch.nn.Parameter(p.detach().clone())
    gradient = tensors([(20, 30)], seed=5)[0]
    for parameter, backend in ((p, "cpp"), (q, "reference")):
        parameter.grad = gradient.T if backend == "cpp" else gradient.T.contiguous()
        optlang.load("adamw", backend=backend)([parameter]).step()
    torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 0.0, 1e-42, 1e18])
def test_gradients_that_are_no_ordinary_numbers(value: float) -> None:
    for rule in (ADAMW, optlang.Rule("lion").program, program("rule R { w' = w - 0.1*g/(1 + max(abs(g)) + min(g)) }")):
        p, q = (torch.nn.Parameter(tensors([(300,)])[0]) for _ in range(2))
        results = []
        for parameter, compiled in ((p, BACKEND), (q, optlang.backends.backend("reference"))):
            both = Pair(rule, [parameter.detach()], executable=compiled.compile(rule, "safe"))
            both.in_numbers = math.isfinite(value)
            both.gradient = lambda like: torch.linspace(-1, 1, 300).index_fill(0, torch.tensor([17, 299]), value)  # type: ignore[method-assign]
            both.step()
            results.append(both.weights[0])
        torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6, equal_nan=not math.isfinite(value))


@settings(max_examples=25)
@given(random_rules.rules)
def test_random_rules(rule: ir.Program) -> None:
    """As the torch functions for the same simplified program: random equations cancel, so the reference's rounding differs."""
    found = []
    rule = live_states.without_dead(rule)
    for backend in (BACKEND, optlang.backends.backend("torch")):
        both = Pair(rule, tensors([(3, 2), (5,), ()], torch.float64), executable=backend.compile(rule, "safe"))
        both.compare = lambda other: None  # type: ignore[method-assign]
        for _ in range(3):
            both.step()
        found.append([(cell.weights, cell.state) for cell in both.taken.cells])
    for (w, s), (v, r) in zip(*found, strict=True):
        for mine, theirs in [(w, v), *((s[k], r[k]) for k in r)]:
            known = theirs.isfinite() & (theirs.abs() < 1e100)
            torch.testing.assert_close(mine[known], theirs[known], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("distribution", ["uniform", "rademacher", "normal", "exponential"])
def test_draws_are_those_of_philox(distribution: str) -> None:
    """Whatever the number of threads."""
    rule = program(f"rule R {{ w' = w + {distribution}() }}")
    [site] = {node.value[1] for node in ir.walk(rule.roots()) if node.op == "random"}
    expected = torch.from_numpy(philox.draw(distribution, (50_000,), 1, site, 11, 0))
    for count in (1, 3):
        both = pair(rule, [torch.zeros(50_000, dtype=torch.float64)], seed=11)
        both.threads = count
        both.step()
        torch.testing.assert_close(both.weights[0], expected, rtol=1e-14, atol=1e-15)
        assert kernels(both.ours)


OF_ALL_WORDS = """
extern "C" void step(double* worst) {
  for (u32 word = 0; word < 1u << 24; word++) {
    const double x = unit(word << 8), angle = 6.283185307179586 * x;
    worst[0] = larger(math::abs(logarithm(x) / math::log(x) - 1), worst[0]);
    worst[1] = larger(math::abs(cosine(angle) / math::cos(angle) - 1), worst[1]);
  }
}
"""


def test_logarithms_and_cosines_of_draws_are_those_of_the_c_library() -> None:
    """But for the last place, of every word that is drawn from."""
    worst = np.zeros(2)
    build.library("\n".join([*map(header, ("prelude.h", "philox.h", "draws.h")), OF_ALL_WORDS]), more=("-O3",)).step(pointer(worst))
    assert all(0 < error < 4.5e-16 for error in worst)


@pytest.mark.parametrize("scale", ["1", "mean(g)", "mean(g per row)", "mean(g per col)"])
def test_draws_come_in_blocks(scale: str) -> None:
    """Of whole tensors or of rows, which end where blocks do not; each kind is compiled once."""
    rule = program(f"rule R {{ a = {scale}*g  w' = w + a*uniform() - a*uniform() + sum((a*normal())^2) }}")
    both = pair(rule, tensors([(3, 600), (700, 5), (256, 256), (2, 3, 2, 200), (9000, 2)]), seed=5)
    for _ in range(2):
        both.step()
    for kernel in kernels(both.ours):
        passes = kernel.kernel.text.split("static void pass_0", 1)[1]
        loops = 2 if "per" in scale else 1  # for short rows and for long ones
        assert "blocks(" not in passes and passes.count("<draw_uniform") == 2 * loops


REDUCING = """rule R {
  state m = 0  state s per tensor = 0
  m' = 0.9*m + 0.1*g
  a = m'/(1e-3 + norm(m'))  s' = 0.5*s + mean(a^2) + max(abs(a))
  w' = w - 0.1*a*s'/(1 + norm(a*w) + min(a))
}"""


def test_any_number_of_threads_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """And any number of tensors that go through all passes before the next ones."""
    results = []
    monkeypatch.setattr(kernel_functions, "kept_code", lambda make, *_: make())  # each has texts of its own
    for count, chunks in ((1, source.WAVE), (2, source.WAVE), (3, source.WAVE), (1, 1), (2, 5)):
        monkeypatch.setattr(source, "WAVE", chunks)
        both = pair(program(REDUCING), tensors([(300, 401), (70_000,), (3,)]))
        both.threads = count
        for _ in range(3):
            both.step()
        results.append(both.weights)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


WRITTEN_EARLY = """rule E { hyper lr = 0.1 in (0, inf)
  state m = 0
  state v = 0
  state old = 1
  m' = 0.9*m + g
  v' = 0.9*v + m'*m
  old' = 0.5*old + 0.1*m
  w' = w - lr*(v' + old)*norm(v')/(1 + norm(old' - m'))
}"""


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_states_that_are_written_before_the_last_pass(dtype: torch.dtype) -> None:
    """Not those whose old values are still wanted."""
    both = pair(program(WRITTEN_EARLY), tensors([(300, 70), (5,), ()], dtype))
    both.tolerance = 1e-5
    for _ in range(3):
        both.step()
    [kernel] = [kernel for kernel in kernels(both.ours) if "pass_1" in kernel.kernel.text]
    first, last = (kernel.kernel.text.split(f"static void pass_{number}(")[1].split("\n}")[0] for number in (0, 1))
    assert first.count("store(") == 1 and last.count("store(") == 3


def test_vectors_are_really_used() -> None:
    """The machine code of AdamW divides and takes roots eight at a time or more."""
    if not _has("objdump"):
        pytest.skip("there is no objdump here")
    both = pair(ADAMW, tensors([(50_000,)]))
    both.step()
    [kernel] = kernels(both.ours)
    made = build.library(kernel.kernel.text)._name
    shown = subprocess.run(["objdump", "-d", made], capture_output=True, text=True, check=True).stdout
    assert ("vdivps" in shown and "vsqrtps" in shown and "ymm" in shown) or not Path("/proc/cpuinfo").read_text().count("avx")


def _has(tool: str) -> bool:
    return any((Path(folder) / tool).exists() for folder in os.environ["PATH"].split(os.pathsep))


def test_tied_and_moved_parameters() -> None:
    """Pointers are read at every step: memory may be another one by then."""
    p, q = (torch.nn.Parameter(tensors([(3000,)])[0]) for _ in range(2))
    ours, theirs = optlang.load("adamw", backend="cpp")([p]), optlang.load("adamw", backend="reference")([q])
    for step in range(4):
        if step == 2:
            p.data = p.data.clone()
            ours.state[p]["m"] = ours.state[p]["m"].clone()
        p.grad, q.grad = (tensors([(3000,)], seed=step)[0] for _ in range(2))
        ours.step()
        theirs.step()
    torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["sam", "sophiah", "marsadamwexact", "xgradadamw", "gam"])
def test_values_handed_out_for_each_element(name: str) -> None:
    """Points where gradients are asked for come from kernels, too."""
    sides = []
    for backend in ("cpp", "reference"):
        params = [torch.nn.Parameter(x) for x in tensors([(30, 70), (5,), (), (0,)], torch.float64)]
        optimizer: Any = optlang.load(name, backend=backend)(params)

        def closure(params: list[Any] = params, optimizer: Any = optimizer) -> Tensor:
            optimizer.zero_grad()
            loss = torch.stack([((p - 0.3) ** 2).sum() + 0.1 * (p**4).sum() for p in params]).sum()
            loss.backward()
            return loss

        for _ in range(3):
            optimizer.step(closure)
        sides.append([p.detach() for p in params])
        if backend == "cpp":
            made = functions(optimizer.cases[0].executable(optimizer.cases[0].settings.defaults)[1])._kernels
            assert all(kernel is not None for kernel in made.values()) and {key[0].name for key in made} == {"level", "final"}
    torch.testing.assert_close(*sides, rtol=1e-12, atol=1e-12)


def test_autograd_hears_of_what_is_written() -> None:
    p = torch.nn.Parameter(torch.ones(3000))
    loss = (p**2).sum()
    p.grad = torch.ones(3000)
    optlang.load("sgd", backend="cpp")([p]).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


# -------------------------------------------------------------------------------------------------------- compilers


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    yield tmp_path / "cache" / "optlang"


def stepped(expect: str = "") -> list[Tensor]:
    """AdamW once, with a warning that contains a text, or with none."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        both = pair(ADAMW, tensors(SHAPES))
        both.step()
        both.step()
    told = [str(w.message) for w in seen]
    assert len(told) == (1 if expect else 0), told
    assert expect in "".join(told)
    return both.weights


def compiler(folder: Path, script: str) -> str:
    path = folder / "compiler"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_no_compiler(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(empty_cache))
    stepped("optlang steps with torch instead of C++, and slower: there is no C++ compiler on the path")


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("[ $1 = --version ] && exit 0; echo 'kernel.cpp:1: error: it is Monday' >&2; exit 1", "error: it is Monday"),
        (r"[ $1 = --version ] && exit 0; printf 'error: \351 is no UTF-8' >&2; exit 1", "is no UTF-8"),
        ("[ $1 = --version ] && exit 0; sleep 30", "took more than 1 s"),
        ("[ $1 = --version ] && exit 0; echo rubbish > $3", "cannot be stored or loaded"),  # behind the source and -o
        ('c++ "$@" && head -c 5000 $3 > $3.cut && mv $3.cut $3', "reports success, but the end of its library is missing"),
        ('c++ "$@" && size=$(wc -c < $3) && truncate -s 5000 $3 && truncate -s $size $3', "the end of its library is missing"),
    ],
    ids=["fails", "speaks another language", "hangs", "makes rubbish", "makes half of a library", "makes half, and then zeros"],
)
def test_a_compiler_that(script: str, told: str, tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", compiler(tmp_path, script))
    if "sleep" in script:
        monkeypatch.setattr(build, "SECONDS", 1)
    stepped(told)


def test_a_damaged_cache_is_made_again(empty_cache: Path) -> None:
    expected = stepped()
    [kept] = empty_cache.glob("kernel-*.so")
    damaged = kept.read_bytes()[: kept.stat().st_size // 2]
    kept.unlink()  # the loaded one stays in memory
    kept.write_bytes(damaged)
    script = "import sys; sys.path.insert(0, 'tests'); import test_cpp; test_cpp.stepped()"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parent.parent, timeout=600)
    assert kept.stat().st_size > len(damaged)
    for one, other in zip(expected, stepped(), strict=True):
        assert torch.equal(one, other)


def test_a_kernel_of_something_else_is_not_run(empty_cache: Path) -> None:
    """Whole, but under the name of another: both are sealed, this one for another name."""
    expected = stepped()
    [kept] = empty_cache.glob("kernel-*.so")
    other = pair(program("rule R { w' = w - 5*g }"), tensors(SHAPES))
    other.step()
    [strange] = set(empty_cache.glob("kernel-*.so")) - {kept}
    foreign = strange.read_bytes()
    kept.unlink()
    kept.write_bytes(foreign)
    assert build._loaded(kept) is None and build._loaded(strange) is not None
    for one, same in zip(expected, stepped(), strict=True):
        assert torch.equal(one, same)


def test_a_full_disk(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second place for kernels takes what the first one has no room for; without any, torch steps."""
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if "cache" in path.parts or everywhere:
            raise OSError(28, "No space left on device")
        return write(path, content)

    everywhere = False
    monkeypatch.setattr(Path, "write_bytes", full)
    expected = stepped()
    assert not list(empty_cache.glob("kernel-*")), "no half of a kernel is left"
    everywhere = True
    for found in Path(tempfile.gettempdir()).rglob("kernel-*"):
        found.unlink()
    for one, same in zip(expected, stepped("cannot be stored or loaded"), strict=True):
        torch.testing.assert_close(one, same, rtol=1e-5, atol=1e-6)


def test_a_cache_that_cannot_be_written(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed_files, "cache_file", lambda name: Path("/proc") / name)
    stepped()


def test_two_processes_at_once(empty_cache: Path) -> None:
    script = "import sys; sys.path.insert(0, 'tests'); import test_cpp; test_cpp.stepped()"
    both = [subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parent.parent) for _ in range(2)]
    assert [one.wait(600) for one in both] == [0, 0]
    assert len(list(empty_cache.glob("kernel*"))) == 1, "nothing half-made is left"


def test_why_there_is_no_kernel_is_found_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes over all of a function; each parameter asked in each step."""
    asked: list[None] = []
    plain = CppFunctions.refuses
    monkeypatch.setattr(CppFunctions, "refuses", lambda self, *given: asked.append(None) or plain(self, *given))
    params = [torch.ones(4, 3, requires_grad=True) for _ in range(3)]
    optimizer: Any = optlang.load("liontopk", backend="cpp")(params)
    after = []
    for taken in range(6):
        for p in params:
            p.grad = torch.full_like(p, taken + 1.0)
        optimizer.step()
        after.append(len(asked))
    assert after[2] == after[-1]
    assert "the rule has" in str(optimizer.backends())
