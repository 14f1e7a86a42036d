"""Wrong input that is tested nowhere else: what is frozen, gradients of another kind, files that are cut short. 2 seconds."""

from __future__ import annotations

import copy
import io
import warnings
from typing import Any

import pytest
import torch
from stepping import finite

import optlang

AdamW: Any = optlang.load("adamw")
BACKENDS = ["cpp", "torch", "triton"]  # the last in the interpreter, where it is installed


def stepped() -> tuple[Any, torch.Tensor]:
    p = torch.ones(3, requires_grad=True)
    optimizer = AdamW([("p", p)])
    p.grad = torch.tensor([1.0, -2.0, 0.5])
    optimizer.step()
    return optimizer, p


def test_what_is_frozen_is_taken_and_left_alone_as_in_torch() -> None:
    """Until it is thawed, which needs no new optimizer."""
    frozen, free = torch.ones(2), torch.ones(2, requires_grad=True)
    optimizer = AdamW([frozen, free])
    free.sum().backward()
    optimizer.step()
    assert frozen.tolist() == [1, 1] and frozen not in optimizer.state and free in optimizer.state
    frozen.requires_grad_()
    frozen.sum().backward()
    optimizer.step()
    assert optimizer.state[frozen]["step"] == 1 and optimizer.state[free]["step"] == 2


def test_gradients_of_another_number_type_are_refused_by_torch_or_taken_as_numbers() -> None:
    p = torch.ones(3, dtype=torch.bfloat16, requires_grad=True)
    with pytest.raises(RuntimeError, match="(gradient|grad) .*(type|dtype)"):
        p.grad = torch.ones(3)
    if not hasattr(p, "grad_dtype"):
        return
    p.grad_dtype = torch.float32  # since torch 2.10 gradients may be wider than weights
    q = torch.ones(3, requires_grad=True)
    p.grad, q.grad = torch.tensor([1.0, 1e-3, 3.0]), torch.tensor([1.0, 1e-3, 3.0])
    ours, wide = AdamW([p], lr=0.1), AdamW([q], lr=0.1)
    ours.step()
    wide.step()
    assert torch.equal(p, q.bfloat16()) and torch.equal(ours.state[p]["m"], wide.state[q]["m"])


def test_gradients_of_another_device_or_shape_are_refused_by_torch() -> None:
    p = torch.ones(3, requires_grad=True)
    for gradient in (torch.ones(3, device="meta"), torch.ones(2)):
        with pytest.raises(RuntimeError, match="device type 'meta'|size|shape"):
            p.grad = gradient


SHAPE = (64, 70)


def _smaller(state: dict[str, torch.Tensor], p: torch.Tensor) -> None:
    state["m"] = torch.zeros(3)


def _smaller_in_place(state: dict[str, torch.Tensor], p: torch.Tensor) -> None:
    state["m"].data = torch.zeros(3)


def _elsewhere(state: dict[str, torch.Tensor], p: torch.Tensor) -> None:
    state["m"] = state["m"].to("meta")


def _larger_weights(state: dict[str, torch.Tensor], p: torch.Tensor) -> None:
    p.data, p.grad = torch.ones(64, 700), None
    p.grad = torch.ones(64, 700)


def _fewer_scales(state: dict[str, torch.Tensor], p: torch.Tensor) -> None:
    state["m.int8"] = state["m.int8"][:1]


def _scales_for_codes(state: dict[str, torch.Tensor], p: torch.Tensor) -> None:
    """A scale less, and as many bytes of codes more: what kernels would write is as large, but not where it belongs."""
    state["m"], state["m.int8"] = torch.zeros(p.numel() + 4, dtype=torch.uint8), state["m.int8"][:-1].clone()


def _stepped_often(backend: str, name: str = "adamw", **settings: Any) -> tuple[Any, torch.Tensor]:
    """Until steps are repeated from tables."""
    p = torch.ones(SHAPE, requires_grad=True)
    optimizer: Any = optlang.load(name, backend=backend, **settings)([p])
    p.grad = torch.ones(SHAPE)
    for _ in range(4):
        optimizer.step()
    return optimizer, p


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("change", [_smaller, _smaller_in_place, _elsewhere, _larger_weights, _fewer_scales, _scales_for_codes])
def test_states_that_do_not_fit_their_weights_are_refused_before_memory_is_touched(change: Any, backend: str) -> None:
    optimizer, p = _stepped_often(backend, **({"state": "int8"} if change in (_fewer_scales, _scales_for_codes) else {}))
    change(optimizer.state[p], p)
    before = p.detach().clone()
    with pytest.raises(RuntimeError, match="parameter 0 of group 0: the state `m` has .* which does not fit .* delete their entry"):
        optimizer.step()
    assert torch.equal(p, before)
    del optimizer.state[p]
    optimizer.step()
    assert bool((p < before).all())


def test_values_per_row_that_do_not_fit_their_weights_are_refused() -> None:
    optimizer, p = _stepped_often("cpp", "came")
    optimizer.state[p]["s"] = torch.zeros(60, 1)
    with pytest.raises(RuntimeError, match=r"the state `s` has shape \(60, 1\) on cpu, which does not fit \(64, 1\)"):
        optimizer.step()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_weights_may_get_another_number_type_between_steps(dtype: torch.dtype, backend: str) -> None:
    """States stay as they are; the numbers are those of the reference."""
    sides = []
    for way in (backend, "reference"):
        optimizer, p = _stepped_often(way, "lamb")
        p.data, p.grad = p.data.to(dtype), None
        for _ in range(4):
            p.grad = (p.detach() - 0.5).to(dtype)
            optimizer.step()
        sides.append(p.detach())
    torch.testing.assert_close(*sides, rtol=1e-6 if dtype == torch.float64 else 1e-2, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_tied_weights_are_stepped_once(backend: str) -> None:
    """Two layers with one parameter: as torch has it, by the sum of both gradients."""
    sides = []
    for make in (optlang.load("adamw", backend=backend), torch.optim.AdamW):
        torch.manual_seed(0)
        one, other = torch.nn.Linear(6, 6, bias=False), torch.nn.Linear(6, 6, bias=False)
        other.weight = one.weight
        optimizer: Any = make(torch.nn.Sequential(one, other).parameters(), lr=0.1, weight_decay=0.01)
        for _ in range(4):
            optimizer.zero_grad()
            other(one(torch.ones(2, 6))).square().sum().backward()
            optimizer.step()
        sides.append(one.weight.detach())
    torch.testing.assert_close(*sides)


ODD = {
    "transposed": (lambda x: x.T, lambda g: g), "of transposed gradients": (lambda x: x, lambda g: g.T.contiguous().T),
    "every other": (lambda x: x.repeat(2, 3)[::2, ::3], lambda g: g), "a part of another": (lambda x: torch.cat([x, x])[3:11], lambda g: g),
    "channels last": (lambda x: x.view(2, 2, 2, 4).to(memory_format=torch.channels_last), lambda g: g),
    "of gradients in channels last": (lambda x: x.view(2, 2, 2, 4), lambda g: g.to(memory_format=torch.channels_last)),
    "of expanded gradients": (lambda x: x, lambda g: g[:1, :1].expand(g.shape)), "single": (lambda x: x[0, 0].clone(), lambda g: g),
    "empty": (lambda x: x[:0], lambda g: g), "of gradients that are negated later": (lambda x: x, lambda g: torch._neg_view(-g)),
    "of gradients without a number": (lambda x: x, lambda g: g.index_fill(0, torch.tensor(1), torch.nan)),
    "of infinite gradients": (lambda x: x, lambda g: g.index_fill(0, torch.tensor(1), -torch.inf)),
}  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
def test_parameters_and_gradients_of_any_kind(backend: str) -> None:
    """In one step, again and again; in the middle each of them moves elsewhere."""
    sides = []
    for way in (backend, "reference"):
        source = torch.Generator().manual_seed(0)
        params = [torch.nn.Parameter(make(torch.randn(8, 4, generator=source))) for make, _ in ODD.values()]
        optimizer: Any = optlang.load("lamb", backend=way)(zip(ODD, params, strict=True))
        for step in range(6):
            for p, (_, given) in zip(params, ODD.values(), strict=True):
                p.grad = given(torch.randn(p.shape, generator=source))
            for p in params if step == 4 else []:
                p.data = p.data.clone(memory_format=torch.contiguous_format)
            optimizer.step()
        sides.append([p.detach() for p in params])
        assert {one.backend for one in optimizer.backends()} == {way}
    for name, ours, theirs in zip(ODD, *sides, strict=True):
        if name not in ("of gradients without a number", "of infinite gradients"):
            finite(theirs)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6, equal_nan=True, msg=lambda told, name=name: f"{name}: {told}")


def test_parameters_of_lazy_modules_have_to_be_made_first() -> None:
    net = torch.nn.Sequential(torch.nn.LazyLinear(3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    adamw: Any = optlang.load("adamw")
    for params, name in ((net.named_parameters(), "0.weight"), (net.parameters(), "parameter 0"), ([{"params": net.parameters()}], "par")):
        with pytest.raises(ValueError, match=f"{name}.* has no shape yet, .*: run a batch through the model before"):
            adamw(params)
    net(torch.ones(2, 4)).sum().backward()
    adamw(net.named_parameters()).step()


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_a_file_that_is_cut_short_leaves_the_optimizer_as_it_was(kept: float) -> None:
    optimizer, p = stepped()
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    whole = file.getvalue()
    before = [p.detach().clone(), *(value.clone() for value in optimizer.state[p].values())]
    with pytest.raises((RuntimeError, EOFError)):
        optimizer.load_state_dict(torch.load(io.BytesIO(whole[: int(kept * len(whole))]), weights_only=True))
    assert all(torch.equal(x, y) for x, y in zip(before, [p, *optimizer.state[p].values()], strict=True))
    optimizer.load_state_dict(torch.load(io.BytesIO(whole), weights_only=True))


def _state(name: str, make: Any) -> Any:
    def edit(saved: Any) -> None:
        saved["state"][0][name] = make(saved["state"][0][name])
    return edit


def _group(**changed: Any) -> Any:
    return lambda saved: saved["param_groups"][0].update(changed)


EDITED = {
    r"m has numbers of torch.complex64 in the layout torch.strided, not real ones": _state("m", lambda x: x + 1j),
    r"m has numbers of torch.float32 in the layout torch.sparse_coo": _state("m", lambda x: x.to_sparse()),
    r"m is on the meta device, where there are no numbers": _state("m", lambda x: x.to("meta")),
    r"step is on the meta device": _state("step", lambda x: x.to("meta")),
    r"step is inf, not a number of updates": _state("step", lambda x: x * torch.inf),
    r"step is nan": _state("step", lambda x: x * torch.nan), r"step is 1\.00.*e\+30": _state("step", lambda x: x * 0 + 1e30),
    r"step has numbers of torch.complex64": _state("step", lambda x: x + 1j),
    r"group 0: `param_names` is not a list of names": _group(param_names=[5]),
    r"group 0: `param_names` is not a list": _group(param_names=5),
    r"group 0: no parameters, the optimizer has 1": _group(params=0),
    r"group 0: AdamW: maximize must be True or False, not 1": _group(maximize=1),
    r"group 0: AdamW: lr = inf is outside its range": _group(lr=10**400),
    r"group 0: AdamW: lr = -inf is outside its range": _group(lr=-(10**5000)),
}  # fmt: skip


@pytest.mark.parametrize("words", EDITED)
def test_a_state_dict_edited_by_hand_is_refused_and_nothing_changes(words: str) -> None:
    optimizer, _ = stepped()
    saved, before = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(optimizer.state_dict())
    EDITED[words](saved)
    with pytest.raises(ValueError, match=f"does not fit AdamW; nothing was loaded:\n.*{words}"):
        optimizer.load_state_dict(saved)
    after = optimizer.state_dict()
    assert after["param_groups"] == before["param_groups"]
    assert all(torch.equal(x, before["state"][0][name]) for name, x in after["state"][0].items())


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float16, torch.float8_e4m3fn], ids=str)
def test_states_of_another_number_type_are_computed_with_as_ever(dtype: torch.dtype) -> None:
    optimizer, p = stepped()
    saved = copy.deepcopy(optimizer.state_dict())
    saved["state"][0]["m"] = torch.tensor([1.0, 0.0, 1.0]).to(dtype)
    optimizer.load_state_dict(saved)
    assert torch.equal(optimizer.state[p]["m"], torch.tensor([1.0, 0.0, 1.0]))


def test_settings_without_a_number_or_with_one_too_large() -> None:
    p = torch.ones(3, requires_grad=True)
    with pytest.raises(ValueError, match="Tensor lr is on the meta device, where there are no numbers"):
        AdamW([p], lr=torch.ones((), device="meta"))
    with pytest.raises(ValueError, match="weight_decay = inf is outside its range"):
        AdamW([p], weight_decay=10**400)


def test_inputs_that_are_no_dictionary() -> None:
    p = torch.ones(3, requires_grad=True)
    optimizer: Any = AdamW([p])
    optimizer.inputs = [0.5]
    with pytest.raises(TypeError, match="AdamW: `inputs` is a dictionary by name, not list"):
        optimizer.step()


def test_groups_that_are_none() -> None:
    optimizer = AdamW([torch.ones(3, requires_grad=True)])
    with pytest.raises(ValueError, match="a parameter group needs the entry `params`"):
        optimizer.add_param_group({"lr": 0.1})
    optimizer.add_param_group({"params": torch.ones(2, requires_grad=True), 5: "of a tool"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that they are new
        nested = torch.nested.nested_tensor([torch.ones(3), torch.ones(2)], requires_grad=True)
    with pytest.raises(ValueError, match="parameter 0 is a nested tensor, which has no single shape"):
        optimizer.add_param_group({"params": [nested]})
    assert [len(group["params"]) for group in optimizer.param_groups] == [1, 1] and optimizer.param_groups[1][5] == "of a tool"
