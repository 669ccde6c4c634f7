#!/usr/bin/env bash
# What can be seen of the official image's entry point: variables of both names and their _FILE twins, the first start,
# and the drop to the user mysql.
set -Eeuo pipefail

data=/var/lib/mysql

# setting NAME: MARIADB_NAME, else MYSQL_NAME, from itself or from the file that its _FILE twin names.
setting() {
    local product variable file
    for product in MARIADB MYSQL; do
        variable=${product}_$1
        file=${variable}_FILE
        if [ -n "${!variable:-}" ]; then
            printf %s "${!variable}"
            return
        elif [ -n "${!file:-}" ]; then
            printf %s "$(<"${!file}")"
            return
        fi
    done
}

quoted() { sed "s/'/''/g; s/\\\\/\\\\\\\\/g" <<<"$1"; }

first_start() {
    local password database user
    password=$(setting ROOT_PASSWORD)
    database=$(setting DATABASE)
    user=$(setting USER)
    if [ -z "$password" ] && [ -z "${MARIADB_ALLOW_EMPTY_ROOT_PASSWORD:-${MYSQL_ALLOW_EMPTY_PASSWORD:-}}" ]; then
        echo "error: Database is uninitialized and password option is not specified" >&2
        exit 1
    fi
    mariadb-install-db --datadir="$data" --skip-test-db --auth-root-authentication-method=normal --rpm >/dev/null
    {
        printf "FLUSH PRIVILEGES;\nSET PASSWORD FOR 'root'@'localhost' = PASSWORD('%s');\n" "$(quoted "$password")"
        printf "CREATE USER 'root'@'%%' IDENTIFIED BY '%s';\n" "$(quoted "$password")"
        echo "GRANT ALL ON *.* TO 'root'@'%' WITH GRANT OPTION;"
        [ -z "$database" ] || printf "CREATE DATABASE \`%s\`;\n" "$database"
        if [ -n "$user" ]; then
            printf "CREATE USER '%s'@'%%' IDENTIFIED BY '%s';\n" "$(quoted "$user")" "$(quoted "$(setting PASSWORD)")"
            [ -z "$database" ] || printf "GRANT ALL ON \`%s\`.* TO '%s'@'%%';\n" "$database" "$(quoted "$user")"
        fi
    } | mariadbd --bootstrap --datadir="$data" >/dev/null
}

[ "${1:0:1}" != - ] || set -- mariadbd "$@"
if [ "$1" = mariadbd ]; then
    if [ "$(id -u)" = 0 ]; then
        find "$data" /run/mysqld ! -user mysql -exec chown mysql:mysql {} +
        exec setpriv --reuid=mysql --regid=mysql --init-groups "$0" "$@"
    fi
    [ -d "$data/mysql" ] || first_start
fi
exec "$@"
