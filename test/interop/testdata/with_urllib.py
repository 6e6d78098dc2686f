# The standard library: a GET, a POST, and a second request on one connection.
import hashlib, http.client, json, os, ssl, urllib.request

auth = {"Authorization": "Bearer " + os.environ["API_KEY"]}
with urllib.request.urlopen(urllib.request.Request("https://good.test/echo", headers=auth)) as r:
    print(r.status, r.read().decode())

c = http.client.HTTPSConnection("good.test", context=ssl.create_default_context())
body = os.urandom(1 << 20)
for chunked in (False, True):
    source = (body[i : i + 70000] for i in range(0, len(body), 70000)) if chunked else body
    c.request("POST", "/upload", body=source, headers=auth, encode_chunked=chunked)
    got = json.loads(c.getresponse().read())
    assert got == {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}, got
print("done")
