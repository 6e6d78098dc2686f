// ws: a credential in the handshake, text and binary messages of many sizes.
import WebSocket from "ws";
import assert from "node:assert";

const ws = new WebSocket("wss://good.test/ws", { headers: { Authorization: `Bearer ${process.env.API_KEY}` } });
await new Promise((resolve, reject) => ws.on("open", resolve).on("error", reject));
const next = () => new Promise((resolve) => ws.once("message", (data, binary) => resolve([data, binary])));
for (const n of [0, 1, 125, 126, 65535, 65536, 1 << 20]) {
  for (const binary of [false, true]) {
    const answer = next();
    ws.send(binary ? Buffer.alloc(n, "x") : "x".repeat(n), { binary });
    const [data, isBinary] = await answer;
    assert.equal(data.length, n);
    assert.equal(isBinary, binary);
  }
}
const answer = next();
ws.send("credential");
console.log(String((await answer)[0]), "done");
ws.close();
