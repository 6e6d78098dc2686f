# What TestAPIs has the guest do. Each line that it prints is NAME: RESULT.
set -e
api=https://api.example.test

# Clone and push, with the token in the URL, then from a credential helper.
git config --global user.email me@example.test
git config --global user.name me
cd /tmp
git clone -q "https://me:$API_KEY@api.example.test/repo.git" work 2>/dev/null
cd work
git checkout -q -b first
head -c 1000000 /dev/urandom >data
git add data
git commit -q -m first
git push -q origin first
echo "git first: $(sha256sum <data | cut -d' ' -f1)"
git config --global credential.helper '!f() { echo username=me; echo "password=$API_KEY"; }; f'
git clone -q -b first $api/repo.git /tmp/again
cd /tmp/again
cmp data /tmp/work/data
git checkout -q -b second
echo "a token: $API_KEY" >>data
git commit -q -a -m second
git -c http.version=HTTP/1.1 push -q origin second
echo "git second: $(sha256sum <data | cut -d' ' -f1)"

# An object of a fixed length.
half() { yes 0123456789abcde | head -c $((SIZE / 2)); }
{ printf %s "$API_KEY"; half; printf %s "$API_KEY"; half; printf %s "$API_KEY"; } >/tmp/object
echo "sent: $(sha256sum </tmp/object | cut -d' ' -f1)"
echo "stored: $(curl -sS -T /tmp/object -H "Authorization: Bearer $API_KEY" -H 'Content-Type: text/plain' $api/bucket/object)"
rm /tmp/object

echo "chat: $(python3 /api/chat.py)"
echo "gRPC: $(talk grpc.example.test:443)"
