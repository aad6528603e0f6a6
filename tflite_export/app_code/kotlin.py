"""Kotlin for one file: LiteRT's interpreter on Android, and an instrumented test of golden outputs.

kotlin(facts)                       # a class; paste it into the app
kotlin_test(facts, tolerances, 8)   # a test of 8 recorded runs
"""

from __future__ import annotations

from collections.abc import Sequence

from tflite_export.app_code.facts import LABELS, Facts, Picture, Tensor, number, numbers, shown

LITERT = "com.google.ai.edge.litert:litert:1.4.2"


def string(text: str) -> str:
    """A string literal: `$` would begin a template, and controls would end the line."""
    made = ""
    for character in text:
        if character in '"\\$':
            made += "\\" + character
        elif character.isprintable():
            made += character
        else:
            units = character.encode("utf-16-be", "surrogatepass")
            pairs = (units[i : i + 2].hex() for i in range(0, len(units), 2))
            made += "".join(f"\\u{pair}" for pair in pairs)
    return f'"{made}"'


def kotlin(facts: Facts) -> str:
    """A class that loads the file, makes its inputs, runs it and reads its outputs."""
    pictures = any(t.picture for t in facts.inputs)
    assets = [shown(facts.file), *([LABELS] if facts.label_file else [])]
    lines = [
        f'// build.gradle.kts: implementation("{LITERT}")',
        f"//                   android {{ androidResources {{ noCompress += {string(facts.ending)} }} }}",
        *(
            []
            if facts.ending
            else ['//                   ("" is every file: a name without an ending has none)']
        ),
        f"// src/main/assets:  {' and '.join(assets)}",
        "import android.content.Context",
        *(["import android.graphics.Bitmap"] if pictures else []),
        "import java.io.FileInputStream",
        "import java.nio.ByteBuffer",
        "import java.nio.ByteOrder",
        "import java.nio.channels.FileChannel",
        "import org.tensorflow.lite.Interpreter",
        "",
        f"class {facts.title}(context: Context, threads: Int = 2) : AutoCloseable {{",
        "    private val interpreter: Interpreter",
        *(["    val labels: List<String>"] if facts.label_file else []),
        "",
        "    init {",
        f"        val model = context.assets.openFd({string(facts.file)}).use {{ file ->",
        "            FileInputStream(file.fileDescriptor).channel.map(",
        "                FileChannel.MapMode.READ_ONLY, file.startOffset, file.declaredLength",
        "            )",
        "        }",
        "        interpreter = Interpreter(model, Interpreter.Options().setNumThreads(threads))",
    ]
    for place, one in enumerate(facts.inputs):
        if one.resized:
            sizes = ", ".join(map(str, one.shape))
            lines.append(f"        interpreter.resizeInput({place}, intArrayOf({sizes}))")
    if facts.label_file:
        lines += [
            f"        labels = context.assets.open({string(LABELS)}).use {{",
            '            String(it.readBytes(), Charsets.UTF_8).split("\\n")',
            "        }",
        ]
    lines += ["    }", ""]
    for place, one in enumerate(facts.inputs):
        lines += [f"    // Input {place}: {one.told}.", *_maker(one), ""]
    sizes = ", ".join(f"bytes({one.size})" for one in facts.outputs)
    lines += [
        "    // All inputs and outputs as bytes, in the file's order.",
        "    fun run(inputs: Array<ByteBuffer>): Array<ByteBuffer> {",
        f"        val outputs = arrayOf({sizes})",
        "        val byIndex = HashMap<Int, Any>()",
        "        outputs.forEachIndexed { index, buffer -> byIndex[index] = buffer }",
        "        interpreter.runForMultipleInputsOutputs(",
        "            Array<Any>(inputs.size) { index -> inputs[index].apply { rewind() } }, byIndex",
        "        )",
        "        outputs.forEach { it.rewind() }",
        "        return outputs",
        "    }",
        "",
    ]
    for place, one in enumerate(facts.outputs):
        lines += [f"    // Output {place}: {one.told}.", *_reader(one), ""]
    lines += _classify(facts)
    lines += [
        "    override fun close() = interpreter.close()",
        "",
        "    private fun bytes(size: Int): ByteBuffer =",
        "        ByteBuffer.allocateDirect(size).order(ByteOrder.nativeOrder())",
        "}",
    ]
    return "\n".join(lines)


def _maker(one: Tensor) -> list[str]:
    if one.picture is not None:
        return _from_bitmap(one, one.picture)
    kind, put = {
        "float32": ("FloatArray", "putFloat(value)"),
        "uint8": ("IntArray", "put(value.toByte())"),
        "int8": ("IntArray", "put(value.toByte())"),
        "int16": ("IntArray", "putShort(value.toShort())"),
        "int32": ("IntArray", "putInt(value)"),
        "int64": ("LongArray", "putLong(value)"),
        "bool": ("BooleanArray", "put(if (value) 1.toByte() else 0.toByte())"),
    }[one.info.dtype]
    store = []
    if one.info.quantization is not None:
        kind, put = "FloatArray", put.replace("value", "stored")
        store = [f"            val stored = {_stored(one, 'value')}"]
    return [
        f"    fun {one.identifier}Bytes(values: {kind}): ByteBuffer {{",
        f"        require(values.size == {one.count})",
        f"        val buffer = bytes({one.size})",
        "        for (value in values) {",
        *store,
        f"            buffer.{put}",
        "        }",
        "        buffer.rewind()",
        "        return buffer",
        "    }",
    ]


_ENDS = {"uint8": (0, 255), "int8": (-128, 127), "int16": (-32768, 32767)}


def _stored(one: Tensor, value: str) -> str:
    low, high = _ENDS.get(one.info.dtype, (-(2**31), 2**31 - 1))
    steps = f"Math.rint(({value} / {number(one.info.scale)}f).toDouble()).toInt()"
    return f"({steps} + ({one.info.zero_point})).coerceIn({low}, {high})"


def _from_bitmap(one: Tensor, picture: Picture) -> list[str]:
    width, height = picture.width, picture.height
    lines = [
        f"    fun {one.identifier}Bytes(bitmap: Bitmap): ByteBuffer {{",
        f"        val scaled = Bitmap.createScaledBitmap(bitmap, {width}, {height}, true)",
        f"        val pixels = IntArray({width * height})",
        f"        scaled.getPixels(pixels, 0, {width}, 0, 0, {width}, {height})",
        f"        val buffer = bytes({one.size})",
        "        for (pixel in pixels) {",
        "            val red = (pixel shr 16) and 0xFF",
        "            val green = (pixel shr 8) and 0xFF",
        "            val blue = pixel and 0xFF",
    ]
    if picture.channels == 1:
        lines.append(
            "            val grey = Math.round(0.299f * red + 0.587f * green + 0.114f * blue)"
        )
    colours = ["grey"] if picture.channels == 1 else ["red", "green", "blue"]
    means = numbers(picture.mean, picture.channels)
    stds = numbers(picture.std, picture.channels)
    for colour, mean, std in zip(colours, means, stds, strict=True):
        if picture.offset is not None:
            shift = f" - {-picture.offset}" if picture.offset else ""
            put = f"put(({colour}{shift}).toByte())" if shift else f"put({colour}.toByte())"
        elif one.info.dtype == "float32":
            put = f"putFloat(({colour} - {mean}f) / {std}f)"
        else:
            put = f"put({_stored(one, f'(({colour} - {mean}f) / {std}f)')}.toByte())"
        lines.append(f"            buffer.{put}")
    return [*lines, "        }", "        buffer.rewind()", "        return buffer", "    }"]


def _reader(one: Tensor) -> list[str]:
    n, dtype = one.count, one.info.dtype
    plain = {
        "uint8": "(buffer.get(it).toInt() and 0xFF)",
        "int8": "buffer.get(it).toInt()",
        "int16": "buffer.getShort(2 * it).toInt()",
        "int32": "buffer.getInt(4 * it)",
    }
    if one.info.quantization is not None:
        scale, zero = number(one.info.scale), one.info.zero_point
        kind = "FloatArray"
        value = f"FloatArray({n}) {{ ({plain[dtype]} - ({zero})) * {scale}f }}"
    elif dtype in plain:
        kind, value = "IntArray", f"IntArray({n}) {{ {plain[dtype]} }}"
    else:
        kind, value = {
            "float32": ("FloatArray", f"FloatArray({n}) {{ buffer.getFloat(4 * it) }}"),
            "int64": ("LongArray", f"LongArray({n}) {{ buffer.getLong(8 * it) }}"),
            "bool": ("BooleanArray", f"BooleanArray({n}) {{ buffer.get(it) != 0.toByte() }}"),
        }[dtype]
    return [f"    fun {one.identifier}Values(buffer: ByteBuffer): {kind} =", f"        {value}"]


def _float(one: Tensor, value: str) -> str:
    if one.info.dtype == "bool":
        return f"if ({value}) 1f else 0f"
    real = one.info.dtype == "float32" or one.info.quantization is not None
    return value if real else f"{value}.toFloat()"


def _classify(facts: Facts) -> list[str]:
    if facts.labelled is None:
        return []
    one = facts.outputs[facts.labelled]
    given, inputs = "inputs: Array<ByteBuffer>", "inputs"
    if len(facts.inputs) == 1 and facts.inputs[0].picture is not None:
        given, inputs = "bitmap: Bitmap", f"arrayOf({facts.inputs[0].identifier}Bytes(bitmap))"
    kept = []
    if facts.threshold is not None:
        kept = [f"            .filter {{ it.second >= {number(facts.threshold)}f }}"]
    note = "" if facts.threshold is None else " Empty: no class is certain enough."
    return [
        f"    // The best classes, with their scores.{note}",
        f"    fun classify({given}, top: Int = 3): List<Pair<String, Float>> {{",
        f"        val outputs = run({inputs})",
        f"        val scores = {one.identifier}Values(outputs[{facts.labelled}])",
        f"        return scores.indices.map {{ labels[it] to {_float(one, 'scores[it]')} }}",
        *kept,
        "            .sortedByDescending { it.second }",
        "            .take(top)",
        "    }",
        "",
    ]


def kotlin_test(facts: Facts, tolerances: Sequence[float], runs: int) -> str:
    """An instrumented test: the recorded inputs give the recorded outputs."""
    lines = [
        "// src/androidTest/assets/golden: the *.bin files of this folder",
        "import androidx.test.ext.junit.runners.AndroidJUnit4",
        "import androidx.test.platform.app.InstrumentationRegistry",
        "import java.nio.ByteBuffer",
        "import java.nio.ByteOrder",
        "import org.junit.Assert.assertEquals",
        "import org.junit.Test",
        "import org.junit.runner.RunWith",
        "",
        "@RunWith(AndroidJUnit4::class)",
        f"class {facts.title}GoldenTest {{",
        "    private val instrumentation = InstrumentationRegistry.getInstrumentation()",
        "",
        "    private fun piece(file: String, run: Int, size: Int): ByteBuffer {",
        '        val all = instrumentation.context.assets.open("golden/$file").use { it.readBytes() }',
        "        val buffer = ByteBuffer.allocateDirect(size).order(ByteOrder.nativeOrder())",
        "        buffer.put(all, run * size, size).rewind()",
        "        return buffer",
        "    }",
        "",
        "    @Test",
        "    fun answersAsRecorded() {",
        f"        {facts.title}(instrumentation.targetContext).use {{ model ->",
        f"            for (run in 0 until {runs}) {{",
        "                val outputs = model.run(",
        "                    arrayOf(",
    ]
    for place, one in enumerate(facts.inputs):
        lines.append(f'                        piece("input_{place}.bin", run, {one.size}),')
    lines += ["                    )", "                )"]
    for place, (one, tolerance) in enumerate(zip(facts.outputs, tolerances, strict=True)):
        read = f"model.{one.identifier}Values"
        want, have = _float(one, f"want{place}[i]"), _float(one, f"have{place}[i]")
        lines += [
            f'                val want{place} = {read}(piece("output_{place}.bin", run, {one.size}))',
            f"                val have{place} = {read}(outputs[{place}])",
            f"                for (i in want{place}.indices) {{",
            f'                    assertEquals("output {place}, run $run, number $i",',
            f"                        {want}, {have}, {number(tolerance)}f)",
            "                }",
        ]
    return "\n".join([*lines, "            }", "        }", "    }", "}"])
