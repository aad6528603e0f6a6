// Loads model.tflite with LiteRT.js and classifies the photo that is dropped on the page. Nothing leaves
// the browser. model.json, which prepare.py writes beside the file, says what the file cannot say here:
// labels, what pixels mean to the model, and whether it answers logits.
import { loadAndCompile, loadLiteRt, Tensor } from "@litertjs/core";

const element = (id) => document.getElementById(id);
const say = (text) => { element("status").textContent = text; };

async function load() {
  const response = await fetch("model.json");
  if (!response.ok) throw new Error("There is no model.json: python prepare.py YOUR.tflite");
  const about = await response.json();
  await loadLiteRt("./node_modules/@litertjs/core/wasm/");
  const model = await loadAndCompile("model.tflite", { accelerator: "wasm" });
  return { about, model };
}

// Upright as its EXIF says, over white, stretched to the model's size. The browser's filter is not Pillow's:
// pixels differ a little from those of training.
async function pixelsOf(file, [height, width]) {
  const bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  bitmap.close();
  return context.getImageData(0, 0, width, height).data; // RGBA
}

// What goes into the model: raw pixels for a uint8 file, (pixel - mean) / std for a float32 one.
function inputOf(rgba, { shape, dtype, mean, std }) {
  const [, height, width, channels] = shape;
  const input = new (dtype === "uint8" ? Uint8Array : Float32Array)(height * width * channels);
  for (let i = 0; i < height * width; i++) {
    const [red, green, blue] = rgba.subarray(4 * i, 4 * i + 3);
    const values = channels === 1 ? [Math.round(0.299 * red + 0.587 * green + 0.114 * blue)] : [red, green, blue];
    values.forEach((value, c) => {
      const at = i * channels + c;
      input[at] = dtype === "uint8" ? value : (value - mean[c % mean.length]) / std[c % std.length];
    });
  }
  return new Tensor(input, shape);
}

function probabilities(values, end) {
  if (end === "probabilities") return values;
  if (values.length === 1) return values.map((value) => 1 / (1 + Math.exp(-value)));
  const largest = Math.max(...values);
  const powers = values.map((value) => Math.exp(value - largest));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}

export async function classify(file, { about, model }) {
  const input = inputOf(await pixelsOf(file, about.input.shape.slice(1, 3)), about.input);
  const outputs = await model.run(input);
  input.delete(); // LiteRT.js frees nothing by itself
  const output = outputs[about.output.index];
  const values = Array.from(output.toTypedArray());
  outputs.forEach((one) => one.delete());
  const { scale, zeroPoint } = about.output;
  const real = scale ? values.map((value) => (value - zeroPoint) * scale) : values;
  return probabilities(real, about.output.end)
    .map((score, i) => ({ label: about.labels[i] ?? String(i), score }))
    .sort((a, b) => b.score - a.score);
}

async function show(file, loaded) {
  try {
    say("Classifying.");
    element("answer").replaceChildren();
    element("photo").hidden = false;
    element("photo").src = URL.createObjectURL(file);
    const began = performance.now();
    const answer = await classify(file, loaded);
    for (const { label, score } of answer.slice(0, 5)) {
      const row = element("answer").insertRow();
      row.insertCell().textContent = label;
      row.insertCell().textContent = `${(100 * score).toFixed(1)} %`;
    }
    say(`${answer[0].label}, in ${Math.round(performance.now() - began)} ms`);
    document.body.dataset.answer = JSON.stringify(answer);
  } catch (error) {
    say(`This did not work: ${error.message}`);
  }
}

try {
  const loaded = await load();
  const drop = element("drop");
  const over = (on) => (event) => {
    event.preventDefault();
    drop.classList.toggle("over", on);
  };
  document.addEventListener("dragover", over(true));
  document.addEventListener("dragleave", over(false));
  document.addEventListener("drop", (event) => {
    over(false)(event);
    const file = event.dataTransfer.files[0];
    if (file) show(file, loaded);
  });
  element("file").addEventListener("change", (event) => show(event.target.files[0], loaded));
  say("Ready.");
  document.body.dataset.ready = "yes";
} catch (error) {
  say(`The model cannot be loaded: ${error.message}`);
}
