"""Tells models apart: a text that changes when a model's weights or code change.

The program keys its cache and names its records with it, as it does with the hash of a weights file. A text that stays
the same although the model changed would silently bring back old features. So for functions, anything that is not
understood means: no identity.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import sys
import sysconfig
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ._arrays import is_installed, view_of


class Unknown(Exception):
    """Something that decides the model's features cannot be hashed. The message names it."""


def identity(model: Any) -> str:
    """Returns the identity of a model.

    - A `torch.nn.Module`: its `state_dict`, its structure as printed, the settings in its attributes, and the code of
      its classes. Attributes that are not understood count by their type.
    - A function or another object: its code, and all that the code refers to: closures, globals, attributes, each by
      the same rules.

    Code is hashed as bytecode, except that of installed libraries, which counts by name. Another version of Python
    therefore gives another identity for code of your own.

    Raises:
        Unknown: if a function refers to something that is not understood.
    """
    hasher = _Hasher()
    try:
        hasher.add(model, "the model")
    except RecursionError:
        raise Unknown("it refers to something too deep to follow") from None
    kind = "module" if is_module(model) else "code"
    return f"{kind}:{hasher.digest.hexdigest()}"


def is_module(value: Any) -> bool:
    """Whether a value is a torch module. Does not import torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)


@functools.cache
def _library_folders() -> tuple[Path, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return tuple({Path(sysconfig.get_path(name)).resolve() for name in names})


@functools.cache
def _is_library(module: str | None) -> bool:
    """Whether a module belongs to Python or to an installed library, whose code counts by its name."""
    if module is None or module == "__main__":
        return False
    root = module.partition(".")[0]
    if root in sys.stdlib_module_names or root == "terrabench":
        return True
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        return False
    path = Path(file).resolve()
    return "site-packages" in path.parts or any(folder in path.parents for folder in _library_folders())


_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis))

_OF_CLASSES = {
    "__annotations__", "__annotate__", "__annotate_func__", "__annotations_cache__", "__conditional_annotations__",
    "__dict__", "__doc__", "__firstlineno__", "__module__", "__qualname__", "__static_attributes__", "__weakref__",
    "__abstractmethods__", "_abc_impl", "__parameters__", "__orig_bases__",
}  # fmt: skip
"""Entries of a class that decide nothing, or repeat what is hashed elsewhere."""

_OF_MACHINES = {"training", "fused_attn", "grad_checkpointing"}
"""Attributes of modules that do not affect features, or depend on the machine."""


class _Hasher:
    def __init__(self) -> None:
        self.digest = hashlib.blake2b(digest_size=16)
        self.seen: dict[int, int] = {}
        self.kept: list[Any] = []  # An id is unique only while its object lives.
        self.inside_modules = 0

    def text(self, *parts: str) -> None:
        for part in parts:
            encoded = part.encode("utf-8", "surrogatepass")
            self.digest.update(len(encoded).to_bytes(8, "little"))
            self.digest.update(encoded)

    def add(self, value: Any, where: str) -> None:
        """Adds a value that is called `where` in messages."""
        if isinstance(value, _PLAIN) and type(value) in _PLAIN:
            self.text(type(value).__name__, repr(value))
            return
        # Whether two equal constants are one object depends on how Python loaded the code.
        if not isinstance(value, (tuple, frozenset)):
            if id(value) in self.seen:
                self.text("again", str(self.seen[id(value)]))
                return
            self.seen[id(value)] = len(self.seen)
            self.kept.append(value)
        if isinstance(value, (list, tuple)):
            self.text(type(value).__name__, str(len(value)))
            for place, item in enumerate(value):
                self.add(item, f"{where}[{place}]")
        elif isinstance(value, Mapping) and hasattr(value, "items"):
            self.text("mapping", type(value).__qualname__, str(len(value)))
            for key, item in value.items():
                self.add(key, f"a key of {where}")
                self.add(item, f"{where}[{key!r:.40}]")
        elif isinstance(value, (set, frozenset)):
            if not all(isinstance(item, _PLAIN) for item in value):
                self.unknown(f"{where} is a set of objects", value)
            else:
                self.text("set", *sorted(map(repr, value)))
        elif isinstance(value, types.CodeType):
            self.code(value)
        elif isinstance(value, types.ModuleType):
            self.imported(value)
        elif is_module(value):
            self.inside_modules += 1
            self.module(value, where)
            self.inside_modules -= 1
        elif isinstance(value, functools.partial):
            self.text("partial")
            self.add([value.func, value.args, value.keywords], where)
        elif isinstance(value, types.MethodType):
            self.text("method", value.__name__)
            self.add([value.__self__, value.__func__], where)
        elif isinstance(value, types.FunctionType):
            self.function(value, where)
        elif isinstance(value, types.BuiltinFunctionType):
            self.text("builtin", value.__qualname__, str(value.__module__))
            if not isinstance(value.__self__, (types.ModuleType, type(None))):
                self.add(value.__self__, where)
        elif isinstance(value, type):
            self.kind(value)
        elif isinstance(value, (staticmethod, classmethod)):
            self.text(type(value).__name__)
            self.add(value.__func__, where)
        elif isinstance(value, property):
            self.add([value.fget, value.fset, value.fdel], where)
        elif _is_array(value):
            self.array(value, where)
        else:
            self.instance(value, where)

    def unknown(self, problem: str, value: Any) -> None:
        if not self.inside_modules:
            raise Unknown(problem)
        self.text("unknown", type(value).__module__, type(value).__qualname__)

    def module(self, model: Any, where: str) -> None:
        self.text("module", repr(model))
        try:
            state = model.state_dict()
        except Exception as problem:
            raise Unknown(f"{where}: its state_dict() failed: {problem}") from problem
        for name, value in state.items():
            self.text(name)
            self.add(value, f"{where}.{name}")
        kinds = {type(part) for part in model.modules()}
        for kind in sorted(kinds, key=lambda kind: (kind.__module__, kind.__qualname__)):
            self.kind(kind)
        internal = vars(sys.modules["torch"].nn.Module())
        for name, part in model.named_modules():
            self.text("part", name)
            for key in sorted(vars(part)):
                value = vars(part)[key]
                if key in internal or key in _OF_MACHINES:
                    continue
                # A library's own attributes may hold anything; its plain settings, such as the number of heads, count.
                if _is_library(type(part).__module__) and not _is_plain(value):
                    continue
                self.text(key)
                self.add(value, f"{where}.{name}.{key}")
            hooks = [*part._forward_hooks.values(), *part._forward_pre_hooks.values()]
            self.add(hooks, f"the hooks of {where}.{name}")

    def function(self, function: types.FunctionType, where: str) -> None:
        self.text("function", function.__module__ or "", function.__qualname__)
        names = _names(function.__code__)
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
            self.text(name)
            try:
                inner = cell.cell_contents
            except ValueError:  # Not assigned yet.
                continue
            self.variable(inner, f"the variable `{name}` of {where}", names)
        if _is_library(function.__module__):
            return
        self.code(function.__code__)
        self.add(function.__defaults__, f"a default of {where}")
        self.add(function.__kwdefaults__, f"a default of {where}")
        for name in sorted(names & function.__globals__.keys()):
            self.text(name)
            self.variable(function.__globals__[name], f"the global variable `{name}`", names)

    def variable(self, value: Any, where: str, names: set[str]) -> None:
        """Adds a variable of code that looks up `names`."""
        self.add(value, where)
        if isinstance(value, types.ModuleType) and not _is_library(value.__name__):
            # `net.model(x)`: what the code takes from a module of the caller's.
            for name in sorted(names & vars(value).keys()):
                self.text(name)
                self.add(vars(value)[name], f"`{value.__name__}.{name}`")

    def imported(self, module: types.ModuleType) -> None:
        """Adds a module: by name if it is a library's, else with its file and those of its own modules."""
        self.text("import", module.__name__)
        if _is_library(module.__name__):
            return
        file = getattr(module, "__file__", None)
        if file is None or module.__name__ == "__main__":
            return
        try:
            self.digest.update(Path(file).read_bytes())
        except OSError:
            raise Unknown(f"the file {file} of the module {module.__name__} cannot be read") from None
        for name in sorted(vars(module)):
            value = vars(module)[name]
            if not isinstance(value, types.ModuleType):
                value = sys.modules.get(str(getattr(value, "__module__", None)))
            if value is not None and not _is_library(value.__name__):
                self.add(value, name)

    def code(self, code: types.CodeType) -> None:
        self.text("code", sys.implementation.cache_tag or sys.version, code.co_name)
        self.digest.update(code.co_code)
        self.text(*code.co_names, *code.co_varnames, *code.co_freevars, str(code.co_flags), str(code.co_argcount))
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                self.code(constant)
            else:
                self.add(constant, "a constant")

    def kind(self, kind: type) -> None:
        self.text("class", kind.__module__, kind.__qualname__)
        if _is_library(kind.__module__):
            return
        for base in kind.__mro__[1:]:
            self.add(base, base.__qualname__)
        for name in sorted(vars(kind)):
            value = vars(kind)[name]
            if name in _OF_CLASSES or isinstance(value, (types.MemberDescriptorType, types.GetSetDescriptorType)):
                continue
            self.text(name)
            self.add(value, f"{kind.__qualname__}.{name}")

    def array(self, value: Any, where: str) -> None:
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(value, torch.Tensor):
            self.text("tensor", str(value.dtype), str(tuple(value.shape)))
            plain = value.detach()
            if plain.device.type == "meta":
                raise Unknown(f"{where} has no values (device meta)")
            if plain.layout is not torch.strided or plain.is_quantized:
                raise Unknown(f"{where} is a tensor of a layout that is not supported")
            plain = plain.resolve_conj().resolve_neg().to("cpu").contiguous()
            if plain.numel():
                self.digest.update(view_of(plain))
            return
        import numpy

        numbers = numpy.asarray(value)
        if numbers.dtype.hasobject:
            self.unknown(f"{where} is an array of objects", value)
            return
        self.text("array", str(numbers.dtype), str(numbers.shape))
        self.digest.update(numbers.tobytes())

    def instance(self, value: Any, where: str) -> None:
        kind = type(value)
        self.text("object", kind.__module__, kind.__qualname__)
        if isinstance(value, logging.Logger):
            return
        if _is_library(kind.__module__):
            name = getattr(value, "__name__", None)
            if callable(value) and isinstance(name, str):
                self.text(name)
                if hasattr(value, "__wrapped__"):
                    self.add(value.__wrapped__, where)
                return
            # Values such as torch.float32, range(3) or a path show all that they are.
            text = repr(value)
            if " at 0x" in text or len(text) > 10_000 or hasattr(value, "__dict__"):
                self.unknown(f"{where} is a {kind.__module__}.{kind.__qualname__}", value)
            else:
                self.text(text)
            return
        self.kind(kind)
        if hasattr(kind, "__slots__") or not hasattr(value, "__dict__"):
            self.unknown(f"{where} is a {kind.__qualname__}, whose attributes cannot be listed", value)
            return
        for key in sorted(vars(value)):
            self.text(key)
            self.add(vars(value)[key], f"{where}.{key}")


def _names(code: types.CodeType) -> set[str]:
    """All names that the code and the functions inside it look up."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _names(constant)
    return names


def _is_plain(value: Any) -> bool:
    return isinstance(value, _PLAIN) or (isinstance(value, (list, tuple)) and all(map(_is_plain, value)))


def _is_array(value: Any) -> bool:
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return True
    # numpy's own arrays and those that turn into them, such as JAX's.
    return is_installed("numpy") and all(hasattr(value, name) for name in ("__array__", "dtype", "shape"))
