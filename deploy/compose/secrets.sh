#!/bin/sh
# Makes the secrets of docker-compose.yml, those that are not there yet. The folder is for its owner
# alone; the files in it are for all, because each container reads them as a user of its own.
set -eu

folder=${1:-$(dirname "$0")/secrets}
mkdir -p "$folder"
chmod 700 "$folder"
cd "$folder"

random() { od -An -tx1 -N24 /dev/urandom | tr -d ' \n'; }
keep() {
    [ -e "$1" ] || printf '%s\n' "$2" >"$1"
    chmod 444 "$1"
}

keep redis_password "$(random)"
keep pressrun_redis_url "redis://:$(cat redis_password)@redis:6379/0"
keep pressrun_qdrant_api_key "$(random)"
keep postgres_password "$(random)"
keep prefect_api_auth_string "pressrun:$(random)"
keep grafana_password "$(random)"
keep s3_credentials "[default]
aws_access_key_id = pressrun
aws_secret_access_key = $(random)"
