# MariaDB under the user, and with the directories, of the official image.
groupadd -r -g 999 mysql
useradd -r -g mysql -u 999 -d /var/lib/mysql mysql
# no data directory of Debian's own
mkdir -p /etc/mysql
apt-get install -y -qq --no-install-recommends mariadb-server mariadb-client
mariadbd --version | grep -q "Ver $1\."

rm -rf /var/lib/mysql /usr/share/mysql/test /usr/lib/mysql/plugin/ha_connect.so
# Listen to other hosts, and keep nothing of Debian's in the option files.
rm -f /etc/mysql/mariadb.conf.d/*
printf '[mariadbd]\nskip-host-cache\nskip-name-resolve\n' >/etc/mysql/mariadb.conf.d/docker.cnf
install -d -o mysql -g mysql -m 1777 /var/lib/mysql
install -d -o mysql -g mysql -m 1777 /run/mysqld
install -d /docker-entrypoint-initdb.d
