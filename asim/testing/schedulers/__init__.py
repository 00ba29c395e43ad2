"""Workload managers that are not there: strict fake commands, whose jobs really run as processes of this machine.

:class:`FakePBS` answers as OpenPBS 23.06.06 was recorded; :class:`FakeLSF` as LSF 10.1 is documented, and has not met a
real one. Put ``fake.bin`` first in PATH. Options that the real commands do not have are refused, as there.
"""

from .lsf import FakeLSF as FakeLSF
from .pbs import FakePBS as FakePBS
from .server import Call as Call

__all__ = ["Call", "FakeLSF", "FakePBS"]
