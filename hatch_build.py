"""Compiles the engine while a wheel or an editable installation is made; without a compiler there is only a warning."""

import importlib.util
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class EngineHook(BuildHookInterface):
    """Adds ``asim/engine/asim_engine.so`` to wheels, which then are for this platform and for every Python 3."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before the files are collected."""
        if self.target_name != "wheel":
            return
        engine = _load(Path(self.root) / "asim" / "engine" / "build.py")
        try:
            engine.build()
        except engine.BuildError as error:
            self.app.display_warning(f"asim is installed without its engine (databases will lack AI.*): {error}")
            if version == "standard":  # what an earlier build left must not get into a wheel for every platform
                engine.module_file().unlink(missing_ok=True)
            return
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{_platform()}"


def _load(path: Path) -> ModuleType:
    """The module in this file; asim itself may not be importable yet."""
    spec = importlib.util.spec_from_file_location("asim_engine_build", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _platform() -> str:
    """The platform part of a wheel's tag."""
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")
