"""Locks stay usable where several threads fork at once, in the parent as in the children."""

from __future__ import annotations

import os
import threading

import pytest

from yolo_attn.system import fork


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_threads_that_fork_at_once_release_their_own_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second comes in at the very moment in which the first has released its last lock, as other packages' threads do."""
    monkeypatch.setattr(fork, "_all", [])
    first, last = fork.Lock(), fork.Lock()
    inside, done = threading.Event(), threading.Event()

    def forks_too() -> None:
        fork._before()
        inside.set()
        assert done.wait(5)
        fork._in_parent()

    second = threading.Thread(target=forks_too)

    class HandsOver:
        """A lock after whose release the other thread takes all of them before this one goes on."""

        def __init__(self, own: object) -> None:
            self.own, self.handed = own, False

        def acquire(self, *args: object, **options: object) -> bool:
            return self.own.acquire(*args, **options)  # type: ignore[attr-defined,no-any-return]

        def release(self) -> None:
            self.own.release()  # type: ignore[attr-defined]
            if not self.handed:
                self.handed = True
                assert inside.wait(5)

    first._inner = HandsOver(first._inner)  # type: ignore[assignment]
    fork._before()
    second.start()
    fork._in_parent()
    done.set()
    second.join(5)
    assert not second.is_alive()
    free: list[bool] = []
    third = threading.Thread(target=lambda: free.extend(lock.attempt() for lock in (first, last)))
    third.start()
    third.join(5)
    assert free == [True, True]
