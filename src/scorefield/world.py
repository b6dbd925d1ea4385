r"""The processes of one run, from one to a cluster: who has which rows, sums, rows in order.

The contract is torchrun's environment: ``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``, ``MASTER_ADDR``
and ``MASTER_PORT``. Work on :math:`n` rows is shared out in consecutive parts whose sizes differ by
one at most, and what it gives is summed, or gathered in the order of the rows. One process alone
does all of it, and pays nothing: what :data:`ALONE` is given, it returns.

All processes have to ask for the same things in the same order. Where one of them has ended, or
does not answer within the timeout, the others get a :class:`~.LostProcessError`.
"""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from threading import Thread
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.rendezvous import rendezvous

from scorefield.errors import LostProcessError, UserError, out_of_memory, sentence

T = TypeVar("T")

_ENVIRONMENT = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_FAULT, _SPOKEN, _ENDING = "fault", "spoken", "ending"
_PIECE = 2**28  # bytes
_LETTERS = 250
_PATIENCE, _GLANCE = 3.0, 0.05  # seconds


@dataclass(frozen=True)
class World:
    """One of the processes of a run, by default the only one.

    Attributes:
        rank: Its number, from 0; the first one writes.
        size: The number of processes.
        local: Its number on its machine, which is that of its CUDA device.
        timeout: The seconds after which a process that does not answer is given up.
    """

    rank: int = 0
    size: int = 1
    local: int = 0
    timeout: float = 1800.0
    _store: Any = field(default=None, repr=False, compare=False)

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def rows(self, n: int) -> slice:
        """The share of ``n`` rows that is this process's."""
        return self._rows_of(self.rank, n)

    def total(self, shares: Sequence[Tensor]) -> Sequence[Tensor]:
        """The sums of scalars over all processes, in one message."""
        if self.size == 1:
            return shares
        stacked = torch.stack([share.to(torch.float64) for share in shares])
        self.summing(stacked)()
        return [total.to(share.dtype) for total, share in zip(stacked, shares, strict=True)]

    def summing(self, tensor: Tensor) -> Callable[[], object]:
        """Begins to replace a tensor by its sum over all processes, of which there are several, and
        returns what waits for the end of that.
        """
        work = self._answered(lambda: dist.all_reduce(tensor, async_op=True))
        assert work is not None
        return lambda: self._answered(work.wait)

    def gather(self, share: Tensor, n: int) -> Tensor:
        """All ``n`` rows, of which this process has its :meth:`rows`, in order."""
        if self.size == 1:
            return share
        longest = -(-n // self.size)
        padded = share.new_zeros(longest, *share.shape[1:])
        padded[: len(share)] = share
        parts = self._from_all(padded)
        lengths = (len(range(n)[self._rows_of(rank, n)]) for rank in range(self.size))
        return torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])

    def map(self, n: int, function: Callable[[Tensor], Tensor]) -> Tensor:
        """The rows of 0 … n - 1 under a function of indices, each process at its own, in order."""
        share = torch.arange(n)[self.rows(n)]
        # What a row looks like, a process without any sees at the first.
        found = function(share) if len(share) else function(torch.arange(1))[:0]
        return self.gather(found, n)

    def each(self, tasks: Sequence[Callable[[], T]]) -> list[T]:
        """What tasks return, shared out to the processes in turns, in the order of the tasks."""
        own = [task() for task in tasks[self.rank :: self.size]]
        if self.size == 1:
            return own
        shares = self._objects(own)
        return [shares[k % self.size][k // self.size] for k in range(len(tasks))]

    def any(self, flag: bool) -> bool:
        """Whether a flag is set in any process."""
        return flag if self.size == 1 else bool(self.total([torch.tensor(int(flag))])[0])

    def first_words(self, words: str) -> str:
        """The words of the first process that has any; of 250 letters at most."""
        content = torch.zeros(1, _LETTERS, dtype=torch.uint8)
        letters = words.encode("ascii", "replace")[:_LETTERS]
        content[0, : len(letters)] = torch.tensor(list(letters), dtype=torch.uint8)
        for row in self.gather(content, self.size).tolist():
            if any(row):
                return bytes(row).rstrip(b"\0").decode()
        return ""

    @contextmanager
    def first_goes_first(self) -> Iterator[None]:
        """The first process is done with the context before the others begin."""
        if not self.first:
            self.any(False)
        yield
        if self.first:
            self.any(False)

    def from_first(self, *tensors: Tensor) -> None:
        """Replaces tensors on the CPU by those of the first process; there are several."""
        for tensor in tensors:
            self._from_first(tensor)

    def broadcast(self, give: Callable[[], Any]) -> Any:
        """What the first process is given by a function, which only that one calls: tensors on the
        CPU, numbers, texts, and containers of them.
        """
        if self.size == 1:
            return give()
        content = torch.empty(0, dtype=torch.uint8)
        if self.first:
            buffer = io.BytesIO()
            torch.save(give(), buffer)
            content = torch.frombuffer(buffer.getbuffer(), dtype=torch.uint8)
        length = torch.tensor(len(content))
        self._from_first(length)
        if not self.first:
            content = torch.empty(int(length), dtype=torch.uint8)
        for piece in content.split(_PIECE):
            self._from_first(piece)
        return torch.load(io.BytesIO(content.numpy().tobytes()), weights_only=True)

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Of messages that torch sends by itself inside of the context, too, those that are not
        answered raise what those of this class do.
        """
        try:
            yield
        except RuntimeError as error:
            # Of an error of this package, a folder may have that in its name.
            plain = type(error) is RuntimeError and "gloo" in str(error)
            if not (isinstance(error, dist.DistError) or plain):
                raise
            raise self._lost() from error

    def agree(self, facts: Mapping[str, object]) -> None:
        """Compares what has to be the same in all processes, by the hashes of its texts.

        Raises:
            UserError: In all of them, if it is not: it names the first that differs, and where.
        """
        texts = [repr(list(facts)), *map(str, facts.values())]
        digests = [hashlib.blake2b(text.encode(), digest_size=7).digest() for text in texts]
        # Facts of other names are of another number: theirs are compared by the names alone.
        for names, found in ((["names"], digests[:1]), (list(facts), digests[1:])):
            numbers = torch.tensor([[int.from_bytes(digest, "big") for digest in found]])
            everywhere = self.gather(numbers, self.size)
            for rank, place in (everywhere != everywhere[:1]).nonzero().tolist()[:1]:
                raise UserError(
                    f"process {rank} differs from process 0 in {names[place]}: all processes of a "
                    "run need the same code, data and settings"
                )

    def leave_word(self, words: str) -> None:
        """Leaves word of why this process ends, which the first one prints itself, once the others
        have heard it: the store may end with that one.
        """
        self._from_store(lambda: self._store.set(_FAULT, f"process {self.rank}: {words}"))
        if self.first:
            self._from_store(lambda: self._store.add(_SPOKEN, 1))
        self._from_store(self._hang_up)

    def _rows_of(self, rank: int, n: int) -> slice:
        return slice(rank * n // self.size, (rank + 1) * n // self.size)

    def _from_all(self, tensor: Tensor) -> list[Tensor]:
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        self._answered(lambda: dist.all_gather(parts, tensor))
        return parts

    def _objects(self, value: list[T]) -> list[list[T]]:
        found: list[Any] = [None] * self.size
        self._answered(lambda: dist.all_gather_object(found, value))
        return found

    def _from_first(self, tensor: Tensor) -> None:
        self._answered(lambda: dist.broadcast(tensor, 0))

    def _answered(self, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except RuntimeError as error:
            if out_of_memory(error):
                raise
            raise self._lost() from error

    def _lost(self) -> LostProcessError:
        silence = (
            f"one of the {self.size} processes has ended, or did not answer for {self.timeout:g} s"
        )
        # The store may end with the first process; the second one speaks then.
        word, speaks = self._from_store(self._word_and_voice) or (None, self.rank == 1)
        return LostProcessError(word or silence, speaks)

    def _hang_up(self) -> None:
        ending = self._store.add(_ENDING, 1)
        # The others, which wait for an answer, notice it.
        dist.destroy_process_group()
        while self.first and ending < self.size:
            time.sleep(_GLANCE)
            ending = self._store.add(_ENDING, 0)

    def _word_and_voice(self) -> tuple[str | None, bool]:
        """What a process has left, and whether no other one has spoken of it."""
        self._store.add(_ENDING, 1)
        word = self._store.get(_FAULT).decode() if self._store.check([_FAULT]) else None
        return word, self._store.add(_SPOKEN, 1) == 1

    def _from_store(self, ask: Callable[[], T]) -> T | None:
        """What the common store answers; nothing if it has ended too, or hangs."""
        found: list[T] = []

        def call() -> None:
            with suppress(RuntimeError):
                found.append(ask())

        thread = Thread(target=call, daemon=True)
        with suppress(RuntimeError):  # too little memory for a thread
            thread.start()
            thread.join(_PATIENCE)
        return found[0] if found else None


ALONE = World()
"""The world of one process."""

met = False
"""Whether this process has met the others, and can leave word for them."""


@contextmanager
def joined(timeout: float = 1800.0, cuda: bool = False) -> Iterator[World]:
    """The world of the processes that torchrun, or anything with its environment, has started;
    :data:`ALONE` where there is one only.

    A process that ends by an error leaves word of it, which is what the others then say.

    Arguments:
        timeout: The seconds after which a process that does not answer is given up.
        cuda: Whether tensors are on CUDA devices.

    Raises:
        UserError: If the environment is not complete, or the processes do not find each other.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield ALONE
        return
    global met
    missing = [name for name in _ENVIRONMENT if name not in os.environ]
    if missing:
        raise UserError(f"the environment has WORLD_SIZE, and lacks {missing[0]}")
    rank, size, local = (int(os.environ[name]) for name in _ENVIRONMENT[:3])
    waited = timedelta(seconds=timeout)
    try:
        found, _, _ = next(rendezvous("env://", rank, size, timeout=waited))
        found.set_timeout(waited)
        # What processes before a restart have left is not theirs who come after it.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = dist.PrefixStore(f"scorefield/{attempt}", found)  # type: ignore[attr-defined]
        backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=waited)
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise UserError(
            f"process {rank} of {size} did not find the others at {where} for {timeout:g} s"
        ) from error
    world, met = World(rank, size, local, timeout, store), True
    try:
        yield world
    except LostProcessError:
        raise
    except KeyboardInterrupt:
        world.leave_word("it was interrupted")
        raise
    except BaseException as error:
        world.leave_word(sentence(error) or f"{type(error).__name__}: {error}")
        raise
    dist.destroy_process_group()
