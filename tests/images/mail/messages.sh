#!/bin/sh
# messages: the names of the messages that arrived, oldest first. messages NAME: one of them.
set -eu
[ -d /mail/new ] || exit 0
cd /mail/new
if [ $# = 0 ]; then
    ls -tr
else
    cat -- "$1"
fi
