"""Swift for one file: TensorFlowLiteSwift on iOS, and an XCTest of golden outputs.

swift(facts)                        # a class; paste it into the app
swift_test(facts, tolerances, 8)    # a test of 8 recorded runs
"""

from __future__ import annotations

from collections.abc import Sequence

from tflite_export.app_code.facts import LABELS, Facts, Picture, Tensor, number, numbers, shown

_KINDS = {
    "float32": "Float",
    "uint8": "UInt8",
    "int8": "Int8",
    "int16": "Int16",
    "int32": "Int32",
    "int64": "Int64",
    "bool": "Bool",
}


def string(text: str) -> str:
    """A string literal: a backslash would begin a value, and controls would end the line."""
    made = ""
    for character in text:
        if character in '"\\':
            made += "\\" + character
        elif character.isprintable():
            made += character
        else:
            made += f"\\u{{{ord(character):X}}}"
    return f'"{made}"'


def refused(facts: Facts) -> str | None:
    """Why TensorFlowLiteSwift cannot run the file, or None: it has no int8 among its types."""
    names = [shown(t.info.name) for t in (*facts.inputs, *facts.outputs) if t.info.dtype == "int8"]
    if not names:
        return None
    return (
        f"TensorFlowLiteSwift knows no int8 tensors, and {', '.join(names)} is int8: it throws "
        "`invalidTensorDataType`. For iOS, export with inference_input_type and inference_output_type "
        "of 'uint8' or 'float32'; the network inside may stay int8."
    )


def swift(facts: Facts) -> str:
    """A class that loads the file, makes its inputs, runs it and reads its outputs."""
    pictures = any(t.picture for t in facts.inputs)
    assets = [shown(facts.file), *([LABELS] if facts.label_file else [])]
    lines = [
        "// Podfile:        pod 'TensorFlowLiteSwift', '~> 2.17.0'",
        f"// In the bundle:  {' and '.join(assets)}",
        *(["import CoreGraphics"] if pictures else []),
        "import Foundation",
        "import TensorFlowLite",
        "",
        f"final class {facts.title} {{",
        "  enum Failure: Error { case missing(String), size(String), picture }",
        "",
        "  private let interpreter: Interpreter",
        *(["  let labels: [String]"] if facts.label_file else []),
        "",
        "  init(bundle: Bundle = .main, threads: Int = 2) throws {",
        f"    guard let path = bundle.path(forResource: {string(facts.file)}, ofType: nil) else {{",
        f"      throw Failure.missing({string(facts.file)})",
        "    }",
        "    var options = Interpreter.Options()",
        "    options.threadCount = threads",
        "    let interpreter = try Interpreter(modelPath: path, options: options)",
    ]
    for place, one in enumerate(facts.inputs):
        if one.resized:
            sizes = ", ".join(map(str, one.shape))
            lines.append(
                f"    try interpreter.resizeInput(at: {place}, to: Tensor.Shape([{sizes}]))"
            )
    lines += ["    try interpreter.allocateTensors()", "    self.interpreter = interpreter"]
    if facts.label_file:
        lines += [
            f"    guard let list = bundle.url(forResource: {string(LABELS)}, "
            "withExtension: nil) else {",
            f"      throw Failure.missing({string(LABELS)})",
            "    }",
            '    labels = try String(contentsOf: list, encoding: .utf8).components(separatedBy: "\\n")',
        ]
    lines += ["  }", ""]
    for place, one in enumerate(facts.inputs):
        lines += [f"  // Input {place}: {one.told}.", *_maker(one), ""]
    lines += [
        "  // All inputs and outputs as bytes, in the file's order.",
        "  func run(_ inputs: [Data]) throws -> [Data] {",
        "    for (index, data) in inputs.enumerated() {",
        "      try interpreter.copy(data, toInputAt: index)",
        "    }",
        "    try interpreter.invoke()",
        f"    return try (0..<{len(facts.outputs)}).map {{ try interpreter.output(at: $0).data }}",
        "  }",
        "",
    ]
    for place, one in enumerate(facts.outputs):
        lines += [f"  // Output {place}: {one.told}.", *_reader(one), ""]
    lines += _classify(facts)
    lines += [
        "  private func numbers<T>(_ data: Data, _ type: T.Type, _ count: Int) throws -> [T] {",
        "    guard data.count == count * MemoryLayout<T>.stride else {",
        '      throw Failure.size("\\(data.count) bytes for \\(count) numbers")',
        "    }",
        "    return [T](unsafeUninitializedCapacity: count) { buffer, filled in",
        "      filled = data.copyBytes(to: buffer) / MemoryLayout<T>.stride",
        "    }",
        "  }",
        "}",
    ]
    return "\n".join(lines)


def _data(kind: str) -> str:
    return f"stored.withUnsafeBufferPointer {{ Data(buffer: $0) }}  // {kind}, little-endian"


def _maker(one: Tensor) -> list[str]:
    if one.picture is not None:
        return _from_image(one, one.picture)
    kind = _KINDS[one.info.dtype]
    given, stored = kind, "values"
    if one.info.quantization is not None:
        given, stored = "Float", f"values.map {{ {_stored(one, '$0')} }}"
    return [
        f"  func {one.identifier}Bytes(_ values: [{given}]) throws -> Data {{",
        f"    guard values.count == {one.count} else {{",
        f'      throw Failure.size("{one.count} numbers wanted, \\(values.count) given")',
        "    }",
        f"    let stored: [{kind}] = {stored}",
        f"    return {_data(kind)}",
        "  }",
    ]


_ENDS = {"uint8": (0, 255), "int8": (-128, 127), "int16": (-32768, 32767)}


def _stored(one: Tensor, value: str) -> str:
    low, high = _ENDS.get(one.info.dtype, (-(2**31), 2**31 - 1))
    steps = f"({value} / {number(one.info.scale)}).rounded(.toNearestOrEven)"
    kind = _KINDS[one.info.dtype]
    return f"{kind}(min(max({steps} + ({one.info.zero_point}), {low}), {high}))"


def _from_image(one: Tensor, picture: Picture) -> list[str]:
    width, height = picture.width, picture.height
    grey = picture.channels == 1
    kind = _KINDS[one.info.dtype]
    space = "CGColorSpaceCreateDeviceGray()" if grey else "CGColorSpaceCreateDeviceRGB()"
    info = "CGImageAlphaInfo.none" if grey else "CGImageAlphaInfo.noneSkipLast"
    each = 1 if grey else 4
    lines = [
        f"  func {one.identifier}Bytes(_ image: CGImage) throws -> Data {{",
        f"    var pixels = [UInt8](repeating: 0, count: {width * height * each})",
        "    let drawn = pixels.withUnsafeMutableBytes { bytes -> Bool in",
        "      guard let context = CGContext(",
        f"        data: bytes.baseAddress, width: {width}, height: {height}, bitsPerComponent: 8,",
        f"        bytesPerRow: {width * each}, space: {space},",
        f"        bitmapInfo: {info}.rawValue)",
        "      else { return false }",
        f"      context.draw(image, in: CGRect(x: 0, y: 0, width: {width}, height: {height}))",
        "      return true",
        "    }",
        "    guard drawn else { throw Failure.picture }",
        f"    var stored = [{kind}]()",
        f"    stored.reserveCapacity({one.count})",
        f"    for start in stride(from: 0, to: pixels.count, by: {each}) {{",
    ]
    means = numbers(picture.mean, picture.channels)
    stds = numbers(picture.std, picture.channels)
    for channel, (mean, std) in enumerate(zip(means, stds, strict=True)):
        pixel = f"pixels[start + {channel}]"
        real = f"(Float({pixel}) - {mean}) / {std}"
        if picture.offset == 0:
            value = pixel
        elif picture.offset is not None:
            value = f"{kind}(Int({pixel}) - {-picture.offset})"
        else:
            value = real if kind == "Float" else _stored(one, f"({real})")
        lines.append(f"      stored.append({value})")
    return [*lines, "    }", f"    return {_data(kind)}", "  }"]


def _reader(one: Tensor) -> list[str]:
    kind = _KINDS[one.info.dtype]
    read = f"try numbers(data, {kind}.self, {one.count})"
    if one.info.quantization is None:
        made, given = read, kind
    else:
        given = "Float"
        made = f"{read}.map {{ (Float($0) - ({one.info.zero_point})) * {number(one.info.scale)} }}"
    return [
        f"  func {one.identifier}Values(_ data: Data) throws -> [{given}] {{",
        f"    return {made}",
        "  }",
    ]


def _classify(facts: Facts) -> list[str]:
    if facts.labelled is None:
        return []
    one = facts.outputs[facts.labelled]
    given, inputs = "_ inputs: [Data]", "inputs"
    if len(facts.inputs) == 1 and facts.inputs[0].picture is not None:
        given, inputs = "_ image: CGImage", f"[{facts.inputs[0].identifier}Bytes(image)]"
    kept = []
    if facts.threshold is not None:
        kept = [f"      .filter {{ $0.score >= {number(facts.threshold)} }}"]
    note = "" if facts.threshold is None else " Empty: no class is certain enough."
    return [
        f"  // The best classes, with their scores.{note}",
        f"  func classify({given}, top: Int = 3) throws -> [(label: String, score: Float)] {{",
        f"    let outputs = try run({inputs})",
        f"    let scores = try {one.identifier}Values(outputs[{facts.labelled}])",
        "    return zip(labels, scores)",
        "      .map { (label: $0, score: Float($1)) }",
        *kept,
        "      .sorted { $0.score > $1.score }",
        "      .prefix(top)",
        "      .map { $0 }",
        "  }",
        "",
    ]


def swift_test(facts: Facts, tolerances: Sequence[float], runs: int) -> str:
    """An XCTest: the recorded inputs give the recorded outputs."""
    inputs = ", ".join(
        f'piece("input_{place}", run, {one.size})' for place, one in enumerate(facts.inputs)
    )
    lines = [
        "// In the test bundle: the *.bin files of this folder",
        "import Foundation",
        "import XCTest",
        "",
        f"final class {facts.title}GoldenTests: XCTestCase {{",
        "  private func piece(_ file: String, _ run: Int, _ size: Int) throws -> Data {",
        "    let bundle = Bundle(for: Self.self)",
        '    let url = try XCTUnwrap(bundle.url(forResource: file, withExtension: "bin"))',
        "    return try Data(contentsOf: url).subdata(in: run * size..<(run + 1) * size)",
        "  }",
        "",
        "  func testAnswersAsRecorded() throws {",
        f"    let model = try {facts.title}()",
        f"    for run in 0..<{runs} {{",
        f"      let outputs = try model.run([{inputs}])",
    ]
    for place, (one, tolerance) in enumerate(zip(facts.outputs, tolerances, strict=True)):
        read = f"try model.{one.identifier}Values"
        value = "{} ? 1 : 0" if one.info.dtype == "bool" else "Float({})"
        want, have = value.format(f"want{place}[i]"), value.format(f"have{place}[i]")
        lines += [
            f'      let want{place} = {read}(piece("output_{place}", run, {one.size}))',
            f"      let have{place} = {read}(outputs[{place}])",
            f"      for i in want{place}.indices {{",
            f"        let want: Float = {want}, have: Float = {have}",
            f"        XCTAssertEqual(want, have, accuracy: {number(tolerance)},",
            f'          "output {place}, run \\(run), number \\(i)")',
            "      }",
        ]
    return "\n".join([*lines, "    }", "  }", "}"])
