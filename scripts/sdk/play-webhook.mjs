// Plays Kore's own Web SDK in its webhook mode in Chromium against a running bridge, with nothing in between.
//
//   node play-webhook.mjs BRIDGE_URL PLATFORM_URL SDK_FOLDER SCREENSHOT_FOLDER CHROMIUM
//
// The page and the bridge have different origins, so the browser checks CORS.
import assert from "node:assert/strict";
import { join } from "node:path";
import { start } from "./browser.mjs";

const [bridge, platform, sdk, shots, executablePath] = process.argv.slice(2);

const { page, shows, say, open, close } = await start("webhook.html", sdk, executablePath);
const calls = [];
page.on("response", (response) => {
  if (response.url().startsWith(bridge)) calls.push(`${response.request().method()} ${response.status()} ${new URL(response.url()).pathname}`);
});

try {
  await open({ bridge, platform, user: "webhook" });
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
await close();
