"""Proposes rules to a search that another process runs: `python examples/search/proposer.py run.db [HOW_MANY]`.

In another shell, `optlang search adamw --only-proposals --store run.db` waits for what this one writes; any other search takes it, too.
Looks at what has been found, writes variants of the best rules as texts, and hears how fit they are. `variant` is where a
language model would be asked, with the rules, their fitness and what became of earlier proposals, all of which `told` holds; this one
needs none: it rounds a number as people do, or takes the sign of the update. Nothing here is special to Python:
`optlang search pick run.db --json` and `optlang search propose run.db FILE.opt --json` do the same from a shell.
"""

import json
import random
import re
import subprocess
import sys

import optlang

NICE = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999, 0.01, 0.1)
NUMBER = re.compile(r"(?<=[ (*])\d+\.\d+(?=[ )*])")


def rules(store: str) -> list[dict]:
    """What nothing beats in fitness and size, the fittest first: name, fitness, text and more."""
    told = subprocess.run([sys.executable, "-m", "optlang", "search", "pick", store, "--json"], check=True, capture_output=True, text=True)
    return json.loads(told.stdout)


def variant(text: str, told: list, source: random.Random) -> tuple[str, str]:
    """Another rule, and what was done. `told`: the answers so far, each with outcome, fitness, loss by task, reason and rule."""
    update = re.search(r"w' = w - lr\*(.+)", text)
    if update and "sign" not in update[0] and source.random() < 0.3:
        return text.replace(update[0], f"w' = w - lr*sign({update[1]})"), "the sign of the update"
    numbers = [found for found in NUMBER.finditer(text) if not text[: found.start()].rstrip().endswith("lr   =")]
    if not numbers:
        return text, "nothing"
    found, number = source.choice(numbers), source.choice(NICE)
    return f"{text[: found.start()]}{number}{text[found.end() :]}", f"{found[0]} as {number}"


def main(store: str, how_many: str = "10") -> None:
    """One proposal after another."""
    source, told = random.Random(0), []
    for _ in range(int(how_many)):
        known = rules(store)
        one = known[min(int(source.expovariate(1.0)), len(known) - 1)]
        text, change = variant(one["text"], told, source)
        text = re.sub(r'^rule \w+ "[^"]*"', f'rule Variant "{one["rule"]} with {change}, by proposer.py"', text)
        told.append(optlang.search.propose(store, text))
        best = told[-1].best
        print(f"{one['rule']} ({one['fitness']:.4f}) with {change} -> {told[-1]}; best is {best['fitness']:.4f}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
