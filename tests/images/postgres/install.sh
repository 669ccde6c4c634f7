# PostgreSQL with the locale, the user and the directories of the official image.
groupadd -r -g 999 postgres
useradd -r -g postgres -u 999 -d /var/lib/postgresql -s /bin/bash postgres

apt-get install -y -qq locales postgresql-common
localedef -i en_US -c -f UTF-8 -A /usr/share/locale/locale.alias en_US.UTF-8 || localedef -i en_US -c -f UTF-8 en_US.UTF-8
# no cluster of Debian's own
mkdir -p /etc/postgresql-common
echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
apt-get install -y -qq "postgresql-$1"

sample=/usr/share/postgresql/$1/postgresql.conf.sample
sed -i "s/^#listen_addresses = 'localhost'/listen_addresses = '*'/; s/^#jit = on/jit = off/" "$sample"
grep -q "^listen_addresses = '\*'" "$sample"
grep -q '^jit = off' "$sample"

# The just-in-time compiler is half of the image.
rm -rf /usr/lib/*/libLLVM* /usr/lib/llvm-* /usr/lib/postgresql/"$1"/lib/bitcode /usr/lib/postgresql/"$1"/lib/llvmjit*
rm -rf /usr/share/i18n /usr/lib/locale/C.utf8.dpkg* /var/lib/postgresql/*

install -d -o postgres -g postgres -m 1777 /var/lib/postgresql/data
install -d -o postgres -g postgres -m 3777 /var/run/postgresql
install -d /docker-entrypoint-initdb.d
