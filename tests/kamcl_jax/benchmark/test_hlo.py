import dataclasses

import jax
import jax.numpy as jnp
import pytest

from kamcl_jax.benchmark import hlo
from kamcl_jax.benchmark.hlo import Array

PROGRAM = """
HloModule jit_step, is_scheduled=true, entry_computation_layout={(f32[2,3]{1,0})->f32[]}

%body (state: (s32[], f32[2,3])) -> (s32[], f32[2,3]) {
  ROOT %state = (s32[], f32[2,3]{1,0}) parameter(0)
}

%condition.1 (state.1: (s32[], f32[2,3])) -> pred[] {
  %state.1 = (s32[], f32[2,3]{1,0}) parameter(0)
  %place = s32[] get-tuple-element(%state.1), index=0
  %most = s32[] constant(34)
  ROOT %below = pred[] compare(%place, %most), direction=LT
}

ENTRY %main.7 (x: f32[2,3]) -> (s32[], f32[2,3]) {
  %x = f32[2,3]{1,0:T(8,128)S(1)} parameter(0), sharding={replicated}
  %numbers = s32[3]{0} constant({33, 0, 0})
  %start = (s32[], /*index=1*/f32[2,3]{1,0}) tuple(%numbers, %x)
  ROOT %loop = (s32[], f32[2,3]{1,0}) while(%start), condition=%condition.1, body=%body, \
metadata={op_name="jit(step)/while" stack_frame_id=1}, \
backend_config={"known_trip_count":{"n":"68"},"known_init_step":{"init":"0","step":"1"}}
}
"""


@pytest.fixture(scope="module")
def program():
    return hlo.parse(PROGRAM)


def test_operations_have_kinds_arrays_and_places(program):
    entry = program.entry
    assert (entry.name, entry.root) == ("main.7", "loop")
    kinds = [operation.kind for operation in entry.operations]
    assert kinds == ["parameter", "constant", "tuple", "while"]
    loop = entry.by_name["loop"]
    assert loop.results == (Array("s32", ()), Array("f32", (2, 3)))
    assert loop.operands == ("start",)
    assert loop.place == "jit(step)/while"
    given = entry.operands(entry.by_name["start"])
    assert given == (Array("s32", (3,)), Array("f32", (2, 3), near=True))


def test_an_operation_names_the_computations_that_it_runs(program):
    loop = program.entry.by_name["loop"]
    assert [called.name for called in program.called(loop)] == ["condition.1", "body"]
    assert program.called(program.entry.by_name["x"]) == []


def test_a_loop_says_its_trips_or_its_condition_does(program):
    loop = program.entry.by_name["loop"]
    assert program.trips(loop) == 68
    (names, _) = loop.attributes.split("backend_config")
    assert program.trips(dataclasses.replace(loop, attributes=names)) == 34
    open_ended = PROGRAM.replace("s32[] constant(34)", "s32[] get-tuple-element(%state.1), index=0")
    loop = dataclasses.replace(loop, attributes=names)
    assert hlo.parse(open_ended).trips(loop) is None


@pytest.mark.parametrize(
    ("array", "size"),
    [
        (Array("f32", (2, 3)), 24),
        (Array("bf16", (5,)), 10),
        (Array("pred", (7,)), 7),
        (Array("f8e4m3fn", (4,)), 4),
        (Array("s4", (6,)), 3),
        (Array("s32", ()), 4),
        (Array("token", ()), 0),
    ],
)
def test_bytes_follow_from_the_dtype(array, size):
    assert array.bytes == size


def test_a_compiled_program_is_read():
    def function(x):
        return jax.lax.scan(lambda carry, _: (jnp.tanh(carry @ x), None), x, length=5)[0]

    program = hlo.parse(jax.jit(function).lower(jnp.ones((4, 4))).compile().as_text())
    loops = [
        operation
        for computation in program.computations.values()
        for operation in computation.operations
        if operation.kind == "while"
    ]
    assert [program.trips(loop) for loop in loops] == [5]
    assert {called.name for called in program.called(loops[0])} <= set(program.computations)
