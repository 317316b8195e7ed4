"""The tests in ``engine`` run where Heat is installed; ``test_engine`` sees to that."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("heat") else ["engine"]
