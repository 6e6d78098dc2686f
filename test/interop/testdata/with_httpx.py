# httpx over HTTP/2: twenty requests at once on one connection, a stream up.
import asyncio, hashlib, os, httpx

auth = {"Authorization": "Bearer " + os.environ["API_KEY"]}

async def up(data):
    for i in range(0, len(data), 50000):
        yield data[i : i + 50000]

async def main():
    async with httpx.AsyncClient(http2=True, headers=auth, timeout=20) as c:
        rs = await asyncio.gather(*(c.get(f"https://good.test/echo/{i}") for i in range(20)))
        for i, r in enumerate(rs):
            assert r.status_code == 200 and r.http_version == "HTTP/2" and f"/echo/{i} " in r.text, r
        body = os.urandom(1 << 20)
        r = await c.post("https://good.test/upload", content=up(body))
        assert r.json()["sha256"] == hashlib.sha256(body).hexdigest(), r.text
        r = await c.get("https://good.test/echo")
        print(r.status_code, r.text, "done")

asyncio.run(main())
