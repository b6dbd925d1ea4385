"""A world whose processes are threads of one, of which one works at a time.

Some of torch's state, as that of forward mode, is the whole process's.
"""

import threading
from dataclasses import dataclass, field

from scorefield.world import World


class Meeting:
    """Where each of some threads leaves something, and sees what all have left."""

    def __init__(self, size):
        self.barrier, self.left = threading.Barrier(size), [None] * size
        self.turn = threading.Lock()

    def exchange(self, rank, value):
        self.left[rank] = value
        self.turn.release()
        try:
            self.barrier.wait(60)
            found = list(self.left)
            self.barrier.wait(60)
        finally:
            self.turn.acquire()
        return found


@dataclass(frozen=True)
class Thread(World):
    meeting: Meeting = field(default=None, repr=False, compare=False)

    def summing(self, tensor):
        found = self.meeting.exchange(self.rank, tensor.clone())
        tensor.copy_(sum(found[1:], found[0]))
        return lambda: None

    def _from_all(self, tensor):
        return self.meeting.exchange(self.rank, tensor.clone())

    def _objects(self, value):
        return self.meeting.exchange(self.rank, value)

    def _from_first(self, tensor):
        tensor.copy_(self.meeting.exchange(self.rank, tensor.clone())[0])


def together(size, work):
    """What ``work`` returns in each of so many threads, called with its world."""
    meeting, results, errors = Meeting(size), [None] * size, []

    def call(rank):
        meeting.turn.acquire()
        try:
            results[rank] = work(Thread(rank, size, rank, meeting=meeting))
        except BaseException as error:
            if not isinstance(error, threading.BrokenBarrierError):
                errors.append(error)
            meeting.barrier.abort()
        finally:
            meeting.turn.release()

    threads = [threading.Thread(target=call, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results
