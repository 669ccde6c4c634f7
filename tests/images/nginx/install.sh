# nginx with the official image's user, directories and log places.
groupadd -r -g 101 nginx
useradd -r -g nginx -u 101 -d /nonexistent -s /bin/false nginx
apt-get install -y -qq nginx-light curl
nginx -v 2>&1 | grep -q "nginx/$1\."
rm -rf /etc/nginx/sites-* /etc/nginx/modules-enabled/* /etc/nginx/snippets /var/www
install -d /etc/nginx/conf.d /docker-entrypoint.d /usr/share/nginx/html
install -d -o nginx /var/cache/nginx
ln -sf /dev/stdout /var/log/nginx/access.log
ln -sf /dev/stderr /var/log/nginx/error.log
