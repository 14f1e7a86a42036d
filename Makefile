# Two commands do all of their own set-up: `make race` and `make test`. Python 3.11 to 3.13 is all they need.
# PIP_ARGS reaches pip, for example PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu" for a small torch.
PYTHON ?= python3
VENV   ?= .venv
PY      = $(VENV)/bin/python
PIP     = $(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt $(PIP_ARGS)
RULES  ?= adamw lion examples/my.opt
TASK   ?= digits
MINUTES ?= 10
ADDRESSES ?= $(patsubst %,tests/test_%.py,watch runtime_repeated runtime_repeated_asking cpp_repeat cpp_lines formats home_sharded)

.PHONY: records counts race test properties torch-suite lint format bench optax resume sharded authors gpu-check played-gpu inductor clean conformance loops machine-code digits gallery fuzz faults red-zones sanitize giants accuracy coverage mutants
race: $(VENV)/.ready            ## Train one model with several rules, side by side: table, curves, JSON in race-results/
	$(VENV)/bin/optlang race $(RULES) --task $(TASK)

test: $(VENV)/.ready-for-tests  ## All tests
	$(PY) -m pytest -n 2 -q

properties: $(VENV)/.ready-for-tests ## The tests of properties on examples that no run has seen
	OPTLANG_ANEW=1 $(PY) -m pytest -n 2 -q -m hypothesis

torch-suite: $(VENV)/.ready-for-tests ## torch's own tests of optimizers with every rule and every module, what is missing in docs/torch-suite*.json
	$(PY) tests/torch_suite/run.py
	$(PY) tests/torch_suite/run.py --modules

lint: $(VENV)/.ready-for-tests  ## Style, types and the direction of imports
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/optlang fmt --check library examples
	$(VENV)/bin/optlang check library examples

bench: $(VENV)/.ready-for-tests ## The figures of docs/costs.md, measured on this machine
	$(PY) tests/bench/run.py
	$(VENV)/bin/optlang bench adamw lion lamb --model gpt2 small

optax: $(VENV)/.ready-for-tests ## Every rule as an optax transformation beside the reference, minutes
	OPTLANG_EVERYTHING=1 $(PY) -m pytest -q tests/test_optax.py

resume: $(VENV)/.ready-for-tests ## Runs that are cut and gone on with: every rule in every precision, counts into docs/resume.json
	$(PY) tests/resumption.py docs/resume.json

gpu-check: $(VENV)/.ready-for-tests ## What only an NVIDIA GPU can tell: right numbers, CUDA graphs, speed; JSON in tests/bench/results
	$(PY) tests/gpu/check.py

played-gpu: $(VENV)/.ready-for-tests ## Every rule and module with tensors that only say they are on a GPU: devices, number types, waiting; 3 minutes
	OPTLANG_EVERYTHING=1 $(PY) -m pytest -q tests/test_on_a_gpu.py

inductor: $(VENV)/.ready-for-tests ## What torch's compiler writes of every rule for sm_90, without a GPU: machine code, and its numbers in Triton's interpreter, what is missing in docs/inductor*.json, an hour
	PYTHONPATH=tests TRITON_INTERPRET=0 $(PY) tests/inductor_kernels.py 90 --record docs/inductor.json
	OMP_NUM_THREADS=1 PYTHONPATH=tests TRITON_INTERPRET=1 $(PY) tests/inductor_numbers.py docs/inductor-numbers.json

sharded: $(VENV)/.ready-for-tests ## Every rule on 2 and 4 processes beside one, what was found into docs/sharded.json
	PYTHONPATH=tests $(PY) tests/sharded_rules.py docs/sharded.json

conformance: $(VENV)/.ready-for-tests ## Every rule on every backend in every number type, what is missing in docs/conformance.json
	$(PY) tests/bench/conform.py

loops: $(VENV)/.ready-for-tests  ## Closed loops of 200 steps of every rule, kernels beside the reference, what is missing in docs/loops.json; an hour
	OMP_NUM_THREADS=1 TRITON_INTERPRET=1 PYTHONPATH=tests $(PY) tests/loops.py

machine-code: $(VENV)/.ready-for-tests ## Triton kernels of every rule for sm_80 and sm_90, without a GPU, what is missing in docs/triton.json; an hour
	TRITON_INTERPRET=0 PYTHONPATH=tests $(PY) tests/triton_kernels.py docs/triton.json

digits: $(VENV)/.ready-for-tests ## Every rule trains the digits, what is missing in docs/digits.json
	$(PY) tests/bench/train_library.py

gallery: $(VENV)/.ready-for-tests ## library/README.md from the rules, seconds
	$(PY) tests/test_gallery.py

records: $(VENV)/.ready-for-tests ## Whatever the records in docs do not have of the rules OF as they are now, and what pages say of it: minutes for each rule
	OMP_NUM_THREADS=1 $(PY) tests/bench/train_library.py $(OF)
	OMP_NUM_THREADS=1 $(PY) tests/bench/conform.py $(OF)
	OMP_NUM_THREADS=1 PYTHONPATH=tests $(PY) tests/accuracy.py docs/accuracy.json
	OMP_NUM_THREADS=1 TRITON_INTERPRET=1 PYTHONPATH=tests $(PY) tests/loops.py $(OF)
	TRITON_INTERPRET=0 PYTHONPATH=tests $(PY) tests/triton_kernels.py docs/triton.json $(OF)
	PYTHONPATH=tests TRITON_INTERPRET=0 $(PY) tests/inductor_kernels.py 90 $(OF) --record docs/inductor.json
	OMP_NUM_THREADS=1 PYTHONPATH=tests TRITON_INTERPRET=1 $(PY) tests/inductor_numbers.py docs/inductor-numbers.json $(OF)
	$(MAKE) resume sharded torch-suite gallery counts

counts: $(VENV)/.ready-for-tests ## What pages count of the library and its records
	PYTHONPATH=tests $(PY) tests/counts.py

fuzz: $(VENV)/.ready-for-tests  ## Random programs and hostile texts for MINUTES, on from where docs/fuzz.json stopped
	$(PY) -m tests.fuzz --minutes $(MINUTES) --record docs/fuzz.json

# The tests of the front end and compiler, and how long those of one function that differ in parameters may take together, in seconds
COMPILER = $(filter-out $(wildcard tests/test_search* tests/test_home* tests/test_race.py tests/test_bench.py tests/test_digits.py \
  tests/test_wheel.py tests/test_torch_suite.py tests/test_gpu_check.py),$(wildcard tests/test_*.py)) tests/test_home_release.py
MOST    ?= 6
coverage: $(VENV)/.ready-for-tests ## Lines and branches of the front end and compiler that their tests reach
	@mkdir -p build
	MOST=$(MOST) TIMES=build/times.json PYTHONPATH=tests COVERAGE_FILE=build/coverage \
	  $(VENV)/bin/coverage run -m pytest -q -p mutation.contexts $(COMPILER)
	COVERAGE_FILE=build/coverage $(VENV)/bin/coverage report --skip-covered

mutants: coverage               ## Mutants of the compiler, an hour: which tests notice, counts and survivors in docs/mutants.json
	rm -rf build/mutants && mkdir build/mutants && git archive HEAD | tar -x -C build/mutants
	XDG_CACHE_HOME=$(CURDIR)/build OMP_NUM_THREADS=1 $(PY) -m tests.mutation build/mutants --coverage build/coverage --times build/times.json \
	  --results build/mutants.jsonl --record docs/mutants.json

faults: $(VENV)/.ready-for-tests ## Faults of every kind, searches and races killed 100 times: counts in docs/faults.json
	$(PY) -m tests.faults --record docs/faults.json

red-zones: $(VENV)/.ready-for-tests ## Tests of what keeps addresses, in memory that notices what is written where it should not be
	cc -O2 -shared -fPIC tests/faults/redzones.c -o $(VENV)/redzones.so
	LD_PRELOAD=$(abspath $(VENV))/redzones.so PYTHONMALLOC=malloc $(PY) -m pytest -q --timeout 3000 $(ADDRESSES)

SANITIZED = LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libstdc++.so)" ASAN_OPTIONS=detect_leaks=0 \
  UBSAN_OPTIONS=print_stacktrace=1 PYTHONMALLOC=malloc CXX=$(CURDIR)/tests/faults/g++-sanitized
sanitize: $(VENV)/.ready-for-tests ## Steps of every rule, and tests of what keeps addresses, by C++ that looks at each address before it uses it
	$(SANITIZED) $(PY) tests/sanitized.py
	$(SANITIZED) $(PY) -m pytest -q --timeout 3000 -p no:faulthandler $(ADDRESSES)

giants: $(VENV)/.ready-for-tests ## Processor seconds and memory of every command with texts as large as they may be, into docs/giants.json
	$(PY) tests/bench/giants.py --record docs/giants.json

accuracy: $(VENV)/.ready-for-tests ## Errors of the float32 step of every rule in ulp, what is missing in docs/accuracy.json
	$(PY) tests/accuracy.py docs/accuracy.json

clean:
	rm -rf $(VENV) dist build race-results

# torch goes first and alone: whatever may choose a torch of its own would fetch gigabytes.
$(VENV)/.ready: pyproject.toml constraints.txt
	@echo "Setting up $(VENV) (once; torch is large)"
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) -e ".[race]"
	@touch $@

$(VENV)/.ready-for-tests: $(VENV)/.ready tests/references.txt
	$(PIP) -e ".[ray,test]"
	$(PIP) --no-deps -r tests/references.txt
	@touch $@

authors: $(VENV)/.ready-for-tests ## Rules beside their authors' own code: FOLDER holds clones, OWNER+NAME each
	$(PY) tests/authors/compare.py $(FOLDER)
