#!/bin/sh
# Becomes the program of a container, which gets its secrets from the files in which the engine
# mounts them, not from a command line or a stored environment.
set -eu

secrets=/run/secrets
program=$1
shift

case $program in
redis)
    # its configuration from standard input
    exec redis-server - "$@" <<CONFIGURATION
requirepass $(cat $secrets/redis_password)
CONFIGURATION
    ;;
s3)
    mkdir -p /data/pressrun # a bucket is a folder
    id=$(sed -n 's/^aws_access_key_id *= *//p' $secrets/s3_credentials)
    key=$(sed -n 's/^aws_secret_access_key *= *//p' $secrets/s3_credentials)
    export RCLONE_AUTH_KEY="\"$id,$key\""
    exec rclone "$@"
    ;;
qdrant)
    QDRANT__SERVICE__API_KEY=$(cat $secrets/pressrun_qdrant_api_key)
    export QDRANT__SERVICE__API_KEY
    exec ./entrypoint.sh "$@"
    ;;
prefect)
    PREFECT_SERVER_DATABASE_PASSWORD=$(cat $secrets/postgres_password)
    PREFECT_SERVER_API_AUTH_STRING=$(cat $secrets/prefect_api_auth_string)
    export PREFECT_SERVER_DATABASE_PASSWORD PREFECT_SERVER_API_AUTH_STRING
    exec prefect "$@"
    ;;
*)
    echo "entry.sh knows no $program" >&2
    exit 64
    ;;
esac
