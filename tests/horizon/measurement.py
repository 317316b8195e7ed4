"""The headers in which the Horizon of the tests returns what a page took."""

from typing import Final

CALLS: Final = "X-Test-Api-Calls"
API_MILLISECONDS: Final = "X-Test-Api-Milliseconds"
MILLISECONDS: Final = "X-Test-Milliseconds"
