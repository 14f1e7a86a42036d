"""What torch's compiler makes of rules for a GPU that need not be here: `python tests/inductor_kernels.py 90 RULE…`.

The functions that a step calls are traced on the CPU; their graphs are moved to a GPU of that architecture, of which torch and
Triton are told, and lowered. Prints a line of JSON for each function: its kernels, operators left to torch, registers, bytes spilled.
`--record FILE` writes them into a file as well, and of rules that are there as they are now it asks no more (`make inductor`).
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import triton
from compiled_kernels import assembled
from records import marked, recorded, save, stale
from stepping import two_steps
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.device_interface import CudaInterface
from torch._inductor import scheduler
from torch._inductor.debug import DebugContext
from torch._inductor.decomposition import select_decomp_table
from torch._inductor.graph import GraphLowering
from torch._inductor.virtualized import V
from torch.fx.experimental._config import patch as shape_settings
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.driver import driver

import optlang
from optlang.backends.torch.code import CellCode
from optlang.backends.torch.loading import load
from optlang.backends.triton.kernels import load as load_text

GPU = torch.device("cuda:0")
BLOCKS = {"XBLOCK": 64, "YBLOCK": 16, "R0_BLOCK": 64, "R1_BLOCK": 16}
KERNEL = re.compile(r"async_compile\.triton\('\w+', '''(.*?)''', device_str='cuda'\)", re.DOTALL)
HEAD = """
import triton
import triton.language as tl
from torch._inductor.runtime import triton_helpers
from torch._inductor.runtime.triton_helpers import libdevice, math as tl_math
"""


@contextmanager
def said_to_be_there(architecture: int) -> Iterator[None]:
    """What torch's compiler and Triton ask of a GPU: that of an H100, or of an older one."""
    major, minor = divmod(architecture, 10)
    about = SimpleNamespace(
        name="GPU", major=major, minor=minor, multi_processor_count=132, total_memory=1 << 36, max_threads_per_multi_processor=2048,
        max_threads_per_block=1024, regs_per_multiprocessor=65536, warp_size=32, shared_memory_per_block_optin=166912,
    )  # fmt: skip
    of_torch = {"_lazy_init": lambda: None, "get_device_properties": lambda *given: about, "current_device": lambda: 0,
                "is_available": lambda: True}  # fmt: skip
    of_dynamo = {"get_device_properties": staticmethod(lambda *given: about), "is_available": staticmethod(lambda: True),
                 "get_compute_capability": staticmethod(lambda *given: architecture)}  # fmt: skip
    driver.set_active(SimpleNamespace(get_current_target=lambda: GPUTarget("cuda", architecture, 32), get_current_device=lambda: 0))
    with ExitStack() as around:
        around.enter_context(mock.patch.multiple(torch.cuda, **of_torch))
        around.enter_context(mock.patch.multiple(CudaInterface, **of_dynamo))
        around.enter_context(mock.patch.multiple(CudaInterface.Worker, get_device_properties=of_dynamo["get_device_properties"]))
        around.enter_context(mock.patch.object(scheduler, "has_triton", lambda *given: True))
        yield


def graph_of(code: CellCode, given: Sequence[Any]) -> torch.fx.GraphModule:
    """What torch's compiler lowers for a function, with its tensors on the GPU."""
    found: list[torch.fx.GraphModule] = []

    def kept(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        found.append(graph)
        return graph.forward

    traced = aot_autograd(fw_compiler=kept, keep_inference_input_mutations=True, decompositions=select_decomp_table())
    with shape_settings(use_duck_shape=False), torch.no_grad():  # type: ignore[attr-defined]
        torch.compile(load(code), backend=traced, dynamic=True, fullgraph=True)(*given)
    for node in found[0].graph.nodes:
        if "device" in node.kwargs:
            node.kwargs = {**node.kwargs, "device": GPU}
        if isinstance(value := node.meta.get("val"), Tensor):
            with value.fake_mode:  # type: ignore[attr-defined]
                node.meta["val"] = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=GPU)
    return found[0]


def lowered(graph: torch.fx.GraphModule) -> str:
    """The program that torch's compiler writes for a graph."""
    inputs = [node.meta["val"] for node in graph.graph.nodes if node.op == "placeholder"]
    mode = next(x.fake_mode for x in inputs if isinstance(x, Tensor))  # type: ignore[attr-defined]
    lowering = GraphLowering(graph, example_inputs=inputs, shape_env=mode.shape_env)
    with V.set_graph_handler(lowering), V.set_fake_mode(mode), V.set_debug_handler(DebugContext()):
        lowering.run(*inputs)
        return str(lowering.codegen()[0].value)


def machine_code(text: str, architecture: int) -> dict[str, int]:
    """What the compilers say about a kernel that torch's compiler has written."""
    types, fixed = (ast.literal_eval(re.findall(rf"'{name}': (\{{.*?\}})", text)[0]) for name in ("signature", "constants"))
    body = text[text.index("@triton.jit") :]
    [name] = re.findall(r"^def (\w+)\(", body, re.MULTILINE)
    constants = {name: fixed[name] if name in fixed else BLOCKS[name] for name, kind in types.items() if kind == "constexpr"}
    target = GPUTarget("cuda", architecture, 32)
    made = triton.compile(ASTSource(load_text(HEAD + body)[name], types, constants, {}), target=target, options={"num_warps": 4})
    return assembled(made.asm["ptx"], architecture)


def asked(name: str) -> list[tuple[CellCode, list[Any]]]:
    """The functions of two steps of a rule that would be compiled, with what they are given."""
    found: list[tuple[CellCode, list[Any]]] = []

    def first_call(code: CellCode, tensors: Sequence[Tensor], *numbers: Any) -> Any:
        found.append((code, [x.clone() if isinstance(x, Tensor) else x for x in (*tensors, *numbers)]))
        function = load(code)
        return function, function(*tensors, *numbers)

    with (
        mock.patch("optlang.backends.torch.compiling.first_call", first_call),
        mock.patch("optlang.backends.torch.BACKEND.compile_from", 0),
    ):
        cls: Any = optlang.load(name, backend="torch")
        two_steps(cls, [(90, 110), (9000,)])
    return found


def about(code: CellCode, given: Sequence[Any], architecture: int) -> dict[str, int]:
    """What becomes of one function: its kernels, what they leave to torch, and the most that one of them needs."""
    torch._dynamo.reset()
    graph = graph_of(code, given)
    with said_to_be_there(architecture):
        text = lowered(graph)
    codes = [machine_code(kernel, architecture) for kernel in KERNEL.findall(text)]
    most = {key: max((one[key] for one in codes), default=0) for key in ("registers", "spilled")}
    return {"kernels": len(codes), "left to torch": text.count("extern_kernels."), **most}


def lines(name: str, architecture: int) -> Iterator[dict[str, Any]]:
    """What is printed of a rule: one line where none of its functions is compiled."""
    calls = asked(name)
    for code, given in calls:
        yield {"rule": name, "function": code.name, **about(code, given, architecture)}
    if not calls:
        yield {"rule": name, "function": None}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("architecture", type=int)
    parser.add_argument("rules", nargs="*")
    parser.add_argument("--record", type=Path)
    given = parser.parse_args()
    found, failed = recorded(given.record), 0
    for name in given.rules or stale(found):
        entry: dict[str, Any] = {**marked(name), "functions": []}
        try:
            for line in lines(name, given.architecture):
                print(json.dumps(line), flush=True)
                entry["functions"] += [{key: value for key, value in line.items() if key != "rule"}] if line["function"] else []
        except Exception as problem:  # of any stage: the others are still of interest
            traceback.print_exc()
            print(json.dumps({"rule": name, "failed": f"{type(problem).__name__}: {str(problem)[:300]}"}), flush=True)
            failed += 1
            continue
        if given.record is not None:
            found[name] = entry
            save(given.record, found)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
