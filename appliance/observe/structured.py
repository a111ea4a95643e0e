"""structlog, imported without asyncio and rich: import it from here.

structlog imports asyncio for its `await log.ainfo(...)` alone, and looks it up as those are called, which
is never here. asyncio brings ssl, socket servers and thread pools, 48 modules: 30 ms of 60 at start, and
6.8 MB of each process's 27 (CPython 3.11, `-X importtime`, VmRSS). So structlog finds an empty module under
that name; whoever imports asyncio after it gets the real one. importlib.util.LazyLoader does not help: it
loads the module when a second `import asyncio` looks at its `__spec__`.

rich, where it is installed, is imported for tracebacks in colour, which are not used: 2 MB.
"""

import sys
from types import ModuleType
from typing import Final

_HIDDEN: Final = {"asyncio": ModuleType("asyncio"), "rich": None}
"""What structlog is to find: an empty module, or none (sys.modules, None)."""


def _import() -> None:
    hidden = {name: found for name, found in _HIDDEN.items() if name not in sys.modules}
    sys.modules.update(hidden)  # type: ignore[arg-type]  # None is what import takes for "not there"
    try:
        import structlog  # noqa: F401, PLC0415  now, or they would have to stay
    finally:
        for name in hidden:  # those that somebody else has imported are not hidden, and stay
            del sys.modules[name]


_import()

import structlog  # noqa: E402  after it was imported above; so the next three
from structlog import dev  # noqa: E402
from structlog.processors import format_exc_info  # noqa: E402
from structlog.typing import EventDict, FilteringBoundLogger  # noqa: E402

__all__ = ["EventDict", "FilteringBoundLogger", "dev", "format_exc_info", "structlog"]
