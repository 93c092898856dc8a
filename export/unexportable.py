"""Why a network cannot be exported, said by the module and the line of it that are to blame."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from typing import Any

from dpmrt.errors import ExportError

_FRAME = re.compile(r'File "([^"]+)", line (\d+), in (\w+)\n\s*(.+)')
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
#: what torch.onnx says whether or not anything is wrong
_IDLE = "torchvision is not installed"
_OURS = (
    "/torch/",
    "/dpmrt/",
    *(f"/export/{name}" for name in ("tracing.py", "shortcuts.py", "interfaces/", "folding.py")),
)


def operator_error(error: BaseException, program: Any, said: Iterable[str], opset: int) -> ExportError:
    """Return the error for what torch could not trace, or could trace and not translate to ONNX."""
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    reason = chain[-1]
    # An operator may be a part of one that the network calls, and the node is known only when that is taken apart.
    node = _node(program, *reversed(chain)) or _node(_taken_apart(program), *reversed(chain))
    place = _place(node.meta.get("stack_trace", "") if node is not None else _text(error, reason))
    module = _module(node)
    lines = [f"{type(reason).__name__}: {_first(str(reason))}"]
    if node is not None:
        lines.append(f"operator {node.target}")
    if module:
        lines.append(f"module {module}")
    if place:
        lines.append(f"at {place}")
    if node is None:
        lines += [_first(text) for text in dict.fromkeys(said) if not text.startswith(_IDLE)][:3]
    return ExportError(
        "an operator of the network has no counterpart in ONNX"
        if node is not None
        else "torch cannot trace the network",
        got="\n".join(lines),
        expected=f"a network of operators that ONNX has at opset {opset}",
        fix="rewrite that line with operators that torch.onnx knows",
    )


def _node(program: Any, *errors: BaseException) -> Any:
    """Return the traced node that an error is about: the one it names, whose operator torch.onnx does not know."""
    if program is None:
        return None
    text = "\n".join(str(error) for error in errors)
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    named = [node for node in calls if re.search(rf"%{re.escape(node.name)}\b", text) and str(node.target) in text]
    known = next(iter(named), None) or next((node for node in calls if str(node.target) in text), None)
    # torch.onnx calls the translation of NAME node_NAME.
    return known or next((node for node in calls if f"'node_{node.name}'" in text), None)


def _taken_apart(program: Any) -> Any:
    """Return the program in the operators that torch.onnx translates; None where torch cannot say."""
    if program is None:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return program.run_decompositions()
    except Exception:
        return None


def _module(node: Any) -> str:
    stack = list((node.meta.get("nn_module_stack") or {}).values()) if node is not None else []
    if not stack:
        return ""
    path, kind = stack[-1]
    shown = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
    own = str(path).removeprefix("model").lstrip(".")
    return f"{own} ({shown})" if own else shown


def _place(trace: str) -> str:
    frames = [f for f in _FRAME.findall(trace) if not any(part in f[0] for part in _OURS)]
    frames = frames or _FRAME.findall(trace)
    if not frames:
        return ""
    file, line, function, code = frames[-1]
    return f"{file}:{line}, in {function}: {code.strip()}"


def _text(*errors: BaseException) -> str:
    import traceback

    own = [f for e in errors for f in traceback.extract_tb(e.__traceback__)]
    shown = [f'File "{f.filename}", line {f.lineno}, in {f.name}\n  {f.line}' for f in own if f.line]
    return "\n".join([*shown, *(str(error) for error in errors)])


def _first(text: str) -> str:
    lines = [line for line in _ANSI.sub("", text).strip().splitlines() if line.strip()]
    return lines[0].strip() if lines else ""
