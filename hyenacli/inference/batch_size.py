"""The size of batches as the user says it: checked before torch is imported."""

from hyenacli.errors import UsageError


def parse_batch_size(text: str, flag: str = "--batch-size") -> int | None:
    """A number of sequences, or None for auto.

    Raises:
        UsageError: neither.
    """
    if text == "auto":
        return None
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise UsageError(f"unknown batch size '{text}'", at=flag, remedy="use auto or a number from 1 on")
