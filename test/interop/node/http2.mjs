// Node's own HTTP/2 client: two streams of one session, with trailers.
import http2 from "node:http2";

const session = http2.connect("https://good.test");
const ask = (path) =>
  new Promise((resolve, reject) => {
    const s = session.request({ ":path": path, authorization: `Bearer ${process.env.API_KEY}` });
    let text = "";
    s.setEncoding("utf8");
    s.on("data", (d) => (text += d));
    s.on("trailers", (t) => (text += JSON.stringify(t)));
    s.on("end", () => resolve(text));
    s.on("error", reject);
    s.end();
  });
console.log((await Promise.all([ask("/echo"), ask("/echo/trailer")])).join("\n"), "done");
session.close();
