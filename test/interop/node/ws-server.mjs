// A ws server: echoes; "credential" is answered with the handshake's. It
// tells its port, and the credential of each handshake.
import { readFileSync } from "node:fs";
import { createServer } from "node:https";
import { WebSocketServer } from "ws";

const server = createServer({ cert: readFileSync(process.argv[2]), key: readFileSync(process.argv[3]) });
new WebSocketServer({ server, perMessageDeflate: true }).on("connection", (ws, r) => {
  console.log(r.headers.authorization);
  ws.on("message", (data, isBinary) => {
    ws.send(String(data) === "credential" ? r.headers.authorization : data, { binary: isBinary });
  });
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
