# `make demo` and `make test` do everything on a machine with Python >= 3.10.
PYTHON ?= python3
BIN := .venv/bin
TOGETHER := -n auto --maxprocesses 8 --dist loadfile  # a process for each core; a file stays in one, with what its tests share

.PHONY: demo test test-slow test-deep coverage test-floor test-integrations docs lint gallery evidence bench gpu compile-check clean

demo: .venv/ready  ## train on real images, plain and mixed, with right and with wrong labels (two minutes)
	$(BIN)/mixcollate demo

test: lint  ## lint, types and tests
	@echo "== tests"
	$(BIN)/python -m pytest -q $(TOGETHER)

test-slow: .venv/ready  ## what takes longer for a reason of its own: compilers, processes, the benchmarks and the demo whole
	@echo "== slow tests"
	$(BIN)/python -m pytest -q $(TOGETHER) -m slow

test-deep: .venv/ready  ## what takes minutes: long runs, many cases, mutants; each by name, and why it is here
	@echo "== deep tests"
	$(BIN)/python -m pytest -v -rs $(TOGETHER) -m deep

coverage: .venv/ready  ## lines and branches that the tests reach; what is left out of the count says why in pyproject.toml
	@echo "== coverage"
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q $(TOGETHER)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --skip-covered --fail-under 97

lint: .venv/ready
	@echo "== lint and types"
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

test-floor: .venv-floor/ready  ## the tests again, on the oldest versions that are promised
	@echo "== tests on the floor"
	.venv-floor/bin/python -m pytest -q $(TOGETHER)

test-integrations: .venv/integrations  ## the examples, the wheel, and the docs' clients with the real frameworks
	@echo "== integrations"
	$(BIN)/python -m pytest -q tests/integrations -W default --durations 10

docs: .venv/docs  ## the pages of docs/, into site/
	@echo "== docs"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

gallery: .venv/ready  ## the pictures of the README and of the methods' pages
	$(BIN)/mixcollate preview --method all --seed 927 --out images/methods.jpg
	$(BIN)/mixcollate preview --method mixup --seed 927 --out images/mixup.jpg
	for page in docs/methods/*.md; do name=$$(basename $$page .md); \
		test $$name = index || $(BIN)/mixcollate preview --method $$name --seed 927 --out docs/images/$$name.jpg || exit; done

evidence: .venv/ready  ## its tables and pictures, from the committed rows
	$(BIN)/python -m evidence.report

bench: .venv/ready
	$(BIN)/mixcollate bench

OUT ?= .benchmarks/gpu
gpu:  ## correctness and benchmarks on this machine's GPU, with the packages that are there; no network. ONLY=peers OUT=folder
	PYTHONPATH=. $(PYTHON) -m benchmarks.gpu --out $(OUT) $(foreach step,$(ONLY),--only $(step))

compile-check: .venv/ready  ## every kernel that the tests launch, compiled for ten architectures, none of which need be here
	$(BIN)/python -W ignore -m tests.compile_check $(ARCH)

.venv/ready: pyproject.toml
	@echo "== .venv: mixcollate and what its demo, tests and lint need (PyTorch is large: this can take minutes)"
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 10) and 'Python 3.10 or newer is needed: make PYTHON=...')"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	@touch $@

.venv/integrations: .venv/ready
	@echo "== .venv: the frameworks that mixcollate is tested in"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[integrations]"
	@touch $@

.venv/docs: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[docs]"
	@touch $@

.venv-floor/ready: pyproject.toml
	@echo "== .venv-floor: the same with the oldest PyTorch and NumPy that are promised"
	$(PYTHON) -m venv .venv-floor
	.venv-floor/bin/python -m pip install --quiet --disable-pip-version-check -e ".[test]" \
		"torch==2.6.*" "torchvision==0.21.*" "numpy==2.0.*"
	@touch $@

clean:
	rm -rf .venv .venv-floor .benchmarks .mypy_cache .pytest_cache .ruff_cache demo dist site
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
