# `make demo` samples the shipped bundle without torch; `make test` checks everything. Both set themselves up.
PYTHON ?= python3
DEMO := .venv-demo
DEV := .venv
# The oldest and the newest Python API of TensorRT, looked at and never run: they need no TensorRT and no GPU.
TRT_APIS := tensorrt-cu12-bindings==10.3.0 tensorrt-cu13-bindings==11.4.0.106
PIP := -m pip --disable-pip-version-check install -q

.PHONY: demo test lint types bench gpu-test aarch64 clean help

help:
	@echo "make demo      sample the shipped digits, torch-free, into out/demo.png"
	@echo "make test      lint, types and all tests (installs torch into $(DEV))"
	@echo "make bench     the figures that README and docs quote"
	@echo "make gpu-test  the tests that need an NVIDIA GPU"
	@echo "make aarch64   the C++ runtime for that processor, its tests under emulation (fetches Clang and QEMU)"
	@echo "make clean     remove what these made"

demo: $(DEMO)/.ready
	@mkdir -p out
	$(DEMO)/bin/dpmrt sample digits -n 40 --label all --grid 10 --scale 4 -o out/demo.png
	@echo "look at out/demo.png"

test: lint types
	$(DEV)/bin/python -m pytest -m "not gpu" -n auto

lint: $(DEV)/.ready
	$(DEV)/bin/ruff check .
	$(DEV)/bin/ruff format --check .

# mypy does not follow an editable install, so it is shown the packages where their names say they are
types: $(DEV)/.ready
	@rm -rf build/types && mkdir -p build/types/dpmrt
	@ln -s $(CURDIR)/dpmrt/* $(CURDIR)/solvers_np $(CURDIR)/engines $(CURDIR)/runtime $(CURDIR)/export build/types/dpmrt/
	cd build/types && $(CURDIR)/$(DEV)/bin/mypy --config-file $(CURDIR)/pyproject.toml -p dpmrt

gpu-test: $(DEV)/.gpu
	$(DEV)/bin/python -m pytest -m gpu -rs

aarch64: $(DEV)/.ready
	$(DEV)/bin/python tests/runtime/cpp_aarch64.py

bench: $(DEV)/.ready
	$(DEV)/bin/python benchmarks/run_all.py

clean:
	rm -rf $(DEMO) $(DEV) out build *.egg-info

$(DEMO)/.ready: pyproject.toml
	$(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/python $(PIP) -e '.[cpu]'
	@touch $@

$(DEV)/.gpu: $(DEV)/.ready
	$(DEV)/bin/python tests/gpu/install.py
	@touch $@

$(DEV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DEV)
	$(DEV)/bin/python $(PIP) -c constraints.txt -e '.[export,viz,test]' tensorrt-rtx-cu13
	$(DEV)/bin/python -m pip --disable-pip-version-check download -q --no-deps -d build/trt-names $(TRT_APIS)
	@touch $@
