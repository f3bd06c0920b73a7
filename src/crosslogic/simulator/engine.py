"""A continuous-batching engine in virtual time: vLLM's scheduler without the model.

Each `step` runs one iteration: every decoding sequence gains one token, then what is left of the token budget
prefills prompts in arrival order, in chunks. The iteration takes T = a + b·decodes + c·ΣKV + d·prefill tokens.
The KV cache is counted in blocks; when a decode finds none, the newest sequence is preempted and later
recomputed. No clock, no I/O, no randomness of its own: the caller owns time and the noise source, so the same
core drives the simulated node in wall-clock time and the planner in virtual time.

Invariant: blocks held by all sequences + free blocks == kv_blocks, and every sequence that was accepted ends as
finished or aborted after finitely many steps. A step costs O(events), not O(running): all decoding sequences
move in lock-step, so lengths are derived from one shared counter instead of being incremented one by one.
"""

import heapq
from collections import OrderedDict
from math import ceil, sqrt

from crosslogic.simulator.model import EngineConfig, Noise, Refusal, Sequence, State, StepResult, StepTime


class Engine:
    """Plan and account iterations; see the module's docstring. Not thread-safe."""

    def __init__(self, config: EngineConfig, step_time: StepTime, noise: Noise | None = None) -> None:
        self.config = config
        self.step_time = step_time
        self.preemptions = 0
        self._noise = noise
        self._waiting: OrderedDict[Sequence, None] = OrderedDict()
        self._prefilling: dict[Sequence, None] = {}  # with _decoding before it: admission order
        self._decoding: dict[Sequence, None] = {}
        self._free = config.kv_blocks
        self._clock = 0  # decode iterations so far
        self._decoding_kv = 0  # ΣKV of the decoding set
        # How many decoding sequences cross a block border when clock % block_tokens == index.
        self._borders = [0] * config.block_tokens
        self._endings: dict[int, list[Sequence]] = {}  # clock at which they emit their last token
        self._ending_clocks: list[int] = []  # a heap of the keys of `_endings`, and of some that were

    # -- what a caller may ask -------------------------------------------------------------------------------

    @property
    def running(self) -> int:
        return len(self._prefilling) + len(self._decoding)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def free_blocks(self) -> int:
        return self._free

    @property
    def kv_used_ratio(self) -> float:
        return 1.0 - self._free / self.config.kv_blocks

    @property
    def idle(self) -> bool:
        return not (self._decoding or self._prefilling or self._waiting)

    def generated(self, sequence: Sequence) -> int:
        """Tokens emitted for this sequence so far."""
        if sequence.state is State.DECODING:
            return sequence._made + self._clock - sequence._joined
        return sequence._made

    def held_blocks(self, sequence: Sequence) -> int:
        """KV blocks that this sequence holds now."""
        if sequence.state is State.DECODING:
            return self._blocks(self._kv_length(sequence))
        if sequence.state is State.PREFILLING:
            return self._blocks(sequence.prompt_tokens + sequence._made)
        return 0

    # -- what a caller may do --------------------------------------------------------------------------------

    def submit(self, sequence: Sequence, now_s: float) -> Refusal | None:
        """Queue a new sequence; the refusal says why it was not taken."""
        if sequence.state is not State.NEW:
            raise ValueError("a sequence is submitted once")
        # The last token is emitted but never stored.
        if self._blocks(sequence.prompt_tokens + sequence.output_tokens - 1) > self.config.kv_blocks:
            return Refusal.TOO_LONG
        if len(self._waiting) >= self.config.max_queue:
            return Refusal.QUEUE_FULL
        sequence.state = State.WAITING
        sequence.submitted_s = now_s
        self._waiting[sequence] = None
        return None

    def abort(self, sequence: Sequence) -> None:
        """Drop a sequence and free its blocks at once; nothing happens when it has already ended."""
        if sequence.state is State.WAITING:
            del self._waiting[sequence]
        elif sequence.state in (State.PREFILLING, State.DECODING):
            self._leave(sequence)
        elif sequence.state is not State.NEW:
            return
        sequence.state = State.ABORTED

    def step(self, now_s: float) -> StepResult:
        """Run one iteration that starts at `now_s`; with no work it takes no time and does nothing."""
        preempted = self._make_room()
        emitted = list(self._decoding)
        decodes = len(emitted)
        finished = self._decode(decodes)
        # The KV read by this iteration includes the sequences that end with it.
        kv_tokens = self._decoding_kv + sum(s.prompt_tokens + s.output_tokens - 1 for s in finished)
        budget = self.config.max_num_batched_tokens - decodes
        first, spent = self._prefill(budget)
        if not preempted:  # as vLLM: no admission in an iteration that had to preempt
            admitted, more = self._admit(budget - spent, now_s)
            first += admitted
            spent += more
        duration_s = 0.0
        if decodes or spent:
            duration_s = self.step_time.duration_s(decodes, kv_tokens, spent)
            if self._noise is not None and self.config.noise_sigma:
                sigma = self.config.noise_sigma
                duration_s *= self._noise.lognormvariate(-sigma * sigma / 2, sigma)
        end_s = now_s + duration_s
        for sequence in first:
            if sequence.first_token_s is None:
                sequence.first_token_s = end_s
            if sequence.state is State.FINISHED:
                finished.append(sequence)
        for sequence in finished:
            sequence.finished_s = end_s
        return StepResult(duration_s, emitted + first, first, finished, preempted, decodes, kv_tokens, spent)

    def leap(self, now_s: float, until_s: float) -> float:
        """Run at once the iterations from `now_s` on in which nothing happens but one more token for each sequence.

        It stops before an iteration that starts at `until_s` or later, ends a sequence, or can admit or must preempt
        one, and returns when the last one ended; `now_s` when there is none. What `step` would have done in as many
        calls is done, but for rounding and noise; for callers in virtual time, which ask for no single token.
        """
        decodes = len(self._decoding)
        if not decodes or self._prefilling or (self._noise is not None and self.config.noise_sigma):
            return now_s
        if self._waiting and self.running < self.config.max_num_seqs:
            first = next(iter(self._waiting))
            if self._blocks(first.prompt_tokens + first._made) <= self._free:
                return now_s
        steps = min(self._next_ending() - self._clock - 1, self._steps_with_room(decodes))
        time = self.step_time
        growth = time.c_s * decodes
        each_s = time.fixed_s(decodes) + time.c_s * self._decoding_kv + growth / 2
        # k steps take k·each + growth·k²/2; the last one is that in which `until_s` is reached.
        wanted_s = max(0.0, until_s - now_s)
        if wanted_s < steps * each_s + growth * steps * steps / 2:
            pace_s = (each_s + sqrt(each_s * each_s + 2 * growth * wanted_s)) / 2
            steps = min(steps, ceil(wanted_s / pace_s) if pace_s else steps)
        if steps <= 0:
            return now_s
        cycles, rest = divmod(steps, self.config.block_tokens)
        slots = (self._borders[(self._clock + i) % self.config.block_tokens] for i in range(rest))
        self._free -= cycles * decodes + sum(slots)
        self._clock += steps
        self._decoding_kv += decodes * steps
        return now_s + steps * each_s + growth * steps * steps / 2

    # -- inside ----------------------------------------------------------------------------------------------

    def _next_ending(self) -> int:
        clocks = self._ending_clocks
        while clocks[0] not in self._endings:
            heapq.heappop(clocks)
        return clocks[0]

    def _steps_with_room(self, decodes: int) -> int:
        """How many iterations find blocks for all decodes."""
        cycles, room = divmod(self._free, decodes)
        steps = cycles * self.config.block_tokens
        for index in range(self.config.block_tokens):
            room -= self._borders[(self._clock + index) % self.config.block_tokens]
            if room < 0:
                return steps + index
        return steps + self.config.block_tokens

    def _blocks(self, tokens: int) -> int:
        return -(-tokens // self.config.block_tokens)

    def _kv_length(self, sequence: Sequence) -> int:
        return sequence._kv_at_join + self._clock - sequence._joined

    def _border(self, sequence: Sequence) -> int:
        return (sequence._joined - sequence._kv_at_join) % self.config.block_tokens

    def _make_room(self) -> list[Sequence]:
        """Preempt the newest sequences until every remaining decode can store its token."""
        preempted: list[Sequence] = []
        slot = self._clock % self.config.block_tokens
        while self._borders[slot] > self._free:
            newest = next(reversed(self._prefilling or self._decoding))
            self._leave(newest)
            newest.state = State.WAITING
            newest.preemptions += 1
            self.preemptions += 1
            self._waiting[newest] = None
            self._waiting.move_to_end(newest, last=False)  # it keeps its place in the order of arrival
            preempted.append(newest)
        return preempted

    def _decode(self, decodes: int) -> list[Sequence]:
        """One more token for every decoding sequence; returns those that are complete with it."""
        if not decodes:
            return []
        self._free -= self._borders[self._clock % self.config.block_tokens]
        self._clock += 1
        self._decoding_kv += decodes
        finished = self._endings.pop(self._clock, [])
        for sequence in finished:
            self._leave(sequence, ending=True)
            sequence.state = State.FINISHED
        return finished

    def _prefill(self, budget: int) -> tuple[list[Sequence], int]:
        """Chunks for the prompts under way, oldest first; returns the completed ones and the tokens spent."""
        completed: list[Sequence] = []
        spent = 0
        for sequence in self._prefilling:
            if spent >= budget:
                break
            chunk = min(budget - spent, sequence.prompt_tokens + sequence._made - sequence._computed)
            sequence._computed += chunk
            spent += chunk
            if sequence._computed == sequence.prompt_tokens + sequence._made:
                completed.append(sequence)
        for sequence in completed:
            del self._prefilling[sequence]
            self._join(sequence)
        return completed, spent

    def _admit(self, budget: int, now_s: float) -> tuple[list[Sequence], int]:
        """Start waiting sequences in order of arrival while seats, blocks and token budget last.

        All blocks of the prompt are taken at admission: a prompt that could not be completed is not begun.
        """
        completed: list[Sequence] = []
        spent = 0
        while self._waiting and spent < budget and self.running < self.config.max_num_seqs:
            sequence = next(iter(self._waiting))
            target = sequence.prompt_tokens + sequence._made
            needed = self._blocks(target)
            if needed > self._free:
                break
            del self._waiting[sequence]
            self._free -= needed
            # At least one token is always computed, to sample from.
            start = min(sequence.cached_tokens, target - 1)
            chunk = min(budget - spent, target - start)
            sequence._computed = start + chunk
            sequence.state = State.PREFILLING
            if sequence.admitted_s is None:
                sequence.admitted_s = now_s
            spent += chunk
            if sequence._computed == target:
                self._join(sequence)
                completed.append(sequence)
            else:
                self._prefilling[sequence] = None
        return completed, spent

    def _join(self, sequence: Sequence) -> None:
        """The prefill is complete: it emits a token now and decodes from the next iteration on."""
        length = sequence.prompt_tokens + sequence._made
        sequence._made += 1
        remaining = sequence.output_tokens - sequence._made
        if remaining == 0:
            sequence.state = State.FINISHED
            self._free += self._blocks(length)
            return
        sequence.state = State.DECODING
        sequence._joined = self._clock
        sequence._kv_at_join = length
        self._decoding[sequence] = None
        self._decoding_kv += length
        self._borders[self._border(sequence)] += 1
        ends = self._clock + remaining
        if ends not in self._endings:
            self._endings[ends] = []
            heapq.heappush(self._ending_clocks, ends)
        self._endings[ends].append(sequence)

    def _leave(self, sequence: Sequence, *, ending: bool = False) -> None:
        """Give back all that a running sequence holds. `ending`: already taken out of `_endings`."""
        self._free += self.held_blocks(sequence)
        if sequence.state is State.PREFILLING:
            del self._prefilling[sequence]
        else:
            if not ending:
                ends = self._joined_until(sequence)
                self._endings[ends].remove(sequence)
                if not self._endings[ends]:
                    del self._endings[ends]
            self._borders[self._border(sequence)] -= 1
            self._decoding_kv -= self._kv_length(sequence)
            made = self.generated(sequence)
            del self._decoding[sequence]
            sequence._made = made
        sequence._computed = 0

    def _joined_until(self, sequence: Sequence) -> int:
        return sequence._joined + sequence.output_tokens - sequence._made
