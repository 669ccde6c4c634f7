#!/bin/sh
# What can be seen of the official image's entry point: the cookie from the environment, the first account, and the drop
# to the user rabbitmq.
set -e
home=/var/lib/rabbitmq
if [ "$1" = rabbitmq-server ]; then
    if [ "$(id -u)" = 0 ]; then
        find "$home" /var/log/rabbitmq ! -user rabbitmq -exec chown rabbitmq:rabbitmq {} +
        exec setpriv --reuid=rabbitmq --regid=rabbitmq --init-groups "$0" "$@"
    fi
    if [ -n "${RABBITMQ_ERLANG_COOKIE:-}" ] && [ ! -e "$home/.erlang.cookie" ]; then
        (umask 0077 && printf %s "$RABBITMQ_ERLANG_COOKIE" >"$home/.erlang.cookie")
    fi
    if [ -n "${RABBITMQ_DEFAULT_USER:-}" ]; then
        {
            printf 'default_user = %s\n' "$RABBITMQ_DEFAULT_USER"
            printf 'default_pass = %s\n' "$RABBITMQ_DEFAULT_PASS"
        } >"$home/defaults.conf"
        export RABBITMQ_CONFIG_FILE="$home/defaults.conf"
    fi
fi
exec "$@"
