# A submission server that keeps everything: OpenSMTPD, with a certificate authority of its own.
apt-get install -y -qq opensmtpd openssl
rm -f /etc/smtpd.conf /etc/aliases
echo mail >/etc/mailname
install -d -o mail -g mail -m 0700 /mail

# Names under which tests and the demo reach it.
names=DNS:mail,DNS:mail_smtp,DNS:smtp,DNS:tasks.mail_smtp,DNS:localhost,IP:127.0.0.1
install -d -m 0755 /etc/mail/tls
cd /etc/mail/tls || exit
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 7300 -subj '/CN=Skep test authority' \
    -addext keyUsage=critical,keyCertSign -keyout ca.key -out ca.crt
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=mail -keyout server.key -out server.csr
printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth\nkeyUsage=critical,digitalSignature\nbasicConstraints=critical,CA:FALSE\n' \
    "$names" >server.ext
openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 7300 -extfile server.ext -out server.crt
rm ca.key ca.srl server.csr server.ext
chmod 0600 server.key
# The server wants a list of authorities, although it passes nothing on.
ln -sf /etc/mail/tls/ca.crt /etc/ssl/certs/ca-certificates.crt
