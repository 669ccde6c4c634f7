#!/usr/bin/env bash
# What can be seen of the official image's entry point: variables and their _FILE twins, the order of the first
# start, the messages, and the drop to the user postgres.
set -Eeuo pipefail

# setting NAME [DEFAULT]: NAME from itself or from the file that NAME_FILE names, never both.
setting() {
    local name=$1 file=$1_FILE
    if [ -n "${!name:-}" ] && [ -n "${!file:-}" ]; then
        echo "error: both $name and $file are set (but are exclusive)" >&2
        exit 1
    fi
    [ -z "${!file:-}" ] || printf -v "$name" %s "$(<"${!file}")"
    [ -n "${!name:-}" ] || printf -v "$name" %s "${2:-}"
    export "${name?}"
    unset "$file"
}

asks_for_help() {
    local word
    for word; do
        case $word in -\? | --help | --describe-config | -V | --version) return 0 ;; esac
    done
    return 1
}

sql() { psql -v ON_ERROR_STOP=1 --no-psqlrc --no-password -U "$POSTGRES_USER" "$@"; }

run_init_file() {
    echo "$0: running $1"
    # shellcheck disable=SC1090
    case $1 in
    *.sh) if [ -x "$1" ]; then "$1"; else . "$1"; fi ;;
    *.sql) sql -d "$POSTGRES_DB" -f "$1" ;;
    *.sql.gz) gunzip -c "$1" | sql -d "$POSTGRES_DB" ;;
    *) echo "$0: ignoring $1" ;;
    esac
}

first_start() {
    if [ -z "$POSTGRES_PASSWORD" ] && [ "${POSTGRES_HOST_AUTH_METHOD:-}" != trust ]; then
        echo "Error: Database is uninitialized and superuser password is not specified." >&2
        exit 1
    fi
    # POSTGRES_INITDB_ARGS is split as a shell would.
    eval 'initdb --username="$POSTGRES_USER" --pwfile=<(printf "%s\n" "$POSTGRES_PASSWORD") '"$POSTGRES_INITDB_ARGS"
    printf '\nhost all all all %s\n' "${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}" >>"$PGDATA/pg_hba.conf"

    export PGPASSWORD=$POSTGRES_PASSWORD
    pg_ctl -D "$PGDATA" -o "-c listen_addresses=''" -w start
    if [ "$POSTGRES_DB" != postgres ]; then
        sql -d postgres --set db="$POSTGRES_DB" <<<'CREATE DATABASE :"db";'
    fi
    local file
    for file in /docker-entrypoint-initdb.d/*; do
        [ ! -e "$file" ] || run_init_file "$file"
    done
    pg_ctl -D "$PGDATA" -m fast -w stop
    unset PGPASSWORD
    printf '\nPostgreSQL init process complete; ready for start up.\n\n'
}

[ "${1:0:1}" != - ] || set -- postgres "$@"
if [ "$1" = postgres ] && ! asks_for_help "$@"; then
    if [ "$(id -u)" = 0 ]; then
        mkdir -p "$PGDATA" /var/run/postgresql
        chmod 0700 "$PGDATA"
        chmod 3775 /var/run/postgresql
        find "$PGDATA" /var/run/postgresql ! -user postgres -exec chown postgres {} +
        exec setpriv --reuid=postgres --regid=postgres --init-groups "${BASH_SOURCE[0]}" "$@"
    fi
    setting POSTGRES_PASSWORD
    setting POSTGRES_USER postgres
    setting POSTGRES_DB "$POSTGRES_USER"
    setting POSTGRES_INITDB_ARGS
    if [ -s "$PGDATA/PG_VERSION" ]; then
        printf '\nPostgreSQL Database directory appears to contain a database; Skipping initialization\n\n'
    else
        first_start
    fi
fi
exec "$@"
