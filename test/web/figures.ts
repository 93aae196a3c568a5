/**
 * Takes the pictures of the page in docs/figures from a running `ifprune serve` with the model in this package:
 * `npx tsx test/web/figures.ts http://127.0.0.1:8080`
 */
import { chromium } from "playwright-core";
import { chromiumPath } from "./chromium.ts";

const [url = "http://127.0.0.1:8080"] = process.argv.slice(2);
const figures = new URL("../../docs/figures/", import.meta.url).pathname;
const plural = "What is the plural of window?";
const number = "How do you write 4711 in words?";
const prompts = [
  plural,
  "Subtract the second number from the first number Input: 94 29",
  "Write the first letter of the word. Input: tree",
  "Write the larger of the two given animals. Input: flea, elephant",
  number,
];

const browser = await chromium.launch({ executablePath: chromiumPath, args: ["--no-sandbox", "--disable-gpu"] });
const page = await browser.newPage({ viewport: { width: 1280, height: 640 } });
await page.goto(url);
for (const prompt of prompts) {
  await page.getByRole("button", { name: "New chat" }).click();
  await page.getByRole("textbox", { name: "Message" }).fill(prompt);
  await page.keyboard.press("Enter");
  await page.getByRole("button", { name: "Retry" }).waitFor();
}
await page.getByRole("button", { name: "Retry" }).click(); // now without building the sub-network
await page.getByText("Details").click();
await page.getByText("from memory").waitFor();
for (let x = 150; !/kept by \d/.test(await page.locator(".strip-text").innerText()); x++) {
  await page.getByRole("slider").hover({ position: { x, y: 27 } });
}
await page.getByText("Ready").waitFor();
await page.screenshot({ path: `${figures}page-chat.png` });

await page.setViewportSize({ width: 1280, height: 900 });
await page.getByRole("link", { name: "Compare" }).click();
await page.getByRole("textbox", { name: "First" }).fill(plural);
await page.getByRole("textbox", { name: "Second" }).fill(number);
await page.keyboard.press("Enter");
await page.getByRole("table").waitFor();
await page.getByText("Ready").waitFor();
await page.screenshot({ path: `${figures}page-compare.png` });
await browser.close();
