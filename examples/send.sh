#!/usr/bin/env bash
# Says something to the bot and prints the answer, with nothing but curl:
#
#   examples/send.sh alice "Where is my order?"
#
# The same request with the same Idempotency-Key is sent until the message has ended: it is accepted once, and each
# repeat waits with it. So lost answers, restarts of a proxy and long turns are all the same to this script.
# RTM_BRIDGE_URL names the bridge, RTM_BRIDGE_KEY holds the caller's key, where there is one.
set -euo pipefail

if [[ $# != 2 ]]; then
    echo "usage: ${0##*/} USER TEXT" >&2
    exit 2
fi
user=$1 text=$2
url=${RTM_BRIDGE_URL:-http://127.0.0.1:8080}
key=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
answer=$(mktemp)
trap 'rm -f "$answer"' EXIT

# As JSON and as part of a path. A line feed in the text is more than this script can do.
text=${text//\\/\\\\}
text=${text//\"/\\\"}
encoded=$(printf %s "$user" | od -An -v -tx1 | tr -d '\n' | tr ' ' %)

# The key goes in by a file, as arguments can be seen by others on the machine.
headers() {
    if [[ -n ${RTM_BRIDGE_KEY:-} ]]; then printf 'Authorization: Bearer %s\n' "$RTM_BRIDGE_KEY"; fi
}

for _ in {1..20}; do
    status=$(curl --silent --show-error --max-time 70 --output "$answer" --write-out '%{http_code}' \
        --header @<(headers) --header 'Content-Type: application/json' --header 'Prefer: wait=50' \
        --header "Idempotency-Key: $key" --data "{\"text\":\"$text\"}" \
        "$url/conversations/$encoded/messages") || status=000
    case $status in
    200) cat "$answer" && echo && exit 0 ;;
    202) continue ;;                        # it runs: wait on
    000 | 429 | 503) sleep 1 ;;             # not reached, or not now: the same again
    *) break ;;                             # refused, or failed for good
    esac
done
echo "HTTP $status" >&2
cat "$answer" >&2
echo >&2
exit 1
