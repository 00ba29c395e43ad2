"""Where the compiled engine of this installation is. (Apart from :mod:`asim.engine.build`, as nodes must start fast.)"""

from __future__ import annotations

import os
import sys

from ..errors import MissingFileError


def require_module() -> str:
    """The compiled module of this installation.

    :raises MissingFileError: there is none; says how to make it.
    """
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "asim_engine.so")
    if not os.path.isfile(path):
        raise MissingFileError(
            f"{path} does not exist: this installation of asim has no compiled engine, because no C compiler was found"
            " when it was installed; install one (Debian: apt install gcc libc6-dev; conda: conda install gcc_linux-64),"
            f" or set CC, then run `{sys.executable} -m asim.engine.build`"
        )
    return path
