#!/bin/sh
# Options alone mean "redis-server with these options"; root drops to the user redis.
set -e
case ${1:-} in -* | *.conf) set -- redis-server "$@" ;; esac
if [ "$1" = redis-server ]; then
    if [ "$(id -u)" = 0 ]; then
        find . ! -user redis -exec chown redis {} +
        exec setpriv --reuid=redis --regid=redis --init-groups "$0" "$@"
    fi
    [ "$(umask)" != 0022 ] || umask 0077
    # Debian's build protects itself by refusing other hosts; the official image's does not.
    case " $* " in *' --protected-mode '* | *.conf*) ;; *) set -- "$@" --protected-mode no ;; esac
fi
exec "$@"
