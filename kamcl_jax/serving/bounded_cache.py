"""A cache of bounded size for any number of threads."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class BoundedCache(Generic[Key, Value]):
    """Keeps the values that were used last."""

    def __init__(self, capacity: int, size_of: Callable[[Value], int] = lambda _: 1):
        """Makes an empty cache.

        Args:
          capacity: of all values in it together; a value that is larger is not kept.
          size_of: a value.
        """
        self._capacity, self._size_of = capacity, size_of
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._size, self._lock = 0, threading.Lock()

    def get(self, key: Key) -> Value | None:
        """Returns the value, or None if it is not kept (any more)."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key]

    def put(self, key: Key, value: Value) -> None:
        """Keeps a value, and drops those used longest ago where there is no room."""
        with self._lock:
            if key in self._values:
                self._size -= self._size_of(self._values.pop(key))
            if self._size_of(value) > self._capacity:
                return
            self._values[key] = value
            self._size += self._size_of(value)
            while self._size > self._capacity:
                _, dropped = self._values.popitem(last=False)
                self._size -= self._size_of(dropped)
