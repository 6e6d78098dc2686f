# A chat completion that is streamed. Each event is acknowledged, on another
# connection, before the server makes the next.
import http.client, json, os, ssl

key, tls = os.environ["API_KEY"], ssl.create_default_context()
auth = {"Authorization": "Bearer " + key}
connect = lambda: http.client.HTTPSConnection("api.example.test", context=tls, timeout=120)
chat, acks = connect(), connect()
question = {"stream": True, "messages": [{"role": "user", "content": "say " + key}]}
chat.request("POST", "/v1/chat/completions", json.dumps(question), auth | {"Content-Type": "application/json"})
answer = chat.getresponse()
assert answer.status == 200, answer.status
count, seen = 0, set()
for line in answer:
    line = line.decode().strip()
    if line == "data: [DONE]":
        print(f"{count} events,", *seen)
    elif line:
        event = json.loads(line.removeprefix("data: "))
        assert event["n"] == count, event
        seen.add(event["content"])
        acks.request("POST", f"/acknowledge/{count}", "", auth)
        assert acks.getresponse().read() == b""
        count += 1
