"""placeholder"""


class FakeLSF: ...
