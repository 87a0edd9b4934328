# `make demo` and `make test` need only Python >= 3.10; they set up everything else.
PYTHON ?= python3
BIN := .venv/bin
TOGETHER := -n auto --maxprocesses 8 --dist loadfile  # a process for each core, up to 8; the tests of a file share one

.PHONY: demo test test-slow test-deep coverage test-floor test-integrations docs lint gallery evidence bench gpu compile-check clean

demo: .venv/ready  ## train on real images, plain and mixed, with right and wrong labels (two minutes)
	$(BIN)/mixcollate demo

test: lint  ## lint, types and tests
	@echo "== tests"
	$(BIN)/python -m pytest -q $(TOGETHER)

test-slow: .venv/ready  ## tests that take longer: compilers, processes, the benchmarks and the demo
	@echo "== slow tests"
	$(BIN)/python -m pytest -q $(TOGETHER) -m slow

test-deep: .venv/ready  ## tests that take minutes: long runs, many cases, mutation testing
	@echo "== deep tests"
	$(BIN)/python -m pytest -v -rs $(TOGETHER) -m deep

coverage: .venv/ready  ## lines and branches that the tests reach; pyproject.toml says what is not counted, and why
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

test-floor: .venv-floor/ready  ## the tests with the oldest supported versions
	@echo "== tests on the floor"
	.venv-floor/bin/python -m pytest -q $(TOGETHER)

test-integrations: .venv/integrations  ## the examples, the wheel and the documented clients, with the real frameworks
	@echo "== integrations"
	$(BIN)/python -m pytest -q tests/integrations -W default --durations 10

docs: .venv/docs  ## build the pages of docs/ into site/
	@echo "== docs"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

gallery: .venv/ready  ## draw the pictures of the README and of the methods' pages
	$(BIN)/mixcollate preview --method all --seed 927 --out images/methods.jpg
	$(BIN)/mixcollate preview --method mixup --seed 927 --out images/mixup.jpg
	for page in docs/methods/*.md; do name=$$(basename $$page .md); \
		test $$name = index || $(BIN)/mixcollate preview --method $$name --seed 927 --out docs/images/$$name.jpg || exit; done

evidence: .venv/ready  ## make the tables and plots of evidence/ from its committed results
	$(BIN)/python -m evidence.report

bench: .venv/ready
	$(BIN)/mixcollate bench

OUT ?= .benchmarks/gpu
gpu:  ## correctness and benchmarks on a GPU, without network or new packages. ONLY=peers OUT=folder
	PYTHONPATH=. $(PYTHON) -m benchmarks.gpu --out $(OUT) $(foreach step,$(ONLY),--only $(step))

compile-check: .venv/ready  ## compile every kernel that the tests launch for ten architectures; needs no GPU
	$(BIN)/python -W ignore -m tests.compile_check $(ARCH)

.venv/ready: pyproject.toml
	@echo "== .venv: mixcollate with the packages for demo, tests and lint (PyTorch is large: this can take minutes)"
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 10) and 'Python 3.10 or newer is needed: make PYTHON=...')"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	@touch $@

.venv/integrations: .venv/ready
	@echo "== .venv: the frameworks that mixcollate is tested with"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[integrations]"
	@touch $@

.venv/docs: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[docs]"
	@touch $@

.venv-floor/ready: pyproject.toml
	@echo "== .venv-floor: the same with the oldest supported PyTorch and NumPy"
	$(PYTHON) -m venv .venv-floor
	.venv-floor/bin/python -m pip install --quiet --disable-pip-version-check -e ".[test]" \
		"torch==2.6.*" "torchvision==0.21.*" "numpy==2.0.*"
	@touch $@

clean:
	rm -rf .venv .venv-floor .benchmarks .mypy_cache .pytest_cache .ruff_cache demo dist site
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
