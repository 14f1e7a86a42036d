"""Functions of C++ kernels round as the reference does, of whatever number and in vectors of any width; none calls the C library."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from functools import cache
from typing import Any

import numpy as np
import pytest
from stepping import program
from test_cpp import kernels, pair
from torch_pairs import tensors

from optlang.backends.cpp.source import header, of_floats
from optlang.backends.kernels import build
from optlang.backends.repeated.library import pointer
from optlang.ops import OPS

Array = Any  # numpy.ndarray
NAMES = sorted(of_floats())
NO_CALLS = {"abs", "sqrt", "floor", "ceil", "nearbyint", "exp"}  # instructions, and what the prelude has
WIDTHS = {"as here": (), "narrower": ("-mno-avx512f", "-mno-avx2"), "one at a time": ("-fno-openmp",)}

OF_EXPONENTS = """
extern "C" void step(double* worst) {
  for (i64 k = -2097152; k < 2097152; k++) {
    const float x = (float)k * 0x1p-14f, y = math::exp(x);  // from -128 to 128
    const double wide = (double)k * 0x1.7p-11, exact = __builtin_exp((double)x), of_wide = __builtin_exp(wide);  // from -1472 to 1472
    worst[0] = larger(exact < 0x1p-126 || exact > 0x1p127 ? math::abs(y - (float)exact) > 0x1p-149 && y < 0x1p127f
                      : math::abs(y / exact - 1) * 0x1p24, worst[0]);
    worst[1] = larger(of_wide < 0x1p-1022 || of_wide > 0x1p1023 ? math::abs(math::exp(wide) - of_wide) > 0x1p-1074 && of_wide < 0x1p1023
                      : math::abs(math::exp(wide) / of_wide - 1) * 0x1p52, worst[1]);
  }
  const double special[] = {NAN, INFINITY, -INFINITY, 1e300, -1e300, 0.0, -0.0};
  for (int k = 0; k < 7; k++) {
    worst[2 + k] = math::exp(special[k]);
    worst[9 + k] = math::exp((float)special[k]);
  }
}
"""


def test_exponentials_are_those_of_the_c_library() -> None:
    """Of float32 those that lie nearest, of float64 but for the last place; of what is not finite, too, and where they vanish."""
    worst = np.zeros(16)
    build.library("\n".join([header("prelude.h"), OF_EXPONENTS])).step(pointer(worst))
    assert 0 < worst[0] < 1.0001
    assert 0 < worst[1] < 2
    np.testing.assert_array_equal(worst[2:], [np.nan, np.inf, 0, np.inf, 0, 1, 1] * 2)


def test_which_functions_the_c_library_computes() -> None:
    """Remainders alone, in float32."""
    called = {found[1] for op in OPS.values() if (found := re.match(r"(?:math::)?(\w+)\(", op.cpp)) and op.name not in NAMES}
    one_at_a_time = called - NO_CALLS - {"sign", "is_finite", "larger", "smaller", "modulo"}  # which are the prelude's
    assert not one_at_a_time, f"{one_at_a_time}: give each in functions.h a function of float32 that vectors can compute"
    assert set(NAMES) <= set(OPS)


@cache
def numbers() -> tuple[Array, Array]:
    """Of every exponent and sign, special ones with each other, and pairs whose powers and angles are neither 0 nor infinite."""
    special = np.array([0, 1, 2, 3, 0.5, 1 / 3, 1e-45, 2.0**-126, 3.4028235e38, np.inf, np.nan, 2.0**24, 2.0**24 - 1, 2.0**31, 1e20, 128,
                        149, 150, 88.7, 89, 103.9, 1 + 2.0**-23, 1 - 2.0**-24, np.pi, np.pi / 2, 8.5, 7], np.float32)  # fmt: skip
    left, right = np.meshgrid(np.concatenate([special, -special]), np.concatenate([special, -special]))
    bits, draws = np.arange(5, 2**32, 8009, dtype=np.uint32), np.random.default_rng(0)
    x, y = np.exp(draws.normal(size=(2, 200_000))), draws.normal(size=(2, 200_000)) * 10.0 ** draws.uniform(-3, 2, (2, 200_000))
    near = 1 + y[0] * 1e-6
    firsts = [left.ravel(), bits.view(np.float32), x[0], near]
    seconds = [right.ravel(), draws.permutation(bits).view(np.float32), y[0], 1e6 * y[1]]
    first, second = (np.concatenate([part.astype(np.float32) for part in parts]) for parts in (firsts, seconds))
    return first, second


def inputs(name: str) -> list[Array]:
    return list(numbers()[: OPS[name].operands])


@cache
def found(width: str) -> dict[str, Array]:
    """What each function makes of the numbers."""
    x, y = numbers()
    calls = [f"{name}({', '.join(['x[i]', 'y[i]'][: OPS[name].operands])})" for name in NAMES]
    lines = [f"  #pragma omp simd\n  for (i64 i = 0; i < n; i++) to[i] = floats::{call};\n  to += n;" for call in calls]
    text = "\n".join(['extern "C" void step(const float* x, const float* y, float* to, i64 n) {', *lines, "}"])
    made = np.zeros((len(NAMES), len(x)), np.float32)
    library = build.library("\n".join([header("prelude.h"), header("functions.h"), text]), more=WIDTHS[width])
    library.step(pointer(x), pointer(y), pointer(made), len(x))
    return dict(zip(NAMES, made, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_functions_are_those_of_the_reference(name: str) -> None:
    """To the nearest number of float32, but for a thousandth of its last place; not a number, infinite and of a sign where that is."""
    with np.errstate(all="ignore"):
        exact = getattr(np, OPS[name].numpy)(*(x.astype(np.float64) for x in inputs(name)))
        nearest = exact.astype(np.float32)
    mine = found("as here")[name]
    np.testing.assert_array_equal(np.isnan(mine), np.isnan(exact))
    known = ~np.isnan(exact)
    np.testing.assert_array_equal(np.signbit(mine)[known], np.signbit(exact)[known])
    finite = np.isfinite(nearest) & np.isfinite(mine)
    np.testing.assert_array_equal(mine[known & ~finite], nearest[known & ~finite])
    last = np.ldexp(1.0, np.maximum(np.frexp(exact[finite])[1] - 24, -149))
    assert 0.49 < np.max(np.abs(mine[finite] - exact[finite]) / last) < 0.501


@pytest.mark.parametrize("width", [width for width in WIDTHS if width != "as here"])
def test_any_width_of_vectors_gives_the_same_bits(width: str) -> None:
    """So does what is left at the end of a loop, which fills no vector."""
    for name, mine in found(width).items():
        other = found("as here")[name]
        same = (mine.view(np.uint32) == other.view(np.uint32)) | (np.isnan(mine) & np.isnan(other))
        assert same.all(), name


def test_functions_do_not_leave_vectors() -> None:
    """A call of the C library, or what has no vectors, would take one element at a time, and all else in the loop with it."""
    if not shutil.which("objdump"):
        pytest.skip("there is no objdump here")
    terms = [f"{name}({', '.join(['g', 'w'][: OPS[name].operands])})" for name in [*NAMES, "exp"] if name != "pow"]
    both = pair(program(f"rule R {{ w' = w + abs(g)^w + {' + '.join(terms)} }}"), tensors([(50,)]))
    both.compare = lambda other: None  # type: ignore[method-assign]  # of -2, acosh is not a number
    both.step()
    [kernel] = kernels(both.ours)
    made = build.library(kernel.kernel.text)._name
    shown = subprocess.run(["objdump", "-d", made], capture_output=True, text=True, check=True).stdout
    assert not re.findall(r"call\S*\s.*<(?!GOMP_|__cxa|deregister|register)\w+@plt>", shown)
    vectors, single = (len(re.findall(rf"\sv?mul{end}\s", shown)) for end in ("pd", "sd"))
    assert vectors > single or platform.machine() != "x86_64"
