"""A C compiler makes the same bytes of the array, aligned."""

import shutil
import subprocess

import keras
import pytest

import tflite_export as te
from tflite_export import flatbuffer, metadata

PROGRAM = """
#include "{0}.h"
#include "{0}.h" /* a second time: the guard */
#include <stdint.h>
#include <stdio.h>
int main(void) {{
  if ((uintptr_t){1} % 16 != 0 || sizeof({1}) != {1}_size) return 3;
  return fwrite({1}, 1, {1}_size, stdout) != {1}_size;
}}
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    model = keras.Sequential([keras.Input((3,), name="x"), keras.layers.Dense(2)])
    return te.export(model, tmp_path_factory.mktemp("c") / "n.tflite", labels=["ä", "b"])


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")
@pytest.mark.parametrize("standard", ["c99", "c11", "c++17"])
def test_a_compiler_gives_the_bytes_back(exported, tmp_path, standard):
    made = te.c_array(exported, tmp_path / "7 student")
    (tmp_path / "main.c").write_text(PROGRAM.format(made.header.stem, made.name))
    compiler = ["g++", "-x", "c++"] if "++" in standard else ["gcc"]
    if shutil.which(compiler[0]) is None:
        pytest.skip(f"no {compiler[0]}")
    command = [*compiler, f"-std={standard}", "-pedantic", "-Wall", "-Wextra", "-Werror"]
    command += ["-o", str(tmp_path / "run"), str(tmp_path / "main.c"), str(made.source)]
    subprocess.run(command, check=True)
    answer = subprocess.run([tmp_path / "run"], check=True, capture_output=True).stdout
    assert answer == exported.path.read_bytes()
    assert made.size_bytes == exported.size_bytes


def test_the_header_tells_sizes_and_types(exported, tmp_path):
    model = flatbuffer.read(exported.path.read_bytes())
    renamed = flatbuffer.write(flatbuffer.with_names(model, ["a/x */ y\n"], ["out"]))
    renamed = metadata.embed(renamed, "without labels")
    made = te.c_array(renamed, tmp_path / "student.h")
    text = made.header.read_text()
    assert (made.header.name, made.source.name, made.name) == ("student.h", "student.c", "student")
    assert text.count("#ifndef STUDENT_H_") == 1
    assert "#define STUDENT_INPUT_0_COUNT 3" in text
    assert "a/x * / y?: float32 1x3" in text  # the comment goes on
    assert f"extern const unsigned char student[{len(renamed)}];" in text


def test_the_quantisation_of_integer_inputs_is_told(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    x = keras.random.normal((8, 3), seed=1)
    exported = te.export(model, tmp_path / "n.tflite", "int8", x, "int8")
    text = te.c_array(exported, tmp_path / "n").header.read_text()
    (one,) = exported.inputs
    scale = text.split("INPUT_0_SCALE ")[1].split("f")[0]
    assert float(scale) == pytest.approx(one.scale, rel=1e-9)
    assert f"INPUT_0_ZERO_POINT ({one.zero_point})" in text


@pytest.mark.parametrize("name", ["a b", "1a", "ä", "", "a;"])
def test_what_is_no_name_in_c_is_refused(exported, tmp_path, name):
    with pytest.raises(ValueError, match="no name in C: give letters"):
        te.c_array(exported, tmp_path / "n", name)
    assert not list(tmp_path.iterdir())


# What g++ or gcc refused of all keywords of C23, C++23, <stddef.h> and GNU's dialect.
TAKEN = """
    and asm bitand bool catch char8_t class co_await compl concept const_cast consteval constexpr constinit
    decltype dynamic_cast explicit export false friend inline int mutable namespace new noexcept not nullptr
    operator or reinterpret_cast requires restrict static_assert static_cast template this thread_local
    throw true try typeid typename typeof typeof_unqual using virtual wchar_t xor xor_eq
    NULL linux main offsetof size_t std unix __LINE__ _Bool
"""


@pytest.mark.parametrize("name", TAKEN.split())
def test_what_means_something_in_c_is_refused(exported, tmp_path, name):
    with pytest.raises(ValueError, match="has a meaning in C or C\\+\\+: give another"):
        te.c_array(exported, tmp_path / "n", name)
    assert not list(tmp_path.iterdir())


def test_files_named_so_get_an_array_of_another_name(exported, tmp_path):
    made = te.c_array(exported, tmp_path / "main")
    assert (made.header.name, made.name) == ("main.h", "model_main")


@pytest.mark.parametrize("path", ["", ".", "..", ".h", 'we"ird', "back\\slash", "new\nline"])
def test_a_path_that_include_does_not_take_is_refused(exported, tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="is no name for a header"):
        te.c_array(exported, path)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")
def test_no_name_ends_a_comment(exported, tmp_path):
    model = flatbuffer.read(exported.path.read_bytes())
    names = ["a*\\ int evil; /*"], ["*/ int worse; /*/"]
    content = metadata.embed(flatbuffer.write(flatbuffer.with_names(model, *names)), "n")
    file = tmp_path / "x*\\y.tflite"
    file.write_bytes(content)
    made = te.c_array(file, tmp_path / "n")
    command = ["gcc", "-std=c11", "-Wall", "-Werror", "-E", "-P", str(made.header)]
    code = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "extern const unsigned char n[" in code
    assert "evil" not in code
    assert "worse" not in code


def test_a_folder_in_the_way_is_refused(exported, tmp_path):
    (tmp_path / "n.c").mkdir()
    with pytest.raises(ValueError, match="is a folder"):
        te.c_array(exported, tmp_path / "n")
    assert [p.name for p in tmp_path.iterdir()] == ["n.c"]
