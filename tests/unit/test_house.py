"""The house's own rules: layers, weight, public names, sizes, docstrings."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import asim
import asim.ml
import asim.settings

ROOT = Path(asim.__file__).parent
FILES = {path.relative_to(ROOT).as_posix(): path for path in sorted(ROOT.rglob("*.py"))}
TESTS = {path.relative_to(ROOT.parent).as_posix(): path for path in sorted(Path(__file__).parents[1].rglob("*.py"))}

AGENT = {"main", "commands", "digests", "files", "jobs", "link", "node", "processes", "stream", "text", "__main__"}
"""The modules of the agent program, which is no part of the package: it runs elsewhere, on any Python from 3.6 on."""
BASE = {"errors", "status", "units", "config", "_lazy"}
PURE = {
    "plan",
    "planner",
    "members",
    "ordering",
    "generate",
    "templates",
    "strategies",
    "values",
    "tables",
    "policies",
    "preview",
    "log",
}
TOP = {"experiment", "factories", "databases", "launching", "outputs", "__init__"}
FOLDERS = {
    "entities": 1, "settings": 1, "agent": 1, "transport": 2, "launchers": 2, "wlm": 2, "database": 2, "engine": 2,
    "engine/backends": 2, "client": 2,
    "client/operations": 2, "runtime": 3, "ml": 3, "testing": 5, "testing/schedulers": 5,
}  # fmt: skip
PURE_PARTS = {
    "launchers/base", "launchers/__init__", "launchers/batches", "launchers/dialect", "launchers/tracking", "launchers/_told", "launchers/_members", "launchers/pbs", "launchers/lsf", "launchers/slurm", "launchers/_slurm_states", "launchers/sge", "launchers/_qstat", "database/address", "database/config", "database/security", "database/environment",
    "database/planning", "database/placing", "database/objects", "database/targets", "database/__init__",
    "engine/protocol", "engine/__init__", "transport/options",
}  # fmt: skip
"""Modules of layer 1 in folders of layer 2."""
SANS_IO = {
    f"client/{name}.py"
    for name in ("codec", "keys", "dataset", "cluster", "options", "steps", "replies", "core", "effort", "pipeline")
}
"""The client's own pure half. (It may import numpy, which layer 1 may not.)"""
UNKNOWN = 9
OUTSIDE = {
    "aiohttp", "anyio", "asyncio", "asyncssh", "concurrent", "ctypes", "http", "multiprocessing", "numpy", "psutil",
    "redis", "select", "selectors", "shutil", "socket", "ssl", "subprocess", "tempfile", "threading", "trio", "urllib",
}  # fmt: skip
"""What layers 0 and 1 never import: event loops, processes, networks, threads, and heavy packages."""

LONG = {
    "experiment.py": "what people touch, each method with its whole contract in the docstring",
}
"""Files of more than 300 lines, each with its reason."""


def layer(name: str) -> int:
    """The layer of a file, by its folder or its name; UNKNOWN for a new one that was not given its place here."""
    folder, _, module = name.removesuffix(".py").rpartition("/")
    if f"{folder}/{module}" in PURE_PARTS:
        return 1
    if folder:
        return FOLDERS.get(folder, UNKNOWN)
    return next((number for number, known in ((0, BASE), (1, PURE), (4, TOP)) if module in known), UNKNOWN)


@cache
def tree(path: Path) -> ast.Module:
    """A file as syntax."""
    return ast.parse(path.read_bytes(), str(path))


def is_type_only(node: ast.AST) -> bool:
    """Whether this is ``if TYPE_CHECKING:``."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id.lstrip("_") == "TYPE_CHECKING"


def imports(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Every import that is executed, also inside functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child
        elif not is_type_only(child):
            yield from imports(child)


def imported(name: str) -> Iterator[str]:
    """The modules that a file imports: absolute names, asim's own as ``asim.…``."""
    package = ["asim", *name.split("/")[:-1]]
    for node in imports(tree(FILES[name])):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
            continue
        base = ".".join(package[: len(package) + 1 - node.level]) if node.level else ""
        module = ".".join(part for part in (base, node.module or "") if part)
        for alias in node.names:
            inner = f"{module}.{alias.name}"
            yield inner if inner.startswith("asim.") and file_of(inner) != file_of(module) else module


def file_of(module: str) -> str:
    """The file of one of asim's modules; of a name in a module, the module's."""
    path = module.removeprefix("asim").strip(".").replace(".", "/")
    for candidate in (f"{path}.py", f"{path}/__init__.py" if path else "__init__.py"):
        if candidate in FILES:
            return candidate
    return file_of(module.rpartition(".")[0])


PROGRAM_FILES = [name for name in FILES if name.startswith("agent/") and name[6:-3] in AGENT]
agent = pytest.mark.parametrize("name", PROGRAM_FILES)
package = pytest.mark.parametrize("name", sorted(FILES.keys() - PROGRAM_FILES))
pure = pytest.mark.parametrize("name", sorted(name for name in FILES.keys() - PROGRAM_FILES if layer(name) <= 1))


# -- layers


def test_every_file_has_a_layer() -> None:
    """A new file must be given its place here, or nothing would watch what it imports."""
    assert [name for name in FILES if layer(name) == UNKNOWN] == []


@package
def test_imports_point_down(name: str) -> None:
    """A file imports only from its own layer and those below it."""
    mine = layer(name)
    above = [module for module in imported(name) if module.startswith("asim") and layer(file_of(module)) > mine]
    assert above == []


@pure
def test_pure_layers_are_pure(name: str) -> None:
    """The two lower layers import nothing that waits, starts, connects or weighs much, not even in functions."""
    assert sorted({module.partition(".")[0] for module in imported(name)} & OUTSIDE) == []


@pure
def test_pure_layers_do_no_io(name: str) -> None:
    """The two lower layers never open a file or ask the file system; only config asks, for the current directory."""
    asking = {"open", "read_text", "read_bytes", "write_text", "write_bytes", "exists", "lexists", "isdir", "isfile"}
    asking |= {"stat", "lstat", "listdir", "scandir", "mkdir", "makedirs", "unlink", "which", "iterdir", "realpath"}
    asking |= {"islink", "access", "expanduser", "abspath", "getcwd", "cwd"}
    calls = {called(node) for node in ast.walk(tree(FILES[name])) if isinstance(node, ast.Call)}
    assert calls & asking == ({"getcwd"} if name == "config.py" else set())


def called(node: ast.Call) -> str:
    """The last word of what is called."""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


@pytest.mark.parametrize("name", sorted(name for name in FILES if name in SANS_IO or "client/operations/" in name))
def test_the_clients_operations_do_no_io(name: str) -> None:
    """What both faces of the client share knows nothing of loops, sockets and threads."""
    found = {module.partition(".")[0] for module in imported(name)}
    assert sorted(found & (OUTSIDE - {"numpy"})) == []


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("ml/")])
def test_ml_helpers_use_the_client_only(name: str) -> None:
    """What trains beside a simulation needs nothing of the driver: no launcher, no experiment, no event journal."""
    folders = {file_of(module).rpartition("/")[0] for module in imported(name) if module.startswith("asim")}
    assert folders <= {"", "ml", "client", "client/operations"}


@package
def test_only_config_reads_the_environment(name: str) -> None:
    """No other module mentions the process's environment in any of its forms."""
    words = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
    through_os = [
        node
        for node in ast.walk(tree(FILES[name]))
        if (
            isinstance(node, ast.Attribute)
            and node.attr in words
            and isinstance(node.value, ast.Name)
            and node.value.id == "os"
        )
        or (isinstance(node, ast.ImportFrom) and node.module == "os" and words & {alias.name for alias in node.names})
    ]
    assert bool(through_os) == (name in ("config.py", "engine/build.py"))  # the compiler is run while asim is installed


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("launchers/")])
def test_launchers_are_apart(name: str) -> None:
    """What knows one workload manager is imported by nothing: it is found by its name, and imports no other."""
    others = {file_of(module) for module in imported(name) if module.startswith("asim.launchers.")}
    assert others & (LANGUAGES - {name}) == set()


LANGUAGES = {f"launchers/{name}.py" for name in ("slurm", "pbs", "lsf", "sge")}


# -- the agent program


def test_agent_program_is_whole() -> None:
    """Every module of the agent program is there, and the rest of its folder belongs to the package."""
    assert {name[6:-3] for name in FILES if name.startswith("agent/")} == AGENT | {"__init__", "protocol"}


@agent
def test_agent_program_stands_alone(name: str) -> None:
    """It imports only the standard library and its own modules, by their plain names."""
    nodes = list(imports(tree(FILES[name])))
    assert [node for node in nodes if isinstance(node, ast.ImportFrom) and node.level] == []
    roots = {module.partition(".")[0] for module in imported(name)}
    assert roots - set(sys.stdlib_module_names) <= AGENT
    assert "asim" not in roots


@agent
def test_agent_program_is_python_3_6(name: str) -> None:
    """Its syntax is that of Python 3.6."""
    ast.parse(FILES[name].read_text(), name, feature_version=(3, 6))


def test_both_halves_of_the_protocol_agree() -> None:
    """The driver and the agent speak the same version."""
    from asim.agent.protocol import VERSION

    assignments = [node for node in tree(FILES["agent/main.py"]).body if isinstance(node, ast.Assign)]
    assert [ast.literal_eval(node.value) for node in assignments if ast.unparse(node.targets[0]) == "VERSION"] == [
        VERSION
    ]


# -- weight


HEAVY = ["numpy", "redis", "asyncssh", "psutil", "rich", "asyncio", "matplotlib", "anyio", "subprocess", "uvloop"]
PROGRAM = """
import json, sys
import asim
first = [name for name in sys.modules if name.startswith("asim.")]
names = dir(asim)
from asim import Experiment
print(json.dumps([first, names, sorted(sys.modules)]))
"""


@pytest.fixture(scope="module")
def loaded() -> tuple[list[str], list[str], list[str]]:
    """In a fresh interpreter: asim's modules after ``import asim``, ``dir(asim)``, and all after importing Experiment."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True, text=True)
    first, names, modules = json.loads(done.stdout)
    return first, names, modules


def test_import_is_light(loaded: tuple[list[str], list[str], list[str]]) -> None:
    """``import asim`` loads next to nothing of asim, and ``from asim import Experiment`` nothing heavy."""
    first, _, modules = loaded
    assert first == ["asim._lazy"]
    assert "asim.experiment" in modules
    assert sorted(set(HEAVY) & set(modules)) == []


def test_names_can_be_completed(loaded: tuple[list[str], list[str], list[str]]) -> None:
    """``dir(asim)`` has every public name before any was used: shells and notebooks complete from it."""
    assert sorted(set(asim.__all__) - set(loaded[1])) == []


# -- public names


LAZY = pytest.mark.parametrize("module", [asim, asim.settings, asim.ml], ids=["asim", "asim.settings", "asim.ml"])


def declared(module: Any) -> dict[str, str]:
    """Name -> module, as type checkers see it."""
    (block,) = [node for node in tree(Path(module.__file__)).body if is_type_only(node)]
    found = {}
    for node in block.body:  # type: ignore[attr-defined]
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            assert alias.asname == alias.name  # the form that marks a name as public
            found[alias.name] = f"{module.__name__}.{node.module}"
    return found


@LAZY
def test_all_is_what_type_checkers_see(module: Any) -> None:
    """The names at run time are those that type checkers see, in order, each once."""
    assert module.__all__ == sorted(declared(module))


@LAZY
def test_all_names_resolve(module: Any) -> None:
    """Every public name is the object of the module that type checkers take it from, and stays loaded."""
    for name, home in declared(module).items():
        value = getattr(module, name)
        assert value is getattr(importlib.import_module(home), name)
        assert vars(module)[name] is value


@LAZY
def test_unknown_name(module: Any) -> None:
    """An unknown name is an AttributeError that says of what."""
    with pytest.raises(AttributeError, match=f"module '{module.__name__}' has no attribute 'Nothing'"):
        _ = module.Nothing


def test_star_import() -> None:
    """``from asim import *`` gives every public name."""
    space: dict[str, object] = {}
    exec("from asim import *", space)
    assert set(asim.__all__) <= set(space)


@pytest.mark.parametrize(
    "name",
    [
        "Experiment", "Model", "Ensemble", "RunSettings", "SrunSettings", "AprunSettings", "JsrunSettings",
        "MpirunSettings", "MpiexecSettings", "OrterunSettings", "PalsMpiexecSettings", "SbatchSettings",
        "QsubBatchSettings", "BsubBatchSettings", "SgeQsubBatchSettings", "Container", "Singularity",
    ],
)  # fmt: skip
def test_names_of_smartsim(name: str) -> None:
    """SmartSim's public names (of what this version has) are asim's, and are classes."""
    assert name in asim.__all__
    assert inspect.isclass(getattr(asim, name))


def test_logger_of_smartsim() -> None:
    """``from asim.log import get_logger`` works as in SmartSim."""
    from asim.log import get_logger

    assert list(inspect.signature(get_logger).parameters) == ["name", "log_level", "fmt"]


def test_errors_are_public() -> None:
    """Every error that asim raises on purpose can be caught by a name of asim."""
    from asim import errors

    kinds = {
        name for name, value in vars(errors).items() if inspect.isclass(value) and value.__module__ == errors.__name__
    }
    assert kinds - set(asim.__all__) == set()


# -- sizes


@pytest.mark.parametrize("name", FILES)
def test_sizes(name: str) -> None:
    """No file is longer than 400 lines, and none longer than 300 without a reason."""
    lines = len(FILES[name].read_text().splitlines())
    assert lines <= 400
    assert lines <= 300 or name in LONG


def test_reasons_are_needed() -> None:
    """A reason goes when its file is gone."""
    assert set(LONG) - set(FILES) == set()
    assert all(LONG.values())


# -- docstrings


def public(kind: type) -> Iterator[str]:
    """The public methods and properties of a class that asim wrote."""
    for base in kind.__mro__:
        if base.__module__.partition(".")[0] != "asim":
            continue
        for name, value in vars(base).items():
            wrapped = getattr(value, "__func__", value)
            if not name.startswith("_") and (inspect.isfunction(wrapped) or isinstance(value, property)):
                yield name


@pytest.mark.parametrize("name", asim.__all__)
def test_public_docstrings(name: str) -> None:
    """Every public class has a docstring (not the one that dataclass makes), and so has each of its public members."""
    thing = getattr(asim, name)
    assert thing.__doc__
    assert not thing.__doc__.startswith(f"{name}(")
    assert [member for member in public(thing) if not inspect.getdoc(getattr(thing, member))] == []


@pytest.mark.parametrize("name", FILES)
def test_module_docstrings(name: str) -> None:
    """Every module that has something in it says what it is for."""
    assert ast.get_docstring(tree(FILES[name])) or not tree(FILES[name]).body


@pytest.mark.parametrize("name", TESTS)
def test_docstrings_of_tests(name: str) -> None:
    """Every test says what it proves."""
    silent = [
        node.name
        for node in ast.walk(tree(TESTS[name]))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and node.name.startswith("test")
        and not ast.get_docstring(node)
    ]
    assert silent == []
