"""Every name of TensorRT that a file of ours uses, found in its syntax tree.

A small inference of types: what comes from the module, what its calls return, and parameters by their name. An
attribute of a parameter that is annotated Any and is not known here is an error, so that nothing is overlooked.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

MODULE = "module"
#: what a parameter or variable of this name is; None is nothing of TensorRT's
PARAMETERS: dict[str, str | None] = {
    "module": MODULE,
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "config": "IBuilderConfig",
    "tensor": "ITensor",
    "logger": "ILogger",
    "child.py: logger": None,
    "trt": MODULE,
    "runtime_cache.py: engine": "ICudaEngine",
    "refitter": "Refitter",
    "severity": None,
    "strategy": None,
    "out": None,
    "stream": None,
}
#: fields and calls of ours that hold or return TensorRT's objects, as they are spelled; some in one file alone
SPELLED: dict[str, str] = {
    "self._trt": MODULE,
    "tensorrt_engine.py: self.engine": "ICudaEngine",
    "engine.engine": "ICudaEngine",
    "runtime_cache.py: self._engine": "ICudaEngine",
    "self._runtime": "Runtime",
    "self._context": "IExecutionContext",
    "self._create_context()": "IExecutionContext",
    "runtime_cache.py: self._cache": "IRuntimeCache",
}
RETURNS: dict[tuple[str, str], str] = {
    ("Builder", "create_network"): "INetworkDefinition",
    ("Builder", "create_builder_config"): "IBuilderConfig",
    ("Builder", "create_optimization_profile"): "IOptimizationProfile",
    ("Builder", "build_serialized_network"): "IHostMemory",
    ("IBuilderConfig", "create_timing_cache"): "ITimingCache",
    ("IBuilderConfig", "get_timing_cache"): "ITimingCache",
    ("ITimingCache", "serialize"): "IHostMemory",
    ("OnnxParser", "get_error"): "ParserError",
    ("OnnxParserRefitter", "get_error"): "ParserError",
    ("Runtime", "deserialize_cuda_engine"): "ICudaEngine",
    ("ICudaEngine", "create_execution_context"): "IExecutionContext",
    ("ICudaEngine", "create_runtime_config"): "IRuntimeConfig",
    ("ICudaEngine", "get_tensor_dtype"): "DataType",
    ("ICudaEngine", "get_tensor_mode"): "TensorIOMode",
    ("IRuntimeConfig", "create_runtime_cache"): "IRuntimeCache",
    ("IRuntimeCache", "serialize"): "IHostMemory",
    ("Refitter", "get_weights_prototype"): "Weights",
    ("INetworkDefinition", "get_input"): "ITensor",
    ("INetworkDefinition", "get_output"): "ITensor",
}
#: functions of ours that return objects of TensorRT's
OURS: dict[str, tuple[str | None, ...]] = {
    "parse_network": ("INetworkDefinition", "OnnxParser"),
    "configure": ("IBuilderConfig",),
    "_make_builder": ("Builder",),
    "_make_logger": (None,),
    "_make_monitor": (None,),
}
#: attributes that every Python object or enumeration has
PLAIN = {"__members__", "__init__", "__version__"}


@dataclass
class Uses:
    """Names by class ("" is the module itself), and what could not be placed."""

    names: set[tuple[str, str]] = field(default_factory=set)
    unknown: list[str] = field(default_factory=list)


def names_in(path: Path) -> Uses:
    uses = Uses()
    tree = ast.parse(path.read_text(), str(path))
    here = {text.removeprefix(f"{path.name}: "): kind for text, kind in SPELLED.items()}
    _scope(path, tree, {text: kind for text, kind in here.items() if ": " not in text}, uses)
    return uses


def _scope(path: Path, scope: ast.AST, outer: dict[str, str | None], uses: Uses) -> None:
    known = dict(outer)
    if isinstance(scope, ast.FunctionDef):
        arguments = [*scope.args.posonlyargs, *scope.args.args, *scope.args.kwonlyargs]
        for argument in arguments:
            known.pop(argument.arg, None)
            if isinstance(argument.annotation, ast.Name) and argument.annotation.id == "Any":
                known[argument.arg] = PARAMETERS.get(
                    f"{path.name}: {argument.arg}", PARAMETERS.get(argument.arg, "?")
                )
    nested: list[ast.AST] = []
    own = list(_own(scope, nested))
    for node in own:
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            _assign(node.targets[0], node.value, known)
    for node in own:
        if isinstance(node, ast.Attribute):
            kind = _kind(node.value, known)
            if kind == "?":
                uses.unknown.append(f"{path.name}:{node.lineno}: {ast.unparse(node)}")
            elif kind is not None and node.attr not in PLAIN:
                uses.names.add(("" if kind == MODULE else kind, node.attr))
    for inner in nested:
        if isinstance(inner, ast.ClassDef):
            # The methods that TensorRT calls bear its names.
            for base in inner.bases:
                kind = _kind(base, known)
                if kind is not None:
                    methods = [item.name for item in inner.body if isinstance(item, ast.FunctionDef)]
                    uses.names |= {(kind, name) for name in methods if not name.startswith("_")}
        _scope(path, inner, known, uses)


def _own(scope: ast.AST, nested: list[ast.AST]) -> Iterator[ast.AST]:
    """Yield the nodes of a scope in order, but those of functions and classes in it, which go to `nested`."""
    for child in ast.iter_child_nodes(scope):
        if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
            nested.append(child)
            for base in getattr(child, "bases", []):
                yield from ast.walk(base)
            continue
        yield child
        yield from _own(child, nested)


def _assign(target: ast.expr, value: ast.expr, known: dict[str, str | None]) -> None:
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id in OURS:
        parts = target.elts if isinstance(target, ast.Tuple) else [target]
        for part, kind in zip(parts, OURS[value.func.id]):
            if isinstance(part, ast.Name):
                known[part.id] = kind
    elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        for part, one in zip(target.elts, value.elts):
            _assign(part, one, known)
    elif isinstance(target, ast.Name) and (kind := _kind(value, known)) is not None:
        known[target.id] = kind


def _kind(node: ast.expr, known: dict[str, str | None]) -> str | None:
    """Return the class of an expression's value, MODULE, "?" for what is Any and unknown, None for what is ours."""
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, (ast.Attribute, ast.Call)) and (spelled := known.get(ast.unparse(node))) is not None:
        return spelled
    if isinstance(node, ast.Attribute):
        if node.attr == "module":
            return MODULE
        if _kind(node.value, known) == MODULE and node.attr[0].isupper():
            return node.attr
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        owner = _kind(node.func.value, known)
        if owner == MODULE:
            return node.func.attr
        return RETURNS.get((owner, node.func.attr)) if owner else None
    return None
