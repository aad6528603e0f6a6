#!/usr/bin/env bash
# Exports a version, starts TF Serving, asks it over REST and gRPC, exports another version and waits until
# the server has changed to it. Needs Docker.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
trap 'docker compose logs --tail 20; docker compose down' EXIT

# available VERSION: waits up to a minute until the server answers with that version.
available() {
  for _ in $(seq 60); do
    if python -c "import sys, rest_client; sys.exit('$1' not in rest_client.available('http://localhost:8501', 'digits'))" \
      2>/dev/null; then return; fi
    sleep 1
  done
  echo "version $1 is not available after a minute" >&2
  return 1
}

# right CLIENT: the best label of each photo is its file's name.
right() {
  python "$1" digits photos/*.png | tee /dev/stderr | while IFS= read -r line; do
    name=${line#photos/}
    [[ "${line#*: }" == "${name%%.png*} "* ]] || { echo "wrong: $line" >&2; exit 1; }
  done
}

newest() { find models/digits -maxdepth 1 -name '[0-9]*' -printf '%f\n' | sort -n | tail -1; }

python make_model.py
docker compose up -d
available "$(newest)"
right rest_client.py
right grpc_client.py
python make_model.py
available "$(newest)"
right rest_client.py
echo "TF Serving answers over REST and gRPC, and changed to version $(newest)."
