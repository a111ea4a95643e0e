"""structlog, imported without asyncio: import it from here.

structlog imports asyncio for its `await log.ainfo(...)` alone, and looks it up as those are called, which
is never here. asyncio brings ssl, socket servers and thread pools, 48 modules: 30 ms of 60 at start, and
6.8 MB of each process's 27 (CPython 3.11, `-X importtime`, VmRSS). So structlog finds an empty module under
that name; whoever imports asyncio after it gets the real one. importlib.util.LazyLoader does not help: it
loads the module when a second `import asyncio` looks at its `__spec__`.
"""

import sys
from types import ModuleType
from typing import Final

_NAME: Final = "asyncio"


def _import() -> None:
    if _NAME in sys.modules:  # somebody needs it: nothing is left to spare
        return
    sys.modules[_NAME] = ModuleType(_NAME)
    try:
        import structlog  # noqa: F401, PLC0415  now, or the empty one would have to stay
    finally:
        del sys.modules[_NAME]


_import()

import structlog  # noqa: E402
from structlog import dev  # noqa: E402
from structlog.processors import format_exc_info  # noqa: E402
from structlog.typing import EventDict, FilteringBoundLogger  # noqa: E402

__all__ = ["EventDict", "FilteringBoundLogger", "dev", "format_exc_info", "structlog"]
