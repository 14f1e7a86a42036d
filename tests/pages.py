"""The README and the pages of `docs` that say more of the same, for the tests that hold them to what is there."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("README.md", "docs/costs.md", "docs/limits.md", "docs/torch.md", "docs/architecture.md")
PAGES = {name: (ROOT / name).read_text(encoding="utf-8") for name in NAMES}
README, COSTS, LIMITS, TORCH, ARCHITECTURE = PAGES.values()
