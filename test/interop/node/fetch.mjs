// fetch, as Node has it built in: headers, a stream up, events down.
import { createHash, randomBytes } from "node:crypto";
import assert from "node:assert";

const headers = { Authorization: `Bearer ${process.env.API_KEY}` };
console.log(await (await fetch("https://good.test/echo", { headers })).text());

const body = randomBytes(1 << 20);
const stream = new ReadableStream({
  start(c) {
    for (let i = 0; i < body.length; i += 60000) c.enqueue(body.subarray(i, i + 60000));
    c.close();
  },
});
const up = await (await fetch("https://good.test/upload", { method: "POST", headers, body: stream, duplex: "half" })).json();
assert.equal(up.sha256, createHash("sha256").update(body).digest("hex"));

let events = 0;
for await (const chunk of (await fetch("https://good.test/stream?n=5&ms=10", { headers })).body) {
  events += Buffer.from(chunk).toString().split("data:").length - 1;
}
assert.equal(events, 5);
const no = await fetch(`https://good.test/echo?key=${process.env.API_KEY}`);
console.log(no.status, (await no.json()).reason);
console.log((await fetch("https://good.test/echo", { headers })).status, "done");
