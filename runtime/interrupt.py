"""A Ctrl-C that a library's import turned into an ImportError."""

from __future__ import annotations


def was_interrupted(error: BaseException) -> bool:
    """Return whether a KeyboardInterrupt lies behind the error: extension modules report it as a failed import.

    >>> error = ImportError("initialization failed")
    >>> error.__cause__ = KeyboardInterrupt()
    >>> was_interrupted(error)
    True
    """
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        link = waiting.pop()
        if link is None or any(link is known for known in seen):
            continue
        if isinstance(link, KeyboardInterrupt):
            return True
        seen.append(link)
        waiting += [link.__cause__, link.__context__]
    return False
