// undici over HTTP/2.
import { Agent, request } from "undici";
import assert from "node:assert";

const dispatcher = new Agent({ allowH2: true });
const headers = { authorization: `Bearer ${process.env.API_KEY}` };
const all = await Promise.all(
  Array.from({ length: 10 }, async (_, i) => {
    const { statusCode, body } = await request(`https://good.test/echo/${i}`, { dispatcher, headers });
    return [statusCode, await body.text()];
  }),
);
for (const [i, [status, text]] of all.entries()) {
  assert.equal(status, 200);
  assert.match(text, new RegExp(`GET /echo/${i} HTTP/2.0`));
}
const { body } = await request("https://good.test/echo", { dispatcher, headers, method: "POST", body: "hello" });
console.log(await body.text(), "done");
await dispatcher.close();
