# The programs of Prometheus and Alertmanager, without the web assets that Debian's packages depend on.
cd /tmp || exit
apt-get download -qq prometheus prometheus-alertmanager
for package in prometheus_*.deb prometheus-alertmanager_*.deb; do
    dpkg -x "$package" /tmp/unpacked
done
install -m 0755 unpacked/usr/bin/prometheus unpacked/usr/bin/promtool /usr/local/bin/
install -m 0755 unpacked/usr/bin/prometheus-alertmanager /usr/local/bin/alertmanager
install -m 0755 unpacked/usr/bin/amtool /usr/local/bin/
install -d /usr/share/prometheus
cp -r unpacked/usr/share/prometheus/alertmanager /usr/share/prometheus/
rm -rf /tmp/unpacked /tmp/*.deb
install -d -o nobody -g nogroup /prometheus /alertmanager
