"""Launches, bytes and arithmetic of programs that are small enough to count by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from kamcl_jax.benchmark import hlo, launches
from kamcl_jax.benchmark.accelerators import ACCELERATORS
from kamcl_jax.benchmark.launches import GRU_STEP_SECONDS, Kernel, Loop, Work

H100 = ACCELERATORS["h100"]

PROGRAM = """
HloModule step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%write_row (rows: f32[10,64], row: f32[64], i: s32[]) -> f32[10,64] {
  %rows = f32[10,64]{1,0} parameter(0)
  %row = f32[64]{0} parameter(1)
  %i = s32[] parameter(2)
  %zero = s32[] constant(0)
  %one_row = f32[1,64]{1,0} bitcast(%row)
  ROOT %changed = f32[10,64]{1,0} dynamic-update-slice(%rows, %one_row, %i, %zero)
}

%read_row (rows.1: f32[10,64], i.1: s32[]) -> f32[64] {
  %rows.1 = f32[10,64]{1,0} parameter(0)
  %i.1 = s32[] parameter(1)
  %zero.1 = s32[] constant(0)
  %flat = f32[10,64]{1,0} bitcast(%rows.1)
  %read = f32[1,64]{1,0} dynamic-slice(%flat, %i.1, %zero.1), dynamic_slice_sizes={1,64}
  ROOT %one = f32[64]{0} bitcast(%read)
}

%next (i.2: s32[]) -> s32[] {
  %i.2 = s32[] parameter(0)
  %step = s32[] constant(1)
  ROOT %after = s32[] add(%i.2, %step)
}

%below (i.3: s32[], n: s32[]) -> pred[] {
  %i.3 = s32[] parameter(0)
  %n = s32[] parameter(1)
  ROOT %less = pred[] compare(%i.3, %n), direction=LT
}

%body (state: (s32[], f32[10,64], s32[])) -> (s32[], f32[10,64], s32[]) {
  %state = (s32[], f32[10,64]{1,0}, s32[]) parameter(0)
  %place = s32[] get-tuple-element(%state), index=0
  %all = f32[10,64]{1,0} get-tuple-element(%state), index=1
  %most = s32[] get-tuple-element(%state), index=2
  %slice = f32[64]{0} fusion(%all, %place), kind=kLoop, calls=%read_row
  %put = f32[10,64]{1,0} fusion(%all, %slice, %place), kind=kLoop, calls=%write_row, \
metadata={op_name="jit(step)/Encoder.encode_texts/text/gru/while/body/scatter"}
  %further = s32[] fusion(%place), kind=kLoop, calls=%next
  ROOT %out = (s32[], f32[10,64]{1,0}, s32[]) tuple(%further, %put, %most)
}

%condition (state.1: (s32[], f32[10,64], s32[])) -> pred[] {
  %state.1 = (s32[], f32[10,64]{1,0}, s32[]) parameter(0)
  %place.1 = s32[] get-tuple-element(%state.1), index=0
  %most.1 = s32[] get-tuple-element(%state.1), index=2
  ROOT %go = pred[] fusion(%place.1, %most.1), kind=kLoop, calls=%below
}

%cheap (x.5: f32[8,64]) -> f32[8,64] {
  ROOT %x.5 = f32[8,64]{1,0} parameter(0)
}

%dear (x.6: f32[8,64]) -> f32[8,64] {
  %x.6 = f32[8,64]{1,0} parameter(0)
  %copied = f32[8,64]{0,1} copy(%x.6)
  ROOT %back = f32[8,64]{1,0} copy(%copied)
}

ENTRY %main (x: f32[8,32], w: f32[32,64], rows.5: f32[10,64], last: s32[]) -> f32[8,64] {
  %x = f32[8,32]{1,0} parameter(0)
  %w = f32[32,64]{1,0} parameter(1)
  %rows.5 = f32[10,64]{1,0} parameter(2)
  %last = s32[] parameter(3)
  %start = s32[] constant(0)
  %carried = (s32[], f32[10,64]{1,0}, s32[]) tuple(%start, %rows.5, %last)
  %known = (s32[], f32[10,64]{1,0}, s32[]) while(%carried), condition=%condition, body=%body, \
metadata={op_name="jit(step)/known"}, backend_config={"known_trip_count":{"n":"10"}}
  %open = (s32[], f32[10,64]{1,0}, s32[]) while(%known), condition=%condition, body=%body
  %gemm = (f32[8,64]{1,0}, s8[33554432]{0}) custom-call(%x, %w), \
custom_call_target="__cublas$lt$matmul", backend_config={"gemm_backend_config":{\
"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"],\
"lhs_batch_dimensions":[]},"precision_config":{"operand_precision":["DEFAULT","DEFAULT"]}}}
  %product = f32[8,64]{1,0} get-tuple-element(%gemm), index=0
  %sending = f32[8,64]{1,0} all-reduce-start(%product), channel_id=1, to_apply=%add
  %other = f32[8,64]{0,1} copy(%product)
  %sent = f32[8,64]{1,0} all-reduce-done(%sending)
  %sending.1 = f32[8,64]{1,0} all-reduce-start(%sent), channel_id=2, to_apply=%add
  %sent.1 = f32[8,64]{1,0} all-reduce-done(%sending.1)
  %ranked = u8[8,64]{1,0} custom-call(%sent.1), custom_call_target="__gpu$xla.gpu.triton", \
metadata={op_name="jit(step)/count_ahead/pallas_call"}, \
backend_config={grid_x = 1 : i32, ir = "ML", name = "count_ahead", num_stages = 3 : i32}
  %mystery = f32[8,64]{1,0} custom-call(%sent.1), custom_call_target="__gpu$xla.gpu.triton", \
metadata={op_name="jit(step)/mystery/pallas_call"}
  %either = f32[8,64]{1,0} conditional(%last, %mystery, %mystery), \
branch_computations={%cheap, %dear}
  ROOT %sorted = f32[8,64]{1,0} sort(%either), dimensions={1}, to_apply=%add
}
"""
TRIPS = 7  # of the loop whose trips depend on the data
ROW, MATRIX = 64 * 4, 8 * 64 * 4


@pytest.fixture(scope="module")
def program():
    return hlo.parse(PROGRAM)


@pytest.fixture(scope="module")
def kernels(program):
    return launches.kernels(program, TRIPS)


@pytest.fixture(scope="module")
def outside(kernels):
    return {kernel.name: kernel for kernel in kernels if not kernel.loops}


def test_loops_count_with_all_of_their_trips(kernels):
    known = [
        kernel
        for kernel in kernels
        if kernel.loops == (Loop("known", "jit(step)/known", 10, True),)
    ]
    assert [(kernel.name, kernel.times) for kernel in known] == [
        ("slice", 10),
        ("put", 10),
        ("further", 10),
    ]
    # The condition of the other is a kernel, too.
    unknown = [kernel for kernel in kernels if kernel.loops == (Loop("open", "", TRIPS, False),)]
    assert launches.launches(unknown) == TRIPS * 4


def test_each_kernel_outside_of_loops_is_one_launch(outside, kernels):
    expected = {"gemm", "sending", "other", "sending.1", "ranked", "mystery", "copied", "back"}
    assert set(outside) == {*expected, "sorted"}  # of the branches, the one with more launches
    assert launches.launches(kernels) == 9 + 30 + 4 * TRIPS


def test_of_an_array_in_a_loop_only_the_row_counts(kernels):
    first = {kernel.name: kernel.work for kernel in reversed(kernels)}
    assert first["slice"].bytes == 2 * ROW + 4  # and the number of the row
    assert first["put"].bytes == 2 * ROW + 4
    in_loops = [kernel for kernel in kernels if kernel.loops]
    assert launches.traffic(in_loops) == 17 * (4 * ROW + 8 + 2 * 4) + TRIPS * (4 + 4 + 1)


def test_a_kernel_of_a_loop_is_where_the_loop_is(kernels):
    put = next(kernel for kernel in kernels if kernel.name == "put")
    assert (put.place.rpartition("/")[2], put.origin) == ("scatter", "jit(step)/known")


def test_a_product_reads_its_operands_and_writes_no_workspace(outside):
    work = outside["gemm"].work
    assert work == Work(2 * 8 * 64 * 32, "float32", bytes=4 * (8 * 32 + 32 * 64) + MATRIX)
    assert launches.products(outside.values()) == work.products


def test_pallas_kernels_are_known_by_their_names_or_named(outside):
    assert outside["ranked"].work == Work(simple=8 * 8 * 64 * 64, bytes=MATRIX + 8 * 64)
    assert outside["ranked"].uncounted == ""
    assert outside["mystery"].uncounted == "mystery"
    assert outside["mystery"].work == Work(bytes=2 * MATRIX)


def test_a_recurrence_takes_the_time_of_its_steps():
    states = hlo.Array("f32", (2, 5, 192, 32))
    work = launches.PALLAS["gpo_gru_forward"]((), (states,))
    assert work.seconds(H100) == 192 * GRU_STEP_SECONDS


def test_a_collective_overlaps_if_a_kernel_comes_before_its_end(program):
    assert launches.overlapped(program) == 1


def test_the_slowest_unit_bounds_a_kernel():
    work = Work(products=495e9, simple=33.5e9 / 2, bytes=3.35e9 / 4)
    assert work.seconds(H100) == pytest.approx(1e-3)
    assert dataclasses.replace(work, precision="bfloat16").seconds(H100) < 0.6e-3
    assert dataclasses.replace(work, precision="float32 highest").seconds(H100) > 7e-3
    assert dataclasses.replace(work, bytes=6.7e9).seconds(H100) == pytest.approx(2e-3)
    assert dataclasses.replace(work, latency=3e-3).seconds(H100) == 3e-3
    kernel = Kernel("twice", "", 2, work)
    assert kernel.seconds(H100) == pytest.approx(2 * (1e-3 + H100.launch))


FUSION = """
HloModule step

%fused (p: f32[34,100,64], q: f32[100,64]) -> f32[104,64] {
  %p = f32[34,100,64]{2,1,0} parameter(0)
  %q = f32[100,64]{1,0} parameter(1)
  %none = f32[] constant(0)
  %wide = f32[34,104,64]{2,1,0} pad(%p, %none), padding=0_0x0_4x0_0
  %minus = f32[34,104,64]{2,1,0} negate(%wide)
  %step = f32[1,104,64]{2,1,0} slice(%minus), slice={[3:4], [0:104], [0:64]}
  %flat = f32[104,64]{1,0} bitcast(%step)
  %mine = f32[104,64]{1,0} pad(%q, %none), padding=0_4x0_0
  ROOT %product = f32[104,64]{1,0} multiply(%flat, %mine)
}

ENTRY %main (a: f32[34,100,64], b: f32[100,64]) -> f32[104,64] {
  %a = f32[34,100,64]{2,1,0} parameter(0)
  %b = f32[100,64]{1,0} parameter(1)
  ROOT %out = f32[104,64]{1,0} fusion(%a, %b), kind=kLoop, calls=%fused
}
"""


def test_a_fusion_reads_and_computes_only_what_goes_into_its_result():
    (kernel,) = launches.kernels(hlo.parse(FUSION), TRIPS)
    assert kernel.work.bytes == pytest.approx(4 * (2 * 100 * 64 + 104 * 64))
    assert kernel.work.simple == pytest.approx(2 * 104 * 64)


CONVOLUTION = """
HloModule step

ENTRY %main (x: f32[2,16,16,8], k: f32[32,3,3,8], y: f32[2,8,8,32]) -> f32[2,8,8,32] {{
  %x = f32[2,16,16,8]{{3,2,1,0}} parameter(0)
  %k = f32[32,3,3,8]{{3,2,1,0}} parameter(1)
  %y = f32[2,8,8,32]{{3,2,1,0}} parameter(2)
  ROOT %conv = ({result}, u8[0]{{0}}) custom-call({operands}), \
window={{size=3x3 pad=0_1x0_1 stride=2x2}}, dim_labels=b01f_o01i->b01f, \
custom_call_target="__cudnn$conv{kind}"
}}
"""


# Of the three places of the window, the last one lies on padding once an axis.
FORWARD = 2 * 2 * 32 * 8 * (8 * 3 - 1) ** 2


@pytest.mark.parametrize(
    ("kind", "result", "operands"),
    [
        ("Forward", "f32[2,8,8,32]{3,2,1,0}", "%x, %k"),
        ("BackwardInput", "f32[2,16,16,8]{3,2,1,0}", "%y, %k"),
        ("BackwardFilter", "f32[32,3,3,8]{3,2,1,0}", "%x, %y"),
    ],
)
def test_a_convolution_and_its_gradients_take_the_same_products(kind, result, operands):
    text = CONVOLUTION.format(kind=kind, result=result, operands=operands)
    (kernel,) = launches.kernels(hlo.parse(text), TRIPS)
    assert kernel.work.products == FORWARD
    arrays = {"%x": 2 * 16 * 16 * 8, "%k": 32 * 9 * 8, "%y": 2 * 8 * 8 * 32}
    assert kernel.work.bytes == 4 * sum(arrays.values())


def compiled(function, *arguments):
    program = hlo.parse(jax.jit(function).lower(*arguments).compile().as_text())
    return launches.kernels(program, TRIPS)


def test_products_of_compiled_programs():
    x, w = jnp.ones((4, 16)), jnp.ones((16, 16))

    def scanned(x, w):
        return jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, length=5)[0]

    assert launches.products(compiled(scanned, x, w)) == 5 * 2 * 4 * 16 * 16

    def bounded(x, w, most):
        return jax.lax.fori_loop(0, most, lambda _, x: jnp.tanh(x @ w), x)

    assert launches.products(compiled(bounded, x, w, 3)) == TRIPS * 2 * 4 * 16 * 16


def test_products_of_compiled_convolutions():
    images, kernel = jnp.ones((2, 16, 16, 8)), jnp.ones((3, 3, 8, 32))

    def squares(images, kernel):
        made = jax.lax.conv_general_dilated(
            images, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return jnp.sum(made**2)

    assert launches.products(compiled(squares, images, kernel)) == FORWARD
    gradients = compiled(jax.grad(squares, argnums=(0, 1)), images, kernel)
    assert launches.products(gradients) == 3 * FORWARD
