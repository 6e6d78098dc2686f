# requests: a session, Basic authentication, JSON, and a refusal.
import os, requests

key = os.environ["API_KEY"]
s = requests.Session()
r = s.get("https://good.test/echo", headers={"Authorization": "Bearer " + key})
print(r.status_code, r.text)
r = s.post("https://good.test/echo.json", auth=("user", key), json={"a": "b"})
print(r.status_code, r.json()["body"])
r = s.get("https://good.test/echo", params={"key": key})
print(r.status_code, r.json()["reason"])
print(s.get("https://good.test/echo", headers={"Authorization": "Bearer " + key}).status_code, "done")
