"""The public functions: load, loads, check, build, equivalent, Rule."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import optlang
from optlang.resources import folder

TWO = "rule One { hyper lr = 0.1 in (0, inf) w' = w - lr*g } rule Two { hyper lr = 0.1 in (0, inf) w' = w - 2*lr*g }"
MOMENTUM = "rule M { hyper lr = 0.1 in (0, inf) state m = 0 m' = 0.9*m + g w' = w - lr*m' }"


def stepped(cls: type[torch.optim.Optimizer]) -> list[float]:
    p = torch.nn.Parameter(torch.ones(2))
    p.grad = torch.tensor([1.0, 2.0])
    cls([p]).step()
    return p.tolist()


def test_load_by_library_name_path_and_rule(tmp_path: Path) -> None:
    assert optlang.load("lion", backend="reference").__name__ == "Lion"
    (tmp_path / "pair.opt").write_text(TWO)
    assert stepped(optlang.load(tmp_path / "pair.opt", "Two", backend="reference")) == pytest.approx([0.8, 0.6])
    with pytest.raises(optlang.OptError, match="choose one by name: One, Two"):
        optlang.load(tmp_path / "pair.opt")
    (tmp_path / "one.opt").write_text(TWO)
    assert optlang.load(tmp_path / "one.opt", backend="reference").__name__ == "One"  # named like the file


def test_a_changed_file_is_loaded_anew(tmp_path: Path) -> None:
    path = tmp_path / "rule.opt"
    path.write_text("rule R { w' = w - g }")
    assert stepped(optlang.load(path, backend="reference")) == [0.0, -1.0]
    path.write_text("rule R { w' = w + g }")
    assert stepped(optlang.load(path, backend="reference")) == [2.0, 3.0]


def test_loads_takes_text_and_the_same_text_is_the_same_class() -> None:
    assert optlang.loads(TWO, rule="One", backend="reference") is optlang.loads(TWO, rule="One", backend="reference")
    assert issubclass(optlang.loads(MOMENTUM), torch.optim.Optimizer)


def test_wrong_text_raises_every_finding() -> None:
    with pytest.raises(optlang.OptError) as caught:
        optlang.loads("rule R { a = b  w' = w - lr*g }")
    assert [d.code for d in caught.value.diagnostics] == ["N02", "N02"]
    assert isinstance(pickle.loads(pickle.dumps(caught.value)), optlang.OptError)


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ValueError, match="refrence"):
        optlang.load("lion", backend="refrence")
    with pytest.raises(ValueError, match="fastest"):
        optlang.load("lion", math="fastest")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="choose 'module', 'optax' or 'torch'"):
        optlang.build("lion", to="cobol")


def test_unknown_names_are_refused_with_advice() -> None:
    with pytest.raises(optlang.OptError, match="did you mean `lion`"):
        optlang.load("lyon")
    with pytest.raises(optlang.OptError, match="directory"):
        optlang.load(Path(__file__).parent)


def test_check_gives_findings_after_a_syntax_error_but_not_what_follows_from_it() -> None:
    found = optlang.check("rule R {\n  state m = 0\n  m' = beta m + ? g\n  w' = w - lr*g\n}")
    assert [d.code for d in found if d.code.startswith("N")] == ["N02"]
    assert any(d.code.startswith("S") for d in found)


def test_a_text_may_begin_with_a_byte_order_mark_as_a_file_may(tmp_path: Path) -> None:
    text = f"\ufeff{MOMENTUM}"
    assert optlang.check(text) == []
    assert stepped(optlang.loads(text)) == stepped(optlang.loads(MOMENTUM))
    assert optlang.Rule(text).program == optlang.Rule(MOMENTUM).program
    [wrong] = optlang.check(f"\ufeff{MOMENTUM} ?")
    assert wrong.span.start == len(MOMENTUM) + 1
    (tmp_path / "marked.opt").write_text(text, encoding="utf-8")
    assert optlang.Rule(tmp_path / "marked.opt").program == optlang.Rule(MOMENTUM).program


def test_check_is_pedantic_when_asked() -> None:
    text = "rule R { hyper lr = 1 in (0, inf) hyper unused = 1 w' = w - lr*g }"
    assert optlang.check(text) == []
    assert [d.severity for d in optlang.check(text, pedantic=True)] == ["lint"]


def test_a_rule_has_its_forms() -> None:
    rule = optlang.Rule("adamw")
    assert rule.name == "AdamW" and "1711.05101" in rule.doc
    assert r"\sqrt" in rule.latex()
    assert "AdamW" in rule.markdown() and rule._repr_markdown_() == rule.markdown()
    assert "class AdamW" in rule.module() == optlang.build("adamw")
    assert rule.optimizer("reference").__name__ == "AdamW"


def test_equivalent_takes_names_texts_and_rules() -> None:
    assert optlang.equivalent("sgd", optlang.Rule("sgd"))
    verdict = optlang.equivalent(MOMENTUM, MOMENTUM.replace("0.9*m + g", "m*0.9 + g"))
    assert verdict.status == "same"
    assert optlang.equivalent(MOMENTUM, MOMENTUM.replace("0.9", "0.8")).status == "different"
    with pytest.raises(ValueError, match="route"):
        optlang.equivalent("muonwithadamw", "adamw")


def test_importing_optlang_is_light() -> None:
    script = "import sys, optlang; optlang.check('x'); assert not {'torch', 'sympy', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_public_names_exist() -> None:
    assert all(getattr(optlang, name) is not None for name in optlang.__all__)
    assert set(optlang.__all__) <= set(dir(optlang))
    with pytest.raises(AttributeError, match="nosuch"):
        optlang.nosuch  # type: ignore[attr-defined]  # noqa: B018


def test_a_broken_installation_is_said() -> None:
    with pytest.raises(FileNotFoundError, match="'nothing' is missing"):
        folder("nothing")
