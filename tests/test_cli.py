"""The command line: what it prints, what it writes, its exit codes, and how little it imports."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from full_disk import full_disk

import optlang
from optlang import library
from optlang.cli import main
from optlang.commands import COMMANDS, show
from optlang.errors import MOST_FINDINGS

GOOD = "rule Good { hyper lr = 0.1 in (0, inf) w' = w - lr*g }\n"
BAD = "rule Bad {\n  w' = w - lrr*g\n  m' = 3\n}\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.opt").write_text(GOOD)
    (tmp_path / "bad.opt").write_text(BAD)
    return tmp_path


def stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_a_file_alone_is_checked(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["good.opt"]) == 0
    assert capsys.readouterr().out == "1 file checked, nothing wrong\n"


@pytest.mark.parametrize("words", ["build sam --to optax", *(f"show long.opt --as {form}" for form in show.FORMS),
                                   "build long.opt --to torch", "build long.opt --to module"])  # fmt: skip
def test_what_cannot_be_written_is_told_in_a_line(words: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "long.opt").write_text(f"rule Long {{ w' = w - 0.1*({' + '.join(f'g*{i + 2}' for i in range(1500))}) }}")
    assert main(words.split()) == 1
    told = capsys.readouterr().err
    assert told.startswith("optlang: ") and told.count("\n") == 1
    assert ("asks for gradients" if "sam" in words else "more than anybody reads") in told


@pytest.mark.parametrize("words", ["--json lion", "lion --json", "--pedantic --json lion", "--json ./lion.opt"])
def test_options_of_a_check_may_come_first(words: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "lion.opt").write_text(library.find("lion").text, encoding="utf-8")
    assert main(words.split()) == 0 and capsys.readouterr().out == "[]\n"
    assert main(["--json", "nothing"]) == 2 and "`nothing` is neither a command nor a file" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="0"):
        main(["--help", "lion"])


@pytest.mark.parametrize(("words", "told"), [("--json check lion", "[]\n"), ("--check fmt lion", "1 file in canonical style\n")])
def test_options_of_a_command_may_come_first(words: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == 0 and capsys.readouterr().out == told


@pytest.mark.parametrize("words", [["good.opt:Good"], ["check", "good.opt:Good"], ["show", "good.opt:Good", "--as", "ir"]])
def test_a_rule_of_a_file_is_named_apart(words: list[str], here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert "name the rule apart: `rule=\"Good\"` in Python, `--rule Good` of `show` and `build`" in "".join(capsys.readouterr())


def test_all_findings_of_all_files(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "good.opt", "bad.opt"]) == 1
    out = capsys.readouterr().out
    assert "bad.opt:2:12" in out and "bad.opt:3:3" in out and "2 files: 2 findings" in out


def test_passes_over_the_model_are_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "asks.opt").write_text("rule Asks { w' = w - grad(w + g) - hvp(g)*hvp(w)*loss_at(w - g) }")
    assert main(["check", "asks.opt"]) == 0
    assert "Asks asks the model for 1 more gradient and 2 Hessian-vector products and 1 more loss in a step" in capsys.readouterr().out
    (here / "reads.opt").write_text("rule Reads { w' = w - loss*g }")
    assert main(["check", "reads.opt"]) == 0
    assert "Reads asks the model for its loss in a step; `step` needs a closure" in capsys.readouterr().out


def test_json_for_an_editor(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--json", "bad.opt"]) == 1
    findings = json.loads(capsys.readouterr().out)
    assert [(f["code"], f["line"], f["column"]) for f in findings] == [("N02", 2, 12), ("N06", 3, 3)]


def test_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    stdin(monkeypatch, BAD.encode())
    assert main(["-"]) == 1
    assert "<stdin>:2:12" in capsys.readouterr().out


def test_a_folder_is_all_its_files(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "."]) == 1
    assert "2 files: 2 findings" in capsys.readouterr().out


UNUSABLE = {"missing.opt": None, "folder.opt": "folder", "binary.opt": bytes(range(256)), "large.opt": b"#" * 10_000_000}


@pytest.mark.parametrize("name", UNUSABLE)
@pytest.mark.parametrize("command", ["check", "fmt", "show", "build"])
def test_what_cannot_be_read_is_said(
    here: Path, capsys: pytest.CaptureFixture[str], name: str, command: str
) -> None:
    content = UNUSABLE[name]
    if content == "folder":
        (here / name).mkdir()
    elif isinstance(content, bytes):
        (here / name).write_bytes(content)
    more = ["--to", "module"] if command == "build" else []
    if content == "folder" and command in ("check", "fmt"):
        assert main([command, name]) in (0, 2)  # a folder of rule files, with none in it
        return
    assert main([command, name, *more]) == 2
    text = "".join(capsys.readouterr())
    assert "error[" in text and name in text


@pytest.mark.parametrize("name", ["a" * 5000, "a" * 5000 + ".opt", "a\0b.opt", "\udcff.opt"])
def test_what_no_file_can_be_called(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert main(["check", name]) == 2
    assert "error[U0" in capsys.readouterr().out


def test_a_pipe_is_read_and_not_waited_for_without_an_end(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo("pipe.opt")
    monkeypatch.setattr(library, "PATIENCE", 0.05)
    assert main(["pipe.opt"]) == 2
    assert "nothing comes out of it" in capsys.readouterr().out
    monkeypatch.setattr(library, "PATIENCE", 60)
    writer = threading.Thread(target=Path("pipe.opt").write_text, args=(GOOD,))
    writer.start()
    assert main(["pipe.opt"]) == 0
    writer.join()


def test_a_device_or_a_pipe_beside_a_file_is_no_module(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "zero.opt").symlink_to("/dev/zero")
    os.mkfifo("pipe.opt")
    for name in ("zero", "pipe"):
        (here / "imports.opt").write_text(f"from {name} import x\n{GOOD}")
        assert main(["imports.opt"]) == 1
        assert "N08" in capsys.readouterr().out
    assert main(["zero.opt"]) == 2
    assert "L02" in capsys.readouterr().out


def test_reading_stops_after_many_findings(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "many.opt").write_text("rule A {\n" + "\n".join(f"y{i} = u{i}" for i in range(200)) + "\nw' = w - g\n}")
    assert main(["many.opt"]) == 1
    out = capsys.readouterr().out
    assert out.count("error[N02]") == MOST_FINDINGS and "stopped after 50 findings" in out


def test_an_empty_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "empty.opt").write_text("")
    assert main(["empty.opt"]) == 1
    assert "R11" in capsys.readouterr().out


def test_a_file_without_its_ending(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["good"]) == 2
    assert "did you mean `good.opt`?" in capsys.readouterr().err


def test_a_typo_in_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chekc"]) == 2
    assert "did you mean `check`?" in capsys.readouterr().err


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "optlang new MyRule" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    assert len(capsys.readouterr().out.splitlines()) > 5


def test_a_new_rule_is_right_and_is_never_overwritten(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "MyRule"]) == 0
    assert main(["check", "--pedantic", "myrule.opt"]) == 0
    text = (here / "myrule.opt").read_text()
    assert main(["new", "MyRule"]) == 2
    assert (here / "myrule.opt").read_text() == text
    assert "left alone" in capsys.readouterr().err
    assert main(["new", "my rule"]) == 2


def test_where_the_disk_is_full_no_half_of_a_file_is_left(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "lion.py").write_text("what was there before")
    with full_disk():
        assert main(["new", "MyRule"]) == main(["build", "lion", "--to", "module", "-o", "lion.py"]) == main(["fmt", "good.opt"]) == 2
    told = capsys.readouterr()
    assert told.out == "" and [told.err.count(words) for words in ("cannot be written", "File too large")] == [3, 3]
    left = {path.name: path.read_text() for path in here.iterdir()}
    assert left == {"good.opt": GOOD, "bad.opt": BAD, "lion.py": "what was there before"}
    assert main(["new", "MyRule"]) == 0


def test_a_new_rule_is_in_canonical_style(here: Path) -> None:
    assert main(["new", "MyRule"]) == 0
    assert main(["fmt", "--check", "myrule.opt"]) == 0


def test_the_library_is_listed_and_searched(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rules = [line for line in lines if line.startswith("  ")]
    assert [line.split()[0] for line in rules] == library.names()
    assert [line.split(": ")[0] for line in lines if line not in rules] == list(library.families())
    assert len({re.match(r"  \S+ +", line).end() for line in rules}) == 1  # type: ignore[union-attr]  # columns
    assert main(["list", "1412.6980", "adam"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["adam:", "adam", "adamax"]
    assert main(["list", "nosuchrule"]) == 1
    assert "no rule fits" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "one"), [
    ("low memory", "adafactor"), ("large batches", "lamb"), ("Sharpness-aware", "sam"), ("without learning rate", "prodigy"),
    ("second-order", "sophiah"), ("inference", "mezo"),
])  # fmt: skip
def test_rules_are_found_by_what_they_are_for(words: str, one: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", *words.split(), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert one in [rule["name"] for rule in found] and len(found) < 30
    assert all(word.lower() in f"{rule['purpose']} {rule['name']}".lower() for rule in found for word in words.split())
    [said] = [rule for rule in found if rule["name"] == one]
    assert said["source"] == optlang.Rule(one).doc and set(said) == {"family", "purpose", "name", "settings", "source"}


def test_a_list_for_programs_is_one_also_where_it_is_empty(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "nosuchrule", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == []


def test_formatting_in_place_keeps_what_cannot_be_read(here: Path) -> None:
    (here / "broken.opt").write_text("rule X { w' = = }")
    assert main(["fmt", "good.opt", "broken.opt"]) == 1
    assert (here / "broken.opt").read_text() == "rule X { w' = = }"
    assert (here / "good.opt").read_text() != GOOD
    assert main(["fmt", "--check", "good.opt"]) == 0


def test_what_could_not_be_formatted_is_not_counted_as_right(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "broken.opt").write_text("rule X { w' = = }")
    assert main(["fmt", "--check", "adam", "broken.opt"]) == 1
    assert "1 of 2 files in canonical style" in capsys.readouterr().out


def test_a_folder_without_rules_is_no_success(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "empty").mkdir()
    for words in (["check", "empty"], ["check", "empty", "--json"], ["fmt", "empty"], ["fmt", "--check", "empty"]):
        assert main(words) == 2
        told = capsys.readouterr()
        assert told.err == "no .opt files below empty\n" and told.out == ("[]\n" if "--json" in words else "")


def test_format_check_and_diff_change_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fmt", "--check", "good.opt"]) == 1
    assert main(["fmt", "--diff", "good.opt"]) == 1
    assert (here / "good.opt").read_text() == GOOD
    assert "+rule Good {" in capsys.readouterr().out
    (here / "good.opt").write_text("rule Good { w' = w - g }")
    assert main(["fmt", "--diff", "good.opt"]) == 1
    assert "-rule Good { w' = w - g }\n\\ No newline at end of file\n+rule Good {\n" in capsys.readouterr().out


def test_formatting_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    stdin(monkeypatch, GOOD.encode())
    assert main(["fmt", "-"]) == 0
    assert capsys.readouterr().out.startswith("rule Good {\n")


def test_links_stay_links_and_files_keep_their_mode(here: Path) -> None:
    (here / "link.opt").symlink_to("good.opt")
    (here / "good.opt").chmod(0o640)
    assert main(["fmt", "link.opt"]) == 0
    assert (here / "link.opt").is_symlink() and (here / "good.opt").read_text() != GOOD
    assert (here / "good.opt").stat().st_mode & 0o777 == 0o640


def test_devices_and_pipes_are_written_into(here: Path) -> None:
    assert main(["build", "lion", "--to", "torch", "-o", "/dev/null"]) == 0
    assert Path("/dev/null").is_char_device()
    assert sorted(path.name for path in here.iterdir()) == ["bad.opt", "good.opt"]


@pytest.mark.parametrize("arguments", [["list"], ["explain"], ["show", "lion"], ["check", "lion"]])
def test_a_full_disk_is_told_in_a_line(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-m", "optlang", *arguments], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (2, "optlang: what was to be printed cannot be written: No space left on device\n")


def test_codes_are_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "s07 "]) == 0
    text = capsys.readouterr().out
    assert text.startswith("S07: an operator is missing\n") and "    rule Example {" in text
    assert main(["explain"]) == 0
    assert len(capsys.readouterr().out.splitlines()) > 40
    for code, said in (("hello", "no code `hello`"), ("SO1", "did you mean `S")):
        assert main(["explain", code]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("form", ["text", *show.FORMS])
@pytest.mark.parametrize("name", ["lion", "muonwithadamw", "adafactor", "sophiah"])
def test_every_form_of_a_rule(name: str, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", name, "--as", form]) == 0
    assert len(capsys.readouterr().out) > 100


def test_showing_one_of_several_rules(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "two.opt").write_text(GOOD + GOOD.replace("Good", "Other"))
    assert main(["show", "two.opt", "--as", "ir"]) == 1
    assert "choose one by name: Good, Other" in capsys.readouterr().err
    assert main(["show", "two.opt", "--as", "ir", "--rule", "Other"]) == 0
    capsys.readouterr()
    assert main(["show", "two.opt", "--rule", "Other"]) == 0
    assert capsys.readouterr().out.startswith("rule Other {")
    assert main(["show", "two.opt", "--rule", "Third"]) == 1
    (here / "two.opt").write_text(f"{GOOD}rule Other {{ w' = w -\n}}\n")
    assert main(["show", "two.opt", "--rule", "Other"]) == 1
    assert "two.opt:2:21" in capsys.readouterr().err


def test_a_rule_file_is_not_overwritten_by_python(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "good.opt", "--to", "module", "-o", "good.opt"]) == 2
    assert (here / "good.opt").read_text() == GOOD and "-o NAME.py" in capsys.readouterr().err


@pytest.mark.parametrize("target", ["module", "torch"])
def test_building_to_a_file(here: Path, capsys: pytest.CaptureFixture[str], target: str) -> None:
    assert main(["build", "lion", "--to", target, "-o", "out.py"]) == 0
    compile((here / "out.py").read_text(), "out.py", "exec")
    assert "wrote out.py" in capsys.readouterr().out
    assert main(["build", "lion", "--to", target, "-o", "no/such/folder.py"]) == 2
    capsys.readouterr()
    assert main(["build", "lion", "--to", target, "-o", "-"]) == 0
    compile(capsys.readouterr().out, "out.py", "exec")
    assert not (here / "-").exists()


@pytest.mark.parametrize("arguments", [["check", "adam"], ["fmt", "--check", "adam"], ["show", "adam", "--as", "text"]])
def test_checking_imports_neither_torch_nor_sympy_nor_numpy(arguments: list[str]) -> None:
    script = (
        "import sys; from optlang.cli import main; code = main(sys.argv[1:]); "
        "heavy = {'torch', 'sympy', 'numpy', 'rich', 'tqdm', 'matplotlib'} & set(sys.modules); assert not heavy, heavy; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_python_dash_m() -> None:
    done = subprocess.run([sys.executable, "-m", "optlang", "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("optlang 0.")


@pytest.mark.parametrize(
    ("settings", "shown"),
    [({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "β_1 = 0.9"), ({"PYTHONIOENCODING": "latin-1"}, "\\u03b2_1 = 0.9")],
)
def test_no_letter_ends_a_command(here: Path, settings: dict[str, str], shown: str) -> None:
    """Where the system has no UTF-8, what goes into a pipe or file is in it all the same, unless Python was told otherwise."""
    (here / "greek.opt").write_text("rule R { hyper β_1 = 0.9 w' = w - β_1*g*x }", encoding="utf-8")
    command = [sys.executable, "-m", "optlang"]
    env = {**{name: value for name, value in os.environ.items() if name != "PYTHONIOENCODING"}, **settings}
    checked = subprocess.run([*command, "greek.opt"], env=env, capture_output=True)
    assert checked.returncode == 1 and shown in checked.stdout.decode() and not checked.stderr
    planned = subprocess.run([*command, "show", "adamw", "--as", "plan"], env=env, capture_output=True)
    assert planned.returncode == 0 and not planned.stderr


INTERRUPTED = """import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # which tests in the background do not have
class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == "optlang.commands":
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Interrupts())
from optlang.__main__ import main
sys.exit(main())"""


def test_an_interrupt_while_modules_are_imported_is_one_line() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "stopped\n")


WITHOUT = """import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("rich", "matplotlib", "sklearn", "scipy", "optuna", "torch"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
from optlang import resources
resources.find_spec = lambda name: None
from optlang.cli import main
sys.exit(main(sys.argv[1:]))"""


@pytest.mark.parametrize("command", ["race", "bench", "search"])
def test_commands_say_which_packages_they_lack(command: str) -> None:
    """An installation without extras prints their help, and what to install before anything has run for minutes."""
    for words, code, told in (("--help", 0, "usage: optlang"), ("lion", 2, "this needs rich: pip install 'optlang-rules[")):
        ran = subprocess.run([sys.executable, "-c", WITHOUT, command, words], capture_output=True, text=True, check=False)
        assert ran.returncode == code and told in ran.stdout + ran.stderr, ran.stderr
