"""A proxy that stands for the hosts that OpenGradient's SDK has its model hub at, so that the unmodified SDK reaches an Isobit hub.

    python hub_proxy.py http://127.0.0.1:7470 FOLDER

makes a certificate authority in FOLDER/ca.pem, listens on a port that it prints, and passes what comes for api.opengradient.ai,
www.googleapis.com and securetoken.googleapis.com on to the URL. Nothing else is let through. Then

    HTTPS_PROXY=http://127.0.0.1:PORT REQUESTS_CA_BUNDLE=FOLDER/ca.pem NO_PROXY=127.0.0.1,localhost FIREBASE_API_KEY=any python ...

The authority is new each time, and its keys never leave the process; trust it nowhere else.
"""

import datetime
import http.client
import http.server
import pathlib
import socketserver
import ssl
import sys
import tempfile
import urllib.parse

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

HOSTS = ["api.opengradient.ai", "www.googleapis.com", "securetoken.googleapis.com"]
target = urllib.parse.urlparse(sys.argv[1])
folder = pathlib.Path(sys.argv[2])


def certificate(subject, issuer, key, signer, extensions):
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = (x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
               .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
               .not_valid_after(now + datetime.timedelta(days=30)))
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(signer, hashes.SHA256())


def name(text):
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
ca = certificate(name("isobit hub proxy"), name("isobit hub proxy"), ca_key, ca_key, [
    (x509.BasicConstraints(True, 0), True),
    (x509.KeyUsage(False, False, False, False, False, True, True, False, False), True),
    (x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), False)])
server_cert = certificate(name(HOSTS[0]), ca.subject, key, ca_key, [
    (x509.SubjectAlternativeName([x509.DNSName(h) for h in HOSTS]), False),
    (x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), False)])
PEM = serialization.Encoding.PEM
folder.mkdir(parents=True, exist_ok=True)
(folder / "ca.pem").write_bytes(ca.public_bytes(PEM))
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
with tempfile.NamedTemporaryFile() as chain:
    chain.write(server_cert.public_bytes(PEM) + key.private_bytes(
        PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    chain.flush()
    context.load_cert_chain(chain.name)


class Within(http.server.BaseHTTPRequestHandler):
    """What was said within the tunnel, passed on."""

    protocol_version = "HTTP/1.1"

    def pass_on(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        connection = http.client.HTTPConnection(target.hostname, target.port, timeout=300)
        connection.request(self.command, self.path, body, dict(self.headers))
        answer = connection.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        self.send_header("content-type", answer.headers.get("content-type", "application/json"))
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = pass_on

    def log_message(self, *_):
        pass


class Proxy(http.server.BaseHTTPRequestHandler):
    def do_CONNECT(self):
        if self.path.split(":")[0] not in HOSTS:
            self.send_error(403, "this proxy is for the model hub alone")
            return
        self.send_response(200)
        self.end_headers()
        with context.wrap_socket(self.connection, server_side=True) as tunnel:
            Within(tunnel, self.client_address, self.server)
        self.close_connection = True

    def log_message(self, *_):
        pass


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True


server = Server(("127.0.0.1", 0), Proxy)
print(server.server_port, flush=True)
server.serve_forever()
