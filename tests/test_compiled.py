"""What `benchmarks/compiled.py` reads out of a compiled program; no GPU needed."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from benchmarks import compiled, kernel_counts
from benchmarks.clustered import Size
from benchmarks.kernel_counts import Conditional, Loop
from benchmarks.programs import PROGRAMS, Program

SMALL = Size(40, 300, 64, 10, 20)

# A loop of 5 trips, in it one of 3 and one of unknown length, in that a conditional.
TEXT = """\
HloModule jit_example, is_scheduled=true, entry_computation_layout={(f32[8]{0})->f32[8]}

FileNames
1 "a (name) -> {"

%fused (p.0: f32[8]) -> f32[8] {
  %p.0 = f32[8]{0} parameter(0)
  ROOT %sine.1 = f32[8]{0} sine(%p.0)
}

%less (a.1: f32[], b.1: f32[], c.1: s32[], d.1: s32[]) -> pred[] {
  %a.1 = f32[] parameter(0)
  %b.1 = f32[] parameter(1)
  ROOT %compare.1 = pred[] compare(%a.1, %b.1), direction=LT
}

%fused_sort (p.1: f32[64,19342]) -> (f32[64,19342], s32[64,19342]) {
  %p.1 = f32[64,19342]{1,0} parameter(0)
  %iota.1 = s32[64,19342]{1,0} iota(), iota_dimension=1
  ROOT %sort.1 = (f32[64,19342]{1,0}, s32[64,19342]{1,0}) sort(%p.1, %iota.1), \
dimensions={1}, to_apply=%less
}

%inner_body (t.1: (s32[], f32[8])) -> (s32[], f32[8]) {
  %t.1 = (s32[], f32[8]{0}) parameter(0)
  %x.1 = f32[8]{0} get-tuple-element(%t.1), index=1
  %sines.1 = f32[8]{0} fusion(%x.1), kind=kLoop, calls=%fused
  ROOT %top.1 = (s32[], f32[8]{0}) custom-call(%sines.1), \
backend_config="a, (\\"b", custom_call_target="__gpu$TopK"
}

%inner_condition (t.2: (s32[], f32[8])) -> pred[] {
  %t.2 = (s32[], f32[8]{0}) parameter(0)
  ROOT %ends.1 = pred[] fusion(%t.2), kind=kLoop, calls=%fused
}

%few (x.2: f32[8]) -> f32[8] {
  %x.2 = f32[8]{0} parameter(0)
  ROOT %sort.2 = f32[5000,8]{1,0} sort(%x.2), dimensions={0}, to_apply=%less
}

%many (x.3: f32[8]) -> f32[8] {
  %x.3 = f32[8]{0} parameter(0)
  %copy.1 = f32[8]{0} copy(%x.3)
  %copy.2 = f32[8]{0} copy(%copy.1)
  %sort.3 = f32[8,4096]{1,0} sort(%copy.2), dimensions={1}, to_apply=%less
  ROOT %copy.3 = f32[8]{0} copy(%sort.3)
}

%open_body (t.3: (s32[], f32[8])) -> (s32[], f32[8]) {
  %t.3 = (s32[], f32[8]{0}) parameter(0)
  %sines.2 = f32[8]{0} fusion(%t.3), kind=kLoop, calls=%fused
  %sines.3 = f32[8]{0} fusion(%sines.2), kind=kLoop, calls=%fused
  %cond.1 = f32[8]{0} conditional(%t.3, %sines.3, %sines.3), \
branch_computations={%few, %many}, metadata={op_name="jit(f)/while/body/cond, body=%x"}
  ROOT %tuple.1 = (s32[], f32[8]{0}) tuple(%t.3, %cond.1)
}

%open_condition (t.4: (s32[], f32[8])) -> pred[] {
  %t.4 = (s32[], f32[8]{0}) parameter(0)
  %largest.1 = f32[] fusion(%t.4), kind=kInput, calls=%fused
  ROOT %ends.2 = pred[] fusion(%largest.1), kind=kLoop, calls=%fused
}

%outer_body (t.5: (s32[], f32[8])) -> (s32[], f32[8]) {
  %t.5 = (s32[], f32[8]{0}) parameter(0)
  %sines.4 = f32[8]{0} fusion(%t.5), kind=kLoop, calls=%fused
  %dot.1 = f32[8,8]{1,0} dot(%sines.4, %sines.4), lhs_contracting_dims={0}
  %while.1 = (s32[], f32[8]{0}) while(%t.5), condition=%inner_condition, \
body=%inner_body, backend_config="{\\"known_trip_count\\":{\\"n\\":\\"3\\"}}"
  ROOT %while.2 = (s32[], f32[8]{0}) while(%while.1), condition=%open_condition, \
body=%open_body, metadata={op_name="jit(f)/while/body/while"}, \
backend_config={"known_init_step":{"init":"0","step":"1"}}
}

%outer_condition (t.6: (s32[], f32[8])) -> pred[] {
  %t.6 = (s32[], f32[8]{0}) parameter(0)
  ROOT %ends.3 = pred[] custom-call(%t.6), custom_call_target="ends"
}

%called (x.4: f32[8]) -> f32[8] {
  %x.4 = f32[8]{0} parameter(0)
  %sines.5 = f32[8]{0} fusion(%x.4), kind=kLoop, calls=%fused
  ROOT %sort.4 = f32[6000]{0} sort(%sines.5), dimensions={0}, to_apply=%less
}

ENTRY %main.1 (x.5: f32[8]) -> f32[8] {
  %x.5 = f32[8]{0} parameter(0), metadata={op_name="x[\\"a, (b\\"]"}
  %two.1 = f32[2]{0} constant({1, 2})
  %copy.4 = f32[8]{0} copy(%x.5)
  %call.1 = f32[8]{0} call(%copy.4), to_apply=%called
  %start.1 = ((f32[8]{0}), f32[8]{0}, /*index=2*/u32[]) async-start(%call.1), \
calls=%called
  %done.1 = f32[8]{0} async-done(%start.1)
  %sorted.1 = (f32[64,19342]{1,0}, s32[64,19342]{1,0}) fusion(%done.1), \
kind=kCustom, calls=%fused_sort
  %while.3 = (s32[], f32[8]{0}) while(%done.1), condition=%outer_condition, \
body=%outer_body, backend_config={"known_trip_count":{"n":"5"},"dynamic_variables":[]}
  ROOT %x.6 = f32[8]{0} get-tuple-element(%while.3), index=1
}
"""


def body_of(text: str) -> kernel_counts.Body:
    module = kernel_counts.read_module(text)
    return kernel_counts.read_body(module, module.entry)


class TestReader:
    def test_reads_the_parts_of_an_instruction(self):
        outer = kernel_counts.read_module(TEXT).computations["outer_body"]
        known, unknown = outer.instructions[-2:]
        assert (known.name, known.opcode, known.trips) == ("while.1", "while", 3)
        assert (unknown.trips, unknown.label) == (None, "while/body/while")
        assert unknown.called("body", "condition") == ["open_body", "open_condition"]

    def test_quoted_brackets_and_commas_belong_to_their_string(self):
        module = kernel_counts.read_module(TEXT)
        assert module.entry.name == "main.1"
        metadata = module.entry.instructions[0].attributes["metadata"]
        assert metadata == '{op_name="x[\\"a, (b\\"]"}'
        branches = module.computations["open_body"].instructions[3]
        assert branches.called("body") == []
        assert branches.called("branch_computations") == ["few", "many"]

    def test_refuses_another_text(self):
        with pytest.raises(ValueError, match="ENTRY"):
            kernel_counts.read_module("module @jit_f { }")


class TestCounts:
    def test_trips_multiply_through_nested_loops(self):
        inner = 3 * 2 + 4 * 1
        branches = 4  # the longer one; the shorter is a sort of 3 kernels
        opened = 1 * (2 + branches) + 2 * 2
        outer = 5 * (2 + inner + opened) + 6 * 1
        alone = 1 + 2 * (1 + 3) + 10  # copy, call and asynchronous call, sort
        assert body_of(TEXT).kernels == alone + outer == 135

    def test_summary_says_how_often_each_runs(self):
        found = kernel_counts.summarise(body_of(TEXT))
        assert found.predicates == 6 * 1 + 5 * 4 * 1
        assert (found.trips, found.loops_entered) == ([2 + 4 + 2], 5)
        assert (found.conditionals, found.conditionals_entered) == (1, 5)
        assert found.sorts == {19_342: 1, 6_000: 2, 5_000: 5}
        assert found.custom_calls == {"__gpu$TopK": 15, "ends": 6}

    def test_tree_shows_what_stands_in_what(self):
        lines = list(kernel_counts.tree(body_of(TEXT), "example"))
        own = "16 sort, 2 fusion, 1 copy, 6,000 wide, 6,000 wide, 19,342 wide"
        assert lines[0] == f"example: kernels 135, own {own}"
        assert [line.partition(":")[0] for line in lines[1:]] == [
            "  loop, 5 trips [while.3]",
            "    loop, 3 trips [while.1]",
            "      predicate",
            "    loop, unknown trips [while/body/while]",
            "      branch 0 [while/body/cond, body=%x]",
            "      branch 1 [while/body/cond, body=%x]",
            "      predicate",
            "    predicate",
        ]

    def test_cells_of_a_row(self):
        assert kernel_counts.cells(kernel_counts.summarise(body_of(TEXT))) == [
            "135",
            "26",
            "1, entered 5 times",
            "8",
            "1, entered 5 times",
            "5 x 5,000, 2 x 6,000, 1 x 19,342",
            "15 x `__gpu$TopK`, 6 x `ends`",
        ]

    def test_cells_join_loops_of_the_same_length(self):
        found = kernel_counts.Summary(kernels=1_234, trips=[3, 27, 3], loops_entered=3)
        assert kernel_counts.cells(found) == [
            "1,234",
            "0",
            "3",
            "27, 3 (2 loops)",
            "0",
            "",
            "",
        ]

    @pytest.mark.parametrize(
        ("width", "row", "kernels"),
        # As XLA 0.10.2 lists them for an H100.
        [
            (512, 8, 1),
            (4_096, 8, 1),
            (4_096, 12, 1),
            (4_096, 16, 3),
            (4_096, 20, 3),
            (4_096, 28, 6),
            (4_096, 52, 10),
            (4_097, 8, 3),
            (8_192, 4, 3),
            (8_192, 20, 6),
            (16_384, 8, 6),
            (19_342, 8, 10),
            (20_000, 16, 15),
            (40_000, 8, 15),
        ],
    )
    def test_kernels_of_a_sort(self, width, row, kernels):
        assert kernel_counts.sort_kernels(width, row) == kernels


class TestCompilation:
    @pytest.fixture
    def device(self):
        return jax.sharding.SingleDeviceSharding(jax.devices()[0])

    def test_reads_what_this_jax_compiles(self, device):
        """The text of a real program: 50 trips, in each 30 and an open loop."""

        def step(_, x):
            x = lax.fori_loop(0, 30, lambda _, x: jnp.sin(x @ x), x)
            x = lax.while_loop(lambda x: x[0, 0] > 1, lambda x: jnp.cos(x) - 1, x)
            return jnp.sort(x, axis=1)

        program = Program(
            "loops",
            jax.jit(lambda x, start: lax.fori_loop(start, 50, step, x)),
            (jax.ShapeDtypeStruct((6, 6), jnp.float32), 0),
        )
        open_at_both = compiled.compile_for(device, program)
        constant = program._replace(
            function=jax.jit(lambda x: lax.fori_loop(0, 50, step, x)),
            args=program.args[:1],
        )
        found = compiled.compile_for(device, constant)

        def shape(body):
            parts = [part for part in body.inside if isinstance(part, Loop)]
            assert not any(isinstance(part, Conditional) for part in body.inside)
            return [(part.trips, shape(part.body)) for part in parts]

        assert shape(found.body) == [(50, [(30, []), (None, [])])]
        assert shape(open_at_both.body) == [(None, [(30, []), (None, [])])]
        assert found.body.inside[0].kernels > 50 * 30
        assert found.temporary >= 0
        assert min(found.lower, found.compile) > 0

    def test_table_reports_what_it_could_not_compile(self, device, monkeypatch, capsys):
        def gone(size):
            raise ImportError("no such name")

        def broken(size):
            return [Program("broken", jax.jit(lambda x: x + jnp.ones(7)), (rows,))]

        def sound(size):
            return [Program("sound", jax.jit(jnp.sin), (rows,))]

        rows = jax.ShapeDtypeStruct((5,), jnp.float32)
        programs = {"moved": gone, "broken": broken, "sound": sound}
        monkeypatch.setattr(compiled, "PROGRAMS", programs)
        monkeypatch.setattr("sys.argv", ["compiled", "--loops"])
        options = compiled._options()
        assert compiled._table(options, "quick", device)
        lines = capsys.readouterr().out.splitlines()
        rows_of = {line.split(" | ")[0]: line for line in lines if " | " in line}
        assert "not found: no such name" in rows_of["| moved"]
        assert "not compiled: TypeError" in rows_of["| broken"]
        assert rows_of["| sound"].startswith("| sound | 1 | 0 | 0 |")
        assert {line.count(" |") for line in rows_of.values()} == {
            len(compiled.COLUMNS)
        }
        assert any(line.startswith("sound: kernels 1, own ") for line in lines)

        options.only = "sound"
        programs.pop("moved")
        assert not compiled._table(options, "quick", device)

    @pytest.mark.parametrize("name", PROGRAMS)
    def test_programs_can_be_traced(self, name):
        programs = PROGRAMS[name](SMALL)
        assert len({program.label for program in programs}) == len(programs)
        for program in programs:
            program.function.lower(*program.args, **program.kwargs)


class TestTarget:
    def test_a_missing_description_says_how_to_name_one(self, tmp_path):
        with pytest.raises(SystemExit, match=r"gpu\.txt: name one with --target FILE"):
            compiled.described_device(tmp_path / "gpu.txt")

    def test_a_missing_plugin_says_what_to_install(self, tmp_path, monkeypatch):
        def none(*args, **kwargs):
            raise NotImplementedError("topology not implemented for cuda")

        target: Path = tmp_path / "gpu.txt"
        target.write_text("")
        monkeypatch.setattr(compiled.topologies, "get_topology_desc", none)
        with pytest.raises(SystemExit, match=r"pip install jax-cuda12-plugin=="):
            compiled.described_device(target)
