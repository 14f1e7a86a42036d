"""From the program that Lion's search found to Lion, without a hand: `python examples/search/raw_lion/run.py [folder]`.

Writes the trace (`trace.md`, `trace.json`) and the rule (`lion_found.opt`) into the folder, by default this one, and says
whether the rule is the library's Lion. Takes a few minutes, nearly all of it training for the ablation.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from optlang.rules import Rule, equivalent
from optlang.search.distil.distillation import Distilled, distil
from optlang.search.distil.trained import Trained
from optlang.search.programs.genome import Form, from_text, to_program

HERE = Path(__file__).parent
FORM = Form(slots=("m", "v"), temporaries=("a", "b", "d", "q", "u"), scaled=False)


def distilled() -> Distilled:
    genome = from_text((HERE / "raw_lion.txt").read_text(encoding="utf-8"))
    trainer = Trained.tuned(to_program(genome, FORM, "RawLion"), ("digits-mlp", "photo-autoencoder"))
    doc, lr = "Chen et al. 2023, arXiv:2302.06675, as found", trainer.rates["digits-mlp"]
    return distil(genome, FORM, name="LionFound", doc=doc, trainer=trainer, lr=lr, tell=lambda text: print(text, file=sys.stderr))


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    found = distilled()
    print(found.trace.to_text())
    print(found.opt())
    verdict = equivalent(Rule(found.opt()), Rule("lion"))
    print(f"against the library's Lion, {verdict.to_text()}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "trace.md").write_text(found.trace.to_markdown(), encoding="utf-8")
    (folder / "trace.json").write_text(json.dumps(found.trace.to_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "lion_found.opt").write_text(found.opt(), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
