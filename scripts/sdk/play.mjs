// Plays Kore's own Web SDK in Chromium against a running sandbox, with nothing in between.
//
//   node play.mjs PLATFORM_URL SDK_FOLDER SCREENSHOT_FOLDER CHROMIUM [--uploads]
//
// The page and the platform have different origins, so the browser checks CORS. Each part ends with a screenshot.
import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { start } from "./browser.mjs";

const [platform, sdk, shots, executablePath] = process.argv.slice(2);
const uploads = process.argv.includes("--uploads");
const user = "chromium";
const began = Date.now();

const { page, foreign, bubbles, shows, say, open: openPage, close } = await start("page.html", sdk, executablePath);
const errors = [];
page.on("pageerror", (error) => errors.push(error.message));

async function control(path, body) {
  const response = await fetch(`${platform}/sandbox/${path}`, body && { method: "POST", body: JSON.stringify(body) });
  assert.equal(response.status, 200, `${path}: ${response.status}`);
  return response.json();
}

let seen = 0;
/** Waits for something that the platform heard after the last call. */
async function heard(what, wanted) {
  const deadline = Date.now() + 15_000;
  while (Date.now() < deadline) {
    const { events } = await control(`heard?user=${user}&after=${seen}&wait=5`);
    for (const event of events) {
      seen = event.seq;
      if (wanted(event)) return event;
    }
  }
  assert.fail(`the platform never heard ${what}`);
}

const count = (text) => bubbles.filter({ hasText: text }).count();

async function part(name, play) {
  const begun = Date.now();
  try {
    await play();
  } catch (error) {
    await page.screenshot({ path: join(shots, "failed.png") });
    await writeFile(join(shots, "failed.html"), await page.content());
    console.error(`FAILED: ${name}\n${error.stack}\nerrors of the page: ${errors.join("; ") || "none"}`);
    process.exit(1);
  }
  await page.screenshot({ path: join(shots, `${name}.png`) });
  console.log(`${name}: ok, ${Date.now() - begun} ms`);
}

const open = () => openPage({ platform, user });
const opened = (mode) => heard(`a connect (${mode})`, (event) => event.kind === "connect" && event.isReconnect === (mode === "again"));

await part("1-connects", async () => {
  await open();
  await opened("new");
  await shows(`Welcome, ${user}!`);
  const avatar = await page.locator(".profile-photo .avtar").first().evaluate((element) => element.style.backgroundImage);
  assert.ok(avatar.includes(`${platform}/sandbox/bot.png`), avatar);
});

await part("2-sends-and-shows-replies", async () => {
  await say("two");
  await heard("the message", (event) => event.text === "two");
  await shows("First reply");
  await shows('Second reply "quoted"');
  const ack = await heard("a delivery ack", (event) => event.type === "ack");
  assert.ok(ack.frame.key, "the ack has the reply's key");
});

await part("3-shows-buttons", async () => {
  await say("buttons");
  await shows("Which order?");
  await page.getByText("Order 4712", { exact: true }).click();
  const pressed = await heard("the button", (event) => event.type === "message" && event.text !== "buttons");
  assert.equal(pressed.text, "Order 4712");
  await shows("Order 4712 is on its way.");
  await say("quick");
  await page.locator(".quickReply", { hasText: "Yes, it was" }).click();
  await shows("You said: Yes, it was");
});

await part("4-shows-pictures", async () => {
  await say("pictures");
  const picture = page.locator(`img[src="${platform}/sandbox/parcel.png"]`).first();
  await picture.waitFor({ state: "attached" });
  await page.waitForFunction((url) => [...document.images].some((image) => image.src === url && image.naturalWidth > 0), `${platform}/sandbox/parcel.png`);
  await page.waitForTimeout(500);
});

await part("5-shows-an-agents-signs", async () => {
  await say("agent");
  await shows("Alex is here");
  await shows("Hi, this is Alex");
  for (const event of ["message_delivered", "message_read"]) {
    const receipt = await heard(event, (entry) => entry.frame?.event === event);
    assert.match(receipt.frame.messageId, /^ms-/);
  }
  await say("are you there?");
  await heard("typing", (entry) => entry.frame?.event === "typing");
  await page.locator(".typingIndicatorContent").waitFor({ state: "visible" });
  await page.locator(".sentIndicator.read").last().waitFor();
  await shows("Alex read: are you there?");
  assert.ok((await page.locator("li.from-agent").count()) >= 2, "lines of the agent are marked");
});

await part("6-reconnects", async () => {
  await say("bye");
  await shows("The bot is back.");
  await control("push", { user, bot: "st-sdk", reply: { do: "drop" } });
  await heard("the end", (event) => event.kind === "close" && event.ending === "cut");
  await opened("again");
  await say("here again");
  await shows("You said: here again");
  assert.equal(await count("Welcome"), 1, "a reconnect gets no second welcome");
});

await part("7-survives-token-expiry", async () => {
  await control("push", { user, bot: "st-sdk", reply: [{ do: "expireTokens" }, { do: "drop" }] });
  await heard("the end", (event) => event.kind === "close" && event.ending === "cut");
  await heard("a new grant", (event) => event.kind === "grant");
  await opened("again");
  await say("with a new token");
  await shows("You said: with a new token");
  assert.equal(await count("Welcome"), 1, "renewing the token is silent");
});

if (uploads) {
  for (const [name, size, type] of [["small.txt", 12_000, "text/plain"], ["large.pdf", 2_600_000, "application/pdf"]]) {
    await part(`8-uploads-${name}`, async () => {
      await page.locator("#captureAttachmnts").setInputFiles({ name, mimeType: type, buffer: Buffer.alloc(size, "rtm-bridge ") });
      await page.locator(".attachment .msgCmpt").waitFor();
      await page.locator(".upldIndc").waitFor({ state: "hidden" });
      await say(`take ${name}`);
      const sent = await heard("the file", (event) => event.type === "message" && event.frame.message.attachments?.length);
      const [file] = sent.frame.message.attachments;
      assert.ok(file.fileId && file.fileName.startsWith(name.split(".")[0]), JSON.stringify(file));
    });
  }
}

await part("9-shows-history-after-a-reload", async () => {
  const lines = Array.from({ length: 45 }, (_, n) => ({ onlyHistory: `Earlier line ${n + 1}.` }));
  await control("push", { user, bot: "st-sdk", reply: lines });
  await open();
  await opened("new");
  await shows("Earlier line 45.");
  assert.equal(await count("Earlier line 20."), 0, "the first page is short");
  for (let tries = 0; tries < 20 && !(await count("Earlier line 20.")); tries += 1) {
    await page.locator(".chat-container").evaluate((list) => {
      list.scrollTop = 40;
      list.scrollTop = 0;
    });
    await page.waitForTimeout(400);
  }
  await bubbles.filter({ hasText: "Earlier line 20." }).first().waitFor();
  for (const line of [44, 40, 36, 35, 30, 25, 20]) {
    assert.equal(await count(`Earlier line ${line}.`), 1, `line ${line} is shown once`);
  }
});

assert.deepEqual(errors, [], "the page threw no error");
if (foreign.size) console.log(`not loaded, of other hosts: ${[...foreign].join(", ")}`);
console.log(`all parts in ${Date.now() - began} ms; screenshots are in ${shots}`);
await close();
