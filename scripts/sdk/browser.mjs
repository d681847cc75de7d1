// What the tests of the SDK share: a server for the page, a browser, and a user that types.
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { join, normalize } from "node:path";
import { chromium } from "playwright-core";

/** Serves this page and the SDK's folder, and opens an empty page in a browser that reaches this machine only. */
export async function start(html, sdk, executablePath) {
  const pages = createServer(async (request, response) => {
    const path = normalize(new URL(request.url, "http://page").pathname);
    const file = path.startsWith("/sdk/")
      ? join(sdk, path.slice("/sdk/".length))
      : join(import.meta.dirname, html);
    try {
      const type = file.endsWith(".js") ? "text/javascript" : "text/html";
      response.writeHead(200, { "content-type": type }).end(await readFile(file));
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((resolve) => pages.listen(0, "127.0.0.1", resolve));
  const browser = await chromium.launch({
    executablePath,
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
  const page = await browser.newPage({ viewport: { width: 520, height: 760 } });
  page.setDefaultTimeout(15_000);
  const foreign = new Set();
  await page.route("**", (route) => {
    const url = new URL(route.request().url());
    if (url.hostname === "127.0.0.1" || url.protocol === "data:") return route.continue();
    foreign.add(url.hostname);
    return route.abort();
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
  async function open(parameters) {
    await page.goto(`http://127.0.0.1:${pages.address().port}/?${new URLSearchParams(parameters)}`);
    await page.locator(".minimized").click();
  }
  async function close() {
    await browser.close();
    pages.close();
  }
  return { page, foreign, bubbles, shows, say, open, close };
}
