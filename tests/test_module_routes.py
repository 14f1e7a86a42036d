"""Routes as generated modules: which rule steps what, settings by rule, and values of all parameters, beside the reference."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from generated_module import Net, load, run, same
from torch import Tensor, nn
from torch.optim.lr_scheduler import CyclicLR, OneCycleLR

import optlang

MATRICES = "route R { when rank == 2 use A() otherwise use B() }"
VECTORS = "route R { when rank < 2 use B() otherwise use A() }"
PLAIN = "rule B { w' = w - 0.1*g }"
ROUTES = {
    "a norm and a state": f"""rule A {{ state seen per model = 0 seen' = seen + sum(g^2 per model)
      w' = w - 0.1*g/norm(g per model) - 0.001*seen' - 0.01*mean(w per model) - count(w per model)*1e-4 }} {PLAIN} {VECTORS}""",
    "groups": f"""rule A {{ hyper q = 0.5 in [0, 1] s = sum(0.3 + norm(g per group) per model)
      w' = w - 0.1*quantile(abs(g) per model, q)*max(norm(g per group) per model)*g/(s + norm(g per group)*q) }} {PLAIN} {VECTORS}""",
    "two that look around": f"""rule A {{ state m = 0 m' = 0.9*m + g/norm(g per model) w' = w - 0.1*m'*mean(abs(w) per model) }}
      rule B {{ w' = w - 0.1*g*min(1, norm(w per model)) }} {VECTORS}""",
    "one that asks the model": f"rule A {{ w' = w - 0.1*grad(w + 0.3*g) }} {PLAIN} {VECTORS}",
    "losses that scale all": f"""rule A {{ state m = 0 m' = m + g l = loss_at(w - 0.1*m'/norm(m' per group))
      w' = w - 0.1*g*norm(l*g per model) }} {PLAIN} {VECTORS}""",
    "draws and counts": f"rule A {{ w' = w - 0.1*g*tanh(sum(normal()*g*t + uniform(per group) per model)) }} {PLAIN} {MATRICES}",
    "a state that goes on by itself": f"rule A {{ state n per model = 1 n' = n/2 w' = w - n'*g }} {PLAIN} {MATRICES}",
    "one rule for all": "rule A { state m = 0 m' = m + g w' = w - 0.1*m'/norm(m' per model) } route R { otherwise use A() }",
    "what nobody reads": f"rule A {{ state m = 0 m' = m + g n = norm(m' per model) w' = w - 0.1*m' }} {PLAIN} {MATRICES}",
    "reports": "rule A { report n = norm(g per model) w' = w - 0.1*g } rule B { report n = t/2 w' = w - 0.1*g } " + VECTORS,
}
MOMENTA = """rule A { hyper lr = 0.1 in (0, inf) hyper momentum = 0.9 in [0, 1) state m = 0 m' = momentum*m + g
    w' = w - lr*m'/(1 + norm(g per model)) }
  rule B { hyper lr = 0.1 in (0, inf) hyper beta1 = 0.9 in [0, 1) hyper beta2 = 0.99 in [0, 1) state m = 0 state v = 0 m' = beta1*m + g
    v' = beta2*v + g^2 w' = w - lr*m'/(1 + sqrt(v') + norm(g per group)) }
  rule C { hyper lr = 0.1 in (0, inf) w' = w - lr*g*uniform() }
  route R { when rank == 2 use A() when rank == 1 use B() otherwise use C() }"""
CHOOSING = """rule R { w' = w - 0.1*g }
  rule S { state a = w a' = 0.5*a + 0.5*w' w' = w - 0.2*g eval = a' }
  rule T { w' = w - 0.1*grad(w + 0.1*g) }
  route B { when -rank < -1 and max(rank, 1) == min(rank, 2) use S() when dtype == "float64" use R() }"""
VALUELESS = ["numel/fan_out < 3", "max(2, cols) == 2", "1/(numel - 3) != 0", "not (numel/rank > 2)", "rank^2 > 3"]


@pytest.mark.parametrize("name", ROUTES)
def test_a_route_with_values_of_all_as_the_reference(name: str) -> None:
    """In the order in which rules stand, the others have moved before those that look around."""
    results = []
    for cls in (load(optlang.build(ROUTES[name], "R"), "R"), optlang.loads(ROUTES[name], "R", backend="reference")):
        net, optimizer = run(cls)
        results.append((net, getattr(optimizer, "reports", {}), [sorted(state) for state in optimizer.state.values()]))
    same(results[0][0], results[1][0])
    assert results[0][1] == pytest.approx(results[1][1]) and sorted(results[0][2]) == sorted(results[1][2])


def test_a_route_takes_no_values_of_all_that_others_do_not_have() -> None:
    text = f"rule A {{ state m = 0 m' = m + g w' = w - m'/norm(m' per model) }} {PLAIN} {MATRICES}"
    with pytest.raises(ValueError, match="A cannot be a rule of a route: in one, `per model` is over .* reads the state `m`, which"):
        optlang.build(text, "R")
    text = f"rule A {{ w' = w - g*mean(max(g per row) per model) }} {PLAIN} {MATRICES}"
    with pytest.raises(ValueError, match=r"A takes values of all parameters as matrices, not a parameter of shape \(\)"):
        run(load(optlang.build(text, "R"), "R"))


def test_a_route_whose_rules_differ_in_what_they_draw_and_report() -> None:
    text = ("rule R { w' = w - 0.1*g*uniform() }\nrule S { report r = 0.5 w' = w - 0.1*g }\n"
            "route B { when rank >= 2 use S() otherwise use R() }")  # fmt: skip
    same(run(load(optlang.build(text, "B"), "B"))[0], run(optlang.loads(text, "B", backend="reference"))[0])


def test_a_route_sends_parameters_and_keeps_their_settings() -> None:
    text = """rule A { hyper lr = 0.1 in (0, inf) state m = 0 m' = m + g w' = w - lr*m' }
      rule B { hyper lr = 1 in (0, inf) w' = w - lr*g }
      route R "by rank" { when rank == 2 and rows != 7 and not named("*bias") use A(lr = 0.5)
        when numel > 4*rank + 1 use B() otherwise use A() }"""
    results = []
    for cls in (load(optlang.build(text, "R"), "R"), optlang.loads(text, "R", backend="reference")):
        net = Net(torch.float64)
        labels = ("A", "B", "A_2")
        optimizer = cls([{"params": list(net.named_parameters()), "maximize": False}], **{labels[1]: {"lr": 0.25}})
        for _ in range(3):
            optimizer.zero_grad()
            net(torch.ones(2, 5, dtype=torch.float64)).square().sum().backward()
            optimizer.step()
        copy = cls(list(net.named_parameters()), B={"lr": 0.25})
        copy.load_state_dict(optimizer.state_dict())
        results.append([(group["rule"], group["lr"], len(group["params"])) for group in copy.param_groups])
        results.append([round(x, 9) for p in net.parameters() for x in p.flatten().tolist()])
    assert results[0] == results[2]
    assert results[1] == results[3]


@pytest.mark.parametrize("text", ["A", "A B C"])
def test_schedulers_cycle_the_momenta_of_a_route_as_of_the_loaded_one(text: str) -> None:
    """Beside `betas` a momentum is kept as `betas` of one number, which what is written by its name goes into."""
    source = MOMENTA if text == "A B C" else f"{MOMENTA.partition('rule B')[0]} route R {{ otherwise use A() }}"
    kept, found = "betas" if text == "A B C" else "momentum", []
    for cls in (load(optlang.build(source, "R"), "R"), optlang.loads(source, "R", backend="torch")):
        net, seen = Net(torch.float64), []
        optimizer = cls([{"params": list(net.named_parameters())[1:], "betas": (0.5, 0.6)}])
        optimizer.add_param_group({"params": list(net.named_parameters())[:1], "momentum": 0.7})
        optimizer = cls(optimizer.param_groups)
        seen += [group.get(kept) for group in optimizer.param_groups]
        for cycle in (lambda o: CyclicLR(o, 1e-3, 1e-2, 3), lambda o: OneCycleLR(o, 0.01, total_steps=8)):
            optimizer.param_groups[-1]["momentum"] = 0.3
            optimizer.step()
            seen.append(optimizer.param_groups[-1].get(kept))
            schedule = cycle(optimizer)
            for _ in range(4):
                optimizer.zero_grad()
                net(torch.ones(2, 5, dtype=torch.float64)).square().sum().backward()
                optimizer.step()
                schedule.step()
                seen.append([group[kept] for group in optimizer.param_groups])
        found.append((seen, torch.cat([p.detach().flatten() for p in net.parameters()])))
    (ours, w), (theirs, wanted) = found
    assert ours == theirs
    torch.testing.assert_close(w, wanted, rtol=1e-12, atol=1e-12)


def test_copies_of_a_route_know_their_settings() -> None:
    optimizer = load(optlang.build("muonwithadamw"), "MuonWithAdamW")([("weight", nn.Parameter(torch.eye(2)))], Muon={"lr": 0.5})
    again = copy.deepcopy(optimizer)
    again.add_param_group({"params": [("more", nn.Parameter(torch.eye(2)))]})
    assert [group["lr"] for group in again.param_groups] == [0.5, 0.5]
    for mixed in ([("weight", nn.Parameter(torch.eye(2))), nn.Parameter(torch.eye(2))], [nn.Parameter(torch.eye(2)), ("a", torch.eye(2))]):
        with pytest.raises(ValueError, match="with/without names. Some param names are missing"):
            type(optimizer)(mixed)


def test_rules_of_a_route_may_be_called_as_its_own_variables_are() -> None:
    text = """rule chosen { hyper lr = 0.1 w' = w - lr*grad(2*w) } rule update { w' = w - g }
              route B { when rank >= 2 use chosen() otherwise use update() }"""
    given, found = [torch.ones(2, 2), torch.ones(2)], []
    for made in (load(optlang.build(text, "B"), "B"), optlang.loads(text, "B")):
        params = [p.clone().requires_grad_() for p in given]
        optimizer = made(params)

        def closure(optimizer: Any = optimizer, params: list[Tensor] = params) -> Tensor:
            optimizer.zero_grad()
            loss: Tensor = sum(p.square().sum() / 2 for p in params)  # type: ignore[assignment]
            loss.backward()
            return loss

        optimizer.step(closure)
        found.append([p.detach() for p in params])
    assert all(map(torch.equal, *found)) and found[0][1].tolist() == [0, 0]


def test_all_that_a_route_says_of_itself_is_there() -> None:
    words = [f"word{i}" for i in range(60)]
    text = optlang.build(f"rule A {{ w' = w - g }} route R \"{' '.join(words)}\" {{ otherwise use A() }}", "R")
    assert set(words) <= set(load(text, "R").__doc__.split())


def test_a_route_by_every_kind_of_condition() -> None:
    for cls in (load(optlang.build(CHOOSING, "B"), "B"), optlang.loads(CHOOSING, "B", backend="reference")):
        with pytest.raises(ValueError, match="no rule"):
            cls(Net(torch.float32).parameters())
    same(run(load(optlang.build(CHOOSING, "B"), "B"))[0], run(optlang.loads(CHOOSING, "B", backend="reference"))[0])


@pytest.mark.parametrize("condition", VALUELESS)
def test_no_comparison_holds_of_what_has_no_value(condition: str) -> None:
    """Sizes of nothing, divisions by 0: the module sends every parameter where the runtime does."""
    text = f"rule R {{ w' = w - g }} rule S {{ w' = w + g }} route B {{ when {condition} use S() otherwise use R() }}"
    found = []
    for cls in (load(optlang.build(text, "B"), "B"), optlang.loads(text, "B", backend="reference")):
        params = [nn.Parameter(torch.ones(shape)) for shape in [(0, 3), (3, 3), (), (5,), (3,), (0,), (2, 3, 4), (2, 2)]]
        for param in params:
            param.grad = torch.ones_like(param)
        cls(params).step()
        found.append(params)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_a_route_says_what_a_step_needs() -> None:
    nets = []
    for cls in (load(optlang.build(CHOOSING, "B"), "B"), optlang.loads(CHOOSING, "B", backend="reference")):
        net, optimizer = run(cls, steps=3)
        optimizer.eval()
        nets.append(net)
        with pytest.raises(RuntimeError, match=r"call .*train"):
            optimizer.step()
    same(*nets)
    asking = load(optlang.build(CHOOSING.replace("R()", "T()"), "B"), "B")(Net(torch.float64).parameters())
    with pytest.raises(RuntimeError, match="closure"):
        asking.step()


def test_a_route_refuses_a_group_as_a_whole() -> None:
    """Also where the first of its rules would have taken its part."""
    route = f"rule A {{ w' = w - 0.1*g }} rule B {{ hyper lr = 0.1 in (0, inf) w' = w - lr*g }} {MATRICES}"
    cls = load(optlang.build(route, "R"), "R")
    for wrong, kind in ((True, TypeError), (-1.0, ValueError)):
        with pytest.raises(kind, match="lr "):
            cls([nn.Parameter(torch.ones(2))], B={"lr": wrong})
    first, matrix = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2, 2))
    optimizer = cls([first])
    with pytest.raises(ValueError, match="more than one parameter group"):
        optimizer.add_param_group({"params": [matrix, first]})
    assert len(optimizer.param_groups) == 1


def test_what_shapes_a_rule_of_a_route_may_be_given_there() -> None:
    text = "from muon import Muon\nroute R { when rows > cols use Muon(steps = 7) otherwise use Muon(nesterov = false) }"
    results = []
    for cls in (load(optlang.build(text), "R"), optlang.loads(text, backend="reference")):
        net = Net(torch.float64)
        weights = [(name, p) for name, p in net.named_parameters() if p.ndim == 2]
        optimizer = cls(weights)
        for _ in range(3):
            optimizer.zero_grad()
            net(torch.ones(2, 5, dtype=torch.float64)).square().sum().backward()
            optimizer.step()
        assert [group["steps"] for group in optimizer.param_groups] == [7, 5]
        results.append(net)
    same(*results)


def test_names_that_a_route_looks_at_are_asked_for() -> None:
    module = optlang.build("""rule A { w' = w - g } route R { when named("*") use A() otherwise use A() }""", "R")
    with pytest.raises(ValueError, match="looks at the names of parameters: give it model.named_parameters"):
        load(module, "R")([nn.Parameter(torch.ones(2))])


def test_routes_see_names_as_they_are_in_the_model() -> None:
    """Wrappers of torch put words before them."""
    text = """rule A { w' = w - g } rule B { w' = w } route R { when named("head*") use A() otherwise use B() }"""
    for cls in (load(optlang.build(text, "R"), "R"), optlang.loads(text, "R")):
        for name in ("head.weight", "module.head.weight", "module._orig_mod.head.weight", "body.head.weight"):
            optimizer: Any = cls([(name, nn.Parameter(torch.ones(2)))])
            assert optimizer.param_groups[0]["rule"] == ("B" if name.startswith("body") else "A"), name


def test_every_route_is_linted(tmp_path: Path) -> None:
    for name, text in ROUTES.items():
        (tmp_path / f"{name.replace(' ', '_').replace(',', '')}.py").write_text(optlang.build(text, "R"))
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "--isolated", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
