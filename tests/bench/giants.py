"""Processor seconds and memory of every command with texts that are as large as they may be, and larger: `make giants`.

Each is a process of its own, a fork of one that has read all modules. Counted are the seconds that it computes, and what Python
and the modules of `optlang check` take to start.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import re
import resource
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch

import optlang
from optlang import cli, library
from optlang.errors import OptError

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from giant_texts import GROUPS  # noqa: E402 - it lies beside the tests

SECONDS, MEGABYTES = 2.0, 1000.0  # what a text may cost
START = 0.25  # seconds until `optlang check` is there, which a fork does not spend (docs/bench-cpu.json)
PATIENCE = 30  # seconds of the processor, after which a process is ended
ENOUGH = 3 << 30  # bytes that a process can have
WORDS = {0: "result", 1: "findings", 2: "unusable"}
FORMS = ("text", "latex", "markdown", "ir", "plan", "cost", "graph")
COMMANDS: dict[str, list[str]] = {
    "check": ["check", "-"], "lints": ["check", "-", "--pedantic"], "fmt": ["fmt", "-"],
    **{f"show {form}": ["show", "-", "--as", form] for form in FORMS},
    **{f"build {to}": ["build", "-", "--to", to] for to in ("module", "optax", "torch")},
}  # fmt: skip
TASKS = (*COMMANDS, "first step")
OF_FINDINGS = ("fmt", "show text", "build module")  # what is also asked of a text that is wrong


@dataclass(frozen=True)
class Cost:
    """What a process came to. `outcome`: result, findings, unusable, or how it ended."""

    outcome: str
    seconds: float
    megabytes: float

    @property
    def is_within(self) -> bool:
        return self.outcome in WORDS.values() and self.seconds <= SECONDS and self.megabytes <= MEGABYTES


def run(task: str, text: str, rule: str) -> int:
    """The exit code of a task. `rule`: of a text that has several."""
    if task == "first step":
        return first_step(text, rule)
    named = ["--rule", rule] if rule and task not in ("check", "lints", "fmt", "show text") else []
    try:
        return cli.main([*COMMANDS[task], *named])
    except ValueError:  # what cannot be written as a module, say
        return 1


def first_step(text: str, rule: str) -> int:
    """Of a small model, by the reference."""
    ps = [torch.nn.Parameter(torch.ones(shape)) for shape in ((4, 3), (3, 5))]
    try:
        cls: Any = optlang.loads(text, rule=rule or None, backend="reference")
        optimizer = cls([(f"p{i}", p) for i, p in enumerate(ps)])
        for one in (one for case in cls.cases for one in case.program.inputs):
            optimizer.inputs[one.name] = 1.0 if one.type.extent.level == "model" else {p: torch.ones(()) for p in ps}

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = torch.stack([(p**2).sum() for p in ps]).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        closure()
        optimizer.step(closure)
    except (OptError, ValueError):
        return 1
    return 0


def measured(task: str, text: str, rule: str) -> Cost:
    """Runs a task on a text in a fork of this process, which has read all modules."""
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as told:
        given.write(text.encode())
        given.seek(0)
        process = os.fork()
        if not process:
            _be_the_process(task, text, rule, given.fileno(), told.fileno())
        _, status, used = os.wait4(process, 0)
        told.seek(0)
        said = told.read().decode(errors="replace")
    code = os.waitstatus_to_exitcode(status)
    outcome = said.strip().splitlines()[-1][:200] if "Traceback" in said else WORDS.get(code, f"ended with {code}")
    return Cost(outcome, round(used.ru_utime + used.ru_stime + START, 2), round(used.ru_maxrss / 1000, 0))


def _be_the_process(task: str, text: str, rule: str, given: int, told: int) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (PATIENCE, PATIENCE))
    resource.setrlimit(resource.RLIMIT_DATA, (ENOUGH, ENOUGH))
    os.dup2(given, 0)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(told, 2)
    sys.stdin = open(0)  # noqa: SIM115 - until the process ends
    code = 3
    try:
        code = run(task, text, rule)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def costs(text: str, tasks: Sequence[str]) -> Iterator[tuple[str, Cost]]:
    """Of each task; of a text that is wrong only of some."""
    rules = re.findall(r"^(?:rule|route) (\w+)", text, re.MULTILINE)[:1_000_000]
    rule = rules[-1] if len(rules) > 1 else ""
    checked = measured("check", text, rule)
    yield "check", checked
    for task in tasks:
        if task != "check" and (task in OF_FINDINGS or checked.outcome == "result"):
            yield task, measured(task, text, rule)


def warm_up() -> None:
    """Reads all modules."""
    with contextlib.redirect_stdout(io.StringIO()):
        for task in COMMANDS.values():
            cli.main(["adam" if word == "-" else word for word in task] + ["--check"] * (task[0] == "fmt"))
        first_step(library.find("adam").text, "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="of texts or groups; default: all")
    parser.add_argument("--tasks", nargs="*", choices=TASKS, default=TASKS)
    parser.add_argument("--record", type=Path, help="write what every text costs there; texts that are not asked for stay")
    asked = parser.parse_args()
    found: dict[str, Any] = json.loads(asked.record.read_text(encoding="utf-8"))["texts"] if asked.record and asked.record.exists() else {}
    torch.set_num_threads(1)
    warm_up()
    within = True
    for group, texts in GROUPS.items():
        for name, make in texts.items():
            if asked.names and {name, group, f"{group}: {name}"}.isdisjoint(asked.names):
                continue
            row = {}
            for task, cost in costs(make(), asked.tasks):
                row[task] = list(astuple(cost))
                within &= cost.is_within
                print(f"{'   ' if cost.is_within else '!!!'} {group}: {name:<40} {task:<14} {cost.outcome:<9} {cost.seconds:6.2f} s"
                      f" {cost.megabytes:6.0f} MB", flush=True)  # fmt: skip
            found[f"{group}: {name}"] = row
            if asked.record:
                save(asked.record, found)
    return int(not within)


def save(path: Path, found: dict[str, Any]) -> None:
    every = [(cost[1], cost[2], f"{task}, {name}") for name, row in found.items() for task, cost in row.items()]
    about = {
        "date": date.today().isoformat(), "python": platform.python_version(),
        "machine": f"{platform.machine()} CPU, {os.cpu_count()} cores",
        "unit": f"seconds of the processor, {START} of them for the start of Python; megabytes at the peak, those of torch included",
        "aim": {"seconds": SECONDS, "megabytes": MEGABYTES},
        "runs": len(every), "slowest": max(every)[::2], "largest": max((m, name) for _, m, name in every),
        "beyond the aim": sum(s > SECONDS or m > MEGABYTES for s, m, _ in every),
    }  # fmt: skip
    rows = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in found.items())
    head = json.dumps(about, indent=1)[:-2]
    path.write_text(f'{head},\n "texts": {{\n{rows}\n }}\n}}\n', encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
