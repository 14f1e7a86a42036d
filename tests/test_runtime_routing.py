"""Routes: which rule a parameter goes to, settings by rule, and what groups may not differ in. 3 seconds."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import optlang
from optlang.runtime.groups.options import OPTIONS

MuonWithAdamW: Any = optlang.load("muonwithadamw")
TWO = """
rule Add { hyper lr = 1 in (0, inf) hyper int k = 1 in [1, 5] state n = 0 n' = n + 1 w' = w + lr*g*n' }
rule Hold { hyper lr = 1 in (0, inf) w' = w + 0*lr*g }
"""


def routed(*branches: str, text: str = TWO, backend: str = "torch") -> Any:
    return optlang.loads(f"{text} route R {{ {' '.join(branches)} }}", "R", backend=backend)


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict({"embed": nn.Embedding(5, 4), "body": nn.Linear(4, 6), "head": nn.Linear(6, 5, bias=False)})


def rules_of(optimizer: Any) -> dict[str, str]:
    return {name: group["rule"] for group in optimizer.param_groups for name in group["param_names"]}


def backward(params: Any) -> None:
    for number, p in enumerate(params):
        p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(number), dtype=p.dtype)


# ------------------------------------------------------------------------------------------------------- branches


def test_by_rank_and_name() -> None:
    optimizer = MuonWithAdamW(model().named_parameters())
    assert rules_of(optimizer) == {
        "embed.weight": "AdamW", "body.weight": "Muon", "body.bias": "AdamW", "head.weight": "AdamW",
    }  # fmt: skip
    assert [group["lr"] for group in optimizer.param_groups] == [0.02, 3e-4]
    assert optimizer.param_groups[1]["weight_decay"] == 0.1


def test_what_torch_puts_into_names_is_no_part_of_them() -> None:
    cls = routed('when named("body.*") use Add()', "otherwise use Hold()")
    for name in ("_orig_mod.body.weight", "body._checkpoint_wrapped_module.weight", "_fsdp_wrapped_module.body.weight"):
        group = cls([(name, torch.zeros(1, requires_grad=True))]).param_groups[0]
        assert (group["rule"], group["param_names"]) == ("Add", [name])
    assert cls([("body_weight", torch.zeros(1, requires_grad=True))]).param_groups[0]["rule"] == "Hold"


def test_names_are_needed_where_they_are_asked_for() -> None:
    with pytest.raises(ValueError, match=r"give the optimizer `model.named_parameters\(\)`"):
        MuonWithAdamW(model().parameters())
    with pytest.raises(ValueError, match="all optimizer params should be with/without names"):
        MuonWithAdamW([("a", model().body.weight), model().body.bias])  # type: ignore[union-attr]
    MuonWithAdamW([nn.Parameter(torch.zeros(3))])  # of a vector no name is asked for


CONDITIONS = [
    ("rank == 0", (), True), ("rank == 0", (1,), False), ("rows > cols", (3, 2), True), ("rows > cols", (2, 3), False),
    ("rows > cols", (3,), False), ("not rows > cols", (3,), True), ("numel >= 6 and rank == 2", (3, 2), True),
    ("numel == 0", (0, 4), True), ("fan_in == 8", (3, 2, 2, 2), True), ("fan_out == 12", (3, 2, 2, 2), True),
    ("max(rows, cols)/2 == 2", (4, 2), True), ("rank == 1 or rank == 2 and rows == 5", (5, 1), True),
    ("rank^2 == 4", (1, 1), True), ("rows - cols < 0", (1, 2), True),
]  # fmt: skip


@pytest.mark.parametrize(("condition", "shape", "holds"), CONDITIONS)
def test_conditions(condition: str, shape: tuple[int, ...], holds: bool) -> None:
    cls = routed(f"when {condition} use Add()", "otherwise use Hold()")
    assert cls([torch.zeros(shape, requires_grad=True)]).param_groups[0]["rule"] == ("Add" if holds else "Hold")


def test_by_number_type() -> None:
    cls = routed('when dtype == "bfloat16" use Add()', "otherwise use Hold()")
    params = [torch.zeros(2, dtype=d, requires_grad=True) for d in (torch.float32, torch.bfloat16)]
    assert [g["rule"] for g in cls(params).param_groups] == ["Add", "Hold"]


def test_no_branch_matches() -> None:
    cls = routed("when rank == 2 use Add()")
    with pytest.raises(ValueError, match=r"sends the parameter of shape \(3,\) to no rule; end the route with `otherwise"):
        cls([torch.zeros(3, requires_grad=True)])
    optimizer = cls([("a", torch.zeros(3, 3, requires_grad=True))])
    with pytest.raises(ValueError, match="sends bias to no rule"):
        optimizer.add_param_group({"params": [("b", torch.zeros(3, 3, requires_grad=True)), ("bias", torch.zeros(3, requires_grad=True))]})
    assert len(optimizer.param_groups) == 1


def test_a_group_that_fails_in_its_second_rule_is_not_added() -> None:
    optimizer = routed("when rank == 2 use Add()", "otherwise use Hold()")([torch.zeros(3, 3, requires_grad=True)])
    twice = torch.zeros(2, requires_grad=True)
    optimizer.add_param_group({"params": [twice]})
    with pytest.raises(ValueError, match="more than one parameter group"):
        optimizer.add_param_group({"params": [torch.zeros(2, 2, requires_grad=True), twice]})
    assert len(optimizer.param_groups) == 2


def test_what_is_no_tensor() -> None:
    with pytest.raises(TypeError, match="parameters are tensors, not str"):
        routed("otherwise use Add()")(["p"])


# ------------------------------------------------------------------------------------------------------- settings


def test_settings_are_given_by_rule() -> None:
    params = list(model().named_parameters())
    optimizer = MuonWithAdamW(params, Muon={"lr": 0.5}, AdamW={"betas": (0.1, 0.2)})
    assert [g["lr"] for g in optimizer.param_groups] == [0.5, 3e-4]
    assert optimizer.param_groups[1]["betas"] == (0.1, 0.2)
    with pytest.raises(TypeError, match=r"is a route: give settings by rule, as in Muon=\{…\}, not lr=0.1; its rules are Muon, AdamW"):
        MuonWithAdamW(params, lr=0.1)
    for wrong, advice in (("muon", "did you mean `Muon`"), ("SOAP", "its rules are Muon, AdamW")):
        with pytest.raises(TypeError, match=f"MuonWithAdamW has no rule `{wrong}`; {advice}"):
            MuonWithAdamW(params, **{wrong: {"lr": 0.1}})
    with pytest.raises(TypeError, match="Muon has no setting `betas`"):
        MuonWithAdamW(params, Muon={"betas": (0.1, 0.2)})
    with pytest.raises(TypeError, match="0 settings by place"):
        MuonWithAdamW(params, 0.1)
    with pytest.raises(TypeError, match="settings of Muon are a dictionary, as Muon="):
        MuonWithAdamW(params, Muon=0.1)
    assert list(inspect.signature(MuonWithAdamW).parameters) == ["params", "Muon", "AdamW", *OPTIONS]


def test_groups_are_split_and_keep_their_settings() -> None:
    net = dict(model().named_parameters())
    bodies = [(n, p) for n, p in net.items() if n.startswith("body")]
    others = [(n, p) for n, p in net.items() if not n.startswith("body")]
    optimizer = MuonWithAdamW([{"params": bodies, "lr": 0.25}, {"params": others}])
    assert [(g["rule"], g["lr"], g["param_names"]) for g in optimizer.param_groups] == [
        ("Muon", 0.25, ["body.weight"]), ("AdamW", 0.25, ["body.bias"]), ("AdamW", 3e-4, ["embed.weight", "head.weight"]),
    ]  # fmt: skip


def test_the_same_rule_twice_has_two_labels() -> None:
    cls = routed("when rank == 2 use Add(lr = 2)", "otherwise use Add(lr = 3)")
    params = [torch.zeros(1, 1, requires_grad=True), torch.zeros(1, requires_grad=True)]
    optimizer = cls(params, Add_2={"lr": 5.0})
    assert [(g["rule"], g["lr"]) for g in optimizer.param_groups] == [("Add", 2), ("Add_2", 5)]
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert [p.item() for p in params] == [2, 5]


@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_a_route_takes_the_steps_of_its_rules(backend: str) -> None:
    both, alone = dict(model().named_parameters()), dict(model().named_parameters())
    optimizer = optlang.load("muonwithadamw", backend=backend)(list(both.items()))  # type: ignore[call-arg]
    muon: Any = optlang.load("muon", backend=backend)([alone["body.weight"]], lr=0.02)
    adamw: Any = optlang.load("adamw", backend=backend)([p for n, p in alone.items() if n != "body.weight"], lr=3e-4, weight_decay=0.1)
    for _ in range(3):
        backward(both.values())
        backward(alone.values())
        for o in (optimizer, muon, adamw):
            o.step()
    for name in both:
        assert torch.equal(both[name], alone[name])


def test_schedulers_reach_every_rule() -> None:
    optimizer = MuonWithAdamW(model().named_parameters())
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    optimizer.step()
    scheduler.step()
    assert [g["lr"] for g in optimizer.param_groups] == [0.01, 1.5e-4]


# --------------------------------------------------------------------------------------------------- rank and shape


def test_a_rule_for_matrices_names_the_parameter_that_is_none() -> None:
    with pytest.raises(ValueError, match=r"Muon treats parameters as matrices, but body.bias has shape \(6,\): send it to another rule"):
        optlang.load("muon")(model().named_parameters())


@pytest.mark.parametrize(("name", "said"), [("muon", "as MuonWithAdamW does"), ("normuon", "as NorMuonWithAdamW does")])
def test_a_route_that_steps_the_whole_model_is_named(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"{said}$"):
        optlang.load(name)(model().parameters())


def test_where_the_library_has_no_route_its_text_is_written_out() -> None:
    with pytest.raises(ValueError, match="SOAP treats parameters as matrices") as refused:
        optlang.load("soap")(model().named_parameters())
    _, text, _ = str(refused.value).split('"')
    optimizer = optlang.loads(text, backend="torch")(model().named_parameters(), SOAP={"lr": 0.01})
    assert {way.rule for way in optimizer.routes()} == {"SOAP", "AdamW"}


def test_a_rule_of_no_library_names_the_parameter_that_is_no_matrix() -> None:
    cls = routed("otherwise use M()", text="rule M { w' = w - mean(g per row) }")
    with pytest.raises(ValueError, match=r"M treats parameters as matrices, but parameter 0 of group 0 has shape \(\)"):
        cls([torch.tensor(1.0, requires_grad=True)])


def test_more_orthonormal_columns_than_rows_are_refused_before_weights_are_nan() -> None:
    cls: Any = optlang.loads("rule Tall { w' = w - 0.1*orthonormal(g) }")
    narrow, wide = (torch.ones(shape, requires_grad=True) for shape in [(5, 3), (3, 5)])
    narrow.grad = torch.randn(5, 3)
    optimizer = cls([narrow])
    with pytest.raises(ValueError, match=r"columns of a 3×5 matrix orthonormal for parameter 0 of group 1, of shape \(3, 5\): of more"):
        optimizer.add_param_group({"params": wide})
    optimizer.step()
    assert len(optimizer.param_groups) == 1 and narrow.isfinite().all()


def test_a_side_that_is_not_taken_needs_no_matrix() -> None:
    text = "rule M { hyper bool rows_too = false when rank >= 2 and rows_too { w' = w - mean(g per row) } else { w' = w - g } }"
    cls: Any = optlang.loads(text)
    p = torch.ones(3, requires_grad=True)
    p.grad = torch.ones(3)
    cls([p], rows_too=True).step()
    assert p.tolist() == [0, 0, 0]


# ------------------------------------------------------------------------------------------ hypers that shape programs


def test_groups_may_differ_in_what_shapes_the_program() -> None:
    def start() -> list[Tensor]:
        return [torch.eye(3).requires_grad_(), torch.eye(3).requires_grad_()]

    muon: Any = optlang.load("muon")
    apart, one, other = start(), start(), start()
    optimizers = [muon([{"params": [apart[0]], "steps": 3}, {"params": [apart[1]]}]), muon(one, steps=3), muon(other)]
    for params, optimizer in zip((apart, one, other), optimizers, strict=True):
        for p in params:
            p.grad = torch.arange(9.0).reshape(3, 3) / 9 + 0.1
        optimizer.step()
    assert torch.equal(apart[0], one[0])
    assert torch.equal(apart[1], other[1])
    assert not torch.equal(one[0], other[0])


def test_what_shapes_the_program_may_change_between_steps() -> None:
    muon: Any = optlang.load("muon")
    p, q = torch.eye(3).requires_grad_(), torch.eye(3).requires_grad_()
    a, b = muon([p], steps=5), muon([q], steps=2)
    for steps in (2, 2):
        a.param_groups[0]["steps"] = steps
        for w, o in ((p, a), (q, b)):
            w.grad = torch.arange(9.0).reshape(3, 3)
            o.step()
    assert torch.equal(p, q)
    a.param_groups[0]["steps"] = 0
    with pytest.raises(ValueError, match="steps = 0 is outside"):
        a.step()


WINDOW = "rule W { hyper lr = 1 in (0, inf) hyper int n = 3 in [1, 9] state h[n] = 0 h' = push(h, g) w' = w - lr*mean(h') }"


@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_a_window_keeps_the_length_that_it_began_with(backend: str) -> None:
    p = torch.zeros(2, requires_grad=True)
    optimizer: Any = optlang.loads(WINDOW, backend=backend)([p])
    p.grad = torch.ones(2)
    optimizer.step()
    optimizer.param_groups[0]["n"] = 5
    before = p.tolist()
    with pytest.raises(RuntimeError, match=r"(?s)h has shape \(3, 2\), not \(5, 2\). Set this before"):
        optimizer.step()
    assert p.tolist() == before
    optimizer.param_groups[0]["n"] = 3
    optimizer.step()
    assert p.tolist() != before


@pytest.mark.parametrize("value", ["norm(g per model)", "mean(grad(w) per tensor)", "norm(hvp(g))"])
def test_values_of_all_parameters_need_one_shape_for_all(value: str) -> None:
    """Each shape of the program would see its own parameters only."""
    text = f"rule R {{ hyper int n = 2 in [1, 9] state h[n] = 0 h' = push(h, g) w' = w - mean(h')*{value} }}"
    text = text.replace("grad(w)", "grad(w + g)")
    cls: Any = optlang.loads(text)
    p, q = torch.zeros(2, requires_grad=True), torch.zeros(2, requires_grad=True)
    optimizer = cls([{"params": [p], "n": 3}, {"params": [q], "n": 3}])
    with pytest.raises(ValueError, match="R has .*, so all groups need the same n"):
        cls([{"params": [p], "n": 3}, {"params": [q]}])
    optimizer.param_groups[0]["n"] = 4
    with pytest.raises(ValueError, match="so all groups need the same n"):
        optimizer.step(lambda: 0.0)


# ---------------------------------------------------------------------------------------------- values per model

BACKENDS = ["reference", "torch", "cpp"]
SEEING = """
rule M {
  state seen per model = 0
  seen' = seen + sum(g^2 per model)
  w' = w - g/norm(g per model) - 0.001*seen' - 0.01*mean(w per model) - count(w per model)*1e-4
}
rule H { w' = w - g }
rule Q { w' = w - quantile(abs(g) per model, 0.5)*max(norm(g per group) per model)*g/sum(g/norm(g per model) per model) }
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_values_per_model_are_of_all_parameters_of_the_optimizer(backend: str) -> None:
    a, b = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True), torch.tensor([5.0, -3.0], requires_grad=True)
    c = torch.ones(3, requires_grad=True)  # has no gradient, so is not in the step
    optimizer = routed("when rank == 2 use M()", "otherwise use H()", text=SEEING, backend=backend)([a, b, c])
    for seen in (9 + 16, 50):  # 3^2 of the matrix, 4^2 of the vector
        w, mean = a.detach().clone(), (a.sum() + b.sum()).item() / 6
        a.grad, b.grad = torch.tensor([[3.0, 0.0], [0.0, 0.0]]), torch.tensor([0.0, 4.0])
        optimizer.step()
        torch.testing.assert_close(a.detach(), w - a.grad / 5 - 0.001 * seen - 0.01 * mean - 6e-4)
    assert b.tolist() == [5.0, -11.0] and c.tolist() == [1.0] * 3
    assert optimizer.state[a]["seen"] == 50 and "seen" not in optimizer.state[b]


@pytest.mark.parametrize("backend", BACKENDS)
def test_values_per_model_of_values_per_model_and_group(backend: str) -> None:
    a, b = torch.zeros(2, 2, requires_grad=True), torch.zeros(2, requires_grad=True)
    optimizer = routed("when rank == 2 use Q()", "otherwise use H()", text=SEEING, backend=backend)([a, b])
    a.grad, b.grad = torch.tensor([[3.0, 0.0], [0.0, 4.0]]), torch.tensor([12.0, 1.0])
    optimizer.step()
    whole = 170**0.5  # median of (0, 0, 1, 3, 4, 12); the larger norm of a group; the sum of all that is normalised
    torch.testing.assert_close(a.detach(), -2 * 145**0.5 * a.grad / (20 / whole))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_value_per_model_may_read_a_loss_elsewhere_that_one_rule_asks_for(backend: str) -> None:
    """What the point is made of, a state of that rule, is not asked of the others."""
    text = """rule M { state m = 0 m' = m + g l = loss_at(w - m'/norm(m' per group)) w' = w - g*norm(l*g per model) }
    rule H { w' = w - g }"""
    params = [torch.full((1, 2), 2.0, requires_grad=True), torch.tensor([3.0], requires_grad=True)]
    optimizer = routed("when rank == 2 use M()", "otherwise use H()", text=text, backend=backend)(params)

    def closure() -> Any:
        optimizer.zero_grad()
        loss = params[0].sum() + params[1].sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    there = 2 * (2 - 0.5**0.5) + 3
    torch.testing.assert_close(params[0].detach(), torch.full((1, 2), 2 - there * 3**0.5))


@pytest.mark.parametrize("backend", BACKENDS)
def test_clipping_by_the_norm_of_all_is_that_of_torch(backend: str) -> None:
    text = """from std import clip_global  from adamw import AdamW  from muon import Muon
    rule A { w' = AdamW(g = clip_global(g)) }  rule B { w' = Muon(g = clip_global(g)) }"""
    ours, theirs = [[torch.ones(s, requires_grad=True) for s in ((3, 2), (4,), (2, 2))] for _ in "ab"]
    branches = ("when rank == 2 use B()", "otherwise use A()")
    clipped = routed(*branches, text=text, backend=backend)(ours)
    plain = routed(*branches, text=text.replace("clip_global(g)", "g"), backend="torch")(theirs)
    for _ in range(3):
        backward(ours)
        backward(theirs)
        torch.nn.utils.clip_grad_norm_(theirs, 1.0)
        clipped.step()
        plain.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("weights", ["compensated", "stochastic"])
def test_values_per_model_see_weights_that_are_kept_in_two_parts(weights: str) -> None:
    """In the first step the other rule has not yet put what rounding takes away beside its weights."""
    text = "rule M { w' = w - 1e-3*g*norm(w per model) } rule H { w' = w - 1e-3*g }"
    cls: Any = optlang.loads(f"{text} route R {{ when rank == 2 use M() otherwise use H() }}", "R", backend="torch", weights=weights)
    params = [torch.ones(s, dtype=torch.bfloat16, requires_grad=True) for s in ((2, 2), (5,))]
    optimizer = cls(params)
    for _ in range(20):
        for p in params:
            p.grad = torch.ones_like(p)
        optimizer.step()
    assert 0.9 < float(params[0].detach().mean()) < 0.97  # 20 steps of 3e-3, of weights that are 1 of 9

WANTING = {
    "norm(m' per model)": "reads the state `m`",
    "norm(lr*g per model)": "reads the setting `lr`",
    "norm(grad(w + g) per model)": "reads gradients at other points",
    "sum(g/norm(m' per group) per model)": "reads the state `m`",
    "quantile(m' per model, 0.5)": "reads the state `m`",
}


@pytest.mark.parametrize("value", WANTING)
def test_values_per_model_that_other_rules_have_no_part_in(value: str) -> None:
    text = f"rule M {{ hyper lr = 1 in (0, inf) state m = 0 m' = m + g w' = w - lr*m'/{value} }} rule H {{ w' = w - g }}"
    why = f"M cannot be a rule of a route: in one, `per model` is over the parameters of all its rules, .* {WANTING[value]}, which"
    with pytest.raises(ValueError, match=why):
        routed("when rank == 2 use M()", "otherwise use H()", text=text)
    optlang.loads(text, "M")
