# RabbitMQ under the user, and with the home, of the official image.
groupadd -r -g 999 rabbitmq
useradd -r -g rabbitmq -u 999 -d /var/lib/rabbitmq rabbitmq
apt-get install -y -qq --no-install-recommends rabbitmq-server
dpkg-query -W -f '${Version}\n' rabbitmq-server | grep -q "^$1\."

# The package has started nothing, but has made a cookie; each volume gets one of its own.
rm -rf /var/lib/rabbitmq /var/log/rabbitmq
install -d -o rabbitmq -g rabbitmq -m 0777 /var/lib/rabbitmq
install -d -o rabbitmq -g rabbitmq -m 0777 /var/log/rabbitmq
