"""The JSON of an exported program, field by field.

The names are those of PyTorch's own schema, torch/_export/serde/schema.py. What it has and is not
here (custom objects, operators as arguments, Triton's lists) no model that serves needs.
"""

import json
from collections.abc import Mapping

from feedrank.bundle.documents import (
    Json,
    Rule,
    fields,
    flag,
    many,
    mapping,
    number,
    one_of,
    or_null,
    read,
    text,
    variant,
    whole,
    wrong,
)
from feedrank.model.engines.pt2_grammar import (
    TEXTS,
    argument_name,
    expression,
    guard,
    identifier,
    operator,
    path,
    tree_key,
    version,
)

LARGEST = 2**63 - 1

_whole = whole(-LARGEST - 1, LARGEST)
_name = fields({"name": identifier})
_any_float: Rule = lambda value, place: (  # noqa: E731 as the other rules
    value if value in ("Infinity", "-Infinity", "NaN") else number()(value, place)
)
_hint = or_null(variant({"as_int": _whole, "as_bool": flag, "as_float": _any_float}))
_symbolic = fields({"expr_str": expression}, {"hint": _hint})
_device = fields({"type": text("cpu|cuda|mps|xpu"), "index": or_null(whole(0, 64))})
_size = variant({"as_expr": _symbolic, "as_int": _whole})
_tensor_meta = fields(
    {
        "dtype": whole(0, 64),
        "sizes": many(_size, maximum=64),
        "requires_grad": flag,
        "device": _device,
        "strides": many(_size, maximum=64),
        "storage_offset": _size,
        "layout": whole(0, 16),
    }
)
_sym_int = variant({"as_name": identifier, "as_int": _whole})
_sym_float = variant({"as_name": identifier, "as_float": _any_float})
_sym_bool = variant({"as_name": identifier, "as_bool": flag})
_optional_tensor = variant({"as_tensor": _name, "as_none": flag})


def _graph_argument(value: Json, place: str) -> Json:
    return fields({"name": identifier, "graph": _graph})(value, place)


_ARGUMENTS: Mapping[str, Rule] = {
    "as_none": flag,
    "as_tensor": _name,
    "as_tensors": many(_name),
    "as_int": _whole,
    "as_ints": many(_whole),
    "as_float": _any_float,
    "as_floats": many(_any_float),
    "as_sym_int": _sym_int,
    "as_sym_ints": many(_sym_int),
    "as_scalar_type": whole(0, 64),
    "as_memory_format": whole(0, 16),
    "as_layout": whole(0, 16),
    "as_device": _device,
    "as_bool": flag,
    "as_bools": many(flag),
    "as_sym_bool": _sym_bool,
    "as_sym_bools": many(_sym_bool),
    "as_optional_tensors": many(_optional_tensor),
    "as_optional_tensor": _optional_tensor,
    "as_sym_float": _sym_float,
    "as_sym_floats": many(_sym_float),
    "as_complex": fields({"real": _any_float, "imag": _any_float}),
    "as_nested_tensors": many(many(_name)),
    "as_graph": _graph_argument,
}
_argument = variant(_ARGUMENTS)


def _named_argument(value: Json, place: str) -> Json:
    """A text is allowed by the name of the argument that it is for."""
    name = value.get("name") if isinstance(value, dict) else None
    grammar = TEXTS.get(name) if isinstance(name, str) else None
    allowed = {**_ARGUMENTS, "as_string": text(grammar.pattern, 1_300)} if grammar else _ARGUMENTS
    rule = fields({"name": argument_name, "arg": variant(allowed)}, {"kind": or_null(whole(0, 2))})
    return rule(value, place)


def _no_metadata(value: Json, place: str) -> dict[str, str]:  # noqa: ARG001
    return {}  # stack traces and origins of nodes, which serving doesn't need


_node = fields(
    {
        "target": operator,
        "inputs": many(_named_argument),
        "outputs": many(_argument),
        "metadata": _no_metadata,
    },
    {"is_hop_single_tensor_return": or_null(flag), "name": or_null(identifier)},
)
_graph = fields(
    {
        "inputs": many(_argument),
        "outputs": many(_argument),
        "nodes": many(_node),
        "tensor_values": mapping(identifier, _tensor_meta),
        "sym_int_values": mapping(identifier, _size),
        "sym_bool_values": mapping(identifier, variant({"as_expr": _symbolic, "as_bool": flag})),
    },
    {
        "is_single_tensor_return": flag,
        "custom_obj_values": fields({}),
        "sym_float_values": mapping(
            identifier, variant({"as_expr": _symbolic, "as_float": _any_float})
        ),
    },
)
_input_spec = variant(
    {
        "user_input": fields({"arg": _argument}),
        "parameter": fields({"arg": _name, "parameter_name": path}),
        "buffer": fields({"arg": _name, "buffer_name": path, "persistent": flag}),
        "tensor_constant": fields({"arg": _name, "tensor_constant_name": path}),
    }
)
_output_spec = variant(
    {
        "user_output": fields({"arg": _argument}),
        "buffer_mutation": fields({"arg": _name, "buffer_name": path}),
    }
)


def _tree(value: Json, place: str) -> str:
    """JSON in a text: how inputs and outputs are nested. Its loader imports what it names."""
    return json.dumps(read(text()(value, place).encode(), place, _versioned_tree))


def _versioned_tree(value: Json, place: str) -> Json:
    version_and_tree = many(lambda each, _: each, 2, 2)(value, place)
    return [one_of(1)(version_and_tree[0], place), _tree_node(version_and_tree[1], place)]


def _tree_node(value: Json, place: str) -> Json:
    rule = fields(
        {
            "type": or_null(one_of("builtins.tuple", "builtins.list", "builtins.dict")),
            "context": or_null(_tree_context),
            "children_spec": many(_tree_node, maximum=1_000),
        }
    )
    return rule(value, place)


def _tree_context(value: Json, place: str) -> str:
    keys = read(text()(value, place).encode(), place, or_null(many(tree_key, maximum=1_000)))
    return json.dumps(keys)


_call_signature = fields(
    {
        "inputs": many(_argument),
        "outputs": many(_argument),
        "in_spec": _tree,
        "out_spec": _tree,
    },
    {"forward_arg_names": or_null(many(identifier, maximum=1_000))},
)
PROGRAM = fields(
    {
        "graph_module": fields(
            {
                "graph": _graph,
                "signature": fields(
                    {"input_specs": many(_input_spec), "output_specs": many(_output_spec)}
                ),
                "module_call_graph": many(
                    fields({"fqn": path}, {"signature": or_null(_call_signature)}), minimum=1
                ),
            },
            {"metadata": _no_metadata, "treespec_namedtuple_fields": fields({})},
        ),
        "opset_version": mapping(identifier, whole(0, 1_000)),
        "range_constraints": mapping(
            expression, fields({"min_val": or_null(_whole), "max_val": or_null(_whole)})
        ),
        "schema_version": fields({"major": whole(0, 1_000), "minor": whole(0, 1_000)}),
    },
    {
        "verifiers": many(one_of("TRAINING", "ATEN", ""), 1, 10),
        "torch_version": version,
        "guards_code": many(guard),
    },
)


def _false(value: Json, place: str) -> bool:
    if value is not False:
        raise wrong(place, "must be false: a pickle runs whatever code it holds")
    return False


PAYLOADS = fields(
    {
        "config": mapping(
            path,
            fields(
                {
                    "path_name": text(r"(weight|tensor)_\d{1,7}"),
                    "is_param": flag,
                    "use_pickle": _false,
                    "tensor_meta": _tensor_meta,
                }
            ),
        )
    }
)
