"""Bouts of random rules, each with a seed of its own; a find ends a bout, smallest text first."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from .agree import Agreement, Way
from .grow import Grown, texts

BOUT = 100  # programs
DTYPES = [torch.float64, torch.float64, torch.float32, torch.bfloat16]
ways = st.builds(
    lambda d, g, m, h: Way(d, g, m, h, 2 if d == torch.bfloat16 else 4),
    st.sampled_from(DTYPES), st.booleans(), st.booleans(), st.booleans(),
)


def bout(agreement: Agreement, seed: int, size: int, over: Callable[[], bool] = lambda: False) -> dict[str, Any] | None:
    """So many programs; the smallest that failed with what was wrong, or None."""
    last: dict[str, Any] = {}

    @seeded(seed)
    @settings(max_examples=size, deadline=None, database=None, suppress_health_check=list(HealthCheck),
              phases=[Phase.generate, Phase.shrink], report_multiple_bugs=False, verbosity=_quiet())  # fmt: skip
    @given(texts(), ways)
    def each(grown: Grown, way: Way) -> None:
        if over() and not last:
            return
        try:
            agreement(grown, way)
        except Exception as problem:
            trace = traceback.format_exc(limit=-4)
            last.update(text=grown.text, rule=grown.name, way=str(way), what=f"{type(problem).__name__}: {problem}", trace=trace, seed=seed)
            raise

    try:
        each()
    except Exception as problem:
        return last or {"text": "", "what": repr(problem), "trace": traceback.format_exc(), "seed": seed}
    return None


def _quiet() -> Any:
    from hypothesis import Verbosity

    return Verbosity.quiet


def hunt(seconds: float, seed: int, names: Sequence[str], clock: Callable[[], float], say: Callable[[str], None]) -> dict[str, Any]:
    """Bouts until the time is over: what was counted, and the finds."""
    agreement, finds, end = Agreement(names), list[dict[str, Any]](), clock() + seconds
    number = 0
    while clock() < end:
        found = bout(agreement, seed * 1_000_003 + number, BOUT, lambda: clock() > end)
        number += 1
        if found is not None:
            finds.append(found)
            say(f"FOUND ({found['what'][:300]})\n{found['text']}\n{found['trace'][-900:]}")
        say(f"bout {number}: {agreement.counts['programs']} programs, {len(finds)} finds")
    return {"seed": seed, "backends": list(names), "seconds": seconds, "counts": dict(Counter(agreement.counts)), "finds": finds}
