"""What the texts of an exported program may be.

None may hold a quote, a bracket or a line end, but for expressions, which are parsed.
"""

import ast
import re
from collections.abc import Callable, Mapping

from feedrank.bundle.documents import Json, text, wrong

LONGEST_EXPRESSION = 10_000  # characters
LARGEST_EXPONENT = 64

identifier = text(r"(?!__)[A-Za-z_][A-Za-z0-9_]*", 500)
argument_name = text(r"((?!__)[A-Za-z_][A-Za-z0-9_]*)?", 100)
path = text(r"(?!__)(?!.*\.__)[A-Za-z0-9_ .:/@+\-]*", 1_000)  # of a module or parameter
tree_key = text(r"[A-Za-z0-9_ .:/@+\-]+", 200)
version = text(r"[A-Za-z0-9.+<=]*", 50)

OPERATOR = re.compile(
    r"torch\.ops\.(aten|prims)\.((?!__)[A-Za-z_][A-Za-z0-9_]*|__i?(and|or|xor|lshift|rshift)__)"
    r"\.(?!__)[A-Za-z_][A-Za-z0-9_]*"
    r"|torch\.ops\.higher_order\.(cond|while_loop|scan|associative_scan|wrap_with_set_grad_enabled"
    r"|wrap_with_autocast)"
    r"|_operator\.(add|sub|mul|truediv|floordiv|mod|pow|neg|pos|abs|and_|or_|xor|not_|eq|ne|lt|le|gt"
    r"|ge|lshift|rshift|getitem)"
    r"|math\.(ceil|floor|trunc|sqrt|pow|log2)"
    r"|torch\._functorch\.predispatch\.(lazy_load_decompositions|_vmap_increment_nesting"
    r"|_vmap_decrement_nesting|_add_batch_dim|_remove_batch_dim)"
    r"|torch\.(sym_(float|int|ite|max|min|not|sqrt|sum)|_sym_sqrt)"
)


def operator(value: Json, place: str) -> str:
    name = str(value)[:200]
    if value != name or not OPERATOR.fullmatch(name):
        raise wrong(place, f"{name!r} is no operator that a model may use")
    return name


# Which texts an operator takes, by the name of its argument. Any other could be a file's name.
_MODE = re.compile(r"[a-zA-Z][a-z0-9_-]{0,19}")
TEXTS: Mapping[str, re.Pattern[str]] = {
    "approximate": _MODE,
    "rounding_mode": _MODE,
    "mode": _MODE,
    "padding": _MODE,
    "padding_mode": _MODE,
    "padding_side": _MODE,
    "pad_mode": _MODE,
    "reduce": _MODE,
    "norm": _MODE,
    "ord": _MODE,
    "side": _MODE,
    "indexing": _MODE,
    "interpolation": _MODE,
    "driver": _MODE,
    "UPLO": _MODE,
    "device_type": _MODE,
    # of autocast and vmap, whose arguments have no names
    "": re.compile("cpu|cuda|mps|xpu|error|same|different"),
    "equation": re.compile(r"[A-Za-z,.> -]{1,200}"),
    "assert_msg": re.compile(
        r"Runtime assertion failed for expression [\w<>=!()+*/%|&~., -]{1,1000} on node '\w{1,200}'"
    ),
}

_FUNCTION = re.compile(
    "Add|Mul|Pow|Max|Min|Mod|Abs|Integer|floor|ceiling|And|Or|Not|Equality|Unequality|LessThan"
    "|StrictLessThan|GreaterThan|StrictGreaterThan|Eq|Ne|Lt|Le|Gt|Ge|Piecewise|ExprCondPair"
    "|FloorDiv|CleanDiv|CeilDiv|FloatTrueDiv|IntTrueDiv|PythonMod|ModularIndexing|Where|LShift"
    "|RShift|PowByNatural|FloatPow|CeilToInt|FloorToInt|TruncToInt|TruncToFloat|RoundToInt"
    "|RoundDecimal|ToFloat|Identity|IsNonOverlappingAndDenseIndicator"
)
_GUARD_FUNCTION = re.compile(
    r"math\.(floor|ceil|trunc|sqrt)|torch\.sym_(float|int|max|min|not|sqrt)|max|min|abs"
)
_POWER = re.compile("Pow|PowByNatural|FloatPow|LShift|RShift")
_ASSUMPTION = re.compile("positive|nonnegative|negative|nonpositive|nonzero|integer|real")
_SYMBOL = re.compile(r"(s|u|zf|zuf)\d{1,6}")
_INPUT = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,200}")
_DIGITS = re.compile(r"-?\d{1,40}(\.\d{0,40})?(e[+-]?\d{1,3})?")
_OPERATIONS = (
    ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.USub, ast.UAdd, ast.Not,
    ast.And, ast.Or, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE,
)  # fmt: skip


def expression(value: Json, place: str) -> str:
    """Of sizes: symbols, numbers, arithmetic, comparisons, functions that PyTorch writes."""
    return _parsed(value, place, _is_expression)


def guard(value: Json, place: str) -> str:
    """A comparison of the inputs' sizes, such as `2*L['x'].size()[0] < 8`."""
    return _parsed(value, place, _is_guard)


def _parsed(value: Json, place: str, holds: Callable[[ast.AST], bool]) -> str:
    if isinstance(value, str) and len(value) <= LONGEST_EXPRESSION and "\n" not in value:
        try:
            if holds(ast.parse(value, mode="eval").body):
                return value
        except (SyntaxError, ValueError, MemoryError):
            pass
    raise wrong(place, "must be arithmetic over sizes")


def _is_expression(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Name(id=name)):
            return _is_call(node, name)
        case ast.Name(id=name):
            return _SYMBOL.fullmatch(name) is not None or name in {"true", "false"}
        case ast.BinOp(op=ast.Pow(), left=left, right=right):
            return _is_expression(left) and _is_power(left, right)
    return _is_operation(node, _is_expression)


def _is_call(call: ast.Call, name: str) -> bool:
    match name, call.args, call.keywords:
        case "Symbol", [ast.Constant(value=str(symbol))], assumptions:
            known = all(_ASSUMPTION.fullmatch(each.arg or "") for each in assumptions)
            return bool(known and _SYMBOL.fullmatch(symbol)) and all(
                _is_flag(each.value) for each in assumptions
            )
        case "Float", [ast.Constant(value=str(digits))], options:
            precision = all(each.arg == "precision" and _is_number(each.value) for each in options)
            return precision and _DIGITS.fullmatch(digits) is not None
        case "Rational", arguments, []:
            return all(map(_is_exponent, arguments))
        case _, [base, exponent], [] if _POWER.fullmatch(name):
            return _is_expression(base) and _is_power(base, exponent)
        case _, arguments, []:
            plain = _FUNCTION.fullmatch(name) and not _POWER.fullmatch(name)
            return bool(plain) and all(map(_is_expression, arguments))
    return False


def _is_guard(node: ast.AST) -> bool:
    match node:
        case ast.Subscript(
            value=ast.Call(
                func=ast.Attribute(value=tensor, attr="size" | "stride"), args=[], keywords=[]
            ),
            slice=at,
        ):
            return _is_input(tensor) and _is_number(at)
        case ast.Call(
            func=ast.Attribute(value=tensor, attr="storage_offset"), args=[], keywords=[]
        ):
            return _is_input(tensor)
        case ast.Call(func=function, args=arguments, keywords=[]):
            known = _GUARD_FUNCTION.fullmatch(ast.unparse(function))
            return bool(known) and all(map(_is_guard, arguments))
        case ast.BinOp(op=ast.Pow(), left=left, right=right):
            return _is_guard(left) and _is_power(left, right)
        case _:
            return _is_operation(node, _is_guard)


def _is_input(node: ast.AST) -> bool:
    """`L['x']` or `L['flat_args'][0]`."""
    match node:
        case ast.Subscript(value=ast.Name(id="L"), slice=ast.Constant(value=str(name))):
            return _INPUT.fullmatch(name) is not None
        case ast.Subscript(value=inner, slice=at):
            return _is_input(inner) and _is_number(at)
    return False


def _is_operation(node: ast.AST, holds: Callable[[ast.AST], bool]) -> bool:
    match node:
        case ast.Constant():
            return _is_number(node) or _is_flag(node)
        case ast.UnaryOp(op=operation, operand=operand):
            return isinstance(operation, _OPERATIONS) and holds(operand)
        case ast.BinOp(op=operation, left=left, right=right):
            return isinstance(operation, _OPERATIONS) and holds(left) and holds(right)
        case ast.BoolOp(op=operation, values=values):
            return isinstance(operation, _OPERATIONS) and all(map(holds, values))
        case ast.Compare(left=left, ops=operations, comparators=others):
            known = all(isinstance(operation, _OPERATIONS) for operation in operations)
            return known and all(map(holds, [left, *others]))
    return False


def _is_number(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) in {int, float}


def _is_flag(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, bool)


def _is_power(base: ast.AST, exponent: ast.AST) -> bool:
    """By a small number, and not of a power: a power of powers would never end."""
    nested = any(
        isinstance(node, ast.Pow)
        or (isinstance(node, ast.Call) and _POWER.fullmatch(getattr(node.func, "id", "")))
        for node in ast.walk(base)
    )
    return not nested and _is_exponent(exponent)


def _is_exponent(node: ast.AST) -> bool:
    """A small number."""
    match node:
        case ast.Call(func=ast.Name(id="Float" | "Rational" as name)):
            return _is_call(node, name)
        case ast.Call(func=ast.Name(id="Integer"), args=[inner], keywords=[]):
            return _is_exponent(inner)
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return _is_exponent(inner)
        case ast.Constant(value=int(power)):
            return power <= LARGEST_EXPONENT
    return False
