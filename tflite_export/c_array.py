"""A file as a C array, for microcontrollers that have no file system.

    c_array(exported, "firmware/student_model")     # student_model.h and student_model.c in firmware/

    #include "student_model.h"
    const tflite::Model* model = tflite::GetModel(student_model);

The bytes are aligned as TFLite Micro reads them, in place, from flash.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tflite_export.runtime import TensorInfo, content_of, load
from tflite_export.whole_file import write_whole

_ALIGNMENT = 16  # what the schema asks of weights (force_align)
_A_LINE = 12


@dataclass(frozen=True)
class CArray:
    """What `c_array` wrote: the two files, the array's name in C, and its length in bytes."""

    header: Path
    source: Path
    name: str
    size_bytes: int


def c_array(exported: Any, path: str | os.PathLike[str], name: str | None = None) -> CArray:
    """Writes a header and a source file that hold a `.tflite` as bytes.

    The header has an include guard, the array and its length for C and C++, and sizes, types and
    quantisation of the inputs and outputs as comments and macros. Labels and metadata are in the
    array too; TFLite Micro does not read them.

    Args:
        exported: what `export` returned, a path, or bytes.
        path: of the two files, without ".h" and ".c". Files that exist are replaced.
        name: of the array in C; by default the files' name, with "model_" before it where that is none.

    Raises:
        ValueError: `name` is no name in C or C++, `path` no name that `#include` takes, a folder is in
            the way, or the file is damaged.
    """
    content, origin = content_of(exported)
    interpreter = load(content)
    path = Path(path)
    stem = path.name.removesuffix(".h").removesuffix(".c").removesuffix(".tflite")
    if not stem.strip(".") or not stem.isprintable() or set(stem) & set('"\\'):
        raise ValueError(
            f"path={str(path)!r} is no name for a header that C includes: end it in letters and digits."
        )
    if name is None:
        name = re.sub(r"\W", "_", stem, flags=re.ASCII)
        name = name if name[:1].isalpha() and name not in _TAKEN else f"model_{name}"
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError(f"name={name!r} is no name in C: give letters, digits and underscores.")
    if name in _TAKEN or re.match("__|_[A-Z]", name):
        raise ValueError(f"name={name!r} has a meaning in C or C++: give another.")
    header, source = (path.parent / f"{stem}{suffix}" for suffix in (".h", ".c"))
    sides = (("input", interpreter.inputs), ("output", interpreter.outputs))
    write_whole(source, _source(content, name, header.name).encode())
    write_whole(header, _header(name, len(content), _shown(Path(origin).name), sides).encode())
    return CArray(header, source, name, len(content))


# Keywords of C23 and C++23, and what <stddef.h>, the linker and GNU's dialect know by these names.
_WORDS = """
    alignas alignof and and_eq asm auto bitand bitor bool break case catch char char8_t char16_t char32_t
    class co_await co_return co_yield compl concept const const_cast consteval constexpr constinit continue
    decltype default delete do double dynamic_cast else enum explicit export extern false float for friend
    goto if inline int long mutable namespace new noexcept not not_eq nullptr operator or or_eq private
    protected public register reinterpret_cast requires restrict return short signed sizeof static
    static_assert static_cast struct switch template this thread_local throw true try typedef typeid
    typename typeof typeof_unqual union unsigned using virtual void volatile wchar_t while xor xor_eq
    NULL i386 linux main max_align_t nullptr_t offsetof ptrdiff_t size_t std unix unreachable
"""
_TAKEN = frozenset(_WORDS.split())


def _shown(text: str) -> str:
    """Text for a comment of one line: it ends neither the line nor the comment."""
    clean = "".join(c if c.isprintable() else "?" for c in text).replace("\\", "/")
    return clean.replace("*/", "* /").replace("/*", "/ *")


def _header(name: str, size: int, origin: str, sides: Any) -> str:
    guard = f"{name.upper()}_H_"
    facts = []
    for side, tensors in sides:
        for place, tensor in enumerate(tensors):
            facts += _facts(f"{name.upper()}_{side.upper()}_{place}", side, place, tensor)
    return "\n".join(
        [
            f"/* {origin} as an array of {size} bytes. Written by tflite_export; do not edit. */",
            f"#ifndef {guard}",
            f"#define {guard}",
            "",
            "#include <stddef.h>",
            "",
            *facts,
            "#ifdef __cplusplus",
            'extern "C" {',
            "#endif",
            "",
            f"/* Starts at a multiple of {_ALIGNMENT} bytes. */",
            f"extern const unsigned char {name}[{size}];",
            f"extern const size_t {name}_size;",
            "",
            "#ifdef __cplusplus",
            "}",
            "#endif",
            "",
            f"#endif /* {guard} */",
            "",
        ]
    )


def _facts(macro: str, side: str, place: int, tensor: TensorInfo) -> list[str]:
    shape = "x".join("?" if d is None else str(d) for d in tensor.shape)
    lines = [f"/* {side.capitalize()} {place}, {_shown(tensor.name)}: {tensor.dtype} {shape} */"]
    if None not in tensor.shape:
        lines.append(f"#define {macro}_COUNT {math.prod(d or 1 for d in tensor.shape)}")
    if tensor.quantization is not None:
        # 9 digits give every float back.
        lines.append(f"#define {macro}_SCALE {tensor.scale:.9e}f")
        lines.append(f"#define {macro}_ZERO_POINT ({tensor.zero_point})")
    return [*lines, ""]


def _source(content: bytes, name: str, header: str) -> str:
    rows = (content[start : start + _A_LINE] for start in range(0, len(content), _A_LINE))
    body = "\n".join(f"    {', '.join(f'0x{byte:02x}' for byte in row)}," for row in rows)
    return f"""#include "{header}"

#if defined(__cplusplus)
#define {name.upper()}_ALIGNED alignas({_ALIGNMENT})
#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define {name.upper()}_ALIGNED _Alignas({_ALIGNMENT})
#elif defined(__GNUC__)
#define {name.upper()}_ALIGNED __attribute__((aligned({_ALIGNMENT})))
#else
#error "This compiler has no word for alignment that is known here: the array needs {_ALIGNMENT} bytes."
#endif

{name.upper()}_ALIGNED const unsigned char {name}[{len(content)}] = {{
{body}
}};
const size_t {name}_size = sizeof({name});
"""
