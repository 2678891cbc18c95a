"""What a worker is asked for."""


class Spec(dict):
    """family/key=value/..., as in bench/native/spec.h."""

    def __init__(self, text):
        self.family, *pairs = text.split("/")
        super().__init__(pair.split("=", 1) for pair in pairs)

    def number(self, key, otherwise=None):
        return otherwise if key not in self and otherwise is not None else int(self[key])

    def rows(self):
        return self.number("m", 8192), self.number("n", 1536)
