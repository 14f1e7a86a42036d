"""The public functions: load, loads, check, build, equivalent, Rule."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
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
    path = tmp_path / "whole.opt"
    path.write_text("rule R { w' = w - g }")
    assert stepped(optlang.load(path, backend="reference")) == [0.0, -1.0]
    path.write_text("rule R { w' = w + g }")
    assert stepped(optlang.load(path, backend="reference")) == [2.0, 3.0]


PARTS = "def part(x, n) { repeat n { state y = x  y' = 0.5*y } return y }\n"
OF_PARTS = "from parts import part\nrule R { hyper lr = 1 in (0, inf) hyper int n = 1 in [1, 9] w' = w - lr*part(g, n) }\n"


@pytest.fixture
def in_parts(tmp_path: Path) -> Path:
    (tmp_path / "parts.opt").write_text(PARTS)
    (tmp_path / "whole.opt").write_text(OF_PARTS)
    return tmp_path


def test_a_changed_import_is_loaded_anew(in_parts: Path) -> None:
    (in_parts / "over.opt").write_text("from whole import R\nrule Over { w' = R() }\n")
    for name in ("whole", "over"):
        assert stepped(optlang.load(in_parts / f"{name}.opt", backend="reference")) == [0.5, 0.0]
    (in_parts / "parts.opt").write_text(PARTS.replace("0.5", "0.25"))
    for name in ("whole", "over"):
        assert stepped(optlang.load(in_parts / f"{name}.opt", backend="reference")) == [0.75, 0.5]
        assert "0.25" in str(optlang.build(in_parts / f"{name}.opt"))


@pytest.mark.parametrize("becomes", [None, PARTS.replace("0.5", "100"), "rubbish {"])
def test_a_rule_stays_what_it_was_when_its_files_change(becomes: str | None, in_parts: Path) -> None:
    """Also where a setting that shapes the program changes later, so that the texts are read again, and in a copy."""
    p = torch.nn.Parameter(torch.ones(2))
    p.grad = torch.ones(2)
    made = optlang.load(in_parts / "whole.opt", backend="reference")
    rule = optlang.Rule(in_parts / "whole.opt")
    (in_parts / "whole.opt").unlink()
    (in_parts / "parts.opt").unlink() if becomes is None else (in_parts / "parts.opt").write_text(becomes)
    for cls in (made, pickle.loads(pickle.dumps(made)), rule.optimizer("reference")):
        optimizer = cls([p], n=2)
        optimizer.step()
        optimizer.param_groups[0]["n"] = 3
        optimizer.step()
    assert p.tolist() == [1 - 3*(0.25 + 0.125)]*2


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


@pytest.mark.parametrize("name", ["lion", "my.opt", "/home/me/my.opt", "./my.opt", "~/my.opt"])
def test_a_name_where_a_text_is_wanted(name: str) -> None:
    [found] = optlang.check(name)
    assert found.message == f"`{name}` is not the text of a rule" and "takes library names and paths" in found.help


ADVICE = {
    "adam.opt": "called `adam`, without an ending", "xyz.opt": "a path counts from the folder", "a\0b.opt": "null",
    "https://example.com/lion.opt": "save it as a file", "~/no/such.opt": "give the whole path", "": "`optlang list`",
    "myrule": "did you mean `myrule.opt`", "myrul.opt": "did you mean `myrule.opt`", MOMENTUM: "`optlang.loads` takes texts",
    "myrule.opt:Momentum": '`rule="Momentum"` in Python',
}  # fmt: skip


@pytest.mark.parametrize("name", ADVICE)
def test_a_name_that_is_none_gets_advice(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "myrule.opt").write_text(MOMENTUM)
    with pytest.raises(optlang.OptError) as caught:
        optlang.load(name)
    [found] = caught.value.diagnostics
    assert found.code in ("U01", "U02") and ADVICE[name] in f"{found.message} {found.help}"


@pytest.mark.parametrize("wrong", [None, 3, b"adam", ["adam"], object, torch.optim.Adam])
def test_what_is_no_name_path_or_text_is_refused(wrong: object) -> None:
    called: tuple[Callable[[], object], ...] = (
        lambda: optlang.load(wrong), lambda: optlang.loads(wrong), lambda: optlang.check(wrong), lambda: optlang.Rule(wrong),
        lambda: optlang.build(wrong), lambda: optlang.equivalent("adam", wrong), lambda: optlang.diff(wrong, "adam"),
    )  # type: ignore[arg-type]  # fmt: skip
    for call in called:
        with pytest.raises(TypeError, match="is wanted, not"):
            call()


def test_a_name_or_path_is_no_text() -> None:
    for name in ("lion", "lion.opt"):
        assert "`optlang.load` takes" in optlang.check(name)[0].help
    with pytest.raises(TypeError, match="`optlang.load` takes names and paths"):
        optlang.loads(Path("lion.opt"))  # type: ignore[arg-type]


def test_options_of_a_wrong_kind_are_refused() -> None:
    for error, words, call in (
        (TypeError, "name of a rule, not int", lambda: optlang.load("lion", 3)),
        (ValueError, "no backend None", lambda: optlang.load("lion", backend=None)),
        (TypeError, "not list", lambda: optlang.load("lion", state=["bf16"])),
        (TypeError, "not int", lambda: optlang.build("muon", baked=3)),
        (ValueError, "'lr' that shapes it; those that may are: nesterov, match_rms, steps", lambda: optlang.build("muon", baked={"lr": 1})),
        (TypeError, "whole number, not 2.5", lambda: optlang.build("muon", baked={"steps": 2.5})),
        (TypeError, "truth value, not 1", lambda: optlang.build("muon", baked={"nesterov": 1})),
        (ValueError, r"-1 is outside its range \[1, 99\]", lambda: optlang.build("muonwithadamw", baked={"Muon.steps": -1})),
    ):  # fmt: skip
        with pytest.raises(error, match=words):
            call()  # type: ignore[no-untyped-call]


def test_a_rule_may_be_built_that_is_there_already() -> None:
    assert optlang.build(optlang.Rule("lion")) == optlang.build("lion")


@pytest.mark.parametrize("text", ["rule A { w' = w - g } # \ud800", "# a\rrule A { w' = w - g }"])
def test_characters_that_hide_what_is_there_are_refused(text: str) -> None:
    with pytest.raises(optlang.OptError, match="S02"):
        optlang.loads(text)


def test_lines_of_windows_are_lines() -> None:
    for end in ("\r\n", "\r\r\n"):
        assert not optlang.check(f"# a{end}rule A {{ # b{end}w' = w - g{end}}}{end}")


def test_a_text_is_not_larger_than_a_file() -> None:
    [found] = optlang.check("#" * 1_000_001)
    assert found.code == "L02"


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
