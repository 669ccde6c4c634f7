# Redis under the official image's user.
groupadd -r -g 999 redis
useradd -r -g redis -u 999 -d /data redis
apt-get install -y -qq redis-server redis-tools
redis-server --version | grep -q "v=$1\."
install -d -o redis -g redis /data
