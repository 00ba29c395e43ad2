"""For tests of programs that use asim, and of launchers and transports that plug into it.

:class:`FakeLauncher` runs nothing: quick, and with the faults that you ask for. :mod:`asim.testing.contracts` has the
suites that every launcher and every host must pass (needs pytest and anyio's pytest plugin).
"""

from .fakes import FakeLauncher as FakeLauncher
from .fakes import Outcome as Outcome

__all__ = ["FakeLauncher", "Outcome"]
