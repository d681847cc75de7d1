// Plays Kore's own Web SDK in its webhook mode in Chromium against a running bridge, with nothing in between.
//
//   node play-webhook.mjs BRIDGE_URL PLATFORM_URL SDK_FOLDER SCREENSHOT_FOLDER CHROMIUM
//
// The page and the bridge have different origins, so the browser checks CORS.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { join, normalize } from "node:path";
import { chromium } from "playwright-core";

const [bridge, platform, sdk, shots, executablePath] = process.argv.slice(2);

const pages = createServer(async (request, response) => {
  const path = normalize(new URL(request.url, "http://page").pathname);
  const file = path.startsWith("/sdk/")
    ? join(sdk, path.slice("/sdk/".length))
    : join(import.meta.dirname, "webhook.html");
  try {
    const type = file.endsWith(".js") ? "text/javascript" : "text/html";
    response.writeHead(200, { "content-type": type }).end(await readFile(file));
  } catch {
    response.writeHead(404).end();
  }
});
await new Promise((resolve) => pages.listen(0, "127.0.0.1", resolve));
const origin = `http://127.0.0.1:${pages.address().port}`;

const browser = await chromium.launch({
  executablePath,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
const page = await browser.newPage({ viewport: { width: 520, height: 760 } });
page.setDefaultTimeout(15_000);
const calls = [];
page.on("response", (response) => {
  if (response.url().startsWith(bridge)) calls.push(`${response.request().method()} ${response.status()} ${new URL(response.url()).pathname}`);
});
await page.route("**", (route) => {
  const url = new URL(route.request().url());
  return url.hostname === "127.0.0.1" || url.protocol === "data:" ? route.continue() : route.abort();
});

const bubbles = page.locator(".chat-container li");
const shows = (text) => bubbles.filter({ hasText: text }).last().waitFor();
async function say(text) {
  const input = page.locator(".chatInputBox");
  await page.locator(".kore-chat-footer:not(.disableFooter)").waitFor();
  await input.click();
  await input.pressSequentially(text);
  await input.press("Enter");
}

try {
  await page.goto(`${origin}/?bridge=${encodeURIComponent(bridge)}&platform=${encodeURIComponent(platform)}&user=webhook`);
  await page.locator(".minimized").click();
  await shows("Hello! I am the sandbox bot.");
  await say("/echo one");
  await shows("one");
  await say("/several 2");
  await shows("Message 1 of 2");
  await shows("Message 2 of 2");
  const path = "/chatbot/v2/webhook/st-sandbox/hookInstance/ivrInst-1";
  assert.ok(calls.filter((call) => call === `POST 200 ${path}`).length >= 3, calls.join("; "));
  assert.ok(calls.includes("GET 200 /api/botmeta/st-sandbox"), calls.join("; "));
  assert.ok(calls.every((call) => /^(GET|POST) 200 |^OPTIONS 204 /.test(call)), calls.join("; "));
  await page.screenshot({ path: join(shots, "webhook.png") });
  console.log(`webhook mode: ok, ${calls.length} calls of the bridge`);
} catch (error) {
  await page.screenshot({ path: join(shots, "webhook-failed.png") });
  console.error(`FAILED: webhook mode\n${error.stack}\n${calls.join("\n")}`);
  process.exit(1);
}
await browser.close();
pages.close();
