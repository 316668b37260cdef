"""The stepper under operations in any order: each answer is the one that its prompt gets alone."""

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from parrot_backend.engines.base import Delta, Grammar, Sampling
from parrot_backend.engines.torch_engine.choose.constraints import Constraint, Grammars
from parrot_backend.engines.torch_engine.choose.vocabulary import Vocabulary
from parrot_backend.engines.torch_engine.load.loaded import LoadedModel

Make = Callable[..., Any]

# 6,000 operations; the machine of the KV memory has as many again.
EXAMPLES, OPERATIONS = 100, 60
ROUNDS, ENOUGH = 5, 20
LONGEST = 20
REGEX = Grammar("regex", "[ab]{2} grey parrots [0-9]", "structured_outputs")
STEMS = [[random.Random(seed).randrange(2, 258) for _ in range(40)] for seed in range(3)]

# Prefixes of one another, with different ends or without.
prompts = st.builds(
    lambda stem, length, tail: stem[:length] + tail,
    st.sampled_from(STEMS),
    st.sampled_from([1, 5, 17, 18, 33, 40]),
    st.sampled_from([[], [7], [7, 8, 9]]),
)
tenants = st.sampled_from(["", "", "other"])
numbers = st.integers(0, 99)


class World:
    """What all examples share: the answers that prompts get alone, and a count of what happened."""

    def __init__(self, make_stepper: Make, tiny: LoadedModel) -> None:
        self.make_stepper = make_stepper
        self.happened: Counter[str] = Counter()
        self.answers: dict[tuple[bool, tuple[int, ...]], list[int]] = {}
        self._grammars = Grammars(
            Vocabulary(tiny.tokenizer, tiny.forward.vocabulary, tiny.end_tokens)
        )

    def constraint(self, constrained: bool) -> Constraint | None:
        return self._grammars.compile(REGEX) if constrained else None

    def alone(self, prompt: list[int], constrained: bool) -> list[int]:
        key = constrained, tuple(prompt)
        if key not in self.answers:
            stepper = self.make_stepper(slots=128)
            constraint = self.constraint(constrained)
            client = stepper.add(prompt, greedy(LONGEST), drafts=False, constraint=constraint)
            stepper.run()
            self.answers[key] = client.tokens
        return self.answers[key]


def greedy(count: int) -> Sampling:
    return Sampling(temperature=0, max_tokens=count)


class StepperMachine(RuleBasedStateMachine):
    """Little memory and a small batch, so that sequences are preempted and prefixes evicted also by
    themselves; `clients` have each the answer that it is to get."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.clients: list[tuple[Any, list[int]]] = []
        self.cancelled: set[int] = set()
        self.expectations: list[object] = []

    @initialize(
        slots=st.sampled_from([64, 96, 200]),
        max_batch=st.sampled_from([1, 2, 5]),
        prefill_budget=st.sampled_from([5, 16, 64]),
    )
    def start(self, **options: int) -> None:
        self.stepper = self.world.make_stepper(**options)
        self.max_batch = options["max_batch"]

    @property
    def unfinished(self) -> list[Any]:
        return [client for client, _ in self.clients if not client.sequence.finished]

    @property
    def scheduler(self) -> Any:
        return self.stepper.stepper._scheduler

    @rule(
        prompt=prompts,
        tenant=tenants,
        priority=st.integers(-1, 1),
        count=st.sampled_from([1, 6, LONGEST]),
        draft=st.sampled_from(["off", "looked up", "right", "wrong"]),
        constrained=st.sampled_from([False, False, False, True]),
        interactive=st.sampled_from([False, False, True]),
    )
    def add(
        self,
        prompt: list[int],
        tenant: str,
        priority: int,
        count: int,
        draft: str,
        constrained: bool,
        interactive: bool,
    ) -> None:
        answer = self.world.alone(prompt, constrained)
        told = {"right": answer, "wrong": [t if i % 3 else 9 for i, t in enumerate(answer)]}
        client = self.stepper.add(
            prompt,
            greedy(count),
            priority,
            tenant,
            draft=told.get(draft, ()),
            drafts=draft != "off",
            constraint=self.world.constraint(constrained),
            interactive=interactive,
        )
        self.clients.append((client, answer[:count]))

    @precondition(lambda self: self.stepper.stepper.busy)
    @rule(steps=st.integers(1, 3))
    def step(self, steps: int) -> None:
        for _ in range(steps):
            if self.stepper.stepper.busy:
                self.stepper.step()

    @precondition(lambda self: self.unfinished)
    @rule(number=numbers)
    def finish(self, number: int) -> None:
        client = self.unfinished[number % len(self.unfinished)]
        while not client.sequence.finished:
            self.stepper.step()

    @precondition(lambda self: self.unfinished)
    @rule(number=numbers)
    def cancel(self, number: int) -> None:
        client = self.unfinished[number % len(self.unfinished)]
        self.stepper.cancel(client)
        self.cancelled.add(id(client))

    @rule(prompt=prompts, tenant=tenants)
    def expect(self, prompt: list[int], tenant: str) -> None:
        self.expectations.append(object())
        self.stepper.stepper.expect(self.expectations[-1], tenant, prompt)

    @precondition(lambda self: self.expectations)
    @rule(number=numbers)
    def unexpect(self, number: int) -> None:
        self.stepper.stepper.unexpect(self.expectations.pop(number % len(self.expectations)))

    @precondition(lambda self: self.stepper.memory.cached)
    @rule(count=st.integers(1, 40))
    def evict(self, count: int) -> None:
        """Somebody takes all free slots and some of the cached ones, and gives them back."""
        memory = self.stepper.memory
        holding = memory.acquire("nobody", [])
        assert memory.extend(holding, min(memory.slots.free + count, memory.available))
        memory.release(holding, [])

    @precondition(lambda self: self.scheduler.running)
    @rule(number=numbers)
    def preempt(self, number: int) -> None:
        running = self.scheduler.running
        self.scheduler._preempt(running[number % len(running)])

    @invariant()
    def the_books_are_right(self) -> None:
        self.stepper.check()
        waiting = {client.sequence for client in self.unfinished if not client.sequence.holding}
        assert set(self.scheduler.waiting) == waiting
        assert set(self.stepper.memory.expected) == waiting | set(self.expectations)
        assert len(self.scheduler.running) <= self.max_batch
        self.world.happened["operations"] += 1

    @invariant()
    def every_answer_is_the_one_that_its_prompt_gets_alone(self) -> None:
        for client, answer in self.clients:
            whole = client.sequence.finished and id(client) not in self.cancelled
            assert client.tokens == (answer if whole else answer[: len(client.tokens)])
            assert not whole or (isinstance(client.last, Delta) and client.last.finish_reason)

    def teardown(self) -> None:
        self.stepper.run()
        self.every_answer_is_the_one_that_its_prompt_gets_alone()
        stats = self.stepper.stepper.stats
        self.world.happened.update(
            finished=len(self.clients) - len(self.cancelled),
            cancelled=len(self.cancelled),
            preempted=self.stepper.preemptions,
            evicted=stats.tokens_evicted,
            shared=stats.tokens_shared,
            drafted=stats.tokens_drafted,
            accepted=stats.tokens_accepted,
            forced=stats.tokens_forced,
            ahead=stats.tokens_prefilled_ahead,
            used=stats.tokens_ahead_used,
            wasted=stats.tokens_ahead_wasted,
        )


def test_operations_in_any_order_change_no_answer(
    make_stepper: Make, tiny: LoadedModel, tiny_reference: Any
) -> None:
    """What is drawn depends on the modules that are loaded, whose constants Hypothesis tries: where one
    round shows too little, another follows, with a few operations more."""
    world = World(make_stepper, tiny)
    for more in range(ROUNDS):
        run_state_machine_as_test(
            lambda: StepperMachine(world),
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=OPERATIONS + more,
                deadline=None,
                derandomize=True,
            ),
        )
        if min(world.happened.values()) >= ENOUGH:
            break
    print(f"{dict(world.happened)}")
    assert world.happened["operations"] > EXAMPLES * OPERATIONS * 0.8
    assert min(world.happened.values()) >= ENOUGH, world.happened
    free = [(list(key[1]), answer) for key, answer in world.answers.items() if not key[0]]
    assert tiny_reference.check_forced(free) == 0
