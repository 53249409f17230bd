"""Errors of this package that a user can cause."""


class ModelError(ValueError):
    """A model, configuration or input that cannot be used as asked; the message is one line.

    Args:
        message: what is wrong, in the user's terms.
        at: the file, directory or name it is about.
        remedy: what to do about it.

    >>> str(ModelError("length 70 exceeds 66", at="m/config.json", remedy="cut the input"))
    'm/config.json: length 70 exceeds 66; cut the input'
    """

    exit_code = 1

    def __init__(self, message: str, *, at: object = None, remedy: str | None = None):
        super().__init__(("" if at is None else f"{at}: ") + message + (f"; {remedy}" if remedy else ""))


def require(condition: bool, message: str) -> None:
    """Raise ModelError with this message unless the condition holds."""
    if not condition:
        raise ModelError(message)
