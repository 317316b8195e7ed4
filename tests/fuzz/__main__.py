"""Coverage-guided fuzzing: ``python -m tests.fuzz [--seconds 60] [CORPUS]``.

Print the number of requests. At the first request that violates an invariant, print it and exit
with a non-zero code.
"""

import argparse
import sys
from typing import Any

import atheris

with atheris.instrument_imports(
    include=["related_images.middleware", "related_images.protocol", "tests.fuzz.target"]
):
    from tests.fuzz import target
    from tests.fuzz.target import Request, Target


class Reader:
    """Derives a request from the fuzzer's bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = atheris.FuzzedDataProvider(data)

    def pick(self, choices: Any) -> Any:
        return choices[self._data.ConsumeIntInRange(0, len(choices) - 1)]

    def flip(self) -> bool:
        return bool(self._data.ConsumeBool())

    def text(self, *starts: str) -> str:
        """Return one of ``starts`` with pieces and letters inserted."""
        text = self.pick(starts)
        for _ in range(self._data.ConsumeIntInRange(0, 5)):
            at = self._data.ConsumeIntInRange(0, len(text))
            piece = self.pick(target.WORDS) if self.flip() else self._letters()
            text = text[:at] + piece + text[at:]
        return str(text)

    def _letters(self) -> str:
        return bytes(self._data.ConsumeBytes(3)).decode("latin-1")

    def request(self) -> Request:
        given_headers = dict(self.pick(target.TUPLES))
        for name in list(given_headers):
            if not self._data.ConsumeIntInRange(0, 15):
                given_headers[name] = self.text(given_headers[name])
        bodies = [body.decode() for body in target.BODIES]
        return Request(
            method=self.pick(target.METHODS),
            path=self.text(*target.PATHS),
            query=self.text(""),
            script=self.pick(target.SCRIPTS),
            content_type=self.pick(target.TYPES),
            length=None if self.flip() else self.text("", "1", "99"),
            terminated=self.flip(),
            body=self.text(*bodies).encode("utf-8", "surrogatepass"),
            headers={**self.pick(target.CALLERS), **given_headers},
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="how long to go on")
    parser.add_argument("corpus", nargs="*", help="a directory that remembers what was found")
    given = parser.parse_args()
    held = Target()
    options = [f"-max_total_time={given.seconds}", "-print_final_stats=1", "-max_len=256"]
    atheris.Setup(
        [sys.argv[0], *options, *given.corpus], lambda data: held.hold(Reader(data).request())
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
