"""Faults: memory that ends anywhere in a step, interrupts, forks, threads, caches and checkpoints that are cut: see docs/trust.md."""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faults.steps import LARGE, PACKED, Failing, checkpoint_cut, closure_of, kernel_damaged, memory_ends, model, same, snapshot
from torch import Tensor

from optlang.backends.cache import sealed_files
from optlang.backends.cpp import kernels
from optlang.backends.kernels import build
from optlang.backends.torch.functions import Functions

ROOT = Path(__file__).parents[1]

@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
@pytest.mark.parametrize(("name", "backend"), [("adamw", "torch"), ("lamb", "torch"), ("lamb", "cpp"), ("adafactor", "torch")])
def test_memory_ends_anywhere_in_a_step(name: str, backend: str, lasting: bool) -> None:
    """Each parameter is stepped with its states and its count, or all of these are as before; what passes is over is made up for."""
    assert memory_ends(name, backend, lasting) >= 5


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
@pytest.mark.parametrize(("name", "storage"), PACKED)
def test_memory_ends_while_states_are_packed(name: str, storage: dict[str, Any], lasting: bool) -> None:
    assert memory_ends(name, "torch", lasting, stride=27, **{"shapes": LARGE, **storage}) >= 20


def test_memory_ends_once_in_a_step_that_comes_again() -> None:
    (params, optimizer), (others, plain) = model("adamw", "torch"), model("adamw", "torch")
    failed = 0
    for step in range(30):
        for k, (p, q) in enumerate(zip(params, others, strict=True)):
            p.grad, q.grad = torch.full_like(p, step + k), torch.full_like(q, step + k)
        with Failing(step - 2 if step > 3 else 1000, False) as mode:
            optimizer.step()
        failed += mode.failed
        plain.step()
        assert all(map(same, snapshot(params, optimizer), snapshot(others, plain)))
    assert failed > 5


def test_the_first_step_fails() -> None:
    """Then there are no states."""
    params, optimizer = model("adamw", "torch")
    closure_of(params, optimizer)()
    for at in range(1, 6):
        with Failing(at, True), pytest.raises((MemoryError, RuntimeError)):
            optimizer.step()
        assert not any(optimizer.state.get(p) for p in params)


def test_memory_ends_in_a_kernel_of_cpp(monkeypatch: pytest.MonkeyPatch) -> None:
    params, optimizer = model("lamb", "cpp")
    closure_of(params, optimizer)()
    optimizer.step()
    calls = [0]
    empty = np.empty

    class Short:
        def __getattr__(self, name: str) -> Any:
            return getattr(np, name)

        @staticmethod
        def empty(*args: Any) -> Any:
            calls[0] += 1
            if calls[0] == 1:
                raise MemoryError
            return empty(*args)

    monkeypatch.setattr(kernels, "np", Short())
    before = [int(optimizer.state[p]["step"]) for p in params]
    optimizer.step()
    assert [int(optimizer.state[p]["step"]) for p in params] == [n + 1 for n in before]


def test_what_was_left_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """And goes on by itself in the next step."""
    params, optimizer = model("lamb", "torch")
    closure_of(params, optimizer)()
    optimizer.step()
    before, run_all = snapshot(params, optimizer), Functions.run_all

    def short(self: Functions, calls: Any, compiled: bool) -> None:
        run_all(self, calls[:1], compiled)
        raise MemoryError

    monkeypatch.setattr(Functions, "run_all", short)
    with pytest.raises(MemoryError, match=r"2 parameters \(parameter 2 .*, parameter 3 .*\) are as before it, with their states"):
        optimizer.step()
    assert [int(optimizer.state[p]["step"]) for p in params] == [2, 2, 1, 1]
    assert all(map(same, snapshot(params, optimizer)[2:], before[2:]))


# ----------------------------------------------------------------------------------------------------------- signals


MOST = {"torch": 500, "cpp": 2000, "reference": 150}  # steps: about as long


class Interrupting:
    """Raises KeyboardInterrupt a random time after it was armed, wherever the main thread is in `steps` then."""

    def __init__(self, seed: int, signal_: signal.Signals) -> None:
        self.random, self.signal, self.stepping = random.Random(seed), signal_, False
        self.over, self.armed = threading.Event(), False  # no event: one that is interrupted while it is set stays locked
        self.thread, self.before = threading.Thread(target=self.run), signal.getsignal(signal_)

    def run(self) -> None:
        while not self.over.wait(self.random.uniform(0.0005, 0.02)):
            if self.armed:
                self.armed = False
                os.kill(os.getpid(), self.signal)

    def handle(self, *_: object) -> None:
        if self.stepping:
            raise KeyboardInterrupt

    def steps(self, optimizer: torch.optim.Optimizer, count: int) -> bool:
        """Takes up to `count` steps; whether they were cut short."""
        try:
            self.stepping = self.armed = True
            for _ in range(count):
                optimizer.step()
            self.stepping = False
        except KeyboardInterrupt:
            self.stepping = False
            return True
        return False

    def __enter__(self) -> Interrupting:
        signal.signal(self.signal, self.handle)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()
        signal.signal(self.signal, self.before)


def test_an_interrupt_while_torch_leaves_the_step_leaves_gradients_on(monkeypatch: pytest.MonkeyPatch) -> None:
    params, optimizer = model("adamw", "torch")
    closure_of(params, optimizer)()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.no_grad, "__exit__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        optimizer.step()
    assert torch.is_grad_enabled()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # one may fall into what is called by Python's collector
@pytest.mark.parametrize(
    ("name", "backend", "signal_"),
    [("adamw", "torch", signal.SIGINT), ("adamw", "cpp", signal.SIGINT), ("lamb", "reference", signal.SIGINT),
     ("lamb", "torch", signal.SIGTERM)],
)
def test_interrupts_leave_whole_steps(name: str, backend: str, signal_: signal.Signals) -> None:
    """Weights, states and counts are always those of some number of whole steps, whatever handlers raise."""
    others, plain = model(name, backend)
    closure_of(others, plain)()
    gradients, expected = [p.grad.clone() for p in others if p.grad is not None], [snapshot(others, plain)]
    for _ in range(MOST[backend]):
        plain.step()
        expected.append(snapshot(others, plain))
    caught = 0
    with Interrupting(0, signal_) as interrupting:
        while caught < 10:  # from the beginning, until there were as many, however fast the steps and slow the signals are
            params, optimizer = model(name, backend)
            for p, gradient in zip(params, gradients, strict=True):
                p.grad = gradient.clone()
            taken = 0
            while interrupting.steps(optimizer, MOST[backend] - taken):
                caught += 1
                assert torch.is_grad_enabled(), "what is trained next has gradients"
                counts = {int(optimizer.state[p]["step"]) for p in params if "step" in optimizer.state.get(p, {})}
                assert len(counts) <= 1, "all or none"
                taken = max(counts, default=0)
                assert taken == 0 or all(map(same, snapshot(params, optimizer), expected[taken])), taken


# ---------------------------------------------------------------------------------------------- processes and threads

FORK = """
import os, sys, time, torch, optlang
if sys.argv[1] == "reference":
    torch.set_num_threads(1)  # what torch itself does in threads would hang
p = torch.ones(400_000).requires_grad_(); p.grad = torch.ones_like(p)
o = optlang.load("adamw", backend=sys.argv[1])([p])
taken = int(sys.argv[2])
for _ in range(taken):
    o.step()
child = os.fork()
if child == 0:
    o.step(); os._exit(int(o.state[p]["step"]))
for _ in range(4000):
    found, status = os.waitpid(child, os.WNOHANG)
    if found:
        sys.exit(os.waitstatus_to_exitcode(status) != taken + 1)
    time.sleep(0.05)
os.kill(child, 9); sys.exit(9)
"""


@pytest.mark.parametrize(("backend", "taken"), [("cpp", 1), ("cpp", 3), ("reference", 2)])
def test_a_fork_after_some_steps(backend: str, taken: int) -> None:
    """OpenMP's threads are not there in the child."""
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", FORK, backend, str(taken)], env=environment, timeout=600, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("backend", ["torch", "cpp", "reference"])
def test_threads_that_step_two_optimizers(backend: str) -> None:
    def run(seed: int, found: dict[int, list[Tensor]]) -> None:
        params, optimizer = model("lamb", backend)
        for step in range(20):
            for p in params:
                p.grad = torch.full_like(p, 0.1 * seed + step)
            optimizer.step()
        found[seed] = [p.detach() for p in params]

    together: dict[int, list[Tensor]] = {}
    threads = [threading.Thread(target=run, args=(seed, together)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(4):
        alone: dict[int, list[Tensor]] = {}
        run(seed, alone)
        assert all(map(torch.equal, alone[seed], together[seed]))


# -------------------------------------------------------------------------------------------------------------- cache


def test_a_library_cut_anywhere_or_changed_anywhere_is_made_again(tmp_path: Path) -> None:
    kernel_damaged(tmp_path, 60)


EIGHT = """
import sys
from pathlib import Path
from optlang.backends.cache import sealed_files
from optlang.backends.kernels import build
sealed_files.cache_file = lambda name: Path(sys.argv[1]) / name
for number in range(3):
    made = build.library(f'extern "C" int answer() {{ return {number}; }}\\nextern "C" void step() {{}}\\n')
    assert made.answer() == number
"""


def test_a_cache_shared_by_8_processes(tmp_path: Path) -> None:
    started = [subprocess.Popen([sys.executable, "-c", EIGHT, str(tmp_path)]) for _ in range(8)]
    assert [one.wait(600) for one in started] == [0] * 8
    assert len(list(tmp_path.iterdir())) == 3, "nothing half-made is left"


def test_threads_that_store_at_once_do_not_share_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one has renamed and loaded, another would cut. The same goes for processes of one number in different containers."""
    both, written, plain = threading.Barrier(2), [], Path.write_bytes

    def write(self: Path, data: bytes) -> int:
        written.append(self)
        both.wait(600)
        return plain(self, data)

    monkeypatch.setattr(Path, "write_bytes", write)
    threads = [threading.Thread(target=sealed_files.store, args=(made, tmp_path / "kernel.so")) for made in (b"one", b"other")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(written)) == 2
    assert sealed_files.content(tmp_path / "kernel.so") in (b"one", b"other")
    assert len(list(tmp_path.iterdir())) == 1


def test_a_compiler_that_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "compiler"
    compiler.write_text("#!/bin/sh\n[ $1 = --version ] && exit 0\nkill -9 $$\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setattr(sealed_files, "cache_file", lambda name: tmp_path / name)
    with pytest.raises(build.NoCompiler, match="failed: exit code -9"):
        build.library("void step();")


def test_a_library_that_is_cut_anywhere_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would end the process."""
    monkeypatch.setattr(sealed_files, "cache_file", lambda name: tmp_path / name)
    build.library('extern "C" void step() {}')
    [place] = tmp_path.glob("kernel-*")
    whole = sealed_files.content(place)
    assert whole is not None and build._whole(whole, "c++") == whole
    for kept in range(4, len(whole)):
        with pytest.raises(build.NoCompiler, match="the end of its library is missing"):
            build._whole(whole[:kept], "c++")
        if kept < build.ELF.size or any(whole[-64:][: kept - len(whole)]):
            continue  # of the head, which the loader looks at, or of the last row something is left
        with pytest.raises(build.NoCompiler, match="the end of its library is missing"):
            build._whole(whole[:kept].ljust(len(whole), b"\0"), "c++")


HANGS = "#!/bin/sh\necho $$ > {folder}/running\nsleep 300 &\necho $! >> {folder}/running\nsleep 300\n"
WAITS = """
import signal, sys
import torch, optlang
signal.signal(signal.SIGINT, signal.default_int_handler)
p = torch.ones(3, requires_grad=True)
p.grad = torch.ones(3)
optimizer = optlang.load("adamw")([p])
try:
    optimizer.step()
except KeyboardInterrupt:
    assert p.tolist() == [1, 1, 1] and not optimizer.state
    sys.exit(7)
"""


def hanging(folder: Path) -> str:
    (folder / "g++").write_text(HANGS.format(folder=folder))
    (folder / "g++").chmod(0o755)
    return str(folder / "g++")


def nothing_runs(folder: Path) -> bool:
    """Of the compiler and of what it has started."""
    found = (folder / "running").read_text().split()
    for _ in range(300):  # who was killed may still be going
        states = subprocess.run(["ps", "-o", "stat=", "-p", ",".join(found)], capture_output=True, text=True).stdout.split()
        if all(state.startswith("Z") for state in states):
            return len(found) == 2
        time.sleep(0.1)
    return False


def test_a_compiler_that_hangs_is_ended_with_what_it_has_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "SECONDS", 5)  # of the clock: a busy machine takes some of them to start it
    with pytest.raises(build.NoCompiler, match="took more than 5 s"):
        build._compiled(hanging(tmp_path), [build.FLAGS], "void step();")
    assert nothing_runs(tmp_path)


def test_ctrl_c_ends_a_compiler_that_hangs_and_nothing_has_moved(tmp_path: Path) -> None:
    places = {"CXX": hanging(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    running = subprocess.Popen([sys.executable, "-c", WAITS], env=os.environ | places)
    while not ((tmp_path / "running").exists() and (tmp_path / "running").read_text().count("\n") == 2):
        assert running.poll() is None
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    assert running.wait(600) == 7
    assert nothing_runs(tmp_path)


def test_a_compiler_that_does_not_take_what_makes_gcc_quicker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked again without that: some are called g++ and are none."""
    real = shutil.which(os.environ.get("CXX", "c++"))
    compiler = tmp_path / "g++"
    compiler.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\ncase "$*" in *-fira*) exit 1;; esac\nexec {real} "$@"\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setattr(sealed_files, "cache_file", lambda name: tmp_path / name)
    for lines, more in ((0, ()), (build.LONG, build.OF_LONG)):
        assert build.library('extern "C" int step() { return 7; }\n' + "\n" * lines).step
        first, second = (tmp_path / "asked").read_text().splitlines()[-2:]
        assert set(first.split()) - set(second.split()) == {*build.OF_GCC, *more, *build.LIBRARIES}


def test_a_compiler_without_openmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps on one thread, says so each time the kernel is loaded, and compiles it once."""
    compiler = tmp_path / "clang++"
    steps = 'extern "C" void step() {}\nextern "C" int run() {\n  int all = 0;\n  #pragma omp parallel\n  ++all;\n  return all;\n}\n'
    compiler.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n'
        'case " $* " in *" -fopenmp "*) echo "ld: cannot find -lomp" >&2; echo "error: linker command failed" >&2; exit 1;; esac\n'
        f'exec {shutil.which("c++")} "$@"\n'
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setattr(sealed_files, "cache_file", lambda name: tmp_path / name)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    for _ in range(2):
        with pytest.warns(RuntimeWarning, match=r"one thread: .*clang\+\+ has no OpenMP here.*and delete "):
            assert build.library(steps).run() == 1
    assert build.library(steps.replace("omp parallel", "omp simd\n  for (int k = 0; k < 1; ++k)")).run() == 1  # not worth a warning
    assert ["-fopenmp" in line.split() for line in (tmp_path / "asked").read_text().splitlines()] == [True, False, True, False]
    with pytest.raises(build.NoCompiler, match="cannot find -lomp"):
        build._compiled(str(compiler), [build.FLAGS], steps)


def test_no_room_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the folder for temporary files serves; where that is full, too, there is no compiler."""
    monkeypatch.setattr(sealed_files, "cache_file", lambda name: Path("/dev/full") / name)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    assert build.library('extern "C" void step() {}\n// elsewhere').step() is None

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(build.NoCompiler, match="cannot be stored or loaded"):
        build.library('extern "C" void step() {}\n// nowhere')
    assert not list(tmp_path.rglob("*.tmp"))


def test_no_folder_for_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was compiled before is there; else torch's operators step, and it is said what lacks."""
    monkeypatch.setattr(sealed_files, "cache_file", lambda name: tmp_path / name)
    kept = 'extern "C" void step() {}\n// kept'
    build.library(kept)
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("tempfile._get_default_tempdir", nowhere)
    assert sealed_files.places("name") == [tmp_path / "name"]
    assert build.library(kept).step() is None
    with pytest.raises(build.NoCompiler, match=r"temporary files \(TMPDIR\).*nowhere"):
        build.library('extern "C" void step() {}\n// new')


def nowhere() -> str:
    raise FileNotFoundError(2, "nowhere")


# -------------------------------------------------------------------------------------------------------- checkpoints


def test_a_checkpoint_cut_anywhere_changes_nothing() -> None:
    assert checkpoint_cut(150) >= 150


def _cut(saved: dict[str, Any], place: int) -> bool:
    """Takes away one of the things that a state dict holds; False where there is none at this place."""
    things: list[tuple[Any, Any]] = [(saved, key) for key in list(saved)]
    things += [(group, key) for group in saved["param_groups"] for key in list(group)]
    things += [(saved["state"], key) for key in list(saved["state"])]
    things += [(state, key) for state in saved["state"].values() for key in list(state)]
    things += [(saved["param_groups"], 0)]
    if place >= len(things):
        return False
    owner, key = things[place]
    del owner[key]
    return True


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_a_state_dict_that_lacks_anything_is_refused_or_whole(name: str) -> None:
    """Nothing is loaded in part: what is refused leaves all as it was, and what is taken can be stepped."""
    params, optimizer = model(name, "torch")
    closure_of(params, optimizer)()
    optimizer.step()
    kept, place, refused = copy.deepcopy(optimizer.state_dict()), 0, 0
    while True:
        saved = copy.deepcopy(kept)
        if not _cut(saved, place):
            break
        place += 1
        before = snapshot(params, optimizer)
        try:
            optimizer.load_state_dict(saved)
        except (ValueError, KeyError, RuntimeError):
            refused += 1
            assert all(map(same, before, snapshot(params, optimizer)))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            optimizer.step()
        optimizer.load_state_dict(copy.deepcopy(kept))
    assert place > 20 and refused > 5


# -------------------------------------------------------------------------------------------------------------- kills


@pytest.mark.parametrize("kind", ["searches", "races"])
def test_killed_at_random_moments_nothing_finished_is_lost(kind: str, tmp_path: Path) -> None:
    """`make faults` does this a hundred times. Its children are forks: of a process of its own, as forks of busy threads may hang."""
    record = tmp_path / "faults.json"
    command = [sys.executable, "-m", "tests.faults", kind, "--runs", "2", "--seed", "7", "--record", str(record)]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    counts = json.loads(record.read_text(encoding="utf-8"))["counts"]
    assert counts[kind] == counts[f"{kind} killed"] == 2


# ------------------------------------------------------------------------------------------------------------- memory

WRITTEN = """
import ctypes, sys
system = ctypes.CDLL(None)
system.malloc.restype, system.malloc.argtypes, system.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
memory = system.malloc(40)
if sys.argv[1] in ("40", "-1"):
    ctypes.memset(memory + int(sys.argv[1]), 1, 1)
system.free(memory)
if sys.argv[1] == "8":
    ctypes.memset(memory + 8, 1, 1)
elif sys.argv[1] == "free":
    system.free(memory)
"""


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("cc") is None, reason="there is nothing to compile it with")
def test_red_zones_notice_what_is_written_out_of_place(tmp_path: Path) -> None:
    """`make red-zones` runs tests with them."""
    library = tmp_path / "redzones.so"
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", ROOT / "tests/faults/redzones.c", "-o", library], check=True)
    found = {}
    for way in ("0", "40", "-1", "8", "free"):
        around = {**os.environ, "LD_PRELOAD": str(library), "PYTHONMALLOC": "malloc"}
        done = subprocess.run([sys.executable, "-S", "-c", WRITTEN, way], env=around, capture_output=True, text=True)
        found[way] = done.returncode, done.stderr.partition(": block")[0].rpartition(": ")[2]
    assert found == {
        "0": (0, ""), "40": (-6, "written behind its end"), "-1": (-6, "written before its beginning"),
        "8": (-6, "written after it was freed"), "free": (-6, "freed twice"),
    }  # fmt: skip


READ = """
import ctypes, sys
from optlang.backends.kernels import build
text = 'extern "C" void step(float* x, long n) { x[0] = x[n] + (float)(1 << (n + 28)); }'
step, system = build.library(text).step, ctypes.CDLL(None)
system.malloc.restype, system.malloc.argtypes, system.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
memory = ctypes.c_void_p(system.malloc(4 * int(sys.argv[1])))
if sys.argv[2] == "freed":
    system.free(memory)
step(memory, ctypes.c_long(int(sys.argv[3])))
"""


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("g++") is None, reason="only GCC's libraries are looked for")
def test_the_compiler_of_sanitize_notices_what_is_read_out_of_place(tmp_path: Path) -> None:
    """`make sanitize` steps all rules by what it makes."""
    asked = [["g++", f"-print-file-name=lib{name}.so"] for name in ("asan", "stdc++")]
    files = [subprocess.run(words, capture_output=True, text=True).stdout.strip() for words in asked]
    if not all(map(os.path.isabs, files)):
        pytest.skip("GCC is here without its sanitizers")
    around = {**os.environ, "LD_PRELOAD": " ".join(files), "ASAN_OPTIONS": "detect_leaks=0", "XDG_CACHE_HOME": str(tmp_path),
              "CXX": str(ROOT / "tests/faults/g++-sanitized")}  # fmt: skip
    found = {}
    for way in ("4 there 2", "2 there 2", "4 freed 0", "5 there 4"):
        done = subprocess.run([sys.executable, "-c", READ, *way.split()], env=around, cwd=ROOT, capture_output=True, text=True)
        said = [word for word in ("heap-buffer-overflow", "heap-use-after-free", "shift exponent") if word in done.stderr]
        found[way] = bool(done.returncode), said
    assert found == {
        "4 there 2": (False, []), "2 there 2": (True, ["heap-buffer-overflow"]), "4 freed 0": (True, ["heap-use-after-free"]),
        "5 there 4": (True, ["shift exponent"]),
    }  # fmt: skip
