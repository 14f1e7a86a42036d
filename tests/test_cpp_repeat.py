"""Steps from kept tables of pointers beside steps that gather everything anew: bit for bit the same, whatever happens between."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

import optlang
from optlang.backends.repeated.tables import Tables
from optlang.backends.torch.staged import Staged

SHAPES = ((6, 5), (4,), (), (0,), (3, 2, 2), (6, 5), (3, 2, 2))
DRAWING = "rule D { hyper lr = 0.1 in (0, inf) state m = 0 m' = 0.9*m + g*uniform() w' = w - lr*m' + lr*normal() }"
BY_FACTS = "rule F { hyper lr = 0.1 in (0, inf) state m = 0 m' = 0.9*m + g w' = w - lr*m'/sqrt(numel) }"
DECIDED = """rule B { hyper lr = 0.1 in (0, inf) state m = 0
  when t > 4 and numel > 5 { d = 0.8 } else { d = 0.9 }
  when lr > 0.03 { u = d*m + g } else { u = d*m - g }
  m' = u
  every 5 { w' = w - lr } else { w' = w - lr*u } }"""
OF_THE_MODEL = """rule M { hyper lr = 0.1 in (0, inf)
  state m = 0  state size per model = 1  state far per model = 0
  m' = 0.9*m + g
  x = sum(m'^2 per model)
  z = x/(t - 5)
  y = mean(abs(m' - w/(1 + x)) per model)
  far' = where(isfinite(z), max(far, y), 1/far)  size' = where(x > 40, 0.9*size, size + 0.1/t)
  report taken = size'*y
  every 3 { w' = w - 0.01*lr*size'*m' } else { w' = w - 0.01*lr*far'*g/(1 + normal(per model)^2) } }"""
TWO_SETTINGS = [{"lr": 0.05}, {"lr": 0.01}]
EVENTS = (
    "moved weights", "moved state", "moved in place", "turned weights", "turned gradient", "no gradient", "other rate", "loaded",
    "copied", "stepped back", "larger gradient type",
)  # fmt: skip


class Run:
    """An optimizer of a rule. `anew`: it never uses what it knows of the last step."""

    def __init__(self, rule: str, anew: bool) -> None:
        source = torch.Generator().manual_seed(0)
        self.params = [torch.randn(shape, generator=source).requires_grad_() for shape in SHAPES]
        make: Any = optlang.loads(rule, backend="cpp") if rule.startswith("rule") else optlang.load(rule, backend="cpp")
        one, other = TWO_SETTINGS if "per model" not in rule else TWO_SETTINGS[:1] * 2
        self.optimizer = make([{"params": self.params[:3], **one}, {"params": self.params[3:], **other}])
        self.anew, self.taken = anew, 0

    def step(self, event: str = "") -> None:
        self.taken += 1
        source = torch.Generator().manual_seed(self.taken)
        for p in self.params:
            p.grad = torch.randn(p.shape, generator=source)
        if event:
            getattr(self, event.replace(" ", "_"))()
        if self.anew:
            self.optimizer._again, self.optimizer._last = None, []
        if self.optimizer.asks_again:
            self.optimizer.step(lambda: torch.tensor(0.1 * self.taken))
        else:
            self.optimizer.step()

    def moved_weights(self) -> None:
        self.params[0].data = self.params[0].data.clone()

    def moved_state(self) -> None:
        for state in self.optimizer.state.values():
            state.update({name: value.clone() for name, value in state.items()})

    def moved_in_place(self) -> None:
        state = self.optimizer.state[self.params[0]]
        for value in state.values():
            value.data = value.data.clone()

    def turned_weights(self) -> None:
        self.params[0].data = self.params[0].data.T.contiguous().T

    def turned_gradient(self) -> None:
        assert self.params[0].grad is not None
        self.params[0].grad = self.params[0].grad.T.contiguous().T

    def no_gradient(self) -> None:
        self.params[1].grad = None

    def other_rate(self) -> None:
        is_one = self.optimizer.param_groups[0]["lr"] == self.optimizer.param_groups[1]["lr"]
        for group in self.optimizer.param_groups[: 1 + is_one]:
            group["lr"] *= 0.5

    def loaded(self) -> None:
        self.optimizer.load_state_dict(copy.deepcopy(self.optimizer.state_dict()))

    def copied(self) -> None:
        gradients = [p.grad for p in self.params]
        self.params, self.optimizer = copy.deepcopy((self.params, self.optimizer))
        for p, gradient in zip(self.params, gradients, strict=True):
            p.grad = gradient

    def stepped_back(self) -> None:
        for state in filter(None, self.optimizer.state.values()):
            state["step"].mul_(0.5).floor_()

    def larger_gradient_type(self) -> None:
        p = self.params[4]
        p.grad_dtype = None  # any type from now on
        assert p.grad is not None
        p.grad = p.grad.double()

    def stored(self) -> list[Tensor]:
        states = [x for p in self.params for x in self.optimizer.state[p].values()]
        return [x.detach().clone() for x in [*self.params, *states]]


RULES = {
    "adamw": "adamw", "lamb": "lamb", "drawing": DRAWING, "facts": BY_FACTS, "decided": DECIDED, "of the model": OF_THE_MODEL,
    "side by side": "scion", "side by side, drawing": "psgdkron",
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@settings(max_examples=15, deadline=None)
@given(events=st.lists(st.sampled_from(["", "", *EVENTS]), min_size=3, max_size=10))
@example(events=[part for event in EVENTS for part in ("", "", event)])
def test_whatever_happens(rule: str, events: list[str]) -> None:
    ours, anew = Run(rule, anew=False), Run(rule, anew=True)
    for event in events:
        for run in (ours, anew):
            run.step(event)
        assert all(map(torch.equal, ours.stored(), anew.stored())), event


@pytest.mark.parametrize("rule", ["adamw", "lamb", "lion", "scion", DRAWING])
def test_tables_are_used(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    plain = Tables.ready
    monkeypatch.setattr(Tables, "ready", lambda *given: used.append(plain(*given)) or used[-1])
    run = Run(rule, anew=False)
    for event in ["", "", "", "other rate", "", "moved state", "", ""]:
        run.step(event)
    assert [one is not None for one in used] == [True] * 5  # all but the first two, and the one that found a state moved


def test_tables_are_used_until_a_block_is_decided_in_a_new_way(monkeypatch: pytest.MonkeyPatch) -> None:
    made, used = [], []
    make, plain = Tables.__init__, Tables.ready
    monkeypatch.setattr(Tables, "__init__", lambda *given: made.append(ours.taken) or make(*given))
    monkeypatch.setattr(Tables, "ready", lambda *given: used.append(ours.taken) or plain(*given))
    rule = f"{DECIDED} # with tables of its own"
    ours, anew = Run(rule, anew=False), Run(rule, anew=True)
    for number in range(1, 21):
        for run in (ours, anew):
            run.step("other rate" if number == 18 else "")
        assert all(map(torch.equal, ours.stored(), anew.stored())), number
    assert made == [2, 6, 10, 18]  # every fifth step is another one, for which tables are kept when it comes again; so is the 18th
    assert used == [3, 4, 7, 8, 9, *range(11, 18), 19]


def test_tables_are_given_up_where_a_setting_decides_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = "rule S { hyper lr = 0.1 in (0, inf) when lr > 0.02 { w' = w - lr*g } else { w' = w + lr*g } }"
    used = []
    plain = Tables.ready
    monkeypatch.setattr(Tables, "ready", lambda *given: used.append(ours.taken) or plain(*given))
    ours, anew = Run(rule, anew=False), Run(rule, anew=True)
    for number in range(1, 9):
        for run in (ours, anew):
            run.step("other rate" if number in (4, 6) else "")
        assert all(map(torch.equal, ours.stored(), anew.stored())), number
    assert used == [3, 4, 5, 7, 8]


OF_ONE_MODEL = ("adagradnorm", "localsgd", "mtdao", "adog", "dadaptsgd", "prodigy", "udog", "sgdhd", "randomscaledadamw", "sps",
                OF_THE_MODEL.replace("every 3", "when lr > 1"))  # fmt: skip


@pytest.mark.parametrize("rule", OF_ONE_MODEL)
def test_values_per_model_are_found_from_tables_too(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    plain = Staged.ready
    monkeypatch.setattr(Staged, "ready", lambda *given: used.append(plain(*given)) or used[-1])
    sides = []
    for anew in (False, True):
        run = Run("adamw", anew)
        run.optimizer = (optlang.loads(rule, backend="cpp") if "rule" in rule else optlang.load(rule, backend="cpp"))(run.params)
        for _ in range(12):
            run.step()
        sides.append((run.stored(), run.optimizer.reports))
    assert all(map(torch.equal, sides[0][0], sides[1][0])) and sides[0][1] == sides[1][1]
    assert len(used) >= 7 and all(one is not None for one in used)


def test_autograd_hears_of_repeated_steps() -> None:
    run = Run("adamw", anew=False)
    for _ in range(4):
        before = [p._version for p in run.params]
        run.step()
        assert all(p._version > b for p, b in zip(run.params, before, strict=True))
