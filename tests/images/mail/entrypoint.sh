#!/bin/sh
# Writes the one login from the environment, then runs the server.
set -eu
password=${MAIL_PASSWORD:-}
[ -z "${MAIL_PASSWORD_FILE:-}" ] || password=$(cat "$MAIL_PASSWORD_FILE")
if [ -z "${MAIL_USER:-}" ] || [ -z "$password" ]; then
    echo 'mail: MAIL_USER and MAIL_PASSWORD or MAIL_PASSWORD_FILE are needed' >&2
    exit 1
fi
(umask 077 && printf '%s %s\n' "$MAIL_USER" "$(printf %s "$password" | openssl passwd -6 -stdin)" >/run/mail-logins)
chown opensmtpd /run/mail-logins
chown mail:mail /mail
unset MAIL_PASSWORD
exec "$@"
