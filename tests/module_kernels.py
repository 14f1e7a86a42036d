"""Kernels of generated modules without a GPU: in Triton's interpreter, on tensors of the CPU; and compiled for one: with names of rules,
`TRITON_INTERPRET=0 python tests/module_kernels.py adamw lion` prints a line of JSON for each.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import optlang

ON_A_GPU, THERE = 'first.device.type == "cuda"', "with torch.cuda.device(tensors[0].device):"


def imported(text: str, folder: Path, anywhere: bool = True) -> ModuleType:
    """A module as Python imports it; `anywhere`: its kernels step what lies on the CPU, too, with functions of the device as NumPy has
    them. Triton reads functions from their files."""
    assert ON_A_GPU in text and THERE in text
    path = folder / f"module_{len(list(folder.iterdir()))}.py"
    path.write_text(text.replace(ON_A_GPU, "True").replace(THERE, "if True:") if anywhere else text)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if anywhere and hasattr(module, "libdevice"):
        from optlang.backends.triton.interpreted import Libdevice

        module.libdevice = Libdevice()
    return module


def count_kernels(module: ModuleType) -> list[bool]:
    """For each parameter that is stepped from now on, whether a kernel does it."""
    asked, found = module._for_kernel, []  # type: ignore[var-annotated]

    def noted(*args: Any) -> Any:
        tensors = asked(*args)
        found.append(bool(tensors))
        return tensors

    module._for_kernel = noted  # type: ignore[attr-defined]
    return found


def main() -> None:
    """What NVIDIA's assembler says about the kernels of some rules, for float32 and for parameters in bfloat16."""
    import triton
    from compiled_kernels import counted  # it wants no interpreter
    from triton import knobs
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    for name in sys.argv[1:]:
        module = imported(optlang.build(name, triton=True), Path(tempfile.mkdtemp()), anywhere=False)
        [kernel] = [value for key, value in vars(module).items() if key.endswith("_kernel") and hasattr(value, "arg_names")]
        for kind in ("fp32", "bf16"):
            types = {word: _type(word, kind) for word in kernel.arg_names}
            aligned = {(place,): [["tt.divisibility", 16]] for place, word in enumerate(types) if word.endswith("_ptr") or word == "size"}
            told = _told(triton, knobs, ASTSource(kernel, types, {"BLOCK": 1024, "maximize": False}, aligned), GPUTarget("cuda", 90, 32))
            print(json.dumps({"rule": name, "type": kind} | counted(*told)), flush=True)


def _type(word: str, kind: str) -> str:
    """The type of an argument as Triton calls it."""
    if word.endswith("_ptr"):
        return f"*{kind if word in ('w_ptr', 'g_ptr') else 'fp32'}"
    return {"size": "i64", "BLOCK": "constexpr", "maximize": "constexpr"}.get(word, "fp32")


def _told(triton: Any, knobs: Any, source: Any, target: Any) -> tuple[str, str]:
    from contextlib import redirect_stdout
    from io import StringIO

    with knobs.nvidia.scope(), knobs.compilation.scope(), redirect_stdout(StringIO()) as told:
        knobs.nvidia.dump_ptxas_log = knobs.compilation.always_compile = True
        made = triton.compile(source, target=target)
    return told.getvalue(), made.asm["ptx"]


if __name__ == "__main__":
    main()
