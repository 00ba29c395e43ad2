"""What a worker keeps, and lets go of."""

import gc
import weakref

from asim.engine.backends import Threads
from asim.engine.tasks import Objects


class Circular:
    """Refers to itself, as TensorFlow's graphs do."""

    circular = True

    def __init__(self) -> None:
        self.me = self


def test_what_refers_to_itself_is_freed() -> None:
    """A dropped model goes, although what was loaded is out of the collector's sight."""
    objects = Objects(Threads())
    objects._loaded[1] = Circular()
    gone = weakref.ref(objects.get(1))
    gc.freeze()
    try:
        objects.drop([1, 2])
        assert gone() is None
    finally:
        gc.unfreeze()
