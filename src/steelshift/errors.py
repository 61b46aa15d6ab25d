"""What can go wrong, one class per exit code. Every message comes from the catalogue in `messages`.

Exit codes: 0 done, 1 failed while running, 2 wrong usage, 3 bad data, 4 inspector or checkpoint refused,
5 exported scores differ, 6 `inspect --fail-on` found what it names, 130 and 143 interrupted (a checkpoint was left).
"""

from steelshift.messages import say


class SteelshiftError(Exception):
    """A failure that the user can act on: `key` names a sentence of the catalogue, `fields` fill it in."""

    exit_code = 1

    def __init__(self, key: str, /, **fields: object) -> None:
        self.key = key
        self.fields = fields
        super().__init__(say(key, **fields))


class RunFailed(SteelshiftError):
    exit_code = 1


class UsageError(SteelshiftError):
    exit_code = 2


class DataError(SteelshiftError):
    exit_code = 3


class ArtifactRefused(SteelshiftError):
    exit_code = 4


class ParityFailed(SteelshiftError):
    exit_code = 5


class Found(SteelshiftError):
    """What a command was asked to fail on is there; everything else went well."""

    exit_code = 6


class Interrupted(SteelshiftError):
    """A signal asked to stop and a checkpoint was written; `signal` is its number."""

    def __init__(self, signal: int, step: int, where: object) -> None:
        self.exit_code = 128 + signal
        super().__init__("interrupted", step=step, where=where)
