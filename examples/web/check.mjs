// Opens the page in headless Chromium, drops photos on it, and prints what it says, as JSON.
//   node check.mjs http://127.0.0.1:8000/ photo.png …
import { readFile } from "node:fs/promises";
import { basename } from "node:path";
import { chromium } from "playwright-core";

const [url, ...photos] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run"],
});
try {
  const page = await browser.newPage();
  const problems = [];
  page.on("pageerror", (error) => problems.push(error.message));
  await page.goto(url);
  await page.waitForFunction(
    () => document.body.dataset.ready || /cannot/.test(document.getElementById("status").textContent),
    null, { timeout: 60_000 },
  );
  const answers = [];
  for (const photo of photos) {
    const content = (await readFile(photo)).toString("base64");
    const transfer = await page.evaluateHandle(async ([base64, name]) => {
      const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
      const data = new DataTransfer();
      data.items.add(new File([bytes], name));
      delete document.body.dataset.answer;
      return data;
    }, [content, basename(photo)]);
    await page.dispatchEvent("#drop", "drop", { dataTransfer: transfer });
    await page.waitForFunction(
      () => document.body.dataset.answer || /did not work/.test(document.getElementById("status").textContent),
      null, { timeout: 60_000 },
    );
    answers.push(await page.evaluate(() => ({
      status: document.getElementById("status").textContent,
      answer: JSON.parse(document.body.dataset.answer ?? "null"),
      rows: [...document.querySelectorAll("#answer tr")].map((row) => row.textContent),
    })));
  }
  const status = await page.textContent("#status");
  if (process.env.SCREENSHOT) await page.screenshot({ path: process.env.SCREENSHOT });
  console.log(JSON.stringify({ status, answers, problems }));
} finally {
  await browser.close();
}
